"""Record short reference trajectories of a base potential.

STRUCTURE is a file that ASE reads, or a built-in system by name. The potential is a built-in one by name, or
module:factory, where factory(atoms) returns an ASE calculator or a potential. A run that was stopped goes on
where it was when called again; the same seed gives the same files, whatever the number of processes.
"""

from __future__ import annotations

import argparse
import os
import sys

from actionlearn import systems
from actionlearn.hydrogen import CAUTION
from actionlearn.reference import ReferenceSet, sample


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `actionlearn sample`."""
    parser.epilog = (
        f"built-in structures: {', '.join(systems.structure_names())}; "
        f"potentials: {', '.join(systems.potential_names())}"
    )
    parser.add_argument("structure", metavar="STRUCTURE", help="structure file, or name of a built-in system")
    parser.add_argument(
        "--potential", metavar="NAME", help="built-in potential, or module:factory; a built-in structure has its own"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the stretches and their manifest")
    parser.add_argument(
        "--temperature", type=float, nargs="+", required=True, metavar="K", help="one or several temperatures, K"
    )
    parser.add_argument("--step-fs", type=float, required=True, metavar="FS", help="base step, fs")
    parser.add_argument("--stretches", type=int, default=20, metavar="N", help="stretches at each temperature")
    parser.add_argument("--frames", type=int, default=61, metavar="N", help="frames of a stretch, both ends counted")
    parser.add_argument("--record-every", type=int, default=4, metavar="K", help="base steps from frame to frame")
    parser.add_argument("--chains", type=int, default=2, metavar="N", help="independent chains at each temperature")
    parser.add_argument("--equilibrate-ps", type=float, default=2.0, metavar="PS", help="thermostat at the start, ps")
    parser.add_argument(
        "--decorrelate-ps", type=float, default=0.5, metavar="PS", help="thermostat before each stretch, ps"
    )
    parser.add_argument("--friction-per-ps", type=float, default=5.0, metavar="G", help="friction of the thermostat")
    parser.add_argument(
        "--keep-momentum",
        action="store_true",
        help="do not set the total momentum to zero (a model with an external potential, a single atom)",
    )
    parser.add_argument(
        "--hmr", type=float, metavar="U", help="mass of hydrogens, u, taken from their neighbours; 3 is usual"
    )
    parser.add_argument("--single", action="store_true", help="store frames in float32 (displacements to 6e-8 Å)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="parallel processes")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of all random numbers")


def run(args: argparse.Namespace) -> None:
    """Sample and print what came out."""
    if args.hmr is not None:
        print(f"note: {CAUTION}", file=sys.stderr)
    found = sample(
        args.structure,
        args.potential or systems.default_potential(args.structure),
        args.output,
        temperatures_K=args.temperature,
        step_fs=args.step_fs,
        stretches=args.stretches,
        frames=args.frames,
        record_every=args.record_every,
        chains=args.chains,
        equilibrate_ps=args.equilibrate_ps,
        decorrelate_ps=args.decorrelate_ps,
        friction_per_ps=args.friction_per_ps,
        zero_momentum=not args.keep_momentum,
        hydrogen_mass=args.hmr,
        single=args.single,
        seed=args.seed,
        processes=args.processes,
        progress=True,
    )
    print(table(found))


def table(found: ReferenceSet) -> str:
    """One line a temperature, then what the base step deserves to be told."""
    lines = [f"{'K':>7} {'stretches':>9} {'kinetic K':>9} {'energy rms':>11} {'drift':>14} {'period':>7}"]
    lines += [f"{'':>7} {'':>9} {'':>9} {'meV/atom':>11} {'meV/atom/ps':>14} {'fs':>7}"]
    for T in found.temperatures_K:
        rows = [entry for entry in found.manifest["stretches"] if entry["temperature_K"] == T]
        kinetic = sum(row["kinetic_temperature_K"] for row in rows) / len(rows)
        rms = max(row["energy_rms_meV_per_atom"] for row in rows)
        drift = max((row["energy_drift_meV_per_atom_per_ps"] for row in rows), key=abs)
        omega = max(row["omega_max_per_fs"] for row in rows)
        period = f"{2.0 * 3.141592653589793 / omega:.1f}" if omega > 0 else "-"
        lines.append(f"{T:7g} {len(rows):9d} {kinetic:9.1f} {rms:11.3g} {drift:14.3g} {period:>7}")
    lines.append("rms and drift of the worst stretch; the shortest period at any of its starting points")
    frames = sum(entry["frames"] for entry in found.manifest["stretches"])
    lines.append(f"{frames} frames {found.interval_fs:g} fs apart, in {found.folder}")
    if found.warnings:
        lines.append(f"WARNING: {len(found.warnings)} signs of too large a base step, the first: {found.warnings[0]}")
    else:
        lines.append("the base step is sound: no stretch fluctuates or drifts beyond its limit")
    return "\n".join(lines)
