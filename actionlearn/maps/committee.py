"""Several networks matched to the same forces: their mean is a potential, their spread says where it is a guess."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from actionlearn.errors import InvalidInput
from actionlearn.maps.matched import NetworkPotential
from actionlearn.state import PhaseState


class Committee(nn.Module):
    """The mean of M potentials that differ by what was random in their training.

        V = ⟨V_m⟩,      F_i = ⟨F_im⟩,      σ_i² = Σ_m |F_im − F_i|² / (M − 1)

    | symbol | variable               | shape            | unit |
    |--------|------------------------|------------------|------|
    | F_m    | `member_forces(state)` | (M, atoms, dims) | eV/Å |
    | σ      | `spread(state)`        | (atoms,)         | eV/Å |

    Networks of one cutoff search neighbours once, for all; a force of the committee is then M gradients.
    """

    def __init__(self, members: Sequence[NetworkPotential]) -> None:
        """Two or more, of the same species."""
        super().__init__()
        if len(members) < 2:
            raise InvalidInput(f"a committee of {len(members)} has no spread: give two members or more")
        first = members[0]
        for other in members[1:]:
            if other.species != first.species:
                raise InvalidInput(
                    f"members of a committee know the same elements, these {list(first.species)} and "
                    f"{list(other.species)}: train them on the same data"
                )
            mine, theirs = first.network.neighbours, other.network.neighbours
            if (mine.cutoff, mine.skin) == (theirs.cutoff, theirs.skin):
                other.network.neighbours = mine
        self.all = nn.ModuleList(members)
        self.species = first.species

    @property
    def members(self) -> tuple[NetworkPotential, ...]:
        """The single potentials."""
        return tuple(self.all)  # type: ignore[arg-type]

    def energy(self, state: PhaseState) -> Tensor:
        """The mean, one number per system, eV."""
        return torch.stack([one.energy(state) for one in self.members]).mean(0)

    def forces(self, state: PhaseState) -> Tensor:
        """The mean, (atoms, 3), eV/Å."""
        return self.member_forces(state).mean(0)

    def member_forces(self, state: PhaseState) -> Tensor:
        """The forces of every member, (M, atoms, 3), eV/Å."""
        return torch.stack([one.forces(state) for one in self.members])

    def spread(self, state: PhaseState) -> Tensor:
        """How far the members are apart about the force on each atom, (atoms,), eV/Å."""
        F = self.member_forces(state)
        return ((F - F.mean(0)).square().sum((0, 2)) / (len(F) - 1)).sqrt()

    def fit_constants(self, states: Sequence[PhaseState], energies: Sequence[Tensor]) -> None:
        """Each member's constants of the elements, by least squares."""
        for one in self.members:
            one.fit_constants(states, energies)
