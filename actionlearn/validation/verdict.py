"""What the measured numbers mean: stated limits, and words with reasons."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from actionlearn.units import BOLTZMANN

BIAS_K = 1e-3 / (3.0 * BOLTZMANN)
"""How much too hot a friction of 1/ps leaves what a drift of 1 meV/atom/ps heats, K."""

SAME_NOISE = 3.0
"""Defects within this factor are alike: both are what the rounding of the base potential's forces leaves."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a map may get wrong.

    | field          | unit         | meaning                                                                        |
    |----------------|--------------|--------------------------------------------------------------------------------|
    | `step_error`   |              | relative error of one step, momenta                                            |
    | `symplectic`   |              | symplectic defect; of corrected maps, unless Verlet on the same forces has it  |
    | `reversal`     | Å            | ten steps forward and back                                                     |
    | `nve_drift`    | meV/atom/ps  | microcanonical runs: half a meV per atom in 50 ps                              |
    | `bath_drift`   | meV/atom/ps  | runs under a thermostat: 1 against a friction of 1/ps is a bias of 4 K         |
    | `p_value`      |              | least chance of the species' temperatures being one                            |
    | `radial`       |              | area between radial distributions, less twice its noise, over the reference's  |
    | `spectrum`     |              | the same for velocity spectra                                                  |

    Drifts count beyond twice their standard error; one that is not known to within five times `nve_drift` is not
    good for microcanonical runs.

    The bias under a friction γ is P/(3 k_B γ) for a drift P per atom.
    """

    step_error: float = 0.05
    symplectic: float = 1e-8
    reversal: float = 1e-6
    nve_drift: float = 0.01
    bath_drift: float = 1.0
    p_value: float = 1e-3
    radial: float = 0.02
    spectrum: float = 0.05


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Good for something or not, for what, and why."""

    good: bool
    text: str
    reasons: tuple[str, ...]


def judge(
    one_step: Mapping[str, Any],
    structure: Mapping[str, Any],
    temperatures: Sequence[Mapping[str, Any]],
    limits: Limits | None = None,
) -> Verdict:
    """Weigh all results; a temperature counts only if all below it are good as well."""
    limits = limits or Limits()
    reasons = _of_the_map(one_step, structure, limits)
    sound = not reasons
    nve_up_to = bath_up_to = None
    nve_open = bath_open = sound
    for result in sorted(temperatures, key=lambda r: float(r["temperature_K"])):
        use, why = use_at(result, limits)
        reasons += [f"{result['temperature_K']:g} K: {reason}" for reason in why]
        nve_open, bath_open = nve_open and use == "nve", bath_open and use != "none"
        nve_up_to = result["temperature_K"] if nve_open else nve_up_to
        bath_up_to = result["temperature_K"] if bath_open else bath_up_to
    highest = max(float(r["temperature_K"]) for r in temperatures)
    if bath_up_to is None:
        return Verdict(False, "not good enough for any use", tuple(reasons))
    text = "use a thermostat" if nve_up_to is None else f"good for NVE up to {nve_up_to:g} K"
    if bath_up_to != nve_up_to:
        text += f" up to {bath_up_to:g} K" if nve_up_to is None else f"; use a thermostat above, up to {bath_up_to:g} K"
    text += "; not above" if bath_up_to < highest else f" ({highest:g} K is the highest tested)"
    return Verdict(True, text, tuple(reasons))


def _of_the_map(one_step: Mapping[str, Any], structure: Mapping[str, Any], limits: Limits) -> list[str]:
    """What is wrong with the map at any temperature."""
    found = []
    if not one_step["momentum"] <= limits.step_error:
        found.append(
            f"one step is wrong by {100 * one_step['momentum']:.2g} % in momenta, "
            f"{100 * limits.step_error:g} % are allowed: train longer"
        )
    as_good_as_verlet = SAME_NOISE * structure.get("symplectic_defect_of_verlet", 0.0)
    if not structure["symplectic_defect"] <= max(limits.symplectic, as_good_as_verlet):
        found.append(f"the map is not symplectic (defect {structure['symplectic_defect']:.1e})")
    if not structure["reversal_error_A"] <= limits.reversal:
        found.append(f"the map is not reversible (misses by {structure['reversal_error_A']:.1e} Å)")
    return found


def use_at(result: Mapping[str, Any], limits: Limits) -> tuple[str, list[str]]:
    """What a map is good for at one temperature, "nve", "bath" or "none", and what stands against more."""
    if result["failure"] is not None:
        return "none", [f"the run failed after {result['ps']:.3g} ps: {result['failure']}"]
    if result["reference"]["failure"] is not None:
        return "none", [f"there is nothing to compare with, Verlet failed: {result['reference']['failure']}"]
    why, use = [], "nve"
    drift, error = result["drift"], result["drift_error"]
    if abs(drift) > limits.nve_drift + 2.0 * error:
        use = "bath"
        why.append(
            f"the energy drifts by {drift:+.3f} ± {error:.3f} meV/atom/ps, {limits.nve_drift:g} is the limit "
            f"(under a friction of 1/ps a bias of {drift * BIAS_K:+.2g} K)"
        )
    elif 2.0 * error > 5.0 * limits.nve_drift:
        use = "bath"
        longer = result["ps"] * (2.0 * error / (5.0 * limits.nve_drift)) ** (2.0 / 3.0)
        why.append(
            f"the drift, {drift:+.3f} ± {error:.3f} meV/atom/ps, is not known well enough for microcanonical runs: "
            f"run {math.ceil(longer)} ps or more"
        )
    if abs(drift) > limits.bath_drift + 2.0 * error:
        use = "none"
    reference_p = result["reference"]["p_value"]
    if _below(result["p_value"], limits.p_value) and not _below(reference_p, limits.p_value):
        use = "none"
        why.append(f"the species have different temperatures (p = {result['p_value']:.1g})")
    for name, limit in (("radial", limits.radial), ("spectrum", limits.spectrum)):
        off = result[f"{name}_excess"]
        if off > limit:
            use = "none"
            what = "radial distribution" if name == "radial" else "velocity spectrum"
            why.append(f"the {what} is off by {100 * off:.1f} %, {100 * limit:g} % are allowed")
    return use, why


def _below(value: float | None, limit: float) -> bool:
    return value is not None and value < limit
