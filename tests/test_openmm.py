import pickle
from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk

from actionlearn import PhaseState
from actionlearn.errors import CalculatorFailed, InvalidInput
from actionlearn.potentials import ASEPotential

openmm = pytest.importorskip("openmm")

from openmm import app, unit  # noqa: E402

from actionlearn.potentials.openmm import KJ_PER_MOL, OpenMMCalculator  # noqa: E402

COULOMB = 14.3996454  # e²/4πε₀, eV·Å
MADELUNG = 1.7475646  # of rock salt


def topology_of(atoms):
    topology = app.Topology()
    residue = topology.addResidue("ANY", topology.addChain())
    for number in atoms.numbers:
        topology.addAtom("X", app.element.Element.getByAtomicNumber(int(number)), residue)
    return topology


def charged(atoms, charges, *, sigma_A=1.0, epsilon=0.0, method=openmm.NonbondedForce.NoCutoff):
    """A system of nothing but pairs: charges in e, one Lennard-Jones kind (ε in kJ/mol)."""
    system, force = openmm.System(), openmm.NonbondedForce()
    for mass, charge in zip(atoms.get_masses(), charges, strict=True):
        system.addParticle(mass)
        force.addParticle(charge, 0.1 * sigma_A, epsilon)
    force.setNonbondedMethod(method)
    force.setEwaldErrorTolerance(1e-6)
    force.setUseDispersionCorrection(False)
    system.addForce(force)
    return system


def argon(**options):
    atoms = ase.Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.4 * 2 ** (1 / 6)]])
    return atoms, OpenMMCalculator(charged(atoms, [0, 0], sigma_A=3.4, epsilon=0.996), topology_of(atoms), **options)


def rock_salt():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * 2
    charges = np.where(atoms.numbers == 11, 1.0, -1.0)
    system = charged(atoms, charges, method=openmm.NonbondedForce.PME)
    system.getForce(0).setCutoffDistance(0.55)
    return atoms, OpenMMCalculator(system, topology_of(atoms))


def differences(calculator, atoms, count=6, delta=1e-4):
    """Minus central differences of the energy along the first coordinates."""
    found = []
    for k in range(count):
        ends = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions.flat[k] += sign * delta
            ends.append(calculator.get_potential_energy(moved))
        found.append((ends[1] - ends[0]) / (2 * delta))
    return np.array(found)


def test_the_depth_of_a_well():
    atoms, calculator = argon()
    assert calculator.get_potential_energy(atoms) == pytest.approx(-0.996 * KJ_PER_MOL, rel=1e-10)
    assert abs(calculator.get_forces(atoms)).max() < 1e-8


def test_the_energy_of_rock_salt_follows_the_box():
    atoms, calculator = rock_salt()
    for stretch in (1.0, 1.02):
        scaled = atoms.copy()
        scaled.set_cell(stretch * atoms.cell, scale_atoms=True)
        exact = -32 * MADELUNG * COULOMB / (2.82 * stretch)
        assert calculator.get_potential_energy(scaled) == pytest.approx(exact, rel=1e-5)
    wrapped = atoms.copy()
    wrapped.positions[3] += atoms.cell[0] - atoms.cell[2]
    assert calculator.get_potential_energy(wrapped) == pytest.approx(calculator.get_potential_energy(atoms), rel=1e-9)


def test_forces_are_the_gradient():
    atoms, calculator = rock_salt()
    atoms.rattle(0.1, seed=0)
    assert np.allclose(differences(calculator, atoms), calculator.get_forces(atoms).flat[:6], atol=2e-4)
    atoms, calculator = argon()
    atoms.rattle(0.2, seed=0)
    assert np.allclose(differences(calculator, atoms), calculator.get_forces(atoms).flat[:6], atol=1e-8)


def test_both_platforms_agree():
    atoms, exact = rock_salt()
    atoms.rattle(0.1, seed=0)
    fast = OpenMMCalculator(exact.system, topology_of(atoms), platform="CPU")
    assert np.allclose(fast.get_forces(atoms), exact.get_forces(atoms), atol=1e-4)


def test_a_force_field_moves_as_a_potential():
    pdb = app.PDBFile(str(Path(__file__).parent.parent / "examples" / "alanine_dipeptide.pdb"))
    system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, constraints=None, rigidWater=False)
    calculator = OpenMMCalculator(system, pdb.topology)
    atoms = calculator.make_atoms(pdb.positions)
    assert atoms.get_chemical_formula() == "C6H12N2O2" and not atoms.pbc.any()
    assert atoms.get_masses()[1] == system.getParticleMass(1).value_in_unit(unit.dalton)
    potential = ASEPotential(calculator)
    state = PhaseState.from_atoms(atoms)
    # kJ/mol, by OpenMM alone at its own minimum; the file has three digits of Å
    assert potential.energy(state).item() / KJ_PER_MOL == pytest.approx(-91.27, abs=0.3)
    assert torch.allclose(potential.forces(state).sum(0), torch.zeros(3, dtype=torch.float64), atol=1e-10)
    copy = pickle.loads(pickle.dumps(potential))
    assert torch.equal(copy.forces(state), potential.forces(state))


def test_other_atoms_are_refused():
    atoms, calculator = rock_salt()
    with pytest.raises(CalculatorFailed, match="Cl32Na32 in the order of its topology.*in another order"):
        ASEPotential(calculator).energy(PhaseState.from_atoms(atoms[::-1]))
    cluster = atoms.copy()
    cluster.pbc = False
    with pytest.raises(CalculatorFailed, match="this system is periodic, the atoms have pbc"):
        ASEPotential(calculator).energy(PhaseState.from_atoms(cluster))
    tilted = atoms.copy()
    tilted.cell[0, 1] = 0.1
    with pytest.raises(CalculatorFailed, match="lower triangular cell"):
        ASEPotential(calculator).energy(PhaseState.from_atoms(tilted))


def test_what_is_no_potential_is_refused():
    atoms, calculator = argon()
    with pytest.raises(InvalidInput, match="2 particles does not fit a topology of 1 atoms"):
        OpenMMCalculator(calculator.system, topology_of(atoms[:1]))
    system = charged(atoms, [0, 0])
    system.addConstraint(0, 1, 0.3)
    with pytest.raises(InvalidInput, match="has 1 constraints.*rigidWater=False"):
        OpenMMCalculator(system, topology_of(atoms))
    system = charged(atoms, [0, 0])
    system.setParticleMass(1, 0)
    with pytest.raises(InvalidInput, match="particle 1 has no mass"):
        OpenMMCalculator(system, topology_of(atoms))
    topology = topology_of(atoms[:1])
    topology.addAtom("M", None, next(topology.residues()))
    with pytest.raises(InvalidInput, match="particle 1 of the topology is no atom"):
        OpenMMCalculator(calculator.system, topology)
