import ase
import numpy as np
import pytest
import torch
from ase.build import bulk
from scipy.optimize import minimize_scalar

import actionlearn as al
from actionlearn import PhaseState
from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.potentials import SecondMomentMetals
from actionlearn.reference.thermostat import maxwell_boltzmann
from actionlearn.systems import structure

PRINTED = {
    "Ni": (4.432, 3.523),
    "Cu": (3.544, 3.615),
    "Pd": (3.936, 3.888),
    "Ag": (2.960, 4.086),
    "Pt": (5.853, 3.924),
    "Au": (3.779, 4.079),
    "Al": (3.339, 4.050),
}


def alloy(seed=0, repeat=2, rattle=0.15, a=3.87):
    atoms = bulk("Cu", "fcc", a=a, cubic=True) * repeat
    rng = np.random.default_rng(seed)
    atoms.numbers[rng.permutation(len(atoms))[::2]] = 79
    atoms.positions += rng.normal(scale=rattle, size=atoms.positions.shape)
    return atoms


def finite_difference_forces(potential, state, step=1e-5):
    forces = torch.zeros_like(state.positions)
    for k in range(state.positions.numel()):
        shift = torch.zeros_like(state.positions).flatten()
        shift[k] = step
        shift = shift.view_as(state.positions)
        plus = potential.energy(state.moved(state.positions + shift, state.momenta)).sum()
        minus = potential.energy(state.moved(state.positions - shift, state.momenta)).sum()
        forces.view(-1)[k] = (minus - plus) / (2 * step)
    return forces


@pytest.mark.parametrize("metal", PRINTED)
def test_cohesive_energy_and_lattice_constant_as_printed(metal):
    potential = SecondMomentMetals((metal,))
    cohesive, lattice = PRINTED[metal]

    def energy(a):
        return potential.energy(PhaseState.from_atoms(bulk(metal, "fcc", a=a))).item()

    best = minimize_scalar(energy, bounds=(0.98 * lattice, 1.02 * lattice), method="bounded", options={"xatol": 1e-6})
    assert -best.fun == pytest.approx(cohesive, abs=5e-4)
    assert best.x == pytest.approx(lattice, abs=5e-4)


def test_forces_are_the_negative_gradient():
    state = PhaseState.from_atoms(alloy())
    potential = SecondMomentMetals()
    q = state.positions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(potential.energy(state.moved(q, state.momenta)).sum(), q)
    forces = potential.forces(state)
    assert (forces + gradient).abs().max() < 1e-13 * forces.abs().max() * 10
    assert (forces - finite_difference_forces(potential, state)).abs().max() < 1e-7


def test_forces_differentiate_to_the_hessian():
    state = PhaseState.from_atoms(alloy(repeat=1))
    potential = SecondMomentMetals()

    def forces(q):
        return potential.forces(state.moved(q, state.momenta))

    def gradient(q):
        q = q if q.requires_grad else q.requires_grad_()
        return torch.autograd.grad(potential.energy(state.moved(q, state.momenta)).sum(), q, create_graph=True)[0]

    of_forces = torch.autograd.functional.jacobian(forces, state.positions)
    of_energy = torch.autograd.functional.jacobian(gradient, state.positions)
    assert torch.allclose(of_forces, -of_energy, atol=1e-12)
    q, h = state.positions, 1e-5
    shift = torch.zeros_like(q)
    shift[1, 2] = h
    assert torch.allclose((forces(q + shift) - forces(q - shift)) / (2 * h), of_forces[:, :, 1, 2], atol=1e-6)


def test_a_batch_equals_its_systems():
    singles = [PhaseState.from_atoms(a) for a in (alloy(1), bulk("Au"), alloy(2, repeat=1))]
    batch = PhaseState.batch(singles)
    potential = SecondMomentMetals()
    assert torch.allclose(potential.energy(batch), torch.cat([potential.energy(s) for s in singles]), atol=1e-12)
    assert torch.allclose(potential.forces(batch), torch.cat([potential.forces(s) for s in singles]), atol=1e-12)


def test_energy_is_extensive_in_small_and_large_cells():
    potential = SecondMomentMetals()
    small = PhaseState.from_atoms(alloy(repeat=1))
    large = PhaseState.from_atoms(alloy(repeat=1) * (2, 3, 1))
    assert potential.energy(large).item() == pytest.approx(6 * potential.energy(small).item(), rel=1e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_atom_leaves_smoothly(dtype):
    """Energy, force and force constant of a dimer all vanish at the cutoff, without a jump or a NaN."""
    potential = SecondMomentMetals(("Cu",))
    end = 2.44 * 2.556
    forces, stiffness = [], []
    for gap in (0.02, 0.01, 0.005, 1e-4, 1e-9, -1e-9, -0.1):
        q = torch.tensor([[0.0, 0, 0], [end - gap, 0, 0]], dtype=dtype, requires_grad=True)
        rest = torch.zeros(2, 3, dtype=dtype)
        state = PhaseState(positions=q, momenta=rest, masses=torch.ones(2, dtype=dtype), numbers=torch.tensor([29, 29]))
        pull = potential.forces(state)[0, 0]
        (slope,) = torch.autograd.grad(pull, q)
        forces.append(pull.item())
        stiffness.append(slope[1, 0].item())
    assert np.isfinite(forces).all() and np.isfinite(stiffness).all()
    assert forces[-2:] == [0.0, 0.0] and stiffness[-2:] == [0.0, 0.0]
    if dtype == torch.float64:  # E ~ gap³, so F ~ gap² and F' ~ gap
        assert forces[1] / forces[0] == pytest.approx(0.25, rel=0.1)
        assert stiffness[1] / stiffness[0] == pytest.approx(0.5, rel=0.2)


def test_a_lone_atom_has_no_energy_and_no_force():
    state = PhaseState.from_atoms(ase.Atoms("Cu"))
    potential = SecondMomentMetals()
    assert potential.energy(state).item() == 0.0
    assert torch.equal(potential.forces(state), torch.zeros(1, 3, dtype=torch.float64))


def test_single_precision_stays_single():
    state = PhaseState.from_atoms(alloy())
    potential = SecondMomentMetals()
    reference = potential.forces(state)
    single = potential.forces(state.to(torch.float32))
    assert single.dtype == torch.float32 and (single - reference).abs().max() < 1e-4


def test_species_may_change_between_calls():
    state = PhaseState.from_atoms(alloy())
    potential = SecondMomentMetals()
    before = potential.energy(state)
    other = PhaseState.from_atoms(alloy(seed=0))
    swapped = PhaseState(**{**_fields(other), "numbers": 29 + 79 - other.numbers})
    assert abs(potential.energy(swapped) - before) > 1.0
    assert torch.equal(potential.energy(state), before)


@pytest.mark.physics
def test_verlet_on_the_hot_alloy_does_not_drift():
    """At 2 fs and 700 K: less than 0.02 meV/atom over 10 ps, by the slope and by the means of one-picosecond blocks."""
    potential = SecondMomentMetals()
    verlet = al.Verlet(potential, step_fs=2.0)
    generator = torch.Generator().manual_seed(0)
    state = PhaseState.from_atoms(structure("cuau108"))
    for _ in range(10):
        state = verlet.step(maxwell_boltzmann(state, 700.0, generator), n=50)
    times, energies = 20.0 * np.arange(500), []
    for _ in times:
        state = verlet.step(state, n=10)
        energies.append((state.kinetic_energy() + potential.energy(state)).item())
    assert abs(al.energy_drift(times, energies, 108).value) * 10 < 0.02
    assert np.ptp(np.reshape(energies, (10, 50)).mean(1)) * 1e3 / 108 < 0.02
    assert 550 < state.temperature_K(removed=3).item() < 850


def _fields(state):
    return {name: getattr(state, name) for name in ("positions", "momenta", "masses", "numbers", "cell", "pbc")}


def test_unknown_species_are_refused():
    with pytest.raises(UnsupportedSystem, match="'Fe'.*choose from.*'Ni'"):
        SecondMomentMetals(("Cu", "Fe"))
    with pytest.raises(UnsupportedSystem, match=r"\['Cu', 'Au'\].*also contains \['Pt'\]"):
        SecondMomentMetals().energy(PhaseState.from_atoms(bulk("Pt")))
    with pytest.raises(InvalidInput, match="0 < start < end"):
        SecondMomentMetals(cutoff=(2.4, 2.3))
