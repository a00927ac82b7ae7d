"""Sections on what a validation measured: the step, drift, equipartition, distributions, cost; advice on the step."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actionlearn import advice
from actionlearn.analysis import VelocitySpectrum
from actionlearn.report.evidence import Evidence
from actionlearn.report.markup import Html, beside, command, figure, folded, join, paragraph, table
from actionlearn.validation.draw import draw_energies, draw_radial, draw_spectrum, draw_temperatures
from actionlearn.validation.verdict import BIAS_K, use_at

FOLDED = 1e-3
"""Part of the energy close to the Nyquist limit above which a spectrum does not tell the fastest motion."""


def step(evidence: Evidence) -> Html:
    """Error of one step and the measures of structure, beside what is allowed."""
    assert evidence.validation is not None
    step, structure, limits = evidence.validation["one_step"], evidence.validation["structure"], evidence.limits
    rows = [
        ("error of one step, Δq", _percent(step["position"], step["position_error"]), ""),
        ("error of one step, Δp", _percent(step["momentum"], step["momentum_error"]), f"{100 * limits.step_error:g} %"),
        ("symplectic defect, |MᵀΩM − Ω|", f"{structure['symplectic_defect']:.1e}", f"{limits.symplectic:g}"),
        ("10 steps forward and back, Å", f"{structure['reversal_error_A']:.1e}", f"{limits.reversal:g}"),
        ("momentum gained in 10 steps", f"{structure['momentum_drift']:.1e}", ""),
    ]
    note = f"On {step['windows']} windows of {step['stretches']} stretches that the map has not seen, in float64."
    return join([table(("", "measured", "allowed"), rows), paragraph(note, soft=True)])


def drift(evidence: Evidence) -> Html:
    """Energy along microcanonical runs."""
    limits, uses = evidence.limits, {"nve": "NVE", "bath": "thermostat", "none": "nothing"}
    rows = []
    for row in evidence.rows:
        rows.append((f"{row['temperature_K']:g} K", *_energy(row), uses[use_at(row, limits)[0]]))
        rows.append((f"Verlet {row['reference']['step_fs']:g} fs", *_energy(row["reference"]), ""))
    header = ("run", "drift, meV/atom/ps", "noise, meV/atom", "good for")
    note = (
        f"Microcanonical runs of {evidence.rows[0]['reference']['ps']:.3g} ps; below each, velocity Verlet from the "
        f"same start. Allowed beyond twice the error: {limits.nve_drift:g} for NVE, {limits.bath_drift:g} with a "
        f"thermostat, which at a friction of 1/ps is a bias of {BIAS_K * limits.bath_drift:.1f} K."
    )
    draw = functools.partial(draw_energies, temperatures=evidence.rows)
    shown = join([table(header, rows), paragraph(note, soft=True)])
    return beside(shown, figure(draw, "Total energy of the base potential since the start"))


def _energy(run: Mapping[str, Any]) -> tuple[str, str]:
    if run["failure"] is not None:
        return f"fails after {run['ps']:.3g} ps: {run['failure']}", ""
    return _signed(run["drift"], run["drift_error"]), f"{run['fluctuation']:.3f}"


def equipartition(evidence: Evidence) -> Html:
    """Whether species are equally hot."""
    rows = []
    for row in evidence.rows:
        for name, run in (
            (f"{row['temperature_K']:g} K", row),
            (f"Verlet {row['reference']['step_fs']:g} fs", row["reference"]),
        ):
            if run["failure"] is None:
                shares = zip(run["species"], run["temperatures_K"], run["temperature_errors_K"], strict=True)
                p = "" if run["p_value"] is None else f"{run['p_value']:.2g}"
                rows.append((name, ", ".join(f"{symbol} {T:.0f} ± {error:.0f}" for symbol, T, error in shares), p))
    if not rows:
        return paragraph("No run came to its end.")
    note = "p: chance of differences as large as these between species that are equally hot."
    draw = functools.partial(draw_temperatures, temperatures=evidence.rows)
    shown = join([table(("run", "kinetic temperatures, K", "p"), rows), paragraph(note, soft=True)])
    return beside(shown, figure(draw, "Temperature of each species, as its distance from the mean"))


def distributions(evidence: Evidence) -> Html:
    """Radial distributions and velocity spectra, the hottest run first."""
    whole, limits = [row for row in evidence.rows if "radial" in row], evidence.limits
    if not whole:
        return paragraph("No run came to its end together with its reference.")
    rows = [
        (
            f"{row['temperature_K']:g} K",
            f"{100 * row['radial_excess']:.1f} %",
            f"{100 * row['spectrum_excess']:.1f} %",
            f"{row['spectrum']['mean_per_cm']:.1f} ± {row['spectrum']['mean_error']:.1f}",
            f"{row['reference']['mean_per_cm']:.1f} ± {row['reference']['mean_error']:.1f}",
        )
        for row in whole
    ]
    header = ("run", "g(r) off", "spectrum off", "mean, cm⁻¹", "Verlet, cm⁻¹")
    note = (
        f"Off: area between the curves of the map and of Verlet beyond twice their noise, over the area of Verlet's; "
        f"{100 * limits.radial:g} % and {100 * limits.spectrum:g} % are allowed. The axis of a spectrum ends at its "
        "Nyquist limit, two steps a period; faster motion would be folded back below it."
    )
    shown = [
        beside(
            figure(functools.partial(draw_radial, row=row), f"How atoms are distributed at {row['temperature_K']:g} K"),
            figure(functools.partial(draw_spectrum, row=row), f"How they vibrate at {row['temperature_K']:g} K"),
        )
        for row in reversed(whole)
    ]
    others = [folded(f"{row['temperature_K']:g} K", s) for row, s in zip(whole[-2::-1], shown[1:], strict=True)]
    return join([table(header, rows), paragraph(note, soft=True), shown[0], *others])


def cost(evidence: Evidence) -> Html:
    """Time a step, as it was on the machine that validated."""
    h, found = evidence.step_fs, fastest_period(evidence.rows)
    rows = []
    for row in evidence.rows:
        mine, base, dt = row["ms_per_step"], row["reference"]["ms_per_step"], row["reference"]["step_fs"]
        gain = (h / mine) / (dt / base) if mine > 0 and base > 0 else math.nan
        rows.append((f"{row['temperature_K']:g} K", f"{mine:.3g}", f"{base:.3g} ({dt:g} fs)", f"{gain:.2g}"))
    header = ("run", "ms a long step", "ms a base step", "speed, Verlet = 1")
    notes = ["On one thread of the machine that validated, against Verlet at the base step."]
    if found is not None and evidence.blueprint["kind"] != "corrected" and rows:
        usual, mine = found[0] / advice.VERLET_USUAL, min(row["ms_per_step"] for row in evidence.rows)
        notes.append(
            f"Verlet is often good enough at T/12, here {usual:.3g} fs: against that the map saves time where a force "
            f"of the base potential takes longer than {mine * usual / h:.2g} ms."
        )
    notes.append("Timings depend on the machine and what else it does.")
    return join([table(header, rows), paragraph(" ".join(notes), soft=True)])


# --- advice on the step ---------------------------------------------------------------------------


def fastest_period(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """The shortest of the fastest periods T (fs) over the references of a validation, and its temperature.

    None where no run came to its end, or where motion too fast for frames a step apart is folded into the spectrum.
    """
    found = []
    for row in rows:
        if "radial" not in row:
            continue
        if row["spectrum"]["at_limit"] > FOLDED:
            return None
        nu, D = (np.array(row["series"][name]) for name in ("per_cm", "reference_density"))
        spectrum = VelocitySpectrum(nu, D, D, {}, row["spectrum"]["nyquist_per_cm"], 2.0 * float(nu[1] - nu[0]))
        found.append((advice.period_of_share(spectrum), float(row["temperature_K"])))
    return min(found, default=None)


def step_advice(evidence: Evidence) -> Html:
    """The system's fastest period, the limits that follow from it, and where this map stands."""
    blueprint = evidence.blueprint
    h, s, kind = evidence.step_fs, blueprint["stages"], blueprint["kind"]
    ask = command("actionlearn advise STRUCTURE --temperature K --ensemble nve")
    found = fastest_period(evidence.rows)
    if found is None:
        why = "Frames a step apart do not tell the fastest motion of this system" if evidence.rows else "Not known yet"
        return join([paragraph(f"{why}; a short run of the base potential does:"), ask])
    T, temperature = found
    rows = [
        ("Verlet on the base potential, usual", "T/12", f"{T / advice.VERLET_USUAL:.3g}", ""),
        ("Verlet, stable", "T/5.5", f"{T / advice.VERLET_STABLE:.3g}", ""),
    ]
    if kind == "midpoint":
        for name, part in (("plain iteration converges", advice.MIDPOINT_PLAIN), ("exists", advice.MIDPOINT_EXISTS)):
            rows.append((f"midpoint action: {name}", f"T/{part:g}", f"{T / part:.3g}", _against(h, T / part)))
    elif kind != "direct":
        for name in ("nve", "langevin"):
            part = advice.SUBSTEP[name]
            use = "NVE" if name == "nve" else "a thermostat"
            rows.append((f"substep h/s under {use}", f"T/{part:g}", f"{T / part:.3g}", _against(h / s, T / part)))
    lines = [
        f"The fastest period at {temperature:g} K is T = {T:.4g} fs (99.9 % of the reference's velocity spectrum): "
        f"a step of {h:g} fs is T/{T / h:.3g}"
        + (f", a substep of {h / s:g} fs is T/{T * s / h:.3g}." if s > 1 else ".")
    ]
    if kind not in ("midpoint", "direct"):
        lines.append(
            f"An error that is repeated every substep takes energy from {math.ceil(T * s / h - 1e-9)} modes at once or "
            "more, whose frequencies add up to that of the substep. The more it takes, the weaker the heating."
        )
    lines.append("These rules were measured with maps of a few per cent error; the drift above is what counts.")
    return join(
        [
            *(paragraph(line) for line in lines),
            table(("limit", "rule", "fs", "this map"), rows),
            paragraph("For another system or temperature:"),
            ask,
        ]
    )


def _against(value: float, limit: float) -> str:
    return f"{value:.3g} fs, {'within' if value <= limit * (1 + 1e-9) else 'BEYOND'}"


def _signed(value: float, error: float, digits: int = 4) -> str:
    least = 10.0**-digits
    if abs(value) + 2.0 * error < least:
        return f"within ±{least:g}"
    return f"{value:+.{digits}f} ± {error:.{digits}f}".replace("-", "−")


def _percent(value: float, error: float | None) -> str:
    return f"{100 * value:.3g} %" if error is None else f"{100 * value:.3g} ± {100 * error:.1g} %"
