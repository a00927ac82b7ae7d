"""Training the peer's models and ours on one data set, each kept with what it cost, in seconds of the processor."""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import conversion

import actionlearn as al
from actionlearn.assessment import feature_range
from actionlearn.dataset import Dataset
from actionlearn.maps.blueprint import Blueprint

#: Widths of the peer's networks: of the direct one that guesses, and of a symplectic one with as many parameters as
#: our maps have.
GUESSING = {"d_pet": 16, "d_head": 16, "d_node": 32, "d_feedforward": 32}
SMALL = {"d_pet": 12, "d_head": 12, "d_node": 12, "d_feedforward": 16}
SHALLOW = {"num_heads": 2, "num_attention_layers": 1, "num_gnn_layers": 2}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is trained: `amount` is epochs for the peer, updates for ours."""

    kind: str
    amount: int
    network: dict[str, Any]

    @property
    def peer(self) -> bool:
        """Whether metatrain trains it."""
        return self.kind in conversion.KINDS


PLANS = {
    "flashmd-direct": Plan("direct", 20, {**GUESSING, **SHALLOW}),
    "flashmd-symplectic-brief": Plan("symplectic", 4, {**SMALL, **SHALLOW}),
    "flashmd-symplectic": Plan("symplectic", 8, {**SMALL, **SHALLOW}),
    "midpoint": Plan("midpoint", 200, {"cutoff": 5.6}),
}
BATCH = 4
LEARNING_RATES = {"direct": 3e-3, "symplectic": 3e-3, "midpoint": 0.01}


def trained(name: str, data: Dataset, folder: Path, *, quick: bool) -> tuple[Path, dict[str, float]]:
    """The file of a model, trained unless it is there, and what its training cost."""
    plan, folder = PLANS[name], folder / (name + ("-quick" if quick else ""))
    path, record = folder / ("model.ckpt" if plan.peer else "model.pt"), folder / "cost.json"
    if not record.exists():
        folder.mkdir(parents=True, exist_ok=True)
        training, validation, _ = data.split(0)
        cost = (_train_peer if plan.peer else _train_ours)(plan, training, validation, folder, path, quick)
        record.write_text(json.dumps(cost))
    return path, json.loads(record.read_text())


def _train_peer(
    plan: Plan, training: Dataset, validation: Dataset, folder: Path, path: Path, quick: bool
) -> dict[str, float]:
    import yaml  # the peer's environment has it

    epochs, every = (1, 50) if quick else (plan.amount, 1)
    frames = conversion.write(folder, training, validation, plan.kind, every)
    settings = conversion.options(
        plan.kind, training, plan.network, epochs=epochs, batch=BATCH, learning_rate=LEARNING_RATES[plan.kind]
    )
    (folder / "options.yaml").write_text(yaml.safe_dump(settings))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / "log.txt").open("w") as log:
        command = [str(Path(sys.executable).with_name("mtt")), "train", "options.yaml", "-o", "model.pt"]
        subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    for written in folder.glob("*.xyz"):
        written.unlink()
    return {"cpu_seconds": seconds, "updates": epochs * (frames // BATCH)}


def _train_ours(
    plan: Plan, training: Dataset, validation: Dataset, folder: Path, path: Path, quick: bool
) -> dict[str, float]:
    updates = 20 if quick else plan.amount
    blueprint = Blueprint(plan.kind, training.species, training.masses, training.step_fs, 1, plan.network)
    trainer = al.Trainer(blueprint, training, validation, _settings(updates, LEARNING_RATES[plan.kind]))
    started = time.process_time()
    trainer.run(folder / "state", progress=True)
    seconds = time.process_time() - started
    al.save(trainer.average, path, {"input_range": feature_range(trainer.average, training)})
    return {"cpu_seconds": seconds, "updates": updates}


def cost_of(path: Path, data: Dataset, updates: int = 10) -> dict[str, float]:
    """What the training of a map that comes with the package costs: its updates, at the cost of a few made here."""
    model = al.load(path)
    training, validation, _ = data.split(0)
    trainer = al.Trainer(model.blueprint, training, validation, _settings(100 * updates, 0.02))
    trainer.update()
    started = time.process_time()
    for _ in range(updates):
        trainer.update()
    return {
        "cpu_seconds": model.report["updates"] * (time.process_time() - started) / updates,
        "updates": model.report["updates"],
    }


def _settings(updates: int, learning_rate: float) -> al.Settings:
    return al.Settings(
        minutes=None,
        updates=updates,
        learning_rate=learning_rate,
        batch_atoms=108 * BATCH,
        force_matching=0.0,
        validations=1 if updates < 100 else 4,  # each solves equations of many steps
        drift_share=0.0,
    )
