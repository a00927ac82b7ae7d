"""Neighbours of atoms as tensors, and the function that ends at the cutoff."""

from __future__ import annotations

import torch
from torch import Tensor

from actionlearn.neighbours import Edges


class Neighbourhood:
    """Neighbours as a rectangle, atoms × most neighbours, so that sums over neighbours are matrix products.

    Empty places point from an atom to itself with an offset beyond the cutoff, where every radial function is zero.
    """

    def __init__(self, edges: Edges, cutoff: float, index: Tensor, identity: Tensor) -> None:
        """Lay out edges that are sorted by their centre; `index` is the species of every atom."""
        self.index, self.one_hot = index, identity[index]
        self.kept: dict[tuple[int, int, torch.dtype], tuple[Tensor, ...]] = {}
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
        self.species = self.one_hot[self.other].transpose(1, 2).contiguous()
        self.ones = self.offsets.new_ones(n_atoms, 1, most)

    def gather(self, values: Tensor) -> Tensor:
        """A quantity of every neighbour, (atoms, components, neighbours), from one of every atom."""
        n, k = self.other.shape
        return values.index_select(0, self.other.view(-1)).view(n, k, -1).transpose(1, 2)

    def differences(self, values: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Neighbour's value minus one's own, (atoms, components, neighbours)."""
        there = self.gather(values)
        if offsets is not None:
            there = there + offsets
        return there - values.unsqueeze(2)

    def count_within(self, positions: Tensor, cutoff: float) -> Tensor:
        """Neighbours of each atom that are closer than the cutoff."""
        return (self.differences(positions, self.offsets).square().sum(1) < cutoff**2).sum(1)


def smooth_step(x: Tensor) -> Tensor:
    """1 at x = 0, 0 from x = 1 on, three continuous derivatives there: (1 − x²)⁴."""
    return (1.0 - x * x).clamp_min(0.0) ** 4
