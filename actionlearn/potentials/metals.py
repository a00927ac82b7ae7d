"""Metals and their alloys: tight binding in the second-moment approximation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from actionlearn.errors import UnsupportedSystem
from actionlearn.neighbours import Edges, NeighbourList
from actionlearn.potentials.switching import check_interval, smoothstep
from actionlearn.state import PhaseState

#: A (eV), ξ (eV), p, q, r₀ (Å) of the pure metals.
PARAMETERS: dict[str, tuple[float, float, float, float, float]] = {
    "Ni": (0.0376, 1.070, 16.999, 1.189, 2.491),
    "Cu": (0.0855, 1.224, 10.960, 2.278, 2.556),
    "Pd": (0.1746, 1.718, 10.867, 3.742, 2.749),
    "Ag": (0.1028, 1.178, 10.928, 3.139, 2.889),
    "Pt": (0.2975, 2.695, 10.612, 4.004, 2.775),
    "Au": (0.2061, 1.790, 10.229, 4.036, 2.884),
    "Al": (0.1221, 1.316, 8.612, 2.516, 2.864),
}


class SecondMomentMetals:
    """Second-moment tight binding: pair repulsion and a band energy that grows with the root of the density.

        E   = Σ_i [ Σ_j φ(r_ij) − sqrt(ρ_i) ],      ρ_i = Σ_j β(r_ij)²
        φ   = A·exp(−p(r/r₀ − 1))·s(r)
        β   = ξ·exp(−q(r/r₀ − 1))·s(r)
        F_j = −Σ_i [ 2φ' − (1/√ρ_i + 1/√ρ_j)·β·β' ]·D_ij/r_ij,      D_ij = q_j − q_i

    Unlike pairs take geometric means of A and ξ, arithmetic means of p, q and r₀. The switch s falls from one to
    zero with two continuous derivatives between `cutoff[0]`·r₀ and `cutoff[1]`·r₀ of the pair. It multiplies the
    hopping β instead of β², so that the energy stays twice differentiable when the last neighbour of an atom
    leaves: √ρ is then |β|. By default it acts between the fifth and the sixth shell of the face-centred lattice.

    | symbol    | here       | shape       | unit |
    |-----------|------------|-------------|------|
    | r         | `r`        | (pairs,)    | Å    |
    | φ, β      | rows of `w * s` | (2, pairs) | eV |
    | p/r₀, q/r₀ | `decay`   | (2, pairs)  | 1/Å  |
    | ρ         | `density`  | (atoms,)    | eV²  |

    Reference: F. Cleri and V. Rosato, Phys. Rev. B 48, 22 (1993), eqs. 3-6 and table II.
    """

    def __init__(
        self, species: Sequence[str] = ("Cu", "Au"), cutoff: tuple[float, float] = (2.28, 2.44), skin: float = 0.5
    ) -> None:
        """Parameters for the `species`; `cutoff` in units of r₀, `skin` of the neighbour list in Å."""
        for symbol in species:
            if symbol not in PARAMETERS:
                raise UnsupportedSystem(f"no second-moment parameters for {symbol!r}: choose from {list(PARAMETERS)}")
        check_interval(cutoff)
        self.species = tuple(species)
        self.cutoff = cutoff
        A, xi, p, q, r0 = torch.tensor([PARAMETERS[s] for s in self.species], dtype=torch.float64).T
        pair_r0 = _arithmetic(r0)
        inner, outer = cutoff[0] * pair_r0, cutoff[1] * pair_r0
        log_A, log_xi, p, q = _arithmetic(A.log()), _arithmetic(xi.log()), _arithmetic(p), _arithmetic(q)
        # A·exp(−p(r/r₀ − 1)) = exp((ln A + p) − (p/r₀)·r); the switch runs on t = (outer − r)/(outer − inner)
        self._table = torch.stack(
            (log_A + p, log_xi + q, p / pair_r0, q / pair_r0, outer / (outer - inner), 1.0 / (outer - inner), outer)
        )
        self._kind = torch.full((len(chemical_symbols),), -1, dtype=torch.int64)
        self._kind[[atomic_numbers[s] for s in self.species]] = torch.arange(len(self.species))
        self._neighbours = NeighbourList(float(outer.max()), skin, half=True)
        self._pairs: _Pairs | None = None

    def energy(self, state: PhaseState) -> Tensor:
        """Potential energy per system, (systems,), eV."""
        pairs = self._pairs_of(state)
        r = pairs.edges.vectors(state.positions).norm(dim=1)
        s, _ = pairs.switch(r)
        phi, beta = torch.exp(pairs.offset - pairs.decay * r) * s
        density, floor = _density(beta * beta, pairs.edges, state.n_atoms)
        band = state.sum_by_system(floor**0.5 - density.sqrt())
        repulsion = 2.0 * phi
        if state.n_systems == 1:
            return band + repulsion.sum()
        return band.index_add(0, state.system[pairs.edges.centre], repulsion)

    def forces(self, state: PhaseState) -> Tensor:
        """−∂E/∂q, (atoms, 3), eV/Å."""
        pairs = self._pairs_of(state)
        i, j = pairs.edges.centre, pairs.edges.other
        D = pairs.edges.vectors(state.positions)
        r = D.norm(dim=1)
        s, ds = pairs.switch(r)
        w = torch.exp(pairs.offset - pairs.decay * r)
        beta = w[1] * s
        dphi, dbeta = w * (ds - pairs.decay * s)
        density, _ = _density(beta * beta, pairs.edges, state.n_atoms)
        u = density.rsqrt()
        dE_dr = 2.0 * dphi - (u.index_select(0, i) + u.index_select(0, j)) * (beta * dbeta)
        pull = (dE_dr / r).unsqueeze(1) * D
        return torch.zeros_like(state.positions).index_add(0, i, pull).index_add(0, j, pull, alpha=-1)

    def _pairs_of(self, state: PhaseState) -> _Pairs:
        edges = self._neighbours(state)
        if self._pairs is None or not self._pairs.made_for(edges, state):
            self._pairs = self._make_pairs(edges, state)
        return self._pairs

    def _make_pairs(self, edges: Edges, state: PhaseState) -> _Pairs:
        kind = self._kind.to(state.numbers.device)[state.numbers]
        if bool((kind < 0).any()):
            strangers = sorted({chemical_symbols[z] for z in state.numbers[kind < 0].tolist()})
            raise UnsupportedSystem(
                f"this potential has parameters for {list(self.species)}, the system also contains {strangers}: "
                f"construct it with species chosen from {list(PARAMETERS)}"
            )
        table = self._table.to(state.positions)
        outer = table[-1][kind[edges.centre], kind[edges.other]]
        reached = edges.vectors(state.positions.detach()).norm(dim=1) <= outer + self._neighbours.skin
        near = Edges(*(part[reached] for part in (edges.centre, edges.other, edges.shifts, edges.offsets)))
        return _Pairs(edges, state.numbers, near, table[:, kind[near.centre], kind[near.other]])


class _Pairs:
    """The pairs within reach of a neighbour list, and the numbers that depend on their species alone."""

    def __init__(self, found: Edges, numbers: Tensor, near: Edges, table: Tensor) -> None:
        self.found = found
        self.numbers = numbers
        self.edges = near
        self.offset = table[0:2].contiguous()
        self.decay = table[2:4].contiguous()
        self.switch_offset = table[4].contiguous()
        self.switch_slope = table[5].contiguous()

    def made_for(self, edges: Edges, state: PhaseState) -> bool:
        """Whether these are still the pairs of that list and those species."""
        return edges is self.found and (state.numbers is self.numbers or torch.equal(state.numbers, self.numbers))

    def switch(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """The smooth cutoff s(r) and its derivative ds/dr."""
        s, ds_dt = smoothstep((self.switch_offset - self.switch_slope * r).clamp(0.0, 1.0))
        return s, -self.switch_slope * ds_dt


def _density(hopping: Tensor, edges: Edges, n_atoms: int) -> tuple[Tensor, float]:
    """ρ of every atom plus a floor, too small to be seen, that keeps the derivatives of √ρ finite at ρ = 0."""
    floor = math.sqrt(math.sqrt(torch.finfo(hopping.dtype).tiny))
    density = torch.full((n_atoms,), floor, dtype=hopping.dtype, device=hopping.device)
    return density.index_add(0, edges.centre, hopping).index_add(0, edges.other, hopping), floor


def _arithmetic(values: Tensor) -> Tensor:
    """Pairwise arithmetic means; of logarithms, the logarithms of geometric ones."""
    return 0.5 * (values.unsqueeze(0) + values.unsqueeze(1))
