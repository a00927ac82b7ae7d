"""Averages from a network that is deliberately bad, with and without the exact acceptance test, as a table.

    python benchmarks/exact_sampling.py [--quick]

Three systems, each with a network whose forces are wrong by 10 %:

1. a double well in one dimension at 600 K, steps of 12 fs; the network adds smooth noise. Reference: quadrature.
2. a Lennard-Jones cluster of 13 argon atoms at 15 K, steps of 40 fs; likewise. Reference: Verlet at 10 fs.
3. the copper-gold alloy, 32 atoms at 700 K, with the shipped map of 24 fs; noise is added to all its weights until a
   step is wrong by 10 %. Reference: Verlet at 1.5 fs on the base potential.

Each is run under Langevin dynamics, where the error of the network shows, and by generalised hybrid Monte Carlo, where
it may not. Compared with the reference are the mean energy (z: deviation in standard errors over independent
replicas), the distribution of pair distances and a marginal: the mean of z² over the bins, 1 where they agree (1.2
with as few as 16 replicas). Cost: gradients of the network and energies of the base potential for a picosecond.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from ase.cluster import Icosahedron
from ledger import Ledger, json_option
from scipy import integrate

import actionlearn as al
from actionlearn.dataset import Dataset
from actionlearn.dynamics import GeneralisedHMC, Langevin
from actionlearn.losses import step_errors
from actionlearn.maps.blueprint import network_of
from actionlearn.maps.corrected import WeightedSum
from actionlearn.potentials import FunctionPotential, LennardJones, SecondMomentMetals
from actionlearn.potentials.toys import DoubleWell
from actionlearn.reference.thermostat import maxwell_boltzmann, without_total_momentum
from actionlearn.systems import structure
from actionlearn.units import BOLTZMANN

ROOT = Path(__file__).parent.parent
ERROR = 0.1


def spoilt(base, network, state):
    """The base potential with a network on top whose forces are as large as the wanted error of it."""
    with torch.no_grad():
        share = base.forces(state).square().mean().sqrt() / network.forces(state).square().mean().sqrt()
    return WeightedSum([(1.0, base), (ERROR * float(share), network)])


def replicas(start, count, temperature_K, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = [maxwell_boltzmann(start, temperature_K, generator) for _ in range(count)]
    return al.PhaseState.batch(drawn if start.n_atoms == 1 else [without_total_momentum(s) for s in drawn])


def histogram(values, system, systems, edges):
    """Shares of all values of a system that fall into each bin, (systems, bins)."""
    bins = len(edges) - 1
    k = torch.bucketize(values, edges) - 1
    inside = (k >= 0) & (k < bins)
    flat = torch.bincount(system[inside] * bins + k[inside], minlength=systems * bins).reshape(systems, bins)
    return flat / torch.bincount(system, minlength=systems).unsqueeze(1)


def pair_distances(largest):
    edges = torch.linspace(0.0, largest, 41, dtype=torch.float64)

    def counts(now):
        found = al.find_edges(now, largest)
        r = found.vectors(now.positions).norm(dim=1)
        share = histogram(r, now.system[found.centre], now.n_systems, edges)
        return share * torch.bincount(now.system[found.centre], minlength=now.n_systems).unsqueeze(1)

    return counts


def sampled(model, state, ensemble, ps, observables, looks=200):
    """Means over the last four fifths of a run, one array (systems, …) each, and CPU seconds."""
    moves = max(looks, round(1000.0 * ps / (model.step_fs * ensemble.steps_per_move)))
    every, seen = max(1, moves // looks), []

    def look(step, now):
        if step >= moves // 5:
            seen.append([f(now) for f in observables])

    start = time.process_time()
    al.simulate(model, state, moves, ensemble=ensemble, observe=look, every=every)
    seconds = time.process_time() - start
    simulated_ps = moves * model.step_fs * ensemble.steps_per_move / 1000.0 * state.n_systems
    return [torch.stack(parts).to(torch.float64).mean(0).numpy() for parts in zip(*seen, strict=True)], (
        seconds / simulated_ps
    )


def mean_and_error(values):
    return values.mean(0), values.std(0, ddof=1) / math.sqrt(len(values))


def compare(found, reference):
    """Energy with its error, z, and mean z² of each distribution; the reference may be exact numbers."""
    numbers = []
    for k, values in enumerate(found):
        exact, exact_error = mean_and_error(reference[k]) if len(reference[k]) > 1 else (reference[k][0], 0.0)
        mean, error = mean_and_error(values)
        total = np.hypot(error, exact_error)
        if k == 0:
            numbers += [1000 * mean, 1000 * error, (mean - exact) / total]
        else:
            known = (total > 0) & (exact > 1e-3 * np.max(exact))
            numbers.append(np.mean(((mean - exact)[known] / total[known]) ** 2))
    return numbers


def table(title, names, runs, state, reference, ledger):
    print(f"\n{title}")
    print(f"{'':>24} {'energy, meV/atom':>18} {'z':>6} {names[0]:>10} {names[1]:>10}", end="")
    print(f" {'accepted':>8} {'gradients/ps':>13} {'energies/ps':>12} {'CPU s/ps':>9}")
    for name, (model, ensemble, ps, observables, gradients) in runs.items():
        found, seconds = sampled(model, state, ensemble, ps, observables)
        reference = found if reference is None else reference
        accepted = ensemble.summary().get("acceptance")
        exact = isinstance(ensemble, GeneralisedHMC)
        per_ps = 1000.0 / model.step_fs
        energy, error, z, first, second = compare(found, reference)
        if exact:
            case = f"{title.split(',')[0][3:]}, {name}"
            ledger.add(case, "deviation of the energy, |z|", abs(z), limit=5.0)
            ledger.add(case, "acceptance", accepted, better="higher", tolerance=0.05)
        print(
            f"{name:>24} {energy:10.3f} ±{error:6.3f} {z:6.1f} {first:10.2f} {second:10.2f} "
            f"{'-' if accepted is None else f'{accepted:.3f}':>8} "
            f"{gradients * per_ps:13.0f} {per_ps / ensemble.steps_per_move if exact else 0:12.0f} {seconds:9.4f}",
            flush=True,
        )


def double_well(quick, ledger):
    T, barrier, distance = 600.0, 0.12, 0.7
    well, kT = DoubleWell(barrier, distance), BOLTZMANN * T
    start = al.PhaseState(np.array([[distance]]), np.zeros((1, 1)), np.array([20.0]))
    state = replicas(start, 500 if quick else 4000, T)
    sides = torch.arange(state.n_systems).remainder(2).unsqueeze(1) * 2.0 - 1.0
    state = state.moved(sides * state.positions, state.momenta)
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)).double()
    net.requires_grad_(False)
    with torch.no_grad():
        net[0].weight.mul_(4.0)
    noise = FunctionPotential(lambda s: s.sum_by_system(net(s.positions)[:, 0]))
    grid = torch.linspace(-1.3, 1.3, 201, dtype=torch.float64)
    points = replicas(start, len(grid), T)
    weights = torch.exp(-well.energy(points.moved(grid.unsqueeze(1), points.momenta)) / kT)
    drawn = grid[torch.multinomial(weights, 4000, replacement=True)]
    points = replicas(start, len(drawn), T)
    bad = al.Verlet(spoilt(well, noise, points.moved(drawn.unsqueeze(1), points.momenta)), step_fs=12.0)
    edges = torch.linspace(-1.2, 1.2, 31, dtype=torch.float64)
    observables = [
        well.energy,
        lambda now: histogram(now.positions[:, 0].abs(), now.system, now.n_systems, edges[15:]),
        lambda now: histogram(now.positions[:, 0], now.system, now.n_systems, edges),
    ]

    def density(x):
        return math.exp(-barrier * ((x / distance) ** 2 - 1.0) ** 2 / kT)

    Z = integrate.quad(density, -3, 3)[0]
    V = integrate.quad(lambda x: barrier * ((x / distance) ** 2 - 1.0) ** 2 * density(x), -3, 3)[0] / Z
    P = np.array([integrate.quad(density, a, b)[0] / Z for a, b in zip(edges[:-1], edges[1:], strict=True)])
    exact = [np.array([V]), 2.0 * P[None, 15:], P[None]]
    ps = 5.0 if quick else 15.0
    runs = {
        "bad network, Langevin": (bad, Langevin(T, 20.0, seed=1), ps, observables, 1),
        "bad network, exact": (bad, GeneralisedHMC(well, T, 5.0, steps_per_move=2, seed=1), ps, observables, 1),
    }
    table(f"1. Double well, {T:g} K, {state.n_systems} replicas of {ps:g} ps", ("|x|", "x"), runs, state, exact, ledger)


def cluster(quick, ledger):
    T, argon, count = 15.0, LennardJones(), 16 if quick else 32
    atoms = Icosahedron("Ar", 2, latticeconstant=5.3)
    start = al.PhaseState.from_atoms(atoms)
    state = al.simulate(
        al.Verlet(argon, step_fs=20.0), replicas(start, count, T), 1000, ensemble=Langevin(T, 2.0, seed=9)
    ).state
    torch.manual_seed(0)
    net = al.AtomicMoments((18,), cutoff=6.5, channels=4, hidden=8).calibrate(state.unbatch()[:4])
    bad = al.Verlet(spoilt(argon, net.randomise(1.0, seed=1).requires_grad_(False), state), step_fs=40.0)

    def from_centre(now):
        centre = now.sum_by_system(now.positions) / now.atoms_per_system.unsqueeze(1)
        r = (now.positions - centre[now.system]).norm(dim=1)
        return histogram(r, now.system, now.n_systems, torch.linspace(0.0, 5.0, 41, dtype=torch.float64))

    observables = [lambda now: argon.energy(now) / 13.0, pair_distances(8.0), from_centre]
    ps = 20.0 if quick else 80.0
    runs = {
        "reference, Verlet 10 fs": (al.Verlet(argon, step_fs=10.0), Langevin(T, 2.0, seed=5), ps, observables, 0),
        "bad network, Langevin": (bad, Langevin(T, 2.0, seed=2), ps, observables, 1),
        "bad network, exact": (bad, GeneralisedHMC(argon, T, 1.0, steps_per_move=2, seed=3), ps, observables, 1),
    }
    title = f"2. Argon cluster, 13 atoms, {T:g} K, {count} replicas of {ps:g} ps"
    table(title, ("g(r)", "radius"), runs, state, None, ledger)


def alloy(quick, ledger):
    T, base, count = 700.0, SecondMomentMetals(), 4 if quick else 16
    atoms = structure("cuau32")
    sites = torch.tensor(atoms.positions).repeat(count, 1)
    state = al.simulate(
        al.Verlet(base, step_fs=4.0),
        replicas(al.PhaseState.from_atoms(atoms), count, 2 * T),
        300,
        ensemble=Langevin(T, 10.0, seed=9, zero_momentum=True),
    ).state
    bad = al.load(ROOT / "data" / "models" / "cuau-discrete-24fs.pt")
    _, _, test = Dataset.open(ROOT / "data" / "cuau", step_fs=bad.step_fs).split(0)
    errors = spoil(bad, test)

    def displacement(now):
        u = (now.positions - sites)[:, 0]
        u = u - (now.sum_by_system(u.unsqueeze(1))[:, 0] / now.atoms_per_system)[now.system]
        copper = now.numbers == 29
        return histogram(u[copper], now.system[copper], count, torch.linspace(-0.8, 0.8, 41, dtype=torch.float64))

    observables = [lambda now: base.energy(now) / 32.0, pair_distances(5.0), displacement]
    ps = 1.0 if quick else 10.0
    still = {"zero_momentum": True}
    runs = {
        "reference, Verlet 1.5 fs": (
            al.Verlet(base, step_fs=1.5), Langevin(T, 5.0, seed=1, **still), ps, observables, 0),
        "bad network, Langevin": (bad, Langevin(T, 5.0, seed=2, **still), ps, observables, bad.stages),
        "bad network, exact": (bad, GeneralisedHMC(base, T, 2.0, seed=3, **still), ps, observables, bad.stages),
    }  # fmt: skip
    title = f"3. CuAu, 32 atoms, {T:g} K, {count} replicas of {ps:g} ps, network wrong by {errors}"
    table(title, ("g(r)", "u_x of Cu"), runs, state, None, ledger)


def spoil(model, test):
    """Noise on all weights, relative to their spread, until the momentum of a step is wrong by the wanted error."""
    kept = [w.clone() for w in network_of(model).parameters()]
    generator = torch.Generator().manual_seed(1)
    noise = [w.std() * torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in kept]
    low, high = 0.0, 0.4
    for _ in range(6):
        scale = 0.5 * (low + high)
        with torch.no_grad():
            for w, start, direction in zip(network_of(model).parameters(), kept, noise, strict=True):
                w.copy_(start + scale * direction)
        errors = step_errors(model, test, windows=6)
        low, high = (scale, high) if errors.momentum < ERROR else (low, scale)
    return errors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, with larger errors")
    json_option(parser)
    arguments = parser.parse_args()
    ledger = Ledger("exact_sampling")
    torch.set_num_threads(1)
    for part in (double_well, cluster, alloy):
        part(arguments.quick, ledger)
    ledger.write(arguments.json, quick=arguments.quick)


if __name__ == "__main__":
    main()
