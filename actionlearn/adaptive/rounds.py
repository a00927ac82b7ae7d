"""Rounds of training, long-step runs and new stretches of the base potential, and what each of them bought."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actionlearn import checkpoint
from actionlearn.adaptive.criteria import Criterion, criterion_of, largest_spread
from actionlearn.adaptive.explore import TRUST, Choose, Explored, explore, far_apart, half_uncertain
from actionlearn.assessment import errors_of
from actionlearn.dataset import Dataset
from actionlearn.errors import CalculatorFailed, InvalidInput
from actionlearn.files import read_json, writable_folder, write_json
from actionlearn.losses import StepErrors
from actionlearn.maps.blueprint import Blueprint
from actionlearn.pictures import COLOURS, picture
from actionlearn.potentials.protocol import Potential
from actionlearn.reference import ReferenceSet, Stretch
from actionlearn.reference.growing import GrowingSet
from actionlearn.settings import Settings
from actionlearn.training import Trainer
from actionlearn.uncertainty import Uncertainty

EVERY_VALIDATES = 5
"""Of the new stretches every fifth joins the validation set instead of the training set."""

WARM = 0.4
"""Learning rate of the rounds after the first, relative to that one's."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to look for and how much to spend.

    | field            | meaning                                                                            |
    |------------------|------------------------------------------------------------------------------------|
    | `temperatures_K` | of the long-step runs                                                              |
    | `rounds`         | most rounds of new stretches                                                       |
    | `calls`          | most calls of the base potential, those of the first stretches included; None: any |
    | `stretches`      | most new stretches a round                                                         |
    | `runs`, `ps`     | long-step runs a temperature and round, and their length                           |
    """

    temperatures_K: tuple[float, ...]
    rounds: int = 5
    calls: int | None = None
    stretches: int = 8
    runs: int = 4
    ps: float = 4.0

    def __post_init__(self) -> None:
        """All positive."""
        T = self.temperatures_K
        if not T or len({f"{t:g}" for t in T}) < len(T):
            raise InvalidInput(f"temperatures are {list(T)}: give one or more, all different")
        numbers: dict[str, float | None] = {
            "rounds": self.rounds,
            "calls": self.calls,
            "stretches": self.stretches,
            "runs": self.runs,
            "ps": self.ps,
            "temperature": min(T),
        }
        for name, value in numbers.items():
            if value is not None and not 0 < value < float("inf"):
                raise InvalidInput(f"{name} is {value}, expected a positive number")


@dataclasses.dataclass(frozen=True)
class Round:
    """A map, what it cost and what long-step runs of it met.

    Its runs had `wanted` states worth a stretch, `new` of them follow before the next round.
    """

    number: int
    calls: int
    stretches: int
    error: StepErrors
    largest: float
    beyond: float
    drift: float | None
    drift_error: float | None
    wanted: int
    new: int
    failure: str


class Adaptive:
    """Adaptive sampling in a folder, which is a set of reference trajectories like any other.

    A round trains, from the weights of the round before, on all that was ever computed; runs the map with long
    steps at the wanted temperatures; picks the states of which it is most unsure, and as many at random; and lets
    the base potential go on from there for a short stretch each. It ends when the runs stay within what training
    has seen, or when the budget is spent. Every piece is a file: called again, it goes on where it was killed, and
    with a larger budget where it ended.

    A potential runs in steps of Verlet, and of each state forces are enough. A committee is unsure where the forces of
    its members differ; of such states those far apart are chosen.

    Base calls are counted in stretches and long-step runs; a corrected map also calls its base potential in training.
    """

    def __init__(
        self,
        folder: str | Path,
        sets: list[ReferenceSet],
        blueprint: Blueprint,
        settings: Settings,
        plan: Plan,
        base: Potential,
        *,
        held_out: Dataset | None = None,
        start: Any = None,
        choose: Choose | None = None,
        criterion: Callable[[Any], Criterion] = criterion_of,
        device: torch.device | str = "cpu",
        progress: bool = False,
    ) -> None:
        """Begin or go on; `held_out` is what errors are measured on, a part of the first stretches otherwise.

        Training is on `device`, all else on the CPU. `criterion` gives the measure of uncertainty of a trained map,
        `choose` picks by it: `half_uncertain`, or `far_apart` for a committee.
        """
        self.choose = choose or (far_apart if blueprint.members > 1 else half_uncertain)
        self.start, self.criterion, self.device = start, criterion, device
        self.folder, self.plan, self.base, self.progress = Path(folder), plan, base, progress
        self.blueprint, self.settings = blueprint, settings
        self.length = 1 if blueprint.kind == "potential" else 2
        folders = [found.folder for found in sets]
        self.data = Dataset.open(folders, step_fs=blueprint.step_fs, length=self.length)
        first = self.data.stretches[0]
        for stretch in self.data.stretches:
            mine, others = first.system, stretch.system
            if mine.numbers.tolist() != others.numbers.tolist() or bool((mine.cell != others.cell).any()):
                raise InvalidInput(
                    f"{stretch.name} holds another system or cell than {first.name}: adaptive sampling works on one "
                    "system at a time, run it for each and train on all folders"
                )
        self.training, self.validation, self.test = self.data.split(settings.seed)
        self.held_out = held_out or self.test
        stride = round(blueprint.step_fs / first.interval_fs) if self.length > 1 else 0
        window = max(settings.window or 2, 4 if blueprint.kind == "processed" and blueprint.stages == 1 else 2)
        self.first_calls = sum(calls_of(found) for found in sets)
        self.set = GrowingSet(
            folder=self.folder,
            system=first.system,
            potential=base,
            potential_name=sets[0].potential,
            step_fs=first.step_fs,
            record_every=round(first.interval_fs / first.step_fs),
            frames=(window + 2) * stride + 1,
            temperatures_K=list(plan.temperatures_K),
            omega_max_per_fs=max(found.omega_max_per_fs for found in sets),
        )
        writable_folder(self.folder / "rounds")
        self._see_that_it_is_the_same()

    def run(self, show: Callable[[Round], None] | None = None) -> tuple[Any, list[Round]]:
        """All rounds that are left to do; returns the last map and what every round bought."""
        rounds: list[Round] = []
        while True:
            n = len(rounds)
            model = self._train(n)
            error, found = errors_of(model, self.held_out), self._explore(n, model)
            calls = self.first_calls + self._calls_of_runs(n) + self._spent(n)
            chosen = min(len(found.temperatures_K), self.plan.stretches, self._affordable(calls))
            if n == self.plan.rounds:
                chosen = 0
            drifts = found.drifts
            rounds.append(
                Round(
                    number=n,
                    calls=calls,
                    stretches=len(self.data.stretches) + len(self._new(n)),
                    error=error,
                    largest=found.largest,
                    beyond=found.beyond,
                    drift=float(drifts.mean()) if len(drifts) else None,
                    drift_error=float(drifts.std(ddof=1) / len(drifts) ** 0.5) if len(drifts) > 1 else None,
                    wanted=len(found.temperatures_K),
                    new=chosen,
                    failure=found.failure,
                )
            )
            if show is not None:
                show(rounds[-1])
            if chosen == 0:
                return model, rounds
            self._continue(n, found, chosen)

    # --- the pieces of a round --------------------------------------------------------------------

    def sets(self, n: int) -> tuple[Dataset, Dataset]:
        """Training and validation set of a round."""
        new = self._new(n)
        held = new[EVERY_VALIDATES - 1 :: EVERY_VALIDATES]
        parts = ((self.training, [s for s in new if s not in held]), (self.validation, held))
        training, validation = (
            Dataset([*known.stretches, *more], step_fs=self.blueprint.step_fs, length=self.length)
            for known, more in parts
        )
        training.memory_gb = validation.memory_gb = self.data.memory_gb
        return training, validation

    def _train(self, n: int) -> Any:
        path = self._path(n, "pt")
        called = self.base if self.blueprint.kind == "corrected" else None
        if not path.exists():
            training, validation = self.sets(n)
            start = checkpoint.load(self._path(n - 1, "pt"), base=called) if n else self.start
            settings = self.settings if start is None else warm(self.settings)
            trainer = Trainer(self.blueprint, training, validation, settings, called, start, device=self.device)
            state_file = path.with_suffix(".state")
            report = trainer.run(state_file, progress=self.progress)
            content = {
                "validation": dataclasses.asdict(report.errors),
                "updates": report.updates,
                "seconds": report.seconds,
                "drift": None if report.drift is None else list(report.drift),
                "curve": report.curve,
                "uncertainty": Uncertainty.fit(trainer.average, training, validation).tensors(),
            }
            if self.blueprint.members > 1:
                content["spread"] = largest_spread(trainer.average.potential, validation, device=self.device)
            checkpoint.save(trainer.average, path, content)
            state_file.unlink(missing_ok=True)
        return checkpoint.load(path, base=called)

    def _explore(self, n: int, model: Any) -> Explored:
        path = self._path(n, "npz")
        if not path.exists():
            generator = np.random.default_rng([self.settings.seed, n])
            stretches = [*self.data.stretches, *self._new(n)]
            picks = generator.choice(len(stretches), self.plan.runs, replace=len(stretches) < self.plan.runs)
            starts = [stretches[k].state(int(generator.integers(len(stretches[k])))) for k in picks]
            explore(
                model,
                starts,
                list(self.plan.temperatures_K),
                self.base,
                ps=self.plan.ps,
                states=self.plan.stretches,
                seed=int(generator.integers(2**31)),
                choose=self.choose,
                criterion=self.criterion(model),
            ).write(path)
        return Explored.read(path)

    def _continue(self, n: int, found: Explored, count: int) -> None:
        """Short stretches of the base potential from the chosen states."""
        before = len(self._new(n))
        for k in range(count):
            q, p = (torch.from_numpy(array[k]) for array in (found.positions, found.momenta))
            state = self.set.system.moved(q, p)
            try:
                self.set.add(state, float(found.temperatures_K[k]), n, before + k)
            except CalculatorFailed as problem:
                warnings.warn(f"no stretch from state {k} of round {n}: {problem}", UserWarning, stacklevel=2)

    # --- counting ---------------------------------------------------------------------------------

    def _new(self, n: int) -> list[Stretch]:
        """Stretches of the rounds before this one, in the order of their numbers."""
        found = [stretch for stretch in self.set.stretches() if stretch.chain < n]
        return sorted(found, key=lambda stretch: int(stretch.name.rpartition("-")[2].removesuffix(".npz")))

    def _spent(self, n: int) -> int:
        return len(self._new(n)) * self.set.calls_per_stretch

    def _calls_of_runs(self, n: int) -> int:
        return sum(Explored.read(self._path(k, "npz")).calls for k in range(n + 1))

    def _affordable(self, calls: int) -> int:
        """Stretches that the budget still pays for."""
        if self.plan.calls is None:
            return self.plan.stretches
        return max(self.plan.calls - calls, 0) // self.set.calls_per_stretch

    def _path(self, n: int, suffix: str) -> Path:
        return self.folder / "rounds" / f"round-{n}.{suffix}"

    def _see_that_it_is_the_same(self) -> None:
        """A folder goes on with the settings that it was begun with; budgets may change."""
        plan = dataclasses.replace(self.plan, rounds=1, calls=None)
        mine = {
            "map": repr(self.blueprint),
            "settings": repr(self.settings),
            "plan": repr(plan),
            "first stretches": [stretch.checksum for stretch in self.data.stretches],
        }
        path = self.folder / "rounds" / "made_for.json"
        if not path.exists():
            write_json(path, mine)
        there = read_json(path)
        for key, value in mine.items():
            if there.get(key) != value:
                shown = f", the {key} was {there.get(key)}, not {value}" if isinstance(value, str) else f": other {key}"
                raise InvalidInput(
                    f"{self.folder} was begun otherwise{shown}: call as before, or choose another folder"
                )


def warm(settings: Settings) -> Settings:
    """Settings for weights that are good already: nothing is undone by long strides."""
    return dataclasses.replace(settings, learning_rate=WARM * settings.learning_rate)


def calls_of(found: ReferenceSet) -> int:
    """Calls of the base potential that a set has cost, thermostats and frequencies included."""
    entries, settings = found.manifest["stretches"], found.manifest["settings"]
    calls = sum((entry["frames"] - 1) * settings["record_every"] + 1 for entry in entries)
    if "equilibrate_ps" in settings:  # a set that `sample` made
        chains = {(entry["temperature_K"], entry["chain"]) for entry in entries}
        equilibrate, decorrelate = (
            round(1000.0 * settings[name] / settings["step_fs"]) + 1 for name in ("equilibrate_ps", "decorrelate_ps")
        )
        free = 3 * (len(settings["numbers"]) - len(settings["fixed"]))
        calls += len(chains) * (equilibrate + min(16, free) + 1) + len(entries) * decorrelate
    return int(calls)


# --- what is shown --------------------------------------------------------------------------------

HEADER = (
    f"{'round':>5} {'base calls':>10} {'stretches':>9} {'dq %':>6} {'dp %':>6} {'largest u':>9} {'beyond %':>8} "
    f"{'drift, meV/atom/ps':>18} {'new':>4}"
)


def line(found: Round) -> str:
    """A line of the table."""
    drift = "-" if found.drift is None else f"{found.drift:+.2f} ± {found.drift_error or float('nan'):.2f}"
    text = (
        f"{found.number:5d} {found.calls:10d} {found.stretches:9d} {100 * found.error.position:6.2f} "
        f"{100 * found.error.momentum:6.2f} {found.largest:9.3g} {100 * found.beyond:8.2g} {drift:>18} {found.new:4d}"
    )
    return f"{text}   runs ended early" if found.failure else text


def table(rounds: list[Round]) -> str:
    """What each round bought."""
    return "\n".join([HEADER, *(line(found) for found in rounds)])


def draw(rounds: list[Round], path: Path) -> None:
    """Error, and the largest uncertainty, against calls of the base potential."""
    calls = [found.calls for found in rounds]
    with picture(path, 2) as (left, right):
        for k, (name, label) in enumerate((("momentum", "Δp"), ("position", "Δq"))):
            errors = [100.0 * getattr(found.error, name) for found in rounds]
            left.plot(calls, errors, marker="o", color=COLOURS[k], label=f"{label}, {errors[-1]:.2g} % at the end")
        left.set_yscale("log")
        left.set_ylabel("error of one step, %")
        left.set_title("Held-out stretches")
        left.legend()
        right.plot(calls, [found.largest for found in rounds], marker="o", color=COLOURS[2])
        right.axhline(1.0, color=COLOURS[6], linewidth=0.8, linestyle="--")
        right.annotate("edge of training", (calls[0], 1.0), textcoords="offset points", xytext=(0, 4))
        if max(found.largest for found in rounds) > TRUST:
            right.set_yscale("log")
        right.set_ylabel("largest uncertainty in the long-step runs")
        right.set_title("What the runs met")
        for axes in (left, right):
            axes.set_xlabel("calls of the base potential")
