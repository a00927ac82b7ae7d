"""The midpoint action: one scalar of the midpoint gives an implicit, symplectic, reversible large step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from actionlearn.errors import InvalidInput, NonFinite, NotConverged
from actionlearn.maps.guard import Masses, SystemGuard
from actionlearn.maps.implicit_derivative import implicit_output
from actionlearn.maps.midpoint_equation import MidpointEquation
from actionlearn.potentials.protocol import refuse_forward_mode
from actionlearn.solver import FixedPointSolver, Solution, SolverStatistics
from actionlearn.state import PhaseState
from actionlearn.stepping import guarded
from actionlearn.units import FEMTOSECOND

Predictor = Callable[[PhaseState], PhaseState]

RECYCLED_PAIRS = 48


class MidpointScalar(Protocol):
    """The learned part of S/h: an energy per system, eV, of positions and momenta at the midpoint."""

    def energy(self, state: PhaseState) -> Tensor:
        """One number per system, even in the momenta for a reversible map."""
        ...


class MidpointAction(nn.Module):
    """A large step from the Poincaré generating function at the midpoint.

        S(q̄, p̄) = h·[Σ p̄²/2m + G(q̄, p̄)]
        Δq = ∂S/∂p̄        Δp = −∂S/∂q̄        q̄ = q + Δq/2,  p̄ = p + Δp/2

    | symbol | variable            | shape         | unit          |
    |--------|---------------------|---------------|---------------|
    | h      | `step`              |               | Å·sqrt(u/eV)  |
    | G      | `scalar.energy`     | (systems,)    | eV            |
    | q̄, p̄   | `q_mid`, `p_mid`    | (atoms, dims) | Å, sqrt(u·eV) |
    | Δq, Δp | `dq`, `dp`          | (atoms, dims) | Å, sqrt(u·eV) |

    Symplectic for every smooth G. Reversible if and only if G is even in the momenta. Keeps total and angular
    momentum if G is invariant under translation and rotation, and moves the centre of mass exactly if G sees
    momenta through relative velocities only; all three are the scalar's business and are not enforced here.
    G = V is the implicit midpoint rule, of second order. Reference: Bigi, Spies and Ceriotti, arXiv 2508.01068.

    The equations are solved to `tolerance`, mass-weighted, per degree of freedom and relative to the step. Each
    trial solves the drift with the new momenta, Δp = −h·∂G/∂q̄ first and then Δq = h·(p + Δp/2)/m + h·∂G/∂p̄,
    which halves the evaluations of taking both from the old ones. A mode that turns by ωh in a step multiplies
    the error of plain iteration by tan(ωh/2): there is no solution at ωh = π, half a period.
    """

    kind = "midpoint"
    step_fs: float
    stages = 1

    def __init__(
        self,
        scalar: MidpointScalar | Callable[[PhaseState], Tensor],
        *,
        step_fs: float,
        tolerance: float = 1e-10,
        guess: str | Predictor = "free flight",
        half: MidpointAction | None = None,
        solver: FixedPointSolver | None = None,
        species: Sequence[int] = (),
        masses: Masses | None = None,
    ) -> None:
        """Make the map of one scalar, an object with `energy(state)` or a plain function or module, and one step.

        `guess` is where the solver starts: "free flight"; "extrapolation" from secant pairs of the steps before,
        which pays for nearly harmonic motion and costs a little for hot matter; or any callable state -> state such
        as a Verlet step. The converged result does not depend on it; where it leads nowhere, free flight is tried.
        `half`, a map of half the step, takes two steps
        in place of one that does not converge. `solver` replaces the default solver (and its tolerance).
        """
        if not (math.isfinite(step_fs) and step_fs > 0):
            raise InvalidInput(f"step_fs must be positive and finite, not {step_fs}")
        if isinstance(guess, str) and guess not in ("free flight", "extrapolation"):
            raise InvalidInput(f"guess must be 'free flight', 'extrapolation' or a callable, not {guess!r}")
        if half is not None and not math.isclose(2.0 * half.step_fs, step_fs, rel_tol=1e-9):
            raise InvalidInput(f"half must have half the step, {0.5 * step_fs} fs, but it has {half.step_fs} fs")
        if not (hasattr(scalar, "energy") or callable(scalar)):
            raise InvalidInput(
                f"the scalar must have energy(state) or be a function of the state, not a {type(scalar).__name__}"
            )
        super().__init__()
        self.scalar = scalar
        self.species, self.masses = tuple(species), dict(masses or {})
        self.guard = SystemGuard(self.species, self.masses)
        self.step_fs = float(step_fs)
        self.guess = guess
        self.half_step = half
        recycle = RECYCLED_PAIRS if guess == "extrapolation" else 0
        self.solver = FixedPointSolver(tolerance=tolerance, recycle=recycle) if solver is None else solver
        if guess == "extrapolation" and self.solver.recycle == 0:
            raise InvalidInput("guess='extrapolation' needs a solver that keeps pairs: give it recycle=40 or so")
        self.halved = 0
        self._system: tuple[Tensor, ...] = ()

    @property
    def tolerance(self) -> float:
        """Residual asked for, relative to the step."""
        return self.solver.tolerance

    @property
    def statistics(self) -> SolverStatistics:
        """Evaluations (one gradient of the scalar each) and residuals so far."""
        return self.solver.statistics

    def forward(self, state: PhaseState) -> PhaseState:
        """One step."""
        return self.step(state)

    @guarded
    def step(self, state: PhaseState, n: int = 1) -> PhaseState:
        """The state n steps later; differentiable if it asks for gradients or the scalar is being trained."""
        self.guard.check(state)
        refuse_forward_mode(state)
        for _ in range(n):
            state = self._converged(state)
        return state

    def correct(self, state: PhaseState, predicted: PhaseState, iterations: int | None = None) -> PhaseState:
        """The step from `state` after so many solver iterations from a predicted end; None converges.

        Nothing is carried over between calls. After a finite number of iterations the map is not symplectic.
        """
        self.guard.check(state)
        if iterations == 0:
            return predicted
        equation = MidpointEquation(self.derivatives, state.detach(), self.step_fs * FEMTOSECOND)
        solver = FixedPointSolver(
            tolerance=self.solver.tolerance,
            memory=self.solver.memory,
            recycle=0,
            truncation=self.solver.truncation,
            max_evaluations=self.solver.max_evaluations,
            patience=self.solver.patience,
        )
        solver.statistics = self.solver.statistics
        solution = self._solve(solver, equation, equation.guess_from(predicted.detach()), iterations)
        if iterations is None:
            return self._finish(state, equation, solution)
        half_q, half_p = equation.halves(solution.values)
        return state.moved(state.positions + 2.0 * half_q, state.momenta + 2.0 * half_p)

    def forget(self) -> None:
        """Drop what the solver has kept from earlier steps, as in a process that has just started."""
        self.solver.forget()
        if self.half_step is not None:
            self.half_step.forget()

    # --- one step ---------------------------------------------------------------------------------

    def _converged(self, state: PhaseState) -> PhaseState:
        equation = MidpointEquation(self.derivatives, state.detach(), self.step_fs * FEMTOSECOND)
        self._recognise(state)
        try:
            guess, free = self._first_guess(equation), equation.free_flight()
            try:
                solution = self._solve(self.solver, equation, guess)
            except (NonFinite, NotConverged):
                if torch.equal(guess, free):
                    raise
                self.solver.forget()  # led astray by its guess or by stale pairs: once more without them
                solution = self._solve(self.solver, equation, free)
        except NotConverged:
            if self.half_step is None:
                raise
            if state.n_systems > 1:
                return PhaseState.batch([self._converged(one) for one in state.unbatch()])
            self.halved += 1
            return self.half_step.step(state, 2)
        return self._finish(state, equation, solution)

    def _solve(
        self, solver: FixedPointSolver, equation: MidpointEquation, start: Tensor, iterations: int | None = None
    ) -> Solution:
        return solver.solve(
            equation,
            equation.origin,
            start,
            floor=equation.floor(solver.tolerance),
            iterations=iterations,
            advice=lambda: _advice(equation.fastest_turn(), self.step_fs),
        )

    def _finish(self, state: PhaseState, equation: MidpointEquation, solution: Solution) -> PhaseState:
        half_q, half_p = equation.halves(solution.values)
        dq, dp = 2.0 * half_q, 2.0 * half_p
        trained = any(w.requires_grad for w in self.parameters())
        if torch.is_grad_enabled() and (trained or state.positions.requires_grad or state.momenta.requires_grad):
            dq, dp = implicit_output(self.derivatives, state, *equation.halves(solution.points), equation.step)
        return state.moved(state.positions + dq, state.momenta + dp)

    def derivatives(self, mid: PhaseState, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """∂S/∂p̄ without its kinetic part h·p̄/m, and −∂S/∂q̄; zero for fixed atoms."""
        with torch.enable_grad():
            q_mid, p_mid = mid.positions, mid.momenta
            if not create_graph:
                q_mid, p_mid = q_mid.detach().requires_grad_(), p_mid.detach().requires_grad_()
            energy: Any = getattr(self.scalar, "energy", self.scalar)
            S = self.step_fs * FEMTOSECOND * energy(mid.moved(q_mid, p_mid)).sum()
            dS_dq, dS_dp = (
                torch.autograd.grad(S, (q_mid, p_mid), create_graph=create_graph, allow_unused=True)
                if S.requires_grad
                else (None, None)
            )
        dS_dq = torch.zeros_like(q_mid) if dS_dq is None else dS_dq
        dS_dp = torch.zeros_like(p_mid) if dS_dp is None else dS_dp
        if mid.has_fixed:
            held = mid.fixed.unsqueeze(1)
            dS_dq, dS_dp = dS_dq.masked_fill(held, 0.0), dS_dp.masked_fill(held, 0.0)
        return dS_dp, -dS_dq

    def action(self, mid: PhaseState) -> Tensor:
        """S(q̄, p̄) of midpoints, (systems,), Å·sqrt(u·eV)."""
        G: Any = getattr(self.scalar, "energy", self.scalar)
        return self.step_fs * FEMTOSECOND * (mid.kinetic_energy() + G(mid))

    # --- first guess ------------------------------------------------------------------------------

    def _first_guess(self, equation: MidpointEquation) -> Tensor:
        free = equation.free_flight()
        if callable(self.guess):
            guess = equation.guess_from(self.guess(equation.state).detach())
            return torch.where(torch.isfinite(guess).all(1, keepdim=True), guess, free)
        predicted = self.solver.predict(equation.origin) if self.guess == "extrapolation" else None
        if predicted is None:
            return free
        # far-fetched extrapolations, as after a jump to another structure, are not worth a try
        modest = predicted.norm(dim=1) <= 10.0 * (free.norm(dim=1) + equation.thermal())
        return torch.where(modest.unsqueeze(1), predicted, free)

    def _recognise(self, state: PhaseState) -> None:
        """Let the solver forget when other systems come along."""
        now = (state.masses, state.numbers, state.system, state.fixed, state.cell)
        if len(self._system) != len(now) or not all(
            old is new or (old.shape == new.shape and torch.equal(old, new))
            for old, new in zip(self._system, now, strict=True)
        ):
            self.solver.forget()
        self._system = now


def _advice(turn: float, step_fs: float) -> str:
    limits = "plain iteration works below pi/2 (h = T/4), and at pi (h = T/2) the midpoint action ceases to exist"
    if not math.isfinite(turn):
        return f"the fastest motion could not be estimated; {limits}: use a shorter step than {step_fs:g} fs"
    period = 2.0 * math.pi / turn if turn > 0 else math.inf
    wanted = step_fs * (0.5 * math.pi) / turn if turn > 0 else step_fs
    return (
        f"the fastest motion has omega_max*h = {turn:.3f} (h = T/{period:.2f}); {limits}: use a step of about "
        f"{min(wanted, 0.5 * step_fs):.3g} fs, a map for half the step as `half`, or a looser tolerance"
    )
