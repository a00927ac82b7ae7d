"""Train the maps of the figures: `python paper_figures/models/make.py NAME … [--data DIR]`, each in minutes.

The maps of atoms come from `actionlearn train` with the options below, those of the three bodies from
`ground/three_body.py`. Weights are trained in single precision, and stored so. Direct predictors take at least the
CPU time of the others.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from ground import three_body  # noqa: E402

from actionlearn import checkpoint, cli  # noqa: E402

ALLOY = "--step-fs 24 --cutoff 5.6"
ETHANOL = "--step-fs 4 --cutoff 5 --channels 24 --batch-atoms 288"
ATOMS = {
    "cuau-midpoint-24fs": f"--kind midpoint --updates 1500 {ALLOY}",
    "cuau-direct-24fs": f"--kind direct --updates 4000 {ALLOY}",
    "ethanol-gfn2-midpoint-4fs": f"--kind midpoint --updates 500 {ETHANOL}",
    "ethanol-gfn2-direct-4fs": f"--kind direct --updates 1500 {ETHANOL}",
    "ethanol-gfn2-corrected-4fs": f"--kind corrected --stages 2 --updates 200 {ETHANOL}",
}
BODIES = {"discrete": 400, "midpoint": 400, "corrected": 250, "direct": 2000}
DATA = {"cuau": HERE.parent.parent / "data" / "cuau"}


def train_atoms(name: str, data: Path, folder: Path) -> None:
    """`actionlearn train`, then single precision."""
    path = folder / f"{name}.pt"
    cli.main(["train", str(data), *ATOMS[name].split(), "--seed", "0", "--output", str(path)])
    in_single_precision(path)


def train_bodies(kind: str, folder: Path) -> None:
    """One map of the three bodies."""
    started = time.process_time()
    model, errors = three_body.train(kind, BODIES[kind], three_body.reference())
    path = folder / f"three-body-{kind}.pt"
    report = {"test": dataclasses.asdict(errors), "cpu_seconds": time.process_time() - started}
    checkpoint.save(model, path, report)
    in_single_precision(path)
    print(f"{path}: {errors}, {report['cpu_seconds']:.0f} s of CPU")


def in_single_precision(path: Path) -> None:
    """Store the weights of a checkpoint with the digits they were trained with."""
    content = torch.load(path, weights_only=True)
    content["weights"] = {name: tensor.float() for name, tensor in content["weights"].items()}
    torch.save(content, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*ATOMS, *(f"three-body-{kind}" for kind in BODIES)]
    parser.add_argument("names", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--data", type=Path, help="reference trajectories (data/cuau for the alloy)")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for the models (this one)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for name in args.names:
        if name in ATOMS:
            data = args.data or DATA.get(name.split("-")[0])
            if data is None:
                parser.error(f"{name} needs --data, a folder made by `actionlearn sample` as models/README.md says")
            train_atoms(name, data, args.output)
        else:
            train_bodies(name.removeprefix("three-body-"), args.output)


if __name__ == "__main__":
    main()
