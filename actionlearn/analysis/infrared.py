"""Infrared spectra from the dipole along a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator
from numpy.typing import ArrayLike

from actionlearn.analysis.blocks import BLOCKS
from actionlearn.analysis.trajectory import Trajectory
from actionlearn.analysis.welch import welch
from actionlearn.errors import InvalidInput
from actionlearn.state import PhaseState

Dipole = BaseCalculator | ArrayLike | Callable[[PhaseState], torch.Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class InfraredSpectrum:
    """Absorption of a classical run, with the factor that makes a harmonic oscillator's line strength right.

        A(ν) ∝ ν² |M(ν)|²,      ∫₀^ν_N A(ν) dν = 1,      ν_N = 1/(2·interval)

    | symbol | field            | shape          | unit |
    |--------|------------------|----------------|------|
    | ν      | `per_cm`         | (frequencies,) | cm⁻¹ |
    | A      | `absorption`     | (frequencies,) | cm   |
    |        | `errors`         | (frequencies,) | cm   |
    | ν_N    | `nyquist_per_cm` |                | cm⁻¹ |

    M is the dipole. ν² is taken in the spectrum, not by differences of frames, which long steps would falsify. Bands
    above ν_N appear folded below it; `at_limit` is the absorption in the uppermost tenth of the axis.
    """

    per_cm: np.ndarray
    absorption: np.ndarray
    errors: np.ndarray
    nyquist_per_cm: float
    resolution_per_cm: float

    @property
    def at_limit(self) -> float:
        """Part of the absorption above nine tenths of the Nyquist limit."""
        return float(self.absorption[self.per_cm > 0.9 * self.nyquist_per_cm].sum() * self.per_cm[1])

    def band(self, low_per_cm: float, high_per_cm: float) -> float:
        """Mean position of the absorption between two wavenumbers, cm⁻¹."""
        if not 0.0 <= low_per_cm < high_per_cm <= self.nyquist_per_cm:
            raise InvalidInput(
                f"a band lies between 0 and the Nyquist limit of {self.nyquist_per_cm:.0f} cm⁻¹, "
                f"not from {low_per_cm:g} to {high_per_cm:g}"
            )
        inside = (self.per_cm >= low_per_cm) & (self.per_cm <= high_per_cm)
        weight = self.absorption[inside]
        if not weight.sum() > 0:
            raise InvalidInput(f"nothing absorbs between {low_per_cm:g} and {high_per_cm:g} cm⁻¹")
        return float((weight * self.per_cm[inside]).sum() / weight.sum())


def dipoles(trajectory: Trajectory, source: Dipole) -> np.ndarray:
    """The dipole of every frame, (frames, 3), eÅ.

    `source` is an ASE calculator that knows dipoles, a charge for every atom (e), or a function of the state. With
    charges, positions must not be wrapped into the cell.
    """
    if isinstance(source, BaseCalculator):
        atoms = trajectory.system.to_atoms()
        found = []
        for q in trajectory.positions:
            atoms.positions[:] = q
            found.append(source.get_property("dipole", atoms))
        return np.array(found)
    if callable(source):
        system = trajectory.system
        with torch.no_grad():
            moved = (system.moved(torch.from_numpy(q), system.momenta) for q in trajectory.positions)
            return np.stack([source(state).reshape(3).numpy() for state in moved])
    charges = np.asarray(source, dtype=float)
    if charges.shape != (trajectory.system.n_atoms,):
        raise InvalidInput(f"give a charge for each of {trajectory.system.n_atoms} atoms, not {charges.shape} of them")
    return np.einsum("a,fax->fx", charges, trajectory.positions)


def infrared_spectrum(
    moments: ArrayLike, interval_fs: float, *, resolution_per_cm: float | None = None, blocks: int = BLOCKS
) -> InfraredSpectrum:
    """From dipoles (frames, 3) at equal intervals; resolution and blocks as in `welch`."""
    M = np.asarray(moments, dtype=float)
    if M.ndim != 2 or M.shape[1] != 3 or not np.isfinite(M).all():
        raise InvalidInput(f"dipoles must be finite numbers of shape (frames, 3), not {M.shape}")
    power = welch(M - M.mean(0), interval_fs, resolution_per_cm=resolution_per_cm, blocks=blocks)
    segments = power.segments[:, :, 0] * power.per_cm**2
    total = segments.sum(1).mean() * power.spacing_per_cm
    if not total > 0:
        raise InvalidInput("the dipole does not change, so nothing absorbs")
    absorption, errors = power.mean_and_error(segments / total)
    return InfraredSpectrum(power.per_cm, absorption, errors, power.nyquist_per_cm, power.resolution_per_cm)
