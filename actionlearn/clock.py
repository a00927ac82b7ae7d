"""How fast the clock of a map runs: the error common to all its frequencies, from short pairs of runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from actionlearn.dataset import Dataset
from actionlearn.errors import InvalidInput
from actionlearn.losses import look_around
from actionlearn.reference import Stretch
from actionlearn.units import FEMTOSECOND


@dataclasses.dataclass(frozen=True)
class ClockError:
    """The relative shift of a spectrum, most of it where the forces are: in the fastest lines.

    | symbol | field    | meaning                                        |
    |--------|----------|------------------------------------------------|
    | ε      | `value`  | positive where the map is too fast             |
    |        | `error`  | standard error, from window to window          |
    |        | `windows`| pairs of runs that were compared               |
    """

    value: float
    error: float
    windows: int

    def __str__(self) -> str:
        """In per cent."""
        return f"{100 * self.value:+.2g} ± {100 * self.error:.1g} %"


@torch.no_grad()
def clock_error(
    model: Any, stretches: Sequence[Stretch], *, step_fs: float, steps: int = 10, windows: int | None = None
) -> ClockError:
    """The ε for which the map moves on, from the same start, as the recorded run does at the time (1 + ε)·t.

        p_map(t) − p(t) = ε t F(t) + rest,      ε = Σ t F·(p_map − p)/m / Σ t² F²/m

    Errors of single steps, which a one-step error adds up whatever their direction, cancel here unless they drive the
    motion forwards or back; what remains shifts the lines of a spectrum by ε. Of velocity Verlet it is ω²Δt²/24.
    A window should hold several periods: errors of the amplitude leave 4/(ωT)² of themselves in it.
    Windows are `steps` steps long, or as long as a stretch (half of one that is alone), and follow each other;
    `windows` at most of a stretch.
    """
    ahead: list[float] = []
    scale: list[float] = []
    for stretch in stretches:
        whole = round((len(stretch) - 1) * stretch.interval_fs / step_fs)
        n = min(steps, whole if len(stretches) > 1 else whole // 2)
        data = Dataset([stretch], step_fs=step_fs, length=n + 1)
        several = max(1, whole // max(n, 1))
        batch = data.windows(data.even(several if windows is None else min(several, windows)))
        look_around(model, batch)
        state, m = batch.frames[0], batch.frames[0].masses.unsqueeze(1)
        pairs = torch.zeros(2, state.n_systems, dtype=torch.float64)
        for k in range(1, len(batch.frames)):
            state, t, force = model.step(state), k * step_fs * FEMTOSECOND, batch.forces[k]
            off = state.momenta - batch.frames[k].momenta
            pairs[0] += state.sum_by_system(t * (force * off / m).sum(1))
            pairs[1] += state.sum_by_system(t**2 * (force**2 / m).sum(1))
        ahead += pairs[0].tolist()
        scale += pairs[1].tolist()
    if len(ahead) < 2:
        raise InvalidInput("a single window has no spread: give more stretches, or longer ones")
    return ClockError(*_ratio(ahead, scale), len(ahead))


def _ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
    """Σa/Σb and its standard error by leaving out one after the other."""
    n, a, b = len(above), sum(above), sum(below)
    without = [(a - x) / (b - y) for x, y in zip(above, below, strict=True)]
    mean = sum(without) / n
    return a / b, math.sqrt((n - 1) / n * sum((x - mean) ** 2 for x in without))
