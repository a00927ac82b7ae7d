"""Base potentials: what the reference trajectories are made with."""

from actionlearn.potentials.ase_calculator import ASEPotential
from actionlearn.potentials.bias import FunctionPotential, Restraint, Wall
from actionlearn.potentials.lennard_jones import LennardJones
from actionlearn.potentials.metals import SecondMomentMetals
from actionlearn.potentials.protocol import Potential, forces_from_energy
from actionlearn.potentials.toy_states import (
    FIGURE_EIGHT_PERIOD,
    figure_eight,
    henon_heiles_state,
    kepler_period,
    kepler_state,
    morse_state,
)
from actionlearn.potentials.toys import DoubleWell, GravitationalThreeBody, Harmonic, HenonHeiles, Kepler, Morse
from actionlearn.potentials.water import SPCFw

__all__ = [
    "ASEPotential",
    "DoubleWell",
    "FIGURE_EIGHT_PERIOD",
    "FunctionPotential",
    "GravitationalThreeBody",
    "Harmonic",
    "HenonHeiles",
    "Kepler",
    "LennardJones",
    "Morse",
    "Potential",
    "Restraint",
    "SPCFw",
    "SecondMomentMetals",
    "Wall",
    "figure_eight",
    "forces_from_energy",
    "henon_heiles_state",
    "kepler_period",
    "kepler_state",
    "morse_state",
]
