"""The part of `actionlearn train` that samples adaptively."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from actionlearn import checkpoint, systems
from actionlearn.adaptive.rounds import HEADER, Adaptive, Plan, Round, draw, line
from actionlearn.assessment import errors_of, feature_range
from actionlearn.dataset import Dataset, used_stretches
from actionlearn.errors import DataError, InvalidInput
from actionlearn.maps.blueprint import Blueprint
from actionlearn.parallel import Ranks
from actionlearn.reference import ReferenceSet, sample
from actionlearn.settings import Settings

ONLY_ADAPTIVE = ("temperature", "rounds", "calls", "explore_ps", "held_out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that come with `--adaptive`."""
    group = parser.add_argument_group("adaptive sampling")
    group.add_argument(
        "--adaptive", metavar="FOLDER", help="sample where the map is unsure, into this folder; DATA may be a structure"
    )
    group.add_argument("--temperature", type=float, nargs="+", metavar="K", help="what the map is to be good for")
    group.add_argument("--rounds", type=int, metavar="N", help=f"most rounds of new stretches ({Plan.rounds})")
    group.add_argument("--calls", type=int, metavar="N", help="most calls of the base potential in all (any number)")
    group.add_argument("--explore-ps", type=float, metavar="PS", help="length of the runs of a round (4; potential: 1)")
    group.add_argument("--held-out", metavar="DATA", help="stretches to measure errors on (some of DATA)")


def prepare(args: argparse.Namespace, ranks: Ranks) -> None:
    """Refuse what makes no sense; where DATA is a structure, sample a few stretches to begin with."""
    given = [f"--{name.replace('_', '-')}" for name in ONLY_ADAPTIVE if getattr(args, name) is not None]
    if args.adaptive is None:
        if given:
            raise InvalidInput(f"{given[0]} goes with --adaptive FOLDER: add that, or leave it out")
        return
    plan(args)
    if args.steps_fs is not None:
        raise InvalidInput("adaptive sampling trains a map of one step: give --step-fs, or leave out --adaptive")
    if ranks.size > 1:
        raise InvalidInput(
            f"adaptive sampling works in one process, not in {ranks.size}: start it without torchrun, and train on "
            "its stretches afterwards"
        )
    if len(args.data) > 1 or Path(args.data[0]).is_dir():
        return
    structure, folder = args.data[0], Path(args.adaptive) / "start"
    pace = {"step_fs": args.step_fs / 12, "record_every": 4, "frames": 31, "equilibrate_ps": 1.0}
    if args.kind == "potential":  # whose steps are those of the base, and which needs no motion: frames farther apart
        pace = {"step_fs": args.step_fs, "record_every": 8, "frames": 8, "equilibrate_ps": 0.3}
    sample(
        structure,
        args.base or systems.default_potential(structure),
        folder,
        temperatures_K=[min(args.temperature)],
        **pace,
        stretches=4,
        chains=1,
        seed=args.seed,
        progress=True,
    )
    args.data = [str(folder)]


def plan(args: argparse.Namespace) -> Plan:
    """What was asked for."""
    if args.temperature is None:
        raise InvalidInput("--adaptive needs --temperature: say what the map is to be good for")
    rounds = Plan.rounds if args.rounds is None else args.rounds
    found = Plan(tuple(args.temperature), rounds=rounds, calls=args.calls)
    if args.kind == "potential":  # whose steps are short, and whose labels cost one call each
        found = dataclasses.replace(found, ps=1.0, stretches=16)
    return found if args.explore_ps is None else dataclasses.replace(found, ps=args.explore_ps)


def run(args: argparse.Namespace, blueprint: Blueprint, settings: Settings, start: Any, device: torch.device) -> None:
    """All rounds, with a line for each; the last map becomes the checkpoint."""
    sets = [ReferenceSet.open(folder) for folder in args.data]
    names = {found.potential for found in sets}
    if len(names) > 1:
        raise DataError(f"the data come from several potentials, {', '.join(sorted(names))}: give those of one")
    name = names.pop()
    if args.base not in (None, name):
        raise InvalidInput(f"the data come from {name}, not from {args.base}: leave --base out, or give other data")
    base = systems.potential(name, sets[0][0].system.to_atoms())
    length = 1 if blueprint.kind == "potential" else 2
    held_out = None if args.held_out is None else Dataset.open(args.held_out, step_fs=args.step_fs, length=length)
    loop = Adaptive(
        args.adaptive,
        sets,
        blueprint,
        settings,
        plan(args),
        base,
        held_out=held_out,
        start=start,
        device=device,
        progress=True,
    )
    output, shown = Path(args.output), [HEADER]

    def show(found: Round) -> None:
        print("\n".join([*shown, line(found)]), flush=True)
        shown.clear()

    model, rounds = loop.run(show)
    training, validation = loop.sets(rounds[-1].number)
    tested = errors_of(model, loop.test)
    report = {
        **model.report,
        "command": args.command,
        "test": dataclasses.asdict(tested),
        "settings": dataclasses.asdict(settings),
        "temperatures_K": [min(training.temperatures_K), max(training.temperatures_K)],
        "rounds": [dataclasses.asdict(found) for found in rounds],
        "input_range": feature_range(model, training),
        **used_stretches(training=training, validation=validation, test=loop.test),
    }
    checkpoint.save(model, output, report)
    draw(rounds, output.with_suffix(".png"))
    first, last = rounds[0], rounds[-1]
    print(
        f"{last.calls} calls of the base potential, {last.calls - first.calls} of them bought "
        f"{last.stretches - first.stretches} stretches and an error of dp {100 * last.error.momentum:.3g} % "
        f"where it was {100 * first.error.momentum:.3g} %"
    )
    print(_why(loop.plan, last))
    warnings = ReferenceSet.open(args.adaptive).warnings
    if warnings:
        print(f"WARNING: {len(warnings)} signs of too large a base step, the first: {warnings[0]}")
    print(f"written to {output}, rounds in {output.with_suffix('.png')}, stretches kept in {args.adaptive}")


def _why(plan: Plan, last: Round) -> str:
    """Why it ended, and what follows."""
    if last.wanted == 0:
        return "the last runs stayed within what training has seen"
    if last.number == plan.rounds:
        return f"ended after {plan.rounds} rounds with states that training has not seen: go on with more --rounds"
    return f"ended as {plan.calls} calls are spent, with states that training has not seen: go on with more --calls"
