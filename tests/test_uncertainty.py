"""The uncertainty of an atom is a distance from training: large where training never was, and kept by checkpoints."""

import pytest
import torch
from harmonic_stretches import MASSES, stretch

import actionlearn as al
from actionlearn.dataset import Dataset
from actionlearn.maps.blueprint import KINDS, SINGLE, Blueprint, network_of
from actionlearn.uncertainty import Uncertainty

NETWORK = {"cutoff": 4.5, "channels": 4, "hidden": 8, "radial": 4}


def sets(temperature_K=300.0, first=0):
    """Twelve stretches; atoms of a cluster that swing about the corners of a cube."""
    corners = 2.6 * torch.tensor([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]).numpy()
    found = []
    for seed in range(first, first + 12):
        one = stretch(1.0, n_atoms=8, seed=seed, temperature_K=temperature_K)
        one.frames.positions[:] += corners
        found.append(one)
    return Dataset(found, step_fs=8.0)


def model(kind="discrete"):
    stages = 1 if kind in SINGLE else 2
    made = Blueprint(kind, tuple(MASSES), MASSES, 8.0, stages, NETWORK).build(base=al.potentials.LennardJones())
    network_of(made).calibrate(sets().windows(range(8)).frames)
    return made


def of_set(uncertainty, data):
    return uncertainty(data.windows(data.even(40)).frames[0])


@pytest.mark.parametrize("kind", KINDS)
def test_one_is_the_edge_of_training(kind):
    training, validation = sets(), sets(first=100)
    found = Uncertainty.fit(model(kind), training)
    assert float(of_set(found, training).max()) <= 1.0 + 1e-9
    both = Uncertainty.fit(model(kind), training, validation)
    seen = torch.cat([of_set(both, training), of_set(both, validation)])
    assert 0.8 < float(seen.max()) <= 1.0 + 1e-9 and float(seen.median()) < 0.7


def test_hotter_is_further_and_so_is_a_lone_atom():
    found = Uncertainty.fit(model(), sets(), sets(first=100))
    means = [float(of_set(found, sets(T, first=200)).mean()) for T in (300.0, 600.0, 1200.0)]
    assert means[0] < 0.8 * means[1] < 0.7 * means[2]
    state = sets().windows([0]).frames[0]
    q = state.positions.clone()
    q[3] += 20.0
    u = found(state.moved(q, state.momenta))
    assert int(u.argmax()) == 3 and float(u[3]) > 3.0


def test_neither_order_nor_place_nor_batch_matters():
    found = Uncertainty.fit(model(), sets())
    state = sets().windows([5]).frames[0]
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    moved = state.moved(state.positions @ turn + 7.0, state.momenta @ turn)
    assert torch.allclose(found(moved), found(state), atol=1e-9)
    assert torch.allclose(found(al.PhaseState.batch([moved, state])), found(state).repeat(2), atol=1e-9)


def test_a_checkpoint_keeps_it(tmp_path):
    made, training = model(), sets()
    found = Uncertainty.fit(made, training)
    al.save(made, tmp_path / "model.pt", {"uncertainty": found.tensors()})
    loaded = al.load(tmp_path / "model.pt")
    assert torch.allclose(of_set(loaded.uncertainty, training), of_set(found, training), rtol=1e-3)
    single = al.load(tmp_path / "model.pt", dtype=torch.float32)
    state = training.windows([0], torch.float32).frames[0]
    assert single.uncertainty(state).dtype == torch.float32
    al.save(made, tmp_path / "bare.pt")
    assert al.load(tmp_path / "bare.pt").uncertainty is None


def test_an_element_that_training_never_saw_is_infinitely_far():
    unseen = Blueprint("discrete", (29, 47, 79), MASSES, 8.0, 2, NETWORK).build()
    found = Uncertainty.fit(unseen, sets())
    state = sets().windows([0]).frames[0].to_atoms()
    state.numbers[2] = 47
    u = found(al.PhaseState.from_atoms(state))
    assert torch.isinf(u).tolist() == [k == 2 for k in range(8)]
