"""Three bodies that chase each other along the figure eight: reference motion, and maps trained on it.

Gravity with G = 1 and unit masses. The maps learn from orbits close to the figure eight, positions and momenta off by
`SPREAD`, started anywhere along it; the same network, training and windows as for atoms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from actionlearn.dataset import Dataset
from actionlearn.losses import StepErrors, step_errors
from actionlearn.maps.blueprint import Blueprint
from actionlearn.potentials import GravitationalThreeBody
from actionlearn.potentials.toy_states import FIGURE_EIGHT_PERIOD, figure_eight
from actionlearn.reference import Stretch
from actionlearn.reference.recording import Frames
from actionlearn.schemes import Splitting
from actionlearn.schemes.published import YOSHIDA_6
from actionlearn.settings import Settings
from actionlearn.state import PhaseState
from actionlearn.training import Trainer
from actionlearn.units import FEMTOSECOND

BASE = GravitationalThreeBody()
PERIOD_FS = FIGURE_EIGHT_PERIOD / FEMTOSECOND
STEPS_PER_PERIOD = 24
STEP_FS = PERIOD_FS / STEPS_PER_PERIOD
SPREAD = 0.01
NETWORK = {"cutoff": 4.0, "channels": 8, "hidden": 32}
ORBITS, FINE = 150, 20


def start(count: int, spread: float, seed: int) -> PhaseState:
    """Figure eights in three dimensions with positions and momenta off by `spread`, at rest as a whole."""
    generator = torch.Generator().manual_seed(seed)
    eights = PhaseState.batch([figure_eight(dims=3)] * count)
    noise = spread * torch.randn(2, count, 3, 3, generator=generator, dtype=torch.float64)
    noise[..., 2] = 0.0
    noise -= noise.mean(2, keepdim=True)
    return eights.moved(eights.positions + noise[0].view(-1, 3), eights.momenta + noise[1].view(-1, 3))


def reference(orbits: int = ORBITS, periods: float = 1.0, seed: int = 0) -> list[Stretch]:
    """Orbits from anywhere along the figure eight, recorded twice a step, as stretches of reference data."""
    interval = STEP_FS / 2
    exact = Splitting(BASE, YOSHIDA_6, step_fs=interval / FINE)
    state = start(orbits, SPREAD, seed)
    phases = np.random.default_rng(seed).integers(0, 2 * STEPS_PER_PERIOD, orbits)
    count = round(2 * periods * STEPS_PER_PERIOD)
    states = [state]
    for _ in range(count + int(phases.max())):
        states.append(exact.step(states[-1], FINE))

    def series(values: list[torch.Tensor], shape: tuple[int, ...]) -> np.ndarray:
        return torch.stack(values).numpy().reshape(len(states), orbits, *shape)

    q = series([s.positions for s in states], (3, 3))
    p = series([s.momenta for s in states], (3, 3))
    f = series([BASE.forces(s) for s in states], (3, 3))
    V = series([BASE.energy(s) for s in states], ())
    T = series([s.kinetic_energy() for s in states], ())
    found = []
    for k, phase in enumerate(phases.tolist()):
        part = slice(phase, phase + count + 1)
        frames = Frames(q[part, k], p[part, k], f[part, k], V[part, k], T[part, k], np.zeros(count + 1))
        found.append(
            Stretch(f"orbit {k}", 0.0, k, interval, np.arange(count + 1), 0.0, frames, states[0].select(k).detach())
        )
    return found


def train(kind: str, updates: int, stretches: list[Stretch]) -> tuple[Any, StepErrors]:
    """A map of one step of `STEP_FS`, and its errors of one step on orbits it has not seen."""
    training, validation, test = Dataset(stretches, step_fs=STEP_FS).split(0)
    stages = 2 if kind in ("discrete", "corrected") else 1
    blueprint = Blueprint(kind, (0,), {0: 1.0}, STEP_FS, stages, NETWORK, "three bodies")
    settings = Settings(minutes=None, updates=updates, batch_atoms=300, force_matching=0.05)
    trainer = Trainer(blueprint, training, validation, settings, BASE if kind == "corrected" else None)
    trainer.run()
    return trainer.average, step_errors(trainer.average, test)
