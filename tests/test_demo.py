import pytest

from actionlearn import cli, demo
from actionlearn.files import PARTIAL, read_json, write_atomically


def test_the_demo_draws_and_judges(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "LENGTH_PS", 0.2)
    monkeypatch.setattr(demo, "VERLET_STEPS_FS", (2.0, 8.0, 40.0))
    monkeypatch.setattr(demo, "STRETCHES", 1)
    monkeypatch.setattr(demo, "FRAMES", 13)
    monkeypatch.setattr(demo, "THERMOSTAT_PS", 0.2)
    assert cli.main(["demo", "--output", str(tmp_path), "--processes", "1"]) == 0
    out = capsys.readouterr().out
    assert "VERDICT: good" in out and "explodes" in out
    assert out.count("keeps the structure") == 2 and out.count("breaks it") == 2
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG") and (tmp_path / "demo.png").stat().st_size > 20e3


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
