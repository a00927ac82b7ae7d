"""Ensembles of a good and of a deliberately bad map, as tables; exact averages of bad networks: exact_sampling.py.

    python benchmarks/ensembles.py [--quick]

1. Constant pressure: a Lennard-Jones solid with the wrong map (kicks 5 % too hard), volume against that of the right
   map, and the mean of the instantaneous pressure N·kT/V − ∂U/∂V, which must be the one asked for.
2. Energy histograms of two temperatures: ln of their ratio must rise as 1/kT₁ − 1/kT₂ (fitted slope / exact).
3. Drift of the conserved energy: the map alone, and under velocity rescaling.
4. Replicas of 108 atoms in batches against one at a time, in CPU time of one thread.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk

import actionlearn as al
from actionlearn.dynamics import GeneralisedHMC, Langevin, VelocityRescaling
from actionlearn.potentials import LennardJones, SecondMomentMetals
from actionlearn.reference.thermostat import maxwell_boltzmann, without_total_momentum
from actionlearn.systems import structure
from actionlearn.units import BOLTZMANN, GIGAPASCAL

T = 700.0


def replicas(atoms, count, temperature_K, seed=0):
    generator = torch.Generator().manual_seed(seed)
    start = al.PhaseState.from_atoms(atoms)
    drawn = [without_total_momentum(maxwell_boltzmann(start, temperature_K, generator)) for _ in range(count)]
    return al.PhaseState.batch(drawn)


def bad_kicks(base, state, error=0.1):
    """A random potential whose forces are 10 % of the base forces, root mean square."""
    torch.manual_seed(0)
    net = al.AtomicMoments(sorted(set(state.numbers.tolist())), cutoff=4.0, channels=2, hidden=4, heads=1)
    net.calibrate([state]).randomise(1.0, seed=1).requires_grad_(False)
    net.readout.weight.mul_(
        error * base.forces(state).square().mean().sqrt() / net.forces(state).square().mean().sqrt()
    )
    return net


def sampled(model, state, ensemble, moves, skip, every, observables):
    """Means of the observables, (observables, systems), and the seconds it took."""
    seen = []

    def look(step, now):
        if step >= skip:
            seen.append(torch.stack([f(now) for f in observables]))

    start = time.perf_counter()
    al.simulate(model, state, moves, ensemble=ensemble, observe=look, every=every)
    return torch.stack(seen).numpy(), time.perf_counter() - start


def estimate(means):
    return means.mean(), means.std(ddof=1) / math.sqrt(len(means))


def constant_pressure(quick):
    argon, T, P, count = LennardJones(), 60.0, 0.05, 4 if quick else 8
    kT = BOLTZMANN * T
    moves = 300 if quick else 1000
    state = replicas(bulk("Ar", a=5.35, cubic=True) * 3, count, 2 * T)
    wrong = al.CorrectedVerlet(argon, [Scaled(argon, 0.05)], step_fs=30.0, stages=1)

    def volume(now):
        return torch.linalg.det(now.cell) / now.atoms_per_system

    def pressure(now):
        """N·kT/V − ∂U/∂V by a central difference."""
        energies = []
        for sign in (1.0, -1.0):
            scale = 1.0 + sign * 1e-5
            energies.append(argon.energy(now.in_cell(scale * now.cell, scale * now.positions)))
        V = torch.linalg.det(now.cell)
        dU_dV = (energies[0] - energies[1]) / (6e-5 * V)
        return (now.atoms_per_system * kT / V - dU_dV) / GIGAPASCAL

    print(f"\n1. Argon, 108 atoms, {T:g} K, {P} GPa, {count} replicas, {moves} proposals of 2 × 30 fs")
    print(f"{'':>20} {'Å³/atom':>18} {'GPa':>18} {'accepted':>8} {'volume':>8}")
    for name, model in (("right map", al.Verlet(argon, step_fs=30.0)), ("wrong map", wrong)):
        ensemble = GeneralisedHMC(
            argon, T, 1.0, steps_per_move=2, pressure_GPa=P, volume_every=2, volume_step=0.02, seed=5
        )
        values, _ = sampled(model, state, ensemble, moves, moves // 3, 5, [volume, pressure])
        (V, dV), (p, dp) = (estimate(values[:, k].mean(0)) for k in range(2))
        found = ensemble.summary()
        print(f"{name:>20} {V:11.4f} ±{dV:5.4f} {p:11.5f} ±{dp:5.5f}", end="")
        print(f" {found['acceptance']:8.3f} {found['volume_acceptance']:8.3f}")


class Scaled:
    """A share of a potential."""

    def __init__(self, potential, share):
        self.potential, self.share = potential, share

    def energy(self, state):
        return self.share * self.potential.energy(state)

    def forces(self, state):
        return self.share * self.potential.forces(state)


def histograms(quick):
    base, count, moves = SecondMomentMetals(), 4 if quick else 8, 1000 if quick else 3000
    low, high = 500.0, 530.0
    exact = 1.0 / (BOLTZMANN * low) - 1.0 / (BOLTZMANN * high)
    print(f"\n2. CuAu, 32 atoms, {low:g} and {high:g} K, Verlet at 4 fs: slope of the ratio of histograms / exact")
    makes = {
        "Langevin": lambda temperature: Langevin(temperature, 10.0, seed=6),
        "velocity rescaling": lambda temperature: VelocityRescaling(temperature, 0.05, seed=6),
        "exact": lambda temperature: GeneralisedHMC(base, temperature, 5.0, steps_per_move=2, seed=6),
    }
    for name, make in makes.items():
        samples = []
        for temperature in (low, high):
            state = replicas(structure("cuau32"), count, 2 * temperature)
            ensemble = make(temperature)
            n = moves // ensemble.steps_per_move
            model = al.Verlet(base, step_fs=4.0)
            samples.append(sampled(model, state, ensemble, n, n // 5, n // 100, [base.energy])[0][:, 0])
        means = np.array([_slope(samples[0][:, k], samples[1][:, k]) for k in range(count)]) / exact
        value, error = estimate(means)
        print(f"{name:>20} {value:8.3f} ± {error:.3f}")


def _slope(first, second):
    """Maximum likelihood of p(second | U) = 1/(1 + exp(−a − b·U)): b."""
    U = np.concatenate([first, second])
    y = np.repeat([0.0, 1.0], [len(first), len(second)])
    X = np.stack([np.ones_like(U), (U - U.mean()) / U.std()], 1)
    w = np.zeros(2)
    for _ in range(30):
        p = 1.0 / (1.0 + np.exp(-X @ w))
        w += np.linalg.solve(X.T @ (X * (p * (1 - p))[:, None]), X.T @ (y - p))
    return w[1] / U.std()


def conserved(quick):
    base, steps = SecondMomentMetals(), 2000 if quick else 8000
    print(f"\n3. CuAu, 32 atoms, about {T:g} K, Verlet, {steps} steps: drift of the conserved energy, meV/atom/ps")
    for step_fs in (4.0, 16.0):
        for name, ensemble in (("map alone", None), ("velocity rescaling", VelocityRescaling(T, 0.1, seed=7))):
            state = replicas(structure("cuau32"), 1, 2 * T)
            model = al.Verlet(base, step_fs=step_fs)
            found = al.simulate(model, state, steps, ensemble=ensemble, potential=base).summary
            drift, error = found["drift_meV_per_atom_per_ps"], found["drift_error"]
            print(f"{step_fs:>12g} fs {name:>20} {drift:+10.4f} ± {error:.4f}")


def throughput(quick):
    base, most = SecondMomentMetals(), 16 if quick else 64
    start = structure("cuau108")
    net = bad_kicks(base, replicas(start, 1, T))
    shipped = al.load(Path(__file__).parent.parent / "data" / "models" / "cuau-discrete-24fs.pt")
    print("\n4. Replicas of 108 atoms, Langevin: CPU ms a step and replica, and the throughput of one at a time")
    maps = {
        "Verlet, metals": (al.Verlet(base, step_fs=4.0), 128),
        "small network": (al.DiscreteAction([net], step_fs=4.0, stages=1), 128),
        "shipped network": (shipped, 64),
    }
    for name, (model, work) in maps.items():
        alone = None
        for count in (1, 8, most):
            state = replicas(start, count, 2 * T)
            steps = max(2, work // count // (4 if quick else 1))
            state = al.simulate(model, state, 4, ensemble=Langevin(T, 10.0)).state
            begun = time.process_time()
            al.simulate(model, state, steps, ensemble=Langevin(T, 1.0))
            each = (time.process_time() - begun) / steps / count
            alone = alone or each
            print(f"{name:>20} {count:4d} together {1000 * each:8.2f} ms {alone / each:6.2f} times", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, with larger errors")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    for part in (constant_pressure, histograms, conserved, throughput):
        part(quick)


if __name__ == "__main__":
    main()
