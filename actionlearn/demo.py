"""The demonstration: sample an alloy, learn its action, take long steps, and measure whether they can be trusted.

Everything is done as a user would do it, with a few seconds of molecular dynamics and a minute or two of training.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from actionlearn import checkpoint, systems
from actionlearn.dataset import Dataset, used_stretches
from actionlearn.maps.blueprint import Blueprint
from actionlearn.pictures import COLOURS, GREY, label_ends, picture
from actionlearn.potentials.protocol import Potential
from actionlearn.progress import Progress
from actionlearn.reference import ReferenceSet, sample
from actionlearn.schemes import Verlet
from actionlearn.settings import Report, Settings
from actionlearn.state import PhaseState
from actionlearn.structure import Step
from actionlearn.training import Trainer
from actionlearn.units import FEMTOSECOND
from actionlearn.validation import Limits, RollOut, Verdict, judge, roll_out
from actionlearn.validation.measure import at_temperature, one_step_errors, start_at, structure_of

POTENTIAL = "metals"
BASE_STEP_FS, LONG_STEP_FS = 2.0, 24.0
STEADY = 0.1
"""Drift, meV/atom/ps, below which a step of Verlet counts as keeping its energy."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much of everything."""

    structure: str = "cuau108"
    temperatures_K: tuple[float, ...] = (300.0, 700.0)
    stretches: int = 8
    frames: int = 61
    thermostat_ps: float = 1.0
    minutes: float | None = 1.5
    updates: int | None = None
    ps: float = 12.0
    verlet_steps_fs: tuple[float, ...] = (16.0, 24.0, 28.0)


FULL = Plan()
QUICK = Plan("cuau32", stretches=3, frames=31, thermostat_ps=0.3, minutes=None, updates=60, ps=2.4)
"""A smaller crystal, hardly trained: to see that everything works."""


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """All that the picture and the report are made of."""

    plan: Plan
    found: ReferenceSet
    training: Report
    one_step: dict[str, Any]
    structures: dict[str, dict[str, Any]]
    runs: list[dict[str, Any]]
    verlets: dict[float, RollOut]
    verdict: Verdict

    @property
    def hot(self) -> dict[str, Any]:
        """The runs at the highest temperature."""
        return self.runs[-1]

    @property
    def longest_steady_fs(self) -> float:
        """The longest step at which Verlet kept its energy."""
        return max([h for h, run in self.verlets.items() if _steady(run)], default=BASE_STEP_FS)


def run(output: Path, *, seed: int, processes: int, plan: Plan = FULL) -> str:
    """Sample, train, run, measure, draw; returns the report."""
    found = sample(
        plan.structure,
        POTENTIAL,
        output / "reference",
        temperatures_K=plan.temperatures_K,
        step_fs=BASE_STEP_FS,
        stretches=plan.stretches,
        frames=plan.frames,
        record_every=4,
        equilibrate_ps=plan.thermostat_ps,
        decorrelate_ps=0.3 * plan.thermostat_ps,
        seed=seed,
        processes=processes,
        progress=True,
    )
    base = systems.potential(POTENTIAL, systems.structure(plan.structure))
    model, training, test = _train(found, output / "model.pt", seed, plan)
    one_step = one_step_errors(model, test)
    temperatures_K = sorted(plan.temperatures_K)
    start, _ = start_at(base, test.stretches, temperatures_K[-1], seed)
    structures = {
        f"learned, {LONG_STEP_FS:g} fs": structure_of(model, start),
        f"Verlet, {LONG_STEP_FS:g} fs": structure_of(Verlet(base, step_fs=LONG_STEP_FS), start),
        "Verlet rescaled, 2 fs": structure_of(rescaled_verlet(base, start, 2.0), start),
        "explicit Euler, 2 fs": structure_of(explicit_euler(base, 2.0), start),
    }
    total = plan.ps * (2 * len(temperatures_K) + len(plan.verlet_steps_fs))
    with Progress("running", total) as bar:
        runs = [
            at_temperature(model, base, test.stretches, T, ps=plan.ps, seed=seed, advance=bar.advance)
            for T in temperatures_K
        ]
        verlets = {
            h: roll_out(Verlet(base, step_fs=h), base, start, ps=plan.ps, advance=bar.advance)
            for h in plan.verlet_steps_fs
        }
    verdict = judge(one_step, next(iter(structures.values())), runs)
    shown = Shown(plan, found, training, one_step, structures, runs, verlets, verdict)
    draw(output / "demo.png", shown)
    return report(shown, output)


def _train(found: ReferenceSet, path: Path, seed: int, plan: Plan) -> tuple[Any, Report, Dataset]:
    """A map of two kicks a step, what training did, and the stretches kept for measuring it."""
    data = Dataset(list(found), step_fs=LONG_STEP_FS)
    training, validation, test = data.split(seed, test=0.2)
    blueprint = Blueprint("discrete", data.species, data.masses, LONG_STEP_FS, 2, {"cutoff": 5.6})
    settings = Settings(
        minutes=plan.minutes, updates=plan.updates, batch_atoms=216, averaging=60, validations=10, seed=seed
    )
    trainer = Trainer(blueprint, training, validation, settings)
    report = trainer.run(progress=True)
    used = used_stretches(training=training, validation=validation, test=test)
    checkpoint.save(trainer.average, path, {**used, "curve": report.curve})
    return checkpoint.load(path), report, test


# --- integrators that are wrong -------------------------------------------------------------------


def explicit_euler(potential: Potential, step_fs: float) -> Step:
    """Drift and kick both taken from the start of the step: neither symplectic nor reversible."""
    h = step_fs * FEMTOSECOND

    def step(state: PhaseState) -> PhaseState:
        return state.moved(state.drift(h).positions, state.kick(h * potential.forces(state)).momenta)

    return step


def rescaled_verlet(potential: Potential, start: PhaseState, step_fs: float) -> Step:
    """Verlet, then momenta rescaled to the energy of the start: conserves energy exactly and is not symplectic."""
    verlet = Verlet(potential, step_fs=step_fs)
    total = (start.kinetic_energy() + potential.energy(start)).detach()

    def step(state: PhaseState) -> PhaseState:
        new = verlet(state)
        scale = ((total - potential.energy(new)) / new.kinetic_energy()).sqrt()
        return new.moved(new.positions, new.momenta * scale)

    return step


def _sound(structure: dict[str, Any]) -> bool:
    limits = Limits()
    return bool(structure["symplectic_defect"] < limits.symplectic and structure["reversal_error_A"] < limits.reversal)


def _steady(run: RollOut) -> bool:
    if run.failure is not None:
        return False
    drift = run.drift
    return abs(drift.value) + 2.0 * drift.error < STEADY


# --- what is shown --------------------------------------------------------------------------------


def report(shown: Shown, output: Path) -> str:
    """Tables and a verdict with its reasons."""
    plan, hot = shown.plan, shown.hot
    recorded = sum(float(s.times_fs[-1]) for s in shown.found) / 1000.0
    atoms = shown.found[0].system.n_atoms
    step = shown.one_step
    lines = [
        f"{plan.structure}: {atoms} atoms, {recorded:.3g} ps of reference, {shown.training.updates} updates "
        f"in {shown.training.seconds / 60.0:.1f} min",
        f"error of one step of {LONG_STEP_FS:g} fs on stretches it never saw: dq {100 * step['position']:.2g} %, "
        f"dp {100 * step['momentum']:.2g} %",
        "",
        f"runs of {plan.ps:g} ps".ljust(24) + f"{'drift meV/atom/ps':>20}{'fluctuation':>13}   temperatures K",
    ]
    for row in shown.runs:
        T = f"{row['temperature_K']:g} K"
        lines += [_line(f"{T}, learned, {LONG_STEP_FS:g} fs", row)]
        lines += [_line(f"{T}, Verlet, {BASE_STEP_FS:g} fs", row["reference"])]
    lines += [_line(f"{T}, Verlet, {h:g} fs", _numbers(run)) for h, run in shown.verlets.items()]
    lines += ["", f"{'integrator':24}{'symplectic defect':>18}{'reversal Å':>12}{'momentum drift':>16}"]
    lines += [
        f"{name:24}{s['symplectic_defect']:18.1e}{s['reversal_error_A']:12.1e}{s['momentum_drift']:16.1e}"
        f"  {'keeps the structure' if _sound(s) else 'breaks it'}"
        for name, s in shown.structures.items()
    ]
    told = [_sound(s) for s in shown.structures.values()] == [True, True, False, False]
    breakeven = hot["ms_per_step"] * shown.longest_steady_fs / LONG_STEP_FS
    lines += [
        "",
        f"picture: {output / 'demo.png'}, model: {output / 'model.pt'}",
        f"VERDICT: {shown.verdict.text}. "
        f"The measures {'tell' if told else 'do NOT tell'} right integrators from wrong ones; "
        f"Verlet keeps its energy up to {shown.longest_steady_fs:g} fs.",
        f"A learned step took {hot['ms_per_step']:.0f} ms here, so it saves time on base potentials slower than "
        f"{breakeven:.0f} ms a call (this one is quicker: {hot['reference']['ms_per_step']:.1f} ms).",
    ]
    return "\n".join([*lines, *(f"  - {reason}" for reason in shown.verdict.reasons)])


def _numbers(run: RollOut) -> dict[str, Any]:
    if run.failure is not None:
        return {"failure": run.failure, "ps": float(run.times_ps[-1])}
    shares, drift = run.shares, run.drift
    return {
        "failure": None,
        "drift": drift.value,
        "drift_error": drift.error,
        "fluctuation": run.fluctuation_meV,
        "species": shares.groups,
        "temperatures_K": shares.temperatures_K,
        "temperature_errors_K": shares.errors_K,
    }


def _line(name: str, row: dict[str, Any]) -> str:
    if row["failure"] is not None:
        return f"{name:24}{'explodes':>20}   after {row['ps']:.2g} ps"
    shares = zip(row["species"], row["temperatures_K"], row["temperature_errors_K"], strict=True)
    text = ", ".join(f"{symbol} {T:.0f} ± {error:.0f}" for symbol, T, error in shares)
    return f"{name:24}{row['drift']:+12.3f} ± {row['drift_error']:.3f}{row['fluctuation']:13.3f}   {text}"


def draw(path: Path, shown: Shown) -> None:
    """Energy along all runs; the defects of each integrator; how the error of one step fell in training."""
    with picture(path, panels=3, width=4.9, height=3.7) as (left, middle, right):
        _draw_energies(left, shown)
        _draw_structures(middle, shown.structures)
        _draw_learning(right, shown)


def _draw_energies(axes: Axes, shown: Shown) -> None:
    series, ps = shown.hot["series"], shown.plan.ps
    reference = np.array(series["reference_energies"])
    runs = [(np.arange(len(reference)) * LONG_STEP_FS / 1000.0, reference, f"Verlet {BASE_STEP_FS:g} fs", "black")]
    for (h, run), colour in zip(shown.verlets.items(), (COLOURS[2], COLOURS[4], COLOURS[1]), strict=False):
        runs.append((run.times_ps, run.per_atom_meV, f"Verlet {h:g} fs", colour))
    learned = (np.array(series["times_ps"]), np.array(series["energies"]), f"learned {LONG_STEP_FS:g} fs", COLOURS[0])
    bottom, top = -2.5, 10.0
    labels = []
    for times, energies, name, colour in [*runs, learned]:
        axes.plot(times, energies, color=colour, linewidth=1.4 if name.startswith("learned") else 0.9)
        early = times[-1] < 0.99 * ps
        over = np.abs(energies) > top
        end = float(np.clip(energies[-max(len(energies) // 20, 1) :].mean(), bottom, top))
        time = float(times[np.flatnonzero(~over)[-1]]) if early else float(times[-1])
        labels.append((time, top if early else end, f"{name}{', explodes' if early else ''}", colour))
    axes.set(
        xlim=(0, ps),
        ylim=(bottom, top),
        xlabel="time (ps)",
        ylabel="total energy − start (meV/atom)",
        title=f"Energy of CuAu from {max(shown.plan.temperatures_K):g} K",
    )
    label_ends(axes, labels)


def _draw_structures(axes: Axes, structures: dict[str, dict[str, Any]]) -> None:
    rows = np.arange(len(structures))[::-1]  # from the top
    for shift, field, colour, marker, text in (
        (0.12, "symplectic_defect", COLOURS[0], "o", "symplectic defect"),
        (-0.12, "reversal_error_A", COLOURS[1], "s", "reversal error (Å)"),
    ):
        values = [max(s[field], 1e-17) for s in structures.values()]
        axes.plot(values, rows + shift, marker, color=colour, markersize=7)
        place = (values[0], rows[0] + shift)
        axes.annotate(text, place, xytext=(8, 0), textcoords="offset points", color=colour, va="center", fontsize=9)
    axes.axvline(Limits().symplectic, color=GREY, linewidth=1.0, linestyle="--")
    axes.set_xscale("log")
    axes.set(
        xlim=(1e-17, 1e2),
        ylim=(-0.6, len(structures) - 0.4),
        xlabel="defect (0 = exact; right of the line: broken)",
        title="Which steps keep the structure",
    )
    axes.set_yticks(rows, list(structures))


def _draw_learning(axes: Axes, shown: Shown) -> None:
    curve = shown.training.curve
    seconds = [point["seconds"] for point in curve]
    for field, name, colour in (("momentum_error", "momenta", COLOURS[0]), ("position_error", "positions", COLOURS[1])):
        errors = [100.0 * point[field] for point in curve]
        axes.plot(seconds, errors, marker="o", markersize=4, color=colour)
        place = (seconds[len(seconds) // 2], errors[len(seconds) // 2])
        axes.annotate(
            f"{name}: {errors[-1]:.2g} % at the end", place, xytext=(6, 8), textcoords="offset points", color=colour
        )
    axes.set_yscale("log")
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which(lambda value, _: f"{value:g}")
    axes.set(
        xlim=(0, None),
        xlabel="training (s)",
        ylabel=f"error of one {LONG_STEP_FS:g} fs step (%)",
        title="Learned, on stretches held out",
    )
