"""What a step should leave alone: the way back, the total momentum, the angular momentum."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from ase.md.md import MolecularDynamics
from torch import Tensor

from actionlearn.errors import InvalidInput
from actionlearn.state import PhaseState
from actionlearn.structure.foreign import Step, as_callable


def reversal_error(step: Step | MolecularDynamics, state: PhaseState, n: int = 10) -> float:
    """Forward n, flip, forward n, flip: the largest deviation of a position from where it began, Å."""
    return float((_there_and_back(step, state, n).positions - state.positions.detach()).abs().max())


def momentum_reversal_error(step: Step | MolecularDynamics, state: PhaseState, n: int = 10) -> float:
    """Forward n, flip, forward n, flip: the largest deviation of a momentum, sqrt(u·eV)."""
    return float((_there_and_back(step, state, n).momenta - state.momenta.detach()).abs().max())


def _there_and_back(step: Step | MolecularDynamics, state: PhaseState, n: int) -> PhaseState:
    step = as_callable(step)
    return _run(step, _run(step, state, n).flip(), n).flip()


def _run(step: Step, state: PhaseState, n: int) -> PhaseState:
    if n < 1:
        raise InvalidInput(f"a run takes at least one step, not {n}: nothing would be measured")
    state = state.detach()
    for _ in range(n):
        state = step(state).detach()
    return state


def momentum_drift(step: Step | MolecularDynamics, state: PhaseState, n: int = 100) -> float:
    """Largest |P_k − P_0| / Σ|p| over n steps, of any system in the state; P = Σp, the denominator at the start."""
    return _largest_change(step, state, n, lambda now: now.momenta)


def angular_momentum_drift(step: Step | MolecularDynamics, state: PhaseState, n: int = 100) -> float:
    """Largest |L_k − L_0| / Σ|q × p| over n steps, of any system in the state; L = Σ q × p about the origin."""
    if state.pbc.any():
        raise InvalidInput("a periodic system has no conserved angular momentum: measure it on an isolated one")
    if state.positions.shape[1] == 1:
        raise InvalidInput("a one-dimensional system has no angular momentum: measure it in two or three dimensions")
    return _largest_change(step, state, n, lambda now: _cross(now.positions, now.momenta))


def _cross(q: Tensor, p: Tensor) -> Tensor:
    """Vector product of every atom; in two dimensions its one component."""
    if q.shape[1] == 2:
        return (q[:, 0] * p[:, 1] - q[:, 1] * p[:, 0]).unsqueeze(1)
    return torch.linalg.cross(q, p)


def _largest_change(
    step: Step | MolecularDynamics, state: PhaseState, n: int, quantity: Callable[[PhaseState], Tensor]
) -> float:
    """Largest change of the sum over atoms of `quantity`, relative to the sum of its sizes at the start."""
    state = state.detach()
    first = quantity(state)
    start, size = state.sum_by_system(first), state.sum_by_system(first.norm(dim=1))
    if (size == 0).any():
        raise InvalidInput(
            "a system has no such momentum in any atom, so nothing can be relative to it: give it some motion"
        )
    if n < 1:
        raise InvalidInput(f"a drift takes at least one step, not {n}: nothing would be measured")
    step, largest = as_callable(step), 0.0
    for _ in range(n):
        state = step(state).detach()
        change = (state.sum_by_system(quantity(state)) - start).norm(dim=1) / size
        if not bool(torch.isfinite(change).all()):
            return math.inf
        largest = max(largest, float(change.max()))
    return largest
