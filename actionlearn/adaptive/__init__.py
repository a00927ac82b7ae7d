"""Adaptive sampling: long-step runs find the states that a map is unsure of, the base potential goes on from there."""

from actionlearn.adaptive.explore import Candidates, Explored, explore, half_uncertain, most_uncertain
from actionlearn.adaptive.rounds import Adaptive, Plan, Round, draw, table

__all__ = [
    "Adaptive",
    "Candidates",
    "Explored",
    "Plan",
    "Round",
    "draw",
    "explore",
    "half_uncertain",
    "most_uncertain",
    "table",
]
