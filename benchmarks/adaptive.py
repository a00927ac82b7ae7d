"""What adaptive sampling buys: an alloy known at 300 K is to be run at 900 K.

    python benchmarks/adaptive.py [--quick] [--folder DIR]

First, how well measures of uncertainty, which see no label, go with the true error of one step, atom by atom. Then
maps that start from the same weights and spend the same number of calls of the base potential, on

    adaptive   short stretches from the states of long-step runs that the map is most unsure of
    any state  the same from states of the same runs drawn at random
    sampled    plain sampling at 900 K, with thermostat

and their errors on stretches at 900 K and 300 K that none of them has seen. Finished pieces in --folder are kept.
"""

import argparse
import dataclasses
import shutil
import tempfile
from pathlib import Path

import torch
from scipy.stats import spearmanr

import actionlearn as al
from actionlearn import checkpoint, systems
from actionlearn.adaptive import Adaptive, Plan, most_uncertain, table
from actionlearn.adaptive.rounds import calls_of, warm
from actionlearn.dataset import Dataset
from actionlearn.losses import step_errors
from actionlearn.maps.blueprint import Blueprint, network_of
from actionlearn.training import Settings, Trainer
from actionlearn.uncertainty import Uncertainty, _inputs

STEP_FS, COLD_K, HOT_K = 24.0, 300.0, 900.0
SAMPLING = {"step_fs": 2.0, "record_every": 4, "equilibrate_ps": 1.0, "decorrelate_ps": 0.25, "chains": 1}


# --- measures of uncertainty ----------------------------------------------------------------------


def layers(model, state):
    """Inputs of the readout, and inputs with hidden units: what the energies are linear in."""
    net, silu = network_of(model), torch.nn.functional.silu
    x = net.features_and_vectors(state)[0]
    return x, torch.cat([silu(net.hidden_out(silu(net.hidden_in(x)))), x], dim=1)


def force_features(model, state):
    """Derivatives of the second kind of layers, summed over atoms, by the positions: (atoms, 3, D)."""
    q = state.positions.clone().requires_grad_()
    total = layers(model, state.moved(q, state.momenta))[1].sum(0)
    return -torch.stack([torch.autograd.grad(one, q, retain_graph=True)[0] for one in total], dim=2)


def measures(model, training):
    """Functions of a state, by name; all are fitted to the training set alone."""
    fitted = Uncertainty.fit(model, training)
    x, _ = _inputs(network_of(model), training)
    least, largest, spread = x.amin(0), x.amax(0), x.std(0).clamp_min(1e-9)
    hidden = torch.cat([layers(model, training.windows([k]).frames[0])[1].detach() for k in training.even(64)])
    mean, C = hidden.mean(0), torch.cov(hidden.T)
    root = torch.linalg.cholesky(C + 1e-4 * C.diagonal().mean() * torch.eye(len(C)))
    J = torch.cat([force_features(model, training.windows([k]).frames[0]) for k in training.even(16)])
    A = torch.einsum("aid,aie->de", J, J)
    posterior = torch.linalg.inv(A + 1e-4 * A.diagonal().mean() * torch.eye(len(A)))
    noise = torch.randn(len(A), 8, generator=torch.Generator().manual_seed(0))
    readouts = torch.linalg.cholesky(posterior) @ noise

    def committee(state):
        spread = (force_features(model, state) @ readouts).square().mean(2).sum(1).sqrt()
        return spread / state.masses.sqrt()

    def out_of_range(state):
        x = layers(model, state)[0]
        return (torch.maximum(least - x, x - largest) / spread).amax(1)

    def of_hidden(state):
        y = layers(model, state)[1] - mean
        return torch.linalg.solve_triangular(root, y.T, upper=False).norm(dim=0)

    return {
        "distance of the inputs (used)": fitted,
        "the same, hidden units too": of_hidden,
        "committee of 8 last layers": committee,
        "worst single input out of range": out_of_range,
    }


def correlations(model, training, sets):
    """Spearman's rank correlation of each measure with the true error of an atom, over each set and over all."""
    rows = {name: ([], []) for name in measures(model, training)}
    for name, measure in measures(model, training).items():
        for data in sets.values():
            first, target = data.windows(data.even(24)).frames[:2]
            miss = (model.step(first).momenta - target.momenta).norm(dim=1) / first.masses.sqrt()
            rows[name][0].append(measure(first).detach())
            rows[name][1].append(miss)
    print(
        f"{'rank correlation with the true error of an atom':<48}"
        + "".join(f"{name:>10}" for name in sets)
        + "  together"
    )
    for name, (u, miss) in rows.items():
        each = [float(spearmanr(a, b)[0]) for a, b in zip(u, miss, strict=True)]
        together = float(spearmanr(torch.cat(u), torch.cat(miss))[0])
        print(f"{name:<48}" + "".join(f"{value:10.2f}" for value in each) + f"{together:10.2f}", flush=True)


# --- what to spend calls on -----------------------------------------------------------------------


def at_random(candidates, count):
    """As many states as there are to be, whatever the map thinks of them."""
    generator = torch.Generator().manual_seed(len(candidates.states))
    return torch.randperm(len(candidates.states), generator=generator)[:count].tolist()


def sampled(model, first, calls, updates, settings, base, structure, folder):
    """The map after plain sampling for about so many calls."""
    frames = 31
    each = (frames - 1) * SAMPLING["record_every"] + round(1000 * SAMPLING["decorrelate_ps"] / SAMPLING["step_fs"]) + 2
    once = round(1000 * SAMPLING["equilibrate_ps"] / SAMPLING["step_fs"]) + 18
    count = max(round((calls - once) / each), 1)
    wishes = {"temperatures_K": [HOT_K], "stretches": count, "frames": frames, "seed": 7}
    found = al.sample(structure, base, folder, **wishes, **SAMPLING)
    training, validation, _ = first.split(settings.seed)
    training = Dataset([*training.stretches, *found], step_fs=STEP_FS)
    settings = warm(dataclasses.replace(settings, updates=updates))
    trainer = Trainer(model.blueprint, training, validation, settings, start=model)
    trainer.run(progress=True)
    return trainer.average, calls_of(found), len(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that everything works")
    parser.add_argument("--folder", help="where pieces are kept (a temporary folder)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.set_flush_denormal(True)
    folder = Path(args.folder or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    structure, name = ("cuau4", "metals") if args.quick else ("cuau32", "metals")
    base = systems.potential(name, systems.structure(structure))
    network = {"cutoff": 5.0, "channels": 8, "hidden": 32}
    updates, rounds = (10, 1) if args.quick else (400, 4)
    cold, hot, cold_too = (
        al.sample(structure, name, folder / label, temperatures_K=[T], stretches=n, frames=31, seed=seed, **SAMPLING)
        for label, T, n, seed in (("cold", COLD_K, 5, 0), ("hot", HOT_K, 4, 1), ("cold too", COLD_K, 3, 2))
    )
    first = Dataset.open(cold.folder, step_fs=STEP_FS)
    unseen = {T: Dataset.open(found.folder, step_fs=STEP_FS) for T, found in (("900 K", hot), ("300 K", cold_too))}
    blueprint = Blueprint("discrete", first.species, first.masses, STEP_FS, 2, network)
    settings = Settings(minutes=None, updates=updates, batch_atoms=256)
    plan = Plan((HOT_K,), rounds=rounds, stretches=8, runs=4, ps=0.5 if args.quick else 3.0)

    rows = []
    for label in ("adaptive", "any state"):
        if label != "adaptive":
            (folder / label / "rounds").mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "adaptive" / "rounds" / "round-0.pt", folder / label / "rounds")
        choose = most_uncertain if label == "adaptive" else at_random
        options = {"held_out": unseen["900 K"], "choose": choose, "progress": True}
        loop = Adaptive(folder / label, [cold], blueprint, settings, plan, base, **options)
        model, found = loop.run()
        start = checkpoint.load(folder / "adaptive" / "rounds" / "round-0.pt")
        if label == "adaptive":
            correlations(start, loop.training, unseen)
            rows.append(("before", start, found[0].calls - loop.first_calls, 0))
            updates = updates * (len(found) - 1)
        print(f"\n{label}\n{table(found)}", flush=True)
        rows.append((label, model, found[-1].calls - loop.first_calls, found[-1].stretches - found[0].stretches))
        plan = dataclasses.replace(plan, rounds=len(found) - 1)
    calls = rows[1][2]
    model, spent, count = sampled(start, first, calls, updates, settings, base, structure, folder / "sampled")
    rows.append(("sampled", model, spent, count))

    print(f"\n{'':10} {'calls':>6} {'stretches':>9}" + "".join(f"{f'dq, dp % at {T}':>20}" for T in unseen))
    for label, model, spent, count in rows:
        errors = [step_errors(model, data) for data in unseen.values()]
        text = "".join(f"{f'{100 * e.position:.2f}, {100 * e.momentum:.2f}':>20}" for e in errors)
        print(f"{label:10} {spent:6d} {count:9d}{text}", flush=True)


if __name__ == "__main__":
    main()
