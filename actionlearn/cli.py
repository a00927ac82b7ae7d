"""The command line: `actionlearn VERB …`. Verbs live in `actionlearn/commands/`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NoReturn

import torch

from actionlearn import commands
from actionlearn.errors import ActionlearnError

INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    """The parser with every verb that is there."""
    top = _Parser(
        prog="actionlearn", description="Molecular dynamics with long steps taken from a learned mechanical action."
    )
    top.add_argument("--version", action="version", version=f"actionlearn {metadata.version('actionlearn')}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for found in pkgutil.iter_modules(commands.__path__):
        module = importlib.import_module(f"{commands.__name__}.{found.name}")
        summary, _, details = (module.__doc__ or "").partition("\n")
        verb = verbs.add_parser(
            found.name,
            help=summary,
            description=f"{summary}\n{details}",
            formatter_class=_HelpFormatter,
        )
        module.add_arguments(verb)
        verb.set_defaults(run=module.run)
    return top


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """What is wrong with the arguments, and where to read about them."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keep the lines of a description, and show defaults."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; what goes wrong in a way we know is one line on stderr and a non-zero status.

    A verb finds the line it was called with in `args.command`, to write it into what it makes.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    args = parser().parse_args(words, argparse.Namespace(command=shlex.join(["actionlearn", *words])))
    try:
        torch.set_num_threads(1)  # two threads on a busy machine can be a hundred times slower than one
        return int(args.run(args) or 0)
    except ActionlearnError as problem:
        return _complain(args.verb, str(problem))
    except OSError as problem:
        where = f": {problem.filename}" if problem.filename else ""
        return _complain(args.verb, f"{problem.strerror or problem}{where}")
    except KeyboardInterrupt:
        _complain(args.verb, "interrupted; what was written is kept")
        return INTERRUPTED


def _complain(verb: str, text: str) -> int:
    print(f"actionlearn {verb}: {' '.join(text.split())}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
