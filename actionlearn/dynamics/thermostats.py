"""Canonical ensembles: a random half before each long step and one after."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from actionlearn.dynamics.ensemble import Map, Stochastic, positive
from actionlearn.dynamics.freedom import degrees_of_freedom, without_total_momentum
from actionlearn.errors import InvalidInput
from actionlearn.state import PhaseState
from actionlearn.units import BOLTZMANN, FEMTOSECOND, PICOSECOND


class Langevin(Stochastic):
    """Langevin dynamics: half of an exact Ornstein-Uhlenbeck process on each side of the map, O Φ O.

        O:  p ← c·p + sqrt((1 − c²)·m·kT)·ξ,    c = exp(−γh/2)

    | symbol | variable          | unit         |
    |--------|-------------------|--------------|
    | γ      | `friction_per_ps` | 1/ps         |
    | h      | `model.step_fs`   | fs           |
    | kT     | `temperature_K`   | K            |
    | ξ      | standard normal   |              |

    O leaves the canonical distribution alone, so what error there is comes from the map: whatever conserves the
    energy exactly is sampled exactly, whatever the friction. With `zero_momentum` the noise is drawn seen from the
    centre of mass, exactly the process on momenta of zero sum. G. Bussi and M. Parrinello, Phys. Rev. E 75, 056707
    (2007).
    """

    name = "langevin"

    def __init__(
        self, temperature_K: float, friction_per_ps: float, *, seed: int = 0, zero_momentum: bool = False
    ) -> None:
        """Temperature, friction and whether the total momentum is held at zero."""
        super().__init__(temperature_K, seed=seed)
        self.friction_per_ps = positive("friction_per_ps", friction_per_ps)
        self.zero_momentum = zero_momentum

    def begin(self, model: Map, state: PhaseState) -> None:
        """Zero total momentum needs atoms that all move."""
        if self.zero_momentum and (state.has_fixed or int(state.atoms_per_system.min()) < 2):
            raise InvalidInput(
                "a total momentum of zero cannot be held with fixed atoms or in a system of one atom: "
                "leave zero_momentum (FixCom) out"
            )

    def settings(self) -> dict[str, float]:
        """Temperature and friction."""
        return {**super().settings(), "friction_per_ps": self.friction_per_ps}

    def advance(self, model: Map, state: PhaseState, n: int = 1) -> PhaseState:
        """N long steps."""
        half = 0.5 * model.step_fs * FEMTOSECOND
        for _ in range(n):
            state = self.refresh(state, half)
            state = self.refresh(model.step(state), half)
        return state

    def refresh(self, state: PhaseState, time: float) -> PhaseState:
        """The Ornstein-Uhlenbeck process over a time; the heat it brings is counted."""
        c = math.exp(-self.friction_per_ps / PICOSECOND * time)
        kT = BOLTZMANN * self.temperature_K
        noise = (state.masses * kT).sqrt().unsqueeze(1) * self.normal(state.momenta, state.momenta.shape)
        p = c * state.momenta + math.sqrt(1.0 - c * c) * noise
        if self.zero_momentum:
            p = without_total_momentum(state, p)
        after = state.moved(state.positions, p.masked_fill(state.fixed.unsqueeze(1), 0.0))
        self.heat = self.heat + after.kinetic_energy() - state.kinetic_energy()
        return after


class VelocityRescaling(Stochastic):
    """Stochastic velocity rescaling: the kinetic energy follows its own canonical process, directions stay.

        K' = c·K + (1 − c)·(kT/2)·Σξ² + 2·sqrt(c·(1 − c)·K·kT/2)·ξ₁,    c = exp(−h/(2τ))
        p ← α·p,    α² = K'/K,    sign α = sign(ξ₁ + sqrt(2c·K/((1 − c)·kT)))

    exactly, half on each side of the map. One number rescales each system of a batch.

    | symbol | variable          | unit                                           |
    |--------|-------------------|------------------------------------------------|
    | τ      | `time_ps`         | ps, relaxation time of the kinetic energy      |
    | Σξ²    | `squares`         | over all degrees of freedom, ξ₁ among them     |
    | K      | kinetic energy    | eV                                             |

    Total energy less the heat is conserved as well as the map conserves energy. A total momentum of zero stays zero,
    and is then not counted as freedom. G. Bussi, D. Donadio and M. Parrinello, J. Chem. Phys. 126, 014101 (2007),
    eqs. A7-A8.
    """

    name = "bussi"

    def __init__(self, temperature_K: float, time_ps: float, *, seed: int = 0) -> None:
        """Temperature and relaxation time."""
        super().__init__(temperature_K, seed=seed)
        self.time_ps = positive("time_ps", time_ps)

    def begin(self, model: Map, state: PhaseState) -> None:
        """There must be motion to rescale."""
        if not bool((state.kinetic_energy() > 0).all()):
            raise InvalidInput(
                "velocity rescaling needs atoms that move, all momenta are zero: draw some first, for example with "
                "ase.md.velocitydistribution.MaxwellBoltzmannDistribution"
            )

    def settings(self) -> dict[str, float]:
        """Temperature and relaxation time."""
        return {**super().settings(), "time_ps": self.time_ps}

    def advance(self, model: Map, state: PhaseState, n: int = 1) -> PhaseState:
        """N long steps."""
        half = 0.5 * model.step_fs * FEMTOSECOND
        for _ in range(n):
            state = self.rescale(state, half)
            state = self.rescale(model.step(state), half)
        return state

    def rescale(self, state: PhaseState, time: float) -> PhaseState:
        """The process of the kinetic energy over a time; the heat it brings is counted."""
        c = math.exp(-time / (self.time_ps * PICOSECOND))
        half_kT = 0.5 * BOLTZMANN * self.temperature_K
        K = state.kinetic_energy()
        first, squares = self._noise(K, degrees_of_freedom(state))
        ratio = (half_kT * (1.0 - c) / K.clamp_min(torch.finfo(K.dtype).tiny)).sqrt()
        # K'/K = (√c + ratio·ξ₁)² + ratio²·Σ'ξ², the sum without ξ₁
        along = math.sqrt(c) + ratio * first
        growth = along**2 + ratio**2 * squares
        alpha = growth.sqrt() * torch.where(along < 0, -1.0, 1.0)
        self.heat = self.heat + (growth - 1.0) * K
        return state.moved(state.positions, alpha[state.system].unsqueeze(1) * state.momenta)

    def _noise(self, like: Tensor, degrees: Tensor) -> tuple[Tensor, Tensor]:
        """ξ₁ and the sum of the squares of the others, each (systems,)."""
        first = self.normal(like, like.shape)
        others = degrees - 1
        owner = torch.repeat_interleave(torch.arange(len(others), device=others.device), others)
        return first, torch.zeros_like(like).index_add(0, owner, self.normal(like, (len(owner),)) ** 2)
