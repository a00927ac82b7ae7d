"""A Hamiltonian flow map learned without trajectories: mean velocity and mean force by consistency.

The method of W. Ripken and others, "Learning Hamiltonian flow maps: mean flow consistency for large-timestep molecular
dynamics", arXiv 2601.22123, as far as its description and published settings allow on a small network:

    q' = q + t·v̄(q, p, t),      p' = p + t·f̄(q, p, t),      u = (v̄, f̄)

Along the motion z(τ), and with its end kept in place, t·u(z, t) = z(τ + t) − z(τ) loses ż dτ as t loses dτ:

    u = ż + t·(∂u/∂z·ż − ∂u/∂t),      ż = (p/m, F)

The right hand side, with the network as it is and without gradients, is what the network is fitted to, at structures
with forces and momenta drawn for their temperature. The derivative along (ż, −1) is a central difference.

| symbol | variable             | shape         | unit         |
|--------|----------------------|---------------|--------------|
| t      | `time`               | (systems,)    | Å·sqrt(u/eV) |
| v̄, f̄   | `mean_velocity`, `mean_force` | (atoms, 3) |        |
| ż      | `velocities`, `forces` | (atoms, 3)  |              |

Kept from there: times |a − b|·h with a and b logit-normal(−0.4, 1), zero in three batches of four; errors of velocity
weighted by mass; each system's loss e² divided by (e² + c)^½. Given in its favour: free flight is built in
(v̄ = p/m + …), the network is equivariant, sees the invariants of the other maps, and has their optimiser.
Neither symplectic nor reversible, and momentum is not conserved; the authors repair energy and momenta after each
step with the base potential, which is left to `Repaired`.
"""

from __future__ import annotations

import time as clock
from typing import Any

import torch
from torch import Tensor, nn

from actionlearn.dataset import Dataset
from actionlearn.hamilton_jacobi import force_scales
from actionlearn.neighbours import without_history
from actionlearn.networks import AtomicMoments
from actionlearn.optimiser import Preconditioned
from actionlearn.potentials import Potential
from actionlearn.reference.thermostat import maxwell_boltzmann
from actionlearn.settings import Settings
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND

ZERO_TIMES = 0.75
SOFT = 1e-3
NEARBY = 0.01
"""Half the width of the difference, in units of the longest time."""


class FlowMap(nn.Module):
    """Mean velocity and mean force of the motion from a state on, for times up to `longest_fs`."""

    kind = "flow map"
    stages = 1

    def __init__(self, species: tuple[int, ...], longest_fs: float, force_scale: float, **options: Any) -> None:
        """Options go to `AtomicMoments`."""
        super().__init__()
        self.network = AtomicMoments(species, momenta=True, **options)
        self.longest, self.force_scale, self.step_fs = longest_fs * FEMTOSECOND, force_scale, longest_fs
        features, hidden = self.network.hidden_in.in_features, self.network.hidden_in.out_features
        self.vectors = 8 * self.network.channels
        dtype = self.network.frequencies.dtype
        self.weights_in = nn.Linear(features + 2, hidden, dtype=dtype)
        self.weights_out = nn.Linear(hidden, 2 * self.vectors, dtype=dtype)
        nn.init.zeros_(self.weights_out.weight)
        nn.init.zeros_(self.weights_out.bias)

    def means(self, state: PhaseState, time: Tensor) -> tuple[Tensor, Tensor]:
        """v̄ and f̄ over a time for each system."""
        x, vectors = self.network.features_and_vectors(state)
        share = (time / self.longest)[state.system].unsqueeze(1)
        hidden = nn.functional.silu(self.weights_in(torch.cat([x, share, share**2], dim=1)))
        out = torch.bmm(self.weights_out(hidden).view(-1, 2, self.vectors), vectors) * self.force_scale
        return state.velocities + self.longest * share * state.inverse_masses * out[:, 0], out[:, 1]

    def step(self, state: PhaseState, n: int = 1) -> PhaseState:
        """N steps of the longest time."""
        with torch.no_grad():
            for _ in range(n):
                v, f = self.means(state, state.positions.new_full((state.n_systems,), self.longest))
                state = state.moved(state.positions + self.longest * v, state.momenta + self.longest * f)
        return state

    def __call__(self, state: PhaseState) -> PhaseState:
        """One step."""
        return self.step(state)


def consistency_loss(flow: FlowMap, state: PhaseState, forces: Tensor, time: Tensor, force_scale: Tensor) -> Tensor:
    """Mean over systems of e²/sg(√(e² + c)), e² the mean square of √m·δv̄/(h·f) and δf̄/(√m·f)."""
    v, f = flow.means(state, time)
    with torch.no_grad():
        target_v, target_f = state.velocities, forces
        if bool((time > 0.0).any()):
            e = NEARBY * flow.longest
            (ahead_v, ahead_f), (behind_v, behind_f) = (
                flow.means(
                    state.moved(state.positions + k * e * state.velocities, state.momenta + k * e * forces),
                    time - k * e,
                )
                for k in (1.0, -1.0)
            )
            t = time[state.system].unsqueeze(1)
            target_v = target_v + t * (ahead_v - behind_v) / (2.0 * e)
            target_f = target_f + t * (ahead_f - behind_f) / (2.0 * e)
    root, scale = state.masses.sqrt().unsqueeze(1), force_scale[state.system].unsqueeze(1)
    squares = (root * (v - target_v) / (flow.longest * scale)) ** 2 + ((f - target_f) / (root * scale)) ** 2
    e2 = state.sum_by_system(squares.mean(1)) / state.atoms_per_system
    return (e2 / (e2.detach() + SOFT).sqrt()).mean()


def trained(data: Dataset, longest_fs: float, cpu_seconds: float, options: dict[str, Any], seed: int = 0) -> FlowMap:
    """A flow map after this much CPU time, weights averaged as those of the other maps."""
    torch.manual_seed(seed)
    data, settings = data.resized(1), Settings()
    scales = force_scales(data.stretches)
    calibration = data.windows(data.even(16))
    typical = float(calibration.forces[0].square().mean().sqrt())
    average = FlowMap(data.species, longest_fs, typical, **options)
    average.network.calibrate(calibration.frames)
    flow = FlowMap(data.species, longest_fs, typical, **options).to(torch.float32)
    flow.load_state_dict(average.state_dict())
    optimiser = Preconditioned(flow.parameters(), weight_decay=settings.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    started, updates, epoch, order = clock.process_time(), 0, 0, []
    while (done := (clock.process_time() - started) / cpu_seconds) < 1.0:
        if not order:
            order, epoch = data.order(settings.batch_atoms, seed, epoch), epoch + 1
        indices = order.pop()
        windows, temperatures_K = data.windows(indices, torch.float32), data.temperatures_of(indices)
        state = windows.frames[0]
        temperatures = state.positions.new_tensor(temperatures_K)
        state = maxwell_boltzmann(state, temperatures[state.system], generator)
        a, b = torch.sigmoid(torch.randn(2, state.n_systems, generator=generator) - 0.4)
        zero = torch.rand((), generator=generator) < ZERO_TIMES
        time = (a - b).abs() * (0.0 if zero else flow.longest)
        for group in optimiser.param_groups:
            group["lr"] = settings.rate(done)
        optimiser.zero_grad(set_to_none=True)
        with without_history():
            flow.network.neighbours(state)  # they serve both ends of the difference
        force_scale = temperatures.new_tensor([scales[T] for T in temperatures_K])
        loss = consistency_loss(flow, state, windows.forces[0], time, force_scale)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), settings.clip)
        optimiser.step()
        updates += 1
        share = 1.0 / min(updates, settings.averaging)
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), flow.parameters(), strict=True):
                mean.lerp_(weight.to(mean.dtype), share)
    average.requires_grad_(False)
    average.report = {"updates": updates, "cpu_seconds": clock.process_time() - started}
    return average


class Repaired:
    """A map whose steps end at rest as a whole and with the energy that they began with, as its authors repair theirs.

    It asks the base potential for an energy a step. What a drift of the energy would have shown is then hidden.
    """

    def __init__(self, flow: FlowMap, base: Potential) -> None:
        """Repair the steps of `flow`."""
        self.flow, self.base, self.step_fs, self.stages, self.kind = flow, base, flow.step_fs, 1, flow.kind

    def step(self, state: PhaseState, n: int = 1) -> PhaseState:
        """N steps."""
        for _ in range(n):
            after = self.flow.step(state)
            total, mass = after.sum_by_system(after.momenta), after.sum_by_system(after.masses)
            p = after.momenta - after.masses.unsqueeze(1) * (total / mass.unsqueeze(1))[after.system]
            after = after.moved(after.positions, p)
            wanted = state.kinetic_energy() + self.base.energy(state) - self.base.energy(after)
            scale = (wanted / after.kinetic_energy()).clamp_min(0.01).sqrt()
            state = after.moved(after.positions, p * scale[after.system].unsqueeze(1))
        return state
