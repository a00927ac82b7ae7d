"""The paper figures in their quick mode, and the ground they stand on."""

import importlib
from pathlib import Path

import numpy as np
import pytest

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
