"""Base potentials: what the reference trajectories are made with."""

from actionlearn.potentials.protocol import Potential, forces_from_energy

__all__ = ["Potential", "forces_from_energy"]
