"""Validation: exact and wrong maps told apart, verdicts by stated limits, the command and what it refuses."""

import dataclasses
import json
import math
import signal
import time

import ase.io
import numpy as np
import pytest
import torch
from harmonic_stretches import MASSES, STEP_FS, Spring, exact_discrete, stretch
from test_cli import launch
from test_reference import cluster

from actionlearn import cli
from actionlearn.analysis import Trajectory
from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.maps import CorrectedVerlet, DiscreteAction
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND
from actionlearn.validation import Limits, held_out, judge, measure, roll_out, validate
from actionlearn.validation.verdict import use_at

THETA = 1.2
BASE = Spring((THETA / (STEP_FS * FEMTOSECOND)) ** 2)
STRETCHES = [stretch(THETA, seed=k, interval_fs=2.0) for k in range(3)]


class Euler(torch.nn.Module):
    """Drift and kick from the start of the step: not symplectic, and it heats."""

    kind, step_fs, stages, species, masses = "euler", STEP_FS, 1, tuple(MASSES), MASSES

    def step(self, state, n=1):
        h = self.step_fs * FEMTOSECOND
        for _ in range(n):
            state = state.moved(state.drift(h).positions, state.kick(h * BASE.forces(state)).momenta)
        return state

    forward = step


def check(model, output, **more):
    with torch.no_grad():
        return validate(model, BASE, STRETCHES, output, temperatures_K=[300.0], ps=2.0, **more)


def test_an_exact_map_is_good(tmp_path):
    found = check(exact_discrete(THETA), tmp_path)
    assert found.one_step["position"] < 1e-8 and found.one_step["momentum"] < 1e-8
    assert found.structure["symplectic_defect"] < 1e-12 and found.structure["reversal_error_A"] < 1e-10
    row = found.temperatures[0]
    assert abs(row["drift"]) < 1e-9 and row["failure"] is None and row["ps"] == pytest.approx(2.0)
    assert row["spectrum_excess"] < 0.02 and row["radial_excess"] < 0.02
    expected = THETA / STEP_FS / (2 * math.pi * 2.99792458e-5)
    assert row["spectrum"]["mean_per_cm"] == pytest.approx(expected, rel=0.01)
    assert row["reference"]["mean_per_cm"] == pytest.approx(expected, rel=0.01)
    assert found.verdict.good and found.verdict.text == "good for NVE up to 300 K (300 K is the highest tested)"
    json.dumps(found.without_series(), allow_nan=False)
    assert "series" not in found.without_series()["temperatures"][0] and "series" in row


def test_a_soft_map_and_one_without_structure_are_not(tmp_path):
    h = STEP_FS * FEMTOSECOND
    soft = DiscreteAction([Spring(0.4 * (THETA / h) ** 2)], step_fs=STEP_FS)
    found = check(soft, tmp_path / "soft")
    assert not found.verdict.good and found.structure["symplectic_defect"] < 1e-12
    assert any("velocity spectrum is off" in reason for reason in found.verdict.reasons)
    assert any("one step is wrong" in reason for reason in found.verdict.reasons)
    broken = check(Euler(), tmp_path / "euler")
    reasons = " ".join(broken.verdict.reasons)
    assert "not symplectic" in reasons and "not reversible" in reasons and "the run failed after" in reasons
    assert broken.verdict.text == "not good enough for any use"


class Rounded(Spring):
    """Forces that were computed in single precision."""

    def forces(self, state):
        single = state.positions.detach().to(torch.float32).to(torch.float64)
        return super().forces(state.moved(single, state.momenta)).detach()


def test_a_map_that_corrects_rounded_forces_is_held_to_what_verlet_has_on_them():
    base, state, one_step = Rounded(BASE.k), STRETCHES[0].state(0), {"momentum": 0.0}
    found = measure.structure_of(CorrectedVerlet(base, step_fs=STEP_FS, stages=2), state, base)
    assert found["symplectic_defect"] > 1e-8  # of the differences, not of the map
    assert judge(one_step, found, [row(300.0)]).good
    assert not judge(one_step, found | {"symplectic_defect_of_verlet": 0.0}, [row(300.0)]).good
    broken = Euler()
    broken.kind, broken.stages = "corrected", 2
    reasons = judge(one_step, measure.structure_of(broken, state, base), [row(300.0)]).reasons
    assert any("not symplectic" in reason for reason in reasons)
    assert "symplectic_defect_of_verlet" not in measure.structure_of(exact_discrete(THETA), state, base)


class Fragile(Spring):
    """A potential that knows its molecules so far apart and no further."""

    def __init__(self, stiffness, reach):
        super().__init__(stiffness)
        self.reach = reach

    def forces(self, state):
        if state.positions.abs().max() > self.reach:
            raise UnsupportedSystem("broken")
        return super().forces(state)


def test_a_run_that_breaks_molecules_fails_but_one_of_the_wrong_system_is_refused():
    state = STRETCHES[0].state(0)
    unstable = 1.05 * 2.0 / (STEP_FS * FEMTOSECOND) ** 2
    model = DiscreteAction([Fragile(unstable, 3.0 * float(state.positions.abs().max()))], step_fs=STEP_FS)
    run = roll_out(model, BASE, state, ps=2.0)
    assert run.failure == "broken" and len(run.energies) > 2
    model.potentials[0].reach = 0.0
    with pytest.raises(UnsupportedSystem, match="broken"):
        roll_out(model, BASE, state, ps=2.0)


def test_a_run_that_fails_keeps_what_it_had():
    run = roll_out(Euler(), BASE, STRETCHES[0].state(0), ps=2.0)
    assert run.failure and 2 < len(run.energies) < 250 and np.abs(run.per_atom_meV).max() < 500
    with pytest.raises(InvalidInput, match=r"0.4 ps hold 50 frames of 8 fs: run at least 0.8 ps"):
        roll_out(Euler(), BASE, STRETCHES[0].state(0), ps=0.4)
    with pytest.raises(InvalidInput, match="no multiple"):
        roll_out(Euler(), BASE, STRETCHES[0].state(0), ps=2.0, interval_fs=12.0)


def test_a_temperature_that_was_not_sampled_is_reached_on_the_base_potential():
    row = measure.at_temperature(exact_discrete(THETA), BASE, STRETCHES, 600.0, ps=2.0, seed=1)
    assert 300.0 < np.mean(row["temperatures_K"]) < 1200.0 and row["temperature_K"] == 600.0


def test_results_are_kept_and_not_run_again(tmp_path, monkeypatch):
    first = check(exact_discrete(THETA), tmp_path, made_for={"model": "a"})

    def never(*args, **kwargs):
        raise AssertionError("ran again")

    monkeypatch.setattr(measure, "at_temperature", never)
    again = check(exact_discrete(THETA), tmp_path, made_for={"model": "a"})
    assert again.temperatures == first.temperatures
    with pytest.raises(InvalidInput, match="another validation"):
        check(exact_discrete(THETA), tmp_path, made_for={"model": "b"})


def test_held_out_stretches_are_those_the_model_has_not_seen():
    names = [s.name for s in STRETCHES]
    report = {"stretches": {"training": names[:1], "validation": names[1:2], "test": names[2:]}}
    assert [s.name for s in held_out(STRETCHES, report)] == names[2:]
    assert [s.name for s in held_out(STRETCHES, {"stretches": {"training": names[:1]}})] == names[1:]
    assert len(held_out(STRETCHES, {})) == 3
    sums = [s.checksum for s in STRETCHES]
    report |= {"checksums": {"training": sums[2:], "validation": [], "test": sums[:1]}}
    assert [s.name for s in held_out(STRETCHES, report)] == names[:1]
    other = [dataclasses.replace(stretch(THETA, seed=9), name=name) for name in names]  # a set of the same names
    assert held_out(other, report) == other
    assert [s.name for s in held_out([dataclasses.replace(STRETCHES[2], name="renamed"), *other], report)] == names
    with pytest.raises(InvalidInput, match="sample new ones"):
        held_out(STRETCHES, {"stretches": {"training": names}})


ONE_STEP, STRUCTURE = {"momentum": 0.02}, {"symplectic_defect": 1e-13, "reversal_error_A": 1e-12}


def row(T, drift=0.0, error=0.002, failure=None, p=0.5, reference_p=0.5, radial=0.0, spectrum=0.0):
    return {
        "temperature_K": T,
        "ps": 10.0,
        "failure": failure,
        "drift": drift,
        "drift_error": error,
        "p_value": p,
        "radial_excess": radial,
        "spectrum_excess": spectrum,
        "reference": {"failure": None, "p_value": reference_p},
    }


def test_a_map_is_not_judged_where_the_reference_failed():
    lost = row(300) | {"reference": {"failure": "it broke"}}
    use, why = use_at({k: v for k, v in lost.items() if not k.endswith("excess")}, Limits())
    assert use == "none" and why == ["there is nothing to compare with, Verlet failed: it broke"]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([row(300), row(500)], "good for NVE up to 500 K (500 K is the highest tested)"),
        (
            [row(300), row(500, drift=0.3)],
            "good for NVE up to 300 K; use a thermostat above, up to 500 K (500 K is the highest tested)",
        ),
        ([row(300, drift=0.3), row(500)], "use a thermostat up to 500 K (500 K is the highest tested)"),
        ([row(300), row(500, drift=0.3), row(700, drift=2.0)], "good for NVE up to 300 K; use a thermostat above, "
         "up to 500 K; not above"),
        ([row(300), row(500, failure="no")], "good for NVE up to 300 K; not above"),
        ([row(300, error=0.2)], "use a thermostat up to 300 K (300 K is the highest tested)"),
        ([row(300, p=1e-5)], "not good enough for any use"),
        ([row(300, p=1e-5, reference_p=1e-6)], "good for NVE up to 300 K (300 K is the highest tested)"),
        ([row(300, radial=0.04), row(500)], "not good enough for any use"),
        ([row(300, spectrum=0.2), row(500)], "not good enough for any use"),
        ([row(500), row(300, drift=-3.0)], "not good enough for any use"),
    ],
)  # fmt: skip
def test_verdicts(rows, text):
    found = judge(ONE_STEP, STRUCTURE, rows)
    assert found.text == text and found.good == (not text.startswith("not"))
    assert bool(found.reasons) == (text != judge(ONE_STEP, STRUCTURE, [row(r["temperature_K"]) for r in rows]).text)


def test_limits_may_be_others():
    assert not judge(ONE_STEP, STRUCTURE, [row(300)], Limits(step_error=0.01)).good
    assert judge(ONE_STEP, STRUCTURE, [row(300, drift=2.0)], Limits(bath_drift=3.0)).good


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validate")
    ase.io.write(folder / "cluster.traj", cluster())
    wishes = "--potential metals --temperature 200 --step-fs 2 --record-every 4 --stretches 4 --frames 21".split()
    wishes += "--equilibrate-ps 0.2 --decorrelate-ps 0.05 --processes 1".split()
    assert cli.main(["sample", str(folder / "cluster.traj"), "--output", str(folder / "set"), *wishes]) == 0
    quick = "--step-fs 16 --updates 12 --channels 4 --hidden 16 --cutoff 4.5 --batch-atoms 32".split()
    assert cli.main(["train", str(folder / "set"), "--output", str(folder / "model.pt"), *quick]) == 0
    return folder


def test_the_command_writes_and_goes_on(trained, tmp_path, capsys, monkeypatch):
    words = ["validate", str(trained / "model.pt"), str(trained / "set"), "--output", str(tmp_path), "--ps", "2"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "VERDICT: " in out and "discrete, s = 2, h = 16 fs" in out
    found = json.loads((tmp_path / "validation.json").read_text())
    assert found["kind"] == "discrete" and len(found["temperatures"]) == 1 and found["one_step"]["stretches"] == 1
    assert (tmp_path / "validation.png").stat().st_size > 20e3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["200K.json", "validation.json", "validation.png"]
    monkeypatch.setattr(measure, "at_temperature", None)
    assert cli.main(words) == 0
    assert json.loads((tmp_path / "validation.json").read_text()) == found
    assert cli.main([*words, "--ps", "3"]) == 1
    assert "another validation" in capsys.readouterr().err


def test_a_killed_validation_goes_on_to_the_same_result(trained, tmp_path):
    words = ["validate", str(trained / "model.pt"), str(trained / "set"), "--ps", "4", "--temperature", "200", "250"]
    assert cli.main([*words, "--output", str(tmp_path / "whole")]) == 0
    run = launch([*words, "--output", str(tmp_path / "parts")])
    for _ in range(6000):
        if (tmp_path / "parts" / "200K.json").exists() or run.poll() is not None:
            break
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=60)
    assert run.returncode == -signal.SIGKILL and not (tmp_path / "parts" / "validation.json").exists()
    assert cli.main([*words, "--output", str(tmp_path / "parts")]) == 0
    for name in ("validation.json", "200K.json", "250K.json"):
        one, other = (without_clock(json.loads((tmp_path / part / name).read_text())) for part in ("whole", "parts"))
        assert one == other, name


def without_clock(found):
    """Everything but how long it took, and how it was called."""
    if isinstance(found, dict):
        return {k: without_clock(v) for k, v in found.items() if k not in ("ms_per_step", "command")}
    return [without_clock(v) for v in found] if isinstance(found, list) else found


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--ps", "0.1"], "ps must be at least 1.6"),
        (["--temperature", "-5"], "positive numbers of kelvin, not -5"),
        (["--base", "nonesuch"], "nonesuch"),
        (["--output", "/dev/null/x"], "cannot write in folder /dev/null/x"),
    ],
)
def test_the_command_refuses_in_one_line(trained, tmp_path, capsys, more, message):
    words = ["validate", str(trained / "model.pt"), str(trained / "set"), "--output", str(tmp_path / "out"), *more]
    assert cli.main(words) == 1
    err = capsys.readouterr().err.strip()
    assert message in err and err.startswith("actionlearn validate: ") and "\n" not in err


def test_the_command_wants_a_model_and_data(trained, tmp_path, capsys):
    for model, data, message in (
        ("absent.pt", "set", "no checkpoint"),
        ("cluster.traj", "set", "is no checkpoint"),
        ("model.pt", "absent", "holds no manifest.json"),
    ):
        words = ["validate", str(trained / model), str(trained / data), "--output", str(tmp_path / "out")]
        assert cli.main(words) == 1
        assert message in capsys.readouterr().err


def test_a_mode_that_keeps_its_energy_for_long_is_no_error_of_the_map():
    rng = np.random.default_rng(0)
    system = PhaseState(np.zeros((2, 3)), np.zeros((2, 3)), [12.0, 16.0], numbers=[6, 8])

    def run(amplitudes, frames=400, length=2.4):
        """A bond that swings through each amplitude in turn, without passing energy on."""
        size = np.repeat(amplitudes, frames) * (1.0 + 0.02 * rng.normal(size=frames * len(amplitudes)))
        turns = 2.0 * np.pi * np.arange(len(size)) / 17.3
        q, p = np.zeros((2, len(size), 2, 3))
        q[:, 1, 0], p[:, 1, 0] = length + size * np.cos(turns), -size * np.sin(turns)
        return Trajectory(q, p, 2.0, system)

    reference, far = run([0.15]), run([0.15], length=2.9)
    for whole, other, off in (
        (run([0.05]), reference, True),  # one piece knows nothing of the others
        (run([0.1, 0.14, 0.18, 0.15]), reference, False),
        (run([0.1, 0.14, 0.18, 0.15]), far, True),
    ):
        found = {"reference": {}}
        measure._compare(whole, other, found, {})
        assert (found["radial_excess"] > 0.02) == off
