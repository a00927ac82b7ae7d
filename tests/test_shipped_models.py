"""The models under data/models do on held-out stretches what their README says, and keep the structure."""

from pathlib import Path

import pytest

import actionlearn as al
from actionlearn.dataset import Dataset
from actionlearn.losses import step_errors

DATA = Path(__file__).parent.parent / "data"
LIMITS = {
    "cuau-discrete-24fs.pt": (0.003, 0.006),
    "cuau-discrete-48fs.pt": (0.004, 0.006),
    "cuau-corrected-24fs.pt": (0.0006, 0.001),
    "cuau-potential.pt": (0.01, 0.01),  # of Verlet with 8 fs
    "ethanol-gfn2-discrete-4fs.pt": (0.004, 0.005),
    "water-corrected-2fs.pt": (0.0013, 0.0035),
    "water-corrected-4fs.pt": (0.008, 0.006),
}


def held_out(name, step_fs):
    """The alloy's test stretches; all of the other sets', which their models have not seen."""
    if name.startswith("cuau"):
        return Dataset.open(DATA / "cuau", step_fs=step_fs).split(0)[2]
    return Dataset.open(DATA / name.partition("-")[0], step_fs=step_fs)


@pytest.mark.parametrize("name", sorted(path.name for path in (DATA / "models").glob("*.pt")))
def test_one_step_on_stretches_it_never_saw(name):
    model = al.load(DATA / "models" / name)
    data = held_out(name, model.step_fs)
    errors = step_errors(model, data, windows=12)
    position, momentum = LIMITS[name]
    assert errors.position < position and errors.momentum < momentum
    state = data.stretches[0].state(0)
    assert al.reversal_error(model, state, n=10) < 1e-10
    assert al.momentum_drift(model, state, n=20) < 1e-12
