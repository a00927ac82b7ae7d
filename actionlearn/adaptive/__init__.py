"""Adaptive sampling: long-step runs find the states that a map is unsure of, the base potential goes on from there."""

from actionlearn.adaptive.criteria import Criterion, Disagreement, FarFromTraining, criterion_of
from actionlearn.adaptive.explore import (
    Candidates,
    Explored,
    any_state,
    explore,
    far_apart,
    half_uncertain,
    most_uncertain,
)
from actionlearn.adaptive.rounds import Adaptive, Plan, Round, draw, table

__all__ = [
    "Adaptive",
    "Candidates",
    "Criterion",
    "Disagreement",
    "Explored",
    "FarFromTraining",
    "Plan",
    "Round",
    "any_state",
    "criterion_of",
    "draw",
    "explore",
    "far_apart",
    "half_uncertain",
    "most_uncertain",
    "table",
]
