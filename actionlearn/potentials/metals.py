"""Metals and their alloys: tight binding in the second-moment approximation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from actionlearn.errors import UnsupportedSystem
from actionlearn.potentials.pairs import SpeciesPairs, SpeciesPairTable, arithmetic_mean
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
        self, species: Sequence[str] = ("Cu", "Au"), cutoff: tuple[float, float] = (2.28, 2.44), skin: float = 0.7
    ) -> None:
        """Parameters for the `species`; `cutoff` in units of r₀, `skin` of the neighbour list in Å."""
        for symbol in species:
            if symbol not in PARAMETERS:
                raise UnsupportedSystem(f"no second-moment parameters for {symbol!r}: choose from {list(PARAMETERS)}")
        self.species = tuple(species)
        self.cutoff = cutoff
        A, xi, p, q, r0 = torch.tensor([PARAMETERS[symbol] for symbol in species], dtype=torch.float64).T
        log_A, log_xi, p, q, r0 = (arithmetic_mean(x) for x in (A.log(), xi.log(), p, q, r0))
        # A·exp(−p(r/r₀ − 1)) = exp((ln A + p) − (p/r₀)·r), and ξ·exp(−q(r/r₀ − 1)) alike
        parameters = torch.stack((log_A + p, log_xi + q, p / r0, q / r0))
        self._table = SpeciesPairTable(species, parameters, cutoff[0] * r0, cutoff[1] * r0, skin)

    def energy(self, state: PhaseState) -> Tensor:
        """Potential energy per system, (systems,), eV."""
        pairs = self._table(state)
        r = pairs.vectors(state.positions).norm(dim=1)
        s, _ = pairs.switch(r)
        offset, decay = pairs.parameters[:2], pairs.parameters[2:]
        phi, beta = torch.exp(offset - decay * r) * s
        density, floor = _density(beta, pairs, state)
        band = state.sum_by_system(floor**0.5 - density.sqrt())
        return pairs.sum_by_system(2.0 * phi, state) + band

    def forces(self, state: PhaseState) -> Tensor:
        """−∂E/∂q, (atoms, 3), eV/Å."""
        pairs = self._table(state)
        D = pairs.vectors(state.positions)
        r = D.norm(dim=1)
        s, ds = pairs.switch(r)
        offset, decay = pairs.parameters[:2], pairs.parameters[2:]
        w = torch.exp(offset - decay * r)
        beta = w[1] * s
        dphi, dbeta = w * (ds - decay * s)
        density, _ = _density(beta, pairs, state)
        u = density.rsqrt()
        dE_dr = 2.0 * dphi - (u.index_select(0, pairs.centre) + u.index_select(0, pairs.other)) * (beta * dbeta)
        return pairs.forces(dE_dr / r, D, state)


def _density(beta: Tensor, pairs: SpeciesPairs, state: PhaseState) -> tuple[Tensor, float]:
    """ρ of every atom plus a floor, too small to be seen, that keeps the derivatives of √ρ finite at ρ = 0."""
    floor = math.sqrt(math.sqrt(torch.finfo(beta.dtype).tiny))
    square = beta * beta
    density = beta.new_full((state.n_atoms,), floor).index_add(0, pairs.centre, square)
    return density.index_add(0, pairs.other, square), floor
