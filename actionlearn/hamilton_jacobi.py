"""Learning a midpoint action from forces alone: the Hamilton-Jacobi equation instead of trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from actionlearn.dataset import Dataset, Windows
from actionlearn.losses import StepErrors, look_around
from actionlearn.maps.midpoint import MidpointAction
from actionlearn.maps.step_range import StepRange
from actionlearn.reference import Stretch
from actionlearn.reference.thermostat import maxwell_boltzmann
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND

#: Evaluations spent on the midpoint of a step; what is left unsolved is smaller than what is left to learn.
SOLVER_EVALUATIONS = 6

#: Half the difference quotient's width, relative to the longest step.
NEARBY = 0.01


def hamilton_jacobi_loss(
    actions: StepRange,
    windows: Windows,
    temperatures_K: Sequence[float],
    force_scales: dict[float, float],
    generator: torch.Generator,
) -> Tensor:
    """½⟨r_q²⟩ + ½⟨r_p²⟩ at the first frames of windows, for one random step and momenta drawn for their temperatures.

    Neither the recorded momenta nor the other frames are used.
    """
    rq, rp = _drawn(actions, windows, temperatures_K, force_scales, generator)
    return 0.5 * (rq.square().mean() + rp.square().mean())


def hamilton_jacobi_errors(actions: StepRange, data: Dataset, *, windows: int = 64, batch: int = 4) -> StepErrors:
    """The rms of r_q and r_p on a set, for steps and momenta that are the same at every call; float64."""
    generator, indices = torch.Generator().manual_seed(0), data.even(windows)
    scales = force_scales(data.stretches)
    device = next(actions.parameters()).device
    rq: list[Tensor] = []
    rp: list[Tensor] = []
    for k in range(0, len(indices), batch):
        some = indices[k : k + batch]
        there = data.windows(some, device=device)
        look_around(actions, there)
        for found, r in zip(
            (rq, rp), _drawn(actions, there, data.temperatures_of(some), scales, generator), strict=True
        ):
            found.append(r.detach())
    position, momentum = (float(torch.cat(r).square().mean().sqrt()) for r in (rq, rp))
    return StepErrors(position, momentum, len(indices))


def _drawn(
    actions: StepRange,
    windows: Windows,
    temperatures_K: Sequence[float],
    force_scales: dict[float, float],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Residuals of one random step and random momenta."""
    longest, state = actions.steps_fs[1], windows.frames[0]
    least = 2.0 * NEARBY
    step_fs = longest * (least + (1.0 - least) * float(torch.rand((), generator=generator)))
    T, f = (state.positions.new_tensor(x) for x in (temperatures_K, [force_scales[t] for t in temperatures_K]))
    return hamilton_jacobi_residuals(
        actions.beyond,
        maxwell_boltzmann(state, T[state.system], generator),
        windows.forces[0],
        step_fs=step_fs,
        longest_fs=longest,
        force_scale=f,
    )


def force_scales(stretches: Sequence[Stretch]) -> dict[float, float]:
    """The rms of F/sqrt(m) per degree of freedom at every temperature, eV/(Å·sqrt(u))."""
    found: dict[float, list[float]] = {}
    for stretch in stretches:
        free = ~stretch.system.fixed.numpy()
        squares = (stretch.frames.forces**2 * stretch.system.inverse_masses.numpy())[:, free].mean()
        found.setdefault(stretch.temperature_K, []).append(float(squares))
    tiny = 1e-12
    return {T: math.sqrt(max(sum(squares) / len(squares), tiny)) for T, squares in found.items()}


def hamilton_jacobi_residuals(
    action_at: Callable[[float], MidpointAction],
    start: PhaseState,
    forces: Tensor,
    *,
    step_fs: float,
    longest_fs: float,
    force_scale: Tensor,
) -> tuple[Tensor, Tensor]:
    """The gradient of the Hamilton-Jacobi equation, at the midpoint of the step that begins at `start`.

        ∂S/∂h = H(q̄ + ½∂S/∂p̄, p̄ − ½∂S/∂q̄) = H(q̄ − ½∂S/∂p̄, p̄ + ½∂S/∂q̄)

    S is odd in h, so the energy may be taken at the beginning of the step, (q, p), where forces are known. Only the
    gradient of S moves anything; that of the equation, with z̄ = (q̄, p̄) and ∇ its derivatives, is

        D∇S = ∇H(q, p) = (−F, p/m),      D = ∂/∂h − ½ (p/m)·∂/∂q̄ − ½ F·∂/∂p̄

    D is the derivative along a line: the step grows by dh as its beginning moves back along the trajectory and its end
    stays. A central difference takes it, so that one network gradient at each of two points is differentiated. There
    is one such equation for every degree of freedom and every h from 0 on, none for a constant in S, which is why
    energies are not needed. Beginnings distributed as in a canonical ensemble stay so as they move, and the equations
    close: structures of that ensemble, with momenta drawn for its temperature, are enough.

        r_q = 2 sqrt(m) (D ∂S/∂p̄ − p/m)/(h_max·f),      r_p = (D ∂S/∂q̄ + F)/(sqrt(m)·f)

    | symbol     | variable              | shape         | unit              |
    |------------|-----------------------|---------------|-------------------|
    | S(q̄, p̄; h) | `action_at(h)`        |               | Å·sqrt(u·eV)      |
    | q, p       | `start`               | (atoms, dims) | Å, sqrt(u·eV)     |
    | F          | `forces`              | (atoms, dims) | eV/Å              |
    | f          | `force_scale`, rms F/sqrt(m) | (systems,) | eV/(Å·sqrt(u)) |

    Either residual is, per unit of h/h_max, what a step would be off by, in units of what it does beyond free flight.
    """
    h, reach = step_fs * FEMTOSECOND, NEARBY * longest_fs
    with torch.no_grad():
        end = action_at(step_fs).correct(start, start.drift(h), SOLVER_EVALUATIONS)
        v = start.inverse_masses * start.momenta
        F = forces.masked_fill(start.fixed.unsqueeze(1), 0.0)
        q_mid, p_mid = 0.5 * (start.positions + end.positions), 0.5 * (start.momenta + end.momenta)

    def gradient(along: float) -> tuple[Tensor, Tensor]:
        """∂S/∂p̄ and ∂S/∂q̄ a little along the line."""
        e = along * FEMTOSECOND
        q, p = (q_mid - 0.5 * e * v).requires_grad_(), (p_mid - 0.5 * e * F).requires_grad_()
        learned, dp = action_at(step_fs + along).derivatives(start.moved(q, p), create_graph=True)
        return learned + (h + e) * start.inverse_masses * p.detach(), -dp

    ahead, behind = gradient(reach), gradient(-reach)
    dS_dp, dS_dq = ((a - b) / (2.0 * reach * FEMTOSECOND) for a, b in zip(ahead, behind, strict=True))
    root, f = start.masses.sqrt().unsqueeze(1), force_scale[start.system].unsqueeze(1)
    rq = 2.0 * root * (dS_dp - v) / (longest_fs * FEMTOSECOND * f)
    rp = (dS_dq + F) / (root * f)
    free = ~start.fixed
    return rq[free], rp[free]
