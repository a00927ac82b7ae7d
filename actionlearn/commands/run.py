"""Run dynamics with a trained map, in any ensemble.

STRUCTURE is a file that ASE reads, or a built-in system by name. The model is a checkpoint that `actionlearn train`
wrote. Momenta are those of the file; where there are none they are drawn at --temperature. A run that was stopped
goes on where it was when called again, and ends as it would have without the break; called with a longer --ps, a
finished run is continued. The summary goes to OUTPUT.json, the restart file is OUTPUT.restart.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import ase
import torch
from ase.data import chemical_symbols

from actionlearn import checkpoint, systems
from actionlearn.ase import ActionBussi, ActionGHMC, ActionLangevin, ActionNVE
from actionlearn.ase.base import ActionDynamics
from actionlearn.dynamics import as_text
from actionlearn.dynamics.frames import FrameFile, frame_of
from actionlearn.dynamics.record import POLICIES
from actionlearn.dynamics.writer import Writer
from actionlearn.errors import InvalidInput
from actionlearn.files import sha256, writable_folder, write_json
from actionlearn.hydrogen import CAUTION, repartitioned
from actionlearn.maps.guard import as_mass
from actionlearn.potentials.protocol import Potential
from actionlearn.progress import Progress
from actionlearn.reference.thermostat import maxwell_boltzmann, without_total_momentum
from actionlearn.state import PhaseState

ENSEMBLES = ("nve", "langevin", "bussi", "ghmc")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `actionlearn run`."""
    parser.add_argument("structure", metavar="STRUCTURE", help="structure file, or name of a built-in system")
    parser.add_argument("--model", required=True, metavar="FILE", help="checkpoint of a trained map")
    parser.add_argument("--step-fs", type=float, metavar="FS", help="step of the map, of a model for a range of steps")
    parser.add_argument("--output", required=True, metavar="FILE", help="trajectory to write: .xyz, .extxyz or .traj")
    parser.add_argument("--ps", type=float, required=True, metavar="PS", help="length of the whole run, ps")
    parser.add_argument("--ensemble", choices=ENSEMBLES, default="nve", help="what is kept constant, and how")
    parser.add_argument("--temperature", type=float, metavar="K", help="of the ensemble, and of momenta that are drawn")
    parser.add_argument("--friction-per-ps", type=float, default=1.0, metavar="G", help="langevin, ghmc: friction")
    parser.add_argument("--relaxation-ps", type=float, default=0.1, metavar="PS", help="bussi: relaxation time")
    parser.add_argument("--pressure", type=float, metavar="GPA", help="ghmc: isotropic pressure, GPa")
    parser.add_argument("--proposal-steps", type=int, default=1, metavar="N", help="ghmc: long steps in a proposal")
    parser.add_argument(
        "--potential", metavar="NAME", help="built-in potential or module:factory for energies: ghmc, drift, frames"
    )
    parser.add_argument("--drift-limit", type=float, metavar="D", help="largest energy drift, meV/atom/ps")
    parser.add_argument(
        "--policy", choices=POLICIES, default="raise", help="what to do beyond --drift-limit, or when the run breaks"
    )
    parser.add_argument(
        "--on-uncertain",
        choices=POLICIES,
        default="warn",
        help="what to do about atoms outside the range of training; fallback takes steps with --potential, small ones",
    )
    parser.add_argument("--frames-every", type=int, default=10, metavar="N", help="steps from frame to frame")
    parser.add_argument("--restart-every", type=int, default=1000, metavar="N", help="steps between restart files")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of all random numbers")
    parser.add_argument(
        "--hmr", type=float, metavar="U", help="mass of hydrogens, u, taken from their neighbours; 3 is usual"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, time some steps, write nothing")


def run(args: argparse.Namespace) -> None:
    """Run and print the summary."""
    frames = FrameFile(args.output)
    model = checkpoint.load_map(args.model, args.step_fs)
    atoms = systems.structure(args.structure)
    if args.hmr is not None:
        atoms = repartitioned(atoms, args.hmr)
        print(f"note: {CAUTION}", file=sys.stderr)
    potential = None if args.potential is None else systems.potential(args.potential, atoms)
    _prepare(atoms, args)
    if args.dry_run:
        print(_rehearsal(args, _dynamics(args, atoms, model, potential, None)))
        return
    writable_folder(frames.path.parent)
    restart = frames.path.with_name(frames.path.name + ".restart")
    dyn = _dynamics(args, atoms, model, potential, restart)
    steps = _steps(args, dyn)
    if dyn.nsteps:
        frames.cut_after(dyn.nsteps)
    else:
        frames.start()
    with Writer() as writer, Progress(f"{args.ensemble} {args.ps:g} ps", steps, done=dyn.nsteps) as bar:
        dyn.before_restart += [writer.flush, frames.settle]
        dyn.attach(_frame_writer(dyn, atoms, frames, writer), interval=args.frames_every)
        dyn.attach(_progress(dyn, atoms, bar), interval=20)
        dyn.run(max(steps - dyn.nsteps, 0))
        bar.advance(dyn.nsteps - bar.done)
    summary = {"structure": args.structure, "model": args.model, **dyn.summary()}
    origin = {"model_sha256": sha256(Path(args.model)), "command": args.command}
    write_json(frames.path.with_name(frames.path.name + ".json"), {**summary, **origin})
    print(as_text(summary))


def _prepare(atoms: ase.Atoms, args: argparse.Namespace) -> None:
    """See that the numbers make sense, and draw momenta where there are none."""
    for name in ("ps", "frames_every", "restart_every"):
        if not 0 < getattr(args, name) < float("inf"):
            raise InvalidInput(f"--{name.replace('_', '-')} is {getattr(args, name)}, expected a positive number")
    if args.temperature is not None and not 0 < args.temperature < float("inf"):
        raise InvalidInput(f"--temperature is {args.temperature}, expected a positive number of K")
    if args.ensemble != "nve" and args.temperature is None:
        raise InvalidInput(f"--ensemble {args.ensemble} needs a --temperature")
    if args.pressure is not None and args.ensemble != "ghmc":
        raise InvalidInput(f"--pressure needs --ensemble ghmc, {args.ensemble} keeps the volume")
    if args.ensemble == "ghmc" and args.drift_limit is not None:
        raise InvalidInput("--drift-limit has no meaning with --ensemble ghmc, whose energy is exact: leave it out")
    if args.ensemble == "ghmc" and args.policy != "raise":
        raise InvalidInput("--policy has no meaning with --ensemble ghmc, which rejects what fails: leave it out")
    state = PhaseState.from_atoms(atoms)
    if atoms.get_momenta().any():
        return
    if args.temperature is None:
        raise InvalidInput(f"{args.structure} has no momenta: give a --temperature to draw them at")
    state = maxwell_boltzmann(state, args.temperature, torch.Generator().manual_seed(args.seed))
    if not state.has_fixed and state.n_atoms > 1:
        state = without_total_momentum(state)
    atoms.set_momenta(state.momenta.numpy())


def _dynamics(
    args: argparse.Namespace, atoms: ase.Atoms, model: Any, potential: Potential | None, restart: Path | None
) -> ActionDynamics:
    files: dict[str, Any] = {"restart": restart, "restart_every": args.restart_every}
    guard: dict[str, Any] = {"potential": potential, "drift_limit": args.drift_limit, "policy": args.policy}
    guard["on_uncertain"] = args.on_uncertain
    bath: dict[str, Any] = {"temperature_K": args.temperature, "seed": args.seed}
    if args.ensemble == "nve":
        return ActionNVE(atoms, model=model, **guard, **files)
    if args.ensemble == "langevin":
        return ActionLangevin(atoms, model=model, friction_per_ps=args.friction_per_ps, **bath, **guard, **files)
    if args.ensemble == "bussi":
        return ActionBussi(atoms, model=model, time_ps=args.relaxation_ps, **bath, **guard, **files)
    if potential is None:
        raise InvalidInput("--ensemble ghmc samples a base potential exactly: name it with --potential")
    return ActionGHMC(
        atoms,
        model=model,
        potential=potential,
        friction_per_ps=args.friction_per_ps,
        proposal_steps=args.proposal_steps,
        pressure_GPa=args.pressure,
        on_uncertain=args.on_uncertain,
        **bath,
        **files,
    )


def _steps(args: argparse.Namespace, dyn: ActionDynamics) -> int:
    return max(1, round(args.ps * 1000.0 / dyn.engine.move_fs))


def _frame_writer(dyn: ActionDynamics, atoms: ase.Atoms, frames: FrameFile, writer: Writer) -> Any:
    def write() -> None:
        energy = dyn.potential_energy() if dyn.potential is not None else None
        frame = frame_of(atoms, dyn.nsteps, dyn.nsteps * dyn.engine.move_fs, energy)
        writer.do(lambda: frames.append(frame))

    return write


def _progress(dyn: ActionDynamics, atoms: ase.Atoms, bar: Progress) -> Any:
    def show() -> None:
        speed = dyn.summary()["ns_per_day"]
        note = f"{speed:.3g} ns/day  " if speed else ""
        bar.advance(dyn.nsteps - bar.done, f"{note}{atoms.get_temperature():.0f} K")

    return show


def _rehearsal(args: argparse.Namespace, dyn: ActionDynamics) -> str:
    """What the run would be, with the speed of some steps."""
    steps = _steps(args, dyn)
    dyn.run(1)  # the first step also finds neighbours
    start = time.perf_counter()
    dyn.run(5)
    seconds = (time.perf_counter() - start) / 5
    masses = {chemical_symbols[Z]: as_mass(m) for Z, m in (getattr(dyn.model, "masses", None) or {}).items()}
    plan = {
        "structure": f"{args.structure}, {len(dyn.atoms)} atoms, {dyn.atoms.get_chemical_formula()}",
        "model": f"{args.model}, {dyn.model.kind}, steps of {dyn.model.step_fs:g} fs",
        "masses": masses,
        "ensemble": args.ensemble,
        "temperature_now_K": float(dyn.atoms.get_temperature()),
        "steps": steps,
        "frames": steps // args.frames_every + 1,
        "seconds_per_step": seconds,
        "ns_per_day": dyn.engine.move_fs / seconds * 86400.0 * 1e-6,
        "minutes": steps * seconds / 60.0,
        "nothing_written": "dry run",
    }
    return as_text(plan)
