import ase
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.cluster import Icosahedron
from scipy.optimize import minimize

from actionlearn import PhaseState
from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.potentials import LennardJones

REDUCED = LennardJones({"X": (1.0, 1.0)})


def particles(positions):
    q = torch.as_tensor(positions, dtype=torch.float64)
    return PhaseState(q, torch.zeros_like(q), torch.ones(len(q), dtype=torch.float64))


def gradient_forces(potential, state):
    q = state.positions.clone().requires_grad_()
    return -torch.autograd.grad(potential.energy(state.moved(q, state.momenta)).sum(), q)[0]


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_pair_well(dims):
    def pair(r):
        return particles([[0.0] * dims, [r] + [0.0] * (dims - 1)])

    assert REDUCED.energy(pair(2 ** (1 / 6))).item() == pytest.approx(-1.0, abs=1e-14)
    assert REDUCED.forces(pair(2 ** (1 / 6))).abs().max() < 1e-13
    assert REDUCED.energy(pair(1.0)).item() == pytest.approx(0.0, abs=1e-14)
    assert REDUCED.forces(pair(1.0))[1, 0].item() == pytest.approx(24.0)
    assert REDUCED.energy(pair(3.0)).item() == 0.0


def test_the_icosahedron_of_thirteen():
    """Its energy, −44.326801 ε, is the known global minimum; no pair of it reaches the switch."""
    cluster = Icosahedron("Ar", 2, latticeconstant=2 ** (1 / 6) * 2**0.5)
    state = particles(cluster.positions)

    def energy_and_gradient(x):
        here = state.moved(torch.tensor(x).view(-1, 3), state.momenta)
        return REDUCED.energy(here).item(), -REDUCED.forces(here).numpy().ravel()

    best = minimize(energy_and_gradient, cluster.positions.ravel(), jac=True, options={"gtol": 1e-8})
    assert best.fun == pytest.approx(-44.326801, abs=1e-6)


def test_forces_are_the_gradient_and_mixing_rules_hold():
    atoms = bulk("Ar", cubic=True, a=5.4) * 2
    atoms.numbers[::3] = 36
    atoms.rattle(0.3, seed=1)
    state = PhaseState.from_atoms(atoms)
    potential = LennardJones()
    forces = potential.forces(state)
    assert (forces - gradient_forces(potential, state)).abs().max() < 1e-12 * forces.abs().max()
    h, k = 1e-4, 7
    shift = torch.zeros_like(state.positions)
    shift[k, 1] = h
    plus, minus = (potential.energy(state.moved(state.positions + s * shift, state.momenta)) for s in (1, -1))
    assert forces[k, 1].item() == pytest.approx(((minus - plus) / (2 * h)).item(), abs=1e-8)

    def well(symbols, r):
        return potential.energy(PhaseState.from_atoms(ase.Atoms(symbols, positions=[[0, 0, 0], [r, 0, 0]]))).item()

    assert well("ArKr", 2 ** (1 / 6) * 3.525) == pytest.approx(-np.sqrt(0.0104 * 0.0140))


def test_two_derivatives_are_continuous_where_the_switch_acts():
    for end in (2.5, 3.0):
        around = torch.tensor([end - 1e-6, end + 1e-6], dtype=torch.float64, requires_grad=True)
        slopes, bends = [], []
        for r in around:
            q = torch.stack((torch.zeros_like(r), r)).unsqueeze(1)
            pull = REDUCED.forces(particles(q.detach()).moved(q, torch.zeros_like(q)))[1, 0]
            slopes.append(pull.item())
            bends.append(torch.autograd.grad(pull, around)[0].sum().item())
        assert slopes[0] == pytest.approx(slopes[1], abs=1e-5) and bends[0] == pytest.approx(bends[1], abs=1e-3)


def test_a_batch_equals_its_systems():
    generator = torch.Generator().manual_seed(0)
    singles = [particles(3 * torch.rand(n, 3, dtype=torch.float64, generator=generator)) for n in (4, 1, 7)]
    batch = PhaseState.batch(singles)
    assert torch.allclose(REDUCED.energy(batch), torch.cat([REDUCED.energy(s) for s in singles]), rtol=1e-12)
    assert torch.allclose(REDUCED.forces(batch), torch.cat([REDUCED.forces(s) for s in singles]), rtol=1e-12)


def test_bad_parameters_and_species_are_refused():
    with pytest.raises(InvalidInput, match=r"of 'Ar' are \(0.0, 3.4\).*positive"):
        LennardJones({"Ar": (0.0, 3.4)})
    with pytest.raises(InvalidInput, match="chemical symbol"):
        LennardJones({"Argon": (0.01, 3.4)})
    with pytest.raises(InvalidInput, match="0 < start < end"):
        LennardJones(cutoff=(3.0, 2.5))
    with pytest.raises(UnsupportedSystem, match=r"also contains \['Cu'\]"):
        LennardJones().forces(PhaseState.from_atoms(bulk("Cu")))
