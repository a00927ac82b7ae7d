"""Train a long-step map on recorded reference trajectories.

DATA is one folder written by `actionlearn sample`, or several. Stretches are split into training, validation and
test sets; the errors that are printed are those of one step of the real map, in float64, on stretches it never saw.
A training that was stopped goes on where it was when called again with the same options. Started as
`torchrun --nproc-per-node N -m actionlearn train …`, N processes share every update, --batch-atoms each.

With --adaptive, training alternates with long-step runs of the map at the wanted temperatures; from states of which
it is unsure, short stretches of the base potential are added. --minutes or --updates are then those of each round.

--kind potential matches a network to the recorded forces; --step-fs is then that of Verlet on it. Its file is a base
potential for every other command, by its name.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from actionlearn import checkpoint
from actionlearn.adaptive import command as adaptive
from actionlearn.adaptive.criteria import largest_spread
from actionlearn.assessment import errors_of, feature_range
from actionlearn.dataset import Dataset, used_stretches
from actionlearn.errors import DataError, InvalidInput
from actionlearn.losses import ForceErrors, StepErrors, force_errors
from actionlearn.maps.blueprint import KINDS, SINGLE, Blueprint
from actionlearn.networks import ARCHITECTURES
from actionlearn.parallel import Ranks, choose_device, together
from actionlearn.pictures import drift_curve, learning_curve, picture
from actionlearn.potentials import ASEPotential
from actionlearn.potentials.protocol import Potential
from actionlearn.reference import ReferenceSet, read_structures
from actionlearn.reference.shelf import MEMORY_GB
from actionlearn.settings import Report, Settings
from actionlearn.systems import common_potential
from actionlearn.training import Trainer
from actionlearn.uncertainty import Uncertainty


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `actionlearn train`."""
    defaults = Settings()
    parser.add_argument("data", nargs="+", metavar="DATA", help="folder of reference trajectories")
    parser.add_argument("--output", required=True, metavar="FILE", help="checkpoint to write, e.g. model.pt")
    parser.add_argument("--kind", choices=KINDS, default="discrete", help="kind of map")
    parser.add_argument("--stages", type=int, metavar="S", help="kicks a step (2; midpoint, direct, potential: 1)")
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument("--step-fs", type=float, metavar="FS", help="long step, fs")
    step.add_argument(
        "--steps-fs", type=float, nargs=2, metavar=("LO", "HI"), help="one model for all steps of this range, fs"
    )
    parser.add_argument(
        "--without-trajectories",
        action="store_true",
        help="midpoint, --steps-fs: learn from forces alone, by the Hamilton-Jacobi equation; DATA may be files of "
        "structures with energies, forces and info['temperature_K'], as they may for --kind potential",
    )
    parser.add_argument(
        "--members", type=int, default=1, metavar="M", help="potential: networks of a committee, whose mean it is (1)"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, metavar="M", help="time to train (10)")
    budget.add_argument("--updates", type=int, metavar="N", help="updates, where the result must be repeatable")
    parser.add_argument("--base", metavar="NAME", help="potential a corrected map calls (that of the data)")
    parser.add_argument(
        "--network",
        choices=ARCHITECTURES,
        default="moments",
        help="moments of neighbours, or schnet: filters of distance",
    )
    parser.add_argument("--cutoff", type=float, default=5.0, metavar="A", help="reach of the network, angstrom")
    parser.add_argument("--channels", type=int, metavar="N", help="channels of the network (16; schnet: 32)")
    parser.add_argument("--hidden", type=int, default=64, metavar="N", help="width of its readout")
    parser.add_argument("--layers", type=int, metavar="N", help="layers of neighbours it sees (1; schnet: 3)")
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate, metavar="R", help="the largest")
    parser.add_argument("--batch-atoms", type=int, default=defaults.batch_atoms, metavar="N", help="atoms a batch")
    parser.add_argument(
        "--start", metavar="FILE", help="go on from the weights of this checkpoint; kind, stages, network are its own"
    )
    parser.add_argument("--window", type=int, metavar="L", help="frames of a window, L - 1 steps are unrolled (least)")
    parser.add_argument(
        "--force-matching",
        type=float,
        default=defaults.force_matching,
        metavar="PART",
        help=f"part of the budget, at the start, spent on matching forces ({defaults.force_matching:g})",
    )
    parser.add_argument(
        "--action-weight",
        type=float,
        default=defaults.action,
        metavar="W",
        help=f"weight of the action's value as a further label ({defaults.action:g})",
    )
    parser.add_argument("--patience", type=int, default=0, metavar="N", help="stop after N validations without gain")
    parser.add_argument(
        "--drift-energy",
        choices=("auto", "base", "own"),
        default="auto",
        help="energy that short roll-outs follow: of the data's potential, of the map; auto: the former if it is cheap",
    )
    parser.add_argument(
        "--memory-gb", type=float, default=MEMORY_GB, metavar="GB", help="frames kept in memory; more is read as needed"
    )
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of all random numbers")
    adaptive.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Train, save, and print what came out."""
    torch.set_flush_denormal(True)  # tails of cutoff functions are slow in numbers too small to matter
    device = choose_device(args.device)
    with together(device) as ranks:
        _train(args, device, ranks)


def _train(args: argparse.Namespace, device: torch.device, ranks: Ranks) -> None:
    output = Path(args.output)
    state_file = output.with_name(output.name + ".state")
    ranks.same(lambda: _check_place(output, state_file))
    adaptive.prepare(args, ranks)
    step_fs = args.step_fs or args.steps_fs[1]
    alone = args.without_trajectories or args.kind == "potential"
    if alone and all(Path(path).is_file() for path in args.data):
        data = Dataset([s for path in args.data for s in read_structures(path)], step_fs=step_fs, length=1)
    else:
        length = 1 if args.kind == "potential" else 2
        data = Dataset.open(args.data, step_fs=step_fs, length=length, memory_gb=args.memory_gb)
    training, validation, test = data.split(args.seed)
    name, base = _base(args, data)
    start = None if args.start is None else checkpoint.load(args.start, base=base)
    blueprint = Blueprint(
        kind=args.kind,
        species=data.species,
        masses=data.masses,
        step_fs=step_fs,
        steps_fs=args.steps_fs and tuple(args.steps_fs),
        stages=args.stages or (1 if args.kind in SINGLE else 2),
        network=_network(args),
        members=args.members,
        base=name,
    )
    if start is not None:
        blueprint = dataclasses.replace(
            start.blueprint,
            species=data.species,
            masses=data.masses,
            step_fs=step_fs,
            steps_fs=blueprint.steps_fs,
            base=name,
        )
    settings = Settings(
        minutes=10.0 if args.minutes is None and args.updates is None else args.minutes,
        updates=args.updates,
        learning_rate=args.learning_rate,
        batch_atoms=args.batch_atoms,
        window=args.window,
        force_matching=args.force_matching,
        action=args.action_weight,
        patience=args.patience,
        hamilton_jacobi=float(args.without_trajectories),
        seed=args.seed,
    )
    if args.adaptive is not None:
        adaptive.run(args, blueprint, settings, start, device)
        return
    trainer = Trainer(
        blueprint,
        training,
        validation,
        settings,
        base,
        start,
        device=device,
        ranks=ranks,
        watched=_watched(args, data),
    )
    report = trainer.run(state_file, progress=True)
    if not ranks.first:
        return
    tested = errors_of(trainer.average, test, device=device)
    forces = force_errors(trainer.average.potential, test, device=device) if args.kind == "potential" else None
    checkpoint.save(
        trainer.average,
        output,
        {
            "validation": dataclasses.asdict(report.errors),
            "test": dataclasses.asdict(tested),
            **({} if forces is None else {"forces": dataclasses.asdict(forces)}),
            "command": args.command,
            "updates": report.updates,
            "seconds": report.seconds,
            "drift": None if report.drift is None else list(report.drift),
            "curve": report.curve,
            "settings": dataclasses.asdict(settings),
            "temperatures_K": list(data.temperatures_K),
            **used_stretches(training=training, validation=validation, test=test),
            "input_range": feature_range(trainer.average, training),
            "uncertainty": Uncertainty.fit(trainer.average, training, validation).tensors(),
            **(
                {}
                if args.members == 1
                else {"spread": largest_spread(trainer.average.potential, validation, device=device)}
            ),
        },
    )
    drifts = any("drift" in point for point in report.curve)
    with picture(output.with_suffix(".png"), panels=1 + drifts) as panels:
        for axes, draw in zip(panels, (learning_curve, drift_curve), strict=False):
            draw(axes, report.curve)
    state_file.unlink(missing_ok=True)
    of_what = "error of one step"
    if data.length == 1:
        of_what = "error of a kick" if forces else "residual of the Hamilton-Jacobi equation"
    print(_summary(blueprint, report, tested, forces, output, of_what))


def _network(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the network; those of the usual one are as they always were."""
    usual = {"channels": 32, "layers": 3} if args.network == "schnet" else {"channels": 16, "layers": 1}
    asked = {k: getattr(args, k) for k in ("cutoff", "channels", "hidden", "layers")}
    sizes = {k: usual[k] if v is None else v for k, v in asked.items()}
    return {"architecture": "schnet", **sizes} if args.network == "schnet" else sizes


def _check_place(output: Path, state_file: Path) -> None:
    if output.exists() and not state_file.exists():
        raise InvalidInput(f"{output} exists already: choose another --output, or delete it")
    if not output.parent.is_dir():
        raise InvalidInput(f"there is no folder {output.parent} to write {output.name} to: make it first")


def _base(args: argparse.Namespace, data: Dataset) -> tuple[str | None, Potential | None]:
    """The base potential of a corrected map, by name."""
    if args.kind != "corrected":
        return None, None
    names = _potentials(args)
    if len(names) > 1:
        raise DataError(f"the data come from several potentials, {', '.join(names)}: choose one with --base")
    return names[0], common_potential(names[0], [s.system.to_atoms() for s in data.stretches])


def _watched(args: argparse.Namespace, data: Dataset) -> Potential | None:
    """The potential whose energy roll-outs follow: by default that of the data, if it is made here and costs little."""
    if args.drift_energy == "own" or args.kind == "potential" or (data.length == 1 and not args.base):
        return None  # files name no potential, and a potential has its own energy
    names = _potentials(args)
    if args.drift_energy == "base" and len(names) > 1:
        raise DataError(f"the data come from several potentials, {', '.join(names)}: choose one with --base")
    if len(names) > 1 or (args.drift_energy == "auto" and (":" in names[0] or names[0].endswith(".pt"))):
        return None
    found = common_potential(names[0], [s.system.to_atoms() for s in data.stretches])
    return None if args.drift_energy == "auto" and isinstance(found, ASEPotential) else found


def _potentials(args: argparse.Namespace) -> list[str]:
    return [args.base] if args.base else sorted({ReferenceSet.open(folder).potential for folder in args.data})


def _summary(
    blueprint: Blueprint, report: Report, tested: StepErrors, forces: ForceErrors | None, output: Path, of_what: str
) -> str:
    steps = f"h = {blueprint.step_fs:g} fs"
    if blueprint.steps_fs is not None:
        steps = f"h = {blueprint.steps_fs[0]:g} to {blueprint.steps_fs[1]:g} fs"
    what: list[Any] = [blueprint.kind, f"s = {blueprint.stages}", steps]
    return "\n".join(
        [
            f"{', '.join(what)}: {report.updates} updates in {report.seconds / 60.0:.1f} min",
            f"{of_what}, relative: dq {100 * tested.position:.3g} %, dp {100 * tested.momentum:.3g} % "
            f"on {tested.windows} windows of test stretches",
            *([] if forces is None else [f"error of the forces: {forces} on {forces.frames} frames of test stretches"]),
            *([] if report.drift is None else [f"drift of the energy in short roll-outs: {report.drift}"]),
            f"written to {output}, learning curve in {output.with_suffix('.png')}",
        ]
    )
