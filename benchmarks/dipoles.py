"""Dipoles of ethanol: a model trained on GFN2-xTB's, and the infrared spectrum that follows from it on long steps.

    python benchmarks/dipoles.py [--quick]

Frames come from runs of data/models/ethanol-gfn2-discrete-4fs.pt in steps of 4 fs: under a thermostat for training, in
another run of its own at 300 K for the spectrum. Both spectra are of the very same frames, one with the dipoles of the
model and one with those of GFN2-xTB, so that they differ by the dipoles alone. Needs tblite.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import actionlearn as al
from actionlearn import dipoles, systems
from actionlearn.analysis import infrared_spectrum
from actionlearn.dynamics import Langevin
from actionlearn.networks import ARCHITECTURES

DATA = Path(__file__).parent.parent / "data"
BANDS = {"C-C-O bend to C-H wag": (250, 1000), "C-O, O-H bend": (1000, 1300), "CH bends": (1300, 1600),
         "C-H": (2700, 3200), "O-H": (3300, 3900)}  # fmt: skip


def frames(model, start, temperature_K, ps, every, seed):
    """States of a run under a thermostat, `every` steps apart, after half a picosecond."""
    kept = []
    steps, wait = round(1000 * ps / model.step_fs), round(500 / model.step_fs)

    def keep(step, state):
        if step >= wait:
            kept.extend(state.unbatch())

    batch = al.PhaseState.batch([start] * 4)
    al.simulate(model, batch, wait + steps, ensemble=Langevin(temperature_K, 5.0, seed=seed), observe=keep, every=every)
    return kept


def free_run(model, start, ps):
    """States of a microcanonical run, one for every step."""
    states = [start]
    for _ in range(round(1000 * ps / model.step_fs)):
        states.append(model.step(states[-1]))
    return states


def timed(call, items):
    """Seconds of the process that a call takes for each item, and what it gave."""
    started = time.process_time()
    found = call()
    return found, (time.process_time() - started) / len(items)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few frames and updates")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    base = systems.potential("gfn2-xtb", systems.structure("ethanol"))
    model = al.load(DATA / "models" / "ethanol-gfn2-discrete-4fs.pt")
    start = al.ReferenceSet.open(DATA / "ethanol")[0].state(0)
    with torch.no_grad():
        count, ps = (40, 0.5) if quick else (600, 12.0)
        every = 4 if quick else 10
        pool = frames(model, start, 500.0, count * every * model.step_fs / 4000, every, seed=1)[:count]
        hot = free_run(model, frames(model, start, 300.0, 0.01, 1, seed=2)[-1], ps)
    labels, each = timed(lambda: dipoles.label(pool, base), pool)
    exact = dipoles.label(hot, base)
    print(f"{len(pool)} frames labelled, {1e3 * each:.2f} ms of GFN2-xTB each; {len(hot)} frames of {ps:g} ps at 300 K")
    print(
        f"{'network':10s} {'parameters':>10s} {'updates':>8s} {'CPU s':>6s} {'error, me·Å':>12s} {'%':>6s} {'ms':>6s}"
    )
    spectra = {"GFN2-xTB": exact}
    for name in ARCHITECTURES:
        settings = al.Settings(minutes=None, updates=10 if quick else 400)
        fitted, spent = timed(lambda: dipoles.fit(pool, labels, settings, network={"architecture": name}), [0])  # noqa: B023
        found, per_frame = timed(lambda: dipoles.errors(fitted, hot, exact), hot)  # noqa: B023
        weights = sum(w.numel() for w in fitted.parameters())
        print(
            f"{name:10s} {weights:10d} {settings.updates:8d} {spent:6.0f} {1e3 * found.rms:12.2f} "
            f"{100 * found.relative:6.2f} {1e3 * per_frame:6.2f}"
        )
        with torch.no_grad():
            spectra[name] = np.concatenate([fitted(state).numpy() for state in hot])
    found = {
        name: infrared_spectrum(mu, model.step_fs, resolution_per_cm=200 if quick else 40)
        for name, mu in spectra.items()
    }
    print("\ninfrared spectrum of the same frames: mean position of each band, cm⁻¹, and its part of the absorption, %")
    print(f"{'':24s}" + "".join(f"{name:>18s}" for name in found))
    for band, (low, high) in BANDS.items():
        cells = []
        for spectrum in found.values():
            inside = (spectrum.per_cm >= low) & (spectrum.per_cm <= high)
            share = spectrum.absorption[inside].sum() * spectrum.per_cm[1]
            cells.append(f"{spectrum.band(low, high):10.1f} {100 * share:6.2f}")
        print(f"{band:24s}" + "".join(f"{cell:>18s}" for cell in cells))
    reference = found["GFN2-xTB"]
    for name in ARCHITECTURES:
        off = np.abs(found[name].absorption - reference.absorption).sum() * reference.per_cm[1]
        print(f"area between the spectra of {name} and GFN2-xTB: {100 * off:.2f} % of the absorption")


if __name__ == "__main__":
    main()
