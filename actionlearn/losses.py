"""What training makes small: residuals of a map on recorded windows, mass-weighted and without units.

Every residual is an error of momentum per sqrt(mass), divided by what a step does beyond free flight (`Windows`):

    r_q = sqrt(m)·δq/(h·s_q),      r_p = δp/(sqrt(m)·s_p),      loss = ½⟨r_q²⟩ + ½⟨r_p²⟩

Measured against the whole displacement, h p/m included, a position error would look harmless that turns within a
step into a momentum error of its size; measured against the displacement beyond free flight it weighs the same.
Free flight itself scores about one, whatever the step, the temperature and the masses.

The value of the action is a label besides its derivatives: what a map's action S says of a window differs from the
recorded A by a constant c at most, for potentials have one,

    r_A = (S − A − c)/(h·s_p²·sqrt(n)),      loss += ½·weight·⟨r_A²⟩

with n the degrees of freedom of a system and c fitted to the systems of a batch that have the same composition.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from actionlearn.dataset import Dataset, Windows
from actionlearn.errors import InvalidInput
from actionlearn.maps import DiscreteAction, Displacement, ProcessedAction
from actionlearn.neighbours import without_history
from actionlearn.networks import AtomicNetwork
from actionlearn.potentials.protocol import Potential
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND


def window_length(model: Any) -> int:
    """Frames of a window that the loss of this map takes at least."""
    return 4 if model.kind == "processed" and model.stages == 1 else 2


def map_loss(model: Any, windows: Windows, action: float = 0.0) -> Tensor:
    """The loss of a map of any kind; `action` is the weight of the action's value."""
    value = action > 0.0
    if model.kind == "processed":
        rq, rp, miss = processed_residuals(model, windows, value)
    else:
        look_around(model, windows)
        residuals = midpoint_residuals if model.kind == "midpoint" else unrolled_residuals
        rq, rp, miss = residuals(model, windows, value)
    loss = 0.5 * (rq.square().mean() + rp.square().mean())
    if miss:
        loss = loss + 0.5 * action * action_residual(torch.stack(miss), windows, model.step_fs).square().mean()
    return loss


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
        for module in model.modules() if isinstance(model, torch.nn.Module) else ():
            if isinstance(module, AtomicNetwork):
                module.neighbours(centre)
        if model.kind == "corrected":
            model.base.forces(centre)


# --- residuals: of positions, of momenta, and if asked S − A for every step of the window ------------

Residuals = tuple[Tensor, Tensor, list[Tensor]]


def unrolled_residuals(model: Any, windows: Windows, value: bool = False) -> Residuals:
    """The map run from the first frame, compared with every later one."""
    state = windows.frames[0]
    rq, rp, miss = [], [], []
    for n, target in enumerate(windows.frames[1:]):
        if value:
            points, state = model.path(state)
            miss.append(_action_miss(model, points, state, windows.frames[n], target) - windows.action[n])
        else:
            state = model.step(state)
        rq.append(_position_residual(state.positions - target.positions, model.step_fs, state, windows))
        rp.append(_momentum_residual(state.momenta - target.momenta, state, windows))
    return torch.cat(rq), torch.cat(rp), miss


def midpoint_residuals(model: Any, windows: Windows, value: bool = False) -> Residuals:
    """Δq = ∂S/∂p̄ and Δp = −∂S/∂q̄ at the midpoints of recorded ends: no equation is solved.

    The value of S is p̄·Δq − A.
    """
    h = model.step_fs * FEMTOSECOND
    rq, rp, miss = [], [], []
    for n, (first, last) in enumerate(zip(windows.frames[:-1], windows.frames[1:], strict=True)):
        q = (0.5 * (first.positions + last.positions)).requires_grad_()
        p = (0.5 * (first.momenta + last.momenta)).requires_grad_()
        dq, dp = model.derivatives(first.moved(q, p), create_graph=True)
        dq = dq + h * first.inverse_masses * p.detach()
        rq.append(_position_residual(dq - (last.positions - first.positions), model.step_fs, first, windows))
        rp.append(_momentum_residual(dp - (last.momenta - first.momenta), first, windows))
        if value:
            mid = first.moved(q.detach(), p.detach())
            dot = _dot(mid.momenta, last.positions - first.positions, first)
            miss.append(dot - model.action(mid) - windows.action[n])
    return torch.cat(rq), torch.cat(rp), miss


def processed_residuals(model: ProcessedAction, windows: Windows, value: bool = False) -> Residuals:
    """Ψ(χ(z)) − χ(z') of the processed map, in its own variables: nothing is inverted.

        Q = q + M⁻¹∇W(q),      P = p − ∇∇W(q) M⁻¹P*

    P* is P without gradients. With one stage it comes for nearly nothing from the neighbours of a frame,
    P* = M (Q_{n+1} − Q_{n−1})/2h, for that is what Ψ makes of P: the error of P is the product of two small ones. It
    needs a frame more at both ends. With more stages P* is solved for roughly. The product with ∇∇W is a
    difference, so only first derivatives of the network are differentiated. Both maps keep volume, so Ψχ = χ cannot
    become true trivially.

    Positions alone would not do: Q_n that obey Ψ exactly are to be had from many W (for a harmonic mode from any),
    and the momenta p_n say which.
    """
    chi, h = model.displacement, model.step_fs * FEMTOSECOND
    frames, edge = windows.frames, 1 if model.stages == 1 else 0
    if len(frames) < 2 + 2 * edge:
        raise InvalidInput(
            f"the processed map of {model.stages} stage(s) takes windows of {2 + 2 * edge} frames or more, "
            f"not {len(frames)}"
        )
    with torch.no_grad(), without_history():  # the outer frames are far enough for neighbours of their own
        outer = [state.positions + chi.shift(state) for state in (frames[0], frames[-1])][: 2 * edge]
    look_around(model, windows)
    frames = frames[edge : len(frames) - edge]
    shifts = [chi.shift(state) for state in frames]
    inner = [state.positions + shift for state, shift in zip(frames, shifts, strict=True)]
    m, Q = frames[0].masses.unsqueeze(1), [*outer[:1], *inner, *outer[1:]]
    inside = []
    for k, state in enumerate(frames):
        with torch.no_grad():
            P = m * (Q[k + 2] - Q[k]) / (2.0 * h) if edge else rough_momenta(chi, state, shifts[k])
        lift = stretched(chi, state, shifts[k], P) - P
        inside.append(state.moved(inner[k], state.momenta - lift))
    state = inside[0]
    rq, rp, miss = [], [], []
    for n, target in enumerate(inside[1:]):
        if value:
            points, state = model.inner.path(state)
            miss.append(_action_miss(model.inner, points, state, inside[n], target) - windows.action[edge + n])
        else:
            state = model.inner.step(state)
        rq.append(_position_residual(state.positions - target.positions, model.step_fs, state, windows))
        rp.append(_momentum_residual(state.momenta - target.momenta, state, windows))
    return torch.cat(rq), torch.cat(rp), miss


def stretched(chi: Displacement, state: PhaseState, shift: Tensor, momenta: Tensor, reach: float = 0.005) -> Tensor:
    """(1 + ∇∇W M⁻¹) P with the product as a difference of ∇W; the fastest atom is moved by `reach` Å.

    ∇∇W M⁻¹P ≈ [∇W(q + τ M⁻¹P) − ∇W(q)]/τ, where `shift` is M⁻¹∇W(q)
    """
    v = state.inverse_masses * momenta
    tau = reach / float(v.detach().square().sum(1).max().sqrt().clamp_min(1e-12))
    ahead = chi.shift(state.moved(state.positions + tau * v, state.momenta))
    return momenta + state.masses.unsqueeze(1) * (ahead - shift) / tau


def rough_momenta(chi: Displacement, state: PhaseState, shift: Tensor, rounds: int = 3) -> Tensor:
    """P = (1 + ∇∇W M⁻¹)⁻¹ p by minimal residuals, good to about a thousandth; χ is near the identity."""
    root = state.masses.sqrt().unsqueeze(1)
    y = state.momenta / root
    r = y - stretched(chi, state, shift, y * root) / root
    for _ in range(rounds):
        Ar = stretched(chi, state, shift, r * root) / root
        alpha = state.sum_by_system((r * Ar).sum(1)) / state.sum_by_system((Ar * Ar).sum(1)).clamp_min(1e-30)
        step = alpha[state.system].unsqueeze(1)
        y, r = y + step * r, r - step * Ar
    return y * root


def action_residual(miss: Tensor, windows: Windows, step_fs: float) -> Tensor:
    """S − A, (steps, systems), without the constant of each composition, and without units."""
    first = windows.frames[0]
    free = first.sum_by_system((~first.fixed).to(miss.dtype)) * first.positions.shape[1]
    unit = step_fs * FEMTOSECOND * windows.scale_p * free.sqrt()
    compositions, alike = torch.unique(composition(first), dim=0, return_inverse=True)
    weight = unit**-2
    total, norm = (weight.new_zeros(len(compositions)).index_add(0, alike, w) for w in (weight * miss.mean(0), weight))
    return (miss - (total / norm)[alike]) / unit


def _action_miss(
    model: DiscreteAction, points: list[PhaseState], end: PhaseState, first: PhaseState, last: PhaseState
) -> Tensor:
    """S_d between the recorded ends `first` and `last`, from the path of a map that begins and ends near them.

        S_d(q_first, q_last) = S_d(path) + p̄·(q_last − q_end) − p̄·(q_first − q_start) + O(miss³)

    with p̄ the mean of both momenta, for ∂S_d/∂q are the momenta at the ends. The path is stationary: moving its points
    changes nothing, so gradients need not pass through them, only through the potentials at them.
    """
    S = model.action([point.detach() for point in points])
    for sign, recorded, mine in ((1.0, last, end), (-1.0, first, points[0])):
        p = 0.5 * (recorded.momenta + mine.momenta).detach()
        S = S + sign * _dot(p, recorded.positions - mine.positions.detach(), mine)
    return S


def _dot(a: Tensor, b: Tensor, state: PhaseState) -> Tensor:
    return state.sum_by_system((a * b).sum(1))


def _position_residual(miss: Tensor, step_fs: float, state: PhaseState, windows: Windows) -> Tensor:
    weight = state.masses.sqrt() / (step_fs * FEMTOSECOND * windows.scale_q.sqrt()[state.system])
    return _free(miss * weight.unsqueeze(1), state)


def _momentum_residual(miss: Tensor, state: PhaseState, windows: Windows) -> Tensor:
    return _free(miss / (state.masses * windows.scale_p[state.system]).sqrt().unsqueeze(1), state)


def _free(residual: Tensor, state: PhaseState) -> Tensor:
    return residual[~state.fixed] if state.has_fixed else residual


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


def step_errors(
    model: Any,
    data: Dataset,
    *,
    windows: int = 64,
    atoms: int = 1024,
    steps: int = 1,
    device: torch.device | str = "cpu",
) -> StepErrors:
    """One-step errors of the real map, χ and solvers included, on windows spread evenly over a set; float64.

    Of a map whose steps are shorter than those of the set, `steps` of them are compared with one.
    """
    sums = torch.zeros(4, dtype=torch.float64)
    indices = data.even(windows)
    size = max(1, atoms // max(s.system.n_atoms for s in data.stretches))
    if hasattr(model, "forget"):
        model.forget()
    for k in range(0, len(indices), size):
        batch = data.windows(indices[k : k + size], device=device)
        first, target = batch.frames[:2]
        look_around(model, batch)
        with torch.no_grad():
            end = model.step(first) if steps == 1 else model.step(first, steps)
        m = first.masses.unsqueeze(1)
        sums += torch.stack(
            [
                (m * (end.positions - target.positions) ** 2).sum(),
                (m * (target.positions - first.positions) ** 2).sum(),
                ((end.momenta - target.momenta) ** 2 / m).sum(),
                ((target.momenta - first.momenta) ** 2 / m).sum(),
            ]
        ).cpu()
    relative = (sums[0::2] / sums[1::2]).sqrt()
    return StepErrors(float(relative[0]), float(relative[1]), len(indices))


@dataclasses.dataclass(frozen=True)
class ForceErrors:
    """How far a potential is from the recorded forces and energies.

    | field        | unit    | meaning                                                                  |
    |--------------|---------|--------------------------------------------------------------------------|
    | `rms`        | eV/Å    | of a component of the force on an atom that moves                        |
    | `relative`   |         | rms(δF/√m)/rms(F/√m): what a small step's kick gets wrong                |
    | `energy`     | eV/atom | rms, beyond a constant for each composition                              |
    | `frames`     |         |                                                                          |
    """

    rms: float
    relative: float
    energy: float
    frames: int

    def __str__(self) -> str:
        """In meV and per cent."""
        return f"{1e3 * self.rms:.3g} meV/Å, {100 * self.relative:.3g} %, energies {1e3 * self.energy:.3g} meV/atom"


@torch.no_grad()
def force_errors(
    potential: Potential, data: Dataset, *, frames: int = 64, atoms: int = 1024, device: torch.device | str = "cpu"
) -> ForceErrors:
    """Errors of a potential on frames spread evenly over a set; float64."""
    indices = data.even(frames)
    size = max(1, atoms // max(s.system.n_atoms for s in data.stretches))
    sums, count = torch.zeros(3, dtype=torch.float64), 0
    misses, contents = [], []
    for k in range(0, len(indices), size):
        batch = data.windows(indices[k : k + size], device=device)
        state, recorded = batch.frames[0], batch.forces[0]
        free = ~state.fixed
        miss, m = (potential.forces(state) - recorded)[free], state.masses[free].unsqueeze(1)
        sums += torch.stack([miss.square().sum(), (miss**2 / m).sum(), (recorded[free] ** 2 / m).sum()]).cpu()
        count += miss.numel()
        n_atoms = state.atoms_per_system
        misses.append(((potential.energy(state) - batch.energies[0]) / n_atoms).cpu())
        contents.append(composition(state).to(misses[-1]))
    sizes = max(c.shape[1] for c in contents)
    contents = [torch.nn.functional.pad(c, (0, sizes - c.shape[1])) for c in contents]
    miss = torch.cat(misses)
    _, alike = torch.unique(torch.cat(contents), dim=0, return_inverse=True)
    members = torch.bincount(alike)
    mean = miss.new_zeros(len(members)).index_add(0, alike, miss) / members
    return ForceErrors(
        rms=float((sums[0] / count).sqrt()),
        relative=float((sums[1] / sums[2]).sqrt()),
        energy=float((miss - mean[alike]).square().mean().sqrt()),
        frames=len(indices),
    )


def composition(state: PhaseState) -> Tensor:
    """How many atoms of every element a system holds, (systems, elements)."""
    content = state.positions.new_zeros(state.n_systems, int(state.numbers.max()) + 1)
    return content.index_put_((state.system, state.numbers), content.new_ones(()), accumulate=True)
