"""The discrete action: an explicit long step of kicks and drifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from scipy.integrate import newton_cotes
from torch import Tensor, nn

from actionlearn.errors import InvalidInput, NonFinite
from actionlearn.maps.guard import Masses, SystemGuard
from actionlearn.potentials.protocol import Potential, as_potentials, forces_of, weights_seen
from actionlearn.state import PhaseState
from actionlearn.stepping import guarded
from actionlearn.units import FEMTOSECOND


def kick_weights(stages: int) -> list[float]:
    """Closed Newton-Cotes weights of s + 1 kicks, the first half of them: 1/2; 1/6, 4/6; 1/8, 3/8; ….

    To second order in h they are what the exact action of any potential gives each kick for s = 1 and 2.
    """
    return [float(w) / stages for w in newton_cotes(stages)[0][: stages // 2 + 1]]


class DiscreteAction(nn.Module):
    """One long step from a learned discrete action with s − 1 inner points.

        S_d(q₀ … q_s) = Σ_k m|q_{k+1} − q_k|² / (2h/s) − Σ_k h U_k(q_k),    U_k = U_{s−k}

    is stationary along kicks and drifts, K D K D … K:

        p += h F_k(q),    q += (h/s) p/m,    F_k = −∂U_k/∂q

    | symbol    | variable          | shape         | unit |
    |-----------|-------------------|---------------|------|
    | U_0 … U_⌊s/2⌋ | `potentials`  | one each      | eV   |
    | s         | `stages`          |               |      |
    | h         | `step_fs`         |               | fs   |
    | F         | `forces(state)`   | (atoms, dims) | eV/Å |

    Symplectic and reversible for any U_k. Explicit, s gradients a step: the last kick of a step is the first of the
    next one while nothing else changes the positions. Total momentum is conserved if the U_k are invariant under
    translation, angular momentum if under rotation. Marsden and West, Acta Numerica 10 (2001) 357, §1.

    `extra` potentials, not learned, join every kick with Newton-Cotes weights: biases, restraints, external fields.
    """

    kind = "discrete"

    def __init__(
        self,
        potentials: Potential | Sequence[Potential],
        *,
        step_fs: float,
        stages: int | None = None,
        extra: Sequence[Potential] = (),
        species: Sequence[int] = (),
        masses: Masses | None = None,
    ) -> None:
        """Kick potentials U_0 … U_⌊s/2⌋; with `stages` left out, one potential means s = 1 and two s = 2."""
        super().__init__()
        potentials, extra = as_potentials(potentials), as_potentials(extra)
        if stages is None:
            stages = {1: 1, 2: 2}.get(len(potentials), 0)
        if stages < 1 or len(potentials) != stages // 2 + 1:
            raise InvalidInput(
                f"{len(potentials)} kick potentials with stages={stages}: a step of s stages takes s//2 + 1 potentials"
            )
        if not 0 < step_fs < float("inf"):
            raise InvalidInput(f"step_fs must be positive and finite, got {step_fs}")
        self.potentials, self.extra = potentials, extra
        self.step_fs, self.stages = float(step_fs), stages
        self.species, self.masses = tuple(species), dict(masses or {})
        self.guard = SystemGuard(self.species, self.masses)
        # registered so that parameters() and to() reach networks; potentials need not be modules
        self.parts = nn.ModuleList({id(u): u for u in (*potentials, *extra) if isinstance(u, nn.Module)}.values())
        self._weights = kick_weights(stages)
        self._last: tuple[Any, ...] | None = None

    def forward(self, state: PhaseState) -> PhaseState:
        """One step."""
        return self.step(state)

    @guarded
    def step(self, state: PhaseState, n: int = 1) -> PhaseState:
        """N long steps."""
        self.guard.check(state)
        force = self._first_force(state)
        for _ in range(n):
            _, state, force = self._path(state, force)
        if not bool(torch.isfinite(state.momenta).all()):
            raise NonFinite(
                f"the {self.kind} map of {self.step_fs:g} fs gave momenta that are not finite within {n} step(s): "
                "the trajectory has blown up, shorten the step, or start from a relaxed structure"
            )
        self._remember(state, force)
        return state

    def path(self, state: PhaseState) -> tuple[list[PhaseState], PhaseState]:
        """The points q_0 … q_s of one step, each with the momenta that arrive there, and the state after it."""
        points, end, _ = self._path(state, self._first_force(state))
        return points, end

    def action(self, points: Sequence[PhaseState]) -> Tensor:
        """S_d of the points of a `path`, (systems,), Å·sqrt(u·eV)."""
        h, s = self.step_fs * FEMTOSECOND, self.stages
        S = points[0].positions.new_zeros(points[0].n_systems)
        for k, point in enumerate(points):
            stage = min(k, s - k)
            U = self.potentials[stage].energy(point)
            for potential in self.extra:
                U = U + self._weights[stage] * potential.energy(point)
            S = S - h * U
            if k:
                S = S + h / s * point.kinetic_energy()
        return S

    def stage_force(self, stage: int, state: PhaseState) -> Tensor:
        """F_k of one stage, extra potentials included, eV/Å."""
        force = forces_of(self.potentials[stage], state)
        for potential in self.extra:
            force = force + self._weights[stage] * forces_of(potential, state)
        return force

    def forget(self) -> None:
        """Drop the kept first force; call it after changing a potential that is no module in place."""
        self._last = None

    def _path(self, state: PhaseState, force: Tensor) -> tuple[list[PhaseState], PhaseState, Tensor]:
        """Kicks and drifts of one step from its first force: points, end and the last force."""
        h, s = self.step_fs * FEMTOSECOND, self.stages
        points = [state]
        for k in range(s):
            points.append(points[-1].kick(h * force).drift(h / s))
            force = self.stage_force(min(k + 1, s - k - 1), points[-1])
        return points, points[-1].kick(h * force), force

    def _first_force(self, state: PhaseState) -> Tensor:
        if self._last is not None and not (torch.is_grad_enabled() and self._asks_gradients(state)):
            q, version, cell, numbers, weights, force = self._last
            same = q is state.positions and version == q._version and cell is state.cell and numbers is state.numbers
            if same and weights == weights_seen(self):
                return force
        return self.stage_force(0, state)

    def _remember(self, state: PhaseState, force: Tensor) -> None:
        """Keep the last force for the next step, unless gradients flow through it."""
        q = state.positions
        key = (q, q._version, state.cell, state.numbers, weights_seen(self))
        self._last = None if force.requires_grad else (*key, force)

    def _asks_gradients(self, state: PhaseState) -> bool:
        return state.positions.requires_grad or any(w.requires_grad for w in self.parameters())
