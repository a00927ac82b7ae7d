"""Trajectories made elsewhere, graded and corrected by a learned action."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ase
import ase.geometry
import numpy as np
import torch
from ase.constraints import FixCom
from torch import Tensor

from actionlearn.analysis.trajectory import Trajectory
from actionlearn.dynamics.fit import check_fit, check_sound
from actionlearn.errors import BlownUp, InvalidInput, NonFinite, NotConverged, UnsupportedSystem
from actionlearn.maps.midpoint import MidpointAction
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND

INTERVAL_RATIO = 0.6, 1.7
"""Steps between frames, as judged from displacements and momenta, that may still be one: at a quarter period the
trapezoidal rule is off by 1.27."""

WILD = 10.0
"""A predicted increment this many times longer than that of free flight is no guess."""


@dataclasses.dataclass(frozen=True, eq=False)
class LongSteps:
    """Frames that are one long step of a map apart.

    `unwrapped` counts the atoms that were put back where they flew after having been wrapped into the cell.
    `momentum_error` is the estimated relative error of momenta that had to be reconstructed, else None; the first
    and the last frame are then left out. `stamped`: the frames carry times, and these are one step apart.
    """

    trajectory: Trajectory
    unwrapped: int
    momentum_error: float | None
    stamped: bool

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.trajectory)

    def state(self, n: int) -> PhaseState:
        """Frame n."""
        q, p = self.trajectory.positions[n], self.trajectory.momenta[n]
        return self.trajectory.system.moved(torch.from_numpy(q), torch.from_numpy(p))


def long_steps(frames: Sequence[ase.Atoms], model: Any, *, reconstruct: bool = False) -> LongSteps:
    """See that the frames are consecutive steps of the model, in system, in time and in momenta.

    With `reconstruct`, momenta come from the positions, p_n = m·(q_{n+1} − q_{n−1})/2h. A mode that turns by ωh in a
    step loses 1 − sin(ωh)/ωh of its amplitude in this, (ωh)²/6 to lowest order: the error is estimated from second
    differences of the momenta themselves, rms(p_{n+1} − 2p_n + p_{n−1})/6 over rms(p).
    """
    if not hasattr(model, "step") or not hasattr(model, "step_fs"):
        raise InvalidInput(f"model must be a map with step(state, n) and step_fs, got {type(model).__name__}")
    if getattr(model, "kind", "") == "direct":
        raise InvalidInput(
            "this model is a direct predictor: it has no action that could grade or correct, train another kind"
        )
    needed = 5 if reconstruct else 2
    if len(frames) < needed:
        why = "reconstructed momenta take" if reconstruct else "a step takes"
        raise InvalidInput(f"{why} at least {needed} frames, this trajectory has {len(frames)}")
    if not reconstruct:
        for n, atoms in enumerate(frames):
            if not atoms.get_momenta().any():
                raise InvalidInput(
                    f"frame {n} has no momenta: write them with the trajectory, or have them reconstructed from the "
                    "positions (--reconstruct-momenta)"
                )
    first = frames[0].copy()  # a held centre of mass is no condition on a step: the momentum is what it is
    first.set_constraint([c for c in first.constraints if not isinstance(c, FixCom)])
    found = Trajectory.from_atoms([first, *frames[1:]], model.step_fs)
    check_fit(model, found.system)
    stamped = _check_times(frames, model.step_fs)
    q, unwrapped = _unwrapped(found.positions, found.system)
    p, error = found.momenta, None
    if reconstruct:
        q, p, error = _reconstructed(q, found.system, model.step_fs * FEMTOSECOND)
    elif not stamped:
        _judge_interval(q, p, found.system, model.step_fs)
    if found.system.has_fixed:
        p = p * ~found.system.fixed.numpy()[:, None]
    return LongSteps(dataclasses.replace(found, positions=q, momenta=p), unwrapped, error, stamped)


@dataclasses.dataclass(frozen=True, eq=False)
class Grades:
    """How far each frame is from being a step of an action from the frame before, relative to the step; (steps,).

        δq = Δq − ∂S/∂p̄,   δp = Δp + ∂S/∂q̄        at the midpoint of the two frames, for the midpoint action
        δz = z_{n+1} − Φ(z_n)                      for an explicit map Φ

    | symbol                             | field      |
    |------------------------------------|------------|
    | |(√m δq/h, δp/√m)| / |(√m Δq/h, Δp/√m)| | `defect`   |
    | |√m δq| / |√m Δq|                  | `position` |
    | |δp/√m| / |Δp/√m|                  | `momentum` |

    Zero for a trajectory of the action; for exact motion, the one-step error of the model.
    """

    defect: np.ndarray
    position: np.ndarray
    momentum: np.ndarray


def grade(model: Any, frames: LongSteps) -> Grades:
    """The defect of every step: one gradient of a midpoint action each, or one step of an explicit map."""
    rows = []
    with torch.no_grad():
        for n in range(len(frames) - 1):
            rows.append(lengths(model, frames.state(n), frames.state(n + 1)))
            if not np.isfinite(rows[-1]).all():
                raise NonFinite(f"the model gives no finite step from frame {n}: cut the trajectory before it")
    return grades_of(rows)


def lengths(model: Any, now: PhaseState, after: PhaseState) -> list[float]:
    """Of one step: |√m δq/h|, |δp/√m|, |√m Δq/h|, |Δp/√m|."""
    h = model.step_fs * FEMTOSECOND
    if isinstance(model, MidpointAction):
        off_q, off_p = _residual(model, now, after)
    else:
        own = model.step(now)
        off_q, off_p = after.positions - own.positions, after.momenta - own.momenta
    root = now.masses.sqrt().unsqueeze(1)
    mobile = ~now.fixed
    return [
        float((weight * z)[mobile].norm())
        for weight, z in (
            (root / h, off_q),
            (1.0 / root, off_p),
            (root / h, after.positions - now.positions),
            (1.0 / root, after.momenta - now.momenta),
        )
    ]


def grades_of(rows: Sequence[Sequence[float]]) -> Grades:
    """Defects relative to the steps, from the `lengths` of each."""
    dq, dp, step_q, step_p = np.array(rows).T
    tiny = np.finfo(float).tiny
    return Grades(
        np.hypot(dq, dp) / np.maximum(np.hypot(step_q, step_p), tiny),
        dq / np.maximum(step_q, tiny),
        dp / np.maximum(step_p, tiny),
    )


@dataclasses.dataclass
class Correction:
    """The corrected trajectory, frame by frame, as `states` is iterated.

    It starts at the first frame. Each step starts its solver from the increment of the original, and takes
    `iterations` gradients of the midpoint action, or all it needs to converge where that is None: then the result is
    the trajectory of the action itself, whatever the original was. An increment that is not finite, wildly long, or
    leads nowhere is replaced by free flight and counted in `without_guess`. Explicit maps make their own step.
    """

    model: Any
    frames: LongSteps
    iterations: int | None = None
    without_guess: int = 0

    def __post_init__(self) -> None:
        """See that the iterations mean something."""
        if self.iterations is not None and not isinstance(self.model, MidpointAction):
            kind = getattr(self.model, "kind", "explicit")
            raise InvalidInput(
                f"iterations are for midpoint actions, a map of kind {kind!r} is explicit: leave them out"
            )
        _check_iterations(self.iterations)

    def states(self) -> Iterator[PhaseState]:
        """All frames, the first as it was."""
        state = self.frames.state(0)
        yield state
        for n in range(len(self.frames) - 1):
            with torch.no_grad():
                state = self._step(state, n)
            check_sound(state, self.model)
            yield state

    def _step(self, state: PhaseState, n: int) -> PhaseState:
        if not isinstance(self.model, MidpointAction):
            return self.model.step(state)
        now, after = self.frames.state(n), self.frames.state(n + 1)
        dq, dp = after.positions - now.positions, after.momenta - now.momenta
        corrected, guessed = _corrected(self.model, state, dq, dp, self.iterations)
        self.without_guess += not guessed
        return corrected


@dataclasses.dataclass
class Prediction:
    """A trajectory whose steps a cheap predictor guesses and the midpoint action corrects, as `states` is iterated.

    As in `Correction`, but the increments are those of `predictor` from where the corrected trajectory stands. Every
    step of the predictor is graded, by one gradient more; a step that is no guess is graded infinite.
    """

    model: MidpointAction
    predictor: Callable[[PhaseState], PhaseState]
    start: PhaseState
    steps: int
    iterations: int | None = None
    without_guess: int = 0
    rows: list[list[float]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        """See that there is something to correct."""
        if not isinstance(self.model, MidpointAction):
            kind = getattr(self.model, "kind", type(self.model).__name__)
            raise InvalidInput(
                f"only a midpoint action corrects a predicted step, this model is of kind {kind!r}: explicit maps need "
                "no prediction, use `actionlearn run`"
            )
        _check_iterations(self.iterations)
        check_fit(self.model, self.start)

    def states(self) -> Iterator[PhaseState]:
        """The start, then every step."""
        state = self.start
        yield state
        for _ in range(self.steps):
            with torch.no_grad():
                state = self._step(state)
            check_sound(state, self.model)
            yield state

    @property
    def grades(self) -> Grades:
        """Of the predictor's steps so far."""
        return grades_of(self.rows)

    def _step(self, state: PhaseState) -> PhaseState:
        try:
            predicted = self.predictor(state)
        except (NonFinite, BlownUp, NotConverged):
            predicted = state.moved(state.positions, torch.full_like(state.momenta, torch.nan))
        dq, dp = predicted.positions - state.positions, predicted.momenta - state.momenta
        corrected, guessed = _corrected(self.model, state, dq, dp, self.iterations)
        self.without_guess += not guessed
        lost = [float("inf"), float("inf"), 1.0, 1.0]
        self.rows.append(lengths(self.model, state, predicted) if guessed else lost)
        return corrected


def _check_iterations(iterations: int | None) -> None:
    if iterations is not None and iterations < 0:
        raise InvalidInput(f"iterations must be 0 or more, or None for convergence, not {iterations}")


def _corrected(
    model: MidpointAction, state: PhaseState, dq: Tensor, dp: Tensor, iterations: int | None
) -> tuple[PhaseState, bool]:
    """The corrected step from an increment, and whether that was of any use."""
    root, h = state.masses.sqrt().unsqueeze(1), model.step_fs * FEMTOSECOND
    size = float((root * dq / h).norm() + (dp / root).norm())
    if iterations != 0 and not size <= WILD * float((state.momenta / root).norm()):
        return model.correct(state, state.drift(h), iterations), False
    try:
        return model.correct(state, state.moved(state.positions + dq, state.momenta + dp), iterations), True
    except (NonFinite, NotConverged):
        if iterations is not None:
            raise
        return model.step(state), False


def _residual(model: MidpointAction, now: PhaseState, after: PhaseState) -> tuple[Tensor, Tensor]:
    """What is missing for Δq = ∂S/∂p̄ and Δp = −∂S/∂q̄ to hold at the midpoint of two frames."""
    model.guard.check(now)
    h = model.step_fs * FEMTOSECOND
    p_mid = 0.5 * (now.momenta + after.momenta)
    mid = now.moved(0.5 * (now.positions + after.positions), p_mid)
    learned, minus_dS_dq = model.derivatives(mid)
    off_q = after.positions - now.positions - h * now.inverse_masses * p_mid - learned
    return off_q, after.momenta - now.momenta - minus_dS_dq


def _check_times(frames: Sequence[ase.Atoms], step_fs: float) -> bool:
    """Whether the frames carry times (`info["time_fs"]`); these must then be one step apart."""
    if not all("time_fs" in atoms.info for atoms in frames):
        return False
    times = np.array([float(atoms.info["time_fs"]) for atoms in frames])
    off = np.abs(np.diff(times) - step_fs) > 1e-6 * np.maximum(step_fs, np.abs(times[1:]) * 1e-3)
    if off.any():
        n = int(off.argmax())
        raise InvalidInput(
            f"frames {n} and {n + 1} are {times[n + 1] - times[n]:g} fs apart, a step of the model is {step_fs:g} fs: "
            "give a trajectory with every step of that length, or a model of that step"
        )
    return True


def _judge_interval(q: np.ndarray, p: np.ndarray, system: PhaseState, step_fs: float) -> None:
    """Compare displacements with what mean velocities make of one step, Δq ≈ h·(v_n + v_{n+1})/2."""
    v = 0.5 * (p[1:] + p[:-1]) * system.inverse_masses.numpy()
    m = system.masses.numpy()[:, None]
    square, along = (m * v * v).sum((1, 2)), (m * v * np.diff(q, axis=0)).sum((1, 2))
    ratio = float(np.median(along / np.maximum(square, np.finfo(float).tiny))) / (step_fs * FEMTOSECOND)
    least, most = INTERVAL_RATIO
    if not least < ratio < most:
        raise InvalidInput(
            f"displacements and momenta say that frames are about {ratio * step_fs:.3g} fs apart, a step of the model "
            f"is {step_fs:g} fs: give every step, or a model of that step (and momenta in sqrt(u·eV), as ASE has them)"
        )


def _unwrapped(q: np.ndarray, system: PhaseState) -> tuple[np.ndarray, int]:
    """Positions without jumps by cell vectors, and how many jumps there were."""
    periodic = system.pbc[0].numpy()
    if not periodic.any():
        return q, 0
    cell = ase.geometry.complete_cell(system.cell[0].numpy())
    jumps = np.round(np.diff(q, axis=0) @ np.linalg.inv(cell)) * periodic
    count = int((jumps != 0).any(2).sum())
    if not count:
        return q, 0
    return q - np.concatenate([np.zeros((1, *q.shape[1:])), np.cumsum(jumps, axis=0)]) @ cell, count


def _reconstructed(q: np.ndarray, system: PhaseState, h: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Inner frames with momenta by central differences, and the estimated relative error of these."""
    p = system.masses.numpy()[:, None] * (q[2:] - q[:-2]) / (2.0 * h)
    weight = system.inverse_masses.numpy() ** 0.5
    size = float(np.sqrt(np.mean((weight * p) ** 2)))
    if not size > 0:
        raise UnsupportedSystem("nothing moves in this trajectory: there are no momenta to reconstruct")
    curvature = p[2:] - 2.0 * p[1:-1] + p[:-2]
    return q[1:-1], p, float(np.sqrt(np.mean((weight * curvature) ** 2))) / 6.0 / size
