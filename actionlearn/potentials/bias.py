"""Biases: potentials that are added to whatever moves the atoms, as the `extra` potentials of a map."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.potentials.protocol import forces_from_energy
from actionlearn.state import PhaseState


class Restraint:
    """Springs that hold some atoms near given places: V = ½ k Σ |q_i − c_i|², one system."""

    def __init__(self, atoms: Sequence[int], centres: Tensor, stiffness: float) -> None:
        """Atoms by index, their places (atoms, dims) in Å, and k in eV/Å²."""
        self.atoms = torch.as_tensor(atoms, dtype=torch.int64)
        self.centres = torch.as_tensor(centres)
        if self.centres.ndim != 2 or len(self.centres) != len(self.atoms):
            raise InvalidInput(
                f"a restraint of {len(self.atoms)} atoms needs as many centres, got shape {tuple(self.centres.shape)}"
            )
        self.stiffness = _positive("stiffness", stiffness)

    def energy(self, state: PhaseState) -> Tensor:
        """½ k Σ |q − c|², (1,)."""
        return 0.5 * self.stiffness * self._offsets(state).square().sum().unsqueeze(0)

    def forces(self, state: PhaseState) -> Tensor:
        """−k (q − c) on the atoms that are held."""
        pull = -self.stiffness * self._offsets(state)
        return torch.zeros_like(state.positions).index_add(0, self.atoms.to(pull.device), pull)

    def _offsets(self, state: PhaseState) -> Tensor:
        if state.n_systems != 1 or int(self.atoms.max()) >= state.n_atoms:
            raise UnsupportedSystem(
                f"this restraint holds atoms up to number {int(self.atoms.max())} of one system, the state has "
                f"{state.n_atoms} atoms in {state.n_systems}"
            )
        return state.positions[self.atoms.to(state.positions.device)] - self.centres.to(state.positions)


class Wall:
    """A half-harmonic wall: V = ½ k Σ max(0, n·q_i − d)², every atom beyond the plane is pushed back against n."""

    def __init__(self, normal: Sequence[float], distance: float, stiffness: float) -> None:
        """Outward direction n (normalised here), distance d of the plane from the origin in Å, k in eV/Å²."""
        n = torch.as_tensor(normal, dtype=torch.float64)
        if n.ndim != 1 or not bool(torch.isfinite(n).all()) or not float(n.norm()) > 0:
            raise InvalidInput(f"the normal of a wall must be a vector that is not zero, got {list(normal)}")
        self.normal, self.distance = n / n.norm(), float(distance)
        self.stiffness = _positive("stiffness", stiffness)

    def energy(self, state: PhaseState) -> Tensor:
        """½ k Σ max(0, n·q − d)², (systems,)."""
        return state.sum_by_system(0.5 * self.stiffness * self._beyond(state).square())

    def forces(self, state: PhaseState) -> Tensor:
        """−k max(0, n·q − d) n."""
        return -self.stiffness * self._beyond(state).unsqueeze(1) * self.normal.to(state.positions)

    def _beyond(self, state: PhaseState) -> Tensor:
        return (state.positions @ self.normal.to(state.positions) - self.distance).clamp_min(0.0)


class FunctionPotential:
    """Any differentiable torch function of the state, one energy (eV) per system, as a potential."""

    def __init__(self, function: Callable[[PhaseState], Tensor]) -> None:
        """`function(state)` returns (systems,)."""
        self.function = function

    def energy(self, state: PhaseState) -> Tensor:
        """What the function says."""
        energy = self.function(state)
        if energy.shape != (state.n_systems,):
            raise InvalidInput(
                f"a bias function returned shape {tuple(energy.shape)}, expected one energy per system, "
                f"({state.n_systems},)"
            )
        return energy

    def forces(self, state: PhaseState) -> Tensor:
        """Minus its gradient."""
        return forces_from_energy(self.energy, state)


def _positive(name: str, value: float) -> float:
    if not 0.0 < value < float("inf"):
        raise InvalidInput(f"{name} must be a positive number of eV/Å², got {value!r}")
    return float(value)
