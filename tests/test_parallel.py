"""Processes that train together: the same as one with larger batches, on every one of them, broken off or not."""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch
import trained_together
from test_reference import cluster
from test_training import MAPS, blueprint
from torch.overrides import TorchFunctionMode

import actionlearn as al
from actionlearn.assessment import feature_range
from actionlearn.errors import InvalidInput
from actionlearn.parallel import choose_device
from actionlearn.potentials import SecondMomentMetals
from actionlearn.settings import Settings
from actionlearn.training import Trainer

HERE = Path(__file__).parent
PACKAGE = Path(al.__file__).parent


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel") / "reference"
    al.sample(
        cluster(),
        SecondMomentMetals(),
        folder,
        temperatures_K=[200.0],
        step_fs=2.0,
        stretches=4,
        frames=21,
        record_every=4,
        equilibrate_ps=0.2,
        decorrelate_ps=0.05,
    )
    return folder


def torchrun(*words):
    paths = os.pathsep.join([str(PACKAGE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, words)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return found


def test_two_processes_are_one_with_twice_the_batch(reference, tmp_path):
    (tmp_path / "command").mkdir()
    found = torchrun(HERE / "trained_together.py", reference, tmp_path)
    assert found.stdout.count("discrete, s = 2, h = 16 fs: 4 updates") == 1
    assert al.load(tmp_path / "command" / "model.pt").report["updates"] == 4
    assert sorted(path.name for path in (tmp_path / "command").iterdir()) == ["model.png", "model.pt"]
    read = {path.stem: torch.load(path, weights_only=True) for path in tmp_path.glob("*.pt")}
    for run in ("whole", "again", "plain", "clock"):
        assert same(read[f"{run}-0"]["weights"], read[f"{run}-1"]["weights"]), run
    assert same(read["whole-0"]["weights"], read["again-0"]["weights"])  # broken off and gone on
    assert not same(read["whole-0"]["weights"], read["clock-0"]["weights"])
    alone = trained_together.alone(reference, 56)
    for one, other in zip(trained_together.weights(alone), read["plain-0"]["weights"], strict=True):
        for name in one:
            assert torch.allclose(one[name], other[name], rtol=1e-3, atol=2e-5), name
    for point, shared in zip(alone.curve, read["plain-0"]["curve"], strict=True):
        for name in ("update", "loss", "momentum_error", "position_error"):
            assert point[name] == pytest.approx(shared[name], rel=1e-4)
    half = trained_together.alone(reference, 28)
    assert abs(half.curve[-1]["loss"] / alone.curve[-1]["loss"] - 1.0) > 1e-3  # the comparison can fail


def same(one, other):
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)


# --- devices --------------------------------------------------------------------------------------

MOVED = {
    ("dataset.py", "windows"),
    ("midpoint_equation.py", "fastest_turn"),
    ("solver.py", "relative"),
    ("neighbours.py", "find_edges"),
    ("state.py", "batch"),  # counts, used as plain numbers
    ("losses.py", "step_errors"),  # sums of results that were brought back
    ("assessment.py", "errors_of"),  # likewise
    ("state.py", "__post_init__"),  # takes the tensors of others as they are
    ("state.py", "default"),
    ("state.py", "_real"),
}
"""Where tensors are made on the CPU and put on the device, or used as plain numbers."""


class MadeOnCPU(TorchFunctionMode):
    """Collects where in the package tensors are made without saying on which device."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        factories = "zeros ones full empty tensor as_tensor arange eye linspace rand randn triu_indices"
        if getattr(function, "__name__", "") in factories.split() and "device" not in kwargs:
            frames = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(PACKAGE)]
            if frames:
                self.found.add((Path(frames[-1].filename).name, frames[-1].name))
        return function(*args, **kwargs)


@pytest.mark.parametrize(("kind", "stages"), [*MAPS, ("midpoint", 1)])
def test_everything_is_made_where_the_data_are(reference, kind, stages):
    """No GPU is needed to see that nothing on the way is left on the CPU."""
    parts = al.Dataset.open(reference, step_fs=16.0).split(0)
    base = SecondMomentMetals()
    training = Trainer(
        blueprint(kind, stages), *parts[:2], Settings(minutes=None, updates=4, batch_atoms=16, force_matching=0.5), base
    )
    with MadeOnCPU() as made:
        for _ in range(4):
            training.update()
        training.validate()
        feature_range(training.average, parts[0], windows=2)
    assert made.found <= MOVED
    with MadeOnCPU() as made:
        parts[0].windows([0])
    assert made.found  # they can be seen


def test_wishes_for_a_device():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InvalidInput, match="device is 'abacus', expected auto, cpu, cuda"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidInput, match="torch sees no GPU"):
            choose_device("cuda")
