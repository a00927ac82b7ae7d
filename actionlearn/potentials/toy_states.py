"""Starting states for the toy potentials: chosen energies, phases and orbits, as batches of small systems."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from actionlearn.errors import InvalidInput
from actionlearn.potentials.toys import HenonHeiles, Kepler, Morse
from actionlearn.state import PhaseState

FIGURE_EIGHT_PERIOD: float = 6.32591398292621
"""Period of the figure-eight orbit for G = 1 and unit masses."""


def morse_state(
    potential: Morse,
    energy_fraction: Tensor | float,
    phase: Tensor | float = 0.0,
    mass: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> PhaseState:
    """One atom per system, in one dimension, of energy E = `energy_fraction`·D at `phase` of its oscillation.

    With u = exp(a(r − r₀)), the motion is u = c + A cos φ, c = D/(D − E), A = sqrt(DE)/(D − E); φ = 0 is the outer
    turning point and φ grows uniformly in time. Tensors of fractions and phases make a batch.
    """
    f, phi = torch.broadcast_tensors(
        torch.atleast_1d(torch.as_tensor(energy_fraction, dtype=dtype)),
        torch.atleast_1d(torch.as_tensor(phase, dtype=dtype)),
    )
    if (f < 0).any() or (f >= 1).any():
        raise InvalidInput(f"a bound Morse state has 0 ≤ E/D < 1, got {f.min():g} to {f.max():g}")
    a, D = potential.width, potential.depth
    omega = a * (2.0 * D * (1.0 - f) / mass).sqrt()
    amplitude = f.sqrt() / (1.0 - f)
    u = 1.0 / (1.0 - f) + amplitude * torch.cos(phi)
    du_dt = -omega * amplitude * torch.sin(phi)
    return _singles((potential.equilibrium + u.log() / a).unsqueeze(1), (mass * du_dt / (a * u)).unsqueeze(1), mass)


def kepler_state(
    potential: Kepler,
    eccentricity: Tensor | float,
    semi_major_axis: float = 1.0,
    mass: float = 1.0,
    dims: int = 2,
    dtype: torch.dtype = torch.float64,
) -> PhaseState:
    """One body per system at the pericentre of an ellipse, on the x axis and moving along y."""
    e = torch.atleast_1d(torch.as_tensor(eccentricity, dtype=dtype))
    if (e < 0).any() or (e >= 1).any():
        raise InvalidInput(f"an elliptic orbit has 0 ≤ eccentricity < 1, got {e.min():g} to {e.max():g}")
    q = torch.zeros(len(e), dims, dtype=dtype)
    p = torch.zeros_like(q)
    q[:, 0] = semi_major_axis * (1.0 - e)
    p[:, 1] = ((1.0 + e) / (1.0 - e) * (potential.strength * mass / semi_major_axis)).sqrt()
    return _singles(q, p, mass)


def henon_heiles_state(
    potential: HenonHeiles,
    energy: float,
    y: Tensor | float = 0.0,
    momentum_y: Tensor | float = 0.0,
    mass: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> PhaseState:
    """One atom per system on the section x = 0, p_x > 0 at the given energy."""
    height, py = torch.broadcast_tensors(
        torch.atleast_1d(torch.as_tensor(y, dtype=dtype)), torch.atleast_1d(torch.as_tensor(momentum_y, dtype=dtype))
    )
    q = torch.stack([torch.zeros_like(height), height], 1)
    start = _singles(q, torch.stack([torch.zeros_like(py), py], 1), mass)
    left = energy - potential.energy(start) - start.kinetic_energy()
    if (left < 0).any():
        raise InvalidInput(f"energy {energy:g} eV is not enough for the given y and p_y: {-left.min():g} eV is missing")
    return start.moved(q, torch.stack([(2.0 * mass * left).sqrt(), py], 1))


def figure_eight(dims: int = 2, dtype: torch.dtype = torch.float64) -> PhaseState:
    """Three unit masses chasing each other along one figure eight, period `FIGURE_EIGHT_PERIOD` for G = 1.

    Found by Moore (1993), proven by Chenciner and Montgomery (2000); digits by Simó.
    """
    q = torch.zeros(3, dims, dtype=dtype)
    p = torch.zeros_like(q)
    q[0, :2] = torch.tensor([0.97000435669734, -0.24308753153583], dtype=dtype)
    q[1] = -q[0]
    p[2, :2] = torch.tensor([-0.93240737144104, -0.86473146092102], dtype=dtype)
    p[:2] = -0.5 * p[2]
    return PhaseState(q, p, torch.ones(3, dtype=dtype))


def kepler_period(potential: Kepler, semi_major_axis: float = 1.0, mass: float = 1.0) -> float:
    """2π sqrt(m a³/k)."""
    return 2.0 * math.pi * math.sqrt(mass * semi_major_axis**3 / potential.strength)


def _singles(q: Tensor, p: Tensor, mass: float) -> PhaseState:
    """A batch of one-atom systems."""
    return PhaseState(q, p, torch.full((len(q),), mass, dtype=q.dtype), system=torch.arange(len(q)))
