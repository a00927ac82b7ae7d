"""Atoms in surroundings that a trained map has never seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from actionlearn.maps.blueprint import network_of
from actionlearn.state import PhaseState

MARGIN = 2.0
"""How far outside the range of training an input may lie, in standard deviations of that input in training."""


EDGE = 1.5
"""An atom's uncertainty beyond which it is outside; 1 is the largest of training and validation."""


class Outside(Protocol):
    """Anything that says which atoms a trained map has seen nothing like."""

    def strangers(self, state: PhaseState) -> Tensor:
        """Which atoms are outside, (atoms,)."""
        ...


def outside_of(model: Any) -> Outside | None:
    """What a trained map knows of its training: uncertainties, or at least the range of inputs, or nothing."""
    uncertainty = getattr(model, "uncertainty", None)
    return FamiliarRange.of(model) if uncertainty is None else FarFromTraining(uncertainty)


class FarFromTraining:
    """An atom is a stranger if its uncertainty is beyond `EDGE`, half as much again as the largest of training."""

    def __init__(self, uncertainty: Callable[[PhaseState], Tensor]) -> None:
        """The uncertainty of every atom as a function of the state."""
        self.uncertainty = uncertainty

    def strangers(self, state: PhaseState) -> Tensor:
        """Which atoms are outside, (atoms,)."""
        return self.uncertainty(state) > EDGE


class FamiliarRange:
    """The range of the network's inputs in training, as its checkpoint reports it.

    An atom is a stranger if any of its inputs lies beyond the least or largest of training by `MARGIN` spreads.
    """

    def __init__(self, model: Any, least: Tensor, largest: Tensor, spread: Tensor) -> None:
        """Take the limits, each (inputs,)."""
        self.network = network_of(model)
        self.least, self.largest = least - MARGIN * spread, largest + MARGIN * spread

    @classmethod
    def of(cls, model: Any) -> FamiliarRange | None:
        """The range in a trained map's report, or None for a map without one."""
        found = (getattr(model, "report", None) or {}).get("input_range")
        return None if found is None else cls(model, found["least"], found["largest"], found["spread"])

    @torch.no_grad()
    def strangers(self, state: PhaseState) -> Tensor:
        """Which atoms are outside, (atoms,)."""
        x = self.network.features_and_vectors(state)[0]
        return ((x < self.least.to(x)) | (x > self.largest.to(x))).any(1)
