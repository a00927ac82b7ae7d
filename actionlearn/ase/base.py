"""What all dynamics objects here share: an ASE face on an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import ase
import numpy as np
from ase.md.logger import MDLogger
from ase.md.md import MolecularDynamics

from actionlearn.ase.atoms import Mirror, constraints_of, holds_centre
from actionlearn.dynamics import Engine, Ensemble, Map, as_text
from actionlearn.dynamics.ensemble import positive_whole
from actionlearn.dynamics.freedom import without_total_momentum
from actionlearn.errors import InvalidInput
from actionlearn.potentials.ase_calculator import ASEPotential
from actionlearn.potentials.protocol import Potential
from actionlearn.units import FEMTOSECOND


class ActionDynamics(MolecularDynamics):
    """A learned map as a dynamics object of ASE.

    The atoms need no calculator. With one, its energy is asked for by the logger and for trajectory frames, as usual,
    and never by a step. Energies of the drift guard are those of `potential`, or of the calculator if none is given.

    FixAtoms holds atoms in any number of groups. FixCom takes the total momentum out at the start; the map conserves
    it from there on, unless an external field or a bias acts on the whole. Other constraints are refused.

    `policy` says what to do when the drift exceeds `drift_limit`, when numbers are not finite or atoms fly apart, and
    `on_uncertain` when atoms are outside the range of training: "raise", "warn" (once, and count; a broken run raises
    all the same) or "fallback", to take the stretch with the potential `fallback`, or else `potential`, the map's own
    base or the calculator, in small steps of velocity Verlet, go on and count it. `summary()` has the counts.

    Atoms may be changed between steps: whatever differs from what the last step left is read again. `run` shows the
    atoms only when an observer is due and at its end, which spares maps that work in other variables; `irun` and
    `step` show every step.

    With `restart`, a file is written every `restart_every` steps and at the end of `run`; where it exists already,
    positions, momenta, cell, random numbers and counters are taken from it and the run goes on as if without a
    break. Frames written after the last restart file are then written again: let `loginterval` divide `restart_every`
    and cut the trajectory there, or use the command line, which does.
    """

    def __init__(
        self,
        atoms: ase.Atoms,
        timestep: float | None,
        model: Map,
        ensemble: Ensemble,
        *,
        trajectory: Any = None,
        logfile: IO[str] | str | None = None,
        loginterval: int = 1,
        append_trajectory: bool = False,
        potential: Potential | None = None,
        drift_limit: float | None = None,
        policy: str = "raise",
        on_uncertain: str = "warn",
        fallback: Potential | None = None,
        restart: str | Path | None = None,
        restart_every: int = 1000,
    ) -> None:
        """Read the atoms and see that the model fits them."""
        if not isinstance(atoms, ase.Atoms):
            raise InvalidInput(f"atoms must be an ase.Atoms, got {type(atoms).__name__}")
        constraints_of(atoms)
        if not atoms.has("momenta"):
            atoms.set_momenta(np.zeros((len(atoms), 3)))
        needed = drift_limit is not None or (fallback is None and "fallback" in (policy, on_uncertain))
        if potential is None and needed and atoms.calc is not None:
            potential = ASEPotential(atoms.calc)
        self.mirror = Mirror(atoms, model)
        state = self.mirror.state
        if holds_centre(atoms):
            state = state.moved(state.positions, without_total_momentum(state, state.momenta))
        self.engine = Engine(
            model,
            state,
            ensemble,
            potential=potential,
            drift_limit=drift_limit,
            policy=policy,
            on_uncertain=on_uncertain,
            fallback=fallback,
        )
        step = self.engine.move_fs * FEMTOSECOND
        if timestep is not None and abs(timestep / step - 1.0) > 1e-6:
            raise InvalidInput(
                f"timestep is {timestep / FEMTOSECOND:g} fs, the model makes steps of {self.engine.move_fs:g} fs: "
                "leave timestep out, a learned step cannot be changed"
            )
        self.before_restart: list[Callable[[], None]] = []
        """Called before each restart file is written, to put on disk what belongs to the run up to there."""
        self.restart, self.restart_every = restart, positive_whole("restart_every", restart_every)
        resumed = restart is not None and Path(restart).exists()
        if resumed:
            assert restart is not None
            self.engine.load(restart)
        self.mirror.write(self.engine.state)
        self.potential = potential
        super().__init__(
            atoms,
            timestep=step,
            trajectory=trajectory,
            logfile=None,
            loginterval=loginterval,
            append_trajectory=append_trajectory or resumed,
        )
        self.nsteps = self.engine.moves
        if logfile is not None:
            logger = self.closelater(_Logger(self, atoms, logfile, header=not resumed))
            self.attach(logger, loginterval)

    @property
    def model(self) -> Map:
        """The map that makes the steps."""
        return self.engine.model

    @property
    def ensemble(self) -> Ensemble:
        """What goes on around the steps."""
        return self.engine.ensemble

    def step(self) -> None:
        """One step, shown on the atoms."""
        self._advance(1)

    def run(self, steps: int = 50) -> bool:
        """Run a number of steps; observers are called when they are due."""
        for _ in self._stretches(steps, together=True):
            pass
        if self.restart is not None:
            self.save_restart(self.restart)
        return True

    def irun(self, steps: int = 50) -> Iterator[bool]:
        """Run step by step, yielding after each whether it was the last."""
        return self._stretches(steps, together=False)

    def todict(self) -> dict[str, Any]:
        """How the trajectory was made."""
        return {**super().todict(), "map": self.model.kind, "ensemble": self.ensemble.summary()["ensemble"]}

    def summary(self) -> dict[str, Any]:
        """Steps, speed, temperatures by species, drift, acceptance, as plain numbers."""
        return self.engine.summary()

    def report(self) -> str:
        """The summary as lines of text."""
        return as_text(self.summary())

    def conserved_energy(self) -> float:
        """Potential and kinetic energy less the heat of the thermostat, eV: of `potential`, or of the calculator."""
        return self.potential_energy() + float(self.engine.state.kinetic_energy() - self.ensemble.heat)

    def potential_energy(self) -> float:
        """Energy of the given `potential`, or of the atoms' calculator, or not a number where there is neither, eV."""
        if self.potential is not None:
            return float(self.potential.energy(self.mirror.state)[0])
        return float("nan") if self.atoms.calc is None else float(self.atoms.get_potential_energy())

    def save_restart(self, path: str | Path) -> None:
        """Write a restart file now; the run goes on as a resumed one would."""
        self._take_changes()
        for finish in self.before_restart:
            finish()
        self.engine.save(path)
        self.mirror.state = self.engine.state

    def _stretches(self, steps: int, together: bool) -> Iterator[bool]:
        if not isinstance(steps, (int, np.integer)) or steps < 0:
            raise InvalidInput(f"steps must be a whole number, zero or more, got {steps!r}")
        self.max_steps = self.nsteps + int(steps)
        if self.nsteps == 0:
            self._show()
        yield self.nsteps == self.max_steps
        while self.nsteps < self.max_steps:
            n = min(self._until_due(), self.max_steps - self.nsteps) if together else 1
            if together:
                self._advance(n)
            else:
                self.step()
            self.nsteps += n
            self._show()
            if self.restart is not None and self.nsteps % self.restart_every == 0:
                self.save_restart(self.restart)
            yield self.nsteps == self.max_steps

    def _show(self) -> None:
        self._refresh_properties()
        self.log()
        self.call_observers()

    def _until_due(self) -> int:
        """Steps until an observer, a restart file or a look is due."""
        waits = [self.engine.until_look()]
        if self.restart is not None:
            waits.append(self.restart_every - self.nsteps % self.restart_every)
        for _, interval, _, _ in self.observers:
            waits.append(interval - self.nsteps % interval if interval > 0 else abs(interval) - self.nsteps)
        return min(wait for wait in waits if wait > 0)

    def _advance(self, n: int) -> None:
        self._take_changes()
        self.engine.advance(n)
        self.mirror.write(self.engine.state)

    def _take_changes(self) -> None:
        state = self.mirror.changed()
        if state is not None:
            self.engine.take(state)

    def _refresh_properties(self) -> None:
        """Ask nobody for forces that no step needs."""

    def _traj_write_image(self, description: dict[str, Any]) -> None:
        """A frame carries energy and forces of the calculator, if the atoms have one."""
        if self.atoms.calc is not None:
            self.atoms.get_forces()
            self.atoms.get_potential_energy()
        super()._traj_write_image(description)


class _Logger(MDLogger):
    """The usual columns; without a calculator energies are those of the run's potential, or not a number."""

    def _potential_energy(self) -> float:
        if self.atoms.calc is not None:
            return self.atoms.get_potential_energy()
        return self.dyn.potential_energy()  # type: ignore[union-attr]  # a dynamics is always given
