"""A network that is the base potential's stand-in, and velocity Verlet on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from actionlearn.maps.discrete import DiscreteAction
from actionlearn.maps.guard import Masses
from actionlearn.networks import AtomicNetwork
from actionlearn.state import PhaseState


class NetworkPotential(nn.Module):
    """The first head of a network and a constant for every element, V = E_0 + Σ_i c(Z_i).

    | symbol | variable    | shape      | unit |
    |--------|-------------|------------|------|
    | E_0    | `network`   | (systems,) | eV   |
    | c      | `constants` | (species,) | eV   |

    Forces do not know the constants; `fit_constants` takes them from energies.
    """

    constants: Tensor

    def __init__(self, network: AtomicNetwork) -> None:
        """All constants start at zero."""
        super().__init__()
        self.network = network
        self.species = network.species
        self.register_buffer("constants", next(network.parameters()).new_zeros(len(network.species)))

    def energy(self, state: PhaseState) -> Tensor:
        """Potential energy, one number per system, eV."""
        index = self.network.table[state.numbers]
        return self.network.energy(state) + state.sum_by_system(self.constants[index])

    def forces(self, state: PhaseState) -> Tensor:
        """−∂V/∂q, (atoms, 3), eV/Å."""
        return self.network.forces(state)

    @property
    def members(self) -> tuple[NetworkPotential, ...]:
        """Itself alone: what a committee has several of."""
        return (self,)

    @torch.no_grad()
    def fit_constants(self, states: Sequence[PhaseState], energies: Sequence[Tensor]) -> None:
        """The constants of least squares, and among those the smallest: one composition fixes only their sum."""
        counts, misses = [], []
        for state, energy in zip(states, energies, strict=True):
            one_hot = nn.functional.one_hot(self.network.table[state.numbers], len(self.species))
            counts.append(state.sum_by_system(one_hot.to(energy)))
            misses.append(energy - self.network.energy(state))
        A, b = torch.cat(counts), torch.cat(misses)
        self.constants.copy_(torch.linalg.lstsq(A.cpu(), b.cpu().unsqueeze(1), driver="gelsd").solution.squeeze(1))


class MatchedVerlet(DiscreteAction):
    """Velocity Verlet on a network's potential: one kick potential U_0 = V/2, nothing else is learned.

    Its step is no part of what was learned. Symplectic, reversible, second order in the step.
    """

    kind = "potential"

    def __init__(
        self, potential: Any, *, step_fs: float, species: Sequence[int] = (), masses: Masses | None = None
    ) -> None:
        """Half a kick, a drift and half a kick on a `NetworkPotential` or a `Committee`."""
        super().__init__(_Half(potential), step_fs=step_fs, stages=1, species=species, masses=masses)
        self.potential = potential


class _Half(nn.Module):
    """Half a potential."""

    def __init__(self, potential: Any) -> None:
        super().__init__()
        self.whole = potential

    def energy(self, state: PhaseState) -> Tensor:
        energy: Tensor = self.whole.energy(state)
        return 0.5 * energy

    def forces(self, state: PhaseState) -> Tensor:
        forces: Tensor = self.whole.forces(state)
        return 0.5 * forces
