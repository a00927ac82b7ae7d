"""Which atoms form water molecules, and which of their periodic images are bound."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from actionlearn.errors import UnsupportedSystem
from actionlearn.neighbours import Edges, find_edges
from actionlearn.state import PhaseState

OXYGEN, HYDROGEN = 8, 1

LONGEST_BOND = 1.6
"""Å; a hydrogen further than this from every oxygen belongs to no molecule."""


@dataclasses.dataclass(frozen=True, eq=False)
class WaterMolecules:
    """The molecules of a state, in the order of their oxygens.

    | field       | meaning                                             | shape          | unit  |
    |-------------|-----------------------------------------------------|----------------|-------|
    | `oxygen`    | index of the oxygen                                 | (molecules,)   |       |
    | `hydrogens` | indices of its hydrogens                            | (molecules, 2) |       |
    | `offsets`   | S·cell that brings each hydrogen next to its oxygen | (molecules, 2, 3) | Å  |
    | `molecule`  | molecule of every atom                              | (atoms,)       |       |
    | `images`    | S of every atom relative to its oxygen              | (atoms, 3)     | cells |
    """

    oxygen: Tensor
    hydrogens: Tensor
    offsets: Tensor
    molecule: Tensor
    images: Tensor

    def bonds(self, positions: Tensor) -> Tensor:
        """Vectors from each oxygen to its two hydrogens, (molecules, 2, 3)."""
        return positions[self.hydrogens] + self.offsets - positions[self.oxygen].unsqueeze(1)

    def holds(self, edges: Edges) -> Tensor:
        """Whether each edge joins two atoms of one molecule, and not an atom and an image of its neighbour."""
        i, j = edges.centre, edges.other
        same_image = (edges.shifts == self.images[j] - self.images[i]).all(1)
        return (self.molecule[i] == self.molecule[j]) & same_image


def find_water(state: PhaseState) -> WaterMolecules:
    """Give every hydrogen to its nearest oxygen, across periodic boundaries too; any order of atoms will do."""
    numbers = state.numbers
    strangers = (numbers != OXYGEN) & (numbers != HYDROGEN)
    if state.positions.shape[1] != 3 or strangers.any():
        raise UnsupportedSystem(
            f"this potential is for water in three dimensions, the system has {state.positions.shape[1]} dimensions "
            f"and atomic numbers {sorted(set(numbers.tolist()))}: remove all but O and H"
        )
    edges = find_edges(state, LONGEST_BOND)
    candidate = (numbers[edges.centre] == HYDROGEN) & (numbers[edges.other] == OXYGEN)
    h, o = edges.centre[candidate], edges.other[candidate]
    distance = edges.vectors(state.positions.detach()).norm(dim=1)[candidate]
    # by hydrogen, nearest first; then the first of each
    by_distance = torch.argsort(distance)
    order = by_distance[torch.argsort(h[by_distance], stable=True)]
    h, o = h[order], o[order]
    first = torch.ones_like(h, dtype=torch.bool)
    first[1:] = h[1:] != h[:-1]
    h, o, order = h[first], o[first], order[first]
    _refuse_fragments(numbers, h, o)

    image = -edges.shifts[candidate][order]  # the edges lead from hydrogen to oxygen
    offset = -edges.offsets[candidate][order]
    pairs = torch.argsort(o, stable=True).reshape(-1, 2)
    oxygen = o[pairs[:, 0]]
    hydrogens = h[pairs]
    molecule = torch.empty_like(numbers)
    molecule[oxygen] = torch.arange(len(oxygen), device=numbers.device)
    molecule[hydrogens] = molecule[oxygen].unsqueeze(1)
    images = state.positions.new_zeros(state.n_atoms, 3)
    images[h] = image
    return WaterMolecules(oxygen, hydrogens, offset[pairs], molecule, images)


def _refuse_fragments(numbers: Tensor, h: Tensor, o: Tensor) -> None:
    """Raise unless every hydrogen has an oxygen and every oxygen two hydrogens."""
    bound = torch.bincount(h, minlength=len(numbers))
    loose = ((numbers == HYDROGEN) & (bound == 0)).nonzero().flatten().tolist()
    if loose:
        raise UnsupportedSystem(
            f"hydrogen {loose[0]} has no oxygen within {LONGEST_BOND} Å ({len(loose)} such atoms): every atom must "
            "belong to a water molecule; check the structure, or the step if it was simulated"
        )
    owned = torch.bincount(o, minlength=len(numbers))
    odd = ((numbers == OXYGEN) & (owned != 2)).nonzero().flatten().tolist()
    if odd:
        raise UnsupportedSystem(
            f"oxygen {odd[0]} is nearest to {int(owned[odd[0]])} hydrogens, a water molecule has 2 "
            f"({len(odd)} such atoms): ions and fragments are not supported, check the structure"
        )
