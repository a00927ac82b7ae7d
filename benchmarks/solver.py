"""Gradient evaluations per implicit step: harmonic modes up to a given omega*h, and an anharmonic metal.

Modes: the exact midpoint action of 96 modes, frequencies evenly spaced up to omega_max, thermal start, consecutive
steps, residual relative to the step. "cold" solves every step from free flight and forgets; "warm" starts from and
goes on with the secant pairs of earlier steps, counted after a lead-in. "plain" is fixed-point iteration and "damped"
an Anderson acceleration of five pairs whose normal equations have 1e-4 added to their diagonal, stopped at 1e-5;
both get as many evaluations as the table says, and "fails" is what they do otherwise.

A cold Krylov method on the equation as it is written gains tan(omega*h/4) an evaluation, and tan^2(omega*h/4) when the
drift takes the momenta of the same trial; the last column counts evaluations from 1 to the tolerance at that rate.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from ase.build import bulk
from ledger import Ledger, json_option

import actionlearn as al
from actionlearn.errors import NotConverged
from actionlearn.maps.midpoint_equation import MidpointEquation
from actionlearn.solver import FixedPointSolver
from actionlearn.units import BOLTZMANN, FEMTOSECOND

TARGETS = {1.0: 8, 1.57: 13, 2.0: 18, 2.5: 30, 3.0: 70}
PATIENCE_OF_OTHERS = 500


class HarmonicAction:
    """The learned part of the exact action of independent modes, S = (2/ω)·tan(ωh/2)·H, less its kinetic part."""

    def __init__(self, frequencies, step):
        self.frequencies, self.factor = frequencies, torch.tan(0.5 * frequencies * step) / (0.5 * frequencies * step)

    def energy(self, state):
        omega, factor = self.frequencies.unsqueeze(1), self.factor.unsqueeze(1)
        kinetic = 0.5 * state.momenta**2 * state.inverse_masses
        potential = 0.5 * state.masses.unsqueeze(1) * omega**2 * state.positions**2
        return state.sum_by_system((factor * potential + (factor - 1.0) * kinetic).sum(1))


def modes(turn, step, n=96):
    frequencies = torch.linspace(1.0 / n, 1.0, n, dtype=torch.float64) * turn / step
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, n, 1, generator=generator, dtype=torch.float64) * math.sqrt(300.0 * BOLTZMANN)
    state = al.PhaseState(positions=a / frequencies.unsqueeze(1), momenta=b, masses=torch.ones(n, dtype=torch.float64))
    return HarmonicAction(frequencies, step), state


def copper(repeat, temperature_K):
    atoms = bulk("Cu", a=3.615, cubic=True) * repeat
    state = al.PhaseState.from_atoms(atoms)
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(state.positions.shape, generator=generator, dtype=torch.float64)
    p = p * (2.0 * state.masses * BOLTZMANN * temperature_K).sqrt().unsqueeze(1)
    return state.moved(state.positions, p - p.mean(0))


def counts(step_map, state, lead_in, steps):
    """Evaluations of the first step, then mean and largest of `steps` after the lead-in, and the worst residual."""
    first = None
    for _ in range(lead_in):
        state = step_map(state)
        first = first or step_map.statistics.last_evaluations[0]
    step_map.statistics.reset()
    for _ in range(steps):
        state = step_map(state)
        first = first or step_map.statistics.last_evaluations[0]
    s = step_map.statistics
    return first, s.evaluations_per_solve, s.most_evaluations, s.worst_residual


def written_equation(step_map, state):
    """The fixed point as it is written, the drift taken from the old momenta."""
    return MidpointEquation(step_map.derivatives, state, step_map.step_fs * FEMTOSECOND)


def plain(step_map, state, tolerance):
    """Plain iteration y ← g(y); evaluations, or None."""
    equation = written_equation(step_map, state)
    y = equation.free_flight()
    for k in range(PATIENCE_OF_OTHERS):
        g = equation.old_drift(y)
        if not g.norm() < 1e100:
            return None
        if (g - y).norm() <= tolerance * y.norm():
            return k + 1
        y = g
    return None


def damped(step_map, state, tolerance, pairs=5, damping=1e-4):
    """Anderson's mixing with weights from (GᵀG + λ) α = 1, normalised; evaluations, or None."""
    equation = written_equation(step_map, state)
    ys, gs = [], []
    y = equation.free_flight()
    for k in range(PATIENCE_OF_OTHERS):
        g = equation.old_drift(y)
        if not g.norm() < 1e100:
            return None
        if (g - y).norm() <= tolerance * y.norm():
            return k + 1
        ys, gs = (ys + [y])[-pairs:], (gs + [g])[-pairs:]
        f = torch.cat(gs) - torch.cat(ys)
        alpha = torch.linalg.solve(f @ f.T + damping * torch.eye(len(ys)).to(f), torch.ones(len(ys)).to(f))
        y = ((alpha / alpha.sum()) @ torch.cat(gs)).unsqueeze(0)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps of the metal")
    parser.add_argument("--recycle", type=int, default=48, help="pairs kept between steps of the modes")
    json_option(parser)
    options = parser.parse_args()
    ledger = Ledger("solver")
    torch.set_num_threads(1)
    tolerance, steps, lead_in = 1e-10, 50, 20

    print(f"96 harmonic modes, residual {tolerance:.0e}, {steps} steps, warm with {options.recycle} recycled pairs")
    print(
        "omega*h  first   cold mean  max   warm mean  max  target   residual   plain  damped 1e-5  damped 1e-10  rate"
    )
    step_fs = 1.0
    for turn, target in TARGETS.items():
        scalar, state = modes(turn, step_fs * FEMTOSECOND)
        row = []
        for recycle in (0, options.recycle):
            solver = FixedPointSolver(tolerance=tolerance, recycle=recycle)
            guess = "extrapolation" if recycle else "free flight"
            step_map = al.MidpointAction(scalar, step_fs=step_fs, guess=guess, solver=solver)
            row.append(counts(step_map, state, lead_in if recycle else 0, steps))
        (first, cold, cold_max, _), (_, warm, warm_max, residual) = row
        others = [plain(step_map, state, tolerance), damped(step_map, state, 1e-5), damped(step_map, state, tolerance)]
        other = [str(n) if n else "fails" for n in others]
        rate = math.log(tolerance) / math.log(math.tan(turn / 4.0) ** 2)
        print(
            f"{turn:7.2f}  {first:5d}  {cold:10.1f} {cold_max:4d}  {warm:10.1f} {warm_max:4d}  {target:6d}   "
            f"{residual:.1e}  {other[0]:>6}  {other[1]:>11}  {other[2]:>12}  {rate:4.1f}"
        )
        ledger.add(f"96 modes, omega*h = {turn:g}, cold", "gradients per step", cold, tolerance=0.03)
        ledger.add(f"96 modes, omega*h = {turn:g}, warm", "gradients per step", warm, tolerance=0.03)
        ledger.add(f"96 modes, omega*h = {turn:g}, warm", "residual", residual, limit=1.01 * tolerance)

    print("\nCopper, 32 atoms, about 500 K, implicit midpoint rule (G = V)")
    print("step fs  tolerance  recycled pairs  mean  max  ms a step  residual")
    steps = 20 if options.quick else 100
    for step_fs in (16.0, 24.0, 32.0):
        state = al.Verlet(al.potentials.SecondMomentMetals(), step_fs=4.0).step(copper(2, 500.0), 50)
        for tolerance in (1e-5, 1e-10):
            for recycle in (0, 5, 20):
                solver = FixedPointSolver(tolerance=tolerance, recycle=recycle)
                guess = "extrapolation" if recycle else "free flight"
                metals = al.potentials.SecondMomentMetals()
                step_map = al.MidpointAction(metals, step_fs=step_fs, guess=guess, solver=solver)
                start = time.perf_counter()
                try:
                    _, mean, most, residual = counts(step_map, state, 0, steps)
                    ms = 1e3 * (time.perf_counter() - start) / steps
                    print(
                        f"{step_fs:7.0f}  {tolerance:9.0e}  {recycle:14d}  {mean:4.1f}  {most:3d}  {ms:9.1f}  "
                        f"{residual:.1e}"
                    )
                    if recycle in (0, 5):
                        case = f"copper, {step_fs:g} fs, tolerance {tolerance:.0e}, {recycle} pairs"
                        ledger.add(case, "gradients per step", mean, tolerance=0.03)
                except NotConverged as error:
                    print(f"{step_fs:7.0f}  {tolerance:9.0e}  {recycle:14d}  fails, residual {error.residual:.1e}")
    ledger.write(options.json, quick=options.quick)


if __name__ == "__main__":
    main()
