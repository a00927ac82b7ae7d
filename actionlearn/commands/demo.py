"""Show it all in three minutes: sample an alloy, learn its action, run, compare, draw a picture, give a verdict."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from actionlearn import demo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `actionlearn demo`."""
    parser.add_argument("--output", default="demo-out", metavar="DIR", help="folder for what the demo writes")
    parser.add_argument("--quick", action="store_true", help="a small crystal, hardly trained: does everything work?")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="parallel processes")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of all random numbers")


def run(args: argparse.Namespace) -> None:
    """Run it and print the report."""
    torch.set_flush_denormal(True)  # tails of cutoff functions are slow in numbers too small to matter
    plan = demo.QUICK if args.quick else demo.FULL
    print(demo.run(Path(args.output), seed=args.seed, processes=args.processes, plan=plan))
