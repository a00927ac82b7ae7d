"""The tables of README.md, from what full runs wrote into results/.

    python benchmarks/tables.py [--write]

prints them; with --write it puts them where they belong in README.md, between `<!-- NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ledger import Row, read_rows

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
SYSTEMS = ("alloy", "ethanol", "water")
OTHERS = {
    "Blanes-Moan 4": ("Blanes-Moan 4",),
    "r-RESPA, its best": ("r-RESPA 2", "r-RESPA 4", "r-RESPA 8"),
    "Verlet, H of 3 u": ("Verlet, heavy hydrogens",),
    "Verlet, network": ("Verlet, network",),
}
NONE = "–"


class Results:
    """Rows of one file, by case and quantity."""

    def __init__(self, name: str) -> None:
        """Of results/NAME.json."""
        self.rows, self.about = read_rows(HERE / "results" / f"{name}.json")
        self.by_name = {(row.case, row.quantity): row for row in self.rows}

    def cases(self, quantity: str) -> list[str]:
        """Cases of which this was measured."""
        return [row.case for row in self.rows if row.quantity == quantity]

    def get(self, case: str, quantity: str) -> Row | None:
        """A row, if there is one."""
        return self.by_name.get((case, quantity))

    def text(self, case: str, quantity: str, none: str = NONE) -> str:
        """A value with its unit; without error."""
        row = self.get(case, quantity)
        return NONE if row is None else none if math.isnan(row.value) else f"{short(row.value)} {row.unit}".strip()

    def uncertain(self, case: str, quantity: str) -> str:
        """A value and its standard error, to the digits that this one leaves."""
        row = self.get(case, quantity)
        if row is None or math.isnan(row.value):
            return NONE
        places = max(0, -math.floor(math.log10(row.error))) if row.error > 0.0 else 2
        return f"{row.value:.{places}f} ± {row.error:.{places}f}"


def short(value: float) -> str:
    """Two digits that count, without an exponent where none is needed."""
    if not 5e-5 <= abs(value) < 1e4:
        return f"{value:.0e}" if value else "0"
    return f"{value:.{max(0, 1 - math.floor(math.log10(abs(value))))}f}"


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table."""
    whole = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in whole)


def best(found: Results, case: str, quantity: str, names: Sequence[str], never: str) -> str:
    """The least of the values of several schemes."""
    rows = [row for name in names if (row := found.get(case, quantity.format(name))) is not None]
    values = [row.value for row in rows if not math.isnan(row.value)]
    return short(min(values)) if values else never if rows else NONE


def equal_accuracy() -> str:
    """CPU time of everything that is as wrong as a map, in units of Verlet."""
    head = ["system and map", "Δp", "Verlet on the base", "map", *OTHERS]
    lines = []
    for name in SYSTEMS:
        found = Results(f"integrators-{name}")
        for case in found.cases("CPU, map / Verlet on the base"):
            file = case.removeprefix(f"{name}, as accurate as ")
            others = [best(found, case, "CPU, {} / Verlet", names, "at no step") for names in OTHERS.values()]
            error = found.text(f"{name}, {file}", "error of Δp")
            verlet = f"1 ({found.text(case, 'step of Verlet')})"
            lines.append([file, error, verlet, f"**{found.text(case, 'CPU, map / Verlet on the base')}**", *others])
    return markdown(head, lines)


def equal_time() -> str:
    """Errors at the CPU time of a map, in units of the map's."""
    head = ["system and map", "map", "Verlet on the base", *OTHERS]
    lines = []
    for name in SYSTEMS:
        found = Results(f"integrators-{name}")
        for case in found.cases("error, Verlet on the base / map"):
            file = case.removeprefix(f"{name}, at the CPU time of ")
            others = [best(found, case, "error, {} / map", names, "too long a step") for names in OTHERS.values()]
            verlet = found.text(case, "error, Verlet on the base / map", "too long a step")
            lines.append([file, "**1**", verlet, *others])
    return markdown(head, lines)


def runs() -> str:
    """Long runs."""
    head = ["", "step", "CPU", "Δq", "Δp", "drift, meV/atom/ps", "fastest band off by, cm⁻¹"]
    lines = []
    for name in SYSTEMS:
        found = Results(f"integrators-{name}")
        for case in found.cases("step"):
            cells = [found.text(case, "step"), found.text(case, "CPU / Verlet at a tenth of the period")]
            cells += [found.text(case, f"error of {change}") for change in ("Δq", "Δp")]
            cells += [found.uncertain(case, q) for q in ("drift, absolute", "shift of the fastest band")]
            lines.append([case.replace(", ", ": ", 1), *cells])
    return markdown(head, lines)


def learners() -> str:
    """What is learned in the same time."""
    found = Results("learners")
    quantities = {
        "updates": "updates",
        "gradients/ps": "gradients",
        "CPU / Verlet, 2 fs": "CPU / Verlet of 2 fs on the base",
        "Δq": "error of Δq",
        "Δp": "error of Δp",
        "symplectic defect": "symplectic defect",
        "back, Å": "reversal",
    }
    head = ["", *quantities, "drift, meV/atom/ps"]
    lines = []
    for case in found.cases("symplectic defect"):
        cells = [
            found.text(case, quantity).removesuffix(" per ps").removesuffix(" Å") for quantity in quantities.values()
        ]
        drift, lasted = found.uncertain(case, "drift, absolute"), found.text(case, "time that the run lasted")
        lines.append([case.split(", ", 2)[2], *cells, f"lost after {lasted}" if drift == NONE else drift])
    return markdown(head, lines)


def openmm_water() -> str:
    """OpenMM's integrators on their own ground, and in units of its Verlet in the step that makes it as accurate."""
    found, unit, error = Results("openmm_water"), "CPU / OpenMM's Verlet of 0.5 fs", "error of Δp over 4 fs"
    known = found.by_name["Verlet, 0.5 fs", error].value
    lines = []
    for case in found.cases(unit):
        row = found.get(case, error)
        fair = NONE if row is None else short(found.by_name[case, unit].value * (row.value / known) ** 0.5)
        lines.append([case, found.text(case, error), found.uncertain(case, unit), fair])
    return markdown(["", "Δp over 4 fs", "CPU", "CPU / Verlet as accurate"], lines)


def gdml() -> str:
    """Force errors, solvers, calls."""
    found = Results("gdml")
    without = "force error without symmetries"
    errors = markdown(
        ["", "force error", "without symmetries"],
        [[case, found.text(case, "force error"), found.text(case, without)] for case in found.cases(without)],
    )
    solvers = []
    for name in ("ethanol", "copper"):
        for solver in ("iterative, to 1e-4", "iterative, to 1e-6"):
            what = ("iterations", "CPU / closed form", "forces from those of the closed form")
            solvers.append([f"{name}, {solver}", *(found.text(name, f"{solver}: {quantity}") for quantity in what)])
    called = [row for row in found.rows if row.quantity.startswith("CPU of a call")]
    calls = [
        [f"{row.case}, {row.quantity.removeprefix('CPU of a call, ').removesuffix(' / ours')}", short(row.value)]
        for row in called
    ]
    head = ["", "iterations", "CPU / closed form", "forces differ by"]
    return "\n\n".join([errors, markdown(head, solvers), markdown(["", "CPU of a call / ours"], calls)])


TABLES: dict[str, Callable[[], str]] = {
    "equal accuracy": equal_accuracy,
    "equal time": equal_time,
    "runs": runs,
    "learners": learners,
    "openmm": openmm_water,
    "gdml": gdml,
}


def filled(page: str) -> str:
    """The page with its tables made anew; raises `KeyError` for one that is not known."""
    pattern = re.compile(r"<!-- (?!end)([^>]+) -->\n.*?<!-- end -->", re.DOTALL)
    return pattern.sub(lambda found: f"<!-- {found[1]} -->\n{TABLES[found[1]]()}\n<!-- end -->", page)


def main() -> None:
    """Print, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into README.md")
    if parser.parse_args().write:
        PAGE.write_text(filled(PAGE.read_text()))
    else:
        print("\n\n".join(f"{name}\n\n{make()}" for name, make in TABLES.items()))


if __name__ == "__main__":
    main()
