"""Langevin dynamics between the recorded stretches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from actionlearn.potentials.protocol import Potential
from actionlearn.state import PhaseState
from actionlearn.units import BOLTZMANN, FEMTOSECOND, PICOSECOND


def maxwell_boltzmann(state: PhaseState, temperature_K: float | Tensor, generator: torch.Generator) -> PhaseState:
    """Momenta drawn anew, p = sqrt(m·kT)·ξ, T for all atoms or for each; fixed atoms stay at rest."""
    width = (state.masses * BOLTZMANN * temperature_K).sqrt().unsqueeze(1)
    xi = torch.randn(state.positions.shape, generator=generator, dtype=state.positions.dtype)
    p = width * xi.to(width.device)
    return state.moved(state.positions, p.masked_fill(state.fixed.unsqueeze(1), 0.0))


def without_total_momentum(state: PhaseState) -> PhaseState:
    """The same state seen from its centre of mass: p − m·P/M, one system.

    From canonical momenta this draws exactly the canonical ones with zero total momentum.
    """
    m = state.masses.unsqueeze(1)
    return state.moved(state.positions, state.momenta - m * (state.momenta.sum(0) / m.sum()))


def langevin(
    state: PhaseState,
    potential: Potential,
    *,
    step_fs: float,
    steps: int,
    temperature_K: float,
    friction_per_ps: float,
    generator: torch.Generator,
) -> PhaseState:
    """Langevin dynamics, dq = p/m dt, dp = (F − γp) dt + sqrt(2γm·kT) dW, by the splitting B A O A B.

    | symbol | variable           | unit        |                                       |
    |--------|--------------------|-------------|---------------------------------------|
    | dt     | `dt`               | Å·sqrt(u/eV)| base step                             |
    | γ      | `friction_per_ps`  | 1/ps        |                                       |
    | kT     | `kT`               | eV          |                                       |
    | B      | kick by dt/2·F     |             |                                       |
    | A      | drift by dt/2      |             |                                       |
    | O      | p ← c·p + sqrt((1 − c²)·m·kT)·ξ |   | c = exp(−γ·dt), exact                 |

    Second order in dt for averages; configurations of harmonic systems are sampled exactly. Not symplectic, not
    reversible: it forgets where it came from, which is its purpose. B. Leimkuhler and C. Matthews, Appl. Math. Res.
    Express 2013, 34.
    """
    dt = step_fs * FEMTOSECOND
    c = math.exp(-friction_per_ps / PICOSECOND * dt)
    noise = (state.masses * ((1.0 - c * c) * BOLTZMANN * temperature_K)).sqrt().unsqueeze(1)

    def randomised(state: PhaseState) -> PhaseState:
        xi: Tensor = torch.randn(state.momenta.shape, generator=generator, dtype=state.momenta.dtype)
        p = c * state.momenta + noise * xi
        return state.moved(state.positions, p.masked_fill(state.fixed.unsqueeze(1), 0.0))

    F = potential.forces(state)
    for _ in range(steps):
        state = state.kick(0.5 * dt * F)
        state = state.drift(0.5 * dt)
        state = randomised(state)
        state = state.drift(0.5 * dt)
        F = potential.forces(state)
        state = state.kick(0.5 * dt * F)
    return state
