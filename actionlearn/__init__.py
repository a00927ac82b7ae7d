"""actionlearn: molecular dynamics with long steps taken from a learned mechanical action."""

from actionlearn import (
    advice,
    analysis,
    correction,
    dipoles,
    dynamics,
    flows,
    gdml,
    potentials,
    schemes,
    structure,
    units,
)
from actionlearn.checkpoint import load, save
from actionlearn.clock import clock_error
from actionlearn.dataset import Dataset
from actionlearn.dynamics import simulate
from actionlearn.maps import (
    Committee,
    CorrectedVerlet,
    DirectPredictor,
    DiscreteAction,
    Displacement,
    LatticeMap,
    MatchedVerlet,
    MidpointAction,
    NetworkPotential,
    PredictCorrect,
    ProcessedAction,
)
from actionlearn.maps.blueprint import Blueprint
from actionlearn.neighbours import Edges, NeighbourList, find_edges
from actionlearn.networks import AtomicMoments, SchNet
from actionlearn.networks.dipole import DipoleModel
from actionlearn.reference import ReferenceSet, sample
from actionlearn.schemes import Splitting, Verlet
from actionlearn.settings import Settings
from actionlearn.solver import FixedPointSolver
from actionlearn.state import PhaseState
from actionlearn.structure import (
    angular_momentum_drift,
    as_step,
    energy_drift,
    equipartition,
    estimate_symplectic_defect,
    momentum_drift,
    reversal_error,
    step_jacobian,
    symplectic_defect,
)
from actionlearn.training import Trainer

__version__ = "0.1.0"

__all__ = [
    "AtomicMoments",
    "Blueprint",
    "Committee",
    "CorrectedVerlet",
    "Dataset",
    "DipoleModel",
    "DirectPredictor",
    "DiscreteAction",
    "Displacement",
    "Edges",
    "FixedPointSolver",
    "LatticeMap",
    "MatchedVerlet",
    "MidpointAction",
    "NeighbourList",
    "NetworkPotential",
    "PhaseState",
    "PredictCorrect",
    "ProcessedAction",
    "ReferenceSet",
    "SchNet",
    "Settings",
    "Splitting",
    "Trainer",
    "Verlet",
    "advice",
    "analysis",
    "angular_momentum_drift",
    "as_step",
    "clock_error",
    "correction",
    "dipoles",
    "dynamics",
    "energy_drift",
    "equipartition",
    "estimate_symplectic_defect",
    "find_edges",
    "flows",
    "gdml",
    "load",
    "momentum_drift",
    "potentials",
    "reversal_error",
    "sample",
    "save",
    "schemes",
    "simulate",
    "step_jacobian",
    "structure",
    "symplectic_defect",
    "units",
]
