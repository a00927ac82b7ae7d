"""Vibrational and infrared spectra from runs in long steps, over those of the base potential in short ones.

    python paper_figures/spectra.py [--quick] [--models DIR] [--redraw]

Ethanol on GFN2-xTB: 10 molecules from the same thermal starts at 300 K, microcanonical, velocity Verlet at 0.5 fs and
the learned map at 4 fs, all recorded every 4 fs (Nyquist limit 4170 cm⁻¹); dipoles are GFN2's at every frame. Alloy:
velocity Verlet at 2 fs and the learned map at 24 fs, recorded every 24 fs (limit 695 cm⁻¹). Water: as ethanol, with
the point charges of SPC/Fw and Verlet at 0.25 fs, for at 0.5 fs the O-H stretch is some 16 cm⁻¹ too high. A band is
the mean of the density between two wavenumbers; its error is the scatter of the difference between paired molecules
(ethanol), of parts of the run (alloy, water).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ground import cast, runs
from ground.figure import ROOT, Canvas, Row, Tables, chosen, column, find_model, make

import actionlearn as al
from actionlearn import systems
from actionlearn.analysis import Trajectory, dipoles, infrared_spectrum, velocity_spectrum
from actionlearn.files import sha256
from actionlearn.pictures import COLOURS, GREY
from actionlearn.state import PhaseState

REFERENCE = "reference"


@dataclasses.dataclass(frozen=True)
class Case:
    """A system, the maps to be looked at, and where its bands lie, cm⁻¹."""

    name: str
    structure: tuple[str, str]  # in full and in quick mode
    title: str
    base: Callable[[], Any]
    start: Callable[[Any, bool], PhaseState]
    step_fs: float
    small_fs: float
    ps: float
    models: tuple[str, ...]
    bands: dict[str, tuple[float, float]]
    dipole: Callable[[Any], Any] | None = None


CASES = (
    Case(
        "ethanol",
        ("ethanol", "ethanol"),
        "Ethanol, GFN2-xTB, h = 4 fs",
        lambda: systems.potential("gfn2-xtb", systems.structure("ethanol")),
        lambda base, quick: cast.thermal("ethanol", base, *((1, 300.0, 0.5, 0.01) if quick else (10, 300.0, 0.5, 1.0))),
        4.0,
        0.5,
        5.0,
        ("ethanol-gfn2-discrete-4fs.pt",),
        {
            "skeleton": (700.0, 1200.0),
            "bend": (1200.0, 1650.0),
            "C-H stretch": (2700.0, 3250.0),
            "O-H stretch": (3350.0, 3900.0),
        },
        lambda base: base.dipole,
    ),
    Case(
        "alloy",
        ("cuau108", "cuau32"),
        "CuAu alloy, 108 atoms, h = 24 fs",
        lambda: systems.potential("metals", systems.structure("cuau108")),
        lambda base, quick: cast.small_crystal(500.0) if quick else cast.recorded(ROOT / "data" / "cuau", 500.0, 0),
        24.0,
        2.0,
        60.0,
        ("cuau-discrete-24fs.pt",),
        {"all": (0.0, 500.0)},
    ),
    Case(
        "water",
        ("water64", "water8"),
        "SPC/Fw water, 64 molecules, h = 4 fs",
        lambda: al.potentials.SPCFw(),
        lambda base, quick: cast.thermal("water8" if quick else "water64", base, 1, 300.0, 0.5, 0.01 if quick else 2.0),
        4.0,
        0.25,
        16.0,
        ("water-corrected-4fs.pt", "water-discrete-4fs.pt"),
        {"libration": (200.0, 1100.0), "bend": (1200.0, 2000.0), "stretch": (3200.0, 4100.0)},
        lambda base: base.dipole,
    ),
)


def compute(args: argparse.Namespace) -> Tables:
    bands, spectra = [], []
    for case in CASES[1:2] if args.quick else CASES:
        model_path = next((p for p in (find_model(args, file) for file in case.models) if p), None)
        if model_path is None:
            print(f"{case.name}: left out, no {' or '.join(case.models)}", flush=True)
            continue
        try:
            base = case.base()
        except al.errors.ActionlearnError as problem:
            print(f"{case.name}: left out, {problem}", flush=True)
            continue
        found = {REFERENCE: _run(case, base, None, args.quick), "map": _run(case, base, model_path, args.quick)}
        for measure in ("velocity", "infrared") if case.dipole else ("velocity",):
            parts = {who: _parts(case, base, run, measure, args.quick) for who, run in found.items()}
            bands += _bands(case, measure, parts)
            spectra += _curves(case, measure, parts)
    return {"": bands, "spectra": spectra}


def _run(case: Case, base: Any, model_path: Any, quick: bool) -> runs.Run:
    """Of all starts at once, a frame every long step."""
    ps = 2.0 if quick else case.ps
    steps = round(1e3 * ps / case.step_fs)
    every = round(case.step_fs / case.small_fs)
    origin = model_path and sha256(model_path)
    key = f"spectra {case.name} {ps} {case.step_fs} {case.small_fs} {origin}"

    def make_it() -> runs.Run:
        start = case.start(base, quick)
        if model_path is None:
            verlet = al.Verlet(base, step_fs=case.small_fs)
            return runs.record(verlet, start, base, steps=steps * every, every=every, gradients=1.0)
        model = al.load(model_path)
        model = al.load(model_path, base=base) if model.kind == "corrected" else model
        return runs.record(model, start, base, steps=steps, every=1, gradients=float(model.stages))

    run = runs.kept(key, make_it)
    print(
        f"{case.name}: {model_path.name if model_path else 'Verlet'}, {len(run.times_fs)} frames {run.lost}", flush=True
    )
    return run


def _parts(case: Case, base: Any, run: runs.Run, measure: str, quick: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """A spectrum of every molecule, or of six parts of a run of one system: axis and density."""
    system = PhaseState.from_atoms(systems.structure(case.structure[quick]))
    frames = len(run.times_fs)
    if run.positions.shape[1] > 1:
        pieces = [(k, slice(0, frames)) for k in range(run.positions.shape[1])]
    else:
        length = frames // (2 if quick else 6)
        pieces = [(0, slice(n * length, (n + 1) * length)) for n in range(frames // length)]
    found = []
    for which, span in pieces:
        trajectory = Trajectory(run.positions[span, which], run.momenta[span, which], case.step_fs, system)
        if measure == "velocity":
            spectrum = velocity_spectrum(trajectory, blocks=5)
            found.append((spectrum.per_cm, spectrum.density))
        else:
            moments = dipoles(trajectory, case.dipole(base)) if case.dipole else np.zeros((0, 3))
            absorbed = infrared_spectrum(moments, case.step_fs, blocks=5)
            found.append((absorbed.per_cm, absorbed.absorption))
    return found


def _bands(case: Case, measure: str, parts: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> list[Row]:
    rows = []
    for band, limits in case.bands.items():
        reference, other = (np.array([_mean(part, limits) for part in parts[who]]) for who in (REFERENCE, "map"))
        difference = other - reference
        rows.append(
            {
                "system": case.name,
                "spectrum": measure,
                "band": band,
                "reference_per_cm": reference.mean(),
                "map_per_cm": other.mean(),
                "difference_per_cm": difference.mean(),
                "error_per_cm": difference.std(ddof=1) / np.sqrt(len(difference)),
            }
        )
        print("{system} {spectrum} {band}: {difference_per_cm:+.1f} ± {error_per_cm:.1f} cm⁻¹".format(**rows[-1]))
    return rows


def _mean(part: tuple[np.ndarray, np.ndarray], limits: Sequence[float]) -> float:
    nu, density = part
    inside = (nu >= limits[0]) & (nu <= limits[1])
    return float((nu[inside] * density[inside]).sum() / density[inside].sum())


def _curves(case: Case, measure: str, parts: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> list[Row]:
    rows = []
    for who, found in parts.items():
        nu = found[0][0]
        density = np.stack([part[1] for part in found])
        error = density.std(0, ddof=1) / np.sqrt(len(density))
        for k in range(len(nu)):
            rows.append(
                {"system": case.name, "spectrum": measure, "of": who, "per_cm": nu[k]}
                | {"density": density[:, k].mean(), "error": error[k]}
            )
    return rows


def draw(tables: Tables, canvas: Canvas) -> None:
    panels = list(dict.fromkeys((row["system"], row["spectrum"]) for row in tables["spectra"]))
    titles = {case.name: case.title for case in CASES}
    with canvas(min(2, len(panels)), rows=(len(panels) + 1) // 2, width=5.2, height=3.0) as axes:
        for ax, (system, measure) in zip(axes, panels, strict=False):
            for who, ink in ((REFERENCE, GREY), ("map", COLOURS[0])):
                rows = chosen(tables["spectra"], system=system, spectrum=measure, of=who)
                nu, density, error = (column(rows, name) for name in ("per_cm", "density", "error"))
                ax.fill_between(
                    nu, 1e3 * (density - error), 1e3 * (density + error), color=ink, alpha=0.25, linewidth=0
                )
                label = "base potential, short steps" if who == REFERENCE else "learned map, long steps"
                ax.plot(nu, 1e3 * density, color=ink, linewidth=1.2, label=label)
            kind = "infrared absorption" if measure == "infrared" else "velocity spectrum"
            ax.set(
                title=titles[system],
                xlabel="wavenumber, cm⁻¹ (axis ends at the Nyquist limit)",
                ylabel=f"{kind}, 10⁻³ cm",
            )
            ax.set_xlim(0, nu[-1])
            ax.set_ylim(bottom=0)
        axes[0].legend()
        for ax in axes[len(panels) :]:
            ax.remove()


def main(argv: list[str] | None = None) -> Tables:
    return make(__file__, __doc__ or "", compute, draw, argv)


if __name__ == "__main__":
    main()
