"""Flexible TIP3P water on OpenMM, with its Ewald sums: corrected steps of 2 fs. See water_openmm.md."""

import ase
from recipe import Recipe, main

from actionlearn import systems

try:
    import openmm
    from openmm import app, unit

    from actionlearn.potentials.openmm import OpenMMCalculator
except ImportError as error:
    raise ImportError("this recipe needs OpenMM: pip install --constraint constraints.txt '.[openmm]'") from error

START = systems.structure("water64")


def tip3p() -> OpenMMCalculator:
    """A periodic box: particle-mesh Ewald and Lennard-Jones pairs that end smoothly at 6 Å, no constraints."""
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(len(START) // 3):
        residue = topology.addResidue("HOH", chain)
        oxygen = topology.addAtom("O", app.element.oxygen, residue)
        for name in ("H1", "H2"):
            topology.addBond(oxygen, topology.addAtom(name, app.element.hydrogen, residue))
    topology.setPeriodicBoxVectors(START.cell.array * unit.angstrom)
    system = app.ForceField("amber14/tip3p.xml").createSystem(
        topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=6.0 * unit.angstrom,
        switchDistance=5.0 * unit.angstrom,
        ewaldErrorTolerance=1e-5,
        constraints=None,
        rigidWater=False,
        removeCMMotion=False,
    )
    return OpenMMCalculator(system, topology, platform="CPU")


def relaxed() -> ase.Atoms:
    """Molecules that were placed on a lattice, towards the nearest minimum; one thread finds the same every time."""
    calculator = tip3p()
    settings = {"Threads": "1", "DeterministicForces": "true"}
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(calculator.system, openmm.VerletIntegrator(0.001), platform, settings)
    context.setPositions(START.positions * unit.angstrom)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
    return calculator.make_atoms(context.getState(getPositions=True).getPositions(asNumpy=True))


RECIPE = Recipe(
    name="water-openmm",
    atoms=relaxed,
    potential="water_openmm:tip3p",
    kind="corrected",
    step_fs=2.0,
    stages=2,
    base_step_fs=0.25,
    record_every=4,
    temperatures_K=(300.0, 330.0),
    stretches=6,
    frames=101,
    thermostat_ps=1.5,
    decorrelate_ps=0.2,
    train={"updates": 600, "cutoff": 3.2, "batch_atoms": 192},
    ps=12.0,
    reference_ps=2.0,
)

if __name__ == "__main__":
    main(RECIPE)
