"""All measurements of one map, a temperature at a time, kept in files so that nothing is run twice."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from actionlearn.analysis import Trajectory, mean_and_error, radial_distribution, velocity_spectrum
from actionlearn.dataset import Dataset
from actionlearn.dynamics import Langevin, simulate
from actionlearn.errors import InvalidInput
from actionlearn.files import read_json, writable_folder, write_json
from actionlearn.losses import step_errors
from actionlearn.neighbours import forget_edges
from actionlearn.potentials.protocol import Potential
from actionlearn.progress import Progress
from actionlearn.reference import Stretch
from actionlearn.schemes import Verlet
from actionlearn.state import PhaseState
from actionlearn.structure import estimate_symplectic_defect, momentum_drift, reversal_error
from actionlearn.validation.rollout import FEWEST_FRAMES, RollOut, roll_out
from actionlearn.validation.verdict import Limits, Verdict, judge

FORMAT = "actionlearn validation 1"
SETTLE_PS = 1.0
"""Thermostat on the base potential that brings a held-out frame to a temperature that was not sampled."""
PIECES = 3
"""So many times as long as the reference a run tells how much runs of that length scatter."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """Everything that was measured, as plain numbers, and what it means."""

    one_step: dict[str, Any]
    structure: dict[str, Any]
    temperatures: list[dict[str, Any]]
    verdict: Verdict

    def without_series(self) -> dict[str, Any]:
        """The numbers alone, for one readable file."""
        rows = [{k: v for k, v in row.items() if k != "series"} for row in self.temperatures]
        return {**dataclasses.asdict(self), "temperatures": rows}


def held_out(stretches: Sequence[Stretch], report: Mapping[str, Any]) -> list[Stretch]:
    """The stretches that a model has not seen, by what its report says: test ones, or else any that was not used.

    Stretches are told apart by their checksums; by their names where a report, of an older version, has no others.
    """
    parts, key = report.get("stretches", {}), lambda s: s.name
    if "checksums" in report:
        parts, key = report["checksums"], lambda s: s.checksum
    chosen = [s for s in stretches if key(s) in parts.get("test", ())]
    seen = {known for part in ("training", "validation") for known in parts.get(part, ())}
    chosen = chosen or [s for s in stretches if key(s) not in seen]
    if not chosen:
        raise InvalidInput(
            "the model was trained on all of these stretches, which leaves none to validate with: sample new ones"
        )
    return chosen


def validate(
    model: Any,
    base: Potential,
    stretches: Sequence[Stretch],
    output: Path,
    *,
    temperatures_K: Sequence[float],
    ps: float,
    reference_ps: float | None = None,
    seed: int = 0,
    made_for: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    progress: bool = False,
) -> Validation:
    """Measure a map on stretches that it has not seen.

    Verlet on the base potential runs as long, or for `reference_ps` where that is expensive: distributions and spectra
    are then compared over that time. Results of each temperature are kept in `output` and taken from there when called
    again; `made_for` says what they belong to besides temperature, length and seed, such as checksums.
    """
    for T in temperatures_K:
        if not 0 < T < math.inf:
            raise InvalidInput(f"temperatures must be positive numbers of kelvin, not {T}")
    shortest, longest = FEWEST_FRAMES * model.step_fs / 1000.0, math.inf
    for name, length in (("ps", ps), ("reference_ps", ps if reference_ps is None else reference_ps)):
        if not shortest <= length <= longest or length == math.inf:
            raise InvalidInput(
                f"{name} must be at least {shortest:g}, {FEWEST_FRAMES} steps, and reference_ps no longer than ps, "
                f"not {length:g}"
            )
        longest = ps
    writable_folder(output)
    span = model.step_fs
    if model.kind == "potential":  # whose steps may be shorter than the time between two frames
        span *= max(math.ceil(max(s.interval_fs for s in stretches) / span - 1e-9), 1)
    data = Dataset(stretches, step_fs=span)
    reference_ps = ps if reference_ps is None else reference_ps
    total = (ps + reference_ps) * len(temperatures_K)
    rows = []
    with Progress("validating", total, shown=progress) as bar:
        for T in sorted(set(temperatures_K)):
            path = output / f"{T:g}K.json"
            about = {"format": FORMAT, "version": metadata.version("actionlearn"), "ps": ps, "seed": seed}
            about |= {} if reference_ps == ps else {"reference_ps": reference_ps}
            about = {**about, **(made_for or {})}
            if path.exists():
                kept = read_json(path)
                if not isinstance(kept, dict) or kept.get("made_for") != about:
                    raise InvalidInput(
                        f"{path} holds another validation (model, data, length or seed differ): "
                        "choose another output folder, or delete it"
                    )
                bar.advance(ps + reference_ps)
            else:
                advance = functools.partial(bar.advance, note=f"{T:g} K")
                row = at_temperature(
                    model, base, stretches, T, ps=ps, reference_ps=reference_ps, seed=seed, advance=advance
                )
                kept = {"made_for": about, "result": row}
                write_json(path, kept)
            rows.append(kept["result"])
    one_step, structure = one_step_errors(model, data), structure_of(model, stretches[0].state(0), base)
    return Validation(one_step, structure, rows, judge(one_step, structure, rows, limits))


def one_step_errors(model: Any, data: Dataset) -> dict[str, Any]:
    """Relative errors of one step over all held-out stretches, standard errors from the scatter between them."""
    steps = max(round(data.step_fs / model.step_fs), 1)
    whole = step_errors(model, data, windows=100, steps=steps)
    each = [step_errors(model, Dataset([s], step_fs=data.step_fs), windows=10, steps=steps) for s in data.stretches]
    n = len(each)
    found: dict[str, Any] = {"windows": whole.windows, "stretches": n}
    for name in ("position", "momentum"):
        found[name] = getattr(whole, name)
        scatter = np.std([getattr(e, name) for e in each], ddof=1) if n > 1 else np.nan
        found[f"{name}_error"] = _number(scatter / np.sqrt(n))
    return found


def structure_of(model: Any, state: PhaseState, base: Potential | None = None) -> dict[str, Any]:
    """Measures of structure from one state.

    A map that corrects a potential in single precision is as symplectic as Verlet on it, no better: with `base`, that
    is measured too.
    """
    defects = {"symplectic_defect": estimate_symplectic_defect(model, state, directions=4)}
    if base is not None and model.kind == "corrected":
        verlet, n = Verlet(base, step_fs=model.step_fs / model.stages), model.stages
        defects["symplectic_defect_of_verlet"] = estimate_symplectic_defect(
            lambda state: verlet.step(state, n), state, directions=4
        )
    return {
        **defects,
        "reversal_error_A": reversal_error(model, state, n=10),
        "momentum_drift": momentum_drift(model, state, n=10),
    }


def at_temperature(
    model: Any,
    base: Potential,
    stretches: Sequence[Stretch],
    temperature_K: float,
    *,
    ps: float,
    reference_ps: float | None = None,
    seed: int = 0,
    advance: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """A run of the map and one of Verlet on the base potential from the same start, and how they compare."""
    forget_edges()  # so that nothing depends on what was run before in this process
    state, dt = start_at(base, stretches, temperature_K, seed)
    run = roll_out(model, base, state, ps=ps, advance=advance)
    dt = model.step_fs / math.ceil(model.step_fs / dt - 1e-9)  # the base step, or what of it divides the long one
    verlet, length = Verlet(base, step_fs=dt), ps if reference_ps is None else reference_ps
    reference = roll_out(verlet, base, state, ps=length, interval_fs=model.step_fs, advance=advance)
    found: dict[str, Any] = {"temperature_K": temperature_K, **_of_run(run), "reference": _of_run(reference)}
    found["reference"]["step_fs"] = dt
    series: dict[str, Any] = {
        "times_ps": _list(run.times_ps),
        "energies": _list(run.per_atom_meV),
        "reference_energies": _list(reference.per_atom_meV),
    }
    if run.failure is None and reference.failure is None:
        _compare(run.trajectory, reference.trajectory, found, series)
    return {**found, "series": series}


def start_at(
    base: Potential, stretches: Sequence[Stretch], temperature_K: float, seed: int
) -> tuple[PhaseState, float]:
    """A state of a held-out stretch, brought to the temperature if none was sampled there, and the base step."""
    nearest = min(stretches, key=lambda s: abs(s.temperature_K - temperature_K))
    state = nearest.state(0)
    if abs(nearest.temperature_K - temperature_K) <= 1.0:
        return state, nearest.step_fs
    at_rest = bool(abs(state.momenta.sum(0)).max() < 1e-6 * abs(state.momenta).sum()) and not state.has_fixed
    bath = Langevin(temperature_K, 5.0, seed=seed, zero_momentum=at_rest)
    steps = round(1000.0 * SETTLE_PS / nearest.step_fs)
    settled = simulate(Verlet(base, step_fs=nearest.step_fs), state, steps, ensemble=bath)
    return settled.state, nearest.step_fs


def _of_run(run: RollOut) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ps": float(run.times_ps[-1]),
        "failure": run.failure,
        "ms_per_step": 1e3 * run.seconds_per_step,
    }
    if run.failure is not None:
        return found
    drift, shares = run.drift, run.shares
    return found | {
        "drift": drift.value,
        "drift_error": drift.error,
        "fluctuation": run.fluctuation_meV,
        "species": list(shares.groups),
        "temperatures_K": list(shares.temperatures_K),
        "temperature_errors_K": list(shares.errors_K),
        "p_value": _number(shares.p_value),
    }


def _compare(whole: Trajectory, reference: Trajectory, found: dict[str, Any], series: dict[str, Any]) -> None:
    """Radial distributions and velocity spectra of two runs.

    A molecule by itself passes its energy between modes slowly, and blocks of a short run know nothing of that. Of a
    run three times as long as the reference, the scatter of pieces as long as the reference is the error of one such.
    """
    n = len(reference)
    pieces = [whole.part(slice(k * n, (k + 1) * n)) for k in range(len(whole) // n)]
    run, pieces = (whole, pieces) if len(pieces) >= PIECES else (pieces[0], [])
    g, g0, *each = map(radial_distribution, (run, reference, *pieces))
    pairs = {}
    for pair, values in g.values.items():
        errors = _scattered(g.errors[pair], g0.errors[pair], [other.values[pair] for other in each])
        pairs[pair] = _difference(values, errors[0], g0.values[pair], errors[1])
    found["radial"] = {pair: dict(zip(("area", "noise"), parts[:2], strict=True)) for pair, parts in pairs.items()}
    found["radial_excess"] = max(parts[2] for parts in pairs.values())
    D0 = velocity_spectrum(reference)
    D, *densities = (velocity_spectrum(part, resolution_per_cm=D0.resolution_per_cm) for part in (run, *pieces))
    errors = _scattered(D.errors, D0.errors, [other.density for other in densities])
    area, noise, found["spectrum_excess"] = _difference(D.density, errors[0], D0.density, errors[1])
    found["spectrum"] = {"area": area, "noise": noise, "nyquist_per_cm": D.nyquist_per_cm, "at_limit": D0.at_limit}
    (mean, error), (mean0, error0) = _mean_frequency(run), _mean_frequency(reference)
    found["spectrum"] |= {"mean_per_cm": mean, "mean_error": error}
    found["reference"] |= {"mean_per_cm": mean0, "mean_error": error0}
    series |= {"r": _list(g.r), "per_cm": _list(D.per_cm)}
    series |= {"g": {k: _list(v) for k, v in g.values.items()}, "g_errors": {k: _list(v) for k, v in g.errors.items()}}
    series |= {"reference_g": {k: _list(v) for k, v in g0.values.items()}}
    series |= {"density": _list(D.density), "density_errors": _list(errors[0]), "reference_density": _list(D0.density)}


def _scattered(run: np.ndarray, reference: np.ndarray, pieces: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors of the run and of the reference, no smaller than what pieces as long as the reference say."""
    if not pieces:
        return run, reference
    scatter = np.std(pieces, axis=0, ddof=1)
    return np.maximum(run, scatter / math.sqrt(len(pieces))), np.maximum(reference, scatter)


def _difference(
    one: np.ndarray, one_error: np.ndarray, other: np.ndarray, other_error: np.ndarray
) -> tuple[float, float, float]:
    """Area between two curves over that of the second; what noise of this size makes of it; what is beyond twice that.

    Twice, since the errors of neighbouring bins go together: hotter or colder, a run differs everywhere.
    """
    whole = other.sum()
    if not whole > 0:
        return 0.0, 0.0, 0.0
    area = float(np.abs(one - other).sum() / whole)
    noise = float(math.sqrt(2.0 / math.pi) * np.hypot(one_error, other_error).sum() / whole)
    return area, noise, max(area - 2.0 * noise, 0.0)


def _mean_frequency(trajectory: Trajectory, blocks: int = 5) -> tuple[float, float]:
    """Mean wavenumber of the velocity spectrum and its standard error, from spectra of blocks."""
    length = len(trajectory) // blocks
    means = []
    for k in range(blocks):
        part = trajectory.part(slice(k * length, (k + 1) * length))
        means.append(velocity_spectrum(part, blocks=3).mean_per_cm())
    mean, error = mean_and_error(means, blocks)
    return float(mean), float(error)


def _number(value: float) -> float | None:
    """A number as JSON can hold it."""
    return float(value) if math.isfinite(value) else None


def _list(values: np.ndarray) -> list[float]:
    """Six digits are more than any of these curves is known to."""
    return [float(f"{v:.6g}") for v in values]
