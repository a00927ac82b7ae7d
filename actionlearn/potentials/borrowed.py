"""Derivatives for forces that have none, borrowed from another potential."""

from __future__ import annotations

import torch

from actionlearn.errors import NotDifferentiable
from actionlearn.potentials.protocol import Potential
from actionlearn.state import PhaseState


class BorrowedDerivatives:
    """The forces of a base potential with the derivatives of a force-matched network.

        F(q) = F_base(q₀) + F_0(q) − F_0(q₀),    q₀ = q held constant

    The value is that of the base potential; only gradients pass through the network. In a corrected map they carry
    what an early kick does to the later forces, where the network's few per cent of error do not matter.
    """

    def __init__(self, base: Potential) -> None:
        """Forces of `base`; derivatives of `network`, once that is there."""
        self.base = base
        self.network: Potential | None = None

    def energy(self, state: PhaseState) -> torch.Tensor:
        """That of the base potential."""
        return self.base.energy(state.detach())

    def forces(self, state: PhaseState) -> torch.Tensor:
        """Those of the base potential."""
        F = self.base.forces(state.detach())
        if self.network is None or not torch.is_grad_enabled():
            return F
        F_0 = self.network.forces(state)
        return F + (F_0 - F_0.detach())


def has_derivatives(potential: Potential, state: PhaseState) -> bool:
    """Whether forces of this potential can be differentiated."""
    state = state.detach()
    q = state.positions.clone().requires_grad_()
    with torch.enable_grad():
        F = potential.forces(state.moved(q, state.momenta))
        if not F.requires_grad:
            return False
        try:
            torch.autograd.grad(F.sum(), q, allow_unused=True)
        except NotDifferentiable:
            return False
    return True
