"""How atoms vibrate: autocorrelation and spectrum of velocities, on a frequency axis that says where it ends."""

from __future__ import annotations

import dataclasses

import numpy as np
from ase.data import chemical_symbols

from actionlearn.analysis.blocks import BLOCKS
from actionlearn.analysis.trajectory import Trajectory
from actionlearn.analysis.welch import welch
from actionlearn.errors import InvalidInput

THZ_PER_CM = 2.99792458e-2
"""One cm⁻¹ as a frequency in THz."""


@dataclasses.dataclass(frozen=True, eq=False)
class VelocitySpectrum:
    """The kinetic energy by frequency: the vibrational density of states, where all modes are equally hot.

        ∫₀^ν_N D(ν) dν = 1,      D(ν) ∝ Σ_i m_i |v_i(ν)|²,      ν_N = 1/(2·interval)

    | symbol | field            | shape             | unit |
    |--------|------------------|-------------------|------|
    | ν      | `per_cm`         | (frequencies,)    | cm⁻¹ |
    | D      | `density`        | (frequencies,)    | cm   |
    |        | `errors`         | (frequencies,)    | cm   |
    | D_A    | `species`        | symbol → the same | cm   |
    | ν_N    | `nyquist_per_cm` |                   | cm⁻¹ |
    |        | `resolution_per_cm` |                | cm⁻¹, distance of two frequencies that are told apart |

    Motion faster than ν_N is folded back below it by any recording at this interval and cannot be told from slower
    motion. `at_limit` is the part of the kinetic energy in the uppermost tenth of the axis: where it is not small,
    some of what the spectrum shows is folded.
    """

    per_cm: np.ndarray
    density: np.ndarray
    errors: np.ndarray
    species: dict[str, np.ndarray]
    nyquist_per_cm: float
    resolution_per_cm: float

    @property
    def thz(self) -> np.ndarray:
        """The axis in THz."""
        return self.per_cm * THZ_PER_CM

    @property
    def at_limit(self) -> float:
        """Part of the kinetic energy above nine tenths of the Nyquist limit."""
        spacing = self.per_cm[1] - self.per_cm[0]
        return float(self.density[self.per_cm > 0.9 * self.nyquist_per_cm].sum() * spacing)

    def mean_per_cm(self, power: int = 1) -> float:
        """⟨ν^k⟩^(1/k) over the density."""
        spacing = self.per_cm[1] - self.per_cm[0]
        return float((self.density * self.per_cm**power).sum() * spacing) ** (1.0 / power)

    def __str__(self) -> str:
        """Its range and limits in a line."""
        return (
            f"mean {self.mean_per_cm():.1f} cm⁻¹, resolution {self.resolution_per_cm:.1f}, "
            f"Nyquist limit {self.nyquist_per_cm:.0f} cm⁻¹ with {100 * self.at_limit:.2g} % of the energy close to it"
        )


def velocity_spectrum(
    trajectory: Trajectory, *, resolution_per_cm: float | None = None, blocks: int = BLOCKS, window: str = "hann"
) -> VelocitySpectrum:
    """Averaged power spectrum of the mass-weighted velocities; resolution and blocks as in `welch`."""
    power = welch(
        _weighted_velocities(trajectory),
        trajectory.interval_fs,
        resolution_per_cm=resolution_per_cm,
        blocks=blocks,
        window=window,
    )
    total = power.segments.sum(axis=(1, 2)).mean() * power.spacing_per_cm
    if not total > 0:
        raise InvalidInput("nothing moves in this trajectory, so it has no spectrum: were its momenta recorded?")
    density, errors = power.mean_and_error(power.segments.sum(2) / total)
    numbers = trajectory.system.numbers.numpy()
    species = {
        chemical_symbols[z]: power.segments[:, :, numbers == z].sum(2).mean(0) / total
        for z in sorted(set(numbers.tolist()))
    }
    return VelocitySpectrum(power.per_cm, density, errors, species, power.nyquist_per_cm, power.resolution_per_cm)


def velocity_autocorrelation(trajectory: Trajectory, longest_fs: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """C(t) = ⟨Σ m v(0)·v(t)⟩/⟨Σ m v²⟩ over all origins, and its times in fs, up to half the run or `longest_fs`."""
    n = len(trajectory)
    lags = n // 2 if longest_fs is None else int(longest_fs / trajectory.interval_fs) + 1
    if not 1 < lags <= n:
        raise InvalidInput(f"a run of {n} frames has no correlation over {lags} of them: choose another longest_fs")
    weighted = _weighted_velocities(trajectory)
    power = (np.abs(np.fft.rfft(weighted, n=2 * n, axis=0)) ** 2).sum((1, 2))
    products = np.fft.irfft(power, n=2 * n)[:lags] / (n - np.arange(lags))
    if not products[0] > 0:
        raise InvalidInput("nothing moves in this trajectory, so it has no correlation: were its momenta recorded?")
    return np.arange(lags) * trajectory.interval_fs, products / products[0]


def _weighted_velocities(trajectory: Trajectory) -> np.ndarray:
    """√m v = p/√m; fixed atoms have none."""
    return trajectory.momenta * np.sqrt(trajectory.system.inverse_masses.numpy())
