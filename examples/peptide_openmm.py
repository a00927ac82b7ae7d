"""Alanine dipeptide on the amber14 force field of OpenMM, in vacuum: long steps of 2 fs. See peptide_openmm.md."""

from pathlib import Path

from recipe import Recipe, main

try:
    from openmm import app

    from actionlearn.potentials.openmm import OpenMMCalculator
except ImportError as error:
    raise ImportError("this recipe needs OpenMM: pip install --constraint constraints.txt '.[openmm]'") from error

PDB = app.PDBFile(str(Path(__file__).with_name("alanine_dipeptide.pdb")))


def amber14() -> OpenMMCalculator:
    """Every pair of atoms, no constraints, in double precision."""
    force_field = app.ForceField("amber14-all.xml")
    system = force_field.createSystem(
        PDB.topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False, removeCMMotion=False
    )
    return OpenMMCalculator(system, PDB.topology)


RECIPE = Recipe(
    name="peptide-openmm",
    atoms=lambda: amber14().make_atoms(PDB.positions),
    potential="peptide_openmm:amber14",
    step_fs=2.0,
    stages=2,
    base_step_fs=0.25,
    record_every=4,
    temperatures_K=(300.0, 450.0),
    stretches=40,
    frames=121,
    decorrelate_ps=0.3,
    train={"updates": 1200, "layers": 2, "channels": 16, "cutoff": 6.0, "learning_rate": 0.015, "batch_atoms": 264},
    ps=20.0,
)

if __name__ == "__main__":
    main(RECIPE)
