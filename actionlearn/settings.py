"""How to train, and what training did."""

from __future__ import annotations

import dataclasses
import math

from actionlearn.errors import InvalidInput
from actionlearn.heating import certain
from actionlearn.losses import StepErrors
from actionlearn.structure import Measured


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train. The budget is `minutes`, or `updates` where the result must not depend on the machine's speed.

    | field            | meaning                                                                                  |
    |------------------|------------------------------------------------------------------------------------------|
    | `learning_rate`  | its largest value: a linear rise over `warm_up` of the budget, a cosine to 1 % at the end |
    | `force_matching` | part of the budget, at the start, spent on matching head 0 to the recorded forces;       |
    |                  | none where weights are taken over, which that would undo                                 |
    | `action`         | weight of the action's value as a label beside its derivatives, 0 for none               |
    | `averaging`      | updates over which the weights are averaged for use                                      |
    | `clip`           | largest norm of the gradient                                                             |
    | `window`         | frames of a window, None for the least that the loss takes                               |
    | `validations`    | how often errors on the validation set are measured                                      |
    | `patience`       | validations without a better map after which training stops, 0 for never                 |
    | `hamilton_jacobi`| weight of that equation's residual in the loss of midpoint maps for a range of steps:     |
    |                  | 0 for trajectories alone, 1 for forces alone                                              |
    | `drift_share`    | part of the budget spent on roll-outs that measure the drift of the energy, 0 for none    |
    | `drift_limit`    | meV/atom/ps; this much of it beyond doubt counts as much as twice the error of a step     |

    The better of two maps has the smaller error of one step (momenta) times 1 + drift/`drift_limit`, where of the drift
    counts what exceeds twice its uncertainty: noise of a short roll-out never decides, heating does.
    """

    minutes: float | None = 10.0
    updates: int | None = None
    learning_rate: float = 1e-2
    warm_up: float = 0.03
    force_matching: float = 0.1
    action: float = 0.0
    weight_decay: float = 1e-4
    clip: float = 1.0
    averaging: int = 100
    batch_atoms: int = 432
    window: int | None = None
    validations: int = 20
    patience: int = 0
    hamilton_jacobi: float = 0.0
    drift_share: float = 0.05
    drift_limit: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Exactly one budget."""
        if (self.minutes is None) == (self.updates is None):
            raise InvalidInput(f"give either minutes or updates, not {self.minutes} and {self.updates}")
        if (self.minutes or self.updates or 0) <= 0:
            raise InvalidInput(f"the budget must be positive, not {self.minutes or self.updates}")
        if not 0.0 <= self.hamilton_jacobi <= 1.0:
            raise InvalidInput(f"hamilton_jacobi is a weight from 0 to 1, not {self.hamilton_jacobi}")
        if not 0.0 <= self.force_matching < 1.0:
            raise InvalidInput(f"force_matching is a part of the budget, from 0 to below 1, not {self.force_matching}")
        if not (self.drift_share >= 0.0 and self.drift_limit > 0.0):
            raise InvalidInput(
                f"drift_share must not be negative and drift_limit positive, not {self.drift_share}, {self.drift_limit}"
            )
        if self.action < 0.0:
            raise InvalidInput(f"the weight of the action must not be negative, it is {self.action}")

    def score(self, momentum_error: float, drift: Measured | None) -> float:
        """What the better of two maps has less of."""
        return momentum_error * (1.0 + (0.0 if drift is None else certain(drift)) / self.drift_limit)

    def rate(self, done: float) -> float:
        """Learning rate after this part of the budget."""
        if done < self.warm_up:
            return self.learning_rate * max(done / self.warm_up, 0.01)
        phase = (done - self.warm_up) / max(1.0 - self.warm_up, 1e-9)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(phase, 1.0))))


@dataclasses.dataclass(frozen=True)
class Report:
    """What training did: errors and drift of the map it hands out on the validation set, and the learning curve."""

    updates: int
    seconds: float
    errors: StepErrors
    curve: list[dict[str, float]]
    drift: Measured | None = None
