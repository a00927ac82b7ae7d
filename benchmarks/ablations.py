"""What each part of training is worth: maps of the alloy trained alike but for one thing, at equal updates.

    python benchmarks/ablations.py [--quick] [--updates N] [--only NAME …] [--output DIR]

Rows that are done are kept in --output, one file each, and not trained again. Errors are those of one step on test
stretches, value is that of the action itself (r_A of the loss); drift is that of the base potential's energy in one
microcanonical run of the map. Two seeds of the baseline say what differences mean nothing.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from trained_maps import run

from actionlearn import systems
from actionlearn.dataset import Dataset
from actionlearn.errors import ActionlearnError
from actionlearn.losses import action_residual, look_around, midpoint_residuals, step_errors, unrolled_residuals
from actionlearn.maps.blueprint import Blueprint
from actionlearn.reference import record
from actionlearn.settings import Settings
from actionlearn.structure import energy_drift
from actionlearn.training import Trainer

STEP_FS = 24.0

#: kind of map, part of the updates, settings that differ from the default
VARIANTS = {
    "baseline": ("discrete", 1.0, {}),
    "another seed": ("discrete", 1.0, {"seed": 1}),
    "action 0.01": ("discrete", 1.0, {"action": 0.01}),
    "action 0.1": ("discrete", 1.0, {"action": 0.1}),
    "no force matching": ("discrete", 1.0, {"force_matching": 0.0}),
    "force matching 0.3": ("discrete", 1.0, {"force_matching": 0.3}),
    "window 3": ("discrete", 1.0, {"window": 3}),
    "learning rate 0.02": ("discrete", 1.0, {"learning_rate": 2e-2}),
    "averaging 30": ("discrete", 1.0, {"averaging": 30}),
    "half the batch, twice the updates": ("discrete", 2.0, {"batch_atoms": 216}),
    "midpoint": ("midpoint", 1.0, {}),
    "midpoint, action 0.01": ("midpoint", 1.0, {"action": 0.01}),
}


def measured(name, arguments):
    """Errors, drift and cost of one variant, from its file or newly trained."""
    path = arguments.output / f"{name.replace(', ', '-').replace(' ', '-')}-{arguments.updates}.json"
    if path.exists():
        return json.loads(path.read_text())
    kind, part, options = VARIANTS[name]
    data = Dataset.open(arguments.data, step_fs=STEP_FS)
    training, validation, test = data.split(0)
    stages = 2 if kind == "discrete" else 1
    blueprint = Blueprint(kind, data.species, data.masses, STEP_FS, stages, {"cutoff": 5.6})
    settings = Settings(minutes=None, updates=max(1, int(part * arguments.updates)), validations=1, **options)
    trainer = Trainer(blueprint, training, validation, settings)
    started = time.process_time()
    for _ in range(settings.updates):
        trainer.update()
    spent = (time.process_time() - started) / settings.updates
    model = trainer.average
    errors = step_errors(model, test, windows=arguments.windows)
    found = {"dq": errors.position, "dp": errors.momentum, "seconds": spent, "drift": None}
    found["value"] = value_error(model, test, arguments.windows)
    if kind != "midpoint":
        found["drift"] = drift(model, min(test.stretches, key=lambda s: abs(s.temperature_K - 700.0)), arguments.ps)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return found


def value_error(model, data, windows):
    """Error of the value of the action, r_A of the loss."""
    batch = data.windows(data.even(windows))
    look_around(model, batch)
    with torch.no_grad():
        residuals = midpoint_residuals if model.kind == "midpoint" else unrolled_residuals
        misses = residuals(model, batch, True)[2]
        return float(action_residual(torch.stack(misses), batch, STEP_FS).square().mean().sqrt())


def label_error(data):
    """What recorded actions are off by, as r_A of the loss: against base steps eight times finer, at equal ends."""
    base, dt = systems.potential("metals", systems.structure("cuau108")), data.stretches[0].step_fs / 8
    windows = data.windows(data.even(8))
    misses = []
    for first, last, action in zip(*(frame.unbatch() for frame in windows.frames), windows.action[0], strict=True):
        fine = record(first, base, step_fs=dt, frames=2, record_every=round(STEP_FS / dt))
        p, dq = 0.5 * (fine.momenta[-1] + last.momenta.numpy()), fine.positions[-1] - last.positions.numpy()
        misses.append(action + (p * dq).sum() - fine.action[-1])
    return float(action_residual(torch.stack(misses).unsqueeze(0), windows, STEP_FS).square().mean().sqrt())


def drift(model, stretch, ps):
    """Drift and its error, meV/atom/ps; nothing where the run failed."""
    base = systems.potential("metals", systems.structure("cuau108"))
    try:
        times, energies, _, _ = run(model, base, stretch, ps, every=4)
        return list(energy_drift(times, energies, stretch.system.n_atoms))
    except (ActionlearnError, ArithmeticError):
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="data/cuau")
    parser.add_argument("--updates", type=int, default=250)
    parser.add_argument("--ps", type=float, default=8.0)
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=VARIANTS)
    parser.add_argument("--output", type=Path, default=Path("out/ablations"))
    parser.add_argument("--quick", action="store_true", help="three variants, few updates, short runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    names = arguments.only or list(VARIANTS)
    if arguments.quick:
        arguments.updates, arguments.ps, arguments.windows, names = 20, 2.0, 8, names[:3]
    test = Dataset.open(arguments.data, step_fs=STEP_FS).split(0)[2]
    print(f"recorded actions are off by r_A = {label_error(test):.1e}")
    print(f"alloy, {STEP_FS:g} fs, {arguments.updates} updates; drift in {arguments.ps:g} ps from 700 K")
    print(f"{'':34s} {'dq, %':>7s} {'dp, %':>7s} {'value':>6s}  {'drift, meV/atom/ps':>20s} {'CPU s/update':>13s}")
    for name in names:
        found = measured(name, arguments)
        text = "-" if found["drift"] is None else f"{found['drift'][0]:+.3f} ± {found['drift'][1]:.3f}"
        errors = f"{100 * found['dq']:7.3f} {100 * found['dp']:7.3f} {found['value']:6.3f}"
        print(f"{name:34s} {errors}  {text:>20s} {found['seconds']:13.3f}", flush=True)


if __name__ == "__main__":
    main()
