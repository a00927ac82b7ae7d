"""The processed discrete action: an explicit step in variables that a learned displacement makes better ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from actionlearn.errors import NotConverged
from actionlearn.maps.discrete import DiscreteAction
from actionlearn.maps.guard import Masses
from actionlearn.potentials.protocol import Potential, weights_seen
from actionlearn.state import PhaseState
from actionlearn.stepping import guarded
from actionlearn.units import FEMTOSECOND


class Displacement(nn.Module):
    """The change of variables χ: the cotangent lift of a small learned displacement of the positions.

        Q = q + M⁻¹∇W(q),    P = (1 + ∇∇W(q) M⁻¹)⁻¹ p,    W = h² w

    | symbol | variable    | unit            |
    |--------|-------------|-----------------|
    | w      | `potential` | eV              |
    | h      | `step_fs`   | fs              |
    | M⁻¹∇W  | `shift(q)`  | Å, −h² F_w / m  |

    Symplectic for every w; commutes with the momentum flip; keeps total and angular momentum if w is invariant.
    Invertible while 1 + M^{-1/2}∇∇W M^{-1/2} is positive definite: both directions solve to `tolerance` (relative)
    and raise `NotConverged` where it is not. Fixed atoms stay. Differentiable by implicit differentiation.
    """

    def __init__(self, potential: Potential, *, step_fs: float, tolerance: float = 1e-13) -> None:
        """A displacement made of the potential w for the long step h."""
        super().__init__()
        self.potential, self.step_fs, self.tolerance = potential, float(step_fs), tolerance

    def shift(self, state: PhaseState) -> Tensor:
        """M⁻¹∇W(q), (atoms, dims), Å."""
        h = self.step_fs * FEMTOSECOND
        return -(h**2) * state.inverse_masses * self.potential.forces(state)

    def stretch(self, state: PhaseState, momenta: Tensor) -> Tensor:
        """(1 + ∇∇W(q) M⁻¹) P by one Hessian-vector product, differentiable where the input is."""
        outer = torch.is_grad_enabled()
        q = state.positions if state.positions.requires_grad and outer else state.positions.detach().requires_grad_()
        with torch.enable_grad():
            # the displacement times m is ∇W; its derivative along M⁻¹P is the product asked for
            gradient = self.shift(state.moved(q, state.momenta))
            if not gradient.requires_grad:  # a displacement that is the same everywhere
                return momenta
            (product,) = torch.autograd.grad(
                gradient,
                q,
                momenta if outer else momenta.detach(),
                create_graph=outer and (q is state.positions or momenta.requires_grad or self._trains()),
            )
        return momenta + (product.masked_fill(state.fixed.unsqueeze(1), 0.0) if state.has_fixed else product)

    def enter(self, state: PhaseState) -> PhaseState:
        """χ: physical to processed variables."""
        q, p = state.positions, state.momenta
        Q = q + self.shift(state)
        P = self._solve(state, p.detach())
        if torch.is_grad_enabled() and (q.requires_grad or p.requires_grad or self._trains()):
            P = P + _ImplicitSolve.apply(p - self.stretch(state, P), self, state.detach(), True)
        return state.moved(Q, P)

    def leave(self, state: PhaseState) -> PhaseState:
        """χ⁻¹: processed to physical variables."""
        Q, P = state.positions, state.momenta
        at = state.detach()
        target, size = at.positions, None
        for _ in range(30):
            miss = target - at.positions - self.shift(at).detach()
            size = float(miss.abs().max())
            if size <= self._tolerance(target) * float(target.abs().max().clamp_min(1.0)):
                break
            # inexact Newton: each round gains four digits, and rounds are checked, so solving further is wasted
            at = at.moved(at.positions + self._solve(at, miss, transpose=True, tolerance=1e-4), at.momenta)
        else:
            raise NotConverged(
                f"the inverse of the change of variables stopped {size:.1e} Å short after 30 Newton iterations: "
                "the state lies where the displacement is not invertible; shorten the step, or train the model there",
                residual=float(size or 0.0),
                tolerance=self.tolerance,
                iterations=30,
            )
        q = at.positions
        if torch.is_grad_enabled() and (Q.requires_grad or self._trains()):
            q = q + _ImplicitSolve.apply(Q - q - self.shift(at), self, at, False)
        here = state.moved(q, P)
        return state.moved(q, self.stretch(here, P))

    def _trains(self) -> bool:
        return any(w.requires_grad for w in self.parameters())

    def _solve(self, state: PhaseState, rhs: Tensor, transpose: bool = False, tolerance: float = 0.0) -> Tensor:
        """(1 + ∇∇W M⁻¹)⁻¹ rhs, or its transpose (1 + M⁻¹∇∇W)⁻¹ rhs, by conjugate gradients.

        With y = M^{-1/2} x both are one symmetric system, (1 + M^{-1/2}∇∇W M^{-1/2}) y = M^{∓1/2} rhs.
        """
        state = state.detach()
        root = state.masses.sqrt().unsqueeze(1)
        scale = 1.0 / root if transpose else root

        def product(y: Tensor) -> Tensor:
            with torch.no_grad():
                return self.stretch(state, y * root) / root

        return conjugate_gradients(product, rhs.detach() / scale, state, max(tolerance, self._tolerance(rhs))) * scale

    def _tolerance(self, like: Tensor) -> float:
        """What was asked for, or what the precision allows."""
        return max(self.tolerance, 8.0 * torch.finfo(like.dtype).eps)


class _ImplicitSolve(torch.autograd.Function):
    """x = A⁻¹ b with A held constant; backward solves with the transpose."""

    @staticmethod
    def forward(ctx: Any, b: Tensor, chi: Displacement, state: PhaseState, momenta: bool) -> Tensor:
        """Solve with 1 + ∇∇W M⁻¹ for momenta, with its transpose for positions."""
        ctx.chi, ctx.state, ctx.momenta = chi, state, momenta
        return chi._solve(state, b, transpose=not momenta)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Aᵀ⁻¹ g."""
        return ctx.chi._solve(ctx.state, grad, transpose=ctx.momenta), None, None, None


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], rhs: Tensor, state: PhaseState, tolerance: float, most: int = 200
) -> Tensor:
    """Solve A y = rhs for symmetric positive definite A, each system of the batch on its own.

    Raises `NotConverged` on negative curvature, which means that A is not positive definite.
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return state.sum_by_system((a * b).sum(1))

    def spread(values: Tensor) -> Tensor:
        return values[state.system].unsqueeze(1)

    y, r = torch.zeros_like(rhs), rhs
    d, rr = r, dot(r, r)
    goal = rr * tolerance**2
    tiny = torch.finfo(rhs.dtype).tiny
    for iteration in range(most):
        active = rr > goal
        if not bool(active.any()):
            return y
        Ad = product(d)
        curvature = dot(d, Ad)
        if bool((active & (curvature <= 0)).any()) or not bool(torch.isfinite(curvature).all()):
            raise NotConverged(
                "the change of variables is not invertible here (1 + ∇∇W M⁻¹ is not positive definite): "
                "the displacement is too large for this state; shorten the step, or train the model there",
                residual=float((rr / goal.clamp_min(tiny)).max().sqrt() * tolerance),
                tolerance=tolerance,
                iterations=iteration,
            )
        alpha = torch.where(active, rr / curvature.clamp_min(tiny), 0.0)
        y = y + spread(alpha) * d
        r = r - spread(alpha) * Ad
        rr, before = dot(r, r), rr
        d = r + spread(torch.where(active, rr / before.clamp_min(tiny), 0.0)) * d
    worst = float((rr / goal.clamp_min(tiny)).max().sqrt() * tolerance)
    if worst > 100 * tolerance:
        raise NotConverged(
            f"the linear solve of the displacement stopped at {worst:.1e} after {most} steps, not {tolerance:.1e}",
            residual=worst,
            tolerance=tolerance,
            iterations=most,
        )
    return y


class ProcessedAction(nn.Module):
    """A discrete action conjugated by a change of variables, Φ = χ⁻¹ ∘ Ψ ∘ χ.

    Φⁿ = χ⁻¹ Ψⁿ χ: χ is applied when a run starts and inverted when a frame is looked at, so a step costs what Ψ
    costs. Positions and momenta that go in and come out are physical. A state that came out and goes in again
    untouched does not pass through χ. Symplectic, reversible, explicit but for the inverse.
    """

    kind = "processed"

    def __init__(self, inner: DiscreteAction, displacement: Displacement) -> None:
        """Run `inner` (Ψ) in the variables of `displacement` (χ)."""
        super().__init__()
        self.inner, self.displacement = inner, displacement
        self._last: tuple[PhaseState, PhaseState, tuple[object, ...]] | None = None

    @property
    def step_fs(self) -> float:
        """The long step, fs."""
        return self.inner.step_fs

    @property
    def stages(self) -> int:
        """Kicks, and so gradients, a step."""
        return self.inner.stages

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers it was made for; empty if it does not matter."""
        return self.inner.species

    @property
    def masses(self) -> Masses:
        """Masses it was made for."""
        return self.inner.masses

    def forward(self, state: PhaseState) -> PhaseState:
        """One step."""
        return self.step(state)

    @guarded
    def step(self, state: PhaseState, n: int = 1) -> PhaseState:
        """N long steps, physical variables in and out."""
        self.inner.guard.check(state)
        inside = self.inner.step(self.enter(state), n)
        return self.leave(inside)

    def enter(self, state: PhaseState) -> PhaseState:
        """χ, or what is remembered of it."""
        if self._last is not None and not (torch.is_grad_enabled() and self._asks_gradients(state)):
            outside, inside, versions = self._last
            same = outside.positions is state.positions and outside.momenta is state.momenta
            same = same and outside.cell is state.cell and outside.numbers is state.numbers
            if same and versions == self._versions(state):
                return inside
        return self.displacement.enter(state)

    def leave(self, inside: PhaseState) -> PhaseState:
        """χ⁻¹."""
        outside = self.displacement.leave(inside)
        self._last = None
        if not (outside.positions.requires_grad or outside.momenta.requires_grad):
            self._last = (outside, inside, self._versions(outside))
        return outside

    def _versions(self, state: PhaseState) -> tuple[object, ...]:
        return state.positions._version, state.momenta._version, weights_seen(self)

    def _asks_gradients(self, state: PhaseState) -> bool:
        leaves = (state.positions, state.momenta, *self.parameters())
        return any(tensor.requires_grad for tensor in leaves)

    def forget(self) -> None:
        """Drop what is remembered; call it after changing a potential that is no module in place."""
        self._last = None
        self.inner.forget()
