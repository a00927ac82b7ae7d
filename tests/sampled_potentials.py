"""Small potentials that worker processes and the command line can import."""

import os
from pathlib import Path

import torch

from actionlearn.potentials import forces_from_energy


class Springs:
    """Every pair of atoms on an anharmonic spring, V = Σ k/2·x²·(1 − x), x = |D| − length."""

    def __init__(self, stiffness=3.0, length=2.5):
        self.stiffness = stiffness
        self.length = length

    def energy(self, state):
        i, j = torch.triu_indices(state.n_atoms, state.n_atoms, 1)
        x = (state.positions[i] - state.positions[j]).norm(dim=1) - self.length
        return (0.5 * self.stiffness * x**2 * (1.0 - x)).sum().reshape(1)

    def forces(self, state):
        return forces_from_energy(self.energy, state)


class Failing(Springs):
    """Springs that give up after a number of calls, or once a file is there."""

    def __init__(self, calls, how="raise"):
        super().__init__()
        self.calls = calls
        self.how = how

    def forces(self, state):
        self.calls -= 1
        if self.calls < 0:
            if self.how == "nan":
                return torch.full_like(state.positions, float("nan"))
            raise ArithmeticError("self-consistency not reached\nin 250 cycles")
        return super().forces(state)


class KilledOnce(Springs):
    """Springs that end their process with SIGKILL, once, when there is a stretch in the folder."""

    def __init__(self, folder):
        super().__init__()
        self.folder = Path(folder)

    def forces(self, state):
        flag = self.folder.with_name("killed")
        if not flag.exists() and list(self.folder.glob("stretch-*.npz")):
            flag.touch()
            os.kill(os.getpid(), 9)
        return super().forces(state)


def springs(atoms):
    return Springs()


def failing(atoms):
    return Failing(int(os.environ.get("FAIL_AFTER", "30")))


def slow(atoms):
    """Springs that wait PAUSE seconds before each answer, to leave time to be killed."""
    import time

    class Slow(Springs):
        def forces(self, state):
            time.sleep(float(os.environ.get("PAUSE", "0")))
            return super().forces(state)

    return Slow()
