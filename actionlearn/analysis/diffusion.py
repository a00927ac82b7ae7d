"""How far atoms get: mean-square displacement and self-diffusion."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols

from actionlearn.analysis.blocks import BLOCKS
from actionlearn.analysis.trajectory import Trajectory
from actionlearn.errors import InvalidInput


def mean_square_displacement(
    trajectory: Trajectory, longest_fs: float | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """⟨|q(t) − q(0)|²⟩ of each element, Å², over all origins, and its times in fs, up to half the run.

    Positions must not be wrapped into the cell. The motion of the whole is taken out first; where atoms are fixed it
    is not, they are what the others move against, and only the free ones count.
    ⟨|q(t)|²⟩ + ⟨|q(0)|²⟩ − 2⟨q(t)·q(0)⟩ with the last term by Fourier transform.
    """
    n = len(trajectory)
    lags = n // 2 if longest_fs is None else int(longest_fs / trajectory.interval_fs) + 1
    if not 1 < lags <= n:
        raise InvalidInput(f"a run of {n} frames has no displacements over {lags} of them: choose another longest_fs")
    q, free = trajectory.positions, ~trajectory.system.fixed.numpy()
    if free.all():
        m = trajectory.system.masses.numpy()[:, None]
        q = q - (m * q).sum(1, keepdims=True) / m.sum()
    q = (q - q.mean(0))[:, free]
    numbers = trajectory.system.numbers.numpy()[free]
    origins = n - np.arange(lags)
    found = {}
    for z in sorted(set(numbers.tolist())):
        series = q[:, numbers == z].reshape(n, -1)
        products = np.fft.irfft((np.abs(np.fft.rfft(series, n=2 * n, axis=0)) ** 2).sum(1), n=2 * n)[:lags]
        squares = np.concatenate([[0.0], np.cumsum((series**2).sum(1))])
        ends = squares[origins] + squares[n] - squares[n - origins]  # of the first and the last `origins` frames
        found[chemical_symbols[z]] = (ends - 2.0 * products) / origins / (numbers == z).sum()
    return np.arange(lags) * trajectory.interval_fs, found


def diffusion(
    trajectory: Trajectory, from_fs: float, to_fs: float, blocks: int = BLOCKS
) -> dict[str, tuple[float, float]]:
    """D of each element and its standard error, Å²/ps: the slope of ⟨|Δq|²⟩/(2 dims) between two times.

    The run is cut into blocks, each with a slope of its own; the error is their scatter. `from_fs` should lie where
    the displacement has become linear in time, `to_fs` within half a block.
    """
    length = len(trajectory) // blocks
    if blocks < 2 or not 0.0 <= from_fs < to_fs <= 0.5 * length * trajectory.interval_fs:
        raise InvalidInput(
            f"a slope from {from_fs:g} to {to_fs:g} fs needs at least 2 blocks of {2 * to_fs:g} fs or more, not "
            f"{blocks} of {length * trajectory.interval_fs:g} fs: take fewer blocks, shorter times or a longer run"
        )
    slopes: dict[str, list[float]] = {}
    for k in range(blocks):
        frames = slice(k * length, (k + 1) * length)
        part = Trajectory(
            trajectory.positions[frames], trajectory.momenta[frames], trajectory.interval_fs, trajectory.system
        )
        t, squares = mean_square_displacement(part, to_fs)
        inside = t >= from_fs
        if inside.sum() < 2:
            raise InvalidInput(f"fewer than two frames between {from_fs:g} and {to_fs:g} fs: move them apart")
        for symbol, values in squares.items():
            per_ps = 1e3 * float(np.polyfit(t[inside], values[inside], 1)[0])
            slopes.setdefault(symbol, []).append(per_ps / (2 * trajectory.positions.shape[2]))
    return {symbol: (float(np.mean(d)), float(np.std(d, ddof=1) / np.sqrt(blocks))) for symbol, d in slopes.items()}
