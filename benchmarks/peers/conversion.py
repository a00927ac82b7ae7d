"""Reference sets of this package as what metatrain reads: frames in extended XYZ, and the options of a training run.

A symplectic model of FlashMD learns Δq and Δp as derivatives of one scalar of the midpoint; its frames are midpoints,
(q + q')/2 and (p + p')/2. A direct one learns the end of the step from its beginning. Units are the same on both
sides: Å, sqrt(u·eV), u, fs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase
import ase.io
import torch

from actionlearn.dataset import Dataset, Windows

KINDS = {"direct": "experimental.flashmd", "symplectic": "experimental.flashmd_symplectic"}
QUANTITIES = {"position": "A", "momentum": "(eV*u)^(1/2)"}


def frames(data: Dataset, kind: str, every: int = 1) -> list[ase.Atoms]:
    """One frame for every window of one step, or every so many, with what is to be learned of it in two arrays."""
    return [_frame(data.windows([k]), kind) for k in range(0, len(data), every)]


def _frame(window: Windows, kind: str) -> ase.Atoms:
    first, last = window.frames[:2]
    if kind == "direct":
        at, position, momentum = first, last.positions, last.momenta
    else:
        at = first.moved(0.5 * (first.positions + last.positions), 0.5 * (first.momenta + last.momenta))
        position, momentum = last.positions - first.positions, last.momenta - first.momenta
    atoms = at.to_atoms()
    atoms.arrays["next_position"], atoms.arrays["next_momentum"] = position.numpy(), momentum.numpy()
    return atoms


def balance(data: Dataset) -> tuple[float, float]:
    """Root mean squares of Δp, sqrt(u·eV), and of Δq, Å, over every eighth window."""
    windows = data.windows(range(0, len(data), 8))
    first, last = windows.frames[:2]
    sizes = [torch.sqrt((b - a).square().mean()) for a, b in _pairs(first, last)]
    return float(sizes[1]), float(sizes[0])


def _pairs(first: Any, last: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(first.positions, last.positions), (first.momenta, last.momenta)]


def write(folder: Path, training: Dataset, validation: Dataset, kind: str, every: int = 1) -> int:
    """The frames of both sets; returns how many there are to train on."""
    written = {}
    for name, data in (("training", training), ("validation", validation)):
        written[name] = frames(data, kind, every)
        ase.io.write(folder / f"{name}-{kind}.xyz", written[name], format="extxyz")
    return len(written["training"])


def options(
    kind: str, training: Dataset, model: dict[str, Any], *, epochs: int, batch: int, learning_rate: float
) -> dict[str, Any]:
    """Options of `mtt train`.

    A symplectic model has one scale for both of its outputs, as metatrain's manual asks for: other scales, which it
    would fit by default, belong to no common scalar. The weights of the loss make up for it, so that errors of Δq and
    of Δp weigh the same relative to their size, where by default those of Δp would weigh a thousand times as much.
    """
    momentum, position = balance(training)
    weights = {"position": (momentum / position) ** 2 if kind == "symplectic" else 1.0, "momentum": 1.0}
    trainer: dict[str, Any] = {
        "timestep": training.step_fs,
        "batch_size": batch,
        "num_epochs": epochs,
        "learning_rate": learning_rate,
        "num_workers": 0,
        "loss": {name: {"type": "mse", "weight": weight} for name, weight in weights.items()},
    }
    if kind == "symplectic":
        trainer["fixed_scaling_weights"] = dict.fromkeys(QUANTITIES, momentum)

    def part(name: str) -> dict[str, Any]:
        file = f"{name}-{kind}.xyz"
        targets = {
            quantity: {
                "quantity": quantity,
                "read_from": file,
                "reader": "ase",
                "key": f"next_{quantity}",
                "unit": unit,
                "type": {"cartesian": {"rank": 1}},
                "sample_kind": "atom",
                "num_subtargets": 1,
            }
            for quantity, unit in QUANTITIES.items()
        }
        return {"systems": {"read_from": file, "reader": "ase", "length_unit": "angstrom"}, "targets": targets}

    return {
        "seed": 0,
        "device": "cpu",
        "base_precision": 32,
        "architecture": {"name": KINDS[kind], "model": model, "training": trainer},
        "training_set": part("training"),
        "validation_set": part("validation"),
    }
