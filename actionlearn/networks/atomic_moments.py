"""A local, smooth, invariant scalar of species, positions and, if asked, momenta."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from actionlearn.errors import InvalidInput
from actionlearn.networks.atomic import AtomicNetwork
from actionlearn.networks.neighbourhood import Neighbourhood, smooth_step
from actionlearn.state import PhaseState


class AtomicMoments(AtomicNetwork):
    """Energies from products of the Cartesian moments of each atom's neighbourhood.

    With D the vector from atom i to its neighbour j, r = |D|, u = D/r, e_j the species of j, B_b(r) radial
    functions that vanish with three derivatives at the cutoff, and W learned:

        M^l_i  = Σ_j B_b(r) e_j ⊗ {1, u, u⊗u}                        moments of rank l = 0, 1, 2
        a^l_i  = W^l(Z_i) M^l_i                                        channels, twice: left and right
        x_i    = a⁰, a¹·a¹, a²:a², a¹·a²·a¹                            invariants
        E_i    = MLP(x_i) + linear(x_i),     E = Σ_i E_i

    A second layer repeats this with B_b(r) e_j replaced by learned radial functions times features of j.
    With `momenta`, moments odd under time reversal join in, {v_ij, v_ij·u, u⊗v_ij} with v_ij = v_j − v_i, and only
    ever enter in pairs: the scalar is even in the momenta and does not see the centre of mass move.

    | symbol | variable   | shape                      | unit |
    |--------|------------|----------------------------|------|
    | D      | `D`        | (atoms, 3, neighbours)     | Å    |
    | B e    | `radial`   | (atoms, B·S, neighbours)   |      |
    | 1,u,uu | `angular`  | (atoms, neighbours, 10)    |      |
    | a      | `a`        | (atoms, 2C, …)             |      |
    | x      | `x`        | (atoms, features)          |      |
    | E      | `energies` | (systems, heads)           | eV   |

    Invariant under translation, rotation, inversion and permutation of like atoms; smooth (C³) in the positions.
    The last layer starts at zero: an untrained network is the zero potential and a map made of it free flight.
    """

    frequencies: Tensor
    nine_of_six: Tensor
    shift: Tensor
    scale: Tensor
    velocity_scale: Tensor
    moment_scale: Tensor

    def __init__(
        self,
        species: Sequence[int],
        *,
        cutoff: float = 5.0,
        radial: int = 8,
        channels: int = 16,
        hidden: int = 64,
        layers: int = 1,
        heads: int = 1,
        momenta: bool = False,
        skin: float = 0.4,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """A network for the atomic numbers `species`, with `heads` energies that share all but the last layer."""
        super().__init__(species, cutoff=cutoff, heads=heads, momenta=momenta, skin=skin, dtype=dtype)
        if layers not in (1, 2):
            raise InvalidInput(f"layers must be 1 or 2, got {layers}")
        self.options = {
            "cutoff": cutoff,
            "radial": radial,
            "channels": channels,
            "hidden": hidden,
            "layers": layers,
            "heads": heads,
            "momenta": momenta,
            "skin": skin,
        }
        self.channels = channels
        n_species, C = len(species), channels
        ranks = 6 if momenta else 3

        self.register_buffer(
            "frequencies", math.pi / cutoff * torch.arange(1, radial + 1, dtype=dtype), persistent=False
        )
        self.register_buffer("nine_of_six", torch.tensor([0, 1, 2, 1, 3, 4, 2, 4, 5]), persistent=False)
        n_features = (8 if momenta else 4) * C
        width = radial * n_species
        self.mix = nn.ParameterList(
            [nn.Parameter(torch.randn(n_species, width, ranks * 2 * C, dtype=dtype) / math.sqrt(width))]
        )
        if layers == 2:
            self.mix.append(nn.Parameter(torch.randn(n_species, C, ranks * 2 * C, dtype=dtype) / math.sqrt(C)))
            self.send = nn.Linear(n_features, C, dtype=dtype)
            self.radial_mix = nn.Parameter(torch.randn(radial, C, dtype=dtype) / math.sqrt(radial))
        self.n_features = total = n_features * layers + n_species
        self.n_vectors = (8 if momenta else 3) * C
        self.register_buffer("shift", torch.zeros(layers, n_features, dtype=dtype))
        self.register_buffer("scale", torch.ones(layers, n_features, dtype=dtype))
        self.hidden_in = nn.Linear(total, hidden, dtype=dtype)
        self.hidden_out = nn.Linear(hidden, hidden, dtype=dtype)
        self.readout = nn.Linear(hidden + total, heads, bias=False, dtype=dtype)
        nn.init.zeros_(self.readout.weight)
        self.register_buffer("velocity_scale", torch.tensor(1.0, dtype=dtype))
        self.register_buffer("moment_scale", torch.tensor(1.0 / math.sqrt(10.0), dtype=dtype))

    # --- public -----------------------------------------------------------------------------------

    @torch.no_grad()
    def calibrate(self, states: Sequence[PhaseState]) -> AtomicMoments:
        """Set the fixed scales of the features so that each has mean 0 and spread 1 over these states."""
        if self.momenta:
            v = torch.cat([s.velocities[~s.fixed] for s in states])
            self.velocity_scale.copy_(v.square().mean().sqrt().clamp_min(1e-12))
        inside = [(s, self._neighbourhood(s)) for s in states]
        counts = torch.cat([n.count_within(s.positions, self.cutoff) for s, n in inside])
        self.moment_scale.copy_(1.0 / counts.to(self.moment_scale.dtype).mean().clamp_min(1.0).sqrt())
        for layer in range(self.shift.shape[0]):
            self.shift[layer], self.scale[layer] = 0.0, 1.0
            x = torch.cat([self._features(s, upto=layer)[layer] for s in states])
            self.shift[layer] = x.mean(0)
            self.scale[layer] = 1.0 / x.std(0).clamp_min(1e-4 * x.abs().max().clamp_min(1e-12))
        return self

    # --- the scalar -------------------------------------------------------------------------------

    def atom_energies(self, state: PhaseState) -> Tensor:
        """Each atom's share of the energies, (atoms, heads), eV."""
        x = torch.cat([*self._features(state, upto=len(self.mix) - 1), self._neighbourhood(state).one_hot], dim=1)
        hidden = nn.functional.silu(self.hidden_in(x))
        hidden = nn.functional.silu(self.hidden_out(hidden))
        return self.readout(torch.cat([hidden, x], dim=1))

    def _features(self, state: PhaseState, upto: int) -> list[Tensor]:
        """Standardised invariants of layers 0 … upto, each (atoms, features)."""
        return self._layers(state, upto)[0]

    def features_and_vectors(self, state: PhaseState) -> tuple[Tensor, Tensor]:
        """Invariants of all layers (atoms, features) and equivariant vectors of the last one (atoms, vectors, 3).

        For maps that are not made of a scalar; the vectors are odd under inversion, and mixed in time parity where
        the network sees momenta.
        """
        features, moments = self._layers(state, len(self.mix) - 1)
        a0, a1, a2, *odd = moments
        C = self.channels
        vectors = [a1, _turn(a2[:, :C], a1[:, C:])]
        if odd:
            o0, o1, o2 = odd
            vectors += [o1, _turn(a2[:, :C], o1[:, C:]), o0[:, :C, None] * a1[:, :C], _turn(o2[:, :C], a1[:, C:])]
        return torch.cat([*features, self._neighbourhood(state).one_hot], dim=1), torch.cat(vectors, dim=1)

    def _layers(self, state: PhaseState, upto: int) -> tuple[list[Tensor], list[Tensor]]:
        """Invariants of layers 0 … upto and the channel moments of the last."""
        around = self._neighbourhood(state)
        n, k = around.other.shape
        D = around.differences(state.positions, around.offsets)
        r = D.square().sum(1, keepdim=True).sqrt()
        u = D / r
        waves = torch.sin(r * self.frequencies.unsqueeze(1)) * (smooth_step(r / self.cutoff) / r)
        radial = waves
        if len(self.species) > 1:
            radial = (waves.unsqueeze(1) * around.species.unsqueeze(2)).reshape(n, -1, k)
        # of the symmetric u⊗u the six different components: xx, xy, xz, yy, yz, zz
        rows = [around.ones, u, u * u[:, :1], u[:, 1:] * u[:, 1:2], u[:, 2:] * u[:, 2:]]
        if self.momenta:
            v = around.differences(state.velocities / self.velocity_scale)
            rows += [(v * u).sum(1, keepdim=True), v, (u.unsqueeze(2) * v.unsqueeze(1)).reshape(n, 9, k)]
        angular = torch.cat(rows, dim=1).transpose(1, 2)

        features: list[Tensor] = []
        channels: list[Tensor] = []
        for layer in range(upto + 1):
            if layer == 1:
                sent = self.send(features[0])
                radial = (self.radial_mix.T @ waves) * around.gather(sent)
            moments = torch.bmm(radial, angular) * self.moment_scale
            channels = self._channels(moments, self._weights(layer, around))
            features.append((self._invariants(channels) - self.shift[layer]) * self.scale[layer])
        return features, channels

    def _channels(self, moments: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        """Left and right channels of every rank, each (atoms, 2C, components); even ranks first, then odd ones."""
        columns = [slice(0, 1), slice(1, 4), slice(4, 10), slice(10, 11), slice(11, 14), slice(14, 23)]
        a = [torch.bmm(w, moments[:, :, c]) for w, c in zip(weights, columns, strict=False)]
        a[0] = a[0].squeeze(2)
        a[2] = a[2].index_select(2, self.nine_of_six)
        if self.momenta:
            a[3] = a[3].squeeze(2)
        return a

    def _weights(self, layer: int, around: Neighbourhood) -> tuple[Tensor, ...]:
        """W^l(Z_i) of every atom, one (atoms, 2C, width) per rank; kept while they are not being trained."""
        mix = self.mix[layer]
        key = (layer, mix._version, mix.dtype)
        constant = not (mix.requires_grad and torch.is_grad_enabled())
        if constant and key in around.kept:
            return around.kept[key]
        chosen = mix[around.index].view(around.index.shape[0], mix.shape[1], -1, 2 * self.channels)
        weights = chosen.permute(2, 0, 3, 1).contiguous().unbind(0)
        if constant and not chosen.is_inference():
            around.kept[key] = weights
        return weights

    def _invariants(self, channels: list[Tensor]) -> Tensor:
        """Products of channels that change neither under rotation nor under time reversal, (atoms, features)."""
        C = self.channels
        a0, a1, a2, *odd = channels
        x = [
            a0[:, :C],
            (a1[:, :C] * a1[:, C:]).sum(2),
            (a2[:, :C] * a2[:, C:]).sum(2),
            (_turn(a2[:, :C], a1[:, C:]) * a1[:, :C]).sum(2),
        ]
        if odd:
            o0, o1, o2 = odd
            x += [
                o0[:, :C] * o0[:, C:],
                (o1[:, :C] * o1[:, C:]).sum(2),
                (o2[:, :C] * o2[:, C:]).sum(2),
                (_turn(a2[:, C:], o1[:, C:]) * o1[:, :C]).sum(2),
            ]
        return torch.cat(x, dim=1)


def _turn(tensors: Tensor, vectors: Tensor) -> Tensor:
    """Rank-2 channels (atoms, C, 9) applied to vector channels (atoms, C, 3)."""
    n, c, _ = tensors.shape
    return (tensors.reshape(n, c, 3, 3) * vectors.unsqueeze(2)).sum(3)
