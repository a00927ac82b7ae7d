"""Trained maps side by side: one-step error, drift, temperatures and cost, at equal updates on the same data.

    python benchmarks/trained_maps.py alloy [--quick] [--updates N] [--only NAME …] [--models DIR]
    python benchmarks/trained_maps.py ethanol --data DIR …

A map is named KIND-STAGES-STEP, as in processed-1-24. Models are kept in --models and not trained again; rows appear
as they are done. Drift is that of the base potential's energy in a microcanonical run of the map.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from ledger import Ledger, json_option

import actionlearn as al
from actionlearn import checkpoint, systems
from actionlearn.dataset import Dataset
from actionlearn.errors import ActionlearnError
from actionlearn.losses import step_errors
from actionlearn.maps.blueprint import Blueprint
from actionlearn.settings import Settings
from actionlearn.structure import energy_drift, equipartition
from actionlearn.training import Trainer

MAPS = {
    "alloy": "discrete-1-16 processed-1-16 discrete-1-24 processed-1-24 discrete-2-24 corrected-2-24 "
    "discrete-2-48 processed-2-48 discrete-3-48 discrete-4-48",
    "ethanol": "discrete-1-2 processed-1-2 discrete-2-4 processed-2-4 discrete-4-4",
}
NETWORKS = {"alloy": {"cutoff": 5.6}, "ethanol": {"cutoff": 5.0, "channels": 24, "layers": 1}}
POTENTIALS = {"alloy": ("cuau108", "metals"), "ethanol": ("ethanol", "gfn2-xtb")}


def trained(name, system, data_folder, updates, models):
    """The map of this name, from its file or newly trained, its base, its test set, and stretches to start from."""
    kind, stages, step_fs = name.split("-")
    data = Dataset.open(data_folder, step_fs=float(step_fs))
    training, validation, test = data.split(0)
    base = systems.potential(POTENTIALS[system][1], systems.structure(POTENTIALS[system][0]))
    path = models / f"{system}-{name}-{updates}.pt"
    if not path.exists():
        blueprint = Blueprint(kind, data.species, data.masses, float(step_fs), int(stages), NETWORKS[system])
        settings = Settings(minutes=None, updates=updates, batch_atoms=432 if system == "alloy" else 288)
        trainer = Trainer(blueprint, training, validation, settings, base if kind == "corrected" else None)
        started = time.process_time()
        trainer.run(progress=True)
        models.mkdir(parents=True, exist_ok=True)
        checkpoint.save(trainer.average, path, {"cpu_seconds": time.process_time() - started})
    model = al.load(path, base=base if kind == "corrected" else None)
    return model, base, test, [*test.stretches, *data.stretches]


@torch.no_grad()
def run(model, base, stretch, ps, every):
    """Energies, momenta and seconds a step of a microcanonical run from the first frame of a stretch."""
    state = stretch.state(0)
    steps = max(int(ps * 1000 / model.step_fs) // every, 17)
    times, energies, momenta, spent = [], [], [], 0.0
    for k in range(steps):
        started = time.perf_counter()
        state = model.step(state, every)
        spent += time.perf_counter() - started
        times.append((k + 1) * every * model.step_fs)
        energies.append(float(base.energy(state) + state.kinetic_energy()))
        momenta.append(state.momenta)
        if not math.isfinite(energies[-1]) or abs(energies[-1] - energies[0]) > 2.0 * state.n_atoms:
            break
    return np.array(times), np.array(energies), torch.stack(momenta), spent / (len(times) * every)


def row(name, system, arguments, ledger):
    """One line of the table."""
    model, base, test, starts = trained(name, system, arguments.data, arguments.updates, Path(arguments.models))
    kind, stages, step_fs = name.split("-")
    errors = step_errors(model, test, windows=20 if arguments.quick else 100)
    text = f"{name:18s} {stages:>4s} {100 * errors.position:8.3f} {100 * errors.momentum:8.3f}"
    case = f"{system}, {name}, {arguments.updates} updates"
    ledger.add(case, "error of Δq", 100 * errors.position, unit="%", tolerance=0.15)
    ledger.add(case, "error of Δp", 100 * errors.momentum, unit="%", tolerance=0.15)
    for temperature_K in arguments.temperature:
        stretch = min(starts, key=lambda s: abs(s.temperature_K - temperature_K))
        every = round((240.0 if system == "alloy" else 40.0) / model.step_fs)
        every = max(1, min(every, int(arguments.ps * 1000 / model.step_fs) // 40))
        try:
            times, energies, momenta, seconds = run(model, base, stretch, arguments.ps, every)
            drift, error = energy_drift(times, energies, stretch.system.n_atoms)
            shares = equipartition(momenta[len(momenta) // 10 :], stretch.state(0), momentum_removed=True)
            T = " ".join(f"{t:.0f}±{e:.0f}" for t, e in zip(shares.temperatures_K, shares.errors_K, strict=True))
            text += f" | {drift:+7.3f} ±{error:.3f} {times[-1] * 1e-3:4.0f} ps  {T}  p={shares.p_value:.2f}"
            text += f"  {1e3 * seconds:6.1f}"
        except (ActionlearnError, ArithmeticError) as problem:
            text += f" | {type(problem).__name__}: {str(problem)[:60]}"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("system", nargs="?", default="alloy", choices=MAPS)
    parser.add_argument("--data", default="data/cuau")
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--models", default="out/models")
    parser.add_argument("--ps", type=float, default=50.0)
    parser.add_argument("--temperature", type=float, nargs="+", default=None)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--quick", action="store_true", help="two maps, few updates, short runs")
    json_option(parser)
    arguments = parser.parse_args()
    ledger = Ledger("trained_maps")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if arguments.quick:
        arguments.updates, arguments.ps = 60, 2.0
    names = arguments.only or MAPS[arguments.system].split()[: 2 if arguments.quick else None]
    if arguments.temperature is None:
        arguments.temperature = [300.0] if arguments.system == "ethanol" else [500.0]
    columns = " | ".join(f"{T:g} K: drift meV/atom/ps, temperatures by species, ms/step" for T in arguments.temperature)
    print(f"{arguments.system}, {arguments.updates} updates\nmap            gradients   dq, %    dp, % | {columns}")
    for name in names:
        print(row(name, arguments.system, arguments, ledger), flush=True)
    ledger.write(arguments.json, quick=arguments.quick)


if __name__ == "__main__":
    main()
