"""Neighbours of atoms as tensors, and the function that ends at the cutoff."""

from __future__ import annotations

import torch
from torch import Tensor

from actionlearn.neighbours import Edges

#: The different components of a symmetric matrix, xx, xy, xz, yy, yz, zz, and which of them each of the nine is.
SIX = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
FIRST, SECOND = [a for a, _ in SIX], [b for _, b in SIX]
NINE_OF_SIX = [SIX.index((min(a, b), max(a, b))) for a in range(3) for b in range(3)]


Kept = dict[int, tuple[tuple[object, ...], tuple[Tensor, ...]]]


class Neighbourhood:
    """Neighbours as a rectangle, atoms × most neighbours, so that sums over neighbours are matrix products.

    Empty places point from an atom to itself with an offset beyond the cutoff, where every radial function is zero.
    """

    def __init__(self, edges: Edges, cutoff: float, index: Tensor, identity: Tensor, kept: Kept | None = None) -> None:
        """Lay out edges that are sorted by their centre; `index` is the species of every atom.

        What a network keeps about the species alone, in `kept`, outlives the edges.
        """
        self.index, self.one_hot = index, identity[index]
        self.kept: Kept = {} if kept is None else kept
        n_atoms = index.shape[0]
        count = torch.bincount(edges.centre, minlength=n_atoms)
        most = max(int(count.max()), 1)
        first = torch.cumsum(count, 0) - count
        slot = torch.arange(len(edges), device=count.device) - first[edges.centre]
        own = torch.arange(n_atoms, device=count.device)
        self.other = own.unsqueeze(1).repeat(1, most)
        self.offsets = edges.offsets.new_zeros(n_atoms, most, 3)
        self.offsets[..., 0] = 2.0 * cutoff
        self.other[edges.centre, slot] = edges.other
        self.offsets[edges.centre, slot] = edges.offsets
        self.offsets = self.offsets.transpose(1, 2).contiguous()
        self.species = self.one_hot[self.other].transpose(1, 2).unsqueeze(2).contiguous()
        self.ones = self.offsets.new_ones(n_atoms, 1, most)
        self.flat = self.other.view(-1)
        # where x, y, z of every neighbour stand among all coordinates
        self.places = 3 * self.other.unsqueeze(1) + torch.arange(3, device=count.device).unsqueeze(1)
        self.first, self.second, self.nine = (
            torch.tensor(p, device=count.device) for p in (FIRST, SECOND, NINE_OF_SIX)
        )
        self.copies = self.offsets.new_tensor([1.0] * 4 + [1.0 if a == b else 2.0 for a, b in SIX]).unsqueeze(1)

    def gather(self, values: Tensor) -> Tensor:
        """A quantity of every neighbour, (atoms, components, neighbours), from one of every atom."""
        n, k = self.other.shape
        return values.index_select(0, self.flat).view(n, k, -1).transpose(1, 2)

    def scatter(self, values: Tensor) -> Tensor:
        """What `gather` does, transposed: a sum over every atom's appearances as a neighbour, (atoms, components)."""
        n, k = self.other.shape
        rows = values.transpose(1, 2).reshape(n * k, -1)
        return rows.new_zeros(n, rows.shape[1]).index_add(0, self.flat, rows)

    def differences(self, values: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Neighbour's value minus one's own of a vector, (atoms, 3, neighbours)."""
        there = torch.take(values, self.places)
        if offsets is not None:
            there = there + offsets
        return there - values.unsqueeze(2)

    def count_within(self, positions: Tensor, cutoff: float) -> Tensor:
        """Neighbours of each atom that are closer than the cutoff."""
        return (self.differences(positions, self.offsets).square().sum(1) < cutoff**2).sum(1)


def smooth_step(x: Tensor) -> Tensor:
    """1 at x = 0, 0 from x = 1 on, three continuous derivatives there: (1 − x²)⁴."""
    return (1.0 - x * x).clamp_min(0.0) ** 4
