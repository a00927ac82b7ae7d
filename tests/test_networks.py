"""AtomicMoments: the symmetries it promises, smoothness, derivatives, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

import actionlearn as al
from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.neighbours import find_edges
from actionlearn.potentials import forces_from_energy

OPTIONS = [
    {},
    {"layers": 2},
    {"momenta": True},
    {"momenta": True, "layers": 2},
]


def ethanol(seed=0):
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=seed)
    atoms.set_momenta(np.random.default_rng(seed).normal(size=(9, 3)))
    return al.PhaseState.from_atoms(atoms)


def alloy():
    atoms = bulk("Cu", a=3.85, cubic=True)
    atoms.numbers[::2] = 79
    atoms.rattle(0.1, seed=1)
    atoms.set_momenta(np.random.default_rng(1).normal(size=(4, 3)))
    return al.PhaseState.from_atoms(atoms)


def network(state, **options):
    species = sorted(set(state.numbers.tolist()))
    net = al.AtomicMoments(species, cutoff=4.0, channels=6, hidden=12, **options)
    return net.calibrate([state]).randomise(0.5).requires_grad_(False)


def moved(state, rotation=None, shift=0.0, boost=0.0):
    rotation = torch.eye(3, dtype=torch.float64) if rotation is None else rotation
    return al.PhaseState(
        positions=state.positions @ rotation.T + shift,
        momenta=state.momenta @ rotation.T + boost * state.masses.unsqueeze(1),
        masses=state.masses,
        numbers=state.numbers,
        cell=state.cell @ rotation.T,
        pbc=state.pbc,
    )


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("make", [ethanol, alloy])
def test_invariances(make, options):
    state = make()
    net = network(state, **options)
    energy = net.energy(state)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    for same in (
        moved(state, rotation=rotation),
        moved(state, rotation=-torch.eye(3, dtype=torch.float64)),
        moved(state, shift=torch.tensor([1.3, -20.0, 4.0], dtype=torch.float64)),
        moved(state, boost=torch.tensor([0.3, 0.1, -2.0], dtype=torch.float64)),
        state.flip(),
    ):
        assert net.energy(same).item() == pytest.approx(energy.item(), abs=1e-11)
    order = torch.randperm(state.n_atoms)
    shuffled = al.PhaseState(
        positions=state.positions[order],
        momenta=state.momenta[order],
        masses=state.masses[order],
        numbers=state.numbers[order],
        cell=state.cell,
        pbc=state.pbc,
    )
    assert net.energy(shuffled).item() == pytest.approx(energy.item(), abs=1e-11)


@pytest.mark.parametrize("options", OPTIONS)
def test_only_the_momentum_network_sees_momenta(options):
    state = ethanol()
    net = network(state, **options)
    faster = state.moved(state.positions, 1.5 * state.momenta)
    assert (net.energy(faster) != net.energy(state)).item() is options.get("momenta", False)


@pytest.mark.parametrize("options", OPTIONS)
def test_derivatives_agree_with_differences(options):
    state = ethanol()
    net = network(state, **options)
    q = state.positions.clone().requires_grad_()
    p = state.momenta.clone().requires_grad_()
    energy = lambda q, p: net.energy(state.moved(q, p)).sum()  # noqa: E731
    assert torch.autograd.gradcheck(energy, (q, p), eps=1e-5, atol=1e-7)
    small = al.PhaseState(state.positions[:3], state.momenta[:3], state.masses[:3], state.numbers[:3])
    q = small.positions.clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda q: net.energy(small.moved(q, small.momenta)).sum(), (q,), atol=1e-5)


@pytest.mark.parametrize("make", [ethanol, alloy])
@pytest.mark.parametrize("layers", [1, 2])
def test_written_out_forces_are_those_of_reverse_mode(make, layers):
    state = make()
    net = network(state, layers=layers, heads=2)
    states = [state, al.PhaseState.batch([state, state.drift(0.05)])]
    for there in states:
        for potential in (net, net.head(0.3, -1.2)):
            expected = forces_from_energy(potential.energy, there)
            found = potential.forces(there)
            assert not found.requires_grad and not found.is_inference()
            assert (found - expected).abs().max() < 1e-13 * expected.abs().max().clamp_min(1.0)

    # and when they are to be differentiated again, by positions and by weights
    net.requires_grad_(True)
    head, gradients = net.head(0.3, -1.2), []
    for forces in (head.forces, lambda s: forces_from_energy(head.energy, s)):
        q = state.positions.clone().requires_grad_()
        F = forces(state.moved(q, state.momenta))
        gradients.append(torch.autograd.grad((F**3).sum(), [q, *net.parameters()], allow_unused=True))
    for mine, theirs in zip(*gradients, strict=True):
        assert (mine is None or mine.abs().max() == 0.0) if theirs is None else torch.allclose(mine, theirs, atol=1e-11)


def test_forces_follow_weights_that_change_and_networks_that_are_converted():
    state = ethanol()
    net = network(state, layers=2)
    net.forces(state)
    with torch.no_grad():
        net.mix[0].mul_(0.5)
    net.calibrate([state, state.drift(0.05)])
    assert torch.allclose(net.forces(state), forces_from_energy(net.energy, state), atol=1e-12)
    single, reference = net.to(torch.float32), net.forces(state.to(torch.float32))
    assert reference.dtype == torch.float32
    assert torch.allclose(single.forces(state.to(torch.float32)), reference)
    assert torch.allclose(net.to(torch.float64).forces(state), reference.double(), atol=1e-3)


def test_energy_is_smooth_where_a_neighbour_leaves():
    numbers = torch.tensor([29, 79])
    net = network(alloy())

    def pair(x):
        q = torch.tensor([[0.0, 0, 0], [x, 0, 0]], dtype=torch.float64)
        return al.PhaseState(q, torch.zeros_like(q), torch.ones(2, dtype=torch.float64), numbers)

    alone = net.energy(pair(8.0)).item()
    inside = [abs(net.energy(pair(4.0 - d)).item() - alone) for d in (0.04, 0.02, 0.01)]
    assert net.energy(pair(4.001)).item() == alone
    assert net.forces(pair(4.0)).abs().max() == 0.0
    slopes = np.diff(np.log(inside)) / np.log(0.5)
    assert (slopes > 3.8).all()  # vanishes with the fourth power: three continuous derivatives


def test_edges_kept_under_the_skin_change_nothing():
    state = alloy()
    net = network(state)
    energies = []
    for k in range(12):
        there = state.moved(state.positions + 0.05 * k * state.momenta / 3.0, state.momenta)
        fresh = copy.deepcopy(net)
        fresh.neighbours = al.NeighbourList(4.0, skin=0.0)
        energies.append((net.energy(there).item(), fresh.energy(there).item()))
    assert 1 < net.neighbours.searches < 12
    for kept, fresh in energies:
        assert kept == pytest.approx(fresh, abs=1e-12)


def test_small_cells_count_every_image():
    state = alloy()
    net = network(state)
    atoms = state.to_atoms()
    assert len(find_edges(state, 4.0)) > 4 * 10
    double = al.PhaseState.from_atoms(atoms * (2, 1, 1))
    assert net.energy(double).item() == pytest.approx(2 * net.energy(state).item(), abs=1e-11)


def test_batches_of_different_sizes_equal_singles():
    states = [ethanol(), ethanol(1)]
    single = al.PhaseState(
        states[0].positions[3:8], states[0].momenta[3:8], states[0].masses[3:8], states[0].numbers[3:8]
    )
    states.append(single)
    for options in OPTIONS:
        net = network(states[0], heads=2, **options)
        batch = al.PhaseState.batch(states)
        energies, forces = net.energies(batch), net.forces(batch)
        assert torch.allclose(energies, torch.cat([net.energies(s) for s in states]), atol=1e-11)
        assert torch.allclose(forces, torch.cat([net.forces(s) for s in states]), atol=1e-11)


def test_an_untrained_network_is_the_zero_potential():
    state = ethanol()
    net = al.AtomicMoments((1, 6, 8), cutoff=4.0)
    assert net.energy(state).item() == 0.0 and net.forces(state).abs().max() == 0.0
    after = al.DiscreteAction([net], step_fs=1.0).step(state)
    assert torch.equal(after.positions, state.drift(al.units.FEMTOSECOND).positions)


def test_heads_combine():
    state = ethanol()
    net = network(state, heads=3)
    energies = net.energies(state)[0]
    combined = net.head(0.5, 0.0, -2.0)
    assert combined.energy(state).item() == pytest.approx((0.5 * energies[0] - 2.0 * energies[2]).item(), rel=1e-12)
    with pytest.raises(InvalidInput, match="2 coefficients for a network of 3 heads"):
        net.head(1.0, 1.0)


def test_features_are_standardised():
    states = [ethanol(k) for k in range(5)]
    net = al.AtomicMoments((1, 6, 8), cutoff=4.0, channels=6, layers=2).calibrate(states)
    x = torch.cat([torch.cat(net._features(s, upto=1), dim=1) for s in states])
    assert x.mean(0).abs().max() < 1e-10 and (x.std(0) - 1).abs().max() < 1e-10


def test_float32_stays_float32():
    state = ethanol().to(torch.float32)
    net = al.AtomicMoments((1, 6, 8), dtype=torch.float32).randomise()
    assert net.forces(state).dtype == torch.float32


def test_wrong_options_and_species():
    with pytest.raises(InvalidInput, match="layers must be 1 or 2"):
        al.AtomicMoments((29,), layers=3)
    with pytest.raises(InvalidInput, match="distinct"):
        al.AtomicMoments((29, 29))
    with pytest.raises(UnsupportedSystem, match=r"\[1, 6, 8\]"):
        network(alloy()).energy(ethanol())
