"""Structure, accuracy and drift against the number of correction iterations, from several predictors.

    python paper_figures/iterations.py [--quick] [--models DIR] [--redraw]

A copper-gold alloy of 32 atoms at 500 K, steps of 24 fs. A predictor guesses the end of a step: velocity Verlet on the
base potential, a direct network, or nothing but free flight; k iterations of the learned midpoint action correct it,
k = 0 being the predictor alone, the last point the converged action. The symplectic defect is that of one step, from
random directions; the reversal error that of five steps forth and back; errors of one step are against Verlet, 2 fs.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import torch
from ground import cast, runs
from ground.figure import Canvas, Row, Tables, chosen, column, find_model, make

import actionlearn as al
from actionlearn import systems
from actionlearn.errors import ActionlearnError
from actionlearn.files import sha256
from actionlearn.pictures import COLOURS, GREY
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND

TEMPERATURE_K, STEP_FS = 500.0, 24.0
ITERATIONS = (0, 1, 2, 4, 8, None)
FLIGHT, VERLET, DIRECT = "free flight", "Verlet, 24 fs", "direct network"
INKS = {FLIGHT: COLOURS[0], VERLET: COLOURS[6], DIRECT: COLOURS[1]}


class FreeFlight:
    """No guess at all: the atoms go on as they were."""

    step_fs = STEP_FS

    def __call__(self, state: PhaseState) -> PhaseState:
        """One step."""
        return state.drift(STEP_FS * FEMTOSECOND)


class Counted:
    """A corrected predictor, with the solver's counts where `record` looks for them."""

    def __init__(self, step: al.PredictCorrect) -> None:
        """Wrap it."""
        self.step, self.step_fs = step.step, step.step_fs
        self.statistics, self.species, self.masses = step.solver.statistics, step.species, step.masses


def compute(args: argparse.Namespace) -> Tables:
    base = systems.potential("metals", systems.structure("cuau108"))
    path = find_model(args, "cuau-midpoint-24fs.pt")
    if path is None:
        raise SystemExit("there is no cuau-midpoint-24fs.pt: paper_figures/models/README.md says how it is trained")
    direct = find_model(args, "cuau-direct-24fs.pt")
    predictors: dict[str, tuple[Any, str]] = {
        FLIGHT: (FreeFlight(), ""),
        VERLET: (al.Verlet(base, step_fs=STEP_FS), ""),
    }
    if direct is not None:
        predictors[DIRECT] = al.load(direct), sha256(direct)
    if args.quick:
        predictors = {VERLET: predictors[VERLET]}
    states = [cast.small_crystal(TEMPERATURE_K)]
    for _ in range(1 if args.quick else 4):
        states.append(al.Verlet(base, step_fs=2.0).step(states[-1], 100))
    states = states[1:]
    start, small = states[0], al.Verlet(base, step_fs=2.0)
    pairs = [(state, small.step(state, 12)) for state in states]
    rows = []
    for name, (predictor, origin) in predictors.items():
        for k in (0, 2, None) if args.quick else ITERATIONS:
            action = al.load(path)
            step = al.PredictCorrect(predictor, action, iterations=k)
            steps, every = (20, 1) if args.quick else (83, 1)
            run = runs.kept(
                f"iterations of 32 {sha256(path)} {name} {origin} {k} {steps} {every}",
                lambda step=step, steps=steps, every=every: runs.record(
                    Counted(step), start, base, steps=steps, every=every
                ),
            )
            drift, error = run.drift()
            dq, dp = runs.one_step_errors(step, pairs)
            rows.append(
                {
                    "predictor": name,
                    "iterations": "converged" if k is None else k,
                    "gradients": run.gradients if k != 0 else 0.0,
                    "symplectic_defect": _or_nan(
                        lambda step=step: al.estimate_symplectic_defect(step, start, directions=2, method="differences")
                    ),
                    "reversal_error_A": _or_nan(lambda step=step: al.reversal_error(step, start, n=5)),
                    "dq_error_percent": 100 * dq,
                    "dp_error_percent": 100 * dp,
                    "drift_meV_per_atom_per_ps": drift,
                    "drift_error": error,
                    "length_ps": 1e-3 * run.times_fs[-1],
                    "cpu_ms_per_step": run.cpu_ms_per_step,
                    "lost": run.lost or "no",
                }
            )
            print(
                f"{name}, k = {rows[-1]['iterations']}: {drift:+.3f} ± {error:.3f} meV/atom/ps {run.lost}", flush=True
            )
    return {"": rows}


@torch.no_grad()
def _or_nan(measure: Any) -> float:
    try:
        return float(measure())
    except (ActionlearnError, ArithmeticError):
        return math.nan


def draw(tables: Tables, canvas: Canvas) -> None:
    rows = tables[""]
    with canvas(2, rows=2, width=5.4, height=3.4) as axes:
        quantities = {
            "symplectic_defect": ("Symplectic?", "symplectic defect of a step"),
            "reversal_error_A": ("Reversible?", "reversal error, 5 + 5 steps, Å"),
            "dp_error_percent": ("Accurate?", "error of one step in Δp, %"),
        }
        for ax, (name, (title, label)) in zip(axes, quantities.items(), strict=False):
            ax.set_yscale("log")
            _panel(ax, rows, name)
            ax.set_title(title)
            ax.set_ylabel(label)
        _draw_drift(axes[3], rows)


def _places(rows: list[Row]) -> tuple[list[float], list[str]]:
    """Even places for the numbers of iterations, and their names with the gradients of the converged action."""
    names = list(dict.fromkeys(row["iterations"] for row in rows))
    spent = np.nanmean([row["gradients"] for row in rows if row["iterations"] == "converged"])
    text = [f"converged\n({spent:.0f})" if name == "converged" else f"{float(name):g}" for name in names]
    return names, text


def _axis(ax, rows: list[Row]) -> dict[Any, int]:
    names, text = _places(rows)
    ax.set_xticks(range(len(names)), text)
    ax.set_xlim(-0.2, len(names) - 0.9)
    ax.set_xlabel("iterations = gradients of the action a step")
    return {name: k for k, name in enumerate(names)}


def _panel(ax, rows: list[Row], name: str) -> None:
    place = _axis(ax, rows)
    labels = []
    for predictor, ink in INKS.items():
        mine = [row for row in chosen(rows, predictor=predictor) if np.isfinite(row[name]) and row[name] > 0]
        if mine:
            x, y = [place[row["iterations"]] for row in mine], column(mine, name)
            ax.plot(x, y, color=ink, marker="o", markersize=4)
            labels.append((x[0], y[0], f"from {predictor}", ink))
    for k, (x, y, text, ink) in enumerate(sorted(labels, key=lambda label: -label[1])):
        ax.annotate(
            text, (x, y), xytext=(10, 6 - 14 * k), textcoords="offset points", color=ink, fontsize=9, va="center"
        )


def _draw_drift(ax, rows: list[Row]) -> None:
    place = _axis(ax, rows)
    ax.set_yscale("symlog", linthresh=0.1, linscale=0.8)
    ax.axhline(0, color=GREY, linewidth=0.8)
    shift = {name: 0.09 * (k - 1) for k, name in enumerate(INKS)}
    for predictor, ink in INKS.items():
        mine = chosen(rows, predictor=predictor)
        kept = [row for row in mine if row["lost"] == "no"]
        lost = [row for row in mine if row["lost"] != "no"]
        if kept:
            x = [place[row["iterations"]] + shift[predictor] for row in kept]
            y, e = column(kept, "drift_meV_per_atom_per_ps"), column(kept, "drift_error")
            ax.errorbar(x, y, e, color=ink, marker="o", markersize=4, capsize=2)
        for row in lost:
            x = place[row["iterations"]] + shift[predictor]
            ax.plot([x], [0.94], marker="x", color=ink, transform=ax.get_xaxis_transform(), clip_on=False)
    ax.text(
        0.99,
        0.94,
        "× energy lost by 1 eV/atom",
        transform=ax.transAxes,
        ha="right",
        va="center",
        color=GREY,
        fontsize=9,
    )
    ax.set_title("Conserving?")
    ax.set_ylabel("energy drift, meV/atom/ps")


def main(argv: list[str] | None = None) -> Tables:
    return make(__file__, __doc__, compute, draw, argv)


if __name__ == "__main__":
    main()
