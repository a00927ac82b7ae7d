"""What choosing by a committee buys: reference structures of ethanol on GFN2-xTB, chosen or drawn, at equal base calls.

    python benchmarks/committee.py [--quick] [--seeds N] [--folder DIR]

A committee of small networks starts from a few frames sampled at 300 K and is to be good at 700 K. In every round its
mean runs at 700 K, some states are labelled by the base potential, and training goes on. States are chosen

    committee  where the members' forces differ by more than on the validation set, far apart among those
    distance   by the distance of surroundings from those of training (half of them at random)
    any state  at random from the same kind of runs, which nobody doubts

Printed are errors of the mean force on frames of 300 and 700 K that none has seen, and their mean over the
worst hundredth of the atoms; then, how well both measures of uncertainty, which see no label, go with the true error of
the first committee, atom by atom (rank correlation). Finished pieces in --folder are kept. Needs tblite.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from dipoles import frames
from scipy.stats import spearmanr

import actionlearn as al
from actionlearn import systems
from actionlearn.adaptive import (
    Adaptive,
    FarFromTraining,
    Plan,
    any_state,
    criterion_of,
    far_apart,
    half_uncertain,
)
from actionlearn.maps.blueprint import Blueprint
from actionlearn.uncertainty import Uncertainty

DATA = Path(__file__).parent.parent / "data"
HOT_K = 700.0


class Nobody:
    """A criterion that finds every state equally new, so that chance alone decides."""

    def __init__(self, model):
        self.inputs = FarFromTraining(Uncertainty.of(model))

    def look(self, state):
        u, y = self.inputs.look(state)
        return torch.full_like(u, 2.0), y


def by_distance(model):
    return FarFromTraining(Uncertainty.of(model))


CHOICES = {
    "committee": (criterion_of, far_apart),
    "distance": (by_distance, half_uncertain),
    "any state": (Nobody, any_state),
}


def misses(potential, states, forces):
    """|δF| of every atom, eV/Å, and rms of a component."""
    found = torch.cat([potential.forces(state) for state in states]) - forces
    return found.norm(dim=1), float(found.square().mean().sqrt())


def line(name, found, calls, held):
    """Errors on all held-out sets."""
    cells = []
    for states, forces in held.values():
        each, rms = misses(found, states, forces)
        worst = each.sort(descending=True).values[: max(len(each) // 100, 1)].mean()
        cells.append(f"{1e3 * rms:10.1f} {1e3 * float(worst):8.0f}")
    return f"{name:12s} {calls:6d}" + "".join(cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one seed, one round, few updates")
    parser.add_argument("--folder", type=Path, help="keep what is computed here")
    args = parser.parse_args()
    quick = args.quick
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    base = systems.potential("gfn2-xtb", systems.structure("ethanol"))
    model = al.load(DATA / "models" / "ethanol-gfn2-discrete-4fs.pt")
    start = al.ReferenceSet.open(DATA / "ethanol")[0].state(0)
    held = {}
    for T in (300.0, HOT_K):
        with torch.no_grad():
            states = frames(model, start, T, 0.02 if quick else 1.0, 5, seed=7)
            held[T] = states, torch.cat([base.forces(state) for state in states])
    folder = args.folder or Path(tempfile.mkdtemp())
    plan = Plan((HOT_K,), rounds=1 if quick else 3, stretches=4 if quick else 12, runs=4, ps=0.05 if quick else 0.5)
    network = {"cutoff": 5.0, "channels": 8, "hidden": 32}
    print("error of forces, meV/Å: all, and the worst hundredth of the atoms")
    print(f"{'':12s} {'calls':>6s}" + "".join(f"{f'{T:g} K':>12s}{'worst':>7s}" for T in held))
    for seed in range(1 if quick else args.seeds):
        first = al.sample(
            "ethanol",
            "gfn2-xtb",
            folder / f"first-{seed}",
            temperatures_K=[300.0],
            step_fs=0.5,
            stretches=4,
            frames=6,
            record_every=8,
            equilibrate_ps=0.1,
            decorrelate_ps=0.05,
            chains=1,
            seed=seed,
        )
        system = first[0].system
        masses = dict(sorted(zip(system.numbers.tolist(), system.masses.tolist(), strict=True)))
        blueprint = Blueprint("potential", tuple(masses), masses, 1.0, 1, network, members=3)
        settings = al.Settings(
            minutes=None, updates=4 if quick else 150, batch_atoms=144, validations=3, drift_share=0.0
        )
        for name, (criterion, choose) in CHOICES.items():
            where = folder / f"{name.replace(' ', '-')}-{seed}"
            shared = folder / f"committee-{seed}" / "rounds" / "round-0.pt"
            if shared.exists() and not where.exists():
                (where / "rounds").mkdir(parents=True)
                shutil.copy(shared, where / "rounds" / "round-0.pt")
            loop = Adaptive(where, [first], blueprint, settings, plan, base, criterion=criterion, choose=choose)
            final, rounds = loop.run()
            if name == "committee":
                begin = al.load(where / "rounds" / "round-0.pt")
                print(line("at first", begin.potential, rounds[0].calls, held))
            print(line(name, final.potential, rounds[-1].calls, held), flush=True)
        states, forces = held[HOT_K]
        true = misses(begin.potential, states, forces)[0]
        for name in ("committee", "distance"):
            u = torch.cat([CHOICES[name][0](begin).look(state)[0][0] for state in states])
            print(f"  {name}: rank correlation with the true error {spearmanr(u, true).statistic:.2f}", flush=True)


if __name__ == "__main__":
    main()
