"""Infrared spectra, diffusion and coordination against cases with known answers."""

import dataclasses

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes

from actionlearn.analysis import (
    Trajectory,
    coordination,
    diffusion,
    dipoles,
    infrared_spectrum,
    mean_square_displacement,
)
from actionlearn.errors import InvalidInput
from actionlearn.state import PhaseState


def vibrating_charges(per_cm, amplitudes, interval_fs, frames=4000):
    """Unit charges on springs along x, each with its wavenumber and amplitude."""
    t = np.arange(frames)[:, None] * interval_fs
    omega = 2 * np.pi * 2.99792458e-5 * np.asarray(per_cm)
    q = np.zeros((frames, len(omega), 3))
    q[:, :, 0] = np.asarray(amplitudes) * np.cos(omega * t + np.arange(len(omega)))
    zero = torch.zeros(len(omega), 3, dtype=torch.float64)
    return Trajectory(
        q, np.zeros_like(q), interval_fs, PhaseState(zero, zero, torch.ones(len(omega)).double(), [1] * len(omega))
    )


@pytest.mark.parametrize("interval_fs", [1.0, 4.0])
def test_bands_have_the_strength_of_the_square_of_dipole_and_frequency(interval_fs):
    run = vibrating_charges([1000.0, 3000.0], [1.0, 0.5], interval_fs)
    found = infrared_spectrum(dipoles(run, [1.0, 1.0]), interval_fs, resolution_per_cm=40.0)
    spacing = found.per_cm[1]
    low, high = (
        found.absorption[(found.per_cm > a) & (found.per_cm < b)].sum() for a, b in ((800, 1200), (2800, 3200))
    )
    assert high / low == pytest.approx((3000 * 0.5) ** 2 / 1000**2, rel=0.01)
    assert found.absorption.sum() * spacing == pytest.approx(1.0, abs=1e-12)
    assert found.band(800.0, 1200.0) == pytest.approx(1000.0, abs=2.0)
    assert found.band(2800.0, 3200.0) == pytest.approx(3000.0, abs=2.0)
    assert found.nyquist_per_cm == pytest.approx(1 / (2 * interval_fs * 2.99792458e-5))
    assert found.at_limit < 1e-3


def test_a_band_beyond_the_limit_is_refused_and_folding_is_told():
    limit = 1 / (2 * 4.0 * 2.99792458e-5)
    folded = infrared_spectrum(dipoles(vibrating_charges([limit + 100.0], [1.0], 4.0), [1.0]), 4.0)
    assert folded.at_limit > 0.9
    with pytest.raises(InvalidInput, match="Nyquist limit of 4170"):
        folded.band(4000.0, 4500.0)
    with pytest.raises(InvalidInput, match="nothing absorbs"):
        infrared_spectrum(np.ones((100, 3)), 1.0)
    with pytest.raises(InvalidInput, match=r"shape \(frames, 3\)"):
        infrared_spectrum(np.ones((100, 2)), 1.0)


class FixedCharges(Calculator):
    implemented_properties = ("energy", "dipole")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "dipole": np.array([1.0, -2.0]) @ self.atoms.positions}


def test_dipoles_of_charges_calculators_and_functions_agree():
    run = vibrating_charges([500.0, 900.0], [0.3, 0.1], 2.0, frames=20)
    wanted = dipoles(run, [1.0, -2.0])
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)
    np.testing.assert_allclose(dipoles(run, FixedCharges()), wanted, atol=1e-14)
    np.testing.assert_allclose(dipoles(run, lambda state: weights @ state.positions), wanted, atol=1e-14)
    with pytest.raises(InvalidInput, match="each of 2 atoms"):
        dipoles(run, [1.0])


def walking(frames=4000, atoms=40, seed=0):
    """Random walks with D = 0.5 Å²/ps at frames of 10 fs, on top of a wind."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(frames, atoms, 3)) * np.sqrt(2 * 0.5 * 0.01)
    q = np.cumsum(steps + 0.3, axis=0)
    zero = torch.zeros(atoms, 3, dtype=torch.float64)
    return Trajectory(q, np.zeros_like(q), 10.0, PhaseState(zero, zero, torch.ones(atoms).double(), [18] * atoms))


def test_random_walks_diffuse_as_they_should():
    run = walking()
    found, error = diffusion(run, 50.0, 500.0)["Ar"]
    expected = 0.5 * (1 - 1 / 40)  # the motion of the whole is taken out
    assert abs(found - expected) < 4 * error and error < 0.05 * expected
    with pytest.raises(InvalidInput, match="needs at least 2 blocks"):
        diffusion(run, 50.0, 1e5)


def test_displacements_are_those_of_the_definition():
    run = walking(frames=30, atoms=3)
    t, found = mean_square_displacement(run)
    q = run.positions - run.positions.mean(1, keepdims=True)
    direct = [((q[k:] - q[: len(q) - k]) ** 2).sum(2).mean() for k in range(len(t))]
    np.testing.assert_allclose(found["Ar"], direct, atol=1e-10)
    with pytest.raises(InvalidInput, match="no displacements"):
        mean_square_displacement(run, 1e6)


def test_fixed_atoms_are_what_the_others_move_against():
    run = walking(frames=30, atoms=3)
    run.positions[:, :2] = run.positions[0, :2]
    held = dataclasses.replace(run, system=dataclasses.replace(run.system, fixed=torch.tensor([True, True, False])))
    t, found = mean_square_displacement(held)
    q = run.positions[:, 2]
    direct = [((q[k:] - q[: len(q) - k]) ** 2).sum(1).mean() for k in range(len(t))]
    np.testing.assert_allclose(found["Ar"], direct, atol=1e-10)
    assert mean_square_displacement(run)[1]["Ar"][-1] < 0.5 * direct[-1]


def test_coordination_of_a_crystal_and_of_a_molecule():
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    system = PhaseState.from_atoms(atoms)
    still = Trajectory(np.array([atoms.positions] * 10), np.zeros((10, 2, 3)), 1.0, system)
    found = coordination(still, 3.0)
    assert found["Na-Cl"][0] == pytest.approx(6.0) and found["Cl-Na"][0] == pytest.approx(6.0)
    assert found["Na-Na"][0] == 0.0
    water = Atoms("OH2", positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    still = Trajectory(np.array([water.positions] * 10), np.zeros((10, 3, 3)), 1.0, PhaseState.from_atoms(water))
    found = coordination(still, 1.2)
    assert found["O-H"] == pytest.approx((2.0, 0.0)) and found["H-O"] == pytest.approx((1.0, 0.0))
