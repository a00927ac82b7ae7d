"""How many momenta can vary: what divides the kinetic energy in a temperature."""

from __future__ import annotations

import torch
from torch import Tensor

from actionlearn.state import PhaseState


def at_rest_as_a_whole(state: PhaseState) -> Tensor:
    """Which systems have zero total momentum to rounding, (systems,); never one with fixed atoms, or of one atom.

    A state is looked at as it is. In a system that conserves its momentum the answer stays the same; in an external
    field the total momentum passes through zero, but is not found there.
    """
    p = state.momenta.detach()
    total = state.sum_by_system(p).abs().amax(1)
    size = state.sum_by_system(p.abs()).amax(1)
    several = (state.atoms_per_system > 1) & (state.sum_by_system(state.fixed.to(torch.int64)) == 0)
    return several & (total <= torch.finfo(p.dtype).eps ** 0.5 * size)


def degrees_of_freedom(state: PhaseState) -> Tensor:
    """Momenta that can vary in each system, (systems,): d for each free atom, less d where the whole is at rest."""
    dims = state.positions.shape[1]
    free = state.sum_by_system((~state.fixed).to(torch.int64))
    return dims * (free - at_rest_as_a_whole(state).to(torch.int64))


def without_total_momentum(state: PhaseState, momenta: Tensor) -> Tensor:
    """Momenta seen from the centre of mass of each system, p − m·P/M."""
    m = state.masses.unsqueeze(1)
    velocity = state.sum_by_system(momenta) / state.sum_by_system(m)
    return momenta - m * velocity[state.system]
