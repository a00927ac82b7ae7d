"""Shipped maps beside the integrators one would use instead, on the same base potential and from the same states.

    python benchmarks/integrators.py [SYSTEM …] [--quick] [--json FILE]

Errors are those of Δq and Δp over one long step h, against the exact flow of the base potential. Verlet is shown at
customary steps, a tenth of the fastest period and the one that shifts the fastest band by 10 cm⁻¹, (ωΔt)²/24·ω; every
scheme at every step serves for the two summaries: what it costs to be as accurate as a map over h, and how wrong it is
at the map's cost. Costs are CPU times on one thread, all measured in turns. With hydrogens of 3 u another motion is
followed, compared with its own exact flow. "Verlet, network" is velocity Verlet on a potential matched to forces: the
architecture of the map, as much CPU time of training, no motion.

Long runs are microcanonical; `band` is the mean wavenumber of the velocity spectrum in the range of the fastest modes,
less that of Verlet in steps of a fortieth of the fastest period.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from clock import Turns
from ledger import Ledger, json_option
from yardstick import Contender, Ladder, LongRun, Spans, long_run, moving

import actionlearn as al
from actionlearn import systems
from actionlearn.dataset import Dataset
from actionlearn.hydrogen import repartitioned
from actionlearn.potentials import SPCFw
from actionlearn.schemes.published import BLANES_MOAN_4, VELOCITY_VERLET, respa
from actionlearn.structure import estimate_symplectic_defect, reversal_error

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "data" / "models"
HYDROGEN_MASS = 3.0
HEAVY = "Verlet, heavy hydrogens"
NETWORK = "Verlet, network"
SHIFT_PER_CM = 10.0
RUNGS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)


@dataclasses.dataclass(frozen=True)
class System:
    """A long step of one system and the maps that take it, each in so many steps of its own.

    `network` is the file of a potential that was matched to forces.
    """

    structure: str
    potential: str
    data: str
    span_fs: float
    fine_fs: float
    models: Mapping[str, int]
    ps: float
    band: tuple[float, float]
    network: str = ""


SYSTEMS = {
    "alloy": System(
        "cuau108",
        "metals",
        "cuau",
        24.0,
        1.0,
        {"cuau-discrete-24fs": 1, "cuau-corrected-24fs": 1},
        20.0,
        (180.0, 500.0),
        "cuau-potential",
    ),
    "ethanol": System(
        "ethanol", "gfn2-xtb", "ethanol", 4.0, 0.125, {"ethanol-gfn2-discrete-4fs": 1}, 5.0, (2700.0, 4150.0)
    ),
    "water": System(
        "water64",
        "water-spcfw",
        "water",
        4.0,
        0.125,
        {"water-corrected-2fs": 2, "water-corrected-4fs": 1},
        2.4,
        (3000.0, 4150.0),
    ),
}  # fmt: skip


class Field:
    """Everything that competes on one system."""

    def __init__(self, name: str, quick: bool) -> None:
        """Load maps, take starts that no map was trained on, find their exact ends."""
        self.name, self.about, self.quick = name, SYSTEMS[name], quick
        about = self.about
        self.atoms = systems.structure(about.structure)
        self.base = self.fresh_base()
        data = Dataset.open(ROOT / "data" / about.data, step_fs=about.span_fs)
        test = data.split(0)[2] if len(data.stretches) > 2 else data
        count = {"alloy": 16, "ethanol": 16, "water": 4}[name] // (4 if quick else 1)
        self.starts = test.windows(test.even(max(count, 2))).frames[0].unbatch()
        self.spans = Spans.exact(self.base, self.starts, about.span_fs, about.fine_fs)
        self.omega_per_fs = max(stretch.omega_max_per_fs for stretch in data.stretches)
        self.maps = [self._map(file, n) for file, n in about.models.items()]
        self.ladders = self._ladders()

    def fresh_base(self) -> Any:
        """The base potential with neighbours of its own."""
        return systems.potential(self.about.potential, self.atoms)

    @property
    def period_fs(self) -> float:
        """The fastest period."""
        return 2.0 * math.pi / self.omega_per_fs

    @property
    def tolerated_fs(self) -> float:
        """The step at which Verlet shifts the fastest band by `SHIFT_PER_CM`."""
        per_cm = self.omega_per_fs / (2.0 * math.pi * 2.99792458e-5)
        return math.sqrt(24.0 * SHIFT_PER_CM / per_cm) / self.omega_per_fs

    def substeps(self, longest_fs: float) -> int:
        """Steps in the long step, none of them longer than this."""
        return math.ceil(self.about.span_fs / longest_fs - 1e-9)

    def verlet(self, n: int, why: str) -> Contender:
        """Verlet on the base potential in n steps."""
        return Contender(f"Verlet, {why}", al.Verlet(self.base, step_fs=self.about.span_fs / n), n, calls=1)

    def _map(self, file: str, n: int) -> Contender:
        corrected = "corrected" in file
        base = self.fresh_base() if corrected else None
        model = al.load(MODELS / f"{file}.pt", base=base)
        return Contender(file, model, n, calls=model.stages if corrected else 0, gradients=model.stages)

    def scheme(self, name: str, step_fs: float) -> al.Splitting:
        """A scheme by name, on a potential of its own."""
        base = al.load(MODELS / f"{self.about.network}.pt").potential if name == NETWORK else self.fresh_base()
        if name.startswith("r-RESPA"):
            fast, slow = base.parts()
            return al.Splitting({"F": fast, "S": slow}, respa(int(name.split()[1])), step_fs=step_fs)
        return al.Splitting(base, BLANES_MOAN_4 if name == "Blanes-Moan 4" else VELOCITY_VERLET, step_fs=step_fs)

    def _ladders(self) -> dict[str, Ladder]:
        """Schemes whose step can be chosen; those of heavier hydrogens follow their own exact flow."""
        about, rungs = self.about, RUNGS[:: 2 if self.quick else 1]
        names = ["Verlet", "Blanes-Moan 4"]
        if isinstance(self.base, SPCFw):
            names += [f"r-RESPA {inner}" for inner in (2, 4, 8)]
        names += [NETWORK] if about.network else []
        found = {}
        for name in names:
            mine = [n for n in rungs if name != "Blanes-Moan 4" or about.span_fs / n >= 3.0 * about.fine_fs]
            found[name] = Ladder.climb(name, lambda h, n=name: self.scheme(n, h), self.spans, about.span_fs, mine)
        if (self.starts[0].numbers == 1).any():
            self.heavy = Spans.exact(self.base, [heavier(s) for s in self.starts], about.span_fs, about.fine_fs)
            make = lambda h: self.scheme("Verlet", h)  # noqa: E731
            found[HEAVY] = Ladder.climb(HEAVY, make, self.heavy, about.span_fs, rungs)
        return found


def heavier(state: al.PhaseState) -> al.PhaseState:
    """The state with hydrogens of 3 u, atom by atom of the same kinetic energy."""
    return al.PhaseState.from_atoms(repartitioned(state.to_atoms(), HYDROGEN_MASS))


def costs(field: Field) -> Turns:
    """CPU times of a step of its own of every scheme and map, measured in turns, each with neighbours of its own."""
    step = min(0.5 * field.tolerated_fs, field.about.span_fs)
    calls = {}
    for name in field.ladders:
        state = field.heavy.starts.unbatch()[0] if name == HEAVY else field.starts[0]
        calls[name] = moving(Contender(name, field.scheme(name, step)), state)
    for contender in field.maps:
        calls[contender.name] = moving(dataclasses.replace(contender, substeps=1), field.starts[0])
    return Turns(calls, 60, lead_in=3)


def contestants(field: Field) -> list[tuple[str, Contender]]:
    """What gets a line of the table, and by what name its cost is known."""
    tenth, shift = field.substeps(field.period_fs / 10.0), field.substeps(field.tolerated_fs)
    lines = [
        ("Verlet", field.verlet(tenth, "a tenth of the period")),
        ("Verlet", field.verlet(shift, f"{SHIFT_PER_CM:g} cm⁻¹")),
    ]
    if "r-RESPA 4" in field.ladders:
        step_map = field.scheme("r-RESPA 4", field.about.span_fs / 2)
        lines.append(("r-RESPA 4", Contender("r-RESPA, 4 inner steps", step_map, 2, calls=1)))
    if NETWORK in field.ladders:
        for n in sorted({field.maps[0].gradients, tenth}):  # at the map's cost, and at a customary step
            step_map = field.scheme(NETWORK, field.about.span_fs / n)
            lines.append((NETWORK, Contender(f"{NETWORK}, {step_map.step_fs:g} fs", step_map, n, gradients=1)))
    return lines + [(contender.name, contender) for contender in field.maps]


def table(field: Field, turns: Turns, ledger: Ledger) -> dict[str, float]:
    """One line for each; gives back the maps' errors of Δp."""
    about, state = field.about, field.starts[0]
    print(
        f"\n{field.name}: {state.n_atoms} atoms, h = {about.span_fs:g} fs, fastest period {field.period_fs:.1f} fs, "
        f"{len(field.starts)} starts; long runs of {about.ps:g} ps\n"
        f"{'':27s}{'step fs':>8s}{'calls/ps':>9s}{'grad./ps':>9s}{'CPU ms/ps':>10s}{'dq, %':>9s}{'dp, %':>9s}"
        f"{'drift, meV/atom/ps':>22s}  {'temperatures, K':22s}{'p':>5s}{'band, cm⁻¹':>14s}"
    )
    reference = LongRun(0.0)
    if not field.quick:
        fine = field.verlet(field.substeps(field.period_fs / 40.0), "a fortieth")
        reference = long_run(fine, field.base, state, about.ps, about.band)
    errors, unit = {}, 0.0
    for known_as, contender in contestants(field):
        position, momentum, uncertainty = field.spans.errors(contender)
        ratio, spread = turns.ratio(known_as, "Verlet")
        unit = unit or contender.per_ps(ratio)
        numbers = contender.step_map.step_fs, contender.per_ps(contender.calls), contender.per_ps(contender.gradients)
        text = f"{contender.name:27s}" + "{:8.3g}{:9.0f}{:9.0f}".format(*numbers)
        text += f"{contender.per_ps(turns.ms(known_as)):10.1f}{100 * position:9.4f}{100 * momentum:9.4f}"
        case = f"{field.name}, {contender.name}"
        ledger.add(case, "step", contender.step_map.step_fs, unit="fs", better="equal", tolerance=1e-6)
        relative, spread = contender.per_ps(ratio) / unit, contender.per_ps(spread) / unit
        ledger.add(case, "CPU / Verlet at a tenth of the period", relative, error=spread, tolerance=0.25)
        ledger.add(case, "error of Δq", 100 * position, unit="%", tolerance=0.05)
        ledger.add(case, "error of Δp", 100 * momentum, error=100 * uncertainty, unit="%", tolerance=0.05)
        if contender in field.maps:
            errors[contender.name] = momentum
        if field.quick:
            print(text, flush=True)
            continue
        run = long_run(contender, field.base, state, about.ps, about.band)
        print(text + described(run, reference), flush=True)
        noted(run, reference, case, ledger)
    return errors


def described(run: LongRun, reference: LongRun) -> str:
    """The columns of a long run."""
    if run.failure:
        return f"   ended after {run.ps:.2f} ps: {run.failure[:60]}"
    T = ", ".join(f"{symbol} {value:.0f}" for symbol, value in run.temperatures_K.items())
    band = f"{run.band_per_cm - reference.band_per_cm:+7.1f} ±{math.hypot(run.band_error, reference.band_error):.1f}"
    return f"{run.drift:+12.4f} ±{run.drift_error:.4f}   {T:22s}{run.p_value:5.2f}{band:>14s}"


def noted(run: LongRun, reference: LongRun, case: str, ledger: Ledger) -> None:
    """Rows of a long run."""
    ledger.add(case, "drift, absolute", abs(run.drift), error=run.drift_error, unit="meV/atom/ps")
    ledger.add(case, "p of equal temperatures", run.p_value, better="higher", tolerance=1.0)
    shift = abs(run.band_per_cm - reference.band_per_cm)
    error = math.hypot(run.band_error, reference.band_error)
    ledger.add(case, "shift of the fastest band", shift, error=error, unit="cm⁻¹")


def summaries(field: Field, turns: Turns, errors: Mapping[str, float], ledger: Ledger) -> None:
    """At equal accuracy, what everything costs; at equal cost, how wrong everything is."""
    span, ladders, names = field.about.span_fs, field.ladders, list(field.ladders)
    print(f"\n{field.name}, as accurate as the map (Δp over {span:g} fs): CPU time relative to Verlet on the base")
    print(f"{'':27s}{'Δp, %':>8s}{'map':>9s}  " + "  ".join(f"{name:>23s}" for name in names))
    for contender in field.maps:
        error = errors[contender.name]
        steps = {name: ladder.steps_for(error) for name, ladder in ladders.items()}
        unit = steps["Verlet"]
        ratio, spread = (contender.substeps / unit * x for x in turns.ratio(contender.name, "Verlet"))
        others = {name: n / unit * turns.ratio(name, "Verlet")[0] for name, n in steps.items()}
        cells = [
            "at no step" if math.isinf(n) else f"{others[name]:9.2f} ({span / n:7.3f} fs)" for name, n in steps.items()
        ]
        print(f"{contender.name:27s}{100 * error:8.4f}{ratio:9.2f}  " + "  ".join(f"{c:>23s}" for c in cells))
        case = f"{field.name}, as accurate as {contender.name}"
        ledger.add(case, "CPU, map / Verlet on the base", ratio, error=spread, tolerance=0.25)
        ledger.add(case, "step of Verlet", span / unit, unit="fs", better="equal", tolerance=0.05)
        for name in names[1:]:
            ledger.add(case, f"CPU, {name} / Verlet", others[name], better="equal", tolerance=0.25)
    print(f"\n{field.name}, at the CPU time of the map: error of Δp relative to the map's")
    print(f"{'':27s}{'ms/ps':>8s}  " + "  ".join(f"{name:>23s}" for name in names))
    for contender in field.maps:
        error, mine = errors[contender.name], turns.ms(contender.name) * contender.substeps
        steps = {name: contender.substeps * turns.ratio(contender.name, name)[0] for name in names}
        found = {name: ladders[name].error_at(n) / error for name, n in steps.items()}
        cells = ["cannot step that far" if math.isinf(x) else f"{x:.3g} ×" for x in found.values()]
        print(f"{contender.name:27s}{1000.0 * mine / span:8.0f}  " + "  ".join(f"{c:>23s}" for c in cells))
        case = f"{field.name}, at the CPU time of {contender.name}"
        ledger.add(case, "error, Verlet on the base / map", found["Verlet"], better="higher", tolerance=0.5)
        for name in names[1:]:
            ledger.add(case, f"error, {name} / map", found[name], better="equal", tolerance=1.0)  # cost to the fourth


def structure(field: Field, ledger: Ledger) -> None:
    """What must hold whatever the accuracy: the order of Verlet, and that the maps are symplectic and reversible."""
    ladder = field.ladders["Verlet"]
    (n, m), (e, f) = ladder.rungs[-2:], ladder.errors[-2:]
    slope = math.log(e / f) / math.log(m / n)
    ledger.add(f"{field.name}, Verlet", "order", slope, better="equal", limit=2.0, tolerance=0.03)
    for contender in field.maps:
        defect = estimate_symplectic_defect(contender.step_map, field.starts[0], directions=2)
        back = reversal_error(contender.step_map, field.starts[0], n=5)
        ledger.add(f"{field.name}, {contender.name}", "estimate of the symplectic defect", defect, limit=1e-6)
        ledger.add(f"{field.name}, {contender.name}", "reversal", back, unit="Å", limit=1e-9)


def main() -> None:
    """Table and summaries, system by system."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"of {', '.join(SYSTEMS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="few starts, no long runs, no tight binding")
    json_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    ledger = Ledger("integrators")
    names = arguments.systems or [n for n in SYSTEMS if not (arguments.quick and n == "ethanol")]
    for name in names:
        if name not in SYSTEMS:
            parser.error(f"{name!r} is none of {', '.join(SYSTEMS)}")
        if name == "ethanol" and importlib.util.find_spec("tblite") is None:
            print("ethanol is left out: GFN2-xTB needs tblite, pip install 'actionlearn[xtb]'", file=sys.stderr)
            continue
        field = Field(name, arguments.quick)
        turns = costs(field)
        errors = table(field, turns, ledger)
        summaries(field, turns, errors, ledger)
        structure(field, ledger)
    ledger.write(arguments.json, quick=arguments.quick)


if __name__ == "__main__":
    main()
