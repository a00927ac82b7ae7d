"""The table of the race against FlashMD as the page has it, from the rows that the race wrote.

    python benchmarks/peers/standing.py [FILE …]

Without a file, of the races that are kept in benchmarks/results.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from pathlib import Path

FOLDER = Path(__file__).parents[1]
sys.path.append(str(FOLDER))  # benchmarks
from ledger import Row, read_rows  # noqa: E402
from tables import NONE, markdown  # noqa: E402

KEPT = sorted((FOLDER / "results").glob("flashmd*.json"), key=lambda file: len(file.name))
HEADS = (
    "",
    "weights",
    "training, CPU s",
    "Δq, Δp, %",
    "gradients",
    "ms a step",
    "× discrete",
    "CPU s/ps",
    "defect",
    "there and back, Å",
    "drift, meV/atom/ps",
    "Cu, Au, K",
)
STEP_FS = 24.0


def standing(rows: list[Row]) -> str:
    """One line for each that ran, in the order of the race, then for what only a pass was timed of."""
    cases: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        cases[row.case][row.quantity] = row
    longest = max(row.value for row in rows if row.quantity == "length of the run")
    lines = []
    for name, found in cases.items():
        if "length of the run" in found:
            lines.append([name, *_ran(found, longest)])
        elif "CPU time of a pass" in found:
            lines.append([name, *_timed(found)])
    return markdown(HEADS, lines)


def _ran(found: dict[str, Row], longest: float) -> list[str]:
    value = {quantity: row.value for quantity, row in found.items()}
    ms, length, learned = value["CPU time of a step"], value["length of the run"], value["weights"] > 0
    T = [found.get(f"temperature of {species}") for species in ("Cu", "Au")]
    return [
        f"{value['weights']:,.0f}" if learned else NONE,
        f"{value['CPU time of training']:.0f}" if learned else NONE,
        f"{value['error of dq']:.2g}, {value['error of dp']:.2g}",
        f"{value['gradients a step']:.1f}" if value["gradients a step"] else NONE,
        f"{ms:.1f}",
        f"{value['CPU time of a step over that of the discrete map']:.1f}",
        f"{ms / STEP_FS:.2f}",
        f"{value['symplectic defect']:.0e}",
        f"{value['reversal error']:.0e}",
        _uncertain(found["drift"]) + (f" ({length:.1f} ps)" if length < longest else ""),
        # averages over a short run tell nothing
        ", ".join(f"{t.value:.0f} ± {t.error:.0f}" for t in T if t) if length > 0.5 * longest else NONE,
    ]


def _timed(found: dict[str, Row]) -> list[str]:
    weights, seconds = found["weights"].value, found["CPU time of a pass"].value
    return [f"{1e-6 * weights:.1f} M", *[NONE] * 3, f"{1e3 * seconds:.0f} a pass", *[NONE] * 6]


def _uncertain(row: Row) -> str:
    """To the digits that the error leaves, five at most."""
    if math.isnan(row.value):
        return NONE
    if row.error < 1e-12:  # nothing is left of a drift where momenta are scaled
        return "0"
    places = min(5, max(1, math.ceil(-math.log10(row.error))))
    return f"{row.value:+.{places}f} ± {row.error:.{places}f}"


if __name__ == "__main__":
    for file in sys.argv[1:] or KEPT:
        print(standing(read_rows(file)[0]) + "\n")
