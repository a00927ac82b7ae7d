"""The demonstration: reference dynamics of an alloy, and which integrators keep the structure of mechanics."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from actionlearn import systems
from actionlearn.pictures import COLOURS, GREY, label_ends, picture
from actionlearn.potentials.protocol import Potential
from actionlearn.reference import ReferenceSet, sample
from actionlearn.schemes import Verlet
from actionlearn.state import PhaseState
from actionlearn.structure import (
    Measured,
    Step,
    energy_drift,
    estimate_symplectic_defect,
    momentum_drift,
    reversal_error,
)
from actionlearn.units import FEMTOSECOND

STRUCTURE = "cuau108"
POTENTIAL = "metals"
TEMPERATURES_K = (300.0, 700.0)
VERLET_STEPS_FS = (2.0, 8.0, 16.0, 24.0, 28.0)
STRETCHES = 2
FRAMES = 61
THERMOSTAT_PS = 1.0
LENGTH_PS = 4.0


@dataclasses.dataclass(frozen=True)
class EnergyRun:
    """Total energy along a run, meV per atom above its start; it ends early where the run explodes."""

    step_fs: float
    times_ps: np.ndarray
    energies: np.ndarray

    @property
    def exploded(self) -> bool:
        """Whether the energy left the picture for good."""
        return bool(self.times_ps[-1] < LENGTH_PS - 1e-6 * self.step_fs - self.step_fs / 1000.0)

    @property
    def rms(self) -> float:
        """Fluctuation, meV per atom."""
        return float(self.energies.std())

    @property
    def drift(self) -> Measured:
        """Slope of the energy per atom, meV/atom/ps."""
        return energy_drift(1000.0 * self.times_ps, self.energies / 1000.0, n_atoms=1)

    @property
    def steady(self) -> bool:
        """Whether the drift is, within its error, below a tenth of a meV/atom/ps."""
        return not self.exploded and abs(self.drift.value) < 0.1 + 2.0 * self.drift.error


@dataclasses.dataclass(frozen=True)
class Structure:
    """What the measures of structure say about an integrator."""

    name: str
    symplectic_defect: float
    reversal_error: float
    momentum_drift: float

    @property
    def sound(self) -> bool:
        """Symplectic and reversible as well as rounding and error growth allow."""
        return self.symplectic_defect < 1e-9 and self.reversal_error < 1e-9


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


def energy_run(potential: Potential, state: PhaseState, step_fs: float) -> EnergyRun:
    """Verlet for `LENGTH_PS`, or until the energy has risen by half an eV per atom."""
    step = Verlet(potential, step_fs=step_fs)
    start = float(state.kinetic_energy() + potential.energy(state))
    energies = [0.0]
    for _ in range(round(1000.0 * LENGTH_PS / step_fs)):
        state = step(state).detach()
        energy = float(state.kinetic_energy() + potential.energy(state))
        energies.append(1000.0 * (energy - start) / state.n_atoms)
        if not abs(energies[-1]) < 500.0:
            break
    return EnergyRun(step_fs, np.arange(len(energies)) * step_fs / 1000.0, np.array(energies))


def measure(name: str, step: Step, state: PhaseState) -> Structure:
    """All measures of one integrator."""
    return Structure(
        name,
        estimate_symplectic_defect(step, state, directions=6),
        reversal_error(step, state, n=10),
        momentum_drift(step, state, n=10),
    )


def run(output: Path, *, seed: int, processes: int) -> str:
    """Sample, measure, draw; returns the report."""
    found = sample(
        STRUCTURE,
        POTENTIAL,
        output / "reference",
        temperatures_K=TEMPERATURES_K,
        step_fs=2.0,
        stretches=STRETCHES,
        frames=FRAMES,
        record_every=4,
        equilibrate_ps=THERMOSTAT_PS,
        seed=seed,
        processes=processes,
        progress=True,
    )
    atoms = systems.structure(STRUCTURE)
    potential = systems.potential(POTENTIAL, atoms)
    state = found[-1].state(0)
    energies = [energy_run(potential, state, step_fs) for step_fs in VERLET_STEPS_FS]
    structures = [
        measure("Verlet, 2 fs", Verlet(potential, step_fs=2.0), state),
        measure("Verlet, 16 fs", Verlet(potential, step_fs=16.0), state),
        measure("Verlet rescaled, 2 fs", rescaled_verlet(potential, state, 2.0), state),
        measure("explicit Euler, 2 fs", explicit_euler(potential, 2.0), state),
    ]
    draw(output / "demo.png", energies, structures)
    return report(found, energies, structures, output / "demo.png")


def report(found: ReferenceSet, energies: list[EnergyRun], structures: list[Structure], path: Path) -> str:
    """Tables and a verdict with its reasons."""
    hottest = f"{max(found.temperatures_K):g} K"
    lines = [f"{STRUCTURE}, {found[0].system.n_atoms} atoms, {POTENTIAL} potential", ""]
    lines += [f"Verlet over {LENGTH_PS:g} ps from {hottest}"]
    lines += [f"{'step fs':>8}{'rms meV/atom':>14}{'drift meV/atom/ps':>20}"]
    lines += [
        f"{r.step_fs:8g}"
        + (f"{'explodes':>14}" if r.exploded else f"{r.rms:14.4f}{r.drift.value:+12.3f} ± {r.drift.error:.3f}")
        for r in energies
    ]
    lines += ["", f"{'integrator':24}{'symplectic defect':>18}{'reversal Å':>12}{'momentum drift':>16}"]
    lines += [
        f"{s.name:24}{s.symplectic_defect:18.1e}{s.reversal_error:12.1e}{s.momentum_drift:16.1e}"
        f"  {'keeps the structure' if s.sound else 'breaks it'}"
        for s in structures
    ]
    right = [s.sound for s in structures] == [True, True, False, False]
    quiet = not found.warnings and energies[0].rms < 0.02
    longest = max((r.step_fs for r in energies if r.steady), default=0.0)
    lines += [
        "",
        f"picture: {path}",
        f"VERDICT: {'good' if right and quiet else 'NOT AS EXPECTED'}. "
        f"The reference at 2 fs {'conserves' if quiet else 'does NOT conserve'} energy, the measures "
        f"{'tell' if right else 'do NOT tell'} right integrators from wrong ones, and plain Verlet keeps its energy "
        f"up to {longest:g} fs: a learned step has to go beyond that.",
    ]
    return "\n".join(lines)


def draw(path: Path, energies: list[EnergyRun], structures: list[Structure]) -> None:
    """Energy against time for growing steps, and the two defects of each integrator."""
    with picture(path, panels=2) as (left, right):
        kept = np.concatenate([r.energies for r in energies if not r.exploded])
        bottom, top = kept.min() - 0.05 * np.ptp(kept), kept.max() + 0.6 * np.ptp(kept)
        labels = []
        for r, colour in zip(energies, COLOURS, strict=False):
            left.plot(r.times_ps, r.energies, color=colour, linewidth=1.2)
            end = min(float(r.energies[-1]), top)
            time = float(r.times_ps[np.argmax(np.abs(r.energies) >= top)]) if r.exploded else LENGTH_PS
            labels.append((time, end, f"{r.step_fs:g} fs{', explodes' if r.exploded else ''}", colour))
        left.set(
            xlim=(0, LENGTH_PS),
            ylim=(bottom, top),
            xlabel="time (ps)",
            ylabel="total energy − start (meV/atom)",
            title="Verlet: energy at growing steps",
        )
        label_ends(left, labels)

        rows = np.arange(len(structures))[::-1]  # from the top
        for shift, field, colour, marker, text in (
            (0.12, "symplectic_defect", COLOURS[0], "o", "symplectic defect"),
            (-0.12, "reversal_error", COLOURS[1], "s", "reversal error (Å)"),
        ):
            values = [max(getattr(s, field), 1e-17) for s in structures]
            right.plot(values, rows + shift, marker, color=colour, markersize=7)
            right.annotate(
                text,
                (values[0], rows[0] + shift),
                xytext=(8, 0),
                textcoords="offset points",
                color=colour,
                va="center",
            )
        right.axvline(1e-9, color=GREY, linewidth=1.0, linestyle="--")
        right.set_xscale("log")
        right.set(
            xlim=(1e-17, 1e2),
            ylim=(-0.6, len(structures) - 0.4),
            xlabel="defect (0 = exact; beyond the dashed line structure is broken)",
            title="Which integrators keep the structure",
        )
        right.set_yticks(rows, [s.name for s in structures])
