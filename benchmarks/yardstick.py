"""One yardstick for everything that steps: error over the same long step, cost on the same machine, a long run.

The reference of a long step is not a recording but the exact flow: Blanes and Moan's fourth order scheme on the base
potential, in steps so short that halving them changes nothing that is printed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

import actionlearn as al
from actionlearn.analysis import mean_and_error, velocity_spectrum
from actionlearn.errors import ActionlearnError
from actionlearn.neighbours import forget_edges
from actionlearn.schemes.published import BLANES_MOAN_4
from actionlearn.validation.rollout import RollOut, roll_out

LOST = 0.5
"""Relative error of a step beyond which a scheme is not said to follow the motion."""

LEVEL = 1.0
"""Order below which an error no longer follows the step: that of a potential that was learned."""


@dataclasses.dataclass(frozen=True, eq=False)
class Contender:
    """Something that covers the long step in `substeps` steps of its own.

    `calls` and `gradients` are those of the base potential and of the network in one of its steps.
    """

    name: str
    step_map: Any
    substeps: int = 1
    calls: int = 0
    gradients: int = 0

    @property
    def span_fs(self) -> float:
        """The long step."""
        return self.substeps * self.step_map.step_fs

    def per_ps(self, count: float) -> float:
        """What is done `count` times in a step of its own, in a picosecond."""
        return count * 1000.0 / self.step_map.step_fs

    def cover(self, state: al.PhaseState) -> al.PhaseState:
        """The long step."""
        return self.step_map.step(state, self.substeps)


@dataclasses.dataclass(frozen=True, eq=False)
class Spans:
    """Starts and exact ends of a long step, and what it changes: the yardstick of one system."""

    starts: al.PhaseState
    ends: al.PhaseState

    @classmethod
    def exact(cls, base: Any, starts: Sequence[al.PhaseState], span_fs: float, fine_fs: float) -> Spans:
        """Ends by Blanes and Moan's scheme in steps of about `fine_fs`."""
        n, batch = math.ceil(span_fs / fine_fs - 1e-9), al.PhaseState.batch(list(starts))
        flow = al.Splitting(base, BLANES_MOAN_4, step_fs=span_fs / n)
        return cls(batch, flow.step(batch, n))

    def errors(self, contender: Contender) -> tuple[float, float, float]:
        """Relative errors of Δq and Δp, weighted by mass as in `step_errors`, and the second one's standard error."""
        forget_edges()
        try:
            with torch.no_grad():
                found = contender.cover(self.starts)
        except (ActionlearnError, ArithmeticError):
            return math.nan, math.nan, math.nan
        m = self.starts.masses.unsqueeze(1)
        squares = []
        for a, b, weight in (
            (found.positions, self.ends.positions, m),
            (self.ends.positions, self.starts.positions, m),
            (found.momenta, self.ends.momenta, 1.0 / m),
            (self.ends.momenta, self.starts.momenta, 1.0 / m),
        ):
            squares.append(self.starts.sum_by_system((weight * (a - b) ** 2).sum(1)).numpy())
        dq, whole_q, dp, whole_p = squares
        position, momentum = math.sqrt(dq.sum() / whole_q.sum()), math.sqrt(dp.sum() / whole_p.sum())
        scatter = dp.std(ddof=1) / dp.mean() / math.sqrt(len(dp)) if len(dp) > 1 else 0.0
        return position, momentum, 0.5 * scatter * momentum


@dataclasses.dataclass(frozen=True, eq=False)
class Ladder:
    """A scheme in steps of every length: what it costs to be as good as something else, and how good it is at a cost.

    `errors[k]` is that of Δp over the long step in `rungs[k]` steps, rungs rising. Between rungs, and below the
    lowest error, the error is a power of the number of steps.
    """

    name: str
    rungs: tuple[int, ...]
    errors: tuple[float, ...]

    @classmethod
    def climb(
        cls, name: str, make: Callable[[float], Any], spans: Spans, span_fs: float, rungs: Sequence[int]
    ) -> Ladder:
        """Measure `make(step_fs)` on every rung."""
        errors = [spans.errors(Contender(name, make(span_fs / n), n))[1] for n in rungs]
        return cls(name, tuple(rungs), tuple(errors))

    def steps_for(self, error: float) -> float:
        """Steps in the long step at which the error is this one; infinite where the error levels off above it."""
        n, e = self._followed()
        k = int(np.argmax(e <= error)) if (e <= error).any() else len(e)
        if k == 0:
            return float(n[0])  # no worse even at the longest step that it can take
        k = min(k, len(e) - 1)
        order = math.log(e[k - 1] / e[k]) / math.log(n[k] / n[k - 1])
        if e[k] > error and order < LEVEL:
            return math.inf
        return float(n[k] * (e[k] / error) ** (1.0 / order))

    def error_at(self, steps: float) -> float:
        """Error with this many steps in the long step; infinite where the scheme cannot take steps that long."""
        n, e = self._followed()
        if steps < n[0] * (1.0 - 1e-9):
            return math.inf
        k = int(np.clip(np.searchsorted(n, steps), 1, len(n) - 1))
        order = math.log(e[k - 1] / e[k]) / math.log(n[k] / n[k - 1])
        return float(e[k] * (n[k] / steps) ** order)

    def _followed(self) -> tuple[np.ndarray, np.ndarray]:
        """Rungs from the first from which on the scheme follows the motion."""
        n, e = np.array(self.rungs, dtype=float), np.array(self.errors)
        bad = ~(e < LOST)
        first = len(e) - int(np.argmax(bad[::-1])) if bad.any() else 0
        return n[first:], e[first:]


def moving(contender: Contender, state: al.PhaseState) -> Callable[[], object]:
    """A call that covers one long step and goes on from there the next time, so that nothing is remembered."""
    held = [state]

    def call() -> None:
        with torch.no_grad():
            held[0] = contender.cover(held[0])

    return call


@dataclasses.dataclass(frozen=True)
class LongRun:
    """What a microcanonical run says: drift, kinetic temperatures and the mean wavenumber of a band."""

    ps: float
    drift: float = math.nan
    drift_error: float = math.nan
    temperatures_K: Mapping[str, float] = dataclasses.field(default_factory=dict)
    p_value: float = math.nan
    band_per_cm: float = math.nan
    band_error: float = math.nan
    failure: str = ""


def long_run(
    contender: Contender, base: Any, state: al.PhaseState, ps: float, band: tuple[float, float] | None
) -> LongRun:
    """Frames every long step; the energy is that of the base potential."""
    forget_edges()
    run = roll_out(contender.step_map, base, state, ps=ps, interval_fs=contender.span_fs)
    if run.failure is not None or len(run.energies) < 100:
        return LongRun(float(run.times_ps[-1]), failure=run.failure or "too short")
    shares = run.shares
    T = dict(zip(shares.groups, shares.temperatures_K, strict=True))
    place = (math.nan, math.nan) if band is None else band_of(run, band)
    return LongRun(float(run.times_ps[-1]), *run.drift, T, float(shares.p_value), *place)


def band_of(run: RollOut, band: tuple[float, float], blocks: int = 5) -> tuple[float, float]:
    """Mean wavenumber of the velocity spectrum within a band, from blocks of a run, and its standard error."""
    trajectory, means = run.trajectory, []
    length = len(trajectory) // blocks
    for k in range(blocks):
        part = slice(k * length, (k + 1) * length)
        cut = dataclasses.replace(trajectory, positions=trajectory.positions[part], momenta=trajectory.momenta[part])
        spectrum = velocity_spectrum(cut, blocks=3)
        inside = (spectrum.per_cm > band[0]) & (spectrum.per_cm < band[1])
        density = spectrum.density[inside]
        means.append((density * spectrum.per_cm[inside]).sum() / density.sum())
    mean, error = mean_and_error(means, blocks)
    return float(mean), float(error)
