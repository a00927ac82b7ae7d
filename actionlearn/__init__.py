"""actionlearn: molecular dynamics with long steps taken from a learned mechanical action."""

from actionlearn import potentials, schemes, structure, units
from actionlearn.neighbours import Edges, NeighbourList, find_edges
from actionlearn.schemes import Splitting, Verlet
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

__version__ = "0.1.0"

__all__ = [
    "Edges",
    "NeighbourList",
    "PhaseState",
    "Splitting",
    "Verlet",
    "angular_momentum_drift",
    "as_step",
    "energy_drift",
    "equipartition",
    "estimate_symplectic_defect",
    "find_edges",
    "momentum_drift",
    "potentials",
    "reversal_error",
    "schemes",
    "step_jacobian",
    "structure",
    "symplectic_defect",
    "units",
]
