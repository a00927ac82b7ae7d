"""Learned maps as dynamics objects of ASE."""

from actionlearn.ase.corrected import Corrected
from actionlearn.ase.ensembles import ActionBussi, ActionGHMC, ActionLangevin, ActionNVE

__all__ = ["ActionBussi", "ActionGHMC", "ActionLangevin", "ActionNVE", "Corrected"]
