"""Errors and drift where a map was not trained: other temperatures, other compositions of the alloy.

    python paper_figures/transfer.py [--quick] [--redraw]

Everything is made here. Temperatures: a map trained on the 300 and 700 K stretches of `data/cuau` (108 atoms), tested
at 300, 500, 700 and 900 K on stretches it has not seen. Compositions: a map trained on 32-atom crystals with 25, 50
and 75 % gold at 300 and 600 K, tested on these (other arrangements, other trajectories) and on 37.5 and 87.5 %, one
between and one beyond. Both maps: discrete, s = 2, 24 fs. Drift is that of the base potential's energy.
"""

from __future__ import annotations

import argparse
import math

import ase
import numpy as np
from ase.build import bulk
from ase.data import chemical_symbols
from ground.figure import QUICK, ROOT, Canvas, Row, Tables, chosen, column, make

import actionlearn as al
from actionlearn import systems
from actionlearn.dataset import Dataset
from actionlearn.losses import step_errors
from actionlearn.maps.blueprint import Blueprint
from actionlearn.pictures import COLOURS, GREY
from actionlearn.potentials import SecondMomentMetals
from actionlearn.reference import Stretch
from actionlearn.settings import Settings
from actionlearn.training import Trainer
from actionlearn.validation.rollout import roll_out

STEP_FS = 24.0
TRAINED_K, TESTED_K = (300.0, 700.0), (300.0, 500.0, 700.0, 900.0)
TRAINED_GOLD, TESTED_GOLD = (0.25, 0.5, 0.75), (0.25, 0.375, 0.5, 0.75, 0.875)
CRYSTALS_K = (300.0, 600.0)
SPECIES, MASSES = (29, 79), {29: 63.546, 79: 196.96657}


def compute(args: argparse.Namespace) -> Tables:
    temperatures = _by_temperature(args.quick)
    return {"": [*temperatures, *_by_composition(args.quick)]}


def _by_temperature(quick: bool) -> list[Row]:
    stretches = Dataset.open(ROOT / "data" / "cuau", step_fs=STEP_FS).stretches
    kept = [s for T in TRAINED_K for s in [s for s in stretches if s.temperature_K == T][1:]]  # the first is for tests
    model = _trained(kept, quick, "temperatures")
    rows = []
    for T in TESTED_K[: 2 if quick else None]:
        unseen = [s for s in stretches if s.temperature_K == T and s not in kept]
        rows.append({"axis": "temperature_K", "at": T, "trained": T in TRAINED_K, **_measured(model, unseen, quick)})
    return rows


def _by_composition(quick: bool) -> list[Row]:
    kept = [s for gold in TRAINED_GOLD for s in _crystals(gold, 0, quick)]
    model = _trained(kept, quick, "compositions")
    rows = []
    for gold in TESTED_GOLD[:2] if quick else TESTED_GOLD:
        unseen = _crystals(gold, 1, quick)
        row = {"axis": "gold_percent", "at": 100 * gold, "trained": gold in TRAINED_GOLD}
        rows.append({**row, **_measured(model, unseen, quick)})
    return rows


def _crystals(gold: float, seed: int, quick: bool) -> list[Stretch]:
    """Stretches of a random 32-atom crystal, at a lattice constant between those of the elements."""
    folder = QUICK / ("transfer-quick" if quick else "transfer") / f"gold-{1000 * gold:.0f}-{seed}"
    a = (1 - gold) * systems.LATTICE_CONSTANTS["Cu"] + gold * systems.LATTICE_CONSTANTS["Au"]
    cell = bulk("Cu", "fcc", a=a, cubic=True) * 2
    symbols = np.array(["Cu"] * len(cell))
    symbols[np.random.default_rng(seed).permutation(len(cell))[: round(gold * len(cell))]] = "Au"
    atoms = ase.Atoms(symbols.tolist(), positions=cell.positions, cell=cell.cell, pbc=True)
    found = al.sample(
        atoms,
        "metals",
        folder,
        temperatures_K=CRYSTALS_K[:1] if quick else CRYSTALS_K,
        step_fs=2.0,
        record_every=4,
        stretches=1 if quick else (6 if seed == 0 else 2),
        frames=16 if quick else 101,
        chains=1,
        equilibrate_ps=0.1 if quick else 2.0,
        seed=seed,
    )
    return list(found)


def _trained(stretches: list[Stretch], quick: bool, name: str) -> al.DiscreteAction:
    """A map trained on all of these, for the table counts on stretches of their own; in quick mode the shipped one."""
    if quick:
        return al.load(ROOT / "data" / "models" / "cuau-discrete-24fs.pt")
    blueprint = Blueprint("discrete", SPECIES, MASSES, STEP_FS, 2, {"cutoff": 5.6})
    data = Dataset(stretches, step_fs=STEP_FS)
    trainer = Trainer(blueprint, data, data.resized(2), Settings(minutes=None, updates=1000))
    report = trainer.run(progress=True)
    print(f"trained for {name}: dp {100 * report.errors.momentum:.2f} % on the training set", flush=True)
    return trainer.average


def _measured(model: al.DiscreteAction, stretches: list[Stretch], quick: bool) -> Row:
    """One-step errors on stretches, and a run from the middle of the first."""
    errors = step_errors(model, Dataset(stretches, step_fs=STEP_FS), windows=4 if quick else 64)
    start = stretches[0].state(len(stretches[0]) // 2)
    run = roll_out(model, SecondMomentMetals(), start, ps=3.0 if quick else 30.0, interval_fs=STEP_FS)
    row = {"atoms": start.n_atoms, "dq_error_percent": 100 * errors.position, "dp_error_percent": 100 * errors.momentum}
    drift, error = (math.nan, math.nan) if run.failure else run.drift
    row |= {"drift_meV_per_atom_per_ps": drift, "drift_error": error, "length_ps": run.times_ps[-1]}
    if not run.failure:
        for z, T, e in zip((29, 79), run.shares.temperatures_K, run.shares.errors_K, strict=True):
            row |= {f"T_{chemical_symbols[z]}_K": T, f"T_{chemical_symbols[z]}_error": e}
    return row | {"lost": run.failure or "no"}


def draw(tables: Tables, canvas: Canvas) -> None:
    rows = tables[""]
    with canvas(2, rows=2, width=4.4, height=2.9) as axes:
        for k, (axis, label) in enumerate((("temperature_K", "temperature, K"), ("gold_percent", "gold, atom-%"))):
            part = chosen(rows, axis=axis)
            _panel(axes[k], part, "dp_error_percent", None, label, "error of one step in Δp, %")
            _panel(axes[2 + k], part, "drift_meV_per_atom_per_ps", "drift_error", label, "drift, meV/atom/ps")
            axes[k].set_ylim(0.0, 1.15 * column(part, "dp_error_percent").max())
            axes[2 + k].axhline(0.0, color=GREY, linewidth=0.8)
        axes[0].set_title("Trained at 300 and 700 K")
        axes[1].set_title("Trained at 25, 50 and 75 % gold")


def _panel(ax, rows: list[Row], name: str, error: str | None, xlabel: str, ylabel: str) -> None:
    if error is None:
        ax.plot(column(rows, "at"), column(rows, name), color=GREY, linewidth=0.8)
    for trained, ink, marker, text in (("True", COLOURS[0], "o", "trained here"), ("False", COLOURS[1], "D", "not")):
        part = chosen(rows, trained=trained)
        if part:
            spread = column(part, error) if error else None
            ax.errorbar(column(part, "at"), column(part, name), spread, color=ink, marker=marker, ls="none", label=text)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if error is None:
        ax.legend()


def main(argv: list[str] | None = None) -> Tables:
    return make(__file__, __doc__ or "", compute, draw, argv)


if __name__ == "__main__":
    main()
