"""The models under data/models do on held-out stretches what their README says, and keep the structure."""

from pathlib import Path

import pytest

import actionlearn as al
from actionlearn.dataset import Dataset
from actionlearn.losses import step_errors

DATA = Path(__file__).parent.parent / "data"
LIMITS = {"cuau-discrete-24fs.pt": (0.006, 0.015), "cuau-corrected-24fs.pt": (0.001, 0.003)}


@pytest.fixture(scope="module")
def held_out():
    _, _, test = Dataset.open(DATA / "cuau", step_fs=24.0).split(0)
    return test


@pytest.mark.parametrize("name", sorted(path.name for path in (DATA / "models").glob("*.pt")))
def test_one_step_on_stretches_it_never_saw(name, held_out):
    model = al.load(DATA / "models" / name)
    errors = step_errors(model, held_out, windows=12)
    position, momentum = LIMITS[name]
    assert errors.position < position and errors.momentum < momentum
    state = held_out.stretches[0].state(0)
    assert al.reversal_error(model, state, n=10) < 1e-10
    assert al.momentum_drift(model, state, n=20) < 1e-12
