"""What adaptive sampling buys: a system known when cold is to be run hot.

    python benchmarks/adaptive.py [--case alloy | cluster] [--seeds N] [--quick] [--folder DIR]

An alloy of 32 atoms, from 300 to 900 K, or an argon cluster of 13 that melts. Maps start from the same weights, trained
on cold stretches, and spend about the same number of calls of the base potential and of updates, on

    adaptive   short stretches from states of long-step runs: half those the map is most unsure of, half at random
    uncertain  the same from those the map is most unsure of
    any state  the same from states drawn at random
    sampled    plain sampling at the high temperature, with thermostat

Printed are errors of one step on hot and on cold stretches that none of them has seen; then, how well measures of
uncertainty, which see no label, go with the true error of one step of the first map, atom by atom. Finished pieces in
--folder are kept.
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
from actionlearn.adaptive import Adaptive, Plan, half_uncertain, most_uncertain, table
from actionlearn.adaptive.rounds import calls_of, warm
from actionlearn.dataset import Dataset
from actionlearn.losses import step_errors
from actionlearn.maps.blueprint import Blueprint, network_of
from actionlearn.settings import Settings
from actionlearn.training import Trainer
from actionlearn.uncertainty import Uncertainty, _inputs


@dataclasses.dataclass(frozen=True)
class Case:
    """A system that is known when cold and to be run hot."""

    structure: str
    potential: str
    cold_K: float
    hot_K: float
    step_fs: float
    base_step_fs: float
    network: dict
    batch_atoms: int
    updates: int
    rounds: int
    ps: float

    def sampled(self, folder, temperature_K, stretches, seed):
        """Plain sampling: 500 base steps to equilibrate, then stretches of 31 frames, three a long step."""
        return al.sample(
            self.structure,
            self.potential,
            folder,
            temperatures_K=[temperature_K],
            step_fs=self.base_step_fs,
            stretches=stretches,
            frames=31,
            record_every=round(self.step_fs / self.base_step_fs / 3),
            equilibrate_ps=500 * self.base_step_fs / 1e3,
            decorrelate_ps=125 * self.base_step_fs / 1e3,
            chains=1,
            seed=seed,
        )


SMALL = {"channels": 8, "hidden": 32}
CASES = {
    "alloy": Case("cuau32", "metals", 300, 900, 24.0, 2.0, {"cutoff": 5.0, **SMALL}, 128, 200, 3, 2.0),
    "cluster": Case("lj13", "lj", 10, 35, 120.0, 10.0, {"cutoff": 10.0, **SMALL}, 104, 120, 3, 8.0),
    "quick": Case("cuau4", "metals", 300, 900, 24.0, 2.0, {"cutoff": 4.5, "channels": 4, "hidden": 8}, 32, 10, 1, 0.3),
}


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


def sampled(case, model, first, calls, updates, settings, folder):
    """The map after plain sampling for about so many calls: 518 to begin with, 248 a stretch."""
    count = max(round((calls - 518) / 248), 1)
    found = case.sampled(folder, case.hot_K, count, seed=settings.seed + 7)
    training, validation, _ = first.split(settings.seed)
    training = Dataset([*training.stretches, *found], step_fs=case.step_fs)
    settings = warm(dataclasses.replace(settings, updates=updates))
    trainer = Trainer(model.blueprint, training, validation, settings, start=model)
    trainer.run()
    return trainer.average, calls_of(found), len(found)


def compare(case, folder, seed):
    """The rows of one seed: name, map, calls and stretches beyond the first ones; and the sets for errors."""
    base = systems.potential(case.potential, systems.structure(case.structure))
    cold = case.sampled(folder / "cold", case.cold_K, 5, seed=3 * seed)
    hot = case.sampled(folder.parent / "hot", case.hot_K, 4, seed=1001)
    cold_too = case.sampled(folder.parent / "cold too", case.cold_K, 3, seed=1002)
    first = Dataset.open(cold.folder, step_fs=case.step_fs)
    unseen = {
        f"{T:g} K": Dataset.open(found.folder, step_fs=case.step_fs)
        for T, found in ((case.hot_K, hot), (case.cold_K, cold_too))
    }
    blueprint = Blueprint("discrete", first.species, first.masses, case.step_fs, 2, case.network)
    settings = Settings(minutes=None, updates=case.updates, batch_atoms=case.batch_atoms, validations=4, seed=seed)
    plan = Plan((case.hot_K,), rounds=case.rounds, stretches=8, runs=4, ps=case.ps)
    rows = []
    for name, choose in (("adaptive", half_uncertain), ("uncertain", most_uncertain), ("any state", at_random)):
        if rows:
            (folder / name / "rounds").mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "adaptive" / "rounds" / "round-0.pt", folder / name / "rounds")
        held_out = unseen[f"{case.hot_K:g} K"]
        loop = Adaptive(folder / name, [cold], blueprint, settings, plan, base, held_out=held_out, choose=choose)
        model, found = loop.run()
        print(f"\n{name}\n{table(found)}", flush=True)
        if not rows:
            start = checkpoint.load(folder / "adaptive" / "rounds" / "round-0.pt")
            rows.append(("before", start, 0, 0))
            plan = dataclasses.replace(plan, rounds=max(len(found) - 1, 1))
        rows.append((name, model, found[-1].calls - loop.first_calls, found[-1].stretches - found[0].stretches))
    updates = case.updates * (len(found) - 1)
    rows.append(("sampled", *sampled(case, start, first, rows[1][2], updates, settings, folder / "sampled")))
    return rows, unseen, loop.training


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=["alloy", "cluster"], default="alloy")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="see that everything works")
    parser.add_argument("--folder", help="where pieces are kept (a temporary folder)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.set_flush_denormal(True)
    folder = Path(args.folder or tempfile.mkdtemp())
    case = CASES["quick" if args.quick else args.case]
    for seed in range(args.seeds):
        (folder / f"seed {seed}").mkdir(parents=True, exist_ok=True)
        rows, unseen, training = compare(case, folder / f"seed {seed}", seed)
        print(
            f"\n{f'seed {seed}':10} {'calls':>6} {'stretches':>9}"
            + "".join(f"{f'dq, dp % at {T}':>20}" for T in unseen)
        )
        for name, model, spent, count in rows:
            errors = [step_errors(model, data) for data in unseen.values()]
            text = "".join(f"{f'{100 * e.position:.2f}, {100 * e.momentum:.2f}':>20}" for e in errors)
            print(f"{name:10} {spent:6d} {count:9d}{text}", flush=True)
        correlations(rows[0][1], training, unseen)


if __name__ == "__main__":
    main()
