"""What every network of atoms' energies has: sums over atoms, heads, neighbours, species."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.memory import keep_freed_memory
from actionlearn.neighbours import Edges, NeighbourList
from actionlearn.networks.neighbourhood import Neighbourhood
from actionlearn.potentials.protocol import forces_from_energy
from actionlearn.state import PhaseState


class AtomicNetwork(nn.Module):
    """Energies that are sums over atoms, E_h = Σ_i E_ih: one for each of several heads that share all but a last layer.

    An architecture adds `atom_energies`, `features_and_vectors` and `calibrate`, and a `readout` whose weights start
    at zero: an untrained network is the zero potential and a map made of it free flight.
    """

    table: Tensor
    identity: Tensor
    hidden_in: nn.Linear
    hidden_out: nn.Linear
    readout: nn.Linear
    n_features: int  # of features_and_vectors
    n_vectors: int

    def __init__(
        self, species: Sequence[int], *, cutoff: float, heads: int, momenta: bool, skin: float, dtype: torch.dtype
    ) -> None:
        """Know the atomic numbers `species` and find neighbours within the cutoff."""
        super().__init__()
        keep_freed_memory()
        if not species or len(set(species)) != len(species):
            raise InvalidInput(f"species must be distinct atomic numbers, at least one, got {list(species)}")
        self.species = tuple(int(z) for z in species)
        self.options: dict[str, Any] = {}
        self.cutoff, self.heads, self.momenta = cutoff, heads, momenta
        self.neighbours = NeighbourList(cutoff, skin)
        self._padded: tuple[Edges, Tensor, Neighbourhood] | None = None
        table = torch.full((119,), -1, dtype=torch.int64)
        table[list(self.species)] = torch.arange(len(species))
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("identity", torch.eye(len(species), dtype=dtype), persistent=False)

    # --- what an architecture says ----------------------------------------------------------------

    def atom_energies(self, state: PhaseState) -> Tensor:
        """Each atom's share of the energies, (atoms, heads), eV."""
        raise NotImplementedError

    def features_and_vectors(self, state: PhaseState) -> tuple[Tensor, Tensor]:
        """Invariants of every atom (atoms, features) and equivariant vectors (atoms, vectors, 3)."""
        raise NotImplementedError

    def calibrate(self, states: Sequence[PhaseState]) -> Self:
        """Set the fixed scales of the features from these states."""
        raise NotImplementedError

    def forces_of(self, head: Head, state: PhaseState) -> Tensor:
        """−∂E/∂q of a combination of heads; by reverse mode, where an architecture has nothing cheaper."""
        return forces_from_energy(head.energy, state)

    # --- what follows -----------------------------------------------------------------------------

    def energy(self, state: PhaseState) -> Tensor:
        """The first head's energy, one number per system, eV."""
        return self.energies(state)[:, 0]

    def forces(self, state: PhaseState) -> Tensor:
        """−∂E/∂q of the first head, (atoms, 3), eV/Å."""
        return self.head(1.0, *[0.0] * (self.heads - 1)).forces(state)

    def energies(self, state: PhaseState) -> Tensor:
        """All heads, (systems, heads), eV."""
        return state.sum_by_system(self.atom_energies(state))

    def head(self, *coefficients: float) -> Head:
        """A potential that is this linear combination of the heads."""
        return Head(self, coefficients)

    def randomise(self, scale: float = 1.0, seed: int = 0) -> Self:
        """Give the last layer random weights, so that the potential is smooth noise of about `scale` eV per atom."""
        generator = torch.Generator().manual_seed(seed)
        weight = self.readout.weight
        with torch.no_grad():
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight.copy_(noise * scale / math.sqrt(weight.shape[1]))
        return self

    # --- neighbours and species -------------------------------------------------------------------

    @torch.inference_mode(False)
    def _neighbourhood(self, state: PhaseState) -> Neighbourhood:
        if state.positions.dtype != self.identity.dtype:
            raise UnsupportedSystem(
                f"the state is {state.positions.dtype}, the network {self.identity.dtype}: convert one of them, "
                "state.to(dtype) or model.to(dtype)"
            )
        edges, index, kept = self.neighbours(state), None, None
        if self._padded is not None:
            known, numbers, around = self._padded
            if numbers is state.numbers or torch.equal(numbers, state.numbers):
                if known is edges:
                    return around
                index, kept = around.index, around.kept
        if index is None:
            index = self._index(state.numbers)
        around = Neighbourhood(edges, self.cutoff, index, self.identity, kept)
        self._padded = (edges, state.numbers, around)
        return around

    def _index(self, numbers: Tensor) -> Tensor:
        index = self.table[numbers]
        if (index < 0).any():
            unknown = sorted(set(numbers[index < 0].tolist()))
            raise UnsupportedSystem(
                f"atomic numbers {unknown} are unknown to this network, it was made for {list(self.species)}: "
                "use another model, or train one with these species"
            )
        return index


class Head(nn.Module):
    """A fixed linear combination of a network's heads as a potential of its own; the network is shared."""

    def __init__(self, network: AtomicNetwork, coefficients: Sequence[float]) -> None:
        """Use head h with weight `coefficients[h]`."""
        super().__init__()
        if len(coefficients) != network.heads:
            raise InvalidInput(
                f"{len(coefficients)} coefficients for a network of {network.heads} heads: give one each"
            )
        self.network = network
        self.coefficients = tuple(float(c) for c in coefficients)

    def energy(self, state: PhaseState) -> Tensor:
        """Σ_h c_h E_h, one number per system, eV."""
        energies = self.network.energies(state)
        return (energies * energies.new_tensor(self.coefficients)).sum(1)

    def forces(self, state: PhaseState) -> Tensor:
        """−∂E/∂q, (atoms, 3), eV/Å."""
        return self.network.forces_of(self, state)
