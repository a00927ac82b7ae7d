"""Microcanonical energy against time, for maps with and without structure, on four systems.

    python paper_figures/energy_drift.py [--quick] [--models DIR] [--redraw]

Lines: energy of the base potential since the start, mean of the systems of a run; bands: the least and the most
within a stretch of time and among the systems. The table holds slopes with errors beside errors of one step.
"""

from __future__ import annotations

import argparse

import numpy as np
from ground import cast
from ground.figure import Canvas, Row, Tables, chosen, column, make

from actionlearn.pictures import COLOURS, GREY, label_ends

POINTS = 60
BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK = COLOURS
INKS = {
    cast.VERLET_SMALL: GREY,
    cast.VERLET: BLACK,
    cast.DIRECT: RED,
    cast.RESCALED: ORANGE,
    "midpoint, 1e-2": PINK,
    "midpoint, 1e-3": PINK,
    "midpoint, 1e-10": PINK,
    cast.DISCRETE: BLUE,
    cast.CORRECTED: GREEN,
}


def compute(args: argparse.Namespace) -> Tables:
    summary, curves = [], []
    for part in cast.performances(args):
        run = part.run
        drift, error = run.drift()
        summary.append(
            {
                "system": part.system.name,
                "map": part.name,
                "step_fs": part.step_fs,
                "gradients_per_long_step": run.gradients * max(1.0, part.system.step_fs / part.step_fs),
                "dq_error_percent": 100 * part.position_error,
                "dp_error_percent": 100 * part.momentum_error,
                "drift_meV_per_atom_per_ps": drift,
                "drift_error": error,
                "rms_meV_per_atom": float(run.changes.std()),
                "end_meV_per_atom": float(run.changes[-1].mean()),
                "length_ps": 1e-3 * run.times_fs[-1],
                "lost": run.lost or "no",
            }
        )
        curves += _curve(part)
    return {"": summary, "curves": curves}


def _curve(part: cast.Part) -> list[Row]:
    """Mean, least and most within each of `POINTS` stretches of the full length."""
    run = part.run
    last = part.system.step_fs * part.system.steps if len(run.times_fs) > 30 else run.times_fs[-1]
    rows = []
    for places in np.array_split(np.arange(len(run.times_fs)), min(POINTS, len(run.times_fs))):
        if run.times_fs[places[0]] > last:
            break
        changes = run.changes[places]
        finite = changes[np.isfinite(changes)]
        if len(finite):
            rows.append(
                {
                    "system": part.system.name,
                    "map": part.name,
                    "time_ps": 1e-3 * float(run.times_fs[places].mean()),
                    "mean_meV_per_atom": float(finite.mean()),
                    "least": float(finite.min()),
                    "most": float(finite.max()),
                }
            )
    return rows


def draw(tables: Tables, canvas: Canvas) -> None:
    present = [name for name in cast.SYSTEMS if chosen(tables[""], system=name)]
    with canvas(2 if len(present) > 1 else 1, rows=(len(present) + 1) // 2, width=5.6, height=3.7) as axes:
        for ax, name in zip(axes, present, strict=False):
            _panel(ax, name, chosen(tables[""], system=name), chosen(tables["curves"], system=name))
        for ax in axes[len(present) :]:
            ax.remove()


def _panel(ax, name: str, summary: list[Row], curves: list[Row]) -> None:
    labels = []
    bound = _bound(summary, curves)
    for row in summary:
        rows = chosen(curves, map=row["map"])
        if not rows:
            continue
        t, ink = column(rows, "time_ps"), INKS[row["map"]]
        loose = row["map"].startswith("midpoint") and row["map"] != "midpoint, 1e-10"
        ax.fill_between(t, column(rows, "least"), column(rows, "most"), color=ink, alpha=0.15, linewidth=0)
        ax.plot(t, column(rows, "mean_meV_per_atom"), color=ink, linestyle=(0, (3, 1)) if loose else "-")
        end = t[-1], float(np.clip(rows[-1]["mean_meV_per_atom"], -bound, bound))
        labels.append((*end, row["map"] + (f" † {t[-1]:.2g} ps" if row["lost"] != "no" else ""), ink))
    ax.set_yscale("symlog", linthresh=1.0, linscale=0.7)
    ax.set_ylim(-bound, bound)
    longest = max(row["length_ps"] for row in summary)
    ax.set_xlim(0, longest)
    ax.set_title(cast.SYSTEMS[name].title)
    ax.set_xlabel("time, ps")
    ax.set_ylabel("energy since the start, meV/atom")
    label_ends(ax, [(longest, y, text, ink) for _, y, text, ink in labels])


def _bound(summary: list[Row], curves: list[Row]) -> float:
    values = [abs(row[key]) for row in curves for key in ("least", "most")]
    return float(min(2e3, max(10.0, 1.5 * max(values))))


def main(argv: list[str] | None = None) -> Tables:
    return make(__file__, __doc__, compute, draw, argv)


if __name__ == "__main__":
    main()
