"""Grade a trajectory by a learned action, and correct it.

TRAJECTORY is any file that ASE reads, of one system, whose frames are one step of the model apart. Every step is
graded: how far it is from being a symplectic step of the action, relative to the step; this goes to OUTPUT.json, or
to --json. With --output the corrected trajectory is written: from the first frame on the steps of the action, each
found from the increment of the original, by a number of iterations or to convergence. Momenta are needed, or are
reconstructed from the positions with an error that is stated.

With --predictor there is no original: from the first frame of TRAJECTORY on, velocity Verlet of the model's step on a
potential, or a trained map such as a direct network, guesses every step, and the midpoint action corrects it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
from ase.constraints import FixCom

from actionlearn import checkpoint, systems
from actionlearn.correction import Correction, Grades, LongSteps, Prediction, grade, long_steps
from actionlearn.dynamics import as_text
from actionlearn.dynamics.frames import FrameFile, frame_of
from actionlearn.dynamics.writer import Writer
from actionlearn.errors import InvalidInput
from actionlearn.files import writable_folder, write_json
from actionlearn.progress import Progress
from actionlearn.schemes import Verlet
from actionlearn.state import PhaseState

WORST = 5
"""Steps shown one by one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `actionlearn correct`."""
    parser.add_argument("trajectory", metavar="TRAJECTORY", help="trajectory file in any format that ASE reads")
    parser.add_argument("--model", required=True, metavar="FILE", help="checkpoint of a trained map")
    parser.add_argument("--step-fs", type=float, metavar="FS", help="step of the map, of a model for a range of steps")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="corrected trajectory: .xyz, .extxyz or .traj; without it steps are graded only",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--iterations", type=int, metavar="K", help="gradients of a midpoint action for each step")
    how.add_argument("--to-convergence", action="store_true", help="as many as it takes; so it is without either")
    parser.add_argument(
        "--reconstruct-momenta", action="store_true", help="take momenta from positions by central differences"
    )
    parser.add_argument(
        "--predictor",
        metavar="NAME",
        help="guess steps on the fly: a checkpoint (.pt), or a potential for Verlet, built in or module:factory",
    )
    parser.add_argument("--ps", type=float, metavar="PS", help="with --predictor: length of the trajectory, ps")
    parser.add_argument("--json", metavar="FILE", help="where the grades go; OUTPUT.json if not given")


def run(args: argparse.Namespace) -> None:
    """Grade, correct, and print what came out."""
    output = None if args.output is None else FrameFile(args.output)
    if output is not None and output.path.resolve() == Path(args.trajectory).resolve():
        raise InvalidInput(f"--output {args.output} is the trajectory itself: choose another name")
    if output is None and args.iterations is not None:
        raise InvalidInput("--iterations are for a corrected trajectory: name it with --output")
    _check_predictor(args)
    model = checkpoint.load_map(args.model, args.step_fs)
    atoms = read_frames(args.trajectory)
    if args.predictor is not None and output is not None:
        return _predict(args, model, atoms[0], output)
    frames = long_steps(atoms, model, reconstruct=args.reconstruct_momenta)
    correction = None if output is None else Correction(model, frames, args.iterations)
    report = Path(args.json) if args.json else None if output is None else Path(f"{output.path}.json")
    for path in (report, output.path if output else None):
        if path is not None:
            writable_folder(path.parent)
    grades = grade(model, frames)
    summary = {"trajectory": args.trajectory, "model": args.model, **about(frames, model), **graded(grades)}
    steps = {name: getattr(grades, name).tolist() for name in ("defect", "position", "momentum")}
    if report is not None:
        write_json(report, {**summary, "steps": steps})
    if correction is not None and output is not None and report is not None:
        summary["correction"] = _correct(correction, output, atoms[0])
        write_json(report, {**summary, "steps": steps})
    print(table(summary, grades))


def _check_predictor(args: argparse.Namespace) -> None:
    if args.predictor is None:
        if args.ps is not None:
            raise InvalidInput("--ps is for steps that are predicted on the fly: name a --predictor")
        return
    if args.output is None:
        raise InvalidInput("--predictor makes a trajectory: name it with --output")
    if args.ps is None or not 0 < args.ps < float("inf"):
        raise InvalidInput(f"--predictor needs the length of the trajectory, --ps, a positive number, not {args.ps}")
    if args.reconstruct_momenta:
        raise InvalidInput("--reconstruct-momenta needs a trajectory, a predictor starts from one frame: leave it out")


def _predict(args: argparse.Namespace, model: Any, first: ase.Atoms, output: FrameFile) -> None:
    """Make a trajectory of predicted and corrected steps, and print how good the predictions were."""
    if not first.get_momenta().any():
        raise InvalidInput(f"the first frame of {args.trajectory} has no momenta: a step starts from them")
    first.set_constraint([c for c in first.constraints if not isinstance(c, FixCom)])  # no condition on a step
    steps = max(1, round(1000.0 * args.ps / model.step_fs))
    start = PhaseState.from_atoms(first)
    prediction = Prediction(model, _predictor(args.predictor, first, model.step_fs), start, steps, args.iterations)
    report = Path(args.json) if args.json else Path(f"{output.path}.json")
    for path in (report, output.path):
        writable_folder(path.parent)
    output.start()
    with Writer() as writer, Progress("predicting and correcting", steps) as bar:
        for n, state in enumerate(prediction.states()):
            frame = frame_of(state.to_atoms(first), n, n * model.step_fs)
            writer.do(partial(output.append, frame))
            bar.advance(min(n, 1))
    grades = prediction.grades
    summary = {
        "trajectory": args.trajectory,
        "model": args.model,
        "predictor": args.predictor,
        "map": model.kind,
        "step_fs": model.step_fs,
        "atoms": start.n_atoms,
        "steps": steps,
        "output": str(output.path),
        "iterations": args.iterations,
        "gradients_per_step": model.statistics.evaluations_per_solve,
        "steps_without_guess": prediction.without_guess,
        **{name: None if value == float("inf") else value for name, value in graded(grades).items()},
    }
    write_json(report, {**summary, "defects": [x if np.isfinite(x) else None for x in grades.defect.tolist()]})
    print(as_text(summary))


def _predictor(name: str, atoms: ase.Atoms, step_fs: float) -> Callable[[PhaseState], PhaseState]:
    """A trained map of the same step, or velocity Verlet."""
    if name.endswith(".pt"):
        return checkpoint.load(name, step_fs=step_fs).step
    return Verlet(systems.potential(name, atoms), step_fs=step_fs).step


def read_frames(path: str) -> list[ase.Atoms]:
    """All frames of a file."""
    if not Path(path).is_file():
        raise InvalidInput(f"there is no trajectory {path}")
    try:
        return list(ase.io.iread(path, ":"))
    except Exception as problem:  # readers raise whatever they like
        raise InvalidInput(f"cannot read a trajectory from {path}: {type(problem).__name__}: {problem}") from None


def about(frames: LongSteps, model: Any) -> dict[str, Any]:
    """What was graded, by what."""
    tested = getattr(model, "report", {}).get("test")
    return {
        "map": model.kind,
        "step_fs": model.step_fs,
        "atoms": frames.trajectory.system.n_atoms,
        "frames": len(frames),
        "interval": "from the times of the frames" if frames.stamped else "taken to be one step",
        "atoms_unwrapped": frames.unwrapped,
        "momentum_error": frames.momentum_error,
        "model_one_step_error": None if tested is None else [tested["position"], tested["momentum"]],
    }


def graded(grades: Grades) -> dict[str, Any]:
    """Median and largest of every grade."""
    parts = {name: getattr(grades, name) for name in ("defect", "position", "momentum")}
    return {
        f"{name}_{what}": float(value)
        for name, values in parts.items()
        for what, value in (("median", np.median(values)), ("largest", values.max()))
    }


def _correct(correction: Correction, output: FrameFile, like: ase.Atoms) -> dict[str, Any]:
    """Write the corrected trajectory and say how it went."""
    model, frames = correction.model, correction.frames
    steps, apart = len(frames) - 1, 0.0
    output.start()
    with Progress("correcting", steps) as bar:
        for n, state in enumerate(correction.states()):
            output.write(state.to_atoms(like), n, n * model.step_fs)
            apart = float((state.positions - frames.state(n).positions).square().sum(1).mean()) ** 0.5
            bar.advance(min(n, 1))
    solver = getattr(model, "solver", None)
    return {
        "output": str(output.path),
        "iterations": correction.iterations,
        "gradients_per_step": None if solver is None else solver.statistics.evaluations_per_solve,
        "steps_without_guess": correction.without_guess,
        "apart_at_the_end_A": apart,
    }


def table(summary: dict[str, Any], grades: Grades) -> str:
    """The grades, the worst steps, and what was corrected."""
    lines = [
        f"{summary['frames']} frames of {summary['atoms']} atoms, graded by a {summary['map']} map of "
        f"{summary['step_fs']:g} fs; interval {summary['interval']}"
    ]
    if summary["atoms_unwrapped"]:
        lines.append(f"{summary['atoms_unwrapped']} jumps by a cell vector taken out")
    if summary["momentum_error"] is not None:
        lines.append(
            f"momenta reconstructed by central differences, wrong by about {100 * summary['momentum_error']:.2g} %: "
            "no grade can be better than that"
        )
    lines += ["", f"{'step':>10} {'defect':>10} {'of dq':>10} {'of dp':>10}"]
    for what in ("median", "largest"):
        lines.append(_row(what, *(summary[f"{name}_{what}"] for name in ("defect", "position", "momentum"))))
    for n in np.argsort(grades.defect)[::-1][:WORST]:
        lines.append(_row(f"{n} -> {n + 1}", grades.defect[n], grades.position[n], grades.momentum[n]))
    lines.append(f"the last {min(WORST, len(grades.defect))} are the worst; 1 is as long as the step itself")
    known = summary["model_one_step_error"]
    if known is not None:
        lines.append(f"exact motion would be graded as the model errs, dq {known[0]:.2g} and dp {known[1]:.2g}")
    done = summary.get("correction")
    if done is not None:
        spent, how = done["gradients_per_step"], f"by {done['iterations']} iterations"
        if done["iterations"] is None:
            how = "by steps of its own" if spent is None else "to convergence"
        lines += ["", f"corrected {how}{'' if spent is None else f', {spent:.1f} gradients a step'}: {done['output']}"]
        lines.append(
            f"{done['apart_at_the_end_A']:.3g} Å (rms) from the original at the end; "
            f"{done['steps_without_guess']} steps had no use for the original"
        )
    return "\n".join(lines)


def _row(name: str, *numbers: float) -> str:
    return f"{name:>10} " + " ".join(f"{x:10.3g}" for x in numbers)
