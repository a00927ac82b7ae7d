"""Dipole models: exact symmetries, exact charges, training that lowers the error, and a file."""

import ase
import numpy as np
import pytest
import torch
from test_networks import alloy, ethanol, moved

import actionlearn as al
from actionlearn import dipoles, systems
from actionlearn.analysis import infrared
from actionlearn.analysis.trajectory import Trajectory
from actionlearn.errors import DataError, InvalidInput, UnsupportedSystem

NETWORKS = [
    {"cutoff": 4.0, "channels": 4},
    {"cutoff": 4.0, "channels": 4, "layers": 2},
    {"architecture": "schnet", "cutoff": 4.0, "channels": 6, "radial": 8, "layers": 2},
]


class Charges:
    """Fixed charges of elements, made neutral."""

    def __init__(self):
        self.of = {1: 0.2, 6: -0.3, 8: -0.6}

    def dipole(self, state):
        q = torch.tensor([self.of[z] for z in state.numbers.tolist()], dtype=torch.float64)
        mean = state.sum_by_system(q) / state.atoms_per_system
        return state.sum_by_system((q - mean[state.system]).unsqueeze(1) * state.positions)


def model_of(state, network):
    return dipoles.DipoleModel(sorted(set(state.numbers.tolist())), network=network).calibrate([state]).randomise()


def rotation():
    return torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]


@pytest.mark.parametrize("network", NETWORKS)
@torch.no_grad()
def test_symmetries_are_exact(network):
    state = ethanol()
    model = model_of(state, network)
    mu = model(state)
    for turn in (rotation(), -torch.eye(3, dtype=torch.float64)):
        assert torch.allclose(model(moved(state, rotation=turn)), mu @ turn.T, atol=1e-11)
    far = moved(state, shift=torch.tensor([300.0, -20.0, 4.0], dtype=torch.float64))
    assert torch.allclose(model(far), mu, atol=1e-10)
    charges, atomic = model.charges_and_dipoles(state)
    assert abs(float(charges.sum())) < 1e-12 and float(charges.abs().max()) > 1e-3
    assert torch.allclose((charges[:, None] * state.positions + atomic).sum(0), mu[0])
    assert torch.equal(model(state.flip()), mu)


@torch.no_grad()
def test_systems_of_a_batch_do_not_see_each_other():
    states = [ethanol(k) for k in range(3)]
    model = model_of(states[0], NETWORKS[0])
    together = model(al.PhaseState.batch(states))
    assert torch.allclose(together, torch.cat([model(state) for state in states]), atol=1e-12)


def test_untrained_it_is_zero_and_smooth():
    state = ethanol()
    assert not al.DipoleModel((1, 6, 8), network=NETWORKS[0])(state).any()
    model = model_of(state, NETWORKS[0]).requires_grad_(False)
    q = state.positions.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda q: model(state.moved(q, state.momenta)), (q,), eps=1e-5, atol=1e-7)


def test_fixed_charges_are_learned_and_kept(tmp_path):
    states = [ethanol(k) for k in range(220)]
    mu = dipoles.label(states, Charges())
    settings = al.Settings(minutes=None, updates=120, batch_atoms=144)
    model = dipoles.fit(states[:200], mu[:200], settings, network=NETWORKS[0])
    found = dipoles.errors(model, states[200:], mu[200:])
    assert found.relative < 0.5 and found.frames == 20 and "me·Å" in str(found)
    dipoles.save(model, tmp_path / "dipole.pt", {"relative": found.relative})
    again = dipoles.load(tmp_path / "dipole.pt")
    with torch.no_grad():
        assert torch.equal(again(states[210]), model(states[210]))
    assert again.report == {"relative": found.relative}
    few = al.Settings(minutes=None, updates=5)
    one, same = (dipoles.fit(states[:20], mu[:20], few, network=NETWORKS[0]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))


def test_spectra_are_taken_of_it():
    """A molecule that swings as a whole along one bond: the line of its dipole is where it swings."""
    state = ethanol()
    model = model_of(state, NETWORKS[0])
    t, per_cm = 2.0 * np.arange(512), 1500.0
    swing = 0.05 * np.sin(2.0 * np.pi * 2.99792458e-5 * per_cm * t)
    positions = state.positions.numpy() + swing[:, None, None] * np.eye(9)[:, :1] * np.array([1.0, 0.0, 0.0])
    run = Trajectory(positions, np.zeros_like(positions), 2.0, state)
    moments = infrared.dipoles(run, model)
    assert moments.shape == (512, 3)
    spectrum = infrared.infrared_spectrum(moments, 2.0)
    assert abs(spectrum.per_cm[spectrum.absorption.argmax()] - per_cm) < 2 * spectrum.resolution_per_cm


def test_what_has_no_dipole_is_refused(tmp_path):
    states = [ethanol(k) for k in range(4)]
    mu = dipoles.label(states, Charges())
    with pytest.raises(UnsupportedSystem, match="periodic system has no dipole"):
        al.DipoleModel((29, 79), network=NETWORKS[0])(alloy())
    with pytest.raises(UnsupportedSystem, match="unknown to this network"):
        al.DipoleModel((1, 6), network=NETWORKS[0])(states[0])
    with pytest.raises(InvalidInput, match=r"dipoles of shape \(3, 3\) for 4 states"):
        dipoles.fit(states, mu[:3])
    with pytest.raises(InvalidInput, match="not finite"):
        dipoles.fit(states, mu * np.nan)
    with pytest.raises(InvalidInput, match="a number of updates, not minutes"):
        dipoles.fit(states, mu, al.Settings(minutes=1.0))
    with pytest.raises(InvalidInput, match="there is no dipole model"):
        dipoles.load(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"no")
    with pytest.raises(DataError, match="is no dipole model, or damaged"):
        dipoles.load(tmp_path / "bad.pt")
    torch.save({"format": "other"}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="is no 'actionlearn dipole model 1' file"):
        dipoles.load(tmp_path / "other.pt")


def test_dipoles_of_a_calculator():
    pytest.importorskip("tblite")
    state = al.PhaseState.from_atoms(ase.Atoms("OH2", [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]]))
    base = systems.potential("gfn2-xtb", state.to_atoms())
    (mu,) = dipoles.label([state], base)
    assert abs(mu[0]) < 1e-4 and 0.2 < mu[1] < 0.8
