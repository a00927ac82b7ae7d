"""Exact harmonic motion as recorded stretches, and the maps that are exact for it."""

import math

import numpy as np

import actionlearn as al
from actionlearn.potentials import forces_from_energy
from actionlearn.reference import Stretch
from actionlearn.reference.recording import Frames
from actionlearn.units import FEMTOSECOND

STEP_FS = 8.0
MASSES = {29: 63.546, 79: 196.96657}


class Spring:
    """½ k m q² for every atom: one frequency whatever the mass."""

    def __init__(self, k):
        self.k = k

    def energy(self, state):
        return state.sum_by_system((0.5 * self.k * state.masses.unsqueeze(1) * state.positions**2).sum(1))

    def forces(self, state):
        return forces_from_energy(self.energy, state)


def stretch(theta, n_frames=12, n_atoms=3, seed=0, interval_fs=2.0, temperature_K=300.0, masses=MASSES):
    """Atoms in the same well, with ω such that a step of STEP_FS turns it by theta."""
    omega = theta / (STEP_FS * FEMTOSECOND)
    rng = np.random.default_rng(seed)
    numbers = np.resize(list(masses), n_atoms)
    m = np.array([masses[z] for z in numbers])
    size = math.sqrt(8.617e-5 * temperature_K)
    q0, v0 = (size * rng.normal(size=(n_atoms, 3)) / np.sqrt(m)[:, None] for _ in range(2))
    t = (np.arange(n_frames) * interval_fs * FEMTOSECOND)[:, None, None]
    q = q0 / omega * np.cos(omega * t) + v0 / omega * np.sin(omega * t)
    v = -q0 * np.sin(omega * t) + v0 * np.cos(omega * t)
    p = v * m[:, None]
    system = al.PhaseState(q[0], p[0], m, numbers=numbers)
    kinetic, potential = (0.5 * (m[:, None] * x**2).sum((1, 2)) for x in (v, omega * q))
    action = 0.5 * ((q * p).sum((1, 2)) - (q[0] * p[0]).sum())
    force = -(omega**2) * m[:, None] * q
    steps = np.arange(n_frames) * 2
    return Stretch(
        name=f"harmonic-{temperature_K:g}K-{seed}",
        temperature_K=temperature_K,
        chain=0,
        step_fs=interval_fs / 2,
        steps=steps,
        omega_max_per_fs=theta / STEP_FS,
        frames=Frames(q, p, force, potential, kinetic, action),
        system=system,
    )


def exact_discrete(theta):
    """Two stages: V_1 = ½ c q², V_0 = ½ a q², exact for ωh < 2π."""
    h = STEP_FS * FEMTOSECOND
    c = 4.0 / h * (1.0 - math.sin(theta) / theta)
    a = (2.0 - theta / math.tan(0.5 * theta)) / h
    return al.DiscreteAction([Spring(a / h), Spring(c / h)], step_fs=STEP_FS)


def exact_processed(theta, twist=1.0):
    """One stage in stretched variables, Q = λq with λ² = θ/sin θ, exact for ωh < π; `twist` spoils λ."""
    h = STEP_FS * FEMTOSECOND
    stretch = twist * math.sqrt(theta / math.sin(theta))
    inner = al.DiscreteAction([Spring((1.0 - math.cos(theta)) / h**2)], step_fs=STEP_FS)
    return al.ProcessedAction(inner, al.Displacement(Spring((stretch - 1.0) / h**2), step_fs=STEP_FS))
