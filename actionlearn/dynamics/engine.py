"""Runs of a map in an ensemble: one system or a batch of replicas of any sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from actionlearn.dynamics.ensemble import Ensemble, Map, Microcanonical, positive_whole
from actionlearn.dynamics.fallback import Fallback
from actionlearn.dynamics.familiar import outside_of
from actionlearn.dynamics.fit import check_fit, check_sound
from actionlearn.dynamics.frames import SystemFiles
from actionlearn.dynamics.metropolis import GeneralisedHMC
from actionlearn.dynamics.record import Record
from actionlearn.dynamics.restart import read_restart, weights_of, without_memory, write_restart
from actionlearn.dynamics.writer import Writer
from actionlearn.errors import DataError, InvalidInput
from actionlearn.potentials.protocol import Potential, as_potentials
from actionlearn.state import PhaseState

LOOK_EVERY = 20
"""Moves after which a run is looked at in any case: for numbers that are not finite, and mean temperatures."""

ENERGY_EVERY = 100
"""Moves between two conserved energies, where they are followed."""


class Engine:
    """A state on its way: advanced, looked at, written to disk and read back."""

    def __init__(
        self,
        model: Map,
        state: PhaseState,
        ensemble: Ensemble | None = None,
        *,
        potential: Potential | None = None,
        drift_limit: float | None = None,
        policy: str = "raise",
        on_uncertain: str = "warn",
        fallback: Potential | None = None,
    ) -> None:
        """See that the map fits the system and that the ensemble can work on both."""
        if not hasattr(model, "step") or not hasattr(model, "step_fs"):
            raise InvalidInput(
                f"model must be a map with step(state, n) and step_fs, got {type(model).__name__}: "
                "load one with al.load, or build one such as al.Verlet(potential, step_fs=…)"
            )
        self.model, self.ensemble = model, ensemble or Microcanonical()
        self.move_fs = model.step_fs * self.ensemble.steps_per_move
        self.record = Record(
            self.move_fs,
            potential=potential,
            drift_limit=drift_limit,
            policy=policy,
            on_uncertain=on_uncertain,
            familiar=outside_of(model),
        )
        self.fallback: Fallback | None = None
        if "fallback" in (policy, on_uncertain):
            self.fallback = self._with_base(fallback or potential or getattr(model, "base", None), policy == "fallback")
        self.state = state
        check_fit(model, state)
        with torch.no_grad():
            self.ensemble.begin(model, state)
        self.state = without_memory(state, model)

    def _with_base(self, base: Potential | None, rescues: bool) -> Fallback:
        if isinstance(self.ensemble, GeneralisedHMC):
            raise InvalidInput(
                "exact sampling needs no fallback, which would bias it: proposals that fail are rejected and counted; "
                "leave the policy at 'raise' or 'warn'"
            )
        if base is None:
            raise InvalidInput("a fallback needs a base potential to go on with: give fallback=… or potential=…")
        (base,) = as_potentials([base])
        return Fallback(self.model, base, rescues=rescues)

    @property
    def moves(self) -> int:
        """Moves made so far."""
        return self.record.steps

    def until_look(self) -> int:
        """Moves until the run is to be looked at."""
        return LOOK_EVERY - self.moves % LOOK_EVERY

    def advance(self, n: int) -> None:
        """N moves; the state stays as it was if one of them fails."""
        if self.moves == 0:
            self.record.judge_familiarity(self.state)
            self._take_over()
        self.record.start_clock()
        with torch.no_grad():
            after = self.ensemble.advance(self.fallback or self.model, self.state, n)
        self.record.stepped(n)
        check_sound(after, self.model)
        self.state = after
        if self.moves % LOOK_EVERY == 0:
            self.record.look(after, self.ensemble, energy=self.moves % ENERGY_EVERY == 0)
            self._take_over()

    def _take_over(self) -> None:
        if self.fallback is not None:
            self.fallback.taken_over = self.record.taken_over(self.state.n_systems)

    def take(self, state: PhaseState) -> None:
        """Go on from another state, after somebody changed the system; what energy that took is no drift."""
        check_fit(self.model, state)
        self.record.changed(self.state, state)
        self.state = state

    def run(self, n: int, every: int, observe: Callable[[], None]) -> None:
        """N moves, calling `observe` after each multiple of `every`."""
        end = self.moves + n
        while self.moves < end:
            self.advance(min(self.until_look(), every - self.moves % every, end - self.moves))
            if self.moves % every == 0:
                observe()

    def save(self, path: str | Path) -> None:
        """Write a restart file and go on as from it."""
        content = {
            "made_by": self._made_by(),
            "memory": self.ensemble.memory(),
            "record": self.record.memory(),
            "fallback": None if self.fallback is None else self.fallback.memory(),
        }
        write_restart(path, self.state, content)
        self.state = without_memory(self.state, self.model)

    def load(self, path: str | Path) -> None:
        """Go on from a restart file."""
        state, content = read_restart(path)
        state = state.to(device=self.state.positions.device)
        there, mine = content["made_by"], self._made_by()
        for name in {**mine, **there}:
            if there.get(name) != mine.get(name):
                raise DataError(
                    f"{path} was written with {name} {there.get(name)!r}, this run has {mine.get(name)!r}: "
                    "go on as it was begun, or delete it to start the run afresh"
                )
        for name in ("numbers", "system", "fixed", "masses"):
            if not torch.equal(getattr(state, name), getattr(self.state, name)):
                raise DataError(f"{path} was written for other atoms than these: their {name} differ")
        self.ensemble.recall(content["memory"])
        self.record.recall(content["record"])
        if self.fallback is not None and content.get("fallback") is not None:
            self.fallback.recall(content["fallback"])
        self.state = without_memory(state, self.model)

    def _made_by(self) -> dict[str, Any]:
        """What must stay the same for a run to be one run."""
        return {
            "step_fs": self.move_fs,
            "kind": self.model.kind,
            "ensemble": type(self.ensemble).__name__,
            **self.ensemble.settings(),
            "weights": weights_of(self.model),
        }

    def summary(self) -> dict[str, Any]:
        """Steps, speed, temperatures, drift and what the ensemble has to say."""
        found = self.record.summary(self.state, self.model, self.ensemble)
        if self.fallback is not None:
            found["fallbacks"], found["fallback_steps"] = self.fallback.takeovers, self.fallback.steps
        return found


@dataclasses.dataclass(frozen=True)
class Simulated:
    """Where a simulation ended, and its summary."""

    state: PhaseState
    summary: dict[str, Any]

    @property
    def states(self) -> list[PhaseState]:
        """The systems one by one."""
        return self.state.unbatch()


def simulate(
    model: Map,
    states: PhaseState | Sequence[PhaseState],
    steps: int,
    *,
    ensemble: Ensemble | None = None,
    observe: Callable[[int, PhaseState], None] | None = None,
    trajectory: str | Path | None = None,
    every: int = 100,
    potential: Potential | None = None,
    drift_limit: float | None = None,
    policy: str = "raise",
    on_uncertain: str = "warn",
    fallback: Potential | None = None,
    restart: str | Path | None = None,
    restart_every: int = 1000,
) -> Simulated:
    """Move one system, or replicas of any sizes at once, by a number of steps.

    `observe(step, state)` is called at the start and after every `every` steps with the whole batch, and a frame is
    written to `trajectory` (.xyz, .extxyz or .traj; one file for each system, numbered where there are several) by a
    thread of its own, with the energies of `potential` if there is one. Microcanonical
    unless an `ensemble` is given (`Langevin`, `VelocityRescaling`, `GeneralisedHMC` from `actionlearn.dynamics`),
    whose generator serves all replicas in turn. A `potential` is only asked for energies, to follow their drift.

    `policy` says what to do when the drift exceeds `drift_limit`, when numbers are not finite or atoms fly apart:
    "raise", "warn" (of the drift; a broken run raises all the same) or "fallback". `on_uncertain` says the same of
    atoms outside the range of training. To fall back is to take the stretch, of the systems concerned, with `fallback`
    (or else `potential`, or the map's own base) in small steps of velocity Verlet; it is counted in the summary.

    With `restart`, a file is written every `restart_every` steps and at the end; where it exists, the run goes on
    from there until it has made `steps` in all, giving what it would have given without a break.
    """
    every, restart_every = positive_whole("every", every), positive_whole("restart_every", restart_every)
    if not isinstance(steps, int) or steps < 0:
        raise InvalidInput(f"steps must be a whole number, zero or more, got {steps!r}")
    start = states if isinstance(states, PhaseState) else PhaseState.batch(states)
    engine = Engine(
        model,
        start,
        ensemble,
        potential=potential,
        drift_limit=drift_limit,
        policy=policy,
        on_uncertain=on_uncertain,
        fallback=fallback,
    )
    files = None if trajectory is None else SystemFiles(trajectory, start.n_systems)
    resumed = restart is not None and Path(restart).exists()
    if resumed and restart is not None:
        engine.load(restart)
    with Writer() as writer:

        def look() -> None:
            step, state = engine.moves, engine.state
            if observe is not None:
                observe(step, state)
            if files is not None:
                energies = None if potential is None else potential.energy(state).tolist()
                writer.do(lambda: files.write(state, step, step * engine.move_fs, energies))

        if files is not None:
            files.begin(engine.moves if resumed else None)
        if not resumed:
            look()
        while engine.moves < steps:
            n = steps - engine.moves
            if restart is not None:
                n = min(n, restart_every - engine.moves % restart_every)
            engine.run(n, every, look)
            if restart is not None:
                writer.flush()  # no frame of what a resumed run will not do again may be missing
                if files is not None:
                    files.settle()
                engine.save(restart)
    return Simulated(engine.state, engine.summary())
