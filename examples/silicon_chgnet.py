"""Silicon on CHGNet, a neural potential of all elements: long steps of 15 fs. See silicon_chgnet.md."""

from typing import Any

from ase.build import bulk
from recipe import Recipe, main

try:
    from chgnet.model.dynamics import CHGNetCalculator
except ImportError as error:
    raise ImportError("this recipe needs CHGNet: pip install --constraint constraints.txt '.[chgnet]'") from error


class Forces(CHGNetCalculator):
    """CHGNet without stresses and magnetic moments, which take a third of its time."""

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
        """Energy and forces."""
        super().calculate(atoms, properties, system_changes, task="ef")


def chgnet() -> Forces:
    """With the weights that come with the package."""
    return Forces(use_device="cpu")


RECIPE = Recipe(
    name="silicon-chgnet",
    atoms=lambda: bulk("Si", "diamond", a=5.46, cubic=True) * 2,
    potential="silicon_chgnet:chgnet",
    step_fs=15.0,
    stages=2,
    base_step_fs=2.5,
    record_every=2,
    temperatures_K=(300.0, 450.0),
    stretches=8,
    frames=61,
    thermostat_ps=0.3,
    train={"updates": 2400, "cutoff": 5.0, "learning_rate": 0.02, "batch_atoms": 256},
    ps=15.0,
    reference_ps=2.0,
    quick_atoms=lambda: bulk("Si", "diamond", a=5.46, cubic=True),
)

if __name__ == "__main__":
    main(RECIPE)
