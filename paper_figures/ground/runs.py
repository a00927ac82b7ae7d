"""Microcanonical runs and what is recorded of them; kept in out/figures/runs and not run again for the next figure."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from actionlearn.dynamics.fit import check_sound
from actionlearn.errors import ActionlearnError
from actionlearn.potentials import Potential
from actionlearn.state import PhaseState
from actionlearn.structure import energy_drift
from ground.figure import QUICK

KEPT = QUICK / "runs"
LOST_eV_PER_ATOM = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """Frames of a run of several like systems; frame 0 is the start.

    | field       | shape                          | unit       |
    |-------------|--------------------------------|------------|
    | `times_fs`  | (frames,)                      | fs         |
    | `energies`  | (frames, systems)              | eV         |
    | `positions` | (frames, systems, atoms, dims) | Å          |
    | `momenta`   | (frames, systems, atoms, dims) | sqrt(u·eV) |
    | `gradients` | of the potential, network or action, per step |  |

    `lost` says why the run ended early: an energy off by more than an eV per atom, or an error.
    """

    times_fs: np.ndarray
    energies: np.ndarray
    positions: np.ndarray
    momenta: np.ndarray
    gradients: float
    cpu_ms_per_step: float
    lost: str = ""

    @property
    def changes(self) -> np.ndarray:
        """Energy since the start, meV per atom, (frames, systems)."""
        return 1e3 * (self.energies - self.energies[0]) / self.positions.shape[2]

    def drift(self) -> tuple[float, float]:
        """Slope of the mean energy, meV/atom/ps, with its error; nan where the run was lost too early."""
        if len(self.times_fs) < 17 or self.lost:
            return math.nan, math.nan
        found = energy_drift(self.times_fs[1:], self.energies[1:].mean(1), self.positions.shape[2])
        return found.value, found.error


def kept(key: str, make: Callable[[], Run]) -> Run:
    """The run of this key from its file, or newly made."""
    path = KEPT / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    if path.is_file():
        with np.load(path) as archive:
            found = {name: archive[name] for name in archive.files}
        numbers = {name: float(found[name]) for name in ("gradients", "cpu_ms_per_step")}
        return Run(**{**found, **numbers, "lost": str(found["lost"])})
    run = make()
    KEPT.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, **dataclasses.asdict(run))
    return run


@torch.no_grad()
def record(
    step: Any, state: PhaseState, energy: Potential, *, steps: int, every: int, gradients: float | None = None
) -> Run:
    """Take `steps` steps of the map, recording every so many; the total energy is that of `energy`.

    `gradients` is the cost of a step where it is known, else what the map's solver counts.
    """
    systems, dims = state.n_systems, state.positions.shape[1]
    frames: list[tuple[torch.Tensor, ...]] = []

    def look() -> torch.Tensor:
        total = energy.energy(state) + state.kinetic_energy()
        frames.append((total, state.positions, state.momenta))
        return total

    begun, spent, taken, lost = look(), 0.0, 0, ""
    solver = getattr(step, "statistics", None)
    if solver is not None:
        solver.reset()
    for _ in range(steps // every):
        started = time.process_time()
        try:
            state = step.step(state, every)
            check_sound(state, step)
            if not bool(((look() - begun).abs() < LOST_eV_PER_ATOM * state.n_atoms / systems).all()):
                lost = "energy"
        except (ActionlearnError, ArithmeticError) as problem:
            lost = type(problem).__name__
        spent += time.process_time() - started
        if lost:
            break
        taken += every
    E, q, p = (torch.stack(series).numpy() for series in zip(*frames, strict=True))
    if gradients is None:
        gradients = solver.evaluations_per_solve if solver is not None else 1.0
    return Run(
        step.step_fs * every * np.arange(len(frames)),
        E,
        q.reshape(len(frames), systems, -1, dims),
        p.reshape(len(frames), systems, -1, dims),
        gradients,
        1e3 * spent / max(taken, 1),
        lost,
    )


@torch.no_grad()
def one_step_errors(step: Any, pairs: list[tuple[PhaseState, PhaseState]]) -> tuple[float, float]:
    """rms(√m δq)/rms(√m Δq) and rms(δp/√m)/rms(Δp/√m) over states and where they should be after a step of the map.

    Not a number where a step fails.
    """
    sums = torch.zeros(4, dtype=torch.float64)
    for state, target in pairs:
        try:
            end = step.step(state)
        except (ActionlearnError, ArithmeticError):
            return math.nan, math.nan
        m = state.masses.unsqueeze(1)
        sums += torch.stack(
            [
                (m * (end.positions - target.positions) ** 2).sum(),
                (m * (target.positions - state.positions) ** 2).sum(),
                ((end.momenta - target.momenta) ** 2 / m).sum(),
                ((target.momenta - state.momenta) ** 2 / m).sum(),
            ]
        )
    relative = (sums[0::2] / sums[1::2]).sqrt()
    return float(relative[0]), float(relative[1])
