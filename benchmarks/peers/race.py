"""Steps of different makers on one system: errors and structure of one step, then one run of all, step by step in turn.

Taking turns makes seconds comparable on a machine that does other things as well. Energies are those of the base
potential, whatever a step believes.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import actionlearn as al
from actionlearn.dataset import Dataset
from actionlearn.errors import ActionlearnError
from actionlearn.potentials import Potential

LOST_EV_PER_ATOM = 1.0

COLUMNS = (  # key, head, format
    ("parameters", "weights", "{:9,d}"),
    ("training_s", "training s", "{:10.0f}"),
    ("dq", "dq %", "{:6.2f}"),
    ("dp", "dp %", "{:6.2f}"),
    ("ms", "ms/step", "{:8.1f}"),
    ("ratio", "ratio", "{:7.1f}"),
    ("gradients", "gradients", "{:9.1f}"),
    ("defect", "defect", "{:8.1e}"),
    ("reversal", "reversal A", "{:10.1e}"),
    ("ps", "ps", "{:5.1f}"),
    ("drift", "drift", "{:+8.3f}"),
    ("drift_error", "+-", "{:6.3f}"),
)


@dataclasses.dataclass
class Entrant:
    """A step with what is known of it; `gradients` counts its passes with a gradient so far."""

    name: str
    step: Any
    gradients: Any
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    share: float = 1.0  # of the length of the run


def step_errors(step: Any, data: Dataset, windows: int) -> tuple[float, float]:
    """Relative errors of Δq and Δp, mass-weighted, over windows spread evenly over a set."""
    sums = np.zeros(4)
    for k in data.even(windows):
        first, last = data.windows([k]).frames[:2]
        end, m = step(first), first.masses.unsqueeze(1)
        sums += [
            float((m * (end.positions - last.positions).square()).sum()),
            float((m * (last.positions - first.positions).square()).sum()),
            float(((end.momenta - last.momenta).square() / m).sum()),
            float(((last.momenta - first.momenta).square() / m).sum()),
        ]
    return math.sqrt(sums[0] / sums[1]), math.sqrt(sums[2] / sums[3])


def one_step(
    entrant: Entrant, data: Dataset, state: al.PhaseState, *, windows: int, directions: int, there: int
) -> None:
    """Errors, symplectic defect by differences, and the way back; infinite where there is no step."""
    about, step = entrant.about, entrant.step
    about |= dict.fromkeys(("dq", "dp", "defect", "reversal"), math.inf)
    try:
        about["dq"], about["dp"] = (100.0 * e for e in step_errors(step, data, windows))
        about["defect"] = al.estimate_symplectic_defect(step, state, directions=directions, method="differences")
        about["reversal"] = al.reversal_error(step, state, n=there)
    except ActionlearnError as problem:
        about["failure"] = f"{type(problem).__name__}: {problem}"


def race(entrants: Sequence[Entrant], base: Potential, state: al.PhaseState, step_fs: float, steps: int) -> None:
    """A microcanonical run of each from one state, and what it tells."""
    states = [state.detach() for _ in entrants]
    seconds, taken = np.zeros(len(entrants)), np.zeros(len(entrants), dtype=int)
    before = [entrant.gradients() for entrant in entrants]
    energies = [[_energy(base, state)] for _ in entrants]
    momenta: list[list[torch.Tensor]] = [[] for _ in entrants]
    lost = [False] * len(entrants)
    for k in range(steps):
        for n, entrant in enumerate(entrants):
            if lost[n] or k >= entrant.share * steps:
                continue
            started = time.process_time()
            try:
                states[n] = entrant.step(states[n])
            except (ActionlearnError, ArithmeticError, RuntimeError, ValueError) as problem:
                lost[n], entrant.about["failure"] = True, f"{type(problem).__name__}: {problem}"
                continue
            seconds[n] += time.process_time() - started
            taken[n] += 1
            energies[n].append(_energy(base, states[n]))
            momenta[n].append(states[n].momenta)
            change = abs(energies[n][-1] - energies[n][0])
            lost[n] = not change < LOST_EV_PER_ATOM * state.n_atoms
    for n, entrant in enumerate(entrants):
        about = entrant.about
        done = max(int(taken[n]), 1)
        about["ms"], about["gradients"] = 1e3 * seconds[n] / done, (entrant.gradients() - before[n]) / done
        about["ps"], about["lost"] = 1e-3 * step_fs * taken[n], lost[n]
        about["change"] = 1e3 * (energies[n][-1] - energies[n][0]) / state.n_atoms
        about.update(_drift(energies[n], step_fs, state.n_atoms), **_temperatures(momenta[n], state))


def _energy(base: Potential, state: al.PhaseState) -> float:
    with torch.no_grad():
        return float(base.energy(state) + state.kinetic_energy())


def _drift(energies: list[float], step_fs: float, n_atoms: int) -> dict[str, float]:
    if len(energies) < 20 or not np.isfinite(energies).all():
        return {"drift": math.nan, "drift_error": math.nan}
    found = al.energy_drift(step_fs * np.arange(len(energies)), energies, n_atoms)
    return {"drift": found.value, "drift_error": found.error}


def _temperatures(momenta: list[torch.Tensor], state: al.PhaseState) -> dict[str, Any]:
    """Over the second half of the run, by species."""
    kept = momenta[len(momenta) // 2 :]
    if len(kept) < 20:
        return {"species": [], "temperatures": [], "temperature_errors": []}
    found = al.equipartition(torch.stack(kept), state, momentum_removed=True, blocks=10)
    return {
        "species": list(found.groups),
        "temperatures": list(found.temperatures_K),
        "temperature_errors": list(found.errors_K),
        "equal": found.p_value,
    }


def table(entrants: Sequence[Entrant], yardstick: str) -> str:
    """One line for each, with its seconds in units of those of one of them."""
    unit = next((e.about["ms"] for e in entrants if e.name == yardstick), math.nan)
    width = max(len(e.name) for e in entrants)
    heads = [head.rjust(len(_cell(form, 0))) for _, head, form in COLUMNS]
    lines = [" ".join(["".ljust(width), *heads, "T by species, K"])]
    for entrant in entrants:
        about = entrant.about
        about["ratio"] = about["ms"] / unit
        cells = [_cell(form, about.get(key)) for key, _, form in COLUMNS]
        cells = [cell.rjust(len(head)) for cell, head in zip(cells, heads, strict=True)]
        T = [
            f"{name} {value:.0f} ± {error:.0f}"
            for name, value, error in zip(
                about["species"], about["temperatures"], about["temperature_errors"], strict=True
            )
        ]
        lines.append(" ".join([entrant.name.ljust(width), *cells, ", ".join(T), "(lost)" if about["lost"] else ""]))
    return "\n".join(line.rstrip() for line in lines)


def _cell(form: str, value: Any) -> str:
    return "-".rjust(len(form.format(0))) if value is None else form.format(value)
