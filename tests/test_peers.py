"""What the comparison with FlashMD does without FlashMD: frames and options for metatrain, a race, its table."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk

import actionlearn as al
from actionlearn.dataset import Dataset
from actionlearn.potentials import SecondMomentMetals
from actionlearn.reference.thermostat import maxwell_boltzmann, without_total_momentum

ROOT = Path(__file__).parents[1]
STEP_FS = 24.0


@pytest.fixture(scope="module")
def peers():
    folder = str(ROOT / "benchmarks" / "peers")
    sys.path.insert(0, folder)
    import conversion
    import race as racing

    yield conversion, racing
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def data():
    return Dataset.open(ROOT / "data" / "cuau", step_fs=STEP_FS)


def test_frames_of_a_direct_model_begin_a_step_and_hold_its_end(peers, data):
    window, frame = data.windows([0]), peers[0].frames(data, "direct", every=len(data))[0]
    first, last = window.frames[:2]
    np.testing.assert_allclose(frame.positions, first.positions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(frame.get_momenta(), first.momenta, rtol=0, atol=1e-12)
    np.testing.assert_allclose(frame.arrays["next_position"], last.positions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(frame.arrays["next_momentum"], last.momenta, rtol=0, atol=1e-12)


def test_frames_of_a_symplectic_model_are_midpoints_and_hold_the_step(peers, data):
    window, frame = data.windows([0]), peers[0].frames(data, "symplectic", every=len(data))[0]
    first, last = window.frames[:2]
    q, p = frame.positions, frame.get_momenta()
    dq, dp = frame.arrays["next_position"], frame.arrays["next_momentum"]
    np.testing.assert_allclose(q - 0.5 * dq, first.positions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(p + 0.5 * dp, last.momenta, rtol=0, atol=1e-12)


def test_written_frames_come_back(peers, data, tmp_path):
    few = data._part([0], 2)
    assert peers[0].write(tmp_path, few, few, "symplectic", every=29) == 2
    text = (tmp_path / "training-symplectic.xyz").read_text()
    assert "next_position:R:3" in text and text.startswith("108\n")


def test_symplectic_options_hold_one_scale_for_both_outputs(peers, data):
    conversion, _ = peers
    settings = conversion.options("symplectic", data, {"d_pet": 4}, epochs=2, batch=4, learning_rate=1e-3)
    trainer = settings["architecture"]["training"]
    scales = trainer["fixed_scaling_weights"]
    momentum, position = conversion.balance(data)
    assert scales["position"] == scales["momentum"] == momentum
    # errors of equal relative size weigh the same
    weights = {name: loss["weight"] for name, loss in trainer["loss"].items()}
    assert weights["position"] * position**2 == pytest.approx(weights["momentum"] * momentum**2)
    assert trainer["timestep"] == STEP_FS
    assert (
        "fixed_scaling_weights"
        not in conversion.options("direct", data, {}, epochs=1, batch=4, learning_rate=1e-3)["architecture"]["training"]
    )


def hot_copper():
    atoms = bulk("Cu", "fcc", a=3.615, cubic=True).repeat((3, 3, 3))
    start = al.PhaseState.from_atoms(atoms)
    return without_total_momentum(maxwell_boltzmann(start, 300.0, torch.Generator().manual_seed(0)))


class Damped:
    """Verlet that loses momentum: neither symplectic, nor reversible, nor of constant energy."""

    def __init__(self, potential):
        self.inner = al.Verlet(potential, step_fs=2.0)

    def __call__(self, state):
        end = self.inner(state)
        return end.moved(end.positions, 0.95 * end.momenta)


def test_race_tells_a_good_step_from_a_damped_and_a_lost_one(peers):
    _, racing = peers
    base, state, calls = SecondMomentMetals(("Cu",)), hot_copper(), [0]

    def hopeless(state):
        calls[0] += 1
        raise ArithmeticError("not here")

    about = {"parameters": 0, "training_s": 0.0, "dq": 0.0, "dp": 0.0, "defect": 0.0, "reversal": 0.0}
    entrants = [
        racing.Entrant("good", al.Verlet(base, step_fs=2.0), lambda: 0, dict(about)),
        racing.Entrant("damped", Damped(base), lambda: 0, dict(about)),
        racing.Entrant("short", al.Verlet(base, step_fs=2.0), lambda: 0, dict(about), share=0.5),
        racing.Entrant("hopeless", hopeless, lambda: calls[0], dict(about)),
    ]
    racing.race(entrants, base, state, 2.0, 60)
    good, damped, short, lost = (entrant.about for entrant in entrants)
    assert abs(good["drift"]) < 5.0 < -damped["drift"]
    assert damped["temperatures"] < good["temperatures"]
    assert short["ps"] == pytest.approx(0.5 * good["ps"])
    assert lost["lost"] and calls[0] == 1 and math.isnan(lost["drift"]) and "not here" in lost["failure"]
    lines = racing.table(entrants, "good").splitlines()
    assert len(lines) == 5 and "(lost)" in lines[-1] and "Cu" in lines[1] and good["ratio"] == 1.0


def test_one_step_tells_a_map_from_free_flight(peers, data):
    _, racing = peers
    state = data.windows([0]).frames[0]
    model = al.load(ROOT / "data" / "models" / "cuau-discrete-24fs.pt")
    flight = racing.Entrant("free flight", lambda state: state.drift(STEP_FS * al.units.FEMTOSECOND), None)
    ours = racing.Entrant("map", model, None)
    for entrant in (flight, ours):
        racing.one_step(entrant, data, state, windows=2, directions=2, there=1)
    assert ours.about["dq"] < 1.0 and ours.about["dp"] < 1.0
    assert flight.about["dp"] == pytest.approx(100.0)
    assert ours.about["defect"] < 1e-5 and ours.about["reversal"] < 1e-9


def test_kept_races_are_whole_and_the_page_has_their_tables(peers):
    import standing

    page = (ROOT / "benchmarks" / "peers" / "README.md").read_text()
    assert standing.KEPT
    for file in standing.KEPT:
        rows, about = standing.read_rows(file)
        assert not about["quick"] and {"flashmd", "metatrain"} <= set(about["versions"])
        assert standing.standing(rows) in page, "python benchmarks/peers/standing.py prints the table"
        values = {(row.case, row.quantity): row.value for row in rows}
        assert all(row.holds for row in rows) and values["discrete, 2 stages", "gradients a step"] < 2.1
        assert values["FlashMD symplectic, tuned", "weights"] <= values["discrete, 2 stages", "weights"]
        cost = values["FlashMD symplectic, tuned", "CPU time of a step over that of the discrete map"]
        assert cost > 10.0
