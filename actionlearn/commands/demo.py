"""Show what there is in a minute: sample an alloy, measure integrators, draw a picture, give a verdict."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from actionlearn import demo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `actionlearn demo`."""
    parser.add_argument("--output", default="demo-out", metavar="DIR", help="folder for what the demo writes")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="parallel processes")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of all random numbers")


def run(args: argparse.Namespace) -> None:
    """Run it and print the report."""
    print(demo.run(Path(args.output), seed=args.seed, processes=args.processes))
