"""What a map does on a data set: errors at every step it is for, and the range of its network's inputs."""

from __future__ import annotations

import math
from typing import Any

import torch

from actionlearn.dataset import Dataset
from actionlearn.errors import NonFinite, NotConverged
from actionlearn.hamilton_jacobi import hamilton_jacobi_errors
from actionlearn.losses import StepErrors, force_errors, step_errors
from actionlearn.maps.blueprint import Blueprint, network_of
from actionlearn.maps.step_range import StepRange


def errors_of(model: Any, data: Dataset, *, windows: int = 64, device: torch.device | str = "cpu") -> StepErrors:
    """Errors of one step on a set; those of a range of steps are the rms over all steps that lie on frames.

    Infinite where, early in training, a midpoint map has no solution yet or a step throws atoms out of reach. Of
    structures without motion they are the residuals of the Hamilton-Jacobi equation; of a potential, what its kicks get
    wrong, which knows nothing of the step.
    """
    if model.blueprint.kind == "potential":
        kick = force_errors(model.potential, data, frames=windows, device=device)
        return StepErrors(kick.relative, kick.relative, kick.frames)
    if data.length == 1:
        return hamilton_jacobi_errors(model, data, windows=windows)
    sets = at_steps(data, model.blueprint)
    count = max(windows // len(sets), 4)
    try:
        each = [step_errors(map_at(model, part.step_fs), part, windows=count, device=device) for part in sets]
    except (NonFinite, NotConverged):
        return StepErrors(math.inf, math.inf, windows)
    squares = torch.tensor([[errors.position**2, errors.momentum**2] for errors in each], dtype=torch.float64)
    position, momentum = squares.mean(0).sqrt().tolist()
    return StepErrors(position, momentum, sum(errors.windows for errors in each))


def at_steps(data: Dataset, blueprint: Blueprint) -> list[Dataset]:
    """The set at every step that a blueprint is for."""
    if blueprint.steps_fs is None:
        return [data]
    return [data.at_step(step_fs) for step_fs in data.steps_between(*blueprint.steps_fs)]


def map_at(model: Any, step_fs: float) -> Any:
    """The map of one step, of a model for a range of them or for this step alone."""
    return model.at(step_fs) if isinstance(model, StepRange) else model


def feature_range(model: Any, data: Dataset, windows: int = 32) -> dict[str, torch.Tensor]:
    """Mean, spread, least and largest value of every input of the network's readout over a set."""
    network = network_of(model)
    device = network.identity.device
    with torch.no_grad():
        states = [data.windows([k], device=device).frames[0] for k in data.even(windows)]
        x = torch.cat([network.features_and_vectors(state)[0] for state in states]).cpu()
    return {"mean": x.mean(0), "spread": x.std(0), "least": x.amin(0), "largest": x.amax(0)}
