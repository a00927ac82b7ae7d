"""`actionlearn advise`: periods that are known, limits that follow from them, and what it says to wrong input."""

import json
import math

import ase.io
import numpy as np
import pytest
import torch
from test_reference import cluster

import actionlearn as al
from actionlearn import cli
from actionlearn.advice import advise, fastest_motion, period_of_share
from actionlearn.analysis import Trajectory, velocity_spectrum
from actionlearn.errors import InvalidInput
from actionlearn.units import FEMTOSECOND


class Oscillators:
    """Independent one-dimensional oscillators with given periods in fs."""

    def __init__(self, periods_fs):
        self.omega = 2.0 * math.pi / (torch.as_tensor(periods_fs, dtype=torch.float64) * FEMTOSECOND)

    def energy(self, state):
        return state.sum_by_system(0.5 * state.masses * self.omega**2 * state.positions[:, 0] ** 2)

    def forces(self, state):
        return -(state.masses * self.omega**2).unsqueeze(1) * state.positions


def oscillators(n):
    z = 1e-2 * torch.randn(2, n, 1, dtype=torch.float64)
    return al.PhaseState(positions=z[0], momenta=10 * z[1], masses=torch.linspace(1.0, 40.0, n, dtype=torch.float64))


@pytest.mark.parametrize("fastest", [8.0, 90.0])
def test_harmonic_periods_are_found(fastest):
    periods = np.linspace(fastest, 3 * fastest, 30)
    found = fastest_motion(oscillators(30), Oscillators(periods), temperature_K=300)
    assert found.period_fs == pytest.approx(fastest, rel=2 * found.resolution) and found.resolution < 0.1
    assert fastest <= found.harmonic_period_fs * (1 + 1e-6) < 1.05 * fastest
    assert found.omega_max_per_fs == pytest.approx(2 * math.pi / found.harmonic_period_fs)
    assert found.run_ps == pytest.approx(max(0.03 * found.harmonic_period_fs, 0.5), rel=0.05)
    # without a temperature: as it moves now
    moving = fastest_motion(oscillators(30), Oscillators(periods), run_ps=2 * found.run_ps)
    assert moving.period_fs == pytest.approx(fastest, rel=2 * moving.resolution)
    assert moving.resolution < 0.6 * found.resolution


def test_a_rare_fast_mode_counts_only_with_its_energy():
    t = np.arange(4000)
    slow, fast = np.cos(2 * np.pi * t / 100), np.cos(2 * np.pi * t / 10)
    state = oscillators(1)
    for share, expected in ((0.05, 10.0), (0.01, 100.0)):  # amplitudes: energies of 0.0025 and 0.0001
        p = (slow + share * fast).reshape(-1, 1, 1)
        spectrum = velocity_spectrum(Trajectory(p, p, 1.0, state), blocks=1)
        assert period_of_share(spectrum) == pytest.approx(expected, rel=0.1)


def test_limits_follow_from_the_period():
    motion = fastest_motion(oscillators(30), Oscillators(np.linspace(90.0, 200.0, 30)), temperature_K=300)
    T = motion.period_fs
    nve, bath = advise(motion), advise(motion, "langevin")
    assert nve.limits["midpoint_plain_iteration"] == T / 4 and nve.limits["midpoint_exists"] == T / 2
    assert nve.limits["substep"] == T / 7 and bath.limits["substep"] == T / 5.5
    for advice, rule in ((nve, 7.0), (bath, 5.5), (advise(motion, "ghmc"), 5.5), (advise(motion, "bussi"), 5.5)):
        best = advice.best
        assert (best.kind, best.stages) == ("discrete", 2)
        assert 0.9 * T / rule < best.step_fs / best.stages <= T / rule
        assert best.gradients_per_ps == pytest.approx(2000 / best.step_fs)
        assert best.resonance_order == math.ceil(2 * T / best.step_fs)  # that many modes of frequency 1/T
        assert advice.base_step_fs * advice.record_every == pytest.approx(best.step_fs)
        assert advice.base_step_fs <= T / 40 * 1.001
    assert nve.best.resonance_order > bath.best.resonance_order
    assert all(choice.step_fs <= T / 4 for choice in nve.choices if choice.kind == "midpoint")


# --- the command line -----------------------------------------------------------------------------


def test_advice_on_an_alloy(tmp_path, capsys):
    report = tmp_path / "new" / "advice.json"
    words = ["advise", "cuau32", "--temperature", "500", "--ps", "1.5", "--json", str(report)]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    for text in (
        "fastest period T = ",
        "Verlet, stable",
        "midpoint action: exists",
        "VERDICT: for nve train a discrete",
    ):
        assert text in out
    found = json.loads(report.read_text())
    assert 70 < found["motion"]["period_fs"] < 130 and 380 < found["motion"]["temperature_K"] < 620
    assert found["best"]["stages"] == 2 and 20 < found["best"]["step_fs"] < 36
    # the command it gives can be given
    [line] = [line.split() for line in out.splitlines() if line.strip().startswith("actionlearn sample")]
    more = ["--temperature", "500", "--output", "x"]
    args = cli.parser().parse_args([*line[1:-1], *more])
    assert args.step_fs * args.record_every == pytest.approx(found["best"]["step_fs"])


def test_a_seed_gives_the_same_advice_from_a_file(tmp_path, capsys):
    ase.io.write(tmp_path / "cluster.traj", cluster())
    words = ["advise", str(tmp_path / "cluster.traj"), "--potential", "sampled_potentials:springs"]
    words += ["--temperature", "300", "--ensemble", "langevin", "--seed", "4"]
    outs = []
    for _ in range(2):
        assert cli.main(words) == 0
        outs.append(capsys.readouterr().out)
    assert outs[0] == outs[1] and "for langevin train" in outs[0] and "bias of 3.9 K" in outs[0]


ERRORS = {
    "no momenta": (["cuau32"], "no momenta: give a --temperature"),
    "temperature": (["cuau32", "--temperature", "-5"], "--temperature is -5.0, expected a positive number"),
    "not a number": (["cuau32", "--temperature", "nan"], "--temperature is nan, expected a positive number"),
    "length": (["cuau32", "--temperature", "300", "--ps", "0"], "--ps is 0.0, expected a positive number"),
    "too short": (["cuau32", "--temperature", "300", "--ps", "0.01"], "too short for a spectrum: take at least 0.3"),
    "structure": (["gone", "--temperature", "300"], "no built-in system and no file is called 'gone'"),
    "potential": (["cuau32", "--temperature", "300", "--potential", "gone"], "no potential is called 'gone'"),
    "none for a file": (["FILE", "--temperature", "300"], "is no built-in system, so name a potential"),
    "species": (["lj13", "--temperature", "30", "--potential", "metals"], "Ar"),
    "no factory": (
        ["FILE", "--temperature", "300", "--potential", "sampled_potentials:gone"], "cannot find the potential"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_wrong_input_is_one_line(tmp_path, capsys, name):
    words, message = ERRORS[name]
    ase.io.write(tmp_path / "cluster.traj", cluster())
    words = [str(tmp_path / "cluster.traj") if word == "FILE" else word for word in words]
    assert cli.main(["advise", *words]) == 1
    err = capsys.readouterr().err.strip()
    assert err.startswith("actionlearn advise: ") and "\n" not in err
    with pytest.raises(InvalidInput, match=message):
        raise InvalidInput(err)


def test_states_that_cannot_be_advised_on():
    with pytest.raises(InvalidInput, match="one system, not a batch of 2"):
        fastest_motion(al.PhaseState.batch([oscillators(2)] * 2), Oscillators([1.0] * 4), temperature_K=300)
    with pytest.raises(InvalidInput, match="nothing vibrates"):
        fastest_motion(oscillators(3), Oscillators([math.inf] * 3), temperature_K=300)
    motion = fastest_motion(oscillators(4), Oscillators([50.0] * 4))
    with pytest.raises(InvalidInput, match="ensemble must be one of nve, langevin, bussi, ghmc, not 'npt'"):
        advise(motion, "npt")
    with pytest.raises(InvalidInput, match="temperature_K must be a positive number"):
        fastest_motion(oscillators(4), Oscillators([50.0] * 4), temperature_K=-1.0)
