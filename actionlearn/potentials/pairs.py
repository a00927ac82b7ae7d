"""Pairs of a state with parameters that depend on the two species, kept as long as the neighbour list holds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.neighbours import Edges, NeighbourList
from actionlearn.state import PhaseState


def arithmetic_mean(values: Tensor) -> Tensor:
    """(a_k + a_l)/2 for all pairs of species; of logarithms, the logarithms of geometric means."""
    return 0.5 * (values.unsqueeze(0) + values.unsqueeze(1))


class SpeciesPairs:
    """The pairs i < j of one state within reach, their parameters, and a switch that ends the interaction.

    With t = (outer − r)/(outer − inner) clamped to [0, 1], s = t³(10 − 15t + 6t²) has two continuous derivatives.
    """

    def __init__(self, edges: Edges, parameters: Tensor, inner: Tensor, outer: Tensor) -> None:
        """Keep the `edges` and, for each, a column of `parameters` and the interval of its switch."""
        self.centre = edges.centre
        self.other = edges.other
        self.parameters = parameters
        self._edges = edges
        self._slope = 1.0 / (outer - inner)
        self._start = outer * self._slope

    def vectors(self, positions: Tensor) -> Tensor:
        """D = q_j − q_i + S·cell, (pairs, dims)."""
        return self._edges.vectors(positions)

    def switch(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """The smooth cutoff s(r) and its derivative ds/dr."""
        t = (self._start - self._slope * r).clamp(0.0, 1.0)
        square = t * t
        return square * t * (10.0 + t * (6.0 * t - 15.0)), (-30.0 * self._slope) * (t - square) ** 2

    def sum_by_system(self, values: Tensor, state: PhaseState) -> Tensor:
        """Sum a quantity per pair to one per system."""
        if state.n_systems == 1:
            return values.sum(0, keepdim=True)
        return values.new_zeros(state.n_systems).index_add(0, state.system[self.centre], values)

    def forces(self, dE_dr_over_r: Tensor, D: Tensor, state: PhaseState) -> Tensor:
        """Forces on the atoms, the pair energies falling along D."""
        pull = dE_dr_over_r.unsqueeze(1) * D
        forces = torch.zeros_like(state.positions).index_add(0, self.centre, pull)
        return forces.index_add(0, self.other, -pull)  # index_add with alpha=-1 is several times slower


class SpeciesPairTable:
    """Finds the pairs of a state, each once, and looks their parameters up.

    | argument     | shape                       | unit |
    |--------------|-----------------------------|------|
    | `species`    | (species,) symbols          |      |
    | `parameters` | (any, species, species)     |      |
    | `inner`      | (species, species), s < 1 from here | Å |
    | `outer`      | (species, species), s = 0 from here | Å |
    """

    def __init__(
        self, species: Sequence[str], parameters: Tensor, inner: Tensor, outer: Tensor, skin: float = 0.5
    ) -> None:
        """Tables by species; `skin` of the neighbour list in Å."""
        if not bool(((inner > 0) & (inner < outer) & torch.isfinite(outer)).all()):
            raise InvalidInput(
                f"the switch must begin above zero and end further out, got {inner.flatten().tolist()} to "
                f"{outer.flatten().tolist()} Å: give cutoff=(start, end) with 0 < start < end"
            )
        self.species = tuple(species)
        self._tables = torch.cat((parameters, inner.unsqueeze(0), outer.unsqueeze(0)))
        self._kind = torch.full((len(chemical_symbols),), -1, dtype=torch.int64)
        self._kind[[atomic_numbers[symbol] for symbol in self.species]] = torch.arange(len(self.species))
        self._neighbours = NeighbourList(float(outer.max()), skin, half=True)
        self._found: Edges | None = None
        self._numbers = torch.empty(0, dtype=torch.int64)
        self._pairs: SpeciesPairs | None = None

    def __call__(self, state: PhaseState) -> SpeciesPairs:
        """The pairs of this state."""
        edges = self._neighbours(state)
        if self._pairs is None or edges is not self._found or not torch.equal(self._numbers, state.numbers):
            self._pairs = self._look_up(edges, state)
            self._found, self._numbers = edges, state.numbers.clone()
        return self._pairs

    def _look_up(self, edges: Edges, state: PhaseState) -> SpeciesPairs:
        kind = self._kind.to(state.numbers.device)[state.numbers]
        if bool((kind < 0).any()):
            strangers = sorted({chemical_symbols[z] for z in state.numbers[kind < 0].tolist()})
            raise UnsupportedSystem(
                f"this potential was made for {list(self.species)}, the system also contains {strangers}: "
                "make one that has parameters for every species"
            )
        tables = self._tables.to(state.positions)
        tables = tables.reshape(len(tables), -1)
        pair = kind[edges.centre] * len(self.species) + kind[edges.other]
        outer = tables[-1][pair]
        reached = edges.vectors(state.positions.detach()).norm(dim=1) <= outer + self._neighbours.skin
        near = Edges(*(part[reached] for part in (edges.centre, edges.other, edges.shifts, edges.offsets)))
        columns = tables.index_select(1, pair[reached])
        return SpeciesPairs(near, columns[:-2], columns[-2].contiguous(), columns[-1].contiguous())
