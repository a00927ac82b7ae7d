"""A continuous-filter network: messages between atoms, weighted by learned functions of their distance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from actionlearn.errors import InvalidInput
from actionlearn.networks.atomic import AtomicNetwork
from actionlearn.networks.neighbourhood import Neighbourhood, smooth_step
from actionlearn.state import PhaseState

GAUSSIANS_FROM = 0.5
"""Shortest distance at which a radial function is centred, Å."""


class SchNet(AtomicNetwork):
    """SchNet: every atom carries features, which its neighbours change through filters that are functions of distance.

    With r_ij the distance to neighbour j, G_k Gaussians, c(r) a cutoff function that vanishes with three derivatives,
    and dense layers D with a smooth nonlinearity between (silu, where the original has a shifted softplus):

        x_i⁰     = embedding of Z_i
        W^t(r)   = D D G(r) · c(r)                             filter of layer t
        m_i^t    = Σ_j W^t(r_ij) ∘ (D x_j^t)                   message, standardised once
        x_i^t+1  = x_i^t + D D m_i^t
        E_i      = MLP(x_i^T) + linear(x_i^T),     E = Σ_i E_i

    | symbol | variable   | shape                        | unit |
    |--------|------------|------------------------------|------|
    | r      | `r`        | (atoms, neighbours, 1)       | Å    |
    | G      | `waves`    | (atoms, neighbours, centres) |      |
    | W      | `filters`  | (atoms, neighbours, C)       |      |
    | x      | `x`        | (atoms, C)                   |      |
    | E      | `energies` | (systems, heads)             | eV   |

    Messages know distances only; angles enter through those of neighbours' neighbours, so it takes three layers or so,
    and reaches as many cutoffs. Invariant under translation, rotation, inversion and permutation of like atoms; smooth
    (C³) in the positions. Schütt and others, J. Chem. Phys. 148 (2018) 241722.
    """

    centres: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        species: Sequence[int],
        *,
        cutoff: float = 5.0,
        radial: int = 20,
        channels: int = 32,
        hidden: int = 64,
        layers: int = 3,
        heads: int = 1,
        momenta: bool = False,
        skin: float = 0.4,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """`channels` features an atom, `radial` Gaussians, `layers` rounds of messages."""
        super().__init__(species, cutoff=cutoff, heads=heads, momenta=momenta, skin=skin, dtype=dtype)
        if momenta:
            raise InvalidInput("a schnet sees no momenta, which midpoint and direct maps need: choose network moments")
        if layers < 1:
            raise InvalidInput(f"layers must be at least 1, got {layers}")
        self.options = {
            "cutoff": cutoff,
            "radial": radial,
            "channels": channels,
            "hidden": hidden,
            "layers": layers,
            "heads": heads,
            "skin": skin,
        }
        self.channels = C = channels
        self.register_buffer("centres", torch.linspace(GAUSSIANS_FROM, cutoff, radial, dtype=dtype), persistent=False)
        self.embedding = nn.Parameter(torch.randn(len(species), C, dtype=dtype))

        def dense(n_in: int, n_out: int, bias: bool = True) -> nn.Linear:
            layer = nn.Linear(n_in, n_out, bias=bias, dtype=dtype)
            nn.init.normal_(layer.weight, std=1.0 / math.sqrt(n_in))
            return layer

        self.filters_in = nn.ModuleList([dense(radial, C) for _ in range(layers)])
        self.filters_out = nn.ModuleList([dense(C, C) for _ in range(layers)])
        self.send = nn.ModuleList([dense(C, C, bias=False) for _ in range(layers)])
        self.update_in = nn.ModuleList([dense(C, C) for _ in range(layers)])
        self.update_out = nn.ModuleList([dense(C, C) for _ in range(layers)])
        self.register_buffer("shift", torch.zeros(layers, C, dtype=dtype))
        self.register_buffer("scale", torch.ones(layers, C, dtype=dtype))
        self.n_features = total = C + len(species)
        self.n_vectors = C
        self.hidden_in = dense(total, hidden)
        self.hidden_out = dense(hidden, hidden)
        self.readout = nn.Linear(hidden + total, heads, bias=False, dtype=dtype)
        nn.init.zeros_(self.readout.weight)

    @torch.no_grad()
    def calibrate(self, states: Sequence[PhaseState]) -> SchNet:
        """Set the fixed scales so that the messages of each layer have mean 0 and spread 1 over these states."""
        for layer in range(self.shift.shape[0]):
            self.shift[layer], self.scale[layer] = 0.0, 1.0
            m = torch.cat([self._layers(state, layer + 1)[1] for state in states])
            self.shift[layer] = m.mean(0)
            self.scale[layer] = 1.0 / m.std(0).clamp_min(1e-4 * m.abs().max().clamp_min(1e-12))
        return self

    def atom_energies(self, state: PhaseState) -> Tensor:
        """Each atom's share of the energies, (atoms, heads), eV."""
        x = torch.cat([self._layers(state)[0], self._neighbourhood(state).one_hot], dim=1)
        hidden = nn.functional.silu(self.hidden_in(x))
        hidden = nn.functional.silu(self.hidden_out(hidden))
        return self.readout(torch.cat([hidden, x], dim=1))

    def features_and_vectors(self, state: PhaseState) -> tuple[Tensor, Tensor]:
        """Features of every atom after the last layer, and its last message with directions, Σ_j u_ij W(r_ij) ∘ D x_j.

        Shapes (atoms, C + species) and (atoms, C, 3); the vectors are odd under inversion.
        """
        around = self._neighbourhood(state)
        x, _, weights = self._layers(state)
        D = around.differences(state.positions, around.offsets).transpose(1, 2)
        u = D / D.square().sum(2, keepdim=True).sqrt()
        return torch.cat([x, around.one_hot], dim=1), torch.bmm(weights.transpose(1, 2), u)

    def _layers(self, state: PhaseState, upto: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Features after so many layers, the messages of the last of them and what each neighbour sent."""
        around = self._neighbourhood(state)
        waves, ends = self._radial(state, around)
        x = self.embedding[around.index]
        message = weights = waves
        for layer in range(len(self.send) if upto is None else upto):
            filters = nn.functional.silu(self.filters_in[layer](waves))
            sent = self.send[layer](x)
            weights = self.filters_out[layer](filters) * ends * sent[around.other]
            message = (weights.sum(1) - self.shift[layer]) * self.scale[layer]
            x = x + self.update_out[layer](nn.functional.silu(self.update_in[layer](message)))
        return x, message, weights

    def _radial(self, state: PhaseState, around: Neighbourhood) -> tuple[Tensor, Tensor]:
        """Gaussians of the distances, and what ends them at the cutoff."""
        r = around.differences(state.positions, around.offsets).square().sum(1).sqrt().unsqueeze(2)
        width = (self.cutoff - GAUSSIANS_FROM) / max(len(self.centres) - 1, 1)
        return torch.exp(-0.5 * ((r - self.centres) / width) ** 2), smooth_step(r / self.cutoff)
