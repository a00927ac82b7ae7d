"""Alanine dipeptide on GFN2-xTB, tight binding: long steps of 2 fs. See dipeptide_gfn2.md."""

from recipe import Recipe, main

from actionlearn import systems

RECIPE = Recipe(
    name="dipeptide-gfn2",
    atoms=lambda: systems.structure("dipeptide"),
    potential="gfn2-xtb",
    step_fs=2.0,
    stages=2,
    base_step_fs=0.25,
    record_every=4,
    temperatures_K=(300.0, 450.0),
    stretches=32,
    frames=241,
    thermostat_ps=0.3,
    decorrelate_ps=0.06,
    ps=40.0,
    train={"updates": 3000, "layers": 2, "channels": 24, "learning_rate": 0.015, "batch_atoms": 264},
)

if __name__ == "__main__":
    main(RECIPE)
