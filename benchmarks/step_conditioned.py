"""One model for a range of steps beside models of one step, and midpoint actions learned without trajectories.

    python benchmarks/step_conditioned.py [--quick] [--data DIR] [--updates N] [--batch-atoms N] [--only NAME …]

Errors of one step on held-out stretches, in per cent, Δq / Δp, at equal updates. Ranges are trained on steps of 8, 16
and 24 fs; those marked * none of their batches had. Models are kept in --models and not trained again.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import torch

import actionlearn as al
from actionlearn import checkpoint
from actionlearn.dataset import Dataset
from actionlearn.errors import ActionlearnError
from actionlearn.losses import step_errors
from actionlearn.maps import StepRange
from actionlearn.maps.blueprint import Blueprint
from actionlearn.reference import Stretch
from actionlearn.reference.recording import Frames
from actionlearn.settings import Settings
from actionlearn.training import Trainer

LOW, HIGH = 8.0, 24.0
STEPS = (8.0, 12.0, 16.0, 20.0, 24.0)
NETWORK = {"cutoff": 4.5, "channels": 12, "hidden": 48}
TRAINED_EVERY_FS = 8.0

#: kind, step or range, weight of the Hamilton-Jacobi residual
RUNS = {
    "discrete 8-24": ("discrete", None, 0.0),
    "discrete 8": ("discrete", 8.0, 0.0),
    "discrete 16": ("discrete", 16.0, 0.0),
    "discrete 24": ("discrete", 24.0, 0.0),
    "midpoint 16": ("midpoint", 16.0, 0.0),
    "midpoint 8-24": ("midpoint", None, 0.0),
    "midpoint 8-24, half HJ": ("midpoint", None, 0.5),
    "midpoint 8-24, HJ alone": ("midpoint", None, 1.0),
}


def sampled(folder, quick):
    """Short stretches of a small alloy, frames 4 fs apart."""
    return al.sample(
        "cuau32",
        "metals",
        folder,
        temperatures_K=[300.0, 600.0],
        step_fs=2.0,
        record_every=2,
        frames=31 if quick else 61,
        stretches=4 if quick else 10,
        equilibrate_ps=0.2 if quick else 1.0,
        decorrelate_ps=0.1 if quick else 0.3,
        single=True,
        processes=1,
    )


def coarser(stretch: Stretch) -> Stretch:
    """Every so many frames of a stretch, so that a range finds no other steps on them than it is to be trained on."""
    every = round(TRAINED_EVERY_FS / stretch.interval_fs)
    frames = Frames(*(getattr(stretch.frames, field.name)[::every] for field in dataclasses.fields(Frames)))
    return dataclasses.replace(stretch, steps=stretch.steps[::every], frames=frames)


def trained(name, training, validation, arguments):
    """The map or the range of this name, from its file or newly trained, and CPU seconds of training."""
    kind, step_fs, weight = RUNS[name]
    path = (
        Path(arguments.models)
        / f"{name.replace(' ', '-').replace(',', '')}-{arguments.updates}-{arguments.batch_atoms}.pt"
    )
    if not path.exists():
        blueprint = Blueprint(
            kind,
            training.species,
            training.masses,
            step_fs or HIGH,
            1 if kind == "midpoint" else 2,
            NETWORK,
            steps_fs=None if step_fs else (LOW, HIGH),
        )
        settings = Settings(
            minutes=None, updates=arguments.updates, batch_atoms=arguments.batch_atoms, hamilton_jacobi=weight
        )
        if step_fs is not None:
            training, validation = training.at_step(step_fs), validation.at_step(step_fs)
        trainer = Trainer(blueprint, training, validation, settings)
        started = time.process_time()
        for _ in range(arguments.updates):
            trainer.update()
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(trainer.average, path, {"cpu_seconds": time.process_time() - started})
    model = al.load(path)
    return model, model.report["cpu_seconds"]


def row(name, training, validation, test, arguments):
    """One line of the table."""
    model, seconds = trained(name, training, validation, arguments)
    text = f"{name:24s} {seconds / 60.0:5.1f}"
    for step_fs in STEPS:
        if not isinstance(model, StepRange) and model.step_fs != step_fs:
            text += f" {'':>15s}"
            continue
        step = model.at(step_fs) if isinstance(model, StepRange) else model
        try:
            found = step_errors(step, test.at_step(step_fs), windows=8 if arguments.quick else 12)
            text += f" {100 * found.position:7.2f} /{100 * found.momentum:6.2f}"
        except ActionlearnError as problem:
            text += f" {type(problem).__name__:>15s}"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="out/cuau32", help="sampled there if there is nothing")
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--batch-atoms", type=int, default=256)
    parser.add_argument("--models", default="out/models")
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--quick", action="store_true", help="a small set, few updates")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if arguments.quick:
        arguments.updates, arguments.data = 15, f"{arguments.data}-quick"
    stretches = list(sampled(arguments.data, arguments.quick))
    training, validation, test = Dataset(stretches, step_fs=HIGH).split(0)
    training, validation = (
        Dataset([coarser(s) for s in part.stretches], step_fs=HIGH) for part in (training, validation)
    )
    unseen = [step_fs for step_fs in STEPS if step_fs not in training.steps_between(LOW, HIGH)]
    head = " ".join(f"{f'{s:g} fs' + '*' * (s in unseen):>15s}" for s in STEPS)
    print(f"CuAu, 32 atoms, {arguments.updates} updates; dq / dp in per cent\n{'model':24s} {'min':>5s} {head}")
    for name in arguments.only or RUNS:
        print(row(name, training, validation, test, arguments), flush=True)


if __name__ == "__main__":
    main()
