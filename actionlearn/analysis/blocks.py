"""Errors of averages over a run, from its blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from actionlearn.errors import InvalidInput

BLOCKS = 10


def block_means(series: ArrayLike, blocks: int = BLOCKS) -> np.ndarray:
    """Means over `blocks` stretches of equal length, (blocks, …); frames too many are left off the start."""
    values = np.asarray(series, dtype=float)
    if blocks < 2:
        raise InvalidInput(f"an error needs at least 2 blocks, not {blocks}")
    if values.ndim == 0 or len(values) < blocks:
        raise InvalidInput(f"{values.shape[0] if values.ndim else 0} frames do not fill {blocks} blocks: record more")
    length = len(values) // blocks
    return values[len(values) - blocks * length :].reshape(blocks, length, *values.shape[1:]).mean(1)


def mean_and_error(series: ArrayLike, blocks: int = BLOCKS) -> tuple[np.ndarray, np.ndarray]:
    """Mean along the first axis and its standard error, the scatter of block means over √blocks.

    Right where a block is longer than the series remembers.
    """
    means = block_means(series, blocks)
    return means.mean(0), means.std(0, ddof=1) / np.sqrt(blocks)
