"""What an ensemble is, and the microcanonical one."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from actionlearn.errors import InvalidInput
from actionlearn.state import PhaseState


class Map(Protocol):
    """Any learned map or integrator: a long step of `step_fs` femtoseconds, state -> state."""

    step_fs: float
    kind: str

    def step(self, state: PhaseState, n: int = 1) -> PhaseState:
        """N long steps."""
        ...


class Ensemble(Protocol):
    """A way to go on from a state with a map, carrying whatever it remembers from step to step.

    `heat` is the energy it has put into each system so far, eV: total energy less heat is what stays conserved.
    """

    heat: Tensor | float
    steps_per_move: int

    def begin(self, model: Map, state: PhaseState) -> None:
        """Refuse what cannot be simulated this way."""
        ...

    def advance(self, model: Map, state: PhaseState, n: int = 1) -> PhaseState:
        """N moves, of `steps_per_move` long steps each."""
        ...

    def settings(self) -> dict[str, float]:
        """The numbers it was made with, which stay the same for all of a run."""
        ...

    def memory(self) -> dict[str, object]:
        """All that must be kept for a run to go on exactly: tensors and numbers."""
        ...

    def recall(self, memory: dict[str, object]) -> None:
        """Take up what `memory` gave."""
        ...

    def summary(self) -> dict[str, object]:
        """Numbers worth reporting at the end of a run."""
        ...


class Microcanonical:
    """The map alone."""

    heat: Tensor | float = 0.0
    steps_per_move = 1

    def begin(self, model: Map, state: PhaseState) -> None:
        """Anything goes."""

    def advance(self, model: Map, state: PhaseState, n: int = 1) -> PhaseState:
        """N long steps."""
        return model.step(state, n)

    def settings(self) -> dict[str, float]:
        """Nothing to set."""
        return {}

    def memory(self) -> dict[str, object]:
        """Nothing to remember."""
        return {}

    def recall(self, memory: dict[str, object]) -> None:
        """Nothing to take up."""

    def summary(self) -> dict[str, object]:
        """Nothing to report."""
        return {"ensemble": "nve"}


class Stochastic:
    """What the ensembles with random numbers share: a temperature, a seeded generator and the heat."""

    steps_per_move = 1
    name = ""

    def __init__(self, temperature_K: float, *, seed: int = 0) -> None:
        """One generator, on the CPU, so that a seed means the same everywhere."""
        self.temperature_K = positive("temperature_K", temperature_K)
        self.generator = torch.Generator().manual_seed(seed)
        self.heat: Tensor | float = 0.0

    def normal(self, like: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """Independent standard normal numbers."""
        return torch.randn(shape, generator=self.generator, dtype=like.dtype).to(like.device)

    def begin(self, model: Map, state: PhaseState) -> None:
        """Anything goes."""

    def settings(self) -> dict[str, float]:
        """The temperature; the seed is in the state of the generator."""
        return {"temperature_K": self.temperature_K}

    def memory(self) -> dict[str, object]:
        """State of the generator, and the heat."""
        return {"generator": self.generator.get_state(), "heat": self.heat}

    def recall(self, memory: dict[str, object]) -> None:
        """Go on drawing where `memory` stopped."""
        self.generator.set_state(memory["generator"])  # type: ignore[arg-type]
        self.heat = memory["heat"]  # type: ignore[assignment]

    def summary(self) -> dict[str, object]:
        """Name and temperature."""
        return {"ensemble": self.name, "target_temperature_K": self.temperature_K}


def positive(name: str, value: float) -> float:
    """The number, or `InvalidInput` naming it."""
    if not (isinstance(value, (int, float)) and 0.0 < value < float("inf")):
        raise InvalidInput(f"{name} must be a positive number, got {value!r}")
    return float(value)


def positive_whole(name: str, value: int) -> int:
    """The whole number, or `InvalidInput` naming it."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidInput(f"{name} must be a whole number of at least 1, got {value!r}")
    return value
