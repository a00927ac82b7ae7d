"""Base potentials: what the reference trajectories are made with."""

from actionlearn.potentials.metals import SecondMomentMetals
from actionlearn.potentials.protocol import Potential, forces_from_energy

__all__ = ["Potential", "SecondMomentMetals", "forces_from_energy"]
