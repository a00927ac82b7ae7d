"""Power spectra of series in time, averaged over segments, on an axis that says where it ends."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from actionlearn.analysis.blocks import BLOCKS
from actionlearn.errors import InvalidInput
from actionlearn.units import FEMTOSECOND, wavenumber_per_cm

SPREAD = {"hann": 2.0, "none": 1.0}
"""Frequencies that a window mixes, in units of one over the length of a segment."""


@dataclasses.dataclass(frozen=True, eq=False)
class Power:
    """|x(ν)|² of several series, segment by segment, both signs of the frequency together.

    | symbol   | field      | shape                          | unit |
    |----------|------------|--------------------------------|------|
    | ν        | `per_cm`   | (frequencies,)                 | cm⁻¹ |
    | power    | `segments` | (segments, frequencies, series) |     |
    """

    per_cm: np.ndarray
    segments: np.ndarray
    nyquist_per_cm: float
    window: str

    @property
    def spacing_per_cm(self) -> float:
        """Distance of neighbouring frequencies."""
        return float(self.per_cm[1])

    @property
    def resolution_per_cm(self) -> float:
        """Distance of two frequencies that are told apart."""
        return SPREAD[self.window] * self.spacing_per_cm

    def mean_and_error(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean of values (segments, …) and its standard error, widened for the overlap of the segments."""
        n = len(values)
        widened = np.sqrt(1.1) if self.window == "hann" else 1.0
        errors = widened * values.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(values.shape[1:], np.nan)
        return values.mean(0), errors


def welch(
    series: ArrayLike,
    interval_fs: float,
    *,
    resolution_per_cm: float | None = None,
    blocks: int = BLOCKS,
    window: str = "hann",
) -> Power:
    """Power of series (frames, …, components), summed over components, by Welch's method.

    Segments overlap by half. They are as long as the resolution asks for, and as `blocks` of them cover the run
    without. `window` is "hann", or "none" where segments hold whole periods.
    P. D. Welch, IEEE Trans. Audio Electroacoust. 15, 70 (1967).
    """
    x = np.asarray(series, dtype=float)
    x = x.reshape(len(x), -1, x.shape[-1])
    if window not in SPREAD:
        raise InvalidInput(f"window must be one of {', '.join(SPREAD)}, not {window!r}")
    per_frame = wavenumber_per_cm(2.0 * np.pi / (interval_fs * FEMTOSECOND))  # the sampling rate
    if resolution_per_cm is None:
        length = 2 * len(x) // (blocks + 1)
    else:
        length = int(np.ceil(SPREAD[window] * per_frame / resolution_per_cm - 1e-9))
    if length < 8 or length > len(x):
        wish = "this many blocks" if resolution_per_cm is None else f"a resolution of {resolution_per_cm:g} cm⁻¹"
        raise InvalidInput(f"{len(x)} frames are too few for {wish}: segments would have {length} frames")
    step = max(1, length // 2) if window == "hann" else length
    starts = range(0, len(x) - length + 1, step)
    shape = np.hanning(length + 1)[:-1] if window == "hann" else np.ones(length)
    shape = shape / np.sqrt((shape**2).mean())
    power = np.stack(
        [(np.abs(np.fft.rfft(x[s : s + length] * shape[:, None, None], axis=0)) ** 2).sum(2) for s in starts]
    )
    power[:, 1 : (length + 1) // 2] *= 2.0
    return Power(np.arange(power.shape[1]) * per_frame / length, power, 0.5 * per_frame, window)
