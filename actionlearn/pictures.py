"""One style for all pictures: few inks, labels at the lines, units on the axes, colours safe for the colour-blind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

#: Distinguishable under all common colour deficiencies (M. Okabe and K. Ito, 2008), strongest first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6b6b6b"

STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "figure.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": "#222222",
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "actionlearn",
}


@contextmanager
def picture(
    path: str | Path, panels: int = 1, *, rows: int = 1, width: float = 5.2, height: float = 3.6
) -> Iterator[list[Axes]]:
    """A figure with `panels` side by side, in one row or several, in the common style, written to `path` at the end.

    Drawn without a display and without global state, so any number may be made in a process; axes come row by row.
    The size is that of one panel.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width * panels, height * rows), layout="constrained")
        axes = figure.subplots(rows, panels, squeeze=False)
        yield list(axes.flat)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def learning_curve(axes: Axes, curve: Sequence[Mapping[str, float]]) -> None:
    """Errors on the validation set against time, the points of a training's curve."""
    minutes = [point["seconds"] / 60.0 for point in curve]
    for name, label in (("momentum_error", "Δp"), ("position_error", "Δq")):
        errors = [100.0 * point[name] for point in curve]
        axes.plot(minutes, errors, marker="o", markersize=3, label=f"{label}, {errors[-1]:.2g} % at the end")
    axes.set_yscale("log")
    axes.set(xlabel="training (minutes)", ylabel="error of one step (%)", title="Learned, on stretches held out")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which(lambda value, _: f"{value:g}")
    axes.legend()


def drift_curve(axes: Axes, curve: Sequence[Mapping[str, float]]) -> None:
    """Drift of the energy in short roll-outs against time, where it was measured."""
    points = [point for point in curve if "drift" in point]
    minutes, drifts, errors = ([point[name] for point in points] for name in ("seconds", "drift", "drift_error"))
    minutes = [seconds / 60.0 for seconds in minutes]
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    axes.errorbar(minutes, drifts, errors, marker="o", markersize=3, capsize=2)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(min(-0.1, 2.0 * min(drifts)), max(0.1, 2.0 * max(drifts)))
    axes.set(xlabel="training (minutes)", ylabel="drift (meV/atom/ps)", title="Energy in short roll-outs")


def label_ends(axes: Axes, labels: Sequence[tuple[float, float, str, str]], *, gap: float = 0.055) -> None:
    """Write names at the right ends of lines, (x, y, text, colour) each, moved apart where they would overlap.

    Call it when all lines are drawn and the limits are set; `gap` is the smallest distance in parts of the height.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    places = [(*to_axes.transform((x, y)), text, colour) for x, y, text, colour in labels]
    low, high = 0.5 * gap, 1.0 - 0.5 * gap
    places.sort(key=lambda place: place[1])
    heights = np.array([min(max(place[1], low), high) for place in places])
    for _ in range(200):
        for k in range(len(heights) - 1):
            overlap = gap - (heights[k + 1] - heights[k])
            if overlap > 1e-9:
                heights[k] -= 0.5 * overlap
                heights[k + 1] += 0.5 * overlap
        heights += max(0.0, low - heights.min()) - max(0.0, heights.max() - high)
    for (x, _, text, colour), height in zip(places, heights, strict=True):
        axes.annotate(
            text,
            (min(x, 1.0), height),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )
