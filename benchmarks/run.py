"""The quick benchmarks in one table, with what changed since the run that is committed.

    python benchmarks/run.py [--jobs 2] [--only NAME …] [--strict] [--accept] [--against FILE] [--output FILE]

Each benchmark is a single-threaded process with a limit of time; its own tables go into a log beside the rows. A
change is marked where it exceeds the row's tolerance and three standard errors of the difference. The exit status is 1
where structure is broken (a row beyond its limit: symplectic, reversible, exact, of its order) or a benchmark did not
finish; with --strict where anything became worse or is gone, too. --accept makes this run the one to be compared with.

CPU times and, less so, ratios of them belong to a processor: compare with a run on the same one.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ledger import Change, Row, compare, environment, read_rows, write_rows

HERE = Path(__file__).resolve().parent
BASELINE = HERE / "baseline.json"

#: script and arguments besides --quick; {fresh} is a folder that is empty
BENCHMARKS = {
    "networks": (),
    "solver": (),
    "maps": (),
    "structure": (),
    "shipped_maps": (),
    "trained_maps": ("--models", "{fresh}", "--only", "discrete-2-24", "corrected-2-24"),
    "correction": (),
    "exact_sampling": (),
    "morse": (),
    "integrators": (),
}
LIMIT_S = 600
"""Of time: under a limit of CPU time Linux counts that in ticks of milliseconds, too coarse for what is timed here."""


def measured(name: str, folder: Path) -> tuple[list[Row], str | None]:
    """Rows of one benchmark, and what went wrong."""
    output = folder / f"{name}.json"
    output.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as fresh, open(folder / f"{name}.log", "w") as log:
        options = [option.format(fresh=fresh) for option in BENCHMARKS[name]]
        command = [sys.executable, str(HERE / f"{name}.py"), "--quick", "--json", str(output.resolve()), *options]
        single = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        started = time.monotonic()
        problem = None
        try:
            done = subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=HERE.parent, env=single, timeout=LIMIT_S
            )
            if done.returncode:
                problem = f"ended with status {done.returncode}"
        except subprocess.TimeoutExpired:
            problem = f"took more than {LIMIT_S} s"
    print(f"  {name:16s}{time.monotonic() - started:6.0f} s {problem or ''}", file=sys.stderr, flush=True)
    return (read_rows(output)[0] if output.exists() else []), problem


def table(changes: Sequence[Change]) -> Iterator[str]:
    """Lines of the table, benchmark by benchmark; of structure only what is broken, and how much holds."""
    for name in dict.fromkeys(change.row.benchmark for change in changes):
        mine = [change for change in changes if change.row.benchmark == name]
        yield f"\n{name:48s}{'':36s}{'value':>11s} {'':4s}{'before':>11s} {'change':>9s}"
        yield from (_line(change) for change in mine if change.row.limit is None or change.verdict in ("fails", "gone"))
        held = sum(change.row.limit is not None and change.verdict not in ("fails", "gone") for change in mine)
        if held:
            yield f"  structure: {held} measures keep to their limits"


def _line(change: Change) -> str:
    row = change.row
    now = "" if change.verdict == "gone" else f"{row.value:.4g}"
    before = "" if change.before is None else f"{change.before.value:.4g}"
    if row.limit is not None:
        before = {"lower": "≤ ", "higher": "≥ ", "equal": "= "}[row.better] + f"{row.limit:.3g}"
    relative = "" if math.isnan(change.relative) or row.limit is not None else f"{100 * change.relative:+.1f} %"
    mark = {"fails": "FAILS", "worse": "WORSE", "gone": "GONE", "same": ""}.get(change.verdict, change.verdict)
    text = f"  {row.case:46.46s}{row.quantity:36.36s}{now:>11s} {row.unit:4.4s}{before:>11s} {relative:>9s} {mark}"
    return text.rstrip()


def main() -> int:
    """Run, print, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="benchmarks at the same time")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--strict", action="store_true", help="exit with 1 where anything became worse or is gone")
    parser.add_argument("--accept", action="store_true", help="keep this run as the one to be compared with")
    parser.add_argument("--against", type=Path, default=BASELINE, help="the run to be compared with")
    parser.add_argument("--output", type=Path, default=Path("out/bench.json"))
    arguments = parser.parse_args()
    folder = arguments.output.parent / arguments.output.stem
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        found = list(pool.map(lambda name: measured(name, folder), arguments.only))
    rows = [row for part, _ in found for row in part]
    problems = {name: problem for name, (_, problem) in zip(arguments.only, found, strict=True) if problem}
    about = environment() | {"threads": 1, "quick": True, "jobs": arguments.jobs}
    write_rows(arguments.output, rows, about)

    before: list[Row] = []
    if arguments.against.exists():
        before, then = read_rows(arguments.against)
        before = [row for row in before if row.benchmark in arguments.only]
        print(f"before: {then['commit']} of {then['date']} on {then['processor']}")
        if then["processor"] != about["processor"]:
            print(f"this run is on {about['processor']}: times do not compare, ratios of times only roughly")
    changes = compare(rows, before)
    print("\n".join(table(changes)))
    count = {verdict: sum(c.verdict == verdict for c in changes) for verdict in ("fails", "worse", "gone", "better")}
    print(
        f"\n{len(rows)} rows in {(time.monotonic() - started) / 60:.1f} minutes, in {arguments.output}: "
        + ", ".join(f"{n} {verdict}" for verdict, n in count.items())
    )
    for name, problem in problems.items():
        print(f"{name} {problem}: see {folder / name}.log")
    broken = bool(count["fails"] or problems)
    if arguments.accept:
        if broken or set(arguments.only) != set(BENCHMARKS):
            print("not kept: structure is broken, or not everything was run")
        else:
            write_rows(BASELINE, rows, about)
            print(f"kept as {BASELINE.relative_to(HERE.parent)}")
    return int(broken or (arguments.strict and bool(count["worse"] or count["gone"])))


if __name__ == "__main__":
    sys.exit(main())
