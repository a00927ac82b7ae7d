"""Any predictor, corrected by the midpoint action."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from actionlearn.errors import InvalidInput
from actionlearn.maps.midpoint import MidpointAction
from actionlearn.state import PhaseState
from actionlearn.stepping import guarded


class PredictCorrect:
    """Predict the end of a step by any means, then take k iterations of the midpoint action from there.

    The predictor may be a Verlet step that is too large, a network that keeps no structure, or the next frame of
    a trajectory. k = 0 is the predictor alone, None goes on to convergence, where the result no longer depends on
    the predictor and the map is symplectic and reversible; in between it is neither, the less so the larger k.
    """

    kind = "predict-correct"
    stages = 1

    def __init__(
        self,
        predictor: Callable[[PhaseState], PhaseState],
        midpoint_action: MidpointAction,
        *,
        iterations: int | None = None,
    ) -> None:
        """`iterations` is k, the gradients of the action per step, or None."""
        if iterations is not None and iterations < 0:
            raise InvalidInput(f"iterations must be 0 or more, or None for convergence, not {iterations}")
        self.predictor = predictor
        self.midpoint_action = midpoint_action
        self.iterations = iterations
        self.step_fs = midpoint_action.step_fs
        self.species = midpoint_action.species
        self.masses = midpoint_action.masses
        self.solver = midpoint_action.solver

    def __call__(self, state: PhaseState) -> PhaseState:
        """One step."""
        return self.step(state)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Weights of the action."""
        return self.midpoint_action.parameters()

    @guarded
    def step(self, state: PhaseState, n: int = 1) -> PhaseState:
        """The state n steps later."""
        for _ in range(n):
            state = self.midpoint_action.correct(state, self.predictor(state), self.iterations)
        return state
