"""actionlearn: molecular dynamics with long steps taken from a learned mechanical action."""

from actionlearn import potentials, units
from actionlearn.neighbours import Edges, NeighbourList, find_edges
from actionlearn.state import PhaseState

__version__ = "0.1.0"

__all__ = ["Edges", "NeighbourList", "PhaseState", "find_edges", "potentials", "units"]
