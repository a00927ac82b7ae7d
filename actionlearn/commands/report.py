"""Write one page about a trained map: verdict, limits, training, drift, structure, spectra, advice, commands.

SOURCE is a checkpoint, a folder that `actionlearn validate` wrote, a trajectory of `actionlearn run` or its summary,
or a folder that holds such files; several are put together, if they belong to one model. With --data, a model is
validated first. The page is one file that needs nothing else, offline, on any screen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from actionlearn.commands import validate
from actionlearn.errors import InvalidInput
from actionlearn.files import write_atomically
from actionlearn.report import gather, write_page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `actionlearn report`."""
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="checkpoint, validation, run, or folder of these")
    parser.add_argument("--output", metavar="FILE", help="page to write (beside the model, with the ending .html)")
    parser.add_argument("--data", nargs="+", metavar="DATA", help="reference trajectories to validate with first")
    parser.add_argument(
        "--step-fs", type=float, metavar="FS", help="with --data: step, of a model for a range of steps"
    )
    parser.add_argument("--temperature", type=float, nargs="+", metavar="K", help="with --data: as for validate")
    parser.add_argument("--ps", type=float, default=20.0, metavar="PS", help="with --data: length of each run")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="with --data: seed of all random numbers")


def run(args: argparse.Namespace) -> None:
    """Find, validate if that is wished, and write."""
    found = gather(args.sources)
    output = Path(args.output) if args.output else found.model.with_suffix(".html")
    if not output.parent.is_dir():
        raise InvalidInput(f"there is no folder {output.parent} to write {output.name} to: make it first")
    if args.data:
        if found.validation is not None:
            raise InvalidInput("there is a validation already: leave out --data, or the validation")
        folder = output.with_name(f"{output.stem}-validation")
        _validate(args, found.model, folder)
        found = gather([*args.sources, folder])
    page = write_page(found, args.command).encode()
    write_atomically(output, lambda file: file.write(page))
    verdict = "not validated, so there is no verdict: see `actionlearn validate`, or give --data"
    if found.validation is not None:
        verdict = found.validation["verdict"]["text"]
    print(f"{found.model}: {verdict}")
    print(f"written to {output}, {len(page) / 1000:.0f} kB")


def _validate(args: argparse.Namespace, model: Path, folder: Path) -> None:
    """What `actionlearn validate` does with its own defaults and what is given here."""
    parser = argparse.ArgumentParser()
    validate.add_arguments(parser)
    wishes = vars(parser.parse_args([str(model), *args.data, "--output", str(folder)]))
    given = {name: getattr(args, name) for name in ("step_fs", "temperature", "ps", "seed", "command")}
    validate.run(argparse.Namespace(**{**wishes, **given}))
