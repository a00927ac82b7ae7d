"""Bit-exact reversible runs of the explicit map, on an integer lattice of phase space."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from actionlearn.errors import InvalidInput, NonFinite
from actionlearn.maps.discrete import DiscreteAction
from actionlearn.neighbours import without_history
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND


@dataclasses.dataclass(frozen=True, eq=False)
class LatticeState:
    """Positions and momenta as whole numbers of quanta; everything else as in `frame`."""

    positions: Tensor
    momenta: Tensor
    frame: PhaseState

    def flip(self) -> LatticeState:
        """The momenta reversed."""
        return LatticeState(self.positions, -self.momenta, self.frame)


class LatticeMap:
    """The kicks and drifts of a `DiscreteAction` with every increment rounded once to an integer.

        P += round(h F_k(Q·a) / b),    Q += round((h/s) (P·b/m) / a)

    Each increment depends only on what it does not change, so subtracting it again gives back the same integers:
    forward n, flip, forward n, flip is the identity to the last bit, whatever the forces, as long as the same
    positions always give the same forces. For that, neighbours are searched anew at every force call.

    | symbol | variable       | default       | unit        |
    |--------|----------------|---------------|-------------|
    | a      | `quantum_q`    | 2⁻⁴⁰ ≈ 9e-13  | Å           |
    | b      | `quantum_p`    | 2⁻⁴⁰          | sqrt(u·eV)  |

    64-bit integers then reach ±8 million Å. Rounding acts as noise of a/√12 a drift, far below the error of any
    trajectory, but the rounded map is symplectic only to that noise.
    """

    def __init__(self, action: DiscreteAction, quantum_q: float = 2.0**-40, quantum_p: float = 2.0**-40) -> None:
        """Run `action` on a lattice with these spacings."""
        if not isinstance(action, DiscreteAction):
            raise InvalidInput(
                f"a lattice takes kicks and drifts, a DiscreteAction or CorrectedVerlet, not {type(action).__name__}: "
                "Verlet is DiscreteAction of half the potential, or CorrectedVerlet without correction"
            )
        if not (quantum_q > 0 and quantum_p > 0):
            raise InvalidInput(f"lattice spacings must be positive, got {quantum_q} and {quantum_p}")
        self.action, self.quantum_q, self.quantum_p = action, quantum_q, quantum_p

    def enter(self, state: PhaseState) -> LatticeState:
        """The nearest lattice point."""
        self.action.guard.check(state)
        Q = _to_integer(state.positions / self.quantum_q)
        return LatticeState(Q, _to_integer(state.momenta / self.quantum_p), state)

    def leave(self, lattice: LatticeState) -> PhaseState:
        """The state at a lattice point."""
        dtype = lattice.frame.positions.dtype
        q = lattice.positions.to(dtype) * self.quantum_q
        return lattice.frame.moved(q, lattice.momenta.to(dtype) * self.quantum_p)

    @torch.no_grad()
    def step(self, lattice: LatticeState, n: int = 1) -> LatticeState:
        """N long steps in whole numbers."""
        h, s = self.action.step_fs * FEMTOSECOND, self.action.stages
        free = (~lattice.frame.fixed).unsqueeze(1)
        drift = (h / s) * lattice.frame.inverse_masses
        Q, P = lattice.positions, lattice.momenta

        def kick(stage: int) -> Tensor:
            state = self.leave(LatticeState(Q, P, lattice.frame))
            with without_history():
                force = self.action.stage_force(stage, state)
            return _to_integer(h * force / self.quantum_p) * free

        increment = kick(0)
        for _ in range(n):
            for k in range(s):
                P = P + increment
                Q = Q + _to_integer(drift * P.to(drift.dtype) * (self.quantum_p / self.quantum_q))
                increment = kick(min(k + 1, s - k - 1))
            P = P + increment
        return LatticeState(Q, P, lattice.frame)


def _to_integer(values: Tensor) -> Tensor:
    """Round to int64; values beyond it are an error, not a wrap."""
    if not bool((values.abs() < 2.0**62).all()):
        raise NonFinite(
            "a lattice step left the range of 64-bit integers: the trajectory has blown up, take a smaller step"
        )
    return values.round().to(torch.int64)
