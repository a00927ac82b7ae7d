"""The equations of one midpoint step as rows of numbers: scaled, padded, ready for a solver."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from actionlearn.state import PhaseState

Derivatives = Callable[[PhaseState], tuple[Tensor, Tensor]]


class Rows:
    """Lays a pair of (atoms, dims) tensors out as one row per system, (systems, dofs), shorter ones padded with 0."""

    def __init__(self, state: PhaseState) -> None:
        """Find the place of every atom."""
        counts = state.atoms_per_system
        first = torch.cumsum(counts, 0) - counts
        self.systems, self.most, self.dims = state.n_systems, int(counts.max()), state.positions.shape[1]
        self.slot = state.system * self.most + torch.arange(state.n_atoms, device=counts.device) - first[state.system]

    def join(self, q: Tensor, p: Tensor) -> Tensor:
        """The pair as rows."""
        both = torch.cat([q, p], dim=1)
        rows = both.new_zeros(self.systems * self.most, 2 * self.dims).index_copy(0, self.slot, both)
        return rows.view(self.systems, -1)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows back to the pair."""
        both = rows.reshape(self.systems * self.most, 2 * self.dims)[self.slot]
        return both[:, : self.dims], both[:, self.dims :]


class MidpointEquation:
    """One step as a fixed point y = g(z + y) of the half increments, in units of sqrt(eV).

        y = (sqrt(m)·Δq/2h, Δp/(2·sqrt(m)))
        g:  Δp = −∂S/∂q̄,  Δq = h·(p + Δp/2)/m + h·∂G/∂p̄

    The drift takes the momenta that the same trial gives. The solution is the same as with those of the trial
    before, the error of plain iteration is multiplied by tan²(ωh/2) in place of tan(ωh/2) where G does not depend on
    the momenta, and an accelerated one needs half the evaluations.
    """

    def __init__(self, derivatives: Derivatives, state: PhaseState, step: float) -> None:
        """`derivatives` gives h·∂G/∂p̄ and −h·∂G/∂q̄ at a midpoint; the step is in ASE units."""
        self.derivatives = derivatives
        self.state = state
        self.step = step
        self.rows = Rows(state)
        self.weight = state.masses.sqrt().unsqueeze(1)
        self.origin = self._scaled(state.positions, state.momenta)

    def _scaled(self, q: Tensor, p: Tensor) -> Tensor:
        return self.rows.join(self.weight * q / self.step, p / self.weight)

    def halves(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Δq/2 and Δp/2 of y."""
        q, p = self.rows.split(y)
        return self.step * q / self.weight, self.weight * p

    def __call__(self, y: Tensor) -> Tensor:
        """g(z + y); one gradient of the action."""
        half_q, half_p = self.halves(y)
        state = self.state
        learned, dp = self.derivatives(state.moved(state.positions + half_q, state.momenta + half_p))
        dq = self.step * state.inverse_masses * (state.momenta + 0.5 * dp) + learned
        return self._scaled(0.5 * dq, 0.5 * dp)

    def guess_from(self, end: PhaseState) -> Tensor:
        """The y of a predicted end of the step; fixed atoms stay whatever the prediction says."""
        dq, dp = end.positions - self.state.positions, end.momenta - self.state.momenta
        if self.state.has_fixed:
            held = self.state.fixed.unsqueeze(1)
            dq, dp = dq.masked_fill(held, 0.0), dp.masked_fill(held, 0.0)
        return self._scaled(0.5 * dq, 0.5 * dp)

    def free_flight(self) -> Tensor:
        """The y of q + h·p/m."""
        return self.guess_from(self.state.drift(self.step))

    def thermal(self) -> Tensor:
        """|p/sqrt(m)| per system, the natural length of y."""
        return self._scaled(torch.zeros_like(self.state.positions), self.state.momenta).norm(dim=1)

    def floor(self, tolerance: float) -> Tensor:
        """The length of y below which rounding of the positions alone exceeds the tolerance."""
        return self.origin.norm(dim=1) * torch.finfo(self.origin.dtype).eps / tolerance

    def fastest_turn(self, rounds: int = 30) -> float:
        """The largest ωh in the batch, from tan(ωh/2) = spectral radius of plain iteration; nan if it cannot be had.

        Power iteration with differences of g, its drift taken from the old momenta again: that Jacobian is skew in
        these units, two applications have the eigenvalues −tan²(ωh/2).
        """
        mobile = (self.state.inverse_masses > 0).to(self.origin).expand_as(self.state.positions)
        generator = torch.Generator().manual_seed(0)
        v = torch.randn(self.origin.shape, dtype=self.origin.dtype, generator=generator).to(self.origin.device)
        v = v * self.rows.join(mobile, mobile)
        at = self.free_flight()
        base = self.old_drift(at)
        small = 1e-5 * float(at.norm()) + 1e-8
        growth = math.nan
        for _ in range(rounds):
            start = float(v.norm())
            for _ in range(2):
                length = v.norm()
                if not (0.0 < float(length) < math.inf):
                    return 0.0 if float(length) == 0.0 else math.nan
                v = (self.old_drift(at + small * v / length) - base) * (length / small)
            growth = math.sqrt(float(v.norm()) / start)
            v = v / v.norm()
        return 2.0 * math.atan(growth)

    def old_drift(self, y: Tensor) -> Tensor:
        """G with the drift of the momenta in y."""
        g = self(y)
        _, late = self.rows.split(y - g)
        return g + self.rows.join(0.5 * late * self.weight.square() * self.state.inverse_masses, torch.zeros_like(late))
