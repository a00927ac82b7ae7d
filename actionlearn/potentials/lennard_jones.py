"""Lennard-Jones particles with a smooth end."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from ase.data import atomic_numbers
from torch import Tensor

from actionlearn.errors import InvalidInput
from actionlearn.potentials.pairs import SpeciesPairTable, arithmetic_mean
from actionlearn.state import PhaseState

#: ε (eV) and σ (Å) of the noble gases. N. Bernardes, Phys. Rev. 112, 1534 (1958).
NOBLE_GASES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"Ne": (0.0031, 2.74), "Ar": (0.0104, 3.40), "Kr": (0.0140, 3.65), "Xe": (0.0200, 3.98)}
)


class LennardJones:
    """Pair energy V(r) = 4ε[(σ/r)¹² − (σ/r)⁶]·s(r), in one, two or three dimensions.

    The switch s falls from one to zero with two continuous derivatives between `cutoff[0]`·σ and `cutoff[1]`·σ of
    the pair. Unlike pairs follow Lorentz (arithmetic mean of σ) and Berthelot (geometric mean of ε).

    | symbol | here            | unit |
    |--------|-----------------|------|
    | ε      | `parameters[symbol][0]` | eV |
    | σ      | `parameters[symbol][1]` | Å  |
    """

    def __init__(
        self,
        parameters: Mapping[str, tuple[float, float]] = NOBLE_GASES,
        cutoff: tuple[float, float] = (2.5, 3.0),
        skin: float = 0.5,
    ) -> None:
        """(ε, σ) by chemical symbol ("X" is atomic number 0); `cutoff` in units of σ, `skin` in Å."""
        for symbol, (well, size) in parameters.items():
            if symbol not in atomic_numbers or not (well > 0 and size > 0):
                raise InvalidInput(
                    f"Lennard-Jones parameters of {symbol!r} are {(well, size)}: "
                    "give a chemical symbol (or 'X') and a positive ε (eV) and σ (Å)"
                )
        epsilon, sigma = torch.tensor(list(parameters.values()), dtype=torch.float64).reshape(-1, 2).T
        pair_epsilon, pair_sigma = arithmetic_mean(epsilon.log()).exp(), arithmetic_mean(sigma)
        self._table = SpeciesPairTable(
            list(parameters),
            torch.stack((4.0 * pair_epsilon, pair_sigma**2)),
            cutoff[0] * pair_sigma,
            cutoff[1] * pair_sigma,
            skin,
        )

    def energy(self, state: PhaseState) -> Tensor:
        """Potential energy per system, (systems,), eV."""
        pairs = self._table(state)
        r = pairs.vectors(state.positions).norm(dim=1)
        four_epsilon, sigma2 = pairs.parameters
        x6 = (sigma2 / (r * r)) ** 3
        s, _ = pairs.switch(r)
        return pairs.sum_by_system(four_epsilon * x6 * (x6 - 1.0) * s, state)

    def forces(self, state: PhaseState) -> Tensor:
        """−∂V/∂q, (atoms, dims), eV/Å."""
        pairs = self._table(state)
        D = pairs.vectors(state.positions)
        r = D.norm(dim=1)
        four_epsilon, sigma2 = pairs.parameters
        x6 = (sigma2 / (r * r)) ** 3
        s, ds = pairs.switch(r)
        dV_dr = four_epsilon * x6 * ((x6 - 1.0) * ds - (12.0 * x6 - 6.0) / r * s)
        return pairs.forces(dV_dr / r, D, state)
