"""Ethanol on GFN2-xTB, tight binding: long steps of 2 fs. See ethanol_gfn2.md."""

from recipe import Recipe, main

from actionlearn import systems

RECIPE = Recipe(
    name="ethanol-gfn2",
    atoms=lambda: systems.structure("ethanol"),
    potential="gfn2-xtb",
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
)

if __name__ == "__main__":
    main(RECIPE)
