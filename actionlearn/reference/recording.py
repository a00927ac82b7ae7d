"""Microcanonical stretches: velocity Verlet with the base step, every so many steps a frame."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from actionlearn.errors import CalculatorFailed, InvalidInput, InvalidState, UnsupportedSystem
from actionlearn.potentials.protocol import Potential
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND

_CLEAR = (CalculatorFailed, InvalidInput, InvalidState, UnsupportedSystem)


class Checked:
    """A potential whose failures, exceptions and non-finite numbers alike, are `CalculatorFailed`."""

    def __init__(self, potential: Potential) -> None:
        """Watch over `potential`."""
        self.potential = potential

    def energy(self, state: PhaseState) -> Tensor:
        """Potential energy per system, finite."""
        try:
            energy = self.potential.energy(state)
        except _CLEAR:
            raise
        except Exception as problem:
            raise _failed(problem) from problem
        if not torch.isfinite(energy).all():
            raise CalculatorFailed(
                f"the potential returned energy {float(energy.flatten()[0])}: check the structure and the step"
            )
        return energy

    def forces(self, state: PhaseState) -> Tensor:
        """Forces, finite."""
        try:
            forces = self.potential.forces(state)
        except _CLEAR:
            raise
        except Exception as problem:
            raise _failed(problem) from problem
        if not torch.isfinite(forces).all():
            atom = int((~torch.isfinite(forces)).any(1).nonzero()[0])
            raise CalculatorFailed(
                f"the potential returned forces that are not finite, first on atom {atom}: "
                "check the structure, or take a smaller step"
            )
        return forces


def _failed(problem: Exception) -> CalculatorFailed:
    text = " ".join(str(problem).split())
    return CalculatorFailed(f"the potential raised {type(problem).__name__}: {text[:300]}")


@dataclasses.dataclass(frozen=True)
class Frames:
    """What is recorded along one stretch.

    | symbol | field                | shape                | unit            |
    |--------|----------------------|----------------------|-----------------|
    | q      | `positions`          | (frames, atoms, dims)| Å               |
    | p      | `momenta`            | (frames, atoms, dims)| sqrt(u·eV)      |
    | F      | `forces`             | (frames, atoms, dims)| eV/Å            |
    | V      | `potential_energies` | (frames,)            | eV              |
    | T      | `kinetic_energies`   | (frames,)            | eV              |
    | A      | `action`             | (frames,)            | Å·sqrt(u·eV)    |
    """

    positions: np.ndarray
    momenta: np.ndarray
    forces: np.ndarray
    potential_energies: np.ndarray
    kinetic_energies: np.ndarray
    action: np.ndarray


def record(state: PhaseState, potential: Potential, *, step_fs: float, frames: int, record_every: int) -> Frames:
    """Velocity Verlet with the running action along it, one system; the first frame is the state given.

        p½ = p + dt/2·F(q)      q' = q + dt·p½/m      p' = p½ + dt/2·F(q')
        A' = A + dt·|p½|²/2m − dt/2·(V(q) + V(q'))

    The quadrature of A = ∫(T − V)dt is the one that belongs to Verlet: its discrete action, of which the recorded
    trajectory is an exact stationary path. A is therefore right to second order in dt, and at the same time
    ∂A/∂q_end = p_end and ∂A/∂q_start = −p_start hold to rounding, so that values and derivatives never contradict
    each other. Symplectic, reversible.
    """
    dt = step_fs * FEMTOSECOND
    F, V = potential.forces(state), potential.energy(state)
    A = torch.zeros_like(V)
    rows = [(state.positions, state.momenta, F, V, state.kinetic_energy(), A)]
    for _ in range(frames - 1):
        for _ in range(record_every):
            half = state.kick(0.5 * dt * F)
            state = half.drift(dt)
            F, V_before, V = potential.forces(state), V, potential.energy(state)
            state = state.kick(0.5 * dt * F)
            A = A + dt * half.kinetic_energy() - 0.5 * dt * (V_before + V)
        rows.append((state.positions, state.momenta, F, V, state.kinetic_energy(), A))
    q, p, forces, V_all, T_all, A_all = (torch.stack(column).numpy() for column in zip(*rows, strict=True))
    return Frames(q, p, forces, V_all[:, 0], T_all[:, 0], A_all[:, 0])
