"""What the midpoint action makes of a predictor that is wrong, as a table.

    python benchmarks/correction.py [--quick] [--model FILE] [--direct FILE] [--step-fs 24] [--temperature 500]

A CuAu alloy of 108 atoms starts from a recorded stretch. Velocity Verlet on the base potential, at a step where it
blows up or heats, predicts; the midpoint action corrects, for 0, 1, 2, 4, 8 iterations and to convergence. Without
--model the action is the implicit midpoint rule on the base potential; with it, a trained midpoint map, whose step is
used. --direct names a trained direct predictor of the same step, which then predicts in place of Verlet, too.

For each: slope of the total energy, gradients of the action a step, temperatures of the species, and the median
defect of the steps (how far they are from being steps of the action, relative to the step).
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from ledger import Ledger, json_option

import actionlearn as al
from actionlearn.correction import grade, long_steps
from actionlearn.dynamics.fit import check_sound
from actionlearn.dynamics.record import temperatures_by_species
from actionlearn.errors import ActionlearnError
from actionlearn.potentials import SecondMomentMetals

DATA = Path(__file__).parent.parent / "data" / "cuau"


def start(temperature_K):
    """The first recorded stretch of this temperature, in its middle."""
    found = al.ReferenceSet.open(DATA)
    return next(stretch for stretch in found if stretch.temperature_K == temperature_K).state(20)


def run(step, model, state, steps, base, case, ledger):
    """One row; a run that fails says when."""
    energies, temperatures, frames = [], [], [state.to_atoms()]
    model.statistics.reset()
    begun = time.perf_counter()
    failure = None
    for _ in range(steps):
        try:
            with torch.no_grad():
                state = step(state)
            check_sound(state, model)
        except ActionlearnError as problem:
            failure = f"after {len(energies) * model.step_fs / 1000:.2f} ps: {type(problem).__name__}"
            break
        energies.append(float(base.energy(state)[0] + state.kinetic_energy()[0]))
        temperatures.append(temperatures_by_species(state))
        if len(frames) <= 20:
            frames.append(state.to_atoms())
    seconds = time.perf_counter() - begun
    spent = model.statistics.evaluations / max(len(energies), 1)
    if len(frames) < 3:
        return f"{spent:9.1f}  lost {failure}"
    defect = np.median(grade(model, long_steps(frames, model)).defect)
    if failure:
        return f"{spent:9.1f}  lost {failure}, median defect {defect:.1e}"
    if step.iterations is None:
        ledger.add(case, "gradients per step", spent, tolerance=0.03)
        ledger.add(case, "median defect", defect, limit=1e-6)
    times = model.step_fs * np.arange(1, steps + 1)
    drift = al.energy_drift(times, energies, state.n_atoms)
    half = temperatures[len(temperatures) // 2 :]
    Cu, Au = (np.mean([row[z] for row in half]) for z in (29, 79))
    row = f"{spent:9.1f} {drift.value:+12.3f} ± {drift.error:5.3f} {Cu:7.0f} / {Au:4.0f}"
    return f"{row} {defect:10.1e} {1000 * seconds / steps:8.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--model", help="checkpoint of a midpoint map; else the implicit midpoint rule")
    parser.add_argument("--direct", help="checkpoint of a direct predictor of the same step")
    parser.add_argument("--step-fs", type=float, default=24.0, help="step of the implicit midpoint rule")
    parser.add_argument("--temperature", type=float, default=500.0, help="300, 500, 700 or 900 K")
    parser.add_argument("--ps", type=float, default=8.0, help="length of each run")
    json_option(parser)
    args = parser.parse_args()
    ledger = Ledger("correction")
    torch.set_num_threads(1)
    base = SecondMomentMetals()
    model = al.load(args.model) if args.model else al.MidpointAction(base, step_fs=args.step_fs)
    h = model.step_fs
    steps = 40 if args.quick else max(20, round(1000 * args.ps / h))
    predictors = {f"Verlet, {h:g} fs": al.Verlet(base, step_fs=h)}
    if args.direct:
        predictors["direct network"] = al.load(args.direct, step_fs=h)
    state = start(args.temperature)
    print(f"CuAu, 108 atoms from {args.temperature:g} K, {steps} steps of {h:g} fs = {steps * h / 1000:.1f} ps")
    print(f"action: {args.model or 'implicit midpoint rule on the base potential'}")
    print(
        f"{'predictor':18} {'k':>9} {'gradients':>9} {'drift meV/atom/ps':>20} {'Cu / Au, K':>14} {'defect':>10} "
        f"{'ms/step':>8}"
    )
    for name, predictor in predictors.items():
        for k in (0, 2, None) if args.quick else (0, 1, 2, 4, 8, None):
            step = al.PredictCorrect(predictor, model, iterations=k)
            label = "converged" if k is None else str(k)
            line = run(step, model, state, steps, base, f"{name}, {label}", ledger)
            print(f"{name:18} {label:>9} {line}", flush=True)
    ledger.write(args.json, quick=args.quick)


if __name__ == "__main__":
    main()
