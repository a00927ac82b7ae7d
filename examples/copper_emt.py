"""Copper on the effective medium theory (EMT) of ASE: long steps of 36 fs. See copper_emt.md."""

from ase.build import bulk
from recipe import Recipe, main

RECIPE = Recipe(
    name="copper-emt",
    atoms=lambda: bulk("Cu", "fcc", a=3.62, cubic=True) * 3,
    potential="emt",
    step_fs=36.0,
    stages=2,
    base_step_fs=4.0,
    record_every=3,
    temperatures_K=(300.0, 600.0),
    stretches=8,
    frames=31,
    decorrelate_ps=0.3,
    train={"updates": 1200, "cutoff": 5.0, "learning_rate": 0.02, "batch_atoms": 432},
    ps=30.0,
    reference_ps=10.0,
    quick_atoms=lambda: bulk("Cu", "fcc", a=3.62, cubic=True) * 2,
)

if __name__ == "__main__":
    main(RECIPE)
