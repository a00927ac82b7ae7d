"""Measure a trained map on reference trajectories it has not seen, and say what it is good for.

One-step errors on held-out stretches, structure, and microcanonical runs at each temperature beside Verlet on the base
potential from the same start: drift, temperatures by species, radial distribution, velocity spectrum. Writes
validation.json, validation.png and a file for each temperature, which is not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from actionlearn import checkpoint
from actionlearn.errors import DataError
from actionlearn.files import sha256, write_json
from actionlearn.reference import ReferenceSet
from actionlearn.reference.reader import MANIFEST
from actionlearn.reference.shelf import MEMORY_GB, open_stretches
from actionlearn.systems import common_potential
from actionlearn.validation import Limits, Validation, held_out, validate
from actionlearn.validation.draw import draw

SUMMARY = "validation.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `actionlearn validate`."""
    parser.add_argument("model", metavar="MODEL", help="checkpoint written by `actionlearn train`")
    parser.add_argument("data", nargs="+", metavar="DATA", help="folder of reference trajectories")
    parser.add_argument("--step-fs", type=float, metavar="FS", help="step of the map, of a model for a range of steps")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--temperature", type=float, nargs="+", metavar="K", help="temperatures (those held out)")
    parser.add_argument("--ps", type=float, default=20.0, metavar="PS", help="length of each run")
    parser.add_argument("--reference-ps", type=float, metavar="PS", help="length of each run of Verlet (as long)")
    parser.add_argument("--base", metavar="NAME", help="base potential (that of the data)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of all random numbers")


def run(args: argparse.Namespace) -> None:
    """Measure, write and print."""
    torch.set_flush_denormal(True)  # tails of cutoff functions are slow in numbers too small to matter
    names = {args.base} if args.base else {ReferenceSet.open(folder).potential for folder in args.data}
    if len(names) > 1:
        raise DataError(f"the data come from several potentials, {', '.join(sorted(names))}: choose one with --base")
    stretches = open_stretches(args.data, memory_gb=MEMORY_GB)
    if not stretches:
        raise DataError(f"{', '.join(args.data)}: no stretch was recorded yet, finish sampling first")
    base = common_potential(names.pop(), [s.system.to_atoms() for s in stretches])
    model = checkpoint.load_map(args.model, args.step_fs, base=base)
    chosen = held_out(stretches, model.report)
    output = Path(args.output)
    found = validate(
        model,
        base,
        chosen,
        output,
        temperatures_K=args.temperature or sorted({s.temperature_K for s in chosen}),
        ps=args.ps,
        reference_ps=args.reference_ps,
        seed=args.seed,
        made_for={
            "model": sha256(Path(args.model)),
            "data": [sha256(Path(folder) / MANIFEST) for folder in args.data],
            "base": args.base,
            "step_fs": args.step_fs,
        },
        progress=True,
    )
    about = {"model": str(args.model), "kind": model.kind, "stages": model.stages, "step_fs": model.step_fs}
    origin = {"model_sha256": sha256(Path(args.model)), "command": args.command, "limits": dataclasses.asdict(Limits())}
    write_json(output / SUMMARY, {**about, **origin, **found.without_series()})
    draw(found.temperatures, output / "validation.png")
    print(table(found, about))
    print(f"written to {output / SUMMARY}, picture {output / 'validation.png'}")


def table(found: Validation, about: dict[str, Any]) -> str:
    """What was measured, then the verdict."""
    step, structure = found.one_step, found.structure
    verlet = structure.get("symplectic_defect_of_verlet")
    same = "" if verlet is None else f" (Verlet on the same forces: {verlet:.1e})"
    lines = [
        f"{about['kind']}, s = {about['stages']}, h = {about['step_fs']:g} fs",
        f"error of one step: dq {_percent(step, 'position')}, dp {_percent(step, 'momentum')}"
        f"   ({step['windows']} windows of {step['stretches']} held-out stretches)",
        f"symplectic defect {structure['symplectic_defect']:.1e}{same}, "
        f"reversal {structure['reversal_error_A']:.1e} Å, momentum drift {structure['momentum_drift']:.1e}",
        "",
        f"{'K':>6} {'':9}{'ps':>6} {'drift meV/atom/ps':>20} {'fluct. meV':>10}  {'temperatures K':30} {'p':>7} "
        f"{'g(r) off':>9} {'spectrum off':>12} {'mean cm⁻¹':>14} {'ms/step':>8}",
    ]
    for row in found.temperatures:
        lines.append(_line(f"{row['temperature_K']:g}", "map", row, row))
        lines.append(_line("", f"{row['reference']['step_fs']:g} fs", row["reference"], None))
    lines.append(
        "the second line of each temperature is velocity Verlet on the base potential; off: beyond twice the noise"
    )
    lines += ["", f"VERDICT: {found.verdict.text}."]
    lines += [f"  - {reason}" for reason in found.verdict.reasons]
    return "\n".join(lines)


def _percent(step: dict[str, Any], name: str) -> str:
    error = step[f"{name}_error"]
    return f"{100 * step[name]:.3g} {'' if error is None else f'± {100 * error:.1g} '}%"


def _line(temperature: str, name: str, row: dict[str, Any], compared: dict[str, Any] | None) -> str:
    head = f"{temperature:>6} {name:9}{row['ps']:6.1f} "
    if row["failure"] is not None:
        return f"{head}  {row['failure']}"
    shares = zip(row["species"], row["temperatures_K"], row["temperature_errors_K"], strict=True)
    text = ", ".join(f"{symbol} {T:.0f} ± {error:.0f}" for symbol, T, error in shares)
    p = "-" if row["p_value"] is None else f"{row['p_value']:.2g}"
    off = ["", ""]
    if compared is not None and "radial" in compared:
        off = [f"{100 * compared['radial_excess']:.1f} %", f"{100 * compared['spectrum_excess']:.1f} %"]
    mean = row.get("spectrum", row)
    frequency = f"{mean['mean_per_cm']:.1f} ± {mean['mean_error']:.1f}" if "mean_per_cm" in mean else ""
    return (
        f"{head}{row['drift']:+12.4f} ± {row['drift_error']:.3f} {row['fluctuation']:10.3f}  {text:30} {p:>7} "
        f"{off[0]:>9} {off[1]:>12} {frequency:>14} {row['ms_per_step']:8.2f}"
    )
