"""What the README and the guide show runs as written: their Python, and the guide's commands with smaller budgets."""

import argparse
import re
import shlex
import sys
import warnings
from pathlib import Path

import pytest
import torch

import actionlearn as al
from actionlearn import cli

ROOT = Path(__file__).parent.parent
GUIDE = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *GUIDE]

PIECE = re.compile(r"```python\n(?P<code>(?:.*\n)*?)```|^    actionlearn (?P<line>(?:.*\\\n)*.*)$", re.MULTILINE)

#: What takes long, made short; a command keeps what it does not set.
BUDGET = {
    "temperature": lambda kelvin: kelvin[:1] if isinstance(kelvin, list) else kelvin,
    "minutes": lambda _: 0.005,
    "channels": lambda _: 4,
    "hidden": lambda _: 8,
    "stretches": lambda _: 3,
    "frames": lambda _: 13,
    "equilibrate_ps": lambda _: 0.1,
    "decorrelate_ps": lambda _: 0.05,
    "processes": lambda _: 1,
}
#: A validation takes a hundred steps at least.
SHORT_PS = {
    "advise": lambda args: 0.4,
    "validate": lambda args: 0.101 * al.load(args.model).step_fs,
    "run": lambda args: 0.3,
}


def pieces(page):
    """Blocks of Python and commands in their order, (kind, text) each."""
    for found in PIECE.finditer(page.read_text()):
        yield next((kind, text) for kind, text in found.groupdict().items() if text is not None)


def run_python(code, page, names):
    file = re.match(r"# (\w+\.py)\n", code)
    if file:
        Path(file[1]).write_text(code)
    else:
        exec(compile(code, str(page), "exec"), names)


def run_command(line):
    """As the command line does it, on a smaller budget."""
    args = cli.parser().parse_args(words(line), argparse.Namespace(command=line))
    for name, value in vars(args).items():
        if name in BUDGET and value is not None:
            setattr(args, name, BUDGET[name](value))
    if args.verb in SHORT_PS:
        args.ps = SHORT_PS[args.verb](args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # so little training knows little
        args.run(args)


def words(line):
    return shlex.split(line.replace("\\\n", " "))


@pytest.mark.timeout(900)  # a busy machine may take ten times as long
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_run_as_written(page, tmp_path, monkeypatch, capsys):
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # commands add the working directory
    names, seen = {}, list(pieces(page))
    torch.manual_seed(0)
    for kind, text in seen:
        if kind == "code":
            run_python(text, page, names)
        elif page in GUIDE:
            run_command(text)
    assert seen or page.stem == "README"
    if page == PAGES[0]:
        out = capsys.readouterr().out
        assert float(re.search(r"symplectic to (\S+)", out)[1]) < 1e-11
        assert float(re.search(r"reversible to (\S+)", out)[1]) < 1e-10


@pytest.mark.parametrize(
    "line", [text for kind, text in pieces(PAGES[0]) if kind == "line"], ids=lambda line: " ".join(words(line))
)
def test_commands_parse(line):
    assert cli.parser().parse_args(words(line)).verb == words(line)[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_linked_files_and_headings_are_there(page):
    for target, anchor in re.findall(r"\]\(([^):#]*)(?:#([^)]*))?\)", page.read_text()):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in headings], anchor
