"""Kinetic temperatures by element and by band: exact thermal momenta, turned molecules, and what must not pass."""

import dataclasses

import numpy as np
import pytest
import torch
from ase.build import molecule

import actionlearn as al
from actionlearn.analysis import Trajectory, rigid_bands, temperatures_by_band, temperatures_by_species
from actionlearn.errors import InvalidInput
from actionlearn.potentials.protocol import forces_from_energy
from actionlearn.structure import vibrational_bands
from actionlearn.units import BOLTZMANN

KT = BOLTZMANN * 300.0


class Springs:
    """Springs between all pairs of a molecule, at rest as it is built."""

    def __init__(self, state):
        self.pairs = torch.combinations(torch.arange(state.n_atoms), 2).T
        self.lengths = self.distances(state)

    def distances(self, state):
        return (state.positions[self.pairs[0]] - state.positions[self.pairs[1]]).norm(dim=1)

    def energy(self, state):
        return 5.0 * (self.distances(state) - self.lengths).square().sum().unsqueeze(0)

    def forces(self, state):
        return forces_from_energy(self.energy, state)


@pytest.fixture(scope="module")
def water():
    return al.PhaseState.from_atoms(molecule("H2O"))


@pytest.fixture(scope="module")
def bands(water):
    return {**rigid_bands(water), **vibrational_bands(Springs(water), water, [100.0, 2500.0, 9000.0])}


def turns(rng, count):
    """Random rotations."""
    Q, R = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    Q *= np.sign(np.diagonal(R, axis1=1, axis2=2))[:, None]
    Q[:, :, 0] *= np.linalg.det(Q)[:, None]
    return Q


def tumbling(water, frames, fragments, kT_of, seed=0):
    """Molecules anywhere, turned at random, with momenta drawn along the directions of bands, each with its own kT."""
    rng = np.random.default_rng(seed)
    root = water.masses.sqrt().numpy()[:, None]
    q, p = [], []
    for _ in range(frames):
        R = turns(rng, fragments)
        w = sum(
            np.sqrt(kT) * np.einsum("fk,kad->fad", rng.normal(size=(fragments, len(e))), e.numpy()) for e, kT in kT_of
        )
        q.append((water.positions.numpy() @ R + rng.normal(size=(fragments, 1, 3))).reshape(-1, 3))
        p.append((root * (w @ R)).reshape(-1, 3))
    system = al.PhaseState.from_atoms(sum([molecule("H2O") for _ in range(fragments)], start=molecule("H2O")[:0]))
    return Trajectory(np.array(q), np.array(p), 2.0, system)


def test_bands_divide_all_degrees(bands):
    assert [len(e) for e in bands.values()] == [3, 3, 2, 1]
    e = torch.cat([e.flatten(1) for e in bands.values()])
    assert torch.allclose(e @ e.T, torch.eye(9, dtype=e.dtype), atol=1e-6)


def test_each_band_keeps_its_own_temperature_in_molecules_that_turn(water, bands):
    heats = (1.0, 2.0, 3.0, 0.5)
    run = tumbling(water, 2000, 3, [(e, KT * heat) for e, heat in zip(bands.values(), heats, strict=True)])
    found = temperatures_by_band(run, bands, water)
    assert found.degrees == pytest.approx((9.0, 9.0, 6.0, 3.0))
    off = (found.means_K - 300.0 * np.array(heats)) / found.mean_errors_K
    assert np.abs(off).max() < 4.0 and (found.mean_errors_K < 0.03 * found.means_K).all()
    assert found.temperatures_K.shape == (10, 4)
    assert found.times_fs[0] == pytest.approx(199.0) and found.times_fs[-1] == pytest.approx(3799.0)
    scatter = found.temperatures_K.std(0, ddof=1)
    assert np.allclose(found.errors_K.mean(0), scatter, rtol=0.6)
    assert "translation" in str(found)


def test_without_turning_back_the_bands_mix(water, bands):
    heats = (1.0, 1.0, 10.0, 0.1)
    run = tumbling(water, 300, 1, [(e, KT * heat) for e, heat in zip(bands.values(), heats, strict=True)])
    right = temperatures_by_band(run, bands, water).means_K
    wrong = temperatures_by_band(run, bands, water, turning=False).means_K
    assert right[2] / right[3] > 50.0 and wrong[2] / wrong[3] < 5.0


def test_equipartition_holds_by_band_and_species_in_thermal_motion(water, bands):
    run = tumbling(water, 2000, 2, [(e, KT) for e in bands.values()])
    for found in (temperatures_by_band(run, bands, water), temperatures_by_species(run)):
        assert (np.abs(found.means_K - 300.0) < 4.0 * found.mean_errors_K).all()


def test_species_account_for_the_centre_of_mass(water):
    rng = np.random.default_rng(0)
    m = water.masses.numpy()[:, None]
    p = np.sqrt(m * KT) * rng.normal(size=(20000, 3, 3))
    p -= m * p.sum(1, keepdims=True) / m.sum()
    run = Trajectory(np.repeat(water.positions.numpy()[None], 20000, 0), p, 1.0, water)
    found = temperatures_by_species(run, momentum_removed=True)
    assert found.groups == ("H", "O")
    assert found.degrees[1] == pytest.approx(3 * (1 - m[0, 0] / m.sum()))
    assert (np.abs(found.means_K - 300.0) < 4.0 * found.mean_errors_K).all()
    naive = temperatures_by_species(run)
    assert naive.means_K[1] < 0.2 * 300.0


def test_bands_lose_the_motion_of_the_whole(water, bands):
    run = tumbling(water, 2000, 3, [(e, KT) for e in bands.values()])
    m = run.system.masses.numpy()[:, None]
    at_rest = dataclasses.replace(run, momenta=run.momenta - m * run.momenta.sum(1, keepdims=True) / m.sum())
    found = temperatures_by_band(at_rest, bands, water, momentum_removed=True)
    assert found.degrees == pytest.approx((6.0, 9.0, 6.0, 3.0))
    assert (np.abs(found.means_K - 300.0) < 4.0 * found.mean_errors_K).all()
    assert temperatures_by_band(at_rest, bands, water).means_K[0] < 220.0


def test_fixed_atoms_take_their_degrees_with_them(water):
    rng = np.random.default_rng(1)
    held = dataclasses.replace(water, fixed=torch.tensor([True, False, False]))
    p = np.sqrt(KT * water.masses.numpy()[:, None]) * rng.normal(size=(4000, 3, 3)) * ~held.fixed.numpy()[:, None]
    run = Trajectory(np.broadcast_to(water.positions.numpy(), p.shape), p, 1.0, held)
    found = temperatures_by_band(run, rigid_bands(water), turning=False)
    assert found.degrees[0] == pytest.approx(3.0 * 2.016 / 18.015, rel=1e-3)  # the oxygen has most of the translation
    assert (np.abs(found.means_K - 300.0) < 4.0 * found.mean_errors_K).all()
    with pytest.raises(InvalidInput, match="with fixed atoms the total momentum is not held at zero"):
        temperatures_by_band(run, rigid_bands(water), turning=False, momentum_removed=True)


def test_what_cannot_be_measured_is_refused(water, bands):
    run = tumbling(water, 60, 1, [(e, KT) for e in bands.values()])
    with pytest.raises(InvalidInput, match="no multiple"):
        temperatures_by_band(run, {"a": torch.eye(6)[:, :].reshape(6, 2, 3)})
    with pytest.raises(InvalidInput, match="give the geometry"):
        temperatures_by_band(run, bands)
    with pytest.raises(InvalidInput, match="not orthonormal"):
        temperatures_by_band(run, {"a": 2.0 * bands["translation"]}, water)
    with pytest.raises(InvalidInput, match="elements"):
        temperatures_by_band(run, bands, al.PhaseState.from_atoms(molecule("H2O")[[1, 0, 2]]))
    with pytest.raises(InvalidInput, match="do not fill"):
        temperatures_by_band(run, bands, water, blocks=20)
    with pytest.raises(InvalidInput, match="no bands"):
        temperatures_by_band(run, {}, water)
