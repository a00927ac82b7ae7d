import re
import sys

from actionlearn import progress
from actionlearn.progress import Progress


def test_a_log_gets_few_lines_and_the_last_one(capsys):
    with Progress("counting", 100) as bar:
        for _ in range(100):
            bar.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "0 %" in lines[0] and "100 %" in lines[1] and "gone" in lines[1]


def test_a_terminal_gets_one_line_redrawn(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    with Progress("counting", 10, done=5) as bar:
        bar.advance(1, "six")
        assert re.search(r"60 %  \d\d:\d\d left  six", capsys.readouterr().err)
        assert bar.seconds_left() > 0


def test_hidden_is_silent(capsys):
    with Progress("counting", 2, shown=False) as bar:
        bar.advance(1)
    assert capsys.readouterr().err == ""
