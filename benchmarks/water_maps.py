"""Long steps in liquid water: temperatures of O and H, drift, structure and bands beside velocity Verlet.

    python benchmarks/water_maps.py [MODEL …] [--data DIR] [--ps PS] [--verlet FS …] [--verlet-ps PS] [--quick]

Microcanonical runs of 64 SPC/Fw molecules at natural masses, all from one held-out state of about 300 K; E is that of
the base potential, recorded with the frames every 4 fs (Nyquist limit 4170 cm⁻¹). The first --verlet step is the
reference. Runs are kept in --runs, in pieces of 5 ps, and go on from there. Bands are means of the hydrogens' velocity
spectrum between 1200 and 2200 (bend) and between 3000 and 4150 cm⁻¹ (stretch); errors are the scatter of five blocks.
Radial distributions: area between a run's and the reference's over that of the reference, and what noise alone makes.
"""

import argparse
import dataclasses
import math
from pathlib import Path

import numpy as np
import torch

import actionlearn as al
from actionlearn.analysis import Trajectory, mean_and_error, radial_distribution, velocity_spectrum
from actionlearn.dataset import Dataset
from actionlearn.losses import look_around, step_errors
from actionlearn.potentials import SPCFw
from actionlearn.progress import Progress
from actionlearn.structure import energy_drift, equipartition
from actionlearn.validation.rollout import roll_out

INTERVAL_FS = 4.0
PIECE_PS = 5.0
BANDS = {"bend": (1200.0, 2200.0), "stretch": (3000.0, 4150.0)}


def kept_run(name, model, base, state, ps, folder):
    """Frames and energies of a run and why it ended early if it did; made and kept in pieces, so it can go on."""
    folder.mkdir(parents=True, exist_ok=True)
    start, length = state, min(ps, PIECE_PS)
    q, p, energies, failure = [], [], [], ""
    for k in range(round(ps / length)):
        path = folder / f"{name}-{length:g}ps-{k}.npz"
        if not path.exists():
            with Progress(f"{name}, {k * length:g} ps on", length) as bar:
                run = roll_out(model, base, state, ps=length, interval_fs=INTERVAL_FS, advance=bar.advance)
            frames = {name: getattr(run.trajectory, name) for name in ("positions", "momenta")}
            last = {f"last_{name}": array[-1] for name, array in frames.items()}
            frames = {name: array[:-1].astype(np.float32) for name, array in frames.items()}
            np.savez(path, **frames, **last, energies=run.energies[:-1], failure=run.failure or "")
        with np.load(path) as file:
            q.append(file["positions"].astype(float))
            p.append(file["momenta"].astype(float))
            energies.append(file["energies"])
            state = state.moved(torch.from_numpy(file["last_positions"]), torch.from_numpy(file["last_momenta"]))
            failure = str(file["failure"])
        if failure:
            break
    return Trajectory(np.concatenate(q), np.concatenate(p), INTERVAL_FS, start), np.concatenate(energies), failure


def bands(trajectory, blocks=5):
    """Mean wavenumber of each band and its standard error."""
    length = len(trajectory) // blocks
    means = []
    for k in range(blocks):
        part = slice(k * length, (k + 1) * length)
        cut = dataclasses.replace(trajectory, positions=trajectory.positions[part], momenta=trajectory.momenta[part])
        spectrum = velocity_spectrum(cut, blocks=4)
        row = []
        for low, high in BANDS.values():
            inside = (spectrum.per_cm > low) & (spectrum.per_cm < high)
            density = spectrum.species["H"][inside]
            row.append((density * spectrum.per_cm[inside]).sum() / density.sum())
        means.append(row)
    return mean_and_error(means, blocks)


def radial_difference(g, g0, pair):
    """Area between two distributions of a pair over that of the second, and the part that noise explains, per cent."""
    whole = g0.values[pair].sum()
    area = np.abs(g.values[pair] - g0.values[pair]).sum() / whole
    noise = math.sqrt(2.0 / math.pi) * np.hypot(g.errors[pair], g0.errors[pair]).sum() / whole
    return 100.0 * area, 100.0 * noise


def errors_by_species(model, data):
    """Relative error of Δp in one step, oxygens and hydrogens apart, per cent."""
    batch = data.windows(data.even(16))
    look_around(model, batch)
    first, target = batch.frames[:2]
    with torch.no_grad():
        end = model.step(first)
    miss, whole = end.momenta - target.momenta, target.momenta - first.momenta
    return [float(100.0 * miss[first.numbers == z].norm() / whole[first.numbers == z].norm()) for z in (8, 1)]


def report(name, calls, run, reference_g):
    """Two lines of the table."""
    trajectory, energies, failure = run
    if failure:
        print(f"{name:24s}{calls:>7s}  ended after {len(energies) * INTERVAL_FS / 1000:.1f} ps: {failure[:70]}")
        return None
    drift = energy_drift(INTERVAL_FS * np.arange(len(energies)), energies, trajectory.system.n_atoms)
    skipped = len(energies) // 20
    blocks = int(min(max(len(energies) * INTERVAL_FS / 2000.0, 6), 20))  # of 2 ps, what temperatures remember
    shares = equipartition(trajectory.momenta[skipped:], trajectory.system, momentum_removed=True, blocks=blocks)
    T = dict(zip(shares.groups, zip(shares.temperatures_K, shares.errors_K, strict=True), strict=True))
    means, errors = bands(trajectory)
    g = radial_distribution(trajectory, frames=500)
    peak = int(g.values["O-O"].argmax())
    text = f"{name:24s}{calls:>7s}  {drift.value:+8.4f} ±{drift.error:.4f}"
    text += "".join(f"  {T[s][0]:6.1f} ±{T[s][1]:.1f}" for s in ("O", "H")) + f"  p={shares.p_value:.2f}"
    text += "".join(f"  {m:7.1f} ±{e:.1f}" for m, e in zip(means, errors, strict=True))
    text += f"  {g.values['O-O'][peak]:.2f} at {g.r[peak]:.2f}"
    if reference_g is not None:
        for pair in ("O-O", "H-O", "H-H"):
            area, noise = radial_difference(g, reference_g, pair)
            text += f"  {area:.1f} ({noise:.1f})"
    print(text, flush=True)
    return g


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", help="checkpoints (those of water under data/models)")
    parser.add_argument("--data", default="data/water", help="stretches that no model was trained on")
    parser.add_argument("--verlet", type=float, nargs="+", default=[0.25, 1.0], help="base steps, reference first, fs")
    parser.add_argument("--verlet-ps", type=float, default=5.0, help="length of the runs of Verlet")
    parser.add_argument("--ps", type=float, default=50.0, help="length of the runs of the maps")
    parser.add_argument("--runs", default="out/water-runs")
    parser.add_argument("--quick", action="store_true", help="runs of 0.6 ps, a coarse reference")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if arguments.quick:
        arguments.ps, arguments.verlet_ps, arguments.verlet = 0.6, 0.6, [0.5]
        arguments.runs = "out/water-runs-quick"
    paths = [Path(m) for m in arguments.models] or sorted(Path("data/models").glob("water-*.pt"))
    base, models = SPCFw(), {path.stem: al.load(path) for path in paths}

    print(f"one step on held-out stretches\n{'map':24s}{'dq, %':>8s}{'dp, %':>8s}{'dp of O':>9s}{'dp of H':>9s}")
    for name, model in models.items():
        data = Dataset.open(arguments.data, step_fs=model.step_fs)
        errors, (oxygen, hydrogen) = step_errors(model, data), errors_by_species(model, data)
        print(f"{name:24s}{100 * errors.position:8.3f}{100 * errors.momentum:8.3f}{oxygen:9.3f}{hydrogen:9.3f}")

    print(
        f"\nmicrocanonical, {arguments.ps:g} ps, Verlet {arguments.verlet_ps:g} ps\n"
        f"{'map':24s}{'calls':>7s}  drift, meV/atom/ps    T of O, K      T of H, K"
        "            bend, cm⁻¹     stretch, cm⁻¹   O-O peak, Å    difference of g, % (noise): O-O, O-H, H-H"
    )
    state = Dataset.open(arguments.data, step_fs=INTERVAL_FS).stretches[0].state(0)
    folder, reference_g = Path(arguments.runs), None
    for step_fs in arguments.verlet:
        run = kept_run(
            f"verlet-{step_fs:g}fs", al.Verlet(base, step_fs=step_fs), base, state, arguments.verlet_ps, folder
        )
        g = report(f"Verlet, {step_fs:g} fs", f"{1.0 / step_fs:g}", run, reference_g)
        reference_g = reference_g or g
    for name, model in models.items():
        calls = model.stages / model.step_fs if model.kind == "corrected" else 0.0
        report(name, f"{calls:g}", kept_run(name, model, base, state, arguments.ps, folder), reference_g)
    print("calls: of the base potential, per fs")


if __name__ == "__main__":
    main()
