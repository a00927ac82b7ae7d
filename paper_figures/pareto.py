"""Accuracy against cost: integrators on the base forces and learned maps, at many steps, on the alloy.

    python paper_figures/pareto.py [--quick] [--models DIR] [--redraw]

All start from the same recorded frames of the alloy (108 atoms, 500 K) and cover the same 96 fs. Error: rms(δz)/rms(Δz)
of mass-weighted momenta against velocity Verlet with steps of 0.5 fs. Cost: evaluations of a gradient a picosecond,
of the base potential or of the network (a corrected map takes both), and CPU time in the same run, one thread. Maps
are files named alloy-KIND-STAGES-STEP-UPDATES.pt, as `benchmarks/trained_maps.py alloy` makes them, and the shipped
ones; `updates` is how long each was trained. A processed map has to leave its variables at the end of the 96 fs, which
is most of its CPU time here and none in a long run. The reference itself is good to 0.002 %.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import torch
from ground.figure import ROOT, Canvas, Row, Tables, alloy_models, chosen, column, make

import actionlearn as al
from actionlearn import schemes, systems
from actionlearn.errors import ActionlearnError
from actionlearn.pictures import COLOURS, GREY
from actionlearn.state import PhaseState

SPAN_FS = 96.0
BASE_SCHEMES = {
    "Verlet": (schemes.VELOCITY_VERLET, (2, 4, 8, 12, 16, 19.2, 24)),
    "Yoshida 4": (schemes.YOSHIDA_4, (4, 8, 16, 24)),
    "Yoshida 6": (schemes.YOSHIDA_6, (16, 24, 48)),
    "Blanes-Moan 4": (schemes.BLANES_MOAN_4, (12, 24, 48)),
    "McLachlan 4": (schemes.MCLACHLAN_4, (8, 16, 24, 32)),
}
INKS = {
    "Verlet": "#000000",
    "Yoshida 4": GREY,
    "Yoshida 6": GREY,
    "Blanes-Moan 4": GREY,
    "McLachlan 4": GREY,
    "discrete": COLOURS[0],
    "processed": COLOURS[2],
    "corrected": COLOURS[4],
    "midpoint": COLOURS[3],
    "direct": COLOURS[1],
}


def compute(args: argparse.Namespace) -> Tables:
    base = systems.potential("metals", systems.structure("cuau108"))
    states = _starts(2 if args.quick else 8)
    reference = _after(al.Verlet(base, step_fs=4.0 if args.quick else 0.5), states)[0]
    rows = []
    for name, (scheme, steps) in BASE_SCHEMES.items():
        for step_fs in steps[-2:] if args.quick else steps:
            integrator = schemes.Splitting(base, scheme, step_fs)
            gradients = {"base": integrator.stages * 1e3 / step_fs, "network": 0.0}
            rows.append({"kind": name, "step_fs": step_fs} | _row(integrator, states, reference, gradients))
    for name, model in _maps(args).items():
        rows.append(
            {"kind": model.kind, "stages": model.stages, "step_fs": model.step_fs, "file": name}
            | {"updates": model.report.get("updates", math.nan)}
            | _row(model, states, reference, _gradients(model))
        )
        print(f"{name}: {rows[-1]['error_percent']:.3g} %", flush=True)
    return {"": rows}


def _starts(count: int) -> PhaseState:
    """Frames of different stretches at 500 K as one batch."""
    stretches = [s for s in al.ReferenceSet.open(ROOT / "data" / "cuau") if s.temperature_K == 500.0]
    frames = [stretches[k % len(stretches)].state(11 * (k // len(stretches))) for k in range(count)]
    return PhaseState.batch(frames)


def _maps(args: argparse.Namespace) -> dict[str, Any]:
    """Maps by file name, those whose steps fit into the span."""
    found = alloy_models(args)
    if args.quick:
        found = {name: path for name, path in found.items() if name == "cuau-discrete-24fs.pt"}
    models = {name: al.load(path) for name, path in found.items()}
    return {name: model for name, model in models.items() if SPAN_FS % model.step_fs == 0}


def _gradients(model: Any) -> dict[str, float]:
    """Evaluations a picosecond; those of a solver are counted in the run (nan here)."""
    per_ps = 1e3 / model.step_fs
    network = math.nan if model.kind == "midpoint" else model.stages * per_ps
    return {"base": model.stages * per_ps if model.kind == "corrected" else 0.0, "network": network}


@torch.no_grad()
def _after(step: Any, states: PhaseState) -> tuple[PhaseState, float]:
    """The states after the span, and the CPU time of the second half of it, ms a picosecond and system."""
    n = round(SPAN_FS / step.step_fs)
    states = step.step(states, n - n // 2)
    started = time.process_time()
    states = step.step(states, n // 2) if n > 1 else states
    spent = time.process_time() - started
    simulated_ps = 1e-3 * max(n // 2, 1) * step.step_fs * states.n_systems
    return states, 1e3 * spent / simulated_ps


def _row(step: Any, states: PhaseState, reference: PhaseState, gradients: dict[str, float]) -> Row:
    solver = getattr(step, "statistics", None)
    if solver is not None:
        solver.reset()
    try:
        end, cpu = _after(step, states)
    except (ActionlearnError, ArithmeticError) as problem:
        return {"error_percent": math.nan, "lost": type(problem).__name__}
    if math.isnan(gradients["network"]):
        gradients = gradients | {"network": solver.evaluations_per_solve * 1e3 / step.step_fs}
    root = states.masses.sqrt().unsqueeze(1)
    miss = ((end.momenta - reference.momenta) / root).square().sum()
    moved = ((reference.momenta - states.momenta) / root).square().sum()
    return {
        "error_percent": 100 * float((miss / moved).sqrt()),
        "base_gradients_per_ps": gradients["base"],
        "network_gradients_per_ps": gradients["network"],
        "cpu_ms_per_ps": cpu,
        "lost": "no",
    }


def draw(tables: Tables, canvas: Canvas) -> None:
    rows = [row for row in tables[""] if 0.0 < row["error_percent"] < 150.0]
    with canvas(2, width=5.4, height=4.2) as axes:
        for ax, name, label in zip(
            axes, ("gradients", "cpu"), ("gradients a picosecond", "CPU time, ms a picosecond"), strict=True
        ):
            _panel(ax, rows, name)
            ax.set(xscale="log", yscale="log", xlabel=label, ylabel="error of the momenta after 96 fs, %")
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter("")
            ax.set_xlim(right=2.0 * ax.get_xlim()[1])
        handles, names = ax.get_legend_handles_labels()
        learned = [k for k, name in enumerate(names) if name not in BASE_SCHEMES]
        ax.legend([handles[k] for k in learned], [names[k] for k in learned])
        axes[0].set_title("Per gradient, whichever it is of")
        axes[1].set_title("On this machine, cheap base forces")


def _panel(ax, rows: list[Row], name: str) -> None:
    for kind in dict.fromkeys(row["kind"] for row in rows):
        part = chosen(rows, kind=kind)
        x = column(part, "cpu_ms_per_ps")
        if name == "gradients":
            x = column(part, "base_gradients_per_ps").clip(column(part, "network_gradients_per_ps"))
        y, ink = column(part, "error_percent"), INKS[kind]
        scheme = kind in BASE_SCHEMES
        ax.plot(x, y, color=ink, marker="." if scheme else "o", linestyle="-" if scheme else "none", label=kind)
        if scheme:
            place = {"McLachlan 4": (4, 6), "Blanes-Moan 4": (4, -9)}.get(kind, (4, 0))
            ax.annotate(kind, (x[0], y[0]), xytext=place, textcoords="offset points", color=ink, fontsize=7)
            continue
        last = math.inf
        for row, xk, yk in sorted(zip(part, x, y, strict=True), key=lambda found: -found[2]):
            last = min(math.log(yk), last - 0.35)  # labels one below the other where points are close
            words = f"s={row['stages']:.0f}, {row['step_fs']:g} fs"
            ax.annotate(words, (xk, math.exp(last)), xytext=(6, -2), textcoords="offset points", color=ink, fontsize=7)


def main(argv: list[str] | None = None) -> Tables:
    return make(__file__, __doc__ or "", compute, draw, argv)


if __name__ == "__main__":
    main()
