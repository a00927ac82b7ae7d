"""What benchmarks write down: rows with their noise, and what became better or worse since an earlier run.

A script adds rows next to the table it prints and writes them if it was asked to:

    parser = argparse.ArgumentParser(…)
    json_option(parser)
    arguments = parser.parse_args()
    ledger = Ledger("solver")
    ledger.add("ωh = 2, warm", "evaluations per step", 17.3, tolerance=0.05)
    ledger.write(arguments.json, quick=arguments.quick)

Needs nothing beyond the standard library, so that scripts in other environments can write rows, too.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

FORMAT = "actionlearn benchmark 1"
PACKAGES = ("actionlearn", "torch", "numpy", "scipy", "ase", "vesin", "tblite", "openmm", "flashmd", "metatrain")
SIGNIFICANCE = 3.0
"""Standard errors of a difference that are still noise."""

BETTER = ("lower", "higher", "equal")


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured number.

    | field       | meaning                                                                                  |
    |-------------|------------------------------------------------------------------------------------------|
    | `benchmark` | the script that measured it                                                              |
    | `case`      | of what: the system, the map, its settings                                               |
    | `quantity`  | what was measured; benchmark, case and quantity name a row                               |
    | `value`     | the number; a ratio wherever a machine's speed enters                                    |
    | `error`     | its standard error, 0 where it follows from the seed                                     |
    | `better`    | "lower", "higher", or "equal" where any change is a change for the worse                 |
    | `tolerance` | relative change that means nothing, on top of the errors                                 |
    | `limit`     | structure: a lower number must not lie above it, a higher one not below it, one that     |
    |             | should be equal not elsewhere. Such a row fails or holds, whatever it was before         |
    """

    benchmark: str
    case: str
    quantity: str
    value: float
    error: float = 0.0
    unit: str = ""
    better: str = "lower"
    tolerance: float = 0.1
    limit: float | None = None

    def __post_init__(self) -> None:
        """Only words that the comparison knows."""
        if self.better not in BETTER:
            raise ValueError(f"better is one of {BETTER}, not {self.better!r}")

    @property
    def name(self) -> tuple[str, str, str]:
        """What a later run is compared by."""
        return self.benchmark, self.case, self.quantity

    @property
    def holds(self) -> bool:
        """Whether the number keeps to its limit, if it has one; one that is no number does not."""
        if self.limit is None:
            return True
        if self.better == "equal":
            return abs(self.value - self.limit) <= self.tolerance * abs(self.limit)
        return self.value <= self.limit if self.better == "lower" else self.value >= self.limit


@dataclasses.dataclass(frozen=True)
class Change:
    """A row beside what it was: "fails", "worse", "better", "same", "new", or "gone" from the later run."""

    row: Row
    before: Row | None
    verdict: str

    @property
    def relative(self) -> float:
        """(value − before)/|before|."""
        if self.before is None or self.verdict == "gone" or not self.before.value:
            return math.nan
        return (self.row.value - self.before.value) / abs(self.before.value)


class Ledger:
    """The rows of one benchmark."""

    def __init__(self, benchmark: str) -> None:
        """Empty."""
        self.benchmark, self.rows = benchmark, list[Row]()

    def add(
        self,
        case: str,
        quantity: str,
        value: float,
        *,
        error: float = 0.0,
        unit: str = "",
        better: str = "lower",
        tolerance: float = 0.1,
        limit: float | None = None,
    ) -> None:
        """A row more."""
        numbers = float(value), float(error)
        self.rows.append(Row(self.benchmark, case, quantity, *numbers, unit, better, tolerance, limit))

    def write(self, path: str | Path | None, *, quick: bool) -> None:
        """Write the rows, and what the process has cost so far, where a path was given."""
        if path is None:
            return
        self.add("whole script", "CPU time", time.process_time(), unit="s", tolerance=1.0)
        write_rows(path, self.rows, environment() | {"quick": quick})


def expected(wrong: bool, at_most: float, at_least: float) -> dict[str, Any]:
    """What a measure of structure must keep to: small, or large for what is wrong on purpose."""
    return {"better": "higher", "limit": at_least} if wrong else {"limit": at_most}


def json_option(parser: argparse.ArgumentParser) -> None:
    """The option that all benchmarks share."""
    parser.add_argument("--json", metavar="FILE", help="write what was measured as rows to be compared later")


def environment() -> dict[str, Any]:
    """Versions, processor, threads, commit and date."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "versions": versions,
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
    }


def processor() -> str:
    """The model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str:
    """The commit of the checkout, with a plus where files differ from it."""
    try:
        here = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "check": True}
        name = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **here).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **here).stdout.strip()
        return name + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write_rows(path: str | Path, rows: Iterable[Row], about: dict[str, Any]) -> None:
    """One row a line, so that a change of one shows as one. Numbers that are none become null."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({"format": FORMAT, "environment": about}, indent=1, ensure_ascii=False)[:-2]
    lines = ",\n".join("  " + json.dumps(_compact(row), ensure_ascii=False) for row in rows)
    path.write_text(f'{head},\n "rows": [\n{lines}\n ]\n}}\n')


def read_rows(path: str | Path) -> tuple[list[Row], dict[str, Any]]:
    """Rows and environment of a file that `write_rows` wrote."""
    found = json.loads(Path(path).read_text())
    if found.get("format") != FORMAT:
        raise ValueError(f"{path} holds {found.get('format')!r}, expected {FORMAT!r}: measure again")
    rows = [Row(**{key: math.nan if value is None else value for key, value in row.items()}) for row in found["rows"]]
    return rows, found["environment"]


def compare(rows: Sequence[Row], before: Sequence[Row]) -> list[Change]:
    """Every row of a run beside the same of an earlier one, then those that are gone."""
    earlier = {row.name: row for row in before}
    changes = [Change(row, earlier.get(row.name), _verdict(row, earlier.get(row.name))) for row in rows]
    now = {row.name for row in rows}
    return changes + [Change(row, row, "gone") for row in before if row.name not in now]


def _verdict(row: Row, before: Row | None) -> str:
    if not row.holds:
        return "fails"
    if before is None:
        return "new"
    if row.limit is not None or row.value == before.value:
        return "same"
    if math.isnan(row.value) or math.isnan(before.value):
        return "same" if math.isnan(row.value) and math.isnan(before.value) else "worse"
    change = row.value - before.value
    if abs(change) <= row.tolerance * abs(before.value) + SIGNIFICANCE * math.hypot(row.error, before.error):
        return "same"
    improved = (change < 0) == (row.better == "lower")
    return "better" if improved and row.better != "equal" else "worse"


def _compact(row: Row) -> dict[str, Any]:
    """A row without what is as usual, numbers to six digits."""
    found = {}
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if isinstance(value, float):
            value = float(f"{value:.6g}") if math.isfinite(value) else None
        if field.default is dataclasses.MISSING or value != field.default:
            found[field.name] = value
    return found
