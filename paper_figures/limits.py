"""How long a step may be: reach of the actions, heating by resonance, cost of the implicit one.

    python paper_figures/limits.py [--quick] [--models DIR] [--redraw]

Left: error of one step of the best polynomial action for one Morse oscillator (`ground/morse_fits.py`). Middle: energy
gained in a ring of anharmonic springs by a map that is exact but for a smooth error of given size, repeated every τ
(`ground/chain.py`), and drift of trained maps of the alloy at τ = h/s; alloy maps are files named
alloy-KIND-STAGES-STEP-UPDATES.pt, as `benchmarks/trained_maps.py alloy` makes them. Right: gradients that the solver
takes for a step of the midpoint action of the ring.
"""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

import numpy as np
from ground import cast, chain, morse_fits, runs
from ground.figure import ROOT, Canvas, Row, Tables, alloy_models, chosen, column, make

import actionlearn as al
from actionlearn import systems
from actionlearn.advice import period_of_share
from actionlearn.analysis import Trajectory, velocity_spectrum
from actionlearn.files import sha256
from actionlearn.pictures import COLOURS, GREY, label_ends
from actionlearn.units import BOLTZMANN, FEMTOSECOND

TEMPERATURE_K = 500.0
SOLVERS = {"plain iteration": {"memory": 0}, "Anderson": {}}


def compute(args: argparse.Namespace) -> Tables:
    return {
        "reach": _reach(args.quick),
        "heating": _heating(args.quick),
        "alloy": _alloy(args),
        "cost": _cost(args.quick),
    }


def _reach(quick: bool) -> list[Row]:
    thetas = (1.0, 3.5) if quick else (0.5, 1.0, 1.5, 2.0, 2.5, 2.8, 3.0, 3.1, 3.3, 3.6, 4.0, 4.4)
    rows = []
    for theta in thetas:
        verlet = al.Verlet(morse_fits.WELL, step_fs=theta / morse_fits.OMEGA / FEMTOSECOND)
        maps = {"Verlet": verlet, "midpoint": morse_fits.fit_midpoint(theta, 300)}
        for stages in (1, 2) if quick else (1, 2, 4):
            maps[f"discrete, s = {stages}"] = morse_fits.fit_kicks(theta, stages, 40 if quick else 80)
        for name, step in maps.items():
            error = 100 * morse_fits.one_step_error(step.step, theta)
            rows.append({"map": name, "step_per_period": theta / (2 * math.pi), "error_percent": error})
    return rows


def _heating(quick: bool) -> list[Row]:
    taus = (0.15, 0.5) if quick else (0.1, 0.13, 0.16, *np.arange(0.19, 0.7, 0.05).round(3).tolist())
    errors = (0.03,) if quick else (0.005, 0.01, 0.03)
    rows = []
    for tau in taus:
        found = chain.heating(tau * chain.PERIOD, errors, *((12, 60) if quick else (32, 300)))
        for size, (gained, error) in zip(errors, found, strict=True):
            rows.append({"error_percent": 100 * size, "tau_per_period": tau, "kT_per_period": gained, "error": error})
    return rows


def _cost(quick: bool) -> list[Row]:
    rows = []
    for share in (0.2, 0.4, 0.55) if quick else np.linspace(0.05, 0.55, 11):
        for name, options in SOLVERS.items():
            solver = al.FixedPointSolver(tolerance=1e-10, **options)
            spent = chain.gradients_a_step(share * chain.PERIOD, solver, 3 if quick else 20)
            rows.append({"solver": name, "step_per_period": float(share), "gradients": spent})
    return rows


def _alloy(args: argparse.Namespace) -> list[Row]:
    """Drift of every trained map of the alloy that is found, from 500 K."""
    base = systems.potential("metals", systems.structure("cuau108"))
    start = cast.small_crystal(TEMPERATURE_K) if args.quick else cast.recorded(ROOT / "data" / "cuau", TEMPERATURE_K, 0)
    ps = 0.5 if args.quick else 10.0
    period = _fastest_period(base, start, 0.5 if args.quick else 2.0)
    rows = []
    for path in _alloy_maps(args):
        model = al.load(path)
        every = max(1, round(240.0 / model.step_fs)) if not args.quick else 1
        steps = max(round(1e3 * ps / model.step_fs), 20)
        spent = float(model.stages) if model.kind != "midpoint" else None
        run = runs.kept(
            f"limits {sha256(path)} {steps} {every}",
            lambda model=model, steps=steps, every=every, spent=spent: runs.record(
                model, start, base, steps=steps, every=every, gradients=spent
            ),
        )
        drift, error = run.drift()
        test = model.report.get("test", {})
        unit = 3e3 * BOLTZMANN * TEMPERATURE_K / (1e-3 * period)  # meV/atom/ps of one kT a degree and period
        rows.append(
            {
                "map": f"{model.kind}, s = {model.stages}, {model.step_fs:g} fs",
                "file": path.name,
                "kind": model.kind,
                "stages": model.stages,
                "step_fs": model.step_fs,
                "period_fs": period,
                "tau_per_period": model.step_fs / model.stages / period,
                "dp_error_percent": 100 * test.get("momentum", math.nan),
                "drift_meV_per_atom_per_ps": drift,
                "drift_error": error,
                "kT_per_period": drift / unit,
                "error": error / unit,
                "length_ps": 1e-3 * run.times_fs[-1],
                "lost": run.lost or "no",
            }
        )
        print(f"alloy: {rows[-1]['map']}, {drift:+.4f} ± {error:.4f} meV/atom/ps {run.lost}", flush=True)
    return rows


def _alloy_maps(args: argparse.Namespace) -> list[Path]:
    explicit = re.compile(r"(alloy|cuau)-(discrete|processed|corrected)-")
    return [path for name, path in alloy_models(args).items() if explicit.match(name)][: 1 if args.quick else None]


def _fastest_period(base, start, ps: float) -> float:
    """Of the velocity spectrum, in fs; 99.9 % of the kinetic energy is slower."""
    run = runs.kept(
        f"limits spectrum {TEMPERATURE_K} {ps}",
        lambda: runs.record(
            al.Verlet(base, step_fs=4.0), start, base, steps=round(1e3 * ps / 4.0), every=3, gradients=1.0
        ),
    )
    trajectory = Trajectory(run.positions[:, 0], run.momenta[:, 0], 12.0, start)
    return period_of_share(velocity_spectrum(trajectory, blocks=1))


# --- the picture ----------------------------------------------------------------------------------


def draw(tables: Tables, canvas: Canvas) -> None:
    with canvas(3, width=4.9, height=4.2) as axes:
        _draw_reach(axes[0], tables["reach"])
        _draw_heating(axes[1], tables["heating"], tables["alloy"])
        _draw_cost(axes[2], tables["cost"])


def _lines(ax, names: dict[float, str], height: float = 1.0) -> None:
    for x, text in names.items():
        ax.axvline(x, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
        ax.text(x, height, text, transform=ax.get_xaxis_transform(), color=GREY, ha="center", va="bottom", fontsize=8)


REACH_INKS = {
    "Verlet": COLOURS[6],
    "discrete, s = 1": COLOURS[5],
    "discrete, s = 2": COLOURS[0],
    "discrete, s = 4": COLOURS[2],
    "midpoint": COLOURS[1],
}


def _draw_reach(ax, rows: list[Row]) -> None:
    ax.set_yscale("log")
    ax.set_ylim(1e-4, 300)
    labels = []
    for name, ink in REACH_INKS.items():
        mine = chosen(rows, map=name)
        x, y = column(mine, "step_per_period"), column(mine, "error_percent")
        ax.plot(x, y, color=ink, marker="o", markersize=3)  # broken where there is no solution
        inside = (y > 1e-4) & (y < 300)
        if name in ("midpoint", "Verlet") and inside.any():
            k = int(np.flatnonzero(inside & (x < 0.5))[-1])
            text = "midpoint:\nno solution\naround T/2" if name == "midpoint" else name
            place = (6, -22) if name == "midpoint" else (-12, 8)
            ax.annotate(text, (x[k], y[k]), xytext=place, textcoords="offset points", color=ink, ha="left" if
                        name == "midpoint" else "right", va="center", fontsize=9)  # fmt: skip
        elif inside.any():
            labels.append((x[inside][-1], y[inside][-1], name, ink))
    ax.set_xlim(0, max(column(rows, "step_per_period")) * 1.02)
    label_ends(ax, labels)
    _lines(ax, {0.25: "T/4", 0.5: "T/2"})
    ax.set_title("Reach: best fit, one oscillator\n")
    ax.set_xlabel("step h / period T")
    ax.set_ylabel("error of one step, %")


def _draw_heating(ax, rows: list[Row], alloy: list[Row]) -> None:
    ax.set_yscale("log")
    ax.set_ylim(1e-7, 1e-1)
    labels = []
    for percent, ink in zip(
        sorted(set(column(rows, "error_percent"))), (COLOURS[5], COLOURS[0], COLOURS[6]), strict=False
    ):
        mine = chosen(rows, error_percent=percent)
        x, y, e = (column(mine, name) for name in ("tau_per_period", "kT_per_period", "error"))
        seen = y > 2 * e
        ax.fill_between(x[seen], np.maximum(y - e, 1e-9)[seen], (y + e)[seen], color=ink, alpha=0.2, linewidth=0)
        ax.plot(x[seen], y[seen], color=ink)
        if seen.any():
            labels.append((x[seen][-1], y[seen][-1], f"error {percent:g} %", ink))
    beside: dict[float, list[tuple[float, float, str, str]]] = {}
    for row in alloy:
        lost = row["lost"] != "no"
        y, e = row["kT_per_period"], row["error"]
        x = row["tau_per_period"]
        if lost:
            ax.plot([x], [0.06], marker="x", color=COLOURS[1])
            y = 0.06
        elif abs(y) > 2 * e:
            ax.errorbar(
                [x], [abs(y)], [[min(e, 0.9 * abs(y))], [e]], color=COLOURS[1], marker="o" if y > 0 else "v", ms=5
            )
        else:
            y = abs(y) + 2 * e
            ax.errorbar([x], [y], [[0.6 * y], [0]], uplims=True, color=COLOURS[1], marker="_", ms=7, capsize=2)
        beside.setdefault(round(x, 3), []).append((x, abs(y), _short(row), COLOURS[1]))
    ax.set_xlim(0.05, 0.72)
    label_ends(ax, labels)
    for names in beside.values():
        label_ends(ax, names, gap=0.05)
    _lines(ax, {0.25: "T/4", 1 / 3: "T/3", 0.5: "T/2"})
    ax.set_title("Heating: error repeated every τ\n")
    ax.set_xlabel("τ / T;  trained alloy maps at τ = h/s")
    ax.set_ylabel("energy gained per degree and period, kT")


def _short(row: Row) -> str:
    return f"{row['kind'][:4]}. {row['stages']:.0f}/{row['step_fs']:.0f}"


def _draw_cost(ax, rows: list[Row]) -> None:
    labels = []
    ax.set_yscale("log")
    for name, ink in zip(SOLVERS, (COLOURS[4], COLOURS[1]), strict=True):
        mine = [row for row in chosen(rows, solver=name) if np.isfinite(row["gradients"])]
        x, y = column(mine, "step_per_period"), column(mine, "gradients")
        ax.plot(x, y, color=ink, marker="o", markersize=3)
        labels.append((x[-1], y[-1], f"midpoint,\n{name}", ink))
    ax.axhline(2, color=COLOURS[0])
    ax.set_xlim(0, 0.6)
    ax.set_ylim(1, 400)
    label_ends(ax, [*labels, (0.6, 2.0, "discrete, s = 2", COLOURS[0])], gap=0.11)
    _lines(ax, {0.25: "T/4", 0.5: "T/2"})
    ax.set_title("Cost: ring of 32 springs\n")
    ax.set_xlabel("step h / fastest period T")
    ax.set_ylabel("gradients a step, tolerance 1e-10")


def main(argv: list[str] | None = None) -> Tables:
    return make(__file__, __doc__, compute, draw, argv)


if __name__ == "__main__":
    main()
