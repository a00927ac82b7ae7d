"""Dipole models: frames labelled with the dipoles of a calculator, training on them, errors, and one file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from actionlearn.errors import DataError, InvalidInput
from actionlearn.files import write_atomically
from actionlearn.networks.dipole import DipoleModel
from actionlearn.optimiser import Preconditioned
from actionlearn.progress import Progress
from actionlearn.settings import Settings
from actionlearn.state import PhaseState

FORMAT = "actionlearn dipole model 1"
UNITS = {"length": "angstrom", "dipole": "e*angstrom"}


class HasDipole(Protocol):
    """A potential that knows dipoles, such as `ASEPotential` on a calculator that does."""

    def dipole(self, state: PhaseState) -> Tensor:
        """Electric dipole per system, (systems, 3), e·Å."""
        ...


@dataclasses.dataclass(frozen=True)
class DipoleErrors:
    """rms of a component of μ − μ_ref, e·Å, and relative to the scatter of μ_ref about its mean."""

    rms: float
    relative: float
    frames: int

    def __str__(self) -> str:
        """In thousandths of e·Å and per cent."""
        return f"{1e3 * self.rms:.3g} me·Å, {100 * self.relative:.3g} %"


def label(states: Sequence[PhaseState], potential: HasDipole) -> np.ndarray:
    """The dipoles of states of one system each, (states, 3), e·Å: a calculation for every one."""
    with torch.no_grad():
        return np.stack([potential.dipole(state).reshape(3).cpu().numpy() for state in states])


def fit(
    states: Sequence[PhaseState],
    dipoles: ArrayLike,
    settings: Settings | None = None,
    *,
    network: dict[str, Any] | None = None,
    progress: bool = False,
) -> DipoleModel:
    """A dipole model trained on labelled states of one system each; `network` are options of its network.

    Of the settings, the budget, learning rate, averaging, batch, clip and seed count. Weights are float32 in training;
    averaged weights are handed out in float64.
    """
    settings = settings or Settings(minutes=None, updates=400)
    if settings.updates is None:
        raise InvalidInput("training of a dipole model takes a number of updates, not minutes: Settings(updates=…)")
    mu = torch.as_tensor(np.asarray(dipoles, dtype=float))
    if mu.shape != (len(states), 3) or not len(states):
        raise InvalidInput(f"dipoles of shape {tuple(mu.shape)} for {len(states)} states: give three numbers for each")
    if not bool(torch.isfinite(mu).all()):
        raise InvalidInput("the dipoles hold numbers that are not finite: label the states again")
    torch.manual_seed(settings.seed)
    species = sorted({int(z) for state in states for z in state.numbers.tolist()})
    average = DipoleModel(species, network=network)
    average.calibrate([states[k] for k in np.linspace(0, len(states) - 1, min(len(states), 16)).astype(int)])
    model = DipoleModel(species, network=network, dtype=torch.float32)
    model.load_state_dict(average.state_dict())
    average.requires_grad_(False)
    weights = [w for w in model.parameters() if w.requires_grad]
    followers = [a for a, w in zip(average.parameters(), model.parameters(), strict=True) if w.requires_grad]
    optimiser = Preconditioned(weights, weight_decay=settings.weight_decay)
    unit = float(mu.std(0, correction=0).square().mean().sqrt()) or 1.0
    single = [state.to(torch.float32) for state in states]
    size = max(1, settings.batch_atoms // max(state.n_atoms for state in states))
    random, order = np.random.default_rng(settings.seed), np.zeros(0, dtype=int)
    with Progress("dipoles", float(settings.updates), shown=progress) as bar:
        for n in range(settings.updates):
            if len(order) == 0:
                order = random.permutation(len(states))
            batch, order = order[:size], order[size:]
            optimiser.param_groups[0]["lr"] = settings.rate(n / settings.updates)
            optimiser.zero_grad(set_to_none=True)
            miss = model(PhaseState.batch([single[k] for k in batch])) - mu[batch].float()
            loss = (miss / unit).square().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, settings.clip)
            optimiser.step()
            keep = min(1.0 - 1.0 / settings.averaging, (n + 1) / (n + 11))
            with torch.no_grad():
                for mean, now in zip(followers, weights, strict=True):
                    mean.lerp_(now.double(), 1.0 - keep)
            bar.advance(1.0, f"loss {float(loss.detach()):.2e}")
    return average


@torch.no_grad()
def errors(model: DipoleModel, states: Sequence[PhaseState], dipoles: ArrayLike) -> DipoleErrors:
    """Errors of a model on labelled states."""
    mu = torch.as_tensor(np.asarray(dipoles, dtype=float))
    found = torch.cat([model(state) for state in states])
    rms = float((found - mu).square().mean().sqrt())
    scatter = float((mu - mu.mean(0)).square().mean().sqrt())
    return DipoleErrors(rms, rms / scatter if scatter > 0 else float("inf"), len(states))


def save(model: DipoleModel, path: str | Path, report: dict[str, Any] | None = None) -> None:
    """Write a model, with what is known about it: numbers, text, lists and dictionaries."""
    content = {
        "format": FORMAT,
        "package_version": metadata.version("actionlearn"),
        "units": UNITS,
        "species": list(model.species),
        "options": model.options,
        "weights": model.state_dict(),
        "report": report or {},
    }
    write_atomically(Path(path), lambda file: torch.save(content, file))


@torch.inference_mode(False)
def load(path: str | Path, *, dtype: torch.dtype = torch.float64) -> DipoleModel:
    """The model in a file that `save` wrote; its `report` attribute is what was known about it."""
    if not Path(path).is_file():
        raise InvalidInput(f"there is no dipole model {path}: give a file written by actionlearn.dipoles.save")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as problem:
        reason = (str(problem).splitlines() or [""])[0]
        raise DataError(f"{path} is no dipole model, or damaged: {type(problem).__name__}: {reason}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path} is no '{FORMAT}' file: give one written by actionlearn.dipoles.save")
    model = DipoleModel(content["species"], dtype=dtype, **content["options"])
    try:
        model.load_state_dict(content["weights"])
    except RuntimeError as problem:
        raise DataError(f"{path}: the weights do not fit the model they are to be for: {problem}") from None
    model.requires_grad_(False)
    model.report = content["report"]
    return model
