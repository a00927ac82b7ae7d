"""A direct predictor of the next state: the honest baseline, without structure."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from actionlearn.maps.guard import Masses, SystemGuard
from actionlearn.networks.atomic_moments import AtomicMoments
from actionlearn.state import PhaseState
from actionlearn.stepping import guarded
from actionlearn.units import FEMTOSECOND


class DirectPredictor(nn.Module):
    """Δq and Δp as two free vectors per atom, from an equivariant network of positions and momenta.

        q' = q + h p/m + h² f/m · N_q(q, v),    p' = p + h f N_p(q, v),    N = Σ_c w_c(x) a_c

    with a_c the network's equivariant vectors, x its invariants and f the `force_scale`. It has what the maps made
    of an action have (rotation, translation, Galilean invariance, locality) except their structure: it is neither
    symplectic nor reversible, and conserves neither energy nor momentum.

    | symbol | variable      | shape         | unit |
    |--------|---------------|---------------|------|
    | N      | `out`         | (atoms, 3, 2) |      |
    | f      | `force_scale` |               | eV/Å |
    """

    kind = "direct"
    stages = 1

    def __init__(
        self,
        species: Sequence[int],
        *,
        step_fs: float,
        force_scale: float = 1.0,
        masses: Masses | None = None,
        **options: float,
    ) -> None:
        """Options go to `AtomicMoments`; the network always sees momenta."""
        super().__init__()
        self.step_fs = float(step_fs)
        self.network = AtomicMoments(species, momenta=True, **options)  # type: ignore[arg-type]
        self.species = self.network.species
        self.masses = dict(masses or {})
        self.guard = SystemGuard(self.species, self.masses)
        self.force_scale = float(force_scale)
        dtype = self.network.frequencies.dtype
        self.n_vectors, hidden = self.network.n_vectors, self.network.hidden_in.out_features
        self.weights_in = nn.Linear(self.network.n_features, hidden, dtype=dtype)
        self.weights_out = nn.Linear(hidden, 2 * self.n_vectors, dtype=dtype)
        nn.init.zeros_(self.weights_out.weight)
        nn.init.zeros_(self.weights_out.bias)

    def randomise(self, scale: float = 1.0, seed: int = 0) -> DirectPredictor:
        """Random last weights, for tests of an untrained network."""
        generator = torch.Generator().manual_seed(seed)
        weight = self.weights_out.weight
        with torch.no_grad():
            weight.copy_(scale * torch.randn(weight.shape, generator=generator, dtype=weight.dtype) / weight.shape[1])
        return self

    def calibrate(self, states: Sequence[PhaseState]) -> DirectPredictor:
        """Standardise the network's features over these states."""
        self.network.calibrate(states)
        return self

    def increments(self, state: PhaseState) -> tuple[Tensor, Tensor]:
        """Δq beyond free flight and Δp, each (atoms, 3)."""
        h = self.step_fs * FEMTOSECOND
        x, vectors = self.network.features_and_vectors(state)
        w = self.weights_out(nn.functional.silu(self.weights_in(x))).view(-1, 2, self.n_vectors)
        out = torch.bmm(w, vectors) * self.force_scale
        return h**2 * state.inverse_masses * out[:, 0], h * out[:, 1]

    def forward(self, state: PhaseState) -> PhaseState:
        """One step."""
        return self.step(state)

    @guarded
    def step(self, state: PhaseState, n: int = 1) -> PhaseState:
        """N long steps."""
        self.guard.check(state)
        for _ in range(n):
            dq, dp = self.increments(state)
            flown = state.drift(self.step_fs * FEMTOSECOND)
            state = flown.moved(flown.positions + dq, flown.momenta).kick(dp)
        return state
