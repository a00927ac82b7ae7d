"""A local, smooth, invariant scalar of species, positions and, if asked, momenta."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from actionlearn.errors import InvalidInput
from actionlearn.networks.atomic import AtomicNetwork, Head
from actionlearn.networks.bonds import Bonds
from actionlearn.networks.moments import Moments
from actionlearn.networks.neighbourhood import Neighbourhood
from actionlearn.potentials.protocol import forces_from_energy, refuse_forward_mode
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
    | D, B, u | `Bonds`   |                            | Å    |
    | B e    | `radial`   | (atoms, S·B, neighbours)   |      |
    | M, a   | `Moments`  |                            |      |
    | x      | `x`        | (atoms, features)          |      |
    | E      | `energies` | (systems, heads)           | eV   |

    Invariant under translation, rotation, inversion and permutation of like atoms; smooth (C³) in the positions.
    The last layer starts at zero: an untrained network is the zero potential and a map made of it free flight.
    """

    frequencies: Tensor
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
        hidden = silu(self.hidden_out(silu(self.hidden_in(x))))
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
        return torch.cat([*features, self._neighbourhood(state).one_hot], dim=1), moments.vectors()

    def _layers(self, state: PhaseState, upto: int) -> tuple[list[Tensor], Moments]:
        """Standardised invariants of layers 0 … upto and the moments of the last."""
        around = self._neighbourhood(state)
        bonds = Bonds(around, state.positions, self.frequencies, self.cutoff)
        angular = bonds.angular
        if self.momenta:
            v, u = around.differences(state.velocities / self.velocity_scale), bonds.u
            uv = (u.unsqueeze(2) * v.unsqueeze(1)).flatten(1, 2)
            angular = torch.cat([angular, (v * u).sum(1, keepdim=True), v, uv], dim=1)
        features: list[Tensor] = []
        for layer in range(upto + 1):
            if layer == 0:
                radial = self._first_radial(bonds)
            else:
                radial = (self.radial_mix.T @ bonds.waves) * around.gather(self.send(features[0]))
            moments = Moments(radial, angular, self._weights(layer, around), around)
            features.append((moments.x - self.shift[layer]) * self.scale[layer])
        return features, moments

    def _first_radial(self, bonds: Bonds) -> Tensor:
        """B_b(r) e_j, (atoms, S·B, neighbours)."""
        if len(self.species) == 1:
            return bonds.waves
        return (bonds.around.species * bonds.waves.unsqueeze(1)).flatten(1, 2)

    # --- its derivative ---------------------------------------------------------------------------

    def forces_of(self, head: Head, state: PhaseState) -> Tensor:
        """−∂E/∂q of a combination of heads, (atoms, 3), eV/Å, the chain rule written out.

        The same as reverse mode gives, at a third of the cost: no graph is recorded unless the positions or the
        weights ask for gradients, and then one of plain operations, which can be differentiated again.
        """
        if self.momenta:
            return forces_from_energy(head.energy, state)
        refuse_forward_mode(state)
        asking = torch.is_grad_enabled() and (
            state.positions.requires_grad or any(w.requires_grad for w in self.parameters())
        )
        state = state.ordinary()
        around = self._neighbourhood(state)
        weights = [self._weights(layer, around) for layer in range(len(self.mix))]
        readout = self.readout.weight.new_tensor(head.coefficients) @ self.readout.weight
        if asking:
            return self._pull(state.positions, readout, around, weights)
        with torch.inference_mode():
            pull = self._pull(state.positions, readout, around, weights)
        with torch.inference_mode(False):
            return pull.clone()

    def _pull(self, q: Tensor, readout: Tensor, around: Neighbourhood, weights: list[Weights]) -> Tensor:
        bonds = Bonds(around, q, self.frequencies, self.cutoff)
        layers = [Moments(self._first_radial(bonds), bonds.angular, weights[0], around)]
        features = [(layers[0].x - self.shift[0]) * self.scale[0]]
        if len(weights) == 2:
            blend, heard = self.radial_mix.T @ bonds.waves, around.gather(self.send(features[0]))
            layers.append(Moments(blend * heard, bonds.angular, weights[1], around))
            features.append((layers[1].x - self.shift[1]) * self.scale[1])
        x = torch.cat([*features, around.one_hot], dim=1)
        hidden_in = self.hidden_in(x)
        hidden_out = self.hidden_out(silu(hidden_in))

        # and back, d_y for ∂E/∂y
        d_hidden, d_direct = readout.split([hidden_out.shape[1], x.shape[1]])
        d_hidden = (_silu_slope(hidden_out) * d_hidden) @ self.hidden_out.weight
        d_x = torch.addmm(d_direct, _silu_slope(hidden_in) * d_hidden, self.hidden_in.weight)
        d_features = list(d_x.split(self.shift.shape[1], 1))
        d_waves = d_angular = None
        if len(weights) == 2:
            d_radial, d_angular = layers[1].derivatives(d_features[1] * self.scale[1])
            d_features[0] = d_features[0] + around.scatter(d_radial * blend) @ self.send.weight
            d_waves = self.radial_mix @ (d_radial * heard)
        d_radial, d_first = layers[0].derivatives(d_features[0] * self.scale[0])
        if len(self.species) > 1:
            n, k = around.other.shape
            d_radial = (d_radial.view(n, len(self.species), -1, k) * around.species).sum(1)
        if d_waves is None or d_angular is None:
            return bonds.forces(d_radial, d_first)
        return bonds.forces(d_radial + d_waves, d_first + d_angular)

    def _weights(self, layer: int, around: Neighbourhood) -> Weights:
        """W^l(Z_i) of every atom, one (atoms, width, 2C) per rank; kept while they are not being trained."""
        mix, C = self.mix[layer], self.channels
        constant = not (mix.requires_grad and torch.is_grad_enabled())
        key = (mix._version, self.moment_scale._version, mix.dtype, mix.device) if constant else ()
        if constant and layer in around.kept and around.kept[layer][0] == key:
            return around.kept[layer][1]
        # the scale of the moments in passing
        ranks = (mix * self.moment_scale).index_select(0, around.index).split(2 * C, 2)
        weights = (ranks[0][..., :C], *ranks[1:])
        if constant and not weights[0].is_inference():
            around.kept[layer] = (key, weights)
        return weights


Weights = tuple[Tensor, ...]


def _silu_slope(x: Tensor) -> Tensor:
    """The derivative of x·sigmoid(x)."""
    s = x.sigmoid()
    return torch.addcmul(s, x * s, 1.0 - s)
