"""The drift of the energy along a run, with an uncertainty that fluctuations in time do not fool."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from actionlearn.errors import InvalidInput

FEWEST_BLOCKS = 8


@dataclasses.dataclass(frozen=True)
class Measured:
    """A number, its standard error and its unit; unpacks into the first two."""

    value: float
    error: float
    unit: str

    def __iter__(self) -> Iterator[float]:
        """Value, then error."""
        return iter((self.value, self.error))

    def __str__(self) -> str:
        """Value ± error and unit."""
        return f"{self.value:+.3g} ± {self.error:.2g} {self.unit}"


def energy_drift(times_fs: ArrayLike | Tensor, energies: ArrayLike | Tensor, n_atoms: int) -> Measured:
    """Slope of the total energy (eV) against time, in meV/atom/ps.

    The series is cut into blocks of equal length, and a line fitted to their means; the scatter about the line gives
    the standard error. Blocks start at 32 and are joined in pairs, down to 8, while neighbours clearly deviate alike;
    the correlation ρ that is left widens the error by √((1 + ρ)/(1 − ρ)), as for noise that forgets exponentially.
    A run needs some thirty times the longest fluctuation for the error to be trusted.
    """
    t, E = (np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, dtype=float) for x in (times_fs, energies))
    if t.ndim != 1 or t.shape != E.shape:
        raise InvalidInput(f"times and energies must be two series of one length, not of shapes {t.shape}, {E.shape}")
    if len(t) < 2 * FEWEST_BLOCKS:
        raise InvalidInput(f"a drift needs at least {2 * FEWEST_BLOCKS} frames, not {len(t)}: record more")
    if n_atoms < 1:
        raise InvalidInput(f"n_atoms must be at least 1, not {n_atoms}")
    if not (np.isfinite(t).all() and np.isfinite(E).all() and (np.diff(t) > 0).all()):
        raise InvalidInput("times must rise and all numbers be finite: the run probably exploded, shorten its step")
    blocks = 4 * FEWEST_BLOCKS if len(t) >= 8 * FEWEST_BLOCKS else FEWEST_BLOCKS
    while True:
        slope, error, correlation = _line_through_blocks(t, E - E[0], blocks)
        if correlation < 1.0 / np.sqrt(blocks) or blocks == FEWEST_BLOCKS:
            break
        blocks //= 2
    rho = np.clip(correlation + 2.0 / blocks, 0.0, 0.9)  # a fitted line takes about 2/blocks off
    error *= np.sqrt((1.0 + rho) / (1.0 - rho))
    scale = 1e6 / n_atoms  # eV/fs to meV/ps
    return Measured(float(slope * scale), float(error * scale), "meV/atom/ps")


def _line_through_blocks(t: np.ndarray, E: np.ndarray, blocks: int) -> tuple[float, float, float]:
    """Slope, its standard error, and the correlation between the residuals of neighbouring blocks."""
    means = np.array([[t[part].mean(), E[part].mean()] for part in np.array_split(np.arange(len(t)), blocks)])
    x, y = (means - means.mean(0)).T
    slope = (x @ y) / (x @ x)
    r = y - slope * x
    variance = (r @ r) / (blocks - 2)
    correlation = (r[1:] @ r[:-1]) / (r @ r) if r @ r > 0 else 0.0
    return float(slope), float(np.sqrt(variance / (x @ x))), float(correlation)
