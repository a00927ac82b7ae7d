"""What there is to report of a map: its checkpoint, its validation, its runs, and that they belong together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actionlearn import checkpoint
from actionlearn.errors import DataError, InvalidInput
from actionlearn.files import read_json, sha256
from actionlearn.validation import Limits

VALIDATION = "validation.json"


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the page is made of: a checkpoint's content, a validation with its series, summaries of runs."""

    model: Path
    content: dict[str, Any]
    checksum: str
    validation: dict[str, Any] | None
    runs: dict[str, dict[str, Any]]

    @property
    def blueprint(self) -> dict[str, Any]:
        """The numbers that determine the map."""
        found: dict[str, Any] = self.content["blueprint"]
        return found

    @property
    def training(self) -> dict[str, Any]:
        """What the checkpoint says of its training."""
        found: dict[str, Any] = self.content["report"]
        return found

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Results of the validation by rising temperature, none without one."""
        return [] if self.validation is None else self.validation["temperatures"]

    @property
    def step_fs(self) -> float:
        """The step that was validated, or else that of the map, the longest where it is one for a range of steps."""
        found: float = (self.validation or self.blueprint)["step_fs"]
        return found

    @property
    def limits(self) -> Limits:
        """Those that the verdict kept."""
        return Limits(**(self.validation or {}).get("limits", {}))


def gather(sources: Sequence[str | Path]) -> Evidence:
    """Find the model, its validation and its runs in checkpoints, summaries, trajectories and folders of these."""
    models: list[Path] = []
    validations: list[Path] = []
    runs: dict[str, dict[str, Any]] = {}
    for source in map(Path, sources):
        if not source.exists():
            raise InvalidInput(f"there is no {source}: give a checkpoint, a run, or a folder with either")
        for path in _within(source):
            if path.name == VALIDATION:
                validations.append(path)
            elif path.suffix == ".json":
                found = read_json(path)
                if isinstance(found, dict) and {"model", "structure", "ensemble"} <= set(found):
                    runs[str(path.with_suffix(""))] = found
            else:
                models.append(path)
    if len(validations) > 1:
        raise InvalidInput(f"several validations, {', '.join(map(str, validations))}: give the one to report")
    validation = _with_series(validations[0]) if validations else None
    named = {Path(found["model"]) for found in [*([validation] if validation else []), *runs.values()]}
    models = list(dict.fromkeys(models)) or sorted(path for path in named if path.is_file())
    if len(models) != 1:
        what = "no checkpoint" if not models else f"several checkpoints, {', '.join(map(str, models))},"
        raise InvalidInput(f"{what} in {', '.join(map(str, sources))}: give the one to report")
    checksum = sha256(models[0])
    for name, found in [(VALIDATION, validation or {}), *runs.items()]:
        if found.get("model_sha256", checksum) != checksum:
            raise DataError(f"{name} belongs to another model ({found['model']}) than {models[0]}: leave one out")
    return Evidence(models[0], checkpoint.read(models[0]), checksum, validation, runs)


def _within(source: Path) -> list[Path]:
    """The files to look at: of a folder its checkpoints, validation and summaries; of a trajectory its summary."""
    if source.is_dir():
        found = [*source.glob("*.pt"), *source.glob(f"*/{VALIDATION}"), *source.glob("*.json")]
        if (source / VALIDATION).exists():
            found = [path for path in found if path.suffix != ".json"] + [source / VALIDATION]
        return sorted(set(found))
    summary = source.with_name(source.name + ".json")
    return [summary if source.suffix in (".xyz", ".extxyz", ".traj") and summary.exists() else source]


def _with_series(path: Path) -> dict[str, Any]:
    """A validation, with the series of each of its temperatures."""
    found = read_json(path)
    wanted = {"verdict", "one_step", "structure", "temperatures", "model", "step_fs"}
    if not isinstance(found, dict) or not wanted <= set(found):
        raise DataError(f"{path} is not what `actionlearn validate` writes: validate again")
    rows = []
    for row in found["temperatures"]:
        kept = read_json(path.parent / f"{row['temperature_K']:g}K.json")
        rows.append(kept["result"])
        found.setdefault("model_sha256", kept["made_for"].get("model"))
    return {**found, "temperatures": rows}
