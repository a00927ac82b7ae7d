"""The paper figures in their quick mode, and the ground they stand on."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

import actionlearn as al

FIGURES = Path(__file__).parent.parent / "paper_figures"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(FIGURES))


def script(name):
    return importlib.import_module(name)


def compute(args):
    x = np.linspace(0.0, 1.0, 3)
    return {"": [{"map": "a", "drift": 1 / 3, "steps": 7}], "curves": [{"x": float(v), "y": v**2} for v in x]}


def draw(tables, canvas):
    with canvas(2, rows=2) as axes:
        assert len(axes) == 4
        axes[0].plot([row["x"] for row in tables["curves"]], [row["y"] for row in tables["curves"]])


def test_tables_survive_the_file_and_carry_their_origin(tmp_path):
    figure = script("ground.figure")
    tables = figure.make("somewhere/thing.py", "", compute, draw, ["--output", str(tmp_path)])
    assert tables[""] == [{"map": "a", "drift": 0.333333, "steps": 7.0}]
    assert np.allclose(figure.column(tables["curves"], "y"), [0.0, 0.25, 1.0])
    head = (tmp_path / "thing.csv").read_text().splitlines()[:3]
    assert head[0].startswith("# command: python paper_figures/thing.py --output") and "torch" in head[1]
    assert (tmp_path / "thing.png").stat().st_size > 1000 and (tmp_path / "thing.pdf").stat().st_size > 1000


def test_redrawing_computes_nothing(tmp_path):
    figure = script("ground.figure")
    with pytest.raises(SystemExit, match="no table"):
        figure.make("thing.py", "", None, draw, ["--output", str(tmp_path), "--redraw"])
    figure.make("thing.py", "", compute, draw, ["--output", str(tmp_path)])
    assert figure.make("thing.py", "", None, draw, ["--output", str(tmp_path), "--redraw"])[""][0]["map"] == "a"


def test_no_picture_is_too_large():
    for path in FIGURES.glob("*.png"):
        assert path.stat().st_size <= 150_000, path


# --- the scripts ----------------------------------------------------------------------------------


class Euler:
    """An explicit Euler step, which heats."""

    step_fs = 1.0

    def __init__(self, potential):
        self.potential = potential

    def step(self, state):
        forces = self.potential.forces(state)
        return state.drift(0.1).kick(0.1 * forces)


def test_rescaled_momenta_hold_every_energy():
    cast = script("ground.cast")
    potential = al.potentials.Harmonic(torch.eye(2, dtype=torch.float64))
    q = torch.tensor([[0.1, 0.0], [0.0, 1.0]], dtype=torch.float64)
    start = al.PhaseState(q, q.flip(1), torch.ones(2, dtype=torch.float64), system=torch.tensor([0, 1]))

    def total(state):
        return potential.energy(state) + state.kinetic_energy()

    free = start
    for _ in range(20):
        free = Euler(potential).step(free)
    held = cast.Rescaled(Euler(potential), potential, start).step(start, 20)
    assert torch.allclose(total(held), total(start), rtol=1e-12)
    assert (total(free) > 1.1 * total(start)).all()
    with pytest.raises(ArithmeticError, match="exceeds"):
        cast.Rescaled(Euler(potential), potential, start).step(start.moved(10 * q, q), 1)


def test_a_run_that_loses_its_energy_ends_and_says_so():
    runs = script("ground.runs")
    potential = al.potentials.Harmonic(torch.eye(2, dtype=torch.float64))
    q = torch.ones(1, 2, dtype=torch.float64)
    start = al.PhaseState(q, q, torch.ones(1, dtype=torch.float64))
    verlet = runs.record(al.Verlet(potential, step_fs=1.0), start, potential, steps=40, every=2, gradients=1.0)
    assert verlet.lost == "" and verlet.momenta.shape == (21, 1, 1, 2) and np.abs(verlet.changes).max() < 10
    wild = runs.record(al.Verlet(potential, step_fs=25.0), start, potential, steps=40, every=2, gradients=1.0)
    assert wild.lost == "energy" and len(wild.times_fs) < 21 and np.isnan(wild.drift()).all()


@pytest.fixture(scope="module")
def kept_runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def quick(monkeypatch, tmp_path, kept_runs):
    monkeypatch.setattr(script("ground.runs"), "KEPT", kept_runs)
    figure = script("ground.figure")

    def run(name):
        tables = script(name).main(["--quick", "--output", str(tmp_path)])
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        return tables, figure.chosen

    return run


def test_energy_drift(quick):
    tables, chosen = quick("energy_drift")
    alloy = {row["map"]: row for row in chosen(tables[""], system="alloy")}
    assert alloy["corrected"]["rms_meV_per_atom"] < alloy["discrete"]["rms_meV_per_atom"] < 1.0
    assert alloy["discrete"]["rms_meV_per_atom"] < 0.3 * alloy["Verlet"]["rms_meV_per_atom"]
    assert alloy["corrected"]["dp_error_percent"] < 0.5 < alloy["Verlet"]["dp_error_percent"]
    assert alloy["midpoint, 1e-10"]["gradients_per_long_step"] > 3 * alloy["discrete"]["gradients_per_long_step"]
    assert {row["map"] for row in tables["curves"]} >= set(alloy)


def test_equipartition(quick):
    tables, chosen = quick("equipartition")
    alloy = chosen(tables[""], system="alloy")
    assert sum(row["degrees"] for row in chosen(alloy, map="discrete", kind="band")) == 93
    for group in {row["group"] for row in alloy}:
        T = {row["map"]: row["temperature_K"] for row in chosen(alloy, group=group)}
        assert T["corrected"] == pytest.approx(T["Verlet, small step"], rel=0.05)


def test_iterations(quick):
    tables, chosen = quick("iterations")
    two, converged = (chosen(tables[""], iterations=k)[0] for k in (2.0, "converged"))
    assert converged["symplectic_defect"] < 1e-8 and converged["reversal_error_A"] < 1e-8
    assert two["symplectic_defect"] > 1e-6 and two["reversal_error_A"] > 1e-4
    assert two["dp_error_percent"] < chosen(tables[""], iterations=0.0)[0]["dp_error_percent"]


def test_limits(quick):
    tables, chosen = quick("limits")
    slow, fast = (chosen(tables["heating"], tau_per_period=tau)[0] for tau in (0.15, 0.5))
    assert fast["kT_per_period"] > 3 * fast["error"] and fast["kT_per_period"] > 10 * slow["kT_per_period"]
    error = {row["map"]: row["error_percent"] for row in tables["reach"] if row["step_per_period"] < 0.2}
    assert error["midpoint"] < error["discrete, s = 2"] < 0.1 * error["Verlet"]
    assert np.isnan([row["gradients"] for row in tables["cost"] if row["step_per_period"] > 0.5]).all()
    assert all(np.isfinite(row["gradients"]) for row in tables["cost"] if row["step_per_period"] < 0.25)


def test_pareto(quick):
    tables, chosen = quick("pareto")
    at = {(row["kind"], row["step_fs"]): row for row in tables[""]}
    assert at["Blanes-Moan 4", 24.0]["error_percent"] < 0.2 * at["Verlet", 24.0]["error_percent"]
    learned = next(row for row in tables[""] if row["network_gradients_per_ps"] > 0)
    assert learned["error_percent"] < at["Verlet", 24.0]["error_percent"]


def test_spectra(quick):
    tables, chosen = quick("spectra")
    band = chosen(tables[""], system="alloy", spectrum="velocity")[0]
    assert abs(band["difference_per_cm"]) < 10.0 and 90.0 < band["reference_per_cm"] < 160.0
    reference = chosen(tables["spectra"], system="alloy", of="reference")
    assert sum(row["density"] for row in reference) * reference[1]["per_cm"] == pytest.approx(1.0, rel=0.01)


def test_exactness(quick):
    tables, chosen = quick("exactness")
    for row in chosen(tables[""], sampling="with the test"):
        assert abs(row["bias_kT"]) < 4 * row["error_kT"] and 0.5 < row["acceptance"] < 1.0


def test_transfer(quick):
    tables, chosen = quick("transfer")
    assert {row["axis"] for row in tables[""]} == {"temperature_K", "gold_percent"}
    error = {(row["axis"], row["at"]): row["dp_error_percent"] for row in tables[""]}
    assert all(row["lost"] == "no" for row in tables[""])
    assert all(0.0 < e < 4.0 for e in error.values()) and len(error) == 4
