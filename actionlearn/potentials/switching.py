"""A smooth end for interactions: the polynomial step with two continuous derivatives."""

from __future__ import annotations

from torch import Tensor

from actionlearn.errors import InvalidInput


def smoothstep(t: Tensor) -> tuple[Tensor, Tensor]:
    """Return s = t³(10 − 15t + 6t²) and ds/dt = 30t²(1 − t)², t in [0, 1]; s to s'' match 0 and 1 at the ends."""
    square = t * t
    return square * t * (10.0 + t * (6.0 * t - 15.0)), 30.0 * (t - square) ** 2


def check_interval(interval: tuple[float, float]) -> None:
    """Refuse a switching interval that does not lie in order above zero."""
    if not 0.0 < interval[0] < interval[1] < float("inf"):
        raise InvalidInput(f"cutoff must be (start, end) with 0 < start < end, got {interval}")
