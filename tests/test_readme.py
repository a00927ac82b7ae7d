"""The README's Python runs as written, and its commands parse."""

import re
import shlex
from pathlib import Path

import pytest

from actionlearn import cli

README = Path(__file__).parent.parent / "README.md"


def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    (tmp_path / "data").symlink_to(README.parent / "data")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    names = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    out = capsys.readouterr().out
    assert float(re.search(r"symplectic to (\S+)", out)[1]) < 1e-11
    assert float(re.search(r"reversible to (\S+)", out)[1]) < 1e-10


def commands():
    text = README.read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^    actionlearn (.*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_parse(words):
    assert cli.parser().parse_args(words).verb == words[0]


def test_linked_files_are_there():
    for target in re.findall(r"\]\(([^):#]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
