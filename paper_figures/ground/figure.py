"""One way to make a figure: compute tables, write them as CSV, read them back, draw from them alone.

A script has a docstring, a `compute(args)` that gives named tables (lists of rows, each a dictionary) and a
`draw(tables, canvas)`, and ends with `make(__file__, __doc__, compute, draw)`. Table "" of `name.py` is written to
`name.csv`, table "curves" to `name-curves.csv`, and the picture to `name.png` and `name.pdf`. A table starts with
comments: the command, the machine, the CPU time.

The full mode writes beside the script, the quick one into out/figures, so that what is committed stays what it is.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image

from actionlearn.files import write_atomically
from actionlearn.pictures import picture

ROOT = Path(__file__).resolve().parent.parent.parent
FIGURES = ROOT / "paper_figures"
QUICK = ROOT / "out" / "figures"

Row = dict[str, Any]
Tables = dict[str, list[Row]]
Canvas = Callable[..., Any]


def make(
    script: str,
    about: str,
    compute: Callable[[argparse.Namespace], Tables],
    draw: Callable[[Tables, Canvas], None],
    argv: Sequence[str] | None = None,
) -> Tables:
    """Parse the command line, compute, write, draw; give back the tables as they were read again."""
    name = Path(script).stem
    args = _options(name, about).parse_args(argv)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    folder = args.output or (QUICK if args.quick else FIGURES)
    folder.mkdir(parents=True, exist_ok=True)
    if not args.redraw:
        started = time.process_time()
        tables = compute(args)
        spent = time.process_time() - started
        words = [f"python paper_figures/{name}.py", *(sys.argv[1:] if argv is None else argv)]
        notes = [f"command: {' '.join(map(str, words))}", f"machine: {machine()}", f"CPU time: {spent:.0f} s"]
        for table, rows in tables.items():
            _write(_csv(folder, name, table), rows, notes)
    found = _read_all(folder, name)
    draw(found, lambda *panels, **options: _canvas(folder / name, *panels, **options))
    print(f"{folder / name}.png, .pdf and " + ", ".join(_csv(folder, name, table).name for table in found))
    return found


def machine() -> str:
    """Processor, system and versions, in a line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    return f"{model}, {os.cpu_count()} cores, 1 thread used; {platform.system()}, {versions}"


def _options(name: str, about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{name}.py", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, into out/figures")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write to (beside the script)")
    parser.add_argument("--models", type=Path, metavar="DIR", help="folder of trained maps to take before the shipped")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="only these, where a figure has several")
    parser.add_argument("--redraw", action="store_true", help="only draw, from the tables of an earlier run")
    return parser


# --- models ---------------------------------------------------------------------------------------


def find_model(args: argparse.Namespace, file: str) -> Path | None:
    """A trained map by file name: in --models, then beside the figures, then among the shipped ones; else None."""
    return next((folder / file for folder in _model_folders(args) if (folder / file).is_file()), None)


def alloy_models(args: argparse.Namespace) -> dict[str, Path]:
    """All maps of the alloy by file name, the first of each that `find_model` would find."""
    found: dict[str, Path] = {}
    for folder in _model_folders(args):
        for path in sorted([*folder.glob("alloy-*.pt"), *folder.glob("cuau-*.pt")]):
            found.setdefault(path.name, path)
    return found


def _model_folders(args: argparse.Namespace) -> list[Path]:
    return [*([args.models] if args.models else []), FIGURES / "models", ROOT / "data" / "models"]


# --- tables ---------------------------------------------------------------------------------------


def _csv(folder: Path, name: str, table: str) -> Path:
    return folder / (f"{name}-{table}.csv" if table else f"{name}.csv")


def _write(path: Path, rows: list[Row], notes: list[str]) -> None:
    """Six digits of every number: enough for any picture."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    text.writelines(f"# {note}\n" for note in notes)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_text(row.get(key, "")) for key in columns])
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        return str(value)
    return str(int(value)) if isinstance(value, (int, np.integer)) else f"{float(value):.6g}"


def _read_all(folder: Path, name: str) -> Tables:
    found = {}
    for path in sorted(folder.glob(f"{name}*.csv")):
        rest = path.stem.removeprefix(name)
        if rest == "" or rest.startswith("-"):
            found[rest[1:]] = read_table(path)
    if not found:
        raise SystemExit(f"there is no table {folder / name}.csv to draw from: run without --redraw first")
    return found


def read_table(path: Path) -> list[Row]:
    """The rows of a table, numbers as numbers, empty cells as nan."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return [{key: _value(cell) for key, cell in row.items()} for row in csv.DictReader(lines)]


def _value(cell: str) -> Any:
    if cell == "":
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return cell


def chosen(rows: list[Row], **wanted: Any) -> list[Row]:
    """The rows in which these columns have these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def column(rows: list[Row], name: str) -> np.ndarray:
    """One column as an array."""
    return np.array([row[name] for row in rows])


# --- pictures -------------------------------------------------------------------------------------


@contextmanager
def _canvas(path: Path, panels: int = 1, **options: Any) -> Iterator[list[Axes]]:
    """The axes of `actionlearn.pictures.picture`, written as PNG and as PDF without dates."""
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        with picture(path.with_suffix(".png"), panels, **options) as axes:
            yield axes
            axes[0].figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    with Image.open(path.with_suffix(".png")) as drawn:  # few inks: a palette is a third of the size
        drawn.convert("RGB").quantize(128).save(path.with_suffix(".png"), optimize=True)
