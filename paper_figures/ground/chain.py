"""A ring of anharmonic springs: what an error that comes back every h does to the energy, and what a midpoint costs.

    V = Σ_i ½ r_i² + ⅓ α r_i³ + ¼ β r_i⁴,    r_i = q_{i+1} − q_i,    m = 1,    ω_max = 2,    T = 2π/ω_max = π

**Heating.** The exact motion over τ, then a kick −∇W with W = Σ_i a cos(k r_i + φ_i), half of it before and half after:
a symplectic, reversible map that is right but for a smooth error of known size, for any τ. It stands for every map
whose error comes back alike after τ: τ = h for a midpoint action or for one kick a step, h/s for s kicks alike.

**Cost.** The midpoint action that is exact for the harmonic part, S = Σ (2/ω) tan(ωh/2)·H_ω + anharmonic terms, solved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

import actionlearn as al
from actionlearn.errors import NonFinite, NotConverged
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND

ALPHA, BETA, KT = 0.5, 1.0, 0.05
OMEGA_MAX, PERIOD = 2.0, math.pi
SITES, MOST = 32, 0.3
WAVE = 1.5 / math.sqrt(KT)  # the error varies over about the thermal stretch of a spring


def _springs(q: np.ndarray) -> np.ndarray:
    return np.roll(q, -1, -1) - q


def _pull(slope: np.ndarray) -> np.ndarray:
    """Forces from dV/dr of every spring."""
    return slope - np.roll(slope, 1, -1)


def energy(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Total energy of every ring."""
    r = _springs(q)
    return (0.5 * p**2 + 0.5 * r**2 + ALPHA / 3 * r**3 + BETA / 4 * r**4).sum(-1)


def _modes() -> tuple[np.ndarray, np.ndarray]:
    eye = np.eye(SITES)
    matrix = 2 * eye - np.roll(eye, 1, 0) - np.roll(eye, -1, 0)
    squares, U = np.linalg.eigh(matrix)
    return np.sqrt(squares.clip(0.0)), U


class Flow:
    """The exact motion over a time: harmonic turns and anharmonic kicks in steps of at most `fine`."""

    def __init__(self, time: float, fine: float = 0.2) -> None:
        """Prepare the turns."""
        self.count = max(1, math.ceil(time / fine))
        self.dt = time / self.count
        w, U = _modes()
        slow = w < 1e-7
        safe = np.where(slow, 1.0, w)
        c, s = np.cos(w * self.dt), np.where(slow, self.dt, np.sin(w * self.dt) / safe)
        turn = lambda values: (U * values) @ U.T  # noqa: E731
        self.cc, self.cs, self.sc = turn(c), turn(s), turn(-(w**2) * s)

    def __call__(self, q: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Move all rings."""
        for k in range(self.count):
            p = p + self._kick(q) * (0.5 if k == 0 else 1.0)
            q, p = q @ self.cc + p @ self.cs, q @ self.sc + p @ self.cc
        return q, p + 0.5 * self._kick(q)

    def _kick(self, q: np.ndarray) -> np.ndarray:
        r = _springs(q)
        return self.dt * _pull(ALPHA * r**2 + BETA * r**3)


def thermal(rings: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rings at kT: harmonic draws, then a hundred periods of their own motion."""
    rng = np.random.default_rng(seed)
    w, U = _modes()
    amplitude = np.where(w < 1e-7, 0.0, math.sqrt(KT) / np.where(w < 1e-7, 1.0, w))
    q = (rng.normal(size=(rings, SITES)) * amplitude) @ U.T
    p = math.sqrt(KT) * rng.normal(size=(rings, SITES))
    return Flow(100.0 * PERIOD)(q, p - p.mean(1, keepdims=True))


def heating(
    tau: float, relative_errors: Sequence[float], rings: int, periods: float, seed: int = 0
) -> list[tuple[float, float]]:
    """Energy gained per site and fastest period, in kT, with its standard error over the rings, for several errors.

    The error is the rms kick over the rms change of the momenta in τ. A rate ends where `MOST` kT are gained.
    """
    q, p = thermal(rings, seed)
    phases = np.random.default_rng(seed + 1).uniform(0, 2 * math.pi, SITES)
    flow = Flow(tau)

    def kick(q: np.ndarray) -> np.ndarray:
        return _pull(-np.sin(WAVE * _springs(q) + phases))

    change = flow(q, p)[1] - p
    unit = math.sqrt((change**2).mean() / (kick(q) ** 2).mean())
    strength = unit * np.repeat(relative_errors, rings)[:, None]
    q, p = (np.tile(x, (len(relative_errors), 1)) for x in (q, p))
    start = energy(q, p)
    rates: list[tuple[float, float]] = [(math.nan, math.nan)] * len(relative_errors)
    steps = max(8, round(periods * PERIOD / tau))
    for done in range(1, steps + 1):
        p = p + 0.5 * strength * kick(q)
        q, p = flow(q, p)
        p = p + 0.5 * strength * kick(q)
        if done % max(1, steps // 16) == 0 or done == steps:
            gained = ((energy(q, p) - start) / (SITES * KT)).reshape(len(relative_errors), rings)
            for k, mine in enumerate(gained):
                if mine.mean() < MOST or math.isnan(rates[k][0]):
                    rate = mine / (done * tau / PERIOD)
                    rates[k] = float(rate.mean()), float(rate.std(ddof=1) / math.sqrt(rings))
    return rates


class ExactHarmonicMidpoint:
    """G of the midpoint action that is exact for the harmonic part; anharmonic terms as they are."""

    def __init__(self, h: float) -> None:
        """Fill in tan(ωh/2)/(ωh/2)."""
        w, U = _modes()
        x = 0.5 * w * h
        factor = np.where(x < 1e-9, 1.0, np.tan(x) / np.where(x < 1e-9, 1.0, x))
        self.kinetic = torch.from_numpy((U * (factor - 1.0)) @ U.T)
        self.harmonic = torch.from_numpy((U * (factor * w**2)) @ U.T)

    def energy(self, state: PhaseState) -> torch.Tensor:
        """One number per system."""
        q, p = state.positions.view(-1, SITES), state.momenta.view(-1, SITES)
        r = q.roll(-1, 1) - q
        quadratic = 0.5 * ((p @ self.kinetic) * p + (q @ self.harmonic) * q).sum(1)
        return quadratic + (ALPHA / 3 * r**3 + BETA / 4 * r**4).sum(1)


def gradients_a_step(h: float, solver: al.FixedPointSolver, steps: int) -> float:
    """Gradients that a step of the midpoint action takes; nan where it is not solved."""
    q, p = (torch.from_numpy(x[0].copy()).unsqueeze(1) for x in thermal(1))
    state = PhaseState(q, p, torch.ones(SITES, dtype=torch.float64))
    action = al.MidpointAction(ExactHarmonicMidpoint(h), step_fs=h / FEMTOSECOND, solver=solver)
    try:
        with torch.no_grad():
            action.step(state, steps)
    except (NotConverged, NonFinite):
        return math.nan
    return solver.statistics.evaluations_per_solve
