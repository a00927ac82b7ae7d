"""Recommend a map, its stages and its step for a system.

STRUCTURE is a file that ASE reads, or a built-in system by name. A short run of the base potential gives the fastest
period T, which 99.9 % of the velocity spectrum does not fall below, and the highest frequency at single
configurations; from these come the limits of every map, and a recommendation for the ensemble that is wanted. The
rules behind it were measured with maps of a few per cent error: validate what you train.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from actionlearn import systems
from actionlearn.advice import ENSEMBLES, SUBSTEP, VERLET_STABLE, VERLET_USUAL, Advice, advise, fastest_motion
from actionlearn.errors import InvalidInput
from actionlearn.files import writable_folder, write_json
from actionlearn.hydrogen import CAUTION, repartitioned
from actionlearn.state import PhaseState
from actionlearn.units import BOLTZMANN


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `actionlearn advise`."""
    parser.add_argument("structure", metavar="STRUCTURE", help="structure file, or name of a built-in system")
    parser.add_argument(
        "--potential", metavar="NAME", help="built-in potential, or module:factory; a built-in structure has its own"
    )
    parser.add_argument("--temperature", type=float, metavar="K", help="of the run; without it, momenta of the file")
    parser.add_argument("--ensemble", choices=ENSEMBLES, default="nve", help="what the map is to be used for")
    parser.add_argument(
        "--ps",
        type=float,
        metavar="PS",
        help="length of the run; thirty of the fastest periods and half a ps if not given",
    )
    parser.add_argument(
        "--hmr", type=float, metavar="U", help="mass of hydrogens, u, taken from their neighbours; 3 is usual"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of all random numbers")
    parser.add_argument("--json", metavar="FILE", help="write the advice there, too")


def run(args: argparse.Namespace) -> None:
    """Run, recommend, and print it."""
    for name in ("temperature", "ps"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise InvalidInput(f"--{name} is {value}, expected a positive number")
    if args.json:
        writable_folder(Path(args.json).parent)
    atoms = systems.structure(args.structure)
    if args.hmr is not None:
        atoms = repartitioned(atoms, args.hmr)
        print(f"note: {CAUTION}", file=sys.stderr)
    name = args.potential or systems.default_potential(args.structure)
    motion = fastest_motion(
        PhaseState.from_atoms(atoms),
        systems.potential(name, atoms),
        temperature_K=args.temperature,
        run_ps=args.ps,
        seed=args.seed,
    )
    advice = advise(motion, args.ensemble)
    if args.json:
        about = {"structure": args.structure, "potential": name, "hydrogen_mass": args.hmr}
        write_json(Path(args.json), {**about, **advice.as_dict()})
    print(f"{args.structure}, {len(atoms)} atoms, potential {name}")
    print(table(advice, args.structure, args.hmr))
    if args.hmr is None and args.ensemble != "nve" and (atoms.numbers == 1).any():
        print("  --hmr 3 makes hydrogens heavier, for longer steps where only equilibrium averages matter")


def table(advice: Advice, structure: str, hydrogen_mass: float | None = None) -> str:
    """The motion, the limits, the maps, a verdict in a line, and the commands that follow from it."""
    motion, limits, best = advice.motion, advice.limits, advice.best
    rule = SUBSTEP[advice.ensemble]
    lines = [
        f"{motion.temperature_K:.0f} K in a run of {motion.run_ps:.2f} ps with steps of {motion.base_step_fs:.3g} fs",
        f"fastest period T = {motion.period_fs:.4g} fs (99.9 % of the velocity spectrum, resolved to "
        f"{100 * motion.resolution:.1f} %)",
        f"omega_max of single configurations {motion.omega_max_per_fs:.4g} /fs, a period of "
        f"{motion.harmonic_period_fs:.4g} fs",
        "",
        f"{'limit':58} {'rule':>7} {'fs':>8}",
        _limit("Verlet on the base potential, usual", f"T/{VERLET_USUAL:g}", limits["verlet_usual"]),
        _limit("Verlet, stable", f"T/{VERLET_STABLE:g}", limits["verlet_stable"]),
        _limit(f"kicks, {advice.ensemble}: h/s, below resonances that matter", f"T/{rule:g}", limits["substep"]),
        _limit("midpoint action: plain iteration converges", "T/4", limits["midpoint_plain_iteration"]),
        _limit("midpoint action: exists", "T/2", limits["midpoint_exists"]),
        "",
        f"{'map':10} {'s':>2} {'h fs':>7} {'gradients/ps':>13} {'modes in the lowest resonance':>30}",
    ]
    for choice in advice.choices:
        lines.append(
            f"{choice.kind:10} {choice.stages:2d} {choice.step_fs:7g} {choice.gradients_per_ps:13.0f} "
            f"{choice.resonance_order:30d}"
        )
    lines.append(f"Verlet at T/{VERLET_USUAL:g} takes {1000.0 / limits['verlet_usual']:.0f} base forces per ps")
    lines += [
        "",
        f"VERDICT: for {advice.ensemble} train a {best.kind} map of s = {best.stages}, h = {best.step_fs:g} fs: "
        f"{_reason(advice.ensemble)}.",
        f"  actionlearn sample {structure} --step-fs {advice.base_step_fs:g} --record-every {advice.record_every} "
        f"{'' if hydrogen_mass is None else f'--hmr {hydrogen_mass:g} '}…",
        f"  actionlearn train … --kind {best.kind} --stages {best.stages} --step-fs {best.step_fs:g} …",
        "  or --kind corrected with the same s and h, where the base potential is cheap: a tenth of the error",
    ]
    return "\n".join(lines)


def _limit(name: str, rule: str, fs: float) -> str:
    return f"{name:58} {rule:>7} {fs:8.4g}"


def _reason(ensemble: str) -> str:
    bias = 1e-3 / (3.0 * BOLTZMANN)  # 1 meV/atom/ps at a friction of 1/ps
    return {
        "nve": "resonances of fewer modes would heat, and nothing would take the heat away",
        "langevin": f"heating of 1 meV/atom/ps against a friction of 1/ps is a bias of {bias:.1f} K, so measure it",
        "bussi": f"with a relaxation time of 0.1 ps, heating of 1 meV/atom/ps is a bias of {0.2 * bias:.1f} K",
        "ghmc": "averages are exact at any step, shorten it where fewer than about 60 % are accepted",
    }[ensemble]
