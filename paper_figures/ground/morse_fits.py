"""How well each kind of action can follow one Morse oscillator at a step h: no network, only the best polynomial.

Kick potentials are polynomials of the position, a midpoint action one of midpoint position and even powers of
midpoint momentum, fitted to the exact flow over all energies up to 0.06 D. The error is that of one step at
E = 0.05 D: rms|δz|/rms|z' − z|, z = (q, p/ω).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.optimize import least_squares

import actionlearn as al
from actionlearn.errors import NonFinite, NotConverged
from actionlearn.flows import morse_flow
from actionlearn.maps import kick_weights
from actionlearn.potentials import Morse
from actionlearn.potentials.toy_states import morse_state
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND

WELL = Morse(depth=1.0, width=1.0)
OMEGA = math.sqrt(2.0)
SCALE = 0.35  # Å, about the largest excursion, so that powers stay of order one
ORDER = 9


class Polynomial:
    """Σ_n c_n (q/SCALE)^n, n = 1 … N."""

    def __init__(self, coefficients: np.ndarray) -> None:
        """Take c."""
        self.c = torch.as_tensor(coefficients, dtype=torch.float64)
        self.n = torch.arange(1, len(self.c) + 1, dtype=torch.float64)

    def energy(self, state: PhaseState) -> torch.Tensor:
        """One number per system."""
        return ((state.positions / SCALE) ** self.n * self.c).sum(1)

    def forces(self, state: PhaseState) -> torch.Tensor:
        """Its negative slope."""
        return -((state.positions / SCALE) ** (self.n - 1) * (self.c * self.n)).sum(1, keepdim=True) / SCALE


class MidpointPolynomial:
    """Σ c_mn (q̄/SCALE)^m (p̄/ω SCALE)^2n for 1 ≤ m + 2n ≤ N: even in the momenta."""

    powers = [(m, 2 * n) for m in range(ORDER + 1) for n in range(ORDER + 1) if 1 <= m + 2 * n <= ORDER]

    def __init__(self, coefficients: np.ndarray) -> None:
        """Take c in the order of `powers`."""
        self.c = torch.as_tensor(coefficients, dtype=torch.float64)

    def energy(self, state: PhaseState) -> torch.Tensor:
        """One number per system."""
        x, y = state.positions[:, 0] / SCALE, state.momenta[:, 0] / (OMEGA * SCALE)
        return sum(c * x**m * y**n for c, (m, n) in zip(self.c, self.powers, strict=True))

    @classmethod
    def slopes(cls, q: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """∂/∂q̄ and ∂/∂p̄ of every term, (points, terms) each."""
        x, y = q / SCALE, p / (OMEGA * SCALE)
        dq = [m * x ** max(m - 1, 0) * y**n / SCALE for m, n in cls.powers]
        dp = [n * x**m * y ** max(n - 1, 0) / (OMEGA * SCALE) for m, n in cls.powers]
        return np.stack(dq, 1), np.stack(dp, 1)


def samples(fractions: np.ndarray, seed: int) -> PhaseState:
    """One oscillator for every energy, in units of D, at random phases."""
    phases = np.random.default_rng(seed).uniform(0, 2 * math.pi, len(fractions))
    return morse_state(WELL, torch.as_tensor(fractions), torch.as_tensor(phases))


def difference(a: PhaseState, b: PhaseState) -> torch.Tensor:
    """(δq, δp/ω)."""
    return torch.cat([a.positions - b.positions, (a.momenta - b.momenta) / OMEGA], dim=1)


def training(theta: float, points: int) -> tuple[PhaseState, PhaseState]:
    """States and where the exact flow takes them over h = θ/ω."""
    start = samples(0.06 * np.random.default_rng(1).uniform(0.002, 1.0, points), seed=2)
    return start, morse_flow(WELL, theta / OMEGA)(start)


def fit_kicks(theta: float, stages: int, points: int) -> Any:
    """The discrete action of s stages, started from what is exact in the harmonic well."""
    h = theta / OMEGA
    start, end = training(theta, points)
    size = float(difference(end, start).square().mean().sqrt())

    def action(x: np.ndarray) -> Any:
        kicks = [Polynomial(c) for c in x.reshape(-1, ORDER)]
        return al.DiscreteAction(kicks, step_fs=h / FEMTOSECOND, stages=stages)

    def residual(x: np.ndarray) -> np.ndarray:
        try:
            return (difference(action(x).step(start), end).numpy().ravel() / size).clip(-1e3, 1e3)
        except NonFinite:
            return np.full(2 * points, 1e3)

    x = np.zeros((stages // 2 + 1, ORDER))
    quadratic = 0.5 * OMEGA**2 * SCALE**2
    for k, w in enumerate(kick_weights(stages)):
        x[k, 1] = quadratic * w
    if stages % 2 == 0:  # pairs of stages, each exact in the harmonic well
        half = 2.0 * theta / stages
        edge = quadratic * (2 - half / math.tan(half / 2)) / theta / half
        inner = quadratic * 4 * (1 - math.sin(half) / half) / theta / half
        for k in range(stages // 2 + 1):
            x[k, 1] = inner if k % 2 else edge * (1 if k == 0 else 2)
    return action(least_squares(residual, x.ravel(), method="trf", max_nfev=60, x_scale=0.01).x)


def fit_midpoint(theta: float, points: int) -> Any:
    """The midpoint action: Δq − h p̄ = h ∂G/∂p̄ and Δp = −h ∂G/∂q̄ are linear in its coefficients."""
    h = theta / OMEGA
    start, end = training(theta, points)
    dq, dp = (end.positions - start.positions).numpy()[:, 0], (end.momenta - start.momenta).numpy()[:, 0]
    q, p = 0.5 * (start.positions + end.positions).numpy()[:, 0], 0.5 * (start.momenta + end.momenta).numpy()[:, 0]
    slope_q, slope_p = MidpointPolynomial.slopes(q, p)
    left = np.concatenate([h * slope_p, -h * slope_q / OMEGA])
    right = np.concatenate([dq - h * p, dp / OMEGA])
    c = np.linalg.lstsq(left, right, rcond=1e-12)[0]
    flow = morse_flow(WELL, h)  # the solver starts from the exact end: what fails then has no solution nearby
    return al.MidpointAction(MidpointPolynomial(c), step_fs=h / FEMTOSECOND, guess=flow)


def one_step_error(step: Any, theta: float, count: int = 300) -> float:
    """Relative error of one step of h at E = 0.05 D; nan where the step has no solution."""
    start = samples(np.full(count, 0.05), seed=3)
    end = morse_flow(WELL, theta / OMEGA)(start)
    try:
        with torch.no_grad():
            miss = difference(step(start), end)
    except (NotConverged, NonFinite):
        return math.nan
    return float((miss.square().mean() / difference(end, start).square().mean()).sqrt())
