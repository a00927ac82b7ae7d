"""Kinetic temperature of every element and of every vibrational band against time, for maps with and without structure.

    python paper_figures/equipartition.py [--quick] [--models DIR] [--redraw]

The runs are those of `energy_drift.py`. Bands are normal modes of the crystal or of the molecule, which is turned back
at every frame (`actionlearn.analysis.temperatures_by_band`). The three bodies are left out: they are no thermal system.
Bands of the picture are one standard error, from parts of each stretch of time.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.optimize import BFGS
from ground import cast
from ground.figure import Canvas, Row, Tables, chosen, column, make

from actionlearn import systems
from actionlearn.analysis import Temperatures, Trajectory, rigid_bands, temperatures_by_band, temperatures_by_species
from actionlearn.pictures import COLOURS, GREY, label_ends
from actionlearn.potentials.water import ANGLE, BOND
from actionlearn.state import PhaseState
from actionlearn.structure import vibrational_bands

SHOWN = (cast.VERLET_SMALL, cast.VERLET, cast.DIRECT, cast.RESCALED, "midpoint, 1e-10", cast.DISCRETE, cast.CORRECTED)
EDGES_PER_CM = {
    "alloy": (20.0, 80.0, 130.0, 300.0),
    "ethanol": (50.0, 900.0, 2000.0, 3300.0, 4500.0),
    "water": (1000.0, 2500.0, 4500.0),
}
BLOCKS = 6
BAND_INKS = (COLOURS[6], COLOURS[0], COLOURS[2], COLOURS[1])


def compute(args: argparse.Namespace) -> Tables:
    summary, series = [], []
    modes: dict[str, tuple[Any, Any]] = {}
    for part in cast.performances(args, tuple(EDGES_PER_CM)):
        name = part.system.name
        if name not in modes:
            modes[name] = _modes(part)
        end = {"length_ps": 1e-3 * part.run.times_fs[-1], "lost": part.run.lost or "no"}
        found = list(_temperatures(part, *modes[name], blocks=2 if args.quick else BLOCKS))
        if not found:
            summary.append({"system": name, "map": part.name, "kind": "none", "group": "", **end})
        for kind, group, degrees, t, T, e in found:
            about = {"system": name, "map": part.name, "kind": kind, "group": group}
            late = slice(len(t) // 4, None)
            summary.append(
                {
                    **about,
                    "degrees": degrees,
                    "temperature_K": float(T[late].mean()),
                    "error_K": float(T[late].std(ddof=1) / math.sqrt(len(T[late]))),
                    "from_ps": 1e-3 * float(t[late][0]),
                    **end,
                }
            )
            series += [
                {**about, "time_ps": 1e-3 * a, "temperature_K": b, "error_K": c}
                for a, b, c in zip(t, T, e, strict=True)
            ]
    return {"": summary, "series": series}


def _modes(part: cast.Part) -> tuple[PhaseState, dict[str, torch.Tensor]]:
    """The geometry of one fragment at rest, and its directions in bands: normal modes, for water its whole motion too.

    The crystal stays on the sites it was built on: any directions will do.
    """
    name, base = part.system.name, part.system.base()
    if name == "alloy":
        atoms = systems.structure(f"cuau{part.geometry.n_atoms}")
    elif name == "ethanol":
        atoms = part.geometry.to_atoms()
        atoms.calc = base.calculator
        BFGS(atoms, logfile=None).run(fmax=0.01, steps=100)
    else:
        atoms = Atoms("OH2", [[0, 0, 0], [BOND, 0, 0], [BOND * math.cos(ANGLE), BOND * math.sin(ANGLE), 0]])
    state = PhaseState.from_atoms(atoms)
    bands = vibrational_bands(base, state, EDGES_PER_CM[name], 1e-2 if name == "alloy" else 1e-3)
    return state, {**rigid_bands(state), **bands} if name == "water" else bands


def _temperatures(
    part: cast.Part, reference: PhaseState, bands: dict[str, torch.Tensor], blocks: int
) -> Iterator[tuple[str, str, float, np.ndarray, np.ndarray, np.ndarray]]:
    """By element and by band: kind, group, degrees, times, temperatures and their errors, mean of the systems."""
    run = part.run
    if len(run.times_fs) < 5 * blocks + 1:
        return
    interval = float(run.times_fs[1] - run.times_fs[0])
    found: dict[str, list[Temperatures]] = {"element": [], "band": []}
    for k in range(run.positions.shape[1]):
        trajectory = Trajectory(run.positions[1:, k], run.momenta[1:, k], interval, part.geometry)
        found["element"].append(temperatures_by_species(trajectory, momentum_removed=True, blocks=blocks))
        found["band"].append(temperatures_by_band(trajectory, bands, reference, momentum_removed=True, blocks=blocks))
    for kind, each in found.items():
        T = np.mean([one.temperatures_K for one in each], axis=0)
        e = np.sqrt(np.mean([one.errors_K**2 for one in each], axis=0) / len(each))
        for k, group in enumerate(each[0].groups):
            yield kind, group, each[0].degrees[k], each[0].times_fs, T[:, k], e[:, k]


# --- the picture ----------------------------------------------------------------------------------


def draw(tables: Tables, canvas: Canvas) -> None:
    """A row for every system: elements and bands in time for the maps that tell most, then all maps at the end."""
    rows = tables["series"]
    present = [name for name in EDGES_PER_CM if chosen(rows, system=name)]
    shown = [name for name in SHOWN if chosen(tables[""], map=name)]
    with canvas(len(shown), rows=len(present), width=2.2, height=2.9) as axes:
        for k, system in enumerate(present):
            mine = axes[k * len(shown) : (k + 1) * len(shown)]
            _row(mine, system, shown, chosen(rows, system=system), chosen(tables[""], system=system, kind="none"))


def _row(axes: list[Any], system: str, shown: list[str], rows: list[Row], lost: list[Row]) -> None:
    bands = list(dict.fromkeys(row["group"] for row in chosen(rows, kind="band")))
    inks = dict(zip(bands, BAND_INKS, strict=False))
    reference = chosen(rows, map=cast.VERLET_SMALL, kind="band")
    middle = float(np.median(column(reference, "temperature_K")))
    longest = max(column(reference, "time_ps")) * 1.06
    for ax, name in zip(axes, shown, strict=True):
        mine = chosen(rows, map=name, kind="band")
        labels = []
        for band, ink in inks.items():
            one = chosen(mine, group=band)
            if not one:
                continue
            t, T, e = (column(one, key) for key in ("time_ps", "temperature_K", "error_K"))
            ax.fill_between(t, T - e, T + e, color=ink, alpha=0.2, linewidth=0)
            ax.plot(t, T, color=ink)
            labels.append(
                (t[-1], float(np.clip(T[-1], 0.4 * middle, 1.6 * middle)), band.replace(" /cm", " cm⁻¹"), ink)
            )
        ax.set_xlim(0, longest)
        ax.set_ylim(0.4 * middle, 1.6 * middle)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("time, ps")
        if not mine:
            ends = [f"lost after\n{row['length_ps']:.2g} ps" for row in chosen(lost, map=name)]
            ax.text(0.5, 0.5, (ends or ["no map"])[0], transform=ax.transAxes, ha="center", va="center", color=GREY)
        if ax is axes[0]:
            ax.set_ylabel(f"{system}: temperature of band, K")
        if ax is axes[-1]:
            away = [(longest, middle, band.replace(" /cm", " cm⁻¹"), ink) for band, ink in inks.items()]
            label_ends(ax, labels or away, gap=0.08)


def main(argv: list[str] | None = None) -> Tables:
    return make(__file__, __doc__, compute, draw, argv)


if __name__ == "__main__":
    main()
