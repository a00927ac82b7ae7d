"""From a base potential to a validated long-step map: what every recipe of this folder does with its own numbers.

A recipe is data; `main` runs the three commands that a user would type, `actionlearn sample`, `train` and `validate`,
then weighs the long step against velocity Verlet on the base potential and writes one row, `result.json`. Every command
goes on where it was stopped.

Velocity Verlet is taken at the longest of its acceptable steps Δt, of three kinds. *Usual*: with ω the frequency, and T
the period, below which 99 % of the kinetic energy lies in the spectrum of the base potential's own run,

    Δt = min(T/10, Δt₁₀),      ω (ω Δt₁₀)²/24 = 10 cm⁻¹

the step that leaves ten steps in a period and shifts the fastest line by no more than 10 cm⁻¹. *Equal spectra*: the
step at which Verlet's clock is as wrong as the map's, its standard error added to the disadvantage of the map
(`actionlearn/clock.py`: the shift of all lines, from held-out runs). *Equal steps*: the step at which Verlet's error in
the momenta, over the same long step from the same held-out states, is that of the map: errors that Verlet repeats at
every step, and that a network's are not, weigh the same here.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import ase.io
import torch

import actionlearn as al
from actionlearn import checkpoint, cli, systems
from actionlearn.clock import clock_error
from actionlearn.dataset import Dataset
from actionlearn.files import write_json
from actionlearn.losses import step_errors
from actionlearn.potentials import ASEPotential
from actionlearn.reference.stretch import Stretch, write_stretch
from actionlearn.validation import held_out

PER_CM_PER_FS = 1e-15 * 2.0 * math.pi * 2.99792458e10
"""Angular frequency in rad/fs of one wavenumber."""

SHIFT_PER_CM, STEPS_A_PERIOD, BELOW = 10.0, 10.0, 0.99
STEPS = 4
"""Long steps that are timed together: the last kick of one is the first of the next."""

KEPT = Path(__file__).parent / "kept"
KEPT_PLACES = 6000
"""Atoms times frames of a stretch that is kept: some 200 kB."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A system, its potential, and how much of everything.

    `potential` is a name as `actionlearn sample --potential` takes it, or a function that first makes a potential in
    the folder of the recipe, quickly or well, and returns its name; `atoms` makes the structure, `quick_atoms` a
    smaller one for the quick mode. The network's options and those of training are the options of `actionlearn train`
    by their names.
    """

    name: str
    atoms: Callable[[], ase.Atoms]
    potential: str | Callable[[Path, bool], str]
    step_fs: float
    stages: int
    base_step_fs: float
    record_every: int
    temperatures_K: tuple[float, ...]
    stretches: int
    frames: int
    thermostat_ps: float = 0.5
    decorrelate_ps: float = 0.1
    friction_per_ps: float = 20.0
    kind: str = "discrete"
    train: dict[str, Any] = dataclasses.field(default_factory=dict)
    validate_K: tuple[float, ...] = (300.0,)
    ps: float = 20.0
    reference_ps: float = 5.0
    quick_atoms: Callable[[], ase.Atoms] | None = None

    def quick(self) -> Recipe:
        """So little of it that it shows no more than that everything works."""
        return dataclasses.replace(
            self,
            atoms=self.quick_atoms or self.atoms,
            base_step_fs=self.base_step_fs * min(self.record_every, 4),
            record_every=max(self.record_every // 4, 1),
            temperatures_K=self.temperatures_K[:1],
            stretches=3,
            frames=9,
            thermostat_ps=0.01,
            decorrelate_ps=0.005,
            train={**self.train, "updates": 5, "learning_rate": 1e-5},
            validate_K=self.validate_K[:1],
            ps=0.1 * self.step_fs,
            reference_ps=0.1 * self.step_fs,
        )


def main(recipe: Recipe) -> tuple[Path, bool]:
    """Run a recipe as its script was asked to; returns its folder, and whether it was to be quick."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--quick", action="store_true", help="as little of it as shows that everything works")
    parser.add_argument("--output", type=Path, help="folder for what is made (out/examples/NAME)")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="processes that sample")
    parser.add_argument("--keep", action="store_true", help="copy row and model to examples/kept")
    args = parser.parse_args()
    torch.set_num_threads(1)
    output = args.output or Path("out") / "examples" / (recipe.name + ("-quick" if args.quick else ""))
    if callable(recipe.potential):
        output.mkdir(parents=True, exist_ok=True)
        recipe = dataclasses.replace(recipe, potential=recipe.potential(output, args.quick))
    row = run(recipe.quick() if args.quick else recipe, output, args.processes)
    print(table([row]))
    if args.keep:
        keep(recipe, output, row)
    return output, args.quick


def keep(recipe: Recipe, output: Path, row: dict[str, Any]) -> None:
    """Row, model, and a stretch it has not seen, into the folder of those that come with this project."""
    KEPT.mkdir(exist_ok=True)
    write_json(KEPT / f"{recipe.name}.json", row)
    (KEPT / f"{recipe.name}.pt").write_bytes((output / "model.pt").read_bytes())
    unseen = held_out(list(al.ReferenceSet.open(output / "reference")), checkpoint.read(output / "model.pt")["report"])
    write_stretch(KEPT / f"{recipe.name}.npz", start_of(unseen[-1]), single=True)


def start_of(stretch: Stretch) -> Stretch:
    """As many of its first frames as are kept."""
    n = KEPT_PLACES // stretch.system.n_atoms
    frames = {name: values[:n] for name, values in vars(stretch.frames).items()}
    return dataclasses.replace(stretch, steps=stretch.steps[:n], frames=type(stretch.frames)(**frames))


def run(recipe: Recipe, output: Path, processes: int) -> dict[str, Any]:
    """Sample, train, validate, and weigh the costs; the row of the table."""
    output.mkdir(parents=True, exist_ok=True)
    structure, data, model, found = (output / n for n in ("structure.xyz", "reference", "model.pt", "validation"))
    atoms = recipe.atoms()
    ase.io.write(structure, atoms)
    options = {"potential": recipe.potential, "temperature": recipe.temperatures_K, "step-fs": recipe.base_step_fs}
    options |= {"record-every": recipe.record_every, "stretches": recipe.stretches, "frames": recipe.frames}
    options |= {"equilibrate-ps": recipe.thermostat_ps, "decorrelate-ps": recipe.decorrelate_ps}
    options |= {"friction-per-ps": recipe.friction_per_ps, "processes": processes, "output": data}
    command("sample", [structure], options)
    if not model.exists() or model.with_name("model.pt.state").exists():
        options = {"kind": recipe.kind, "stages": recipe.stages, "step-fs": recipe.step_fs, **recipe.train}
        command("train", [data], options | {"output": model})
    options = {"temperature": recipe.validate_K, "ps": recipe.ps, "reference-ps": recipe.reference_ps}
    command("validate", [model, data], options | {"output": found})
    row = weigh(recipe, model, data, found)
    write_json(output / "result.json", row)
    return row


def command(verb: str, files: list[Path], options: dict[str, Any]) -> None:
    """What a user would type, shown and done."""
    words = [verb, *map(str, files)]
    for name, value in options.items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{name.replace('_', '-')}", *(f"{v:g}" if isinstance(v, float) else str(v) for v in values)]
    print("\n$ actionlearn " + " ".join(words), flush=True)
    status = cli.main(words)
    if status:
        sys.exit(status)


# --- the long step against Verlet -------------------------------------------------------------------


def weigh(recipe: Recipe, path: Path, folder: Path, found: Path) -> dict[str, Any]:
    """Everything about one recipe as one row of plain numbers."""
    validation = json.loads((found / "validation.json").read_text())
    curves = json.loads((found / f"{recipe.validate_K[-1]:g}K.json").read_text())["result"]["series"]
    data = al.ReferenceSet.open(folder)
    base, report = systems.potential(recipe.potential, recipe.atoms()), checkpoint.read(path)["report"]
    model = checkpoint.load_map(path, base=base if recipe.kind == "corrected" else None)
    test = Dataset(held_out(list(data), report), step_fs=recipe.step_fs)
    harmonic = max(entry["omega_max_per_fs"] for entry in data.manifest["stretches"]) / PER_CM_PER_FS
    usual = usual_step_fs(fastest_per_cm(curves, harmonic) * PER_CM_PER_FS)
    substeps = math.ceil(recipe.step_fs / usual)
    windows = 12  # of Verlet, which calls the base potential
    verlet = Repeated(al.Verlet(base, step_fs=recipe.step_fs / substeps), substeps)
    error = step_errors(verlet, test, windows=windows)
    matched = matched_step_fs(recipe, validation["one_step"]["momentum"], error.momentum, substeps)
    clock, its = (clock_error(m, test.stretches, step_fs=recipe.step_fs) for m in (model, verlet))
    alike = matched_step_fs(recipe, abs(clock.value) + clock.error, its.value, substeps)
    base_ms, step_ms = costs_ms(base, model, test.stretches[0].state(0))
    run = validation["temperatures"][-1]
    return {
        "name": recipe.name,
        "potential": recipe.potential,
        "atoms": int(test.stretches[0].system.n_atoms),
        "kind": recipe.kind,
        "stages": recipe.stages,
        "step_fs": recipe.step_fs,
        "base_call_ms": base_ms,
        "verlet_step_fs": usual,
        "verlet_error": error.momentum * (usual * substeps / recipe.step_fs) ** 2,
        "clock": clock.value,
        "clock_error": clock.error,
        "verlet_clock": its.value,
        "verlet_matched_step_fs": matched,
        "verlet_alike_step_fs": alike,
        "base_ms_per_fs": base_ms / usual,
        "model_ms_per_step": step_ms,
        "model_ms_per_fs": step_ms / recipe.step_fs,
        "speed_up": (base_ms / usual) / (step_ms / recipe.step_fs),
        "speed_up_matched": (base_ms / matched) / (step_ms / recipe.step_fs),
        "speed_up_alike": (base_ms / alike) / (step_ms / recipe.step_fs),
        "base_calls_for_training": base_calls(recipe),
        "training_seconds": report["seconds"],
        "updates": report["updates"],
        "position_error": validation["one_step"]["position"],
        "momentum_error": validation["one_step"]["momentum"],
        **{name: run.get(name) for name in ("temperature_K", "ps", "failure", "drift", "drift_error")},
        **{name: run.get(name) for name in ("species", "temperatures_K", "temperature_errors_K", "p_value")},
        **{name: run.get(name) for name in ("radial_excess", "spectrum_excess", "spectrum")},
        "reference": run["reference"],
        "verdict": validation["verdict"]["text"],
        "reasons": validation["verdict"]["reasons"],
        "made_with": {"torch": torch.__version__, "package": al.__version__, "threads": torch.get_num_threads()},
    }


class Repeated(torch.nn.Module):
    """A map that takes n steps at a time."""

    def __init__(self, step: Any, n: int) -> None:
        """Steps of one map."""
        super().__init__()
        self.one, self.n, self.kind = step, n, step.kind

    def step(self, state: al.PhaseState) -> al.PhaseState:
        """Take them."""
        return self.one.step(state, self.n)


def fastest_per_cm(series: dict[str, Any], harmonic: float) -> float:
    """The wavenumber below which a part `BELOW` of the kinetic energy lies; of a run too short, the harmonic one."""
    if "per_cm" not in series:
        return harmonic
    parts = itertools.accumulate(series["reference_density"])
    total = BELOW * sum(series["reference_density"])
    return next(place for place, part in zip(series["per_cm"], parts, strict=True) if part >= total)


def usual_step_fs(omega_per_fs: float) -> float:
    """Ten steps in the fastest period, and its line within 10 cm⁻¹."""
    shift = math.sqrt(24.0 * SHIFT_PER_CM * PER_CM_PER_FS / omega_per_fs**3)
    return min(2.0 * math.pi / (STEPS_A_PERIOD * omega_per_fs), shift)


def matched_step_fs(recipe: Recipe, learned: float, verlet: float, substeps: int) -> float:
    """The step at which Verlet is as wrong as the map; both inherit what the base step gets wrong, as Δt² too."""
    dt, dt0 = recipe.step_fs / substeps, recipe.base_step_fs
    if dt <= dt0 or verlet <= 0.0:
        return dt0
    return math.sqrt(dt0**2 + (dt**2 - dt0**2) * learned / verlet)


def base_calls(recipe: Recipe) -> int:
    """Force calls that sampling took."""
    thermostat = 2 * recipe.thermostat_ps + recipe.stretches * recipe.decorrelate_ps
    steps = 1000.0 * thermostat / recipe.base_step_fs + recipe.stretches * (recipe.frames - 1) * recipe.record_every
    return round(len(recipe.temperatures_K) * steps)


def costs_ms(base: Any, model: Any, state: al.PhaseState, rounds: int = 15) -> tuple[float, float]:
    """CPU time of a force call and of a long step, taken in turns so that a busy machine slows both: medians, ms.

    Steps follow each other as in a run. A calculator is called as ASE would, without what this package adds.
    """
    atoms, generator = state.to_atoms(), torch.Generator().manual_seed(0)
    calls, steps, now = [], [], state
    with torch.no_grad():
        for _ in range(rounds + 1):
            shift = 1e-3 * torch.randn(state.positions.shape, generator=generator, dtype=state.positions.dtype)
            atoms.positions = (state.positions + shift).numpy()
            moved = state.moved(state.positions + shift, state.momenta)
            begun = time.process_time()
            with torch.enable_grad():  # calculators may differentiate a network of their own
                base.calculator.get_forces(atoms) if isinstance(base, ASEPotential) else base.forces(moved)
            between = time.process_time()
            now = model.step(now, STEPS)
            calls.append(1e3 * (between - begun))
            steps.append(1e3 * (time.process_time() - between) / STEPS)
    return statistics.median(calls[1:]), statistics.median(steps[1:])


# --- the table --------------------------------------------------------------------------------------


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as text: Markdown, so that pages can hold it."""
    columns = {
        "recipe": lambda r: r["name"],
        "potential": lambda r: r["potential"],
        "atoms": lambda r: f"{r['atoms']}",
        "map": lambda r: f"{r['kind']}, s = {r['stages']}, {r['step_fs']:g} fs",
        "call, ms": lambda r: f"{r['base_call_ms']:.3g}",
        "Verlet's step, fs: usual, equal spectra, equal steps": lambda r: _three(
            r["verlet_step_fs"], r["verlet_alike_step_fs"], r["verlet_matched_step_fs"]
        ),
        "base, ms/fs": lambda r: f"{r['base_ms_per_fs']:.3g}",
        "map, ms/fs": lambda r: f"{r['model_ms_per_fs']:.3g}",
        "speed-up: usual, equal spectra, equal steps": lambda r: _three(
            r["speed_up"], r["speed_up_alike"], r["speed_up_matched"]
        ),
        "clock": lambda r: f"{100 * r['clock']:+.2f} ± {100 * r['clock_error']:.2f} %",
        "Δq, Δp": lambda r: f"{100 * r['position_error']:.2g}, {100 * r['momentum_error']:.2g} %",
        "drift, meV/atom/ps": _drift,
        "temperatures, K": _temperatures,
        "verdict": lambda r: r["verdict"],
    }
    return _markdown(columns, rows)


def _markdown(columns: dict[str, Callable[[dict[str, Any]], str]], rows: list[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return "\n".join(lines + ["| " + " | ".join(show(row) for show in columns.values()) + " |" for row in rows])


def _three(*values: float) -> str:
    first, *others = map(_two_digits, values)
    return ", ".join([f"**{first}**", *others])


def _two_digits(value: float) -> str:
    return f"{float(f'{value:.2g}'):g}"


def _drift(row: dict[str, Any]) -> str:
    if row["failure"] is not None:
        return row["failure"]
    return f"{row['drift']:+.3f} ± {row['drift_error']:.3f} ({row['ps']:.3g} ps)"


def _temperatures(row: dict[str, Any]) -> str:
    if row["failure"] is not None:
        return "-"
    pairs = zip(row["species"], row["temperatures_K"], row["temperature_errors_K"], strict=True)
    return ", ".join(f"{symbol} {T:.0f} ± {error:.0f}" for symbol, T, error in pairs)


def summary(rows: list[dict[str, Any]]) -> str:
    """The same in short, the largest speed-up first."""
    columns = {
        "recipe": lambda r: r["name"],
        "atoms": lambda r: f"{r['atoms']}",
        "long step, fs": lambda r: f"{r['step_fs']:g}",
        "usual": lambda r: f"**{_two_digits(r['speed_up'])}**",
        "equal spectra": lambda r: _two_digits(r["speed_up_alike"]),
        "equal steps": lambda r: _two_digits(r["speed_up_matched"]),
        "Δp": lambda r: f"{100 * r['momentum_error']:.2g} %",
        "verdict": lambda r: r["verdict"].split(" (")[0],
    }
    return _markdown(columns, sorted(rows, key=lambda r: -r["speed_up"]))


def kept() -> list[dict[str, Any]]:
    """The rows that come with this project."""
    return [json.loads(path.read_text()) for path in sorted(KEPT.glob("*.json"))]


if __name__ == "__main__":
    print(table(kept()), summary(kept()), sep="\n\n")
