"""Trained maps as files: tensors and plain values only, so that `torch.load(…, weights_only=True)` reads them."""

from __future__ import annotations

import dataclasses
from importlib import metadata
from pathlib import Path
from typing import Any

import ase
import torch
from ase.data import chemical_symbols

from actionlearn import systems
from actionlearn.errors import ActionlearnError, DataError, InvalidInput
from actionlearn.files import write_atomically
from actionlearn.maps.blueprint import Blueprint, learned_part
from actionlearn.maps.step_range import StepRange
from actionlearn.potentials.protocol import Potential
from actionlearn.uncertainty import Uncertainty

FORMAT, VERSION = "actionlearn model", 1
UNITS = {"length": "angstrom", "energy": "eV", "mass": "u", "step_fs": "fs", "time": "angstrom*sqrt(u/eV)"}


def save(model: Any, path: str | Path, report: dict[str, Any] | None = None) -> None:
    """Write a map made from a blueprint, with what is known about it.

    `report` may hold numbers, text, lists, dictionaries and tensors: errors, the learning curve, the range of
    temperatures and of the network's inputs in training.
    """
    blueprint = getattr(model, "blueprint", None)
    if not isinstance(blueprint, Blueprint):
        raise InvalidInput(f"only maps built from a Blueprint can be saved, this {type(model).__name__} was not")
    content = {
        "format": FORMAT,
        "version": VERSION,
        "package_version": metadata.version("actionlearn"),
        "units": UNITS,
        "blueprint": dataclasses.asdict(blueprint),
        "weights": {name: tensor.cpu() for name, tensor in learned_part(model).state_dict().items()},
        "report": report or {},
    }
    write_atomically(Path(path), lambda file: torch.save(content, file))


@torch.inference_mode(False)  # weights made in it could never be differentiated
def load(
    path: str | Path,
    *,
    base: Potential | None = None,
    step_fs: float | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Any:
    """The map in a checkpoint, ready to step; its `report` attribute says how it was trained.

    Its `uncertainty`, a function of a state, says of every atom how far its surroundings are from those of training, 1
    being the edge of what training has seen; None in checkpoints that do not hold it.

    A corrected map calls its base potential: the built-in one that it names, unless `base` gives it. With `step_fs`,
    a checkpoint of another step is refused. Systems of other elements or masses are refused when they are stepped.
    A checkpoint for a range of steps gives the map of `step_fs`, or without it a `StepRange`, whose `at(step_fs)` does.
    A potential comes as velocity Verlet on it, in any step that is asked for, and as `model.potential`. A file that
    holds one is a base potential by its name.
    """
    content = read(Path(path))
    blueprint = Blueprint(**{**content["blueprint"], "species": tuple(content["blueprint"]["species"])})
    if blueprint.kind == "potential" and step_fs is not None:
        blueprint = dataclasses.replace(blueprint, step_fs=float(step_fs))
    fixed = blueprint.steps_fs is None
    if step_fs is not None and fixed and abs(step_fs - blueprint.step_fs) > 1e-9 * blueprint.step_fs:
        raise InvalidInput(
            f"{path} holds a map for steps of {blueprint.step_fs:g} fs, asked for {step_fs:g} fs: its step is part of "
            "what it learned; take steps of its own, or train another model"
        )
    if blueprint.kind == "corrected" and base is None:
        base = _base_potential(Path(path), blueprint)
    model = blueprint.build(base, dtype)
    try:
        learned_part(model).load_state_dict(content["weights"])
    except RuntimeError as problem:
        raise DataError(f"{path}: the weights do not fit the map they are to be for: {problem}") from None
    learned_part(model).requires_grad_(False)
    model.to(device)
    if step_fs is not None and not fixed:
        model = model.at(step_fs)
    model.report = content["report"]
    model.uncertainty = Uncertainty.of(model)
    return model


def load_map(path: str | Path, step_fs: float | None = None, *, base: Potential | None = None) -> Any:
    """Like `load`, for those who need one map: that of a checkpoint for a range of steps must be named by its step."""
    model = load(path, step_fs=step_fs, base=base)
    if isinstance(model, StepRange):
        low, high = model.steps_fs
        raise InvalidInput(f"{path} holds maps for steps of {low:g} to {high:g} fs: choose one with --step-fs")
    return model


def read(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, `blueprint`, `weights`, `report` and `package_version`, without building the map."""
    if not path.is_file():
        raise InvalidInput(f"there is no checkpoint {path}: give a file written by `actionlearn train`")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as problem:
        reason = (str(problem).splitlines() or [""])[0]
        raise DataError(f"{path} is no checkpoint, or damaged: {type(problem).__name__}: {reason}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path} is no '{FORMAT}' file: give one written by `actionlearn train`")
    if content.get("version") != VERSION:
        raise DataError(
            f"{path} has format version {content.get('version')} (written by actionlearn "
            f"{content.get('package_version')}), this package reads version {VERSION}: use that package, or train anew"
        )
    if content.get("units") != UNITS:
        raise DataError(f"{path} has units {content.get('units')}, expected {UNITS}")
    return content


def _named(path: Path, atoms: ase.Atoms) -> Potential:
    """The potential in a checkpoint, for `systems.potential`."""
    kind = read(path)["blueprint"]["kind"]
    if kind != "potential":
        raise InvalidInput(
            f"{path} holds a {kind} map, whose kicks are those of a long step: a potential is trained with "
            "`actionlearn train --kind potential`"
        )
    potential: Potential = load(path).potential
    return potential


systems.FILE_FORMATS[FORMAT] = _named


def _base_potential(path: Path, blueprint: Blueprint) -> Potential:
    if blueprint.base is None:
        raise InvalidInput(f"{path} holds a corrected map without the name of its base potential: load(…, base=…)")
    atoms = ase.Atoms("".join(chemical_symbols[z] for z in blueprint.species))
    try:
        return systems.potential(blueprint.base, atoms)
    except ActionlearnError as problem:
        raise InvalidInput(f"{path} needs the base potential {blueprint.base!r} ({problem}): load(…, base=…)") from None
