"""Drift and equipartition: calibrated errors on noise that remembers, and negative controls."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from scipy import stats
from scipy.signal import lfilter

from actionlearn import PhaseState, energy_drift, equipartition
from actionlearn.errors import InvalidInput
from actionlearn.structure import vibrational_bands
from actionlearn.units import BOLTZMANN, wavenumber_per_cm

T = 500.0


def remembering(rng, memory, *shape):
    """Unit normal noise along the first axis that forgets over `memory` frames."""
    keep = np.exp(-1.0 / memory)
    return lfilter([np.sqrt(1 - keep**2)], [1, -keep], rng.normal(size=(shape[0] + 500, *shape[1:])), axis=0)[500:]


def alloy():
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.numbers[::2] = 79
    atoms.set_masses("defaults")
    return PhaseState.from_atoms(atoms)


def thermal_momenta(state, frames, rng, memory=2.0, temperature=T):
    m = state.masses.numpy()[:, None]
    p = np.sqrt(m * BOLTZMANN * temperature) * remembering(rng, memory, frames, *state.positions.shape)
    return np.where(state.fixed.numpy()[:, None], 0.0, p)


def without_total_momentum(p, state):
    m = state.masses.numpy()[:, None]
    return p - m / m.sum() * p.sum(1, keepdims=True)


@pytest.mark.parametrize("memory", [0.1, 3.0, 30.0])
def test_drift_errors_are_calibrated_on_noise_that_remembers(memory):
    rng = np.random.default_rng(1)
    t, true = np.arange(2000) * 5.0, 0.4
    z = []
    for _ in range(200):
        E = 0.02 * remembering(rng, memory, len(t)) + true * 1e-6 * 108 * t
        slope, error = energy_drift(t, E, 108)
        z.append((slope - true) / error)
    assert np.mean(np.abs(z) < 1) == pytest.approx(0.66, abs=0.1)
    assert np.mean(np.abs(z) < 3) > 0.97 and abs(np.mean(z)) < 0.25


def test_an_exact_slope_is_read_off_exactly():
    t = np.linspace(0, 1e4, 64)
    drift = energy_drift(t, 2.0 - 3e-6 * t, 10)
    assert drift.value == pytest.approx(-0.3, rel=1e-9) and drift.error < 1e-9
    assert str(drift).endswith("meV/atom/ps")


@pytest.mark.parametrize(
    ("times", "energies", "atoms", "message"),
    [
        (np.arange(9), np.zeros(9), 1, "at least 16 frames, not 9"),
        (np.arange(20), np.zeros(19), 1, "one length"),
        (np.arange(20), np.full(20, np.nan), 1, "exploded"),
        (np.arange(20), np.zeros(20), 0, "n_atoms"),
    ],
)
def test_series_without_a_drift_are_refused(times, energies, atoms, message):
    with pytest.raises(InvalidInput, match=message):
        energy_drift(times, energies, atoms)


def test_p_values_are_uniform_when_all_temperatures_are_equal():
    rng, state = np.random.default_rng(2), alloy()
    p_values = []
    for _ in range(200):
        p = without_total_momentum(thermal_momenta(state, 400, rng), state)
        p_values.append(equipartition(p, state, momentum_removed=True).p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_a_three_per_cent_imbalance_is_found():
    rng, state = np.random.default_rng(3), alloy()
    p = thermal_momenta(state, 20_000, rng)
    assert equipartition(p, state).p_value > 0.01
    p[:, state.numbers.numpy() == 79] *= np.sqrt(1.03)
    found = equipartition(p, state)
    assert found.p_value < 1e-3 and found.groups == ("Cu", "Au")
    assert found.temperatures_K == pytest.approx((T, 1.03 * T), rel=0.02)
    assert "degrees" in str(found)


def test_removed_momentum_takes_more_from_the_heavy():
    rng, state = np.random.default_rng(4), alloy()
    p = without_total_momentum(thermal_momenta(state, 40_000, rng, memory=0.1), state)
    right = equipartition(p, state, momentum_removed=True)
    assert sum(right.degrees) == pytest.approx(3 * 8 - 3) and right.degrees[0] > right.degrees[1]
    m = state.masses
    assert right.degrees[0] == pytest.approx(float((3 * (1 - m / m.sum()))[state.numbers == 29].sum()))
    assert right.p_value > 0.01 and right.temperatures_K == pytest.approx((T, T), rel=0.01)
    assert equipartition(p, state).p_value < 1e-6  # counted without the removal, gold looks cold


def test_removed_rotation_and_fixed_atoms_are_counted():
    rng = np.random.default_rng(5)
    q = torch.as_tensor(rng.normal(size=(5, 3)))
    molecule = PhaseState(
        positions=q, momenta=torch.zeros_like(q), masses=torch.tensor([1.0, 12, 16, 1, 1]).double(), numbers=range(1, 6)
    )
    none = equipartition(thermal_momenta(molecule, 100, rng), molecule, momentum_removed=True, rotation_removed=True)
    assert sum(none.degrees) == pytest.approx(9)
    held = PhaseState(
        positions=q,
        momenta=0 * q,
        masses=molecule.masses,
        numbers=[1, 6, 8, 1, 1],
        fixed=[True, False, True] + 2 * [False],
    )
    found = equipartition(thermal_momenta(held, 5000, rng), held)
    assert found.groups == ("H", "C") and found.degrees == pytest.approx((6, 3))
    assert found.temperatures_K == pytest.approx((T, T), rel=0.06) and found.p_value > 0.01


class Chain:
    """Springs of one strength between neighbours of an open chain along x, and weaker ones to the ground."""

    def forces(self, state):
        q = state.positions
        pull = torch.zeros_like(q)
        pull[1:] += q[:-1] - q[1:]
        pull[:-1] += q[1:] - q[:-1]
        return pull - 0.1 * q


def test_bands_hold_their_modes_and_show_a_cold_one():
    rng, q = np.random.default_rng(6), torch.zeros(4, 1).double()
    chain = PhaseState(positions=q, momenta=q, masses=torch.tensor([1.0, 3, 1, 3]).double())
    bands = vibrational_bands(Chain(), chain, [0, wavenumber_per_cm(0.8), 3000])
    assert sum(len(e) for e in bands.values()) == 4 and len(bands) == 2
    p = thermal_momenta(chain, 20_000, rng)
    assert equipartition(p, chain, bands=bands).p_value > 0.01
    root = chain.masses.numpy() ** 0.5
    high = list(bands.values())[1].numpy().reshape(-1, 4)
    v = p[..., 0] / root
    cold = ((v - 0.05 * (v @ high.T) @ high) * root)[..., None]
    found = equipartition(cold, chain, bands=bands)
    assert found.p_value < 1e-6 and found.temperatures_K == pytest.approx((T, 0.95**2 * T), rel=0.02)


def test_bad_questions_are_refused():
    state, rng = alloy(), np.random.default_rng(7)
    p = thermal_momenta(state, 100, rng)
    with pytest.raises(InvalidInput, match="frames, 8, 3"):
        equipartition(p[:, :3], state)
    with pytest.raises(InvalidInput, match="100 frames in 80 blocks"):
        equipartition(p, state, blocks=80)
    with pytest.raises(InvalidInput, match="not orthonormal"):
        equipartition(p, state, bands={"a": torch.ones(1, 8, 3), "b": torch.ones(1, 8, 3)})
    with pytest.raises(InvalidInput, match="not finite"):
        equipartition(p * np.nan, state)
    with pytest.raises(InvalidInput, match="do not fluctuate"):
        equipartition(np.ones_like(p), state)
    with pytest.raises(InvalidInput, match="not both"):
        equipartition(p, state, bands={}, groups={})
    with pytest.raises(InvalidInput, match="no mode lies"):
        vibrational_bands(Chain(), state, [1e6, 1e7])
    assert np.isnan(equipartition(p, state, groups={"all": range(8)}).p_value)
