"""What training makes small: residuals of a map on recorded windows, mass-weighted and without units.

Every residual is an error of momentum per sqrt(mass), divided by what a step does beyond free flight (`Windows`):

    r_q = sqrt(m)·δq/(h·s_q),      r_p = δp/(sqrt(m)·s_p),      loss = ½⟨r_q²⟩ + ½⟨r_p²⟩

Measured against the whole displacement, h p/m included, a position error would look harmless that turns within a
step into a momentum error of its size; measured against the displacement beyond free flight it weighs the same.
Free flight itself scores about one, whatever the step, the temperature and the masses.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from actionlearn.dataset import Dataset, Windows
from actionlearn.errors import InvalidInput
from actionlearn.maps import Displacement, ProcessedAction
from actionlearn.neighbours import without_history
from actionlearn.networks import AtomicMoments
from actionlearn.potentials.protocol import Potential
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND


def window_length(model: Any) -> int:
    """Frames of a window that the loss of this map takes at least."""
    return 3 if model.kind == "processed" and model.stages == 1 else 2


def map_loss(model: Any, windows: Windows) -> Tensor:
    """The loss of a map of any kind."""
    look_around(model, windows)
    if model.kind == "midpoint":
        return _loss(*midpoint_residuals(model, windows))
    if model.kind == "processed":
        if model.stages == 1:
            return _loss(*processed_verlet_residuals(model, windows))
        return _loss(*processed_residuals(model, windows))
    return _loss(*unrolled_residuals(model, windows))


def force_loss(potential: Potential, windows: Windows, step_fs: float) -> Tensor:
    """Force matching at the first frame, r_p = h·(F − F_base)/(sqrt(m)·s_p), squared and averaged."""
    state = windows.frames[0]
    miss = step_fs * FEMTOSECOND * (potential.forces(state) - windows.forces[0])
    return _momentum_residual(miss, state, windows).square().mean()


def look_around(model: Any, windows: Windows) -> None:
    """Search neighbours once, at the centre of the windows, so that they serve all frames and inner points.

    Nothing is left over from other batches: results depend on this one alone.
    """
    centre = windows.centre()
    with torch.no_grad(), without_history():
        for module in model.modules():
            if isinstance(module, AtomicMoments):
                module.neighbours(centre)
        if model.kind == "corrected":
            model.base.forces(centre)


# --- residuals ------------------------------------------------------------------------------------


def unrolled_residuals(model: Any, windows: Windows) -> tuple[Tensor, Tensor]:
    """The map run from the first frame, compared with every later one."""
    state = windows.frames[0]
    rq, rp = [], []
    for target in windows.frames[1:]:
        state = model.step(state)
        rq.append(_position_residual(state.positions - target.positions, model.step_fs, state, windows))
        rp.append(_momentum_residual(state.momenta - target.momenta, state, windows))
    return torch.cat(rq), torch.cat(rp)


def midpoint_residuals(model: Any, windows: Windows) -> tuple[Tensor, Tensor]:
    """Δq = ∂S/∂p̄ and Δp = −∂S/∂q̄ at the midpoints of recorded ends: no equation is solved."""
    h = model.step_fs * FEMTOSECOND
    rq, rp = [], []
    for first, last in zip(windows.frames[:-1], windows.frames[1:], strict=True):
        q = (0.5 * (first.positions + last.positions)).requires_grad_()
        p = (0.5 * (first.momenta + last.momenta)).requires_grad_()
        dq, dp = model.derivatives(first.moved(q, p), create_graph=True)
        dq = dq + h * first.inverse_masses * p.detach()
        rq.append(_position_residual(dq - (last.positions - first.positions), model.step_fs, first, windows))
        rp.append(_momentum_residual(dp - (last.momenta - first.momenta), first, windows))
    return torch.cat(rq), torch.cat(rp)


def processed_verlet_residuals(model: ProcessedAction, windows: Windows) -> tuple[Tensor, Tensor]:
    """The processed map of one stage on three frames or more, from displacements of positions alone.

    With Q_n = q_n + M⁻¹∇W(q_n) and kicks h F(Q) at both ends of a step, successive frames obey

        M (Q_{n+1} − 2Q_n + Q_{n−1})/h = 2h F(Q_n)                    (two half kicks)
        p_n = (1 + ∇∇W(q_n) M⁻¹) P_n,     P_n = M (Q_{n+1} − Q_{n−1})/2h

    The first equation leaves W open (harmonic modes obey it for many W), the second fixes it. No variable is
    inverted; the product with ∇∇W is a central difference of ∇W along M⁻¹P. Half the residual of the first and that
    of the second are to first order the errors of a step in units of momentum; both are weighed as such.
    """
    chi, h = model.displacement, model.step_fs * FEMTOSECOND
    if len(windows.frames) < 3:
        raise InvalidInput(
            f"the processed map of one stage takes windows of 3 frames or more, not {len(windows.frames)}"
        )
    m = windows.frames[0].masses.unsqueeze(1)
    Q = [state.positions + chi.shift(state) for state in windows.frames]
    kicks, lifts = [], []
    for before, at, after, state in zip(Q[:-2], Q[1:-1], Q[2:], windows.frames[1:-1], strict=True):
        F = model.inner.stage_force(0, state.moved(at, state.momenta))
        kick = m * (after - 2.0 * at + before) / h - 2.0 * h * F
        P = m * (after - before) / (2.0 * h)
        lift = stretched(chi, state, P) - state.momenta
        kicks.append(_momentum_residual(0.5 * kick, state, windows))
        lifts.append(_momentum_residual(lift, state, windows))
    return torch.cat(kicks), torch.cat(lifts)


def processed_residuals(model: ProcessedAction, windows: Windows) -> tuple[Tensor, Tensor]:
    """Ψ(χ(z)) − χ(z') of the processed map, in its own variables.

    P = p − ∇∇W(q) M⁻¹P* with P* a solution found without gradients: only first derivatives of the network are
    differentiated, and none of the parts that could make Ψχ = χ trivial is left out, for both maps keep volume.
    """
    chi = model.displacement
    inside = []
    for state in windows.frames:
        with torch.no_grad():
            P = rough_momenta(chi, state)
        lift = stretched(chi, state, P) - P
        inside.append(state.moved(state.positions + chi.shift(state), state.momenta - lift))
    state = inside[0]
    rq, rp = [], []
    for target in inside[1:]:
        state = model.inner.step(state)
        rq.append(_position_residual(state.positions - target.positions, model.step_fs, state, windows))
        rp.append(_momentum_residual(state.momenta - target.momenta, state, windows))
    return torch.cat(rq), torch.cat(rp)


def stretched(chi: Displacement, state: PhaseState, momenta: Tensor, reach: float = 0.02) -> Tensor:
    """(1 + ∇∇W M⁻¹) P with the product as a central difference of ∇W; the fastest atom is moved by `reach` Å.

    ∇∇W M⁻¹P ≈ [∇W(q + τ M⁻¹P) − ∇W(q − τ M⁻¹P)]/2τ
    """
    v = state.inverse_masses * momenta
    tau = reach / float(v.detach().square().sum(1).max().sqrt().clamp_min(1e-12))
    ahead = chi.shift(state.moved(state.positions + tau * v, state.momenta))
    behind = chi.shift(state.moved(state.positions - tau * v, state.momenta))
    return momenta + state.masses.unsqueeze(1) * (ahead - behind) / (2.0 * tau)


def rough_momenta(chi: Displacement, state: PhaseState, rounds: int = 3) -> Tensor:
    """P = (1 + ∇∇W M⁻¹)⁻¹ p by minimal residuals, good to about a thousandth; χ is near the identity."""
    root = state.masses.sqrt().unsqueeze(1)
    y = state.momenta / root
    r = y - stretched(chi, state, y * root) / root
    for _ in range(rounds):
        Ar = stretched(chi, state, r * root) / root
        alpha = state.sum_by_system((r * Ar).sum(1)) / state.sum_by_system((Ar * Ar).sum(1)).clamp_min(1e-30)
        step = alpha[state.system].unsqueeze(1)
        y, r = y + step * r, r - step * Ar
    return y * root


def _position_residual(miss: Tensor, step_fs: float, state: PhaseState, windows: Windows) -> Tensor:
    weight = state.masses.sqrt() / (step_fs * FEMTOSECOND * windows.scale_q.sqrt()[state.system])
    return _free(miss * weight.unsqueeze(1), state)


def _momentum_residual(miss: Tensor, state: PhaseState, windows: Windows) -> Tensor:
    return _free(miss / (state.masses * windows.scale_p[state.system]).sqrt().unsqueeze(1), state)


def _free(residual: Tensor, state: PhaseState) -> Tensor:
    return residual[~state.fixed] if state.has_fixed else residual


def _loss(rq: Tensor, rp: Tensor) -> Tensor:
    return 0.5 * (rq.square().mean() + rp.square().mean())


# --- what is reported -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class StepErrors:
    """Relative errors of one step in physical variables, rms(√m δq)/rms(√m Δq) and rms(δp/√m)/rms(Δp/√m)."""

    position: float
    momentum: float
    windows: int

    def __str__(self) -> str:
        """Both in per cent."""
        return f"dq {100 * self.position:.3f} %, dp {100 * self.momentum:.3f} %"


def step_errors(model: Any, data: Dataset, *, windows: int = 64, atoms: int = 1024) -> StepErrors:
    """One-step errors of the real map, χ and solvers included, on windows spread evenly over a set; float64."""
    sums = torch.zeros(4, dtype=torch.float64)
    indices = data.even(windows)
    size = max(1, atoms // max(s.system.n_atoms for s in data.stretches))
    if hasattr(model, "forget"):
        model.forget()
    for k in range(0, len(indices), size):
        batch = data.windows(indices[k : k + size])
        first, target = batch.frames[:2]
        look_around(model, batch)
        with torch.no_grad():
            end = model.step(first)
        m = first.masses.unsqueeze(1)
        sums += torch.stack(
            [
                (m * (end.positions - target.positions) ** 2).sum(),
                (m * (target.positions - first.positions) ** 2).sum(),
                ((end.momenta - target.momenta) ** 2 / m).sum(),
                ((target.momenta - first.momenta) ** 2 / m).sum(),
            ]
        )
    relative = (sums[0::2] / sums[1::2]).sqrt()
    return StepErrors(float(relative[0]), float(relative[1]), len(indices))
