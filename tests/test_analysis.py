"""Radial distributions and spectra against cases with known answers."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from actionlearn.analysis import (
    Trajectory,
    mean_and_error,
    radial_distribution,
    velocity_autocorrelation,
    velocity_spectrum,
)
from actionlearn.errors import InvalidInput
from actionlearn.state import PhaseState


def still(positions, numbers, cell, pbc=True):
    """Frames of atoms that do not move."""
    system = PhaseState(
        torch.as_tensor(positions[0]),
        torch.zeros(positions[0].shape, dtype=torch.float64),
        torch.ones(len(numbers), dtype=torch.float64),
        numbers=numbers,
        cell=torch.as_tensor(cell, dtype=torch.float64),
        pbc=[pbc] * 3,
    )
    return Trajectory(np.asarray(positions), np.zeros(np.shape(positions)), 1.0, system)


def vibrating(omegas, interval_fs, frames=4000, masses=None):
    """One coordinate for each angular frequency (1/fs), all of the same energy."""
    t = np.arange(frames)[:, None] * interval_fs
    m = np.ones(len(omegas)) if masses is None else np.asarray(masses, dtype=float)
    p = np.sqrt(m) * np.cos(np.asarray(omegas) * t + np.arange(len(omegas)))
    momenta = np.stack([p, 0 * p, 0 * p], axis=2)
    zero = torch.zeros(len(omegas), 3, dtype=torch.float64)
    numbers = [29 if k == 0 else 79 for k in range(len(omegas))]
    return Trajectory(np.zeros_like(momenta), momenta, interval_fs, PhaseState(zero, zero, torch.as_tensor(m), numbers))


def per_cm(omega_per_fs):
    return omega_per_fs / (2 * np.pi * 2.99792458e-5)


def test_the_error_of_correlated_noise_is_that_of_its_blocks():
    rng = np.random.default_rng(0)
    runs = np.repeat(rng.normal(size=(50, 1000, 1)), 10, axis=2).reshape(50, -1)  # every number ten times
    found = np.array([mean_and_error(run, 20) for run in runs])
    assert found[:, 1].mean() == pytest.approx(1 / np.sqrt(1000), rel=0.1)
    assert found[:, 0].std() == pytest.approx(1 / np.sqrt(1000), rel=0.3)
    with pytest.raises(InvalidInput, match="3 frames do not fill 10 blocks"):
        mean_and_error([1.0, 2.0, 3.0])


def test_ideal_gas_has_no_structure_beyond_half_the_cell():
    rng = np.random.default_rng(1)
    cell = np.array([[5.0, 0, 0], [1.0, 5.5, 0], [0.5, 0.3, 6.0]])
    frames = rng.random((300, 40, 3)) @ cell
    found = radial_distribution(still(frames, [29] * 30 + [79] * 10, cell), largest=4.5, bins=9, frames=300)
    for pair, n in (("Cu-Cu", 30), ("Au-Au", 10), ("Cu-Au", None)):
        expected = 1.0 if n is None else 1.0 - 1.0 / n
        sigmas = (found.values[pair] - expected) / found.errors[pair]
        assert np.abs(sigmas[2:]).max() < 5 and np.abs(sigmas[2:]).mean() < 2
        assert found.errors[pair][-1] < 0.02
    assert list(found.values) == ["Cu-Cu", "Cu-Au", "Au-Au"] and found.relative


def test_shells_of_a_crystal_are_counted_in_a_cell_smaller_than_they_are():
    atoms = bulk("Cu", "fcc", a=3.6)  # one atom
    found = radial_distribution(still([atoms.positions] * 10, [29], atoms.cell.array), largest=6.0, bins=600)
    volume, r, width = atoms.get_volume(), found.r, 0.01
    neighbours = found.values["Cu-Cu"] * 4 / 3 * np.pi * ((r + width / 2) ** 3 - (r - width / 2) ** 3) / volume
    shells = [(3.6 * np.sqrt(k / 2), n) for k, n in ((1, 12), (2, 6), (3, 24), (4, 12), (5, 24))]
    for distance, n in shells:
        assert neighbours[np.abs(r - distance) < 0.02].sum() == pytest.approx(n)
    assert neighbours.sum() == pytest.approx(12 + 6 + 24 + 12 + 24)
    assert (found.errors["Cu-Cu"] == 0).all()


def test_a_molecule_has_neighbours_per_length():
    atoms = Atoms("CuAu2", positions=[[0, 0, 0], [2.05, 0, 0], [0, 3.05, 0]])
    found = radial_distribution(Trajectory.from_atoms([atoms] * 10, 1.0), largest=4.0, bins=40)
    assert not found.relative
    near = found.values["Cu-Au"] * 0.1
    assert near[20] == pytest.approx(1) and near[30] == pytest.approx(1) and near.sum() == pytest.approx(2)
    assert (found.values["Au-Au"] * 0.1).sum() == pytest.approx(1)  # each gold sees the other


@pytest.mark.parametrize("interval_fs", [1.0, 24.0])
def test_lines_are_where_they_belong_at_any_interval(interval_fs):
    omegas = np.array([0.01, 0.05])
    found = velocity_spectrum(vibrating(omegas, interval_fs), resolution_per_cm=30.0)
    spacing = found.per_cm[1]
    for symbol, omega in zip(("Cu", "Au"), omegas, strict=True):
        line = found.species[symbol]
        assert found.per_cm[line.argmax()] == pytest.approx(per_cm(omega), abs=spacing)
        assert line.sum() * spacing == pytest.approx(0.5, rel=0.05)
    assert found.nyquist_per_cm == pytest.approx(1 / (2 * interval_fs * 2.99792458e-5))
    assert found.thz[-1] == pytest.approx(1000 / (2 * interval_fs), rel=0.02)
    assert found.mean_per_cm() == pytest.approx(per_cm(omegas).mean(), rel=0.01)
    assert found.resolution_per_cm <= 30.0 and "Nyquist limit" in str(found)


def test_masses_do_not_weigh_and_the_integral_is_one():
    trajectory = vibrating([0.01, 0.05], 5.0, masses=[1.0, 100.0])
    found = velocity_spectrum(trajectory)
    assert (found.density.sum() * found.per_cm[1]) == pytest.approx(1.0, abs=1e-12)
    assert found.species["Cu"].sum() == pytest.approx(found.species["Au"].sum(), rel=0.01)


def test_parseval():
    rng = np.random.default_rng(2)
    trajectory = vibrating(np.zeros(3), 2.0, frames=1000)
    noise = Trajectory(trajectory.positions, rng.normal(size=trajectory.momenta.shape), 2.0, trajectory.system)
    found = velocity_spectrum(noise, blocks=9, window="none")  # 5 segments of 200 frames
    kinetic = (noise.momenta**2).sum(2)
    shares = [kinetic[:, 0].sum() / kinetic.sum(), kinetic[:, 1:].sum() / kinetic.sum()]
    assert [d.sum() * found.per_cm[1] for d in found.species.values()] == pytest.approx(shares, abs=1e-12)
    flat = 1 / found.nyquist_per_cm
    assert found.density[1:-1].mean() == pytest.approx(flat, rel=0.05)
    assert (np.abs(found.density[1:-1] - flat) < 6 * found.errors[1:-1] + 0.2 * flat).mean() > 0.95


def test_the_limit_is_told():
    fast = 0.15  # 1/fs: a period of 42 fs, seen every 24
    folded = velocity_spectrum(vibrating([fast], 24.0))
    assert per_cm(fast) > folded.nyquist_per_cm
    assert folded.per_cm[folded.density.argmax()] == pytest.approx(2 * folded.nyquist_per_cm - per_cm(fast), rel=0.02)
    close = velocity_spectrum(vibrating([0.127], 24.0))
    assert close.at_limit > 0.9 and velocity_spectrum(vibrating([0.05], 24.0)).at_limit < 1e-3


def test_autocorrelation_of_a_vibration_is_a_cosine_and_transforms_into_the_spectrum():
    t, C = velocity_autocorrelation(vibrating([0.05, 0.05], 3.0, frames=8000), longest_fs=600.0)
    assert t[-1] == 600.0 and C == pytest.approx(np.cos(0.05 * t), abs=0.01)


def test_trajectories_from_atoms_and_what_is_refused():
    atoms = bulk("Cu", cubic=True)
    atoms.set_momenta(np.ones((4, 3)))
    trajectory = Trajectory.from_atoms([atoms] * 40, 2.0)
    assert len(trajectory) == 40 and trajectory.momenta[3, 2, 1] == 1.0
    other = atoms.copy()
    other.numbers[0] = 79
    wide = atoms.copy()
    wide.set_cell(1.1 * wide.cell)
    for frames, message in (([], "at least one"), ([atoms, other], "frame 1 holds other"), ([atoms, wide], "cell of")):
        with pytest.raises(InvalidInput, match=message):
            Trajectory.from_atoms(frames, 2.0)
    with pytest.raises(InvalidInput, match="not finite"):
        Trajectory(trajectory.positions * np.nan, trajectory.momenta, 2.0, trajectory.system)
    with pytest.raises(InvalidInput, match="interval_fs"):
        Trajectory.from_atoms([atoms], 0.0)
    with pytest.raises(InvalidInput, match="too few for a resolution of 1 cm"):
        velocity_spectrum(trajectory, resolution_per_cm=1.0)
    with pytest.raises(InvalidInput, match="nothing moves"):
        velocity_spectrum(still([atoms.positions] * 100, atoms.numbers, atoms.cell.array))
    with pytest.raises(InvalidInput, match="largest"):
        radial_distribution(trajectory, largest=-1.0)
