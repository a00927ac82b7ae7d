"""The electric dipole of a neutral system from charges and vectors of its atoms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from actionlearn.errors import UnsupportedSystem
from actionlearn.networks import make_network
from actionlearn.state import PhaseState


class DipoleModel(nn.Module):
    """μ = Σ_i (q_i r_i + d_i), with charges that sum to zero and atomic dipoles, both functions of the surroundings.

        (c_i, g_i) = MLP(x_i),      q_i = c_i − ⟨c⟩,      d_i = Σ_k g_ik v_ik

    | symbol | variable  | shape              | unit |
    |--------|-----------|--------------------|------|
    | x, v   |           | of the network: invariants of each atom's surroundings, and equivariant vectors |  |
    | q      | `charges` | (atoms,)           | e    |
    | d      | `atomic`  | (atoms, 3)         | e·Å  |
    | μ      |           | (systems, 3)       | e·Å  |

    ⟨c⟩ is the mean over the atoms of a system. μ turns with the system, changes sign under inversion, and does not
    notice a translation, all exactly. A dipole of periodic systems is no function of the positions in a cell, so these
    are refused, as are charged ones in training, by their error. Untrained, it is zero.
    """

    scale: Tensor

    def __init__(
        self,
        species: Sequence[int],
        *,
        network: Mapping[str, Any] | None = None,
        hidden: int = 64,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """`network` are the options of a network of these species; of its own readout nothing is used."""
        super().__init__()
        self.options: dict[str, Any] = {"network": dict(network or {}), "hidden": hidden}
        self.network = make_network(
            species, {**self.options["network"], "hidden": 1}, heads=1, momenta=False, dtype=dtype
        )
        for unused in (self.network.readout, self.network.hidden_in, self.network.hidden_out):
            unused.requires_grad_(False)
        self.species = self.network.species
        features = self.network.n_features
        self.hidden_in = nn.Linear(features, hidden, dtype=dtype)
        self.hidden_out = nn.Linear(hidden, hidden, dtype=dtype)
        self.out = nn.Linear(hidden + features, 1 + self.network.n_vectors, bias=False, dtype=dtype)
        nn.init.zeros_(self.out.weight)
        self.register_buffer("scale", torch.ones(self.network.n_vectors, dtype=dtype))

    @torch.no_grad()
    def calibrate(self, states: Sequence[PhaseState]) -> DipoleModel:
        """Standardise features and vectors over these states."""
        self.network.calibrate(states)
        vectors = torch.cat([self.network.features_and_vectors(state)[1] for state in states])
        rms = vectors.square().mean((0, 2)).sqrt()
        self.scale.copy_(1.0 / rms.clamp_min(1e-4 * rms.max().clamp_min(1e-12)))
        return self

    def randomise(self, scale: float = 1.0, seed: int = 0) -> DipoleModel:
        """Random last weights, for tests of an untrained model."""
        generator = torch.Generator().manual_seed(seed)
        weight = self.out.weight
        with torch.no_grad():
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight.copy_(noise * scale / math.sqrt(weight.shape[1]))
        return self

    def forward(self, state: PhaseState) -> Tensor:
        """The dipole of every system, (systems, 3), e·Å."""
        charges, atomic = self.charges_and_dipoles(state)
        centre = state.sum_by_system(state.positions) / state.atoms_per_system.unsqueeze(1)
        about = state.positions - centre[state.system]  # as charges are neutral, the origin is free
        return state.sum_by_system(charges.unsqueeze(1) * about + atomic)

    def charges_and_dipoles(self, state: PhaseState) -> tuple[Tensor, Tensor]:
        """Charges (atoms,), e, that sum to zero in every system, and atomic dipoles (atoms, 3), e·Å."""
        if bool(state.pbc.any()):
            raise UnsupportedSystem(
                "a periodic system has no dipole that its positions fix: take molecules and clusters, pbc=False"
            )
        x, vectors = self.network.features_and_vectors(state)
        hidden = nn.functional.silu(self.hidden_in(x))
        hidden = nn.functional.silu(self.hidden_out(hidden))
        out = self.out(torch.cat([hidden, x], dim=1))
        c = out[:, 0]
        mean = state.sum_by_system(c) / state.atoms_per_system
        atomic = torch.bmm((out[:, 1:] * self.scale).unsqueeze(1), vectors).squeeze(1)
        return c - mean[state.system], atomic
