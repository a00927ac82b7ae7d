"""Measures of how unsure a map is of a state, in units of the edge of its training."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from actionlearn.dataset import Dataset
from actionlearn.errors import InvalidInput
from actionlearn.maps.committee import Committee
from actionlearn.state import PhaseState
from actionlearn.uncertainty import Uncertainty


class Criterion(Protocol):
    """Anything that says how unsure a map is of every atom, and in what its surroundings differ from others."""

    def look(self, state: PhaseState) -> tuple[Tensor, Tensor]:
        """Uncertainty u of every atom (systems, atoms), 1 at the edge of training, and inputs (systems, atoms, D)."""
        ...


class FarFromTraining:
    """u is the Mahalanobis distance of an atom's surroundings from those of training, the length of the inputs."""

    def __init__(self, uncertainty: Uncertainty) -> None:
        """Look through the network of a trained map."""
        self.uncertainty = uncertainty

    @torch.no_grad()
    def look(self, state: PhaseState) -> tuple[Tensor, Tensor]:
        """Distances and whitened inputs; all systems of the state have as many atoms."""
        x = self.uncertainty.network.features_and_vectors(state)[0]
        y = self.uncertainty.whitened(x, state.numbers).view(state.n_systems, -1, x.shape[1])
        return y.norm(dim=2), y


class Disagreement:
    """u is the spread of a committee's forces on an atom, over the largest on the validation set.

    Inputs, by which states are told apart, are those of the first member.
    """

    def __init__(self, committee: Committee, edge: float, uncertainty: Uncertainty) -> None:
        """`edge` is the spread, eV/Å, that counts as one."""
        self.committee, self.edge, self.inputs = committee, edge, FarFromTraining(uncertainty)

    @torch.no_grad()
    def look(self, state: PhaseState) -> tuple[Tensor, Tensor]:
        """Spreads over the edge, and whitened inputs; all systems of the state have as many atoms."""
        spread = self.committee.spread(state).view(state.n_systems, -1)
        return spread / self.edge, self.inputs.look(state)[1]


def criterion_of(model: Any) -> Criterion:
    """What a trained map knows of its training: the spread of its committee where it is one, or a distance."""
    uncertainty = Uncertainty.of(model)
    if uncertainty is None:
        raise InvalidInput("this map does not know how far from its training a state is: train it with this package")
    edge = model.report.get("spread")
    return FarFromTraining(uncertainty) if edge is None else Disagreement(model.potential, edge, uncertainty)


@torch.no_grad()
def largest_spread(
    committee: Committee, data: Dataset, *, frames: int = 200, device: torch.device | str = "cpu"
) -> float:
    """The largest spread of forces on any atom over frames spread evenly over a set, eV/Å."""
    indices, found = data.even(frames), 0.0
    for k in range(0, len(indices), 16):
        found = max(found, float(committee.spread(data.windows(indices[k : k + 16], device=device).frames[0]).max()))
    return found
