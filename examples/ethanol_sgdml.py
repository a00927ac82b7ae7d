"""Ethanol on sGDML: a kernel model of 200 tight-binding geometries as base potential. See ethanol_sgdml.md."""

from pathlib import Path

from recipe import Recipe, main

import actionlearn as al
from actionlearn import systems


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


RECIPE = Recipe(
    name="ethanol-sgdml",
    atoms=lambda: systems.structure("ethanol"),
    potential=trained,
    step_fs=2.0,
    stages=2,
    base_step_fs=0.25,
    record_every=4,
    temperatures_K=(300.0, 500.0),
    stretches=24,
    frames=61,
    thermostat_ps=0.3,
    decorrelate_ps=0.06,
    train={"updates": 2000, "layers": 2, "channels": 16, "learning_rate": 0.015, "batch_atoms": 288},
    ps=120.0,
    reference_ps=40.0,
)

if __name__ == "__main__":
    main(RECIPE)
