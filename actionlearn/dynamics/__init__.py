"""Runs of maps: ensembles, exact sampling, guards, restarts, batches of replicas."""

from actionlearn.dynamics.engine import Engine, Simulated, simulate
from actionlearn.dynamics.ensemble import Ensemble, Map, Microcanonical
from actionlearn.dynamics.freedom import degrees_of_freedom
from actionlearn.dynamics.metropolis import GeneralisedHMC, extra_potentials
from actionlearn.dynamics.record import as_text
from actionlearn.dynamics.thermostats import Langevin, VelocityRescaling

__all__ = [
    "Engine",
    "Ensemble",
    "GeneralisedHMC",
    "Langevin",
    "Map",
    "Microcanonical",
    "Simulated",
    "VelocityRescaling",
    "as_text",
    "degrees_of_freedom",
    "extra_potentials",
    "simulate",
]
