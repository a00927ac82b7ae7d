"""SchNet: the symmetries it promises, smoothness, derivatives, and that every kind of map can be made of it."""

import numpy as np
import pytest
import torch
from test_networks import alloy, ethanol, moved
from test_reference import cluster

import actionlearn as al
from actionlearn import cli
from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.maps.blueprint import SINGLE, Blueprint, network_of
from actionlearn.networks import make_network
from actionlearn.uncertainty import Uncertainty

SMALL = {"architecture": "schnet", "cutoff": 4.0, "channels": 6, "hidden": 12, "radial": 8, "layers": 2}


def network(state, **options):
    species = sorted(set(state.numbers.tolist()))
    net = al.SchNet(species, **{**{k: v for k, v in SMALL.items() if k != "architecture"}, **options})
    return net.calibrate([state]).randomise(0.5).requires_grad_(False)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("make", [ethanol, alloy])
def test_invariances(make, layers):
    state = make()
    net = network(state, layers=layers)
    energy = net.energy(state).item()
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    shift = torch.tensor([1.3, -20.0, 4.0], dtype=torch.float64)
    for same in (moved(state, rotation=rotation), moved(state, shift=shift), state.flip()):
        assert net.energy(same).item() == pytest.approx(energy, abs=1e-11)
    order = torch.randperm(state.n_atoms, generator=torch.Generator().manual_seed(2))
    arrays = {k: getattr(state, k)[order] for k in ("positions", "momenta", "masses", "numbers")}
    shuffled = al.PhaseState(**arrays, cell=state.cell, pbc=state.pbc)
    assert net.energy(shuffled).item() == pytest.approx(energy, abs=1e-11)


@pytest.mark.parametrize("make", [ethanol, alloy])
def test_vectors_turn_with_the_system(make):
    state = make()
    net = network(state)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    x, vectors = net.features_and_vectors(state)
    for turn in (rotation, -torch.eye(3, dtype=torch.float64)):
        same, turned = net.features_and_vectors(moved(state, rotation=turn))
        assert torch.allclose(same, x, atol=1e-11) and torch.allclose(turned, vectors @ turn.T, atol=1e-11)
    assert vectors.abs().max() > 1e-3


def test_derivatives_agree_with_differences():
    state = ethanol()
    net = network(state)
    small = al.PhaseState(state.positions[:4], state.momenta[:4], state.masses[:4], state.numbers[:4])
    q = small.positions.clone().requires_grad_()
    energy = lambda q: net.energy(small.moved(q, small.momenta)).sum()  # noqa: E731
    assert torch.autograd.gradcheck(energy, (q,), eps=1e-5, atol=1e-7)
    assert torch.autograd.gradgradcheck(energy, (q,), atol=1e-5)


def test_energy_is_smooth_where_a_neighbour_leaves():
    net = network(alloy())

    def pair(x):
        q = torch.tensor([[0.0, 0, 0], [x, 0, 0]], dtype=torch.float64)
        return al.PhaseState(q, torch.zeros_like(q), torch.ones(2, dtype=torch.float64), torch.tensor([29, 79]))

    alone = net.energy(pair(8.0)).item()
    inside = [abs(net.energy(pair(4.0 - d)).item() - alone) for d in (0.02, 0.01, 0.005)]
    assert net.energy(pair(4.001)).item() == alone
    assert net.forces(pair(4.0)).abs().max() == 0.0
    assert (np.diff(np.log(inside)) / np.log(0.5) > 3.7).all()  # three continuous derivatives


def test_layers_reach_further_than_the_cutoff():
    """An atom two cutoffs away matters through the one between; to one layer it does not."""
    q = torch.tensor([[0.0, 0, 0], [3.5, 0, 0], [7.0, 0, 0]], dtype=torch.float64)
    state = al.PhaseState(q, torch.zeros_like(q), torch.ones(3, dtype=torch.float64), torch.tensor([29, 79, 29]))
    further = state.moved(q + torch.tensor([[0.0], [0.0], [0.2]], dtype=torch.float64) * torch.eye(3)[0], state.momenta)
    for layers, seen in ((1, False), (2, True)):
        net = network(alloy(), layers=layers)
        first, other = (net.atom_energies(s)[0].item() for s in (state, further))
        assert (first != other) is seen


@pytest.mark.parametrize("kind", ["discrete", "processed", "corrected", "potential"])
def test_maps_are_made_of_it_and_survive_a_file(kind, tmp_path):
    state = alloy()
    base = al.potentials.SecondMomentMetals()
    masses = dict(zip(state.numbers.tolist(), state.masses.tolist(), strict=True))
    stages = 1 if kind in SINGLE else 2
    model = Blueprint(kind, (29, 79), masses, 8.0, stages, SMALL).build(base=base)
    network_of(model).calibrate([state]).randomise(0.05)
    al.save(model, tmp_path / "model.pt")
    again = al.load(tmp_path / "model.pt", base=base)
    one, other = model.step(state), again.step(state)
    assert torch.allclose(one.momenta, other.momenta, atol=1e-12)
    assert not torch.allclose(one.momenta, state.momenta, atol=1e-4)
    assert isinstance(network_of(again), al.SchNet)


def test_it_is_trained_by_the_command_line(tmp_path, capsys):
    folder = tmp_path / "set"
    found = al.sample(
        cluster(),
        "metals",
        folder,
        temperatures_K=[200.0],
        step_fs=2.0,
        stretches=4,
        frames=21,
        record_every=4,
        equilibrate_ps=0.1,
        decorrelate_ps=0.05,
    )
    words = "--network schnet --kind potential --step-fs 2 --updates 60 --layers 2 --channels 8 --hidden 16".split()
    words += "--cutoff 4.5 --batch-atoms 64".split()
    assert cli.main(["train", str(folder), "--output", str(tmp_path / "model.pt"), *words]) == 0
    model = al.load(tmp_path / "model.pt")
    assert model.blueprint.network == {
        "architecture": "schnet",
        "cutoff": 4.5,
        "channels": 8,
        "hidden": 16,
        "layers": 2,
    }
    errors = [point["momentum_error"] for point in model.report["curve"]]
    assert errors[-1] < 0.8 * errors[0]
    assert Uncertainty.of(model)(found[0].state(0)).max() < 2.0


def test_what_it_is_not_for():
    with pytest.raises(InvalidInput, match="sees no momenta, which midpoint and direct maps need"):
        Blueprint("midpoint", (29,), {29: 63.5}, 8.0, 1, SMALL).build()
    with pytest.raises(InvalidInput, match="a direct map sees momenta, a schnet does not"):
        Blueprint("direct", (29,), {29: 63.5}, 8.0, 1, SMALL).build()
    with pytest.raises(InvalidInput, match="one of moments, schnet, not 'gnn'"):
        make_network((29,), {"architecture": "gnn"}, heads=1, momenta=False, dtype=torch.float64)
    with pytest.raises(InvalidInput, match="layers must be at least 1, got 0"):
        al.SchNet((29,), layers=0)
    with pytest.raises(InvalidInput, match="distinct atomic numbers"):
        al.SchNet((29, 29))
    with pytest.raises(UnsupportedSystem, match=r"atomic numbers \[1, 6, 8\] are unknown"):
        al.SchNet((29,)).energy(ethanol())
