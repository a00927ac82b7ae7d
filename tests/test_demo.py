import dataclasses

import pytest

import actionlearn as al
from actionlearn import cli, demo
from actionlearn.files import PARTIAL, read_json, write_atomically


def test_the_demo_learns_draws_and_judges(tmp_path, capsys, monkeypatch):
    small = dataclasses.replace(demo.QUICK, updates=20, ps=4.0, verlet_steps_fs=(16.0, 40.0))
    monkeypatch.setattr(demo, "QUICK", small)
    assert cli.main(["demo", "--quick", "--output", str(tmp_path), "--processes", "1"]) == 0
    out = capsys.readouterr().out
    assert "VERDICT: " in out and "explodes" in out and "20 updates" in out
    assert out.count("keeps the structure") == 2 and out.count("breaks it") == 2
    assert "The measures tell right integrators from wrong ones; Verlet keeps its energy up to" in out
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG") and (tmp_path / "demo.png").stat().st_size > 20e3
    model = al.load(tmp_path / "model.pt", step_fs=24.0)
    assert (model.kind, model.stages) == ("discrete", 2)


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "file"

    def half(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert not list(tmp_path.iterdir())
    write_atomically(path, lambda file: file.write(b"{}"))
    assert read_json(path) == {} and not list(tmp_path.glob(f"*{PARTIAL}"))
