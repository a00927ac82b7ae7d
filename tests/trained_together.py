"""Started by torchrun with DATA and OUTPUT: train a small map on each process, and write what came out."""

import contextlib
import sys
from pathlib import Path
from unittest import mock

import torch

from actionlearn import cli, training
from actionlearn.commands import train
from actionlearn.dataset import Dataset
from actionlearn.maps.blueprint import Blueprint, learned_part
from actionlearn.parallel import Ranks, choose_device, together
from actionlearn.settings import Settings
from actionlearn.training import Trainer

NETWORK = {"cutoff": 4.5, "channels": 4, "hidden": 16, "radial": 4}


class Killed(Exception):
    pass


def trainer(folder, ranks, batch_atoms, **settings):
    data = Dataset.open(folder, step_fs=16.0)
    parts = data.split(0)
    blueprint = Blueprint("discrete", data.species, data.masses, 16.0, 2, NETWORK)
    settings = {"minutes": None, "updates": 12, "batch_atoms": batch_atoms, "validations": 4} | settings
    return Trainer(blueprint, *parts[:2], Settings(**settings), ranks=ranks)


def weights(made):
    return [part.state_dict() for part in (learned_part(made.model), learned_part(made.average))]


def main(folder, output):
    torch.set_num_threads(1)
    with together(choose_device("cpu")) as ranks:
        whole = trainer(folder, ranks, 28)
        whole.run()
        torch.save({"weights": weights(whole), "curve": whole.curve}, output / f"whole-{ranks.rank}.pt")
        stopped = trainer(folder, ranks, 28)
        update = stopped.update

        def until_killed():
            if stopped.updates == 8:
                raise Killed
            return update()

        stopped.update = until_killed
        try:
            stopped.run(output / "state")
        except Killed:
            pass
        again = trainer(folder, ranks, 28)
        again.run(output / "state")
        torch.save({"weights": weights(again)}, output / f"again-{ranks.rank}.pt")
        with plain_adam():
            plain = trainer(folder, ranks, 28)
            plain.run()
        torch.save({"weights": weights(plain), "curve": plain.curve}, output / f"plain-{ranks.rank}.pt")
        clock = trainer(folder, ranks, 28, minutes=0.01, updates=None)
        clock.run()
        torch.save({"weights": weights(clock)}, output / f"clock-{ranks.rank}.pt")
        train.together = lambda device: contextlib.nullcontext(ranks)
        words = "--step-fs 16 --updates 4 --channels 4 --hidden 16 --cutoff 4.5 --batch-atoms 32 --device cpu".split()
        made = cli.main(["train", folder, "--output", str(output / "command" / "model.pt"), *words])
        refused = cli.main(["train", folder, "--output", str(output / "nowhere" / "model.pt"), *words])
        assert (made, refused) == (0, 1)


def plain_adam():
    """The usual optimiser turns, at first, about axes that rounding chooses; this one does not."""
    return mock.patch.object(training, "Preconditioned", torch.optim.AdamW)


def alone(folder, batch_atoms):
    """The same training on one process."""
    with plain_adam():
        made = trainer(folder, Ranks(), batch_atoms)
        made.run()
    return made


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
