"""Networks beside each other: what AtomicMoments and SchNet make of the same forces, at equal updates and at equal CPU.

    python benchmarks/architectures.py [--quick] [--updates N]

Potentials are matched to forces of the alloy (data/cuau, split by stretch) and of ethanol on GFN2-xTB: frames of runs
of the shipped map at 300 and 500 K, labelled afterwards; tested on data/ethanol. At equal CPU the cheaper network has N
updates more or less, so that both spend what SchNet spends on N. Ethanol needs tblite.
"""

import argparse
import time
from pathlib import Path

import torch
from clock import Turns
from dipoles import frames

import actionlearn as al
from actionlearn import systems
from actionlearn.dataset import Dataset
from actionlearn.losses import force_errors
from actionlearn.maps.blueprint import Blueprint
from actionlearn.networks import ARCHITECTURES
from actionlearn.reference import Stretch, record
from actionlearn.settings import Settings
from actionlearn.training import Trainer

DATA = Path(__file__).parent.parent / "data"


def alloy(quick):
    """Training, validation and test frames of the alloy."""
    stretches = list(al.ReferenceSet.open(DATA / "cuau"))
    return Dataset(stretches[::6] if quick else stretches, step_fs=2.0, length=1).split(0)


def ethanol(quick):
    """Frames of the shipped map's runs with forces of GFN2-xTB, and held-out stretches."""
    base = systems.potential("gfn2-xtb", systems.structure("ethanol"))
    model = al.load(DATA / "models" / "ethanol-gfn2-discrete-4fs.pt")
    held = list(al.ReferenceSet.open(DATA / "ethanol"))
    ps, found = 0.1 if quick else 3.0, []
    for T, seed in ((300.0, 1), (500.0, 2)):
        with torch.no_grad():
            states = frames(model, held[0].state(0), T, ps, 10, seed)
        found += [labelled(state, base, T, f"{T:g}K-{k}") for k, state in enumerate(states)]
    training = Dataset(found, step_fs=0.5, length=1)
    training, validation, _ = training.split(0, test=0.01)
    return training, validation, Dataset(held, step_fs=0.5, length=1)


def labelled(state, base, temperature_K, name):
    """One state with its energy and forces."""
    with torch.no_grad():
        frame = record(state, base, step_fs=0.0, frames=1, record_every=1)
    return Stretch(name, temperature_K, 0, 0.0, torch.zeros(1, dtype=torch.int64).numpy(), 0.0, frame, state)


def trained(name, sets, cutoff, updates, part=1.0):
    """A potential after so many updates, its errors on test frames, and CPU seconds of an update."""
    training, validation, test = sets
    blueprint = Blueprint(
        "potential", training.species, training.masses, training.step_fs, 1, {"architecture": name, "cutoff": cutoff}
    )
    updates = max(1, round(part * updates))
    trainer = Trainer(blueprint, training, validation, Settings(minutes=None, updates=updates, drift_share=0.0))
    started = time.process_time()
    for _ in range(updates):
        trainer.update()
    spent = (time.process_time() - started) / updates
    return trainer.average.potential, force_errors(trainer.average.potential, test), spent


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="few updates, few frames")
    args = parser.parse_args()
    if args.quick:
        args.updates = 8
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    print(f"{args.updates} updates; errors of forces on frames that were not trained on")
    head = (
        "network    parameters  ms/gradient  CPU ms/update   updates: meV/Å      %   equal CPU: updates  meV/Å      %"
    )
    for system, make, cutoff in (("alloy", alloy, 5.6), ("ethanol", ethanol, 5.0)):
        sets = make(args.quick)
        print(f"\n{system}: {len(sets[0])} frames to train on, {len(sets[2])} to test\n{head}", flush=True)
        found = {name: trained(name, sets, cutoff, args.updates) for name in ARCHITECTURES}
        state = sets[2].windows([0]).frames[0]
        turns = Turns({n: lambda p=p: p.forces(state) for n, (p, _, _) in found.items()}, 5 if args.quick else 30)  # noqa: B023
        for name, (potential, errors, spent) in found.items():
            part, again = found["schnet"][2] / spent, errors
            if abs(part - 1.0) > 0.1:
                again = trained(name, sets, cutoff, args.updates, part)[1]
            size = sum(w.numel() for w in potential.parameters())
            print(
                f"{name:10s} {size:10d} {turns.ms(name):12.2f} {1e3 * spent:14.1f} {1e3 * errors.rms:18.1f} "
                f"{100 * errors.relative:6.2f} {round(part * args.updates):20d} {1e3 * again.rms:7.1f} "
                f"{100 * again.relative:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
