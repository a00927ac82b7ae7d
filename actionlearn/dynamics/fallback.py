"""A map with a base potential behind it, for the stretches that the map cannot be trusted with."""

from __future__ import annotations

import math
from typing import Any

import torch

from actionlearn.dynamics.ensemble import Map
from actionlearn.dynamics.fit import unsound_atoms
from actionlearn.dynamics.metropolis import extra_potentials
from actionlearn.errors import BlownUp, NonFinite, NotConverged
from actionlearn.maps.corrected import CorrectedVerlet
from actionlearn.potentials.protocol import Potential
from actionlearn.reference.frequency import highest_frequency
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND

STEPS_PER_PERIOD = 20
"""Small steps in the shortest period, 2π/ω_max of the system where it is taken over."""

FEWEST = 4
"""Small steps in a long one, at least."""


class Fallback:
    """Steps of a map, or of velocity Verlet on a base potential for the systems where the map fails.

    A call of `step` is a stretch: a system whose stretch ends with numbers that are not finite, with atoms that fly
    apart, or with an equation that has no solution, takes all of it anew from its start, h/m at a time on the base
    potential and the map's extra potentials. So does, without trying, a system that is marked in `taken_over`. What
    an ensemble does around the steps is the same for both.
    """

    def __init__(self, model: Map, base: Potential, *, rescues: bool) -> None:
        """The map first, the base potential behind it; where it does not rescue, what fails raises as ever."""
        self.model, self.base, self.rescues = model, base, rescues
        self.step_fs, self.kind = model.step_fs, model.kind
        self.taken_over: list[bool] = []  # by system; empty for none
        self.takeovers = 0
        self.steps = 0
        self._before: list[bool] = []  # systems whose last stretch was the base potential's

    def step(self, state: PhaseState, n: int = 1) -> PhaseState:
        """N long steps of every system."""
        systems = state.n_systems
        marked = self.taken_over or [False] * systems
        after = None if any(marked) else self._tried(state, n)
        if after is None and systems == 1:
            marked = [True]
        elif after is not None and systems > 1 and self.rescues:
            marked = (after.sum_by_system(unsound_atoms(after, self.model).to(torch.int64)) > 0).tolist()
        if after is None or any(marked):
            after, marked = self._one_by_one(state, n, marked, after)
        before = self._before or [False] * systems
        self.takeovers += sum(now and not then for now, then in zip(marked, before, strict=True))
        self.steps += n * sum(marked)
        self._before = marked
        return after

    def memory(self) -> dict[str, Any]:
        """What is counted and who is taken over, for a restart."""
        names = ("taken_over", "takeovers", "steps", "_before")
        return {name: getattr(self, name) for name in names}

    def recall(self, memory: dict[str, Any]) -> None:
        """Go on where `memory` stopped."""
        for name, value in memory.items():
            setattr(self, name, value)

    def _tried(self, state: PhaseState, n: int) -> PhaseState | None:
        """The map's own steps, or None where they fail; of several systems some may be unsound."""
        try:
            after = self.model.step(state, n)
        except (NonFinite, BlownUp, NotConverged):
            if not self.rescues:
                raise
            return None
        if self.rescues and state.n_systems == 1 and bool(unsound_atoms(after, self.model).any()):
            return None
        return after

    def _one_by_one(
        self, state: PhaseState, n: int, marked: list[bool], together: PhaseState | None
    ) -> tuple[PhaseState, list[bool]]:
        """Every system by itself, unless all went well `together` for it, and which of them were taken over."""
        ends, taken = [], []
        for k, mark in enumerate(marked):
            one = state.select(k)
            after = None if mark else self._tried(one, n) if together is None else together.select(k)
            taken.append(after is None)
            ends.append(self._on_base(one, n) if after is None else after)
        after = state.moved(torch.cat([e.positions for e in ends]), torch.cat([e.momenta for e in ends]))
        return after, taken

    def _on_base(self, state: PhaseState, n: int) -> PhaseState:
        """N long steps in small ones; the length of these follows from the state alone, so that runs repeat."""
        omega = highest_frequency(self.base, state, generator=torch.Generator().manual_seed(0))
        turns = self.step_fs * FEMTOSECOND * omega / (2.0 * math.pi)
        m = max(FEWEST, math.ceil(STEPS_PER_PERIOD * turns)) if math.isfinite(turns) else FEWEST
        verlet = CorrectedVerlet(self.base, step_fs=self.step_fs / m, extra=extra_potentials(self.model))
        return verlet.step(state, n * m)
