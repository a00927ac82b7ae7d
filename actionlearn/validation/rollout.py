"""Microcanonical runs of a map, with the energy of the base potential along them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import torch

from actionlearn.analysis import Trajectory
from actionlearn.dynamics.ensemble import Map
from actionlearn.dynamics.freedom import at_rest_as_a_whole
from actionlearn.errors import InvalidInput, NonFinite, NotConverged, UnsupportedSystem
from actionlearn.heating import EXPLODED
from actionlearn.potentials.protocol import Potential
from actionlearn.state import PhaseState
from actionlearn.structure import Equipartition, Measured, energy_drift, equipartition

BLOCK_PS = 2.0
"""Kinetic temperatures of species forget each other within about this time."""

FEWEST_FRAMES = 100
"""Frames below which nothing is measured of a run."""


@dataclasses.dataclass(frozen=True, eq=False)
class RollOut:
    """A run of a map: frames, the total energy E of each (eV), the cost of a step, and why it ended early if it did."""

    trajectory: Trajectory
    energies: np.ndarray
    seconds_per_step: float
    failure: str | None

    @property
    def times_ps(self) -> np.ndarray:
        """Time of each frame."""
        return np.arange(len(self.energies)) * self.trajectory.interval_fs / 1000.0

    @property
    def per_atom_meV(self) -> np.ndarray:
        """Energy above that of the start, meV per atom."""
        return 1000.0 * (self.energies - self.energies[0]) / self.trajectory.system.n_atoms

    @property
    def drift(self) -> Measured:
        """Slope of the energy, meV/atom/ps."""
        return energy_drift(1000.0 * self.times_ps, self.energies, self.trajectory.system.n_atoms)

    @property
    def fluctuation_meV(self) -> float:
        """Standard deviation of the energy about a straight line, meV per atom."""
        E = self.per_atom_meV
        return float((E - np.polyval(np.polyfit(self.times_ps, E, 1), self.times_ps)).std())

    @property
    def shares(self) -> Equipartition:
        """Kinetic temperatures by species."""
        system = self.trajectory.system
        at_rest = bool(at_rest_as_a_whole(system).all())
        fewest = len(system.numbers.unique()) + 4
        blocks = int(min(max(self.times_ps[-1] / BLOCK_PS, fewest), 20))
        return equipartition(self.trajectory.momenta, system, momentum_removed=at_rest, blocks=blocks)


@torch.no_grad()
def roll_out(
    model: Map,
    base: Potential,
    state: PhaseState,
    *,
    ps: float,
    interval_fs: float | None = None,
    advance: Callable[[float], None] | None = None,
) -> RollOut:
    """Run a map from a state for `ps`, a frame every `interval_fs` (every step), or until it fails.

    A run fails where its numbers are no longer finite, its equation has no solution, its energy has changed by
    half an eV per atom, or its potential no longer knows the molecules. `advance` is told of every ps that is done.
    """
    interval = model.step_fs if interval_fs is None else interval_fs
    every = round(interval / model.step_fs)
    if every < 1 or abs(every * model.step_fs - interval) > 1e-6 * interval:
        raise InvalidInput(f"frames {interval:g} fs apart are no multiple of the step of {model.step_fs:g} fs")
    count = round(1000.0 * ps / interval)
    if count < FEWEST_FRAMES:
        raise InvalidInput(
            f"{ps:g} ps hold {count} frames of {interval:g} fs: run at least {FEWEST_FRAMES * interval / 1000.0:g} ps"
        )
    states, failure, spent = [state], None, 0.0
    energies = [float(base.energy(state) + state.kinetic_energy())]
    for _ in range(count):
        started = time.perf_counter()
        try:
            state = model.step(state, every)
            spent += time.perf_counter() - started
            energy = float(base.energy(state) + state.kinetic_energy())
        except (NonFinite, NotConverged, UnsupportedSystem) as problem:
            if isinstance(problem, UnsupportedSystem) and len(states) == 1:
                raise  # the model was never for this system
            failure = str(problem)
            break
        if not abs(energy - energies[0]) < EXPLODED * state.n_atoms:
            failure = f"the energy left its start by more than {EXPLODED:g} eV per atom"
            break
        states.append(state)
        energies.append(energy)
        if advance is not None:
            advance(interval / 1000.0)
    trajectory = Trajectory.from_states(states, interval)
    return RollOut(trajectory, np.array(energies), spent / (every * max(len(states) - 1, 1)), failure)
