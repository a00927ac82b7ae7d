import pickle

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from actionlearn import PhaseState
from actionlearn.errors import CalculatorFailed, InvalidInput, NotDifferentiable, UnsupportedSystem
from actionlearn.potentials import ASEPotential, Potential, forces_from_energy


class Springs(Calculator):
    """Every atom tied to the origin; the dipole is the sum of positions. Fails, or goes bad, when told to."""

    implemented_properties = ["energy", "forces", "dipole"]

    def __init__(self, fail_at=None, bad_at=None):
        super().__init__()
        self.calls, self.fail_at, self.bad_at = 0, fail_at, bad_at

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        if self.calls == self.fail_at:
            raise ArithmeticError("self-consistency not reached")
        q = self.atoms.positions
        energy = np.nan if self.calls == self.bad_at else 0.5 * (q**2).sum()
        self.results = {"energy": energy, "forces": -q, "dipole": q.sum(0)}


def copper(rattle=0.1, seed=0, repeat=2):
    atoms = bulk("Cu", cubic=True) * repeat
    atoms.rattle(rattle, seed=seed)
    return atoms


def water(shift=0.0):
    atoms = molecule("H2O")
    atoms.positions += shift
    return PhaseState.from_atoms(atoms)


def test_emt_as_a_potential():
    atoms = copper()
    potential = ASEPotential(EMT())
    state = PhaseState.from_atoms(atoms)
    assert isinstance(potential, Potential)
    atoms.calc = EMT()
    assert potential.energy(state).item() == atoms.get_potential_energy()
    assert np.array_equal(potential.forces(state).numpy(), atoms.get_forces())
    assert potential.calculations == 1


def test_a_batch_of_different_sizes_equals_its_systems():
    singles = [PhaseState.from_atoms(copper(seed=k, repeat=k)) for k in (1, 2)]
    batch = PhaseState.batch(singles)
    together, alone = ASEPotential(EMT()), ASEPotential(EMT)
    assert torch.equal(together.energy(batch), torch.cat([alone.energy(s) for s in singles]))
    assert torch.equal(together.forces(batch), torch.cat([alone.forces(s) for s in singles]))
    assert together.calculations == alone.calculations == 2


def test_a_configuration_is_never_computed_twice():
    calculator = Springs()
    potential = ASEPotential(calculator, remember=3)
    here, there = water(), water(0.1)
    for state in (here, there, here, there):
        potential.energy(state)
        potential.forces(state)
        potential.dipole(state)
    potential.forces(here.flip())
    assert calculator.calls == potential.calculations == 2
    potential.energy(PhaseState.batch([here, there, here]))
    assert calculator.calls == 2
    cell = PhaseState.from_atoms(here.to_atoms())
    cell = PhaseState(cell.positions, cell.momenta, cell.masses, cell.numbers, cell=5 * torch.eye(3).double())
    potential.energy(cell)  # the cell is part of the configuration
    assert calculator.calls == 3
    potential.energy(water(np.nextafter(0.1, 1)))  # so is the last bit of a position
    assert potential.calculations == 4
    potential.energy(there)  # the longest unused was pushed out
    assert potential.calculations == 5


def test_a_batch_larger_than_the_memory_is_remembered_whole():
    potential = ASEPotential(Springs(), remember=1)
    batch = PhaseState.batch([water(0.1 * k) for k in range(5)])
    potential.energy(batch)
    potential.forces(batch)
    assert potential.calculations == 5


def test_what_is_handed_out_does_not_reach_what_is_remembered():
    potential = ASEPotential(Springs())
    state = water()
    potential.forces(state).zero_()
    assert torch.equal(potential.forces(state), -state.positions)


def test_dipole():
    state = PhaseState.batch([water(), water(1.0)])
    assert torch.allclose(ASEPotential(Springs()).dipole(state), state.sum_by_system(state.positions), atol=1e-14)
    with pytest.raises(UnsupportedSystem, match="EMT cannot do this"):
        ASEPotential(EMT()).dipole(PhaseState.from_atoms(copper()))


def test_failures_name_the_calculator_and_the_system():
    batch = PhaseState.batch([water(), water(0.1), water(0.2), water(0.3)])
    potential = ASEPotential(Springs(fail_at=3))
    with pytest.raises(CalculatorFailed, match=r"Springs failed on system 2 \(H2O, 3 atoms\).*ArithmeticError: self-c"):
        potential.energy(batch)
    assert torch.isfinite(potential.energy(batch)).all()  # the failure was not remembered as a result
    with pytest.raises(CalculatorFailed, match="Springs returned numbers that are not finite for system 1"):
        ASEPotential(Springs(bad_at=2)).forces(batch)
    with pytest.raises(UnsupportedSystem, match="EMT.*system 0 .U, 1 atoms.*No EMT-potential for U"):
        ASEPotential(EMT()).energy(PhaseState.from_atoms(bulk("U", "fcc", a=5.0)))


def test_only_calculators_and_their_factories_are_taken():
    with pytest.raises(InvalidInput, match="expected an ASE calculator or a function that makes one, got str"):
        ASEPotential("EMT")
    with pytest.raises(InvalidInput, match="returned dict, which is no ASE calculator"):
        ASEPotential(dict).energy(water())
    with pytest.raises(InvalidInput, match="at least one"):
        ASEPotential(EMT(), remember=0)
    flat = PhaseState(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1))
    with pytest.raises(UnsupportedSystem, match="three dimensions"):
        ASEPotential(EMT()).energy(flat)


def test_the_first_derivative_is_given_and_the_second_refused():
    potential = ASEPotential(Springs())
    state = PhaseState.batch([water(), water(0.1)])
    forces = potential.forces(state)
    assert not forces.requires_grad
    q = state.positions.clone().requires_grad_()
    moving = state.moved(q, state.momenta)
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * potential.energy(moving)).sum(), q)
    assert torch.equal(gradient, -weights[state.system].unsqueeze(1) * forces)
    assert torch.equal(forces_from_energy(potential.energy, state), forces)
    (gradient,) = torch.autograd.grad(potential.energy(moving).sum(), q, create_graph=True)
    with pytest.raises(NotDifferentiable, match="Springs is an ASE calculator.*finite differences"):
        torch.autograd.grad(gradient.square().sum(), q)
    with pytest.raises(NotDifferentiable, match="Springs"):
        potential.forces(moving).sum().backward()
    with pytest.raises(NotDifferentiable, match="Springs"):
        potential.dipole(moving).sum().backward()


@pytest.mark.parametrize("function", ["energy", "forces"])
def test_forward_mode_is_refused_not_silently_zero(function):
    potential = ASEPotential(Springs())
    state = water()
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotDifferentiable, match="forward"):
        q = torch.autograd.forward_ad.make_dual(state.positions, torch.ones_like(state.positions))
        getattr(potential, function)(state.moved(q, state.momenta))


def test_a_factory_travels_between_processes():
    potential = ASEPotential(EMT)
    state = PhaseState.from_atoms(copper())
    energy = potential.energy(state)
    copy = pickle.loads(pickle.dumps(potential))
    assert torch.equal(copy.energy(state), energy) and copy.calculator is not potential.calculator


def test_single_precision_stays_single():
    state = PhaseState.from_atoms(copper(), dtype=torch.float32)
    potential = ASEPotential(EMT())
    assert potential.energy(state).dtype == potential.forces(state).dtype == torch.float32


def test_a_calculator_that_differentiates_works_where_gradients_are_off():
    class Torch(Calculator):
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms, properties, system_changes):
            q = torch.tensor(atoms.positions, requires_grad=True)
            energy = q.square().sum()
            energy.backward()
            self.results = {"energy": energy.item(), "forces": -q.grad.numpy()}

    state = PhaseState.from_atoms(molecule("H2O"))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(ASEPotential(Torch()).forces(state), -2.0 * state.positions)
