"""Who runs in the figures of drift and equipartition: four systems, and the same maps for each.

A system comes with its base potential, a start, a long step h of about a quarter of its fastest period, and a small
step with which velocity Verlet is exact enough to compare with. Trained maps are found by name (`find_model`); those
that are not there are left out, and said.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import actionlearn as al
from actionlearn import systems
from actionlearn.dynamics.freedom import without_total_momentum
from actionlearn.files import sha256
from actionlearn.state import PhaseState
from actionlearn.units import BOLTZMANN
from ground import three_body
from ground.figure import ROOT, find_model
from ground.runs import Run, kept, one_step_errors, record

QUICK_STEPS = 20
KINDS = ("direct", "midpoint", "discrete", "corrected")
TOLERANCES = (1e-2, 1e-3, 1e-10)
VERLET_SMALL, VERLET, DIRECT, RESCALED = "Verlet, small step", "Verlet", "direct", "direct, rescaled"
DISCRETE, CORRECTED = "discrete", "corrected"


def midpoint_name(tolerance: float) -> str:
    """As in "midpoint, 1e-3"."""
    return f"midpoint, {tolerance:.0e}".replace("e-0", "e-")


MAPS = (VERLET_SMALL, VERLET, DIRECT, RESCALED, *map(midpoint_name, TOLERANCES), DISCRETE, CORRECTED)


@dataclasses.dataclass(frozen=True)
class System:
    """One system of the figures; `models` maps a kind of map to the names of its file, the best first."""

    name: str
    title: str
    base: Callable[[], Any]
    start: Callable[[Any, bool], PhaseState]
    step_fs: float
    small_fs: float
    steps: int
    every: int
    models: dict[str, tuple[str, ...]]


class Rescaled:
    """A direct predictor whose momenta are scaled after every step so that the total energy is what it was.

    The usual repair. It takes an energy of the base potential a step, and total momentum stays where it was.
    """

    kind, stages = "direct, rescaled", 1

    def __init__(self, predictor: Any, base: Any, start: PhaseState) -> None:
        """Hold every system at the energy it starts with."""
        self.predictor, self.base, self.step_fs = predictor, base, predictor.step_fs
        self.energies = base.energy(start) + start.kinetic_energy()

    def step(self, state: PhaseState, n: int = 1) -> PhaseState:
        """N steps; a system whose potential energy alone exceeds its energy is lost."""
        for _ in range(n):
            state = self.predictor.step(state)
            left = self.energies - self.base.energy(state)
            if not bool((left > 0).all()):
                raise ArithmeticError("the potential energy alone exceeds the total energy")
            factor = (left / state.kinetic_energy()).sqrt()
            state = state.moved(state.positions, state.momenta * factor[state.system].unsqueeze(1))
        return state


def recorded(folder: Path, temperature_K: float, frame: int) -> PhaseState:
    """A frame of the first stretch of this temperature."""
    found = al.ReferenceSet.open(folder)
    return next(stretch for stretch in found if stretch.temperature_K == temperature_K).state(frame)


def small_crystal(temperature_K: float) -> PhaseState:
    """The alloy with 32 atoms on their sites, hot enough to have this temperature once it moves; for quick modes."""
    atoms = systems.structure("cuau32")
    m = atoms.get_masses()[:, None]
    p = np.random.default_rng(0).normal(size=(len(atoms), 3)) * np.sqrt(2.0 * m * BOLTZMANN * temperature_K)
    atoms.set_momenta(p - m * p.sum(0) / m.sum())
    return PhaseState.from_atoms(atoms)


def thermal(structure: str, base: Any, count: int, temperature_K: float, step_fs: float, ps: float) -> PhaseState:
    """Copies of a structure at this temperature after Langevin dynamics from as it is built, at rest as a whole."""
    state = PhaseState.from_atoms(systems.structure(structure))
    ensemble = al.dynamics.Langevin(temperature_K, friction_per_ps=10.0, seed=1)
    steps = round(1e3 * ps / step_fs)
    found = al.simulate(al.Verlet(base, step_fs=step_fs), [state] * count, steps, ensemble=ensemble)
    return PhaseState.batch([s.moved(s.positions, without_total_momentum(s, s.momenta)) for s in found.states])


SYSTEMS = {
    "three-body": System(
        "three-body",
        f"Three bodies, figure eight, h = period/{three_body.STEPS_PER_PERIOD}",
        lambda: three_body.BASE,
        lambda base, quick: three_body.start(4, 0.002, seed=7),
        three_body.STEP_FS,
        three_body.STEP_FS / 20,
        three_body.STEPS_PER_PERIOD * 12,
        1,
        {kind: (f"three-body-{kind}.pt",) for kind in KINDS},
    ),
    "ethanol": System(
        "ethanol",
        "Ethanol (GFN2-xTB), 300 K, h = 4 fs",
        lambda: systems.potential("gfn2-xtb", systems.structure("ethanol")),
        lambda base, quick: thermal("ethanol", base, *((1, 300.0, 0.5, 0.01) if quick else (4, 300.0, 0.5, 1.0))),
        4.0,
        0.5,
        500,
        1,
        {kind: (f"ethanol-gfn2-{kind}-4fs.pt",) for kind in KINDS},
    ),
    "water": System(
        "water",
        "Water (SPC/Fw), 16 molecules, 300 K, h = 4 fs",
        lambda: systems.potential("water-spcfw", systems.structure("water16")),
        lambda base, quick: thermal("water16", base, 1, 300.0, 0.5, 0.01 if quick else 1.0),
        4.0,
        0.25,
        500,
        1,
        {kind: (f"water-{kind}-4fs.pt",) for kind in KINDS},
    ),
    "alloy": System(
        "alloy",
        "CuAu alloy, 108 atoms, 700 K, h = 24 fs",
        lambda: systems.potential("metals", systems.structure("cuau108")),
        lambda base, quick: small_crystal(700.0) if quick else recorded(ROOT / "data" / "cuau", 700.0, 0),
        24.0,
        2.0,
        260,
        1,
        {kind: (f"cuau-{kind}-24fs.pt",) for kind in KINDS},
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One map on one system: its run, and its errors of one step; `geometry` is one of the starts."""

    system: System
    name: str
    step_fs: float
    run: Run
    geometry: PhaseState
    position_error: float
    momentum_error: float


def performances(args: argparse.Namespace, only: tuple[str, ...] = tuple(SYSTEMS)) -> Iterator[Part]:
    """Run every map that is there on every system, in quick mode for a few steps."""
    for name in only:
        system = SYSTEMS[name]
        if args.systems and name not in args.systems:
            continue
        if not any(find_model(args, file) for files in system.models.values() for file in files):
            print(f"{name}: left out, no map of it is there", flush=True)
            continue
        try:
            base = system.base()
            start = system.start(base, args.quick)
        except al.errors.ActionlearnError as problem:
            print(f"{name}: left out, {problem}", flush=True)
            continue
        yield from _performances(args, system, base, start)


def _performances(args: argparse.Namespace, system: System, base: Any, start: PhaseState) -> Iterator[Part]:
    steps, every = (QUICK_STEPS, 1) if args.quick else (system.steps, system.every)
    many = round(system.step_fs / system.small_fs)
    small, verlet = al.Verlet(base, step_fs=system.small_fs), al.Verlet(base, step_fs=system.step_fs)

    def run(label: str, step: Any, origin: str, per_step: float | None, times: int = 1) -> Run:
        key = f"{system.title} {label} {origin} {step.step_fs:.6g} {steps} {every}"
        return kept(
            key, lambda: record(step, start, base, steps=steps * times, every=every * times, gradients=per_step)
        )

    reference = run(VERLET_SMALL, small, "", 1.0, many)
    yield Part(system, VERLET_SMALL, system.small_fs, reference, start.select(0), math.nan, math.nan)
    where = np.linspace(0, len(reference.times_fs) - 1, 2 if args.quick else 6).astype(int)
    pairs = []
    for k in where:
        q, p = (torch.from_numpy(x[k].reshape(start.positions.shape)) for x in (reference.positions, reference.momenta))
        pairs.append((start.moved(q, p), small.step(start.moved(q, p), many)))

    def part(label: str, step: Any, found: Run) -> Part:
        lost = f", lost: {found.lost}" if found.lost else ""
        print(f"{system.name}: {label}, {found.gradients:.1f} gradients a step{lost}", flush=True)
        return Part(system, label, step.step_fs, found, start.select(0), *one_step_errors(step, pairs))

    yield part(VERLET, verlet, run(VERLET, verlet, "", 1.0))
    for kind in KINDS:
        path = next((p for p in (find_model(args, file) for file in system.models[kind]) if p), None)
        if path is None:
            print(f"{system.name}: no {kind} map, looked for {', '.join(system.models[kind])}", flush=True)
            continue
        model, origin = al.load(path, base=base if kind == "corrected" else None), sha256(path)
        if kind == "direct":
            yield part(DIRECT, model, run(DIRECT, model, origin, 1.0))
            rescaled = Rescaled(model, base, start)
            yield part(RESCALED, rescaled, run(RESCALED, rescaled, origin, 1.0))
        elif kind == "midpoint":
            for tolerance in TOLERANCES[1:] if args.quick else TOLERANCES:
                model.solver = al.FixedPointSolver(tolerance=tolerance)
                yield part(midpoint_name(tolerance), model, run(midpoint_name(tolerance), model, origin, None))
        else:
            yield part(kind, model, run(kind, model, origin, float(model.stages)))
