"""Ethanol on sGDML: a kernel model of 200 tight-binding geometries as base potential. See ethanol_sgdml.md."""

import dataclasses
from pathlib import Path

from ethanol_gfn2 import RECIPE as TIGHT_BINDING
from recipe import main

import actionlearn as al


def trained(output: Path, quick: bool) -> str:
    """Sample GFN2-xTB at 500 K, recover the symmetries, choose σ on other geometries; the name of the model's file."""
    path = output / "sgdml.pt"
    if path.exists():
        return str(path)
    stretches, frames, count = (4, 20, 60) if quick else (40, 8, 200)
    reference = al.sample(
        "ethanol",
        "gfn2-xtb",
        output / "tight-binding",
        temperatures_K=[500.0],
        step_fs=0.5,
        record_every=4 if quick else 20,
        stretches=stretches,
        frames=frames,
        equilibrate_ps=0.05 if quick else 0.5,
        decorrelate_ps=0.02 if quick else 0.1,
        friction_per_ps=20.0,
    )
    training, validation = al.gdml.Labels.from_stretches(reference, stretches * frames).split(count)

    def show(sigma: float, error: float) -> None:
        print(f"sigma {sigma:g}: force error {100 * error:.2f} %, on {len(validation)} other geometries", flush=True)

    model = al.gdml.choose_sigma(
        training, validation, sigmas=[20.0] if quick else [5.0, 10.0, 20.0, 40.0], progress=show
    )
    print(f"{len(model.permutations)} symmetries: {model.permutations.tolist()}")
    model.save(path)
    return str(path)


RECIPE = dataclasses.replace(TIGHT_BINDING, name="ethanol-sgdml", potential=trained, ps=120.0, reference_ps=40.0)

if __name__ == "__main__":
    main(RECIPE)
