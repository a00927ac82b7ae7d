"""Bias potentials: forces are gradients, and what they hold is held."""

import math

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones as ASELennardJones

import actionlearn as al
from actionlearn.ase import ActionGHMC, ActionNVE
from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.potentials import ASEPotential, FunctionPotential, Restraint, Wall, forces_from_energy
from actionlearn.units import BOLTZMANN


def state_of(positions, mass=20.0):
    q = torch.tensor(positions, dtype=torch.float64)
    return al.PhaseState(q, torch.zeros_like(q), torch.full((len(q),), mass, dtype=torch.float64))


BIASES = {
    "restraint": Restraint([0, 2], torch.tensor([[0.5, 0, 0], [2.0, 1.0, 0]]), 3.0),
    "wall": Wall([1.0, 1.0, 0.0], 0.8, 4.0),
    "function": FunctionPotential(lambda s: s.sum_by_system((s.positions**4).sum(1))),
}


@pytest.mark.parametrize("bias", BIASES)
def test_forces_are_gradients(bias):
    state = state_of([[0.1, 0.2, 0.3], [1.0, 1.1, -0.4], [2.2, 0.7, 0.1]])
    bias = BIASES[bias]
    assert float(bias.energy(state)) > 0
    assert torch.allclose(bias.forces(state), forces_from_energy(bias.energy, state), atol=1e-12)
    step = al.DiscreteAction([_Nothing()], step_fs=1.0, stages=1, extra=[bias])
    assert al.symplectic_defect(step, state) < 1e-12 and al.reversal_error(step, state) < 1e-12


class _Nothing:
    def energy(self, state):
        return torch.zeros(state.n_systems, dtype=state.positions.dtype)

    def forces(self, state):
        return torch.zeros_like(state.positions)


def test_a_restrained_gas_has_the_width_of_its_springs():
    atoms = molecule("H2O")
    atoms.calc = None
    centres = torch.tensor(atoms.positions)
    model = al.DiscreteAction([_Nothing()], step_fs=1.0, stages=1, extra=[Restraint([0, 1, 2], centres, 5.0)])
    dyn = ActionGHMC(
        atoms, model=model, potential=_Nothing(), temperature_K=300.0, friction_per_ps=50.0, proposal_steps=4, seed=1
    )
    widths = []
    dyn.attach(lambda: widths.append(((atoms.positions - centres.numpy()) ** 2).mean()), interval=2)
    dyn.run(3000)
    blocks = np.array([np.mean(part) for part in np.array_split(widths[100:], 20)])
    error = blocks.std(ddof=1) / math.sqrt(20)
    assert abs(blocks.mean() - BOLTZMANN * 300.0 / 5.0) < 4.0 * error
    assert error < 0.15 * blocks.mean()


def test_any_calculator_is_a_bias():
    atoms = bulk("Ar", a=5.3, cubic=True) * 2
    atoms.rattle(0.1, seed=0)
    calculator = ASEPotential(ASELennardJones(sigma=3.4, epsilon=0.0104, rc=5.0, smooth=True))
    by_bias = atoms.copy()
    ActionNVE(by_bias, model=al.DiscreteAction([_Nothing()], step_fs=5.0, stages=1, extra=[calculator])).run(10)
    ActionNVE(atoms, model=al.Verlet(calculator, step_fs=5.0)).run(10)
    assert np.abs(atoms.positions - by_bias.positions).max() < 1e-12


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Restraint([0, 1], torch.zeros(1, 3), 1.0), InvalidInput, "2 atoms needs as many centres"),
        (lambda: Restraint([0], torch.zeros(1, 3), -1.0), InvalidInput, "stiffness must be .* got -1.0"),
        (lambda: Restraint([9], torch.zeros(1, 3), 1.0).energy(state_of([[0.0] * 3])), UnsupportedSystem, "number 9"),
        (lambda: Wall([0.0, 0.0, 0.0], 1.0, 1.0), InvalidInput, "normal of a wall must be a vector"),
        (lambda: Wall([1.0, 0.0, 0.0], 1.0, float("nan")), InvalidInput, "stiffness must be .* got nan"),
        (
            lambda: FunctionPotential(lambda s: s.positions.sum()).energy(state_of([[0.0] * 3])),
            InvalidInput,
            r"shape \(\), expected one energy per system",
        ),
    ],
)
def test_wrong_biases(make, error, message):
    with pytest.raises(error, match=message):
        make()
