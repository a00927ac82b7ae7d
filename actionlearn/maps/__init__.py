"""Large-step maps made from potentials."""

from actionlearn.maps.blueprint import Blueprint
from actionlearn.maps.committee import Committee
from actionlearn.maps.corrected import CorrectedVerlet
from actionlearn.maps.direct import DirectPredictor
from actionlearn.maps.discrete import DiscreteAction, kick_weights
from actionlearn.maps.lattice import LatticeMap, LatticeState
from actionlearn.maps.matched import MatchedVerlet, NetworkPotential
from actionlearn.maps.midpoint import MidpointAction
from actionlearn.maps.predict_correct import PredictCorrect
from actionlearn.maps.processed import Displacement, ProcessedAction
from actionlearn.maps.step_range import StepRange

__all__ = [
    "Blueprint",
    "Committee",
    "CorrectedVerlet",
    "DirectPredictor",
    "DiscreteAction",
    "Displacement",
    "LatticeMap",
    "LatticeState",
    "MatchedVerlet",
    "MidpointAction",
    "NetworkPotential",
    "PredictCorrect",
    "ProcessedAction",
    "StepRange",
    "kick_weights",
]
