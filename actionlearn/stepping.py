"""What every step asks first: a state, a number of steps, and permission to record gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from actionlearn.errors import InvalidInput
from actionlearn.state import PhaseState

StepMethod = TypeVar("StepMethod", bound=Callable[..., PhaseState])


def guarded(step: StepMethod) -> StepMethod:
    """A `step(state, n)` that refuses what is no state or no number of steps.

    Kicks are gradients, which `torch.inference_mode()` would turn into zeros: within it the step is taken as under
    `torch.no_grad()`, and its results are ordinary tensors.
    """

    @functools.wraps(step)
    def checked(self: Any, state: PhaseState, n: int = 1) -> PhaseState:
        if not isinstance(state, PhaseState):
            raise InvalidInput(
                f"a step takes a PhaseState, not {type(state).__name__}: PhaseState.from_atoms(atoms) makes one"
            )
        if n < 0:
            raise InvalidInput(f"n must not be negative, got {n}: to go back, step from state.flip()")
        if not torch.is_inference_mode_enabled():
            return step(self, state.ordinary(), n)
        with torch.inference_mode(False), torch.no_grad():
            return step(self, state.ordinary(), n)

    return checked  # type: ignore[return-value]
