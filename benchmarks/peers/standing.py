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

KEPT = [FOLDER / "results" / name for name in ("flashmd.json", "flashmd-700K.json")]
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
    """One line for each that ran, in the order of the race."""
    cases: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        cases[row.case][row.quantity] = row
    ran = {name: found for name, found in cases.items() if "length of the run" in found}
    longest = max(found["length of the run"].value for found in ran.values())
    lines = [HEADS, ["---"] * len(HEADS), *(_line(name, found, longest) for name, found in ran.items())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _line(name: str, found: dict[str, Row], longest: float) -> list[str]:
    value = {quantity: row.value for quantity, row in found.items()}
    ms, length, drift = value["CPU time of a step"], value["length of the run"], found["drift"]
    T = [found.get(f"temperature of {species}") for species in ("Cu", "Au")]
    return [
        name,
        f"{value['weights']:,.0f}" if value["weights"] else "–",
        f"{value['CPU time of training']:.0f}" if value["weights"] else "–",
        f"{value['error of dq']:.2f}, {value['error of dp']:.2f}",
        f"{value['gradients a step']:.1f}",
        f"{ms:.1f}",
        f"{value['CPU time of a step over that of the discrete map']:.1f}",
        f"{ms / STEP_FS:.2f}",
        f"{value['symplectic defect']:.0e}",
        f"{value['reversal error']:.0e}",
        "–" if math.isnan(drift.value) else f"{drift.value:+.3f} ± {drift.error:.3f}" + _short(length, longest),
        # averages of a short run tell nothing
        ", ".join(f"{t.value:.0f} ± {t.error:.0f}" for t in T if t) if length > 0.5 * longest else "–",
    ]


def _short(length: float, longest: float) -> str:
    return f" ({length:.1f} ps)" if length < longest else ""


if __name__ == "__main__":
    for file in sys.argv[1:] or KEPT:
        print(standing(read_rows(file)[0]) + "\n")
