"""Structure of every map on untrained random networks, beside what must fail.

python benchmarks/maps.py [--quick]
"""

import argparse
import math

import numpy as np
import torch
from ase.build import bulk
from ledger import Ledger, expected, json_option

import actionlearn as al
from actionlearn.reference.thermostat import maxwell_boltzmann
from actionlearn.systems import structure

WRONG = ("midpoint, 1e-3", "direct predictor", "discrete s=2, unequal")


def thermal(atoms, temperature_K=500.0):
    state = al.PhaseState.from_atoms(atoms)
    return maxwell_boltzmann(state, temperature_K, torch.Generator().manual_seed(0))


def small_alloy():
    """16 atoms, 96 dimensions of phase space, in a cell smaller than twice the cutoff."""
    atoms = bulk("Cu", a=3.85, cubic=True) * (2, 2, 1)
    atoms.numbers[::2] = 79
    atoms.set_masses(None)
    atoms.rattle(0.05, seed=1)
    return atoms


def network(state, momenta=False):
    """Random weights, forces of 0.2 eV/Å; 0.03 where momenta enter, lest random kinetic terms outweigh the real one."""
    net = al.AtomicMoments(sorted(set(state.numbers.tolist())), cutoff=4.5, channels=8, heads=2, momenta=momenta)
    net.calibrate([state]).randomise(seed=3).requires_grad_(False)
    net.readout.weight.mul_((0.03 if momenta else 0.2) / net.forces(state).square().mean().sqrt())
    return net


class Springs:
    """Springs between all pairs of a molecule, so that random forces do not tear it apart in a long run."""

    def __init__(self, state, stiffness=5.0):
        self.pairs = torch.combinations(torch.arange(state.n_atoms), 2).T
        self.stiffness, self.lengths = stiffness, self._distances(state)

    def _distances(self, state):
        return (state.positions[self.pairs[0]] - state.positions[self.pairs[1]]).norm(dim=1)

    def energy(self, state):
        return 0.5 * self.stiffness * (self._distances(state) - self.lengths).square().sum().unsqueeze(0)

    def forces(self, state):
        return al.potentials.forces_from_energy(self.energy, state)


class Bound:
    """A scalar plus springs."""

    def __init__(self, scalar, springs):
        self.scalar, self.springs = scalar, springs

    def energy(self, state):
        return self.scalar.energy(state) + self.springs.energy(state)

    def forces(self, state):
        return self.scalar.forces(state) + self.springs.forces(state)


def maps(state, springs=None):
    """Name -> map, all of random networks."""
    h = 1.0 if int(state.numbers.min()) == 1 else 8.0
    net, moving = network(state), network(state, momenta=True)
    bind = (lambda u: Bound(u, springs)) if springs else (lambda u: u)
    U, V = bind(net.head(1, 0)), bind(net.head(0, 1))
    direct = al.DirectPredictor(net.species, step_fs=h, cutoff=4.5, channels=8, force_scale=0.2)
    direct.calibrate([state]).randomise().requires_grad_(False)
    return {
        "discrete s=1": al.DiscreteAction([U], step_fs=h),
        "discrete s=2": al.DiscreteAction([U, V], step_fs=h),
        "discrete s=4": al.DiscreteAction([U, V, U], step_fs=h, stages=4),
        "corrected s=2": al.CorrectedVerlet(U, [net.head(0, 0.1), net.head(0.1, 0)], step_fs=h),
        "processed s=1": al.ProcessedAction(
            al.DiscreteAction([U], step_fs=h), al.Displacement(net.head(0, 0.5), step_fs=h)
        ),
        "midpoint, 1e-12": al.MidpointAction(bind(moving.head(1, 0)), step_fs=h, tolerance=1e-12),
        "midpoint, 1e-3": al.MidpointAction(bind(moving.head(1, 0)), step_fs=h, tolerance=1e-3),
        "direct predictor": direct,
    }


def unequal(step):
    """The same step with its two derivatives on different scales."""

    def scaled(z):
        after = step(z)
        return after.moved(z.positions + 0.99 * (after.positions - z.positions), after.momenta)

    return scaled


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the molecule only, short runs")
    json_option(parser)
    arguments = parser.parse_args()
    quick, ledger = arguments.quick, Ledger("maps")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    n_long, n_exact = (20, 200) if quick else (1000, 10000)
    systems = {"ethanol": thermal(structure("ethanol"))}
    if not quick:
        systems["CuAu, 16 atoms"] = thermal(small_alloy())

    print(f"{'system':15s} {'map':24s} {'symplectic':>11s} {'reversal Å':>11s}")
    for name, state in systems.items():
        steps = maps(state)
        steps["discrete s=2, unequal"] = unequal(steps["discrete s=2"])
        for label, step in steps.items():
            # an unconverged solver has no implicit derivative: look at what it really does, by differences
            method = "differences" if label == "midpoint, 1e-3" else "auto"
            defect = al.symplectic_defect(step, state, method=method)
            back = al.reversal_error(step, state, n=10)
            print(f"{name:15s} {label:24s} {defect:11.1e} {back:11.1e}", flush=True)
            ledger.add(f"{name}, {label}", "symplectic defect", defect, **expected(label in WRONG, 1e-10, 1e-6))
            ledger.add(f"{name}, {label}", "reversal", back, unit="Å", **expected(label in WRONG, 1e-9, 1e-7))

    print(f"\nethanol bound by springs, {n_long} steps: relative change of total and angular momentum")
    state = systems["ethanol"]
    for label, step in maps(state, Springs(state)).items():
        n = min(n_long, 100) if label == "direct predictor" else n_long
        p, L = al.momentum_drift(step, state, n=n), al.angular_momentum_drift(step, state, n=n)
        print(f"{label:24s} {p:11.1e} {L:11.1e}", flush=True)
        ledger.add(f"ethanol, {label}", "change of momentum", p, **expected(label == WRONG[1], 1e-10, 1e-4))
        ledger.add(f"ethanol, {label}", "change of angular momentum", L, **expected(label in WRONG, 1e-9, 1e-8))

    print(f"\nbit-exact mode, s = 2, {n_exact} steps forward, flip, {n_exact} back")
    bound = al.DiscreteAction([Bound(network(state), Springs(state))] * 2, step_fs=1.0)
    lattice = al.LatticeMap(bound)
    start = lattice.enter(state)
    there = lattice.step(start, n_exact)
    back = lattice.step(there.flip(), n_exact).flip()
    moved = (lattice.leave(there).positions - state.positions).abs().max()
    off = max(int((a - b).abs().max()) for a, b in ((back.positions, start.positions), (back.momenta, start.momenta)))
    print(f"largest displacement on the way {moved:.2f} Å, largest difference after the return {off} quanta")
    ledger.add("fixed-point arithmetic, s = 2", "quanta off after the return", off, better="equal", limit=0)

    print("\nexact cases: one harmonic mode, largest error over ωh")
    for label, error, range_of, n in (("discrete s=2", two_stages, 6.0, 60), ("processed s=1", processed, 3.0, 30)):
        worst = max(error(t) for t in np.linspace(0.05, range_of - 0.01, n))
        print(f"{label}, 0 < ωh < {range_of:g}: {worst:.1e}")
        ledger.add(f"harmonic mode, {label}", "largest error", worst, limit=1e-8)
    ledger.write(arguments.json, quick=quick)


class Quadratic:
    """½ k q²."""

    def __init__(self, k):
        self.k = k

    def energy(self, state):
        return state.sum_by_system(0.5 * self.k * state.positions.square().sum(1))

    def forces(self, state):
        return -self.k * state.positions


def rotation_error(step, theta, h):
    one = torch.ones(1, 1, dtype=torch.float64)
    w = theta / h
    after = step(al.PhaseState(0.7 * one, -0.4 * w * one, torch.ones(1, dtype=torch.float64)))
    q = 0.7 * math.cos(theta) - 0.4 * math.sin(theta)
    p = -0.4 * math.cos(theta) - 0.7 * math.sin(theta)
    return max(abs(float(after.positions) - q), abs(float(after.momenta) / w - p))


def two_stages(theta, step_fs=10.0):
    h = step_fs * al.units.FEMTOSECOND
    inner, outer = 4 * (1 - math.sin(theta) / theta) / h**2, (2 - theta / math.tan(theta / 2)) / h**2
    return rotation_error(al.DiscreteAction([Quadratic(outer), Quadratic(inner)], step_fs=step_fs), theta, h)


def processed(theta, step_fs=10.0):
    h = step_fs * al.units.FEMTOSECOND
    kick = al.DiscreteAction([Quadratic((1 - math.cos(theta)) / h**2)], step_fs=step_fs)
    scale = math.sqrt(theta / math.sin(theta))
    chi = al.Displacement(Quadratic((scale - 1) / h**2), step_fs=step_fs)
    return rotation_error(al.ProcessedAction(kick, chi), theta, h)


if __name__ == "__main__":
    main()
