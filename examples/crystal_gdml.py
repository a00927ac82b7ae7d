"""Copper, 32 atoms: a kernel model of its cell, trained iteratively, as base potential. See crystal_gdml.md."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from recipe import Recipe, main

import actionlearn as al
from actionlearn import systems


def trained(output: Path, quick: bool) -> str:
    """Sample the metal at 700 K and solve for a model with the lattice's shifts; the name of its file."""
    path = output / "gdml.pt"
    if path.exists():
        return str(path)
    stretches, count = (4, 12) if quick else (12, 60)
    reference = al.sample(
        "cu32",
        "metals",
        output / "metals",
        temperatures_K=[700.0],
        step_fs=2.0,
        record_every=20,
        stretches=stretches,
        frames=8,
        equilibrate_ps=0.5,
        decorrelate_ps=0.2,
    )
    training, validation = al.gdml.Labels.from_stretches(reference, stretches * 8).split(count)
    shifts = al.gdml.crystal_symmetries(systems.structure("cu32"), rotations=False)
    print(f"{3 * 32 * count} equations; forces of {len(validation)} other geometries")
    exact = solved(al.gdml.ClosedForm(), training, validation, shifts)
    model = solved(al.gdml.Iterative(tolerance=1e-5), training, validation, shifts)
    forces, closed = (each.forces(validation.states()) for each in (model, exact))
    print(f"both solutions are {float((forces - closed).norm() / closed.norm()):.1e} of the forces apart", flush=True)
    model.save(path)
    return str(path)


def solved(solver: Any, training: al.gdml.Labels, validation: al.gdml.Labels, shifts: np.ndarray) -> al.gdml.GDML:
    """A model by one of the solvers, with a line about it."""
    begun = time.process_time()
    model = al.gdml.fit(training, sigma=30.0, symmetries=shifts, solver=solver)
    spent, error = time.process_time() - begun, al.gdml.force_error(model, validation)
    steps = f", {model.report['iterations']} iterations" if "iterations" in model.report else ""
    print(f"{type(solver).__name__}: force error {100 * error:.2f} %, {spent:.1f} s of CPU time{steps}", flush=True)
    return model


RECIPE = Recipe(
    name="crystal-gdml",
    atoms=lambda: systems.structure("cu32"),
    potential=trained,
    step_fs=24.0,
    stages=2,
    base_step_fs=3.0,
    record_every=4,
    temperatures_K=(300.0, 500.0),
    stretches=10,
    frames=11,
    thermostat_ps=0.3,
    decorrelate_ps=0.1,
    train={"updates": 800, "channels": 16, "cutoff": 5.0},
)

if __name__ == "__main__":
    main(RECIPE)
