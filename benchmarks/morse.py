"""How well each explicit map can follow one Morse oscillator, plain and processed: the floor without a network.

    python benchmarks/morse.py [--quick]

Every kick potential and the displacement are polynomials of the position, fitted to the exact flow over all
energies up to 0.06 D; the error is that of the physical map at E = 0.05 D on phases of its own,
rms(|δz|)/rms(|z' − z|) in mass- and frequency-weighted coordinates. Verlet stands beside them at equal kicks a step.
"""

import argparse
import math

import numpy as np
import torch
from ledger import Ledger, json_option
from scipy.optimize import least_squares

import actionlearn as al
from actionlearn.errors import NotConverged
from actionlearn.flows import morse_flow
from actionlearn.potentials import Morse
from actionlearn.potentials.toy_states import morse_state
from actionlearn.units import FEMTOSECOND

WELL = Morse(depth=1.0, width=1.0)
OMEGA = math.sqrt(2.0)
SCALE = 0.35  # about the largest excursion, so that powers stay of order one


class Polynomial:
    """Σ_n c_n (q/SCALE)^n with n = 1 … N: only the gradient matters."""

    def __init__(self, coefficients):
        self.c = torch.as_tensor(coefficients, dtype=torch.float64)
        self.n = torch.arange(1, len(self.c) + 1, dtype=torch.float64)

    def energy(self, state):
        return ((state.positions / SCALE) ** self.n * self.c).sum(1)

    def forces(self, state):
        return -((state.positions / SCALE) ** (self.n - 1) * (self.c * self.n)).sum(1, keepdim=True) / SCALE

    def curvature(self, state):
        terms = (state.positions / SCALE) ** (self.n - 2).clamp_min(0) * (self.c * self.n * (self.n - 1))
        return terms.sum(1, keepdim=True) / SCALE**2


def samples(energies, seed):
    rng = np.random.default_rng(seed)
    fractions = torch.as_tensor(energies)
    return morse_state(WELL, fractions, torch.as_tensor(rng.uniform(0, 2 * math.pi, len(fractions))))


def difference(a, b):
    return torch.cat([a.positions - b.positions, (a.momenta - b.momenta) / OMEGA], dim=1)


def processed(displacement, state, h):
    """χ written out in one dimension, for the fit."""
    Q = state.positions - h**2 * displacement.forces(state)
    return state.moved(Q, state.momenta / (1.0 + h**2 * displacement.curvature(state)))


def fit(theta, stages, with_displacement, order, n_points):
    """The map fitted at ωh = theta."""
    h = theta / OMEGA
    rng = np.random.default_rng(1)
    start = samples(0.06 * rng.uniform(0.002, 1.0, n_points), seed=2)
    end = morse_flow(WELL, h)(start)
    size = float(difference(end, start).square().mean().sqrt())
    kicks = stages // 2 + 1

    def parts(x):
        c = x.reshape(-1, order)
        action = al.DiscreteAction([Polynomial(k) for k in c[:kicks]], step_fs=h / FEMTOSECOND, stages=stages)
        return action, Polynomial(c[kicks]) if with_displacement else None

    def residual(x):
        action, displacement = parts(x)
        if displacement is None:
            miss = difference(action.step(start), end)
        else:
            miss = difference(action.step(processed(displacement, start, h)), processed(displacement, end, h))
        return np.nan_to_num(miss.numpy().ravel() / size, nan=1e3, posinf=1e3, neginf=-1e3).clip(-1e3, 1e3)

    # start from the exact maps of the harmonic well
    x = np.zeros((kicks + with_displacement, order))
    quadratic = OMEGA**2 * SCALE**2
    if with_displacement and stages == 1:
        x[0, 1] = 0.5 * quadratic * (1 - math.cos(theta)) / theta**2
        x[1, 1] = 0.5 * (math.sqrt(theta / math.sin(theta)) - 1) * quadratic / theta**2
    elif stages == 2:
        x[0, 1] = 0.5 * quadratic * (2 - theta / math.tan(theta / 2)) / theta**2
        x[1, 1] = 0.5 * quadratic * 4 * (1 - math.sin(theta) / theta) / theta**2
    else:
        for k, w in enumerate(al.maps.kick_weights(stages)):
            x[k, 1] = 0.5 * quadratic * w
    best = least_squares(residual, x.ravel(), method="trf", max_nfev=200, x_scale=0.01)
    action, displacement = parts(best.x)
    if displacement is None:
        return action
    return al.ProcessedAction(action, al.Displacement(displacement, step_fs=action.step_fs))


def error(step, theta):
    """Relative one-step error of the physical map at E = 0.05 D."""
    start = samples(np.full(400, 0.05), seed=3)
    end = morse_flow(WELL, theta / OMEGA)(start)
    try:
        miss = difference(step(start), end)
    except NotConverged:
        return math.nan
    return float((miss.square().mean() / difference(end, start).square().mean()).sqrt())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two steps only, fewer points")
    json_option(parser)
    arguments = parser.parse_args()
    quick, ledger = arguments.quick, Ledger("morse")
    torch.set_num_threads(1)
    order, n_points = (6, 80) if quick else (9, 160)
    columns = [("s=1 plain", 1, False), ("s=1 processed", 1, True), ("s=2 plain", 2, False), ("s=2 processed", 2, True)]
    if not quick:
        columns.append(("s=4 plain", 4, False))
    print("relative one-step error in a Morse well, E = 0.05 D, polynomials of degree", order)
    print("(a dash: no invertible displacement was found)")
    print("  ωh  | Verlet, 1 kick | Verlet, 2 | " + " | ".join(name for name, _, _ in columns))
    for theta in (1.0, 2.0) if quick else (1.0, 1.5, 2.0, 2.5, 4.0):
        row = []
        for substeps in (1, 2):
            verlet = al.Verlet(WELL, step_fs=theta / OMEGA / substeps / FEMTOSECOND)
            row.append(error(lambda z, v=verlet, n=substeps: v.step(z, n), theta))
        for _, stages, with_displacement in columns:
            outside = with_displacement and stages == 1 and theta >= math.pi
            row.append(math.nan if outside else error(fit(theta, stages, with_displacement, order, n_points), theta))
        print(
            f" {theta:4.1f} | " + " | ".join("      –    " if math.isnan(e) else f"{100 * e:9.4f} %" for e in row),
            flush=True,
        )
        for name, found in zip(["Verlet, 1 kick", "Verlet, 2", *(name for name, _, _ in columns)], row, strict=True):
            ledger.add(f"ωh = {theta:g}, {name}", "error of a step", 100 * found, unit="%", tolerance=0.1)
    ledger.write(arguments.json, quick=quick)


if __name__ == "__main__":
    main()
