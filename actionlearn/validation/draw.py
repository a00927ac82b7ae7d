"""The picture of a validation: energy, temperatures, structure and vibrations, next to the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from actionlearn.pictures import COLOURS, GREY, label_ends, picture


def draw(temperatures: Sequence[dict[str, Any]], path: Path) -> None:
    """Four panels; the last two show the highest temperature at which both runs came to their end."""
    with picture(path, panels=4, width=4.3) as (energy, kinetic, radial, spectrum):
        draw_energies(energy, temperatures)
        draw_temperatures(kinetic, temperatures)
        whole = [row for row in temperatures if "radial" in row]
        for axes, panel in ((radial, draw_radial), (spectrum, draw_spectrum)):
            if whole:
                panel(axes, whole[-1])
            else:
                axes.set_axis_off()
                axes.set_title("no run came to its end")


def draw_energies(axes: Axes, temperatures: Sequence[dict[str, Any]]) -> None:
    """Energy along each run; runs that fail leave the picture where others stay in it."""
    heights: list[float] = []
    labels: list[tuple[float, float, str, str]] = []
    for k, row in enumerate(temperatures):
        series, colour = row["series"], COLOURS[k % len(COLOURS)]
        times, energies = np.array(series["times_ps"]), np.array(series["energies"])
        interval = times[1] if len(times) > 1 else 0.0
        reference = np.array(series["reference_energies"])
        axes.plot(*_outline(np.arange(len(reference)) * interval, reference), color=GREY, linewidth=0.8)
        axes.plot(*_outline(times, energies), color=colour, linewidth=1.0)
        name = f"{row['temperature_K']:g} K" + ("" if row["failure"] is None else ", fails")
        labels.append((times[-1], energies[-max(len(energies) // 20, 1) :].mean(), name, colour))
        if row["failure"] is None:
            heights += [energies.min(), energies.max()]
    axes.margins(x=0.0)
    if heights and max(heights) > min(heights):
        margin = 0.15 * (max(heights) - min(heights))
        axes.set_ylim(min(heights) - margin, max(heights) + margin)
    axes.set(xlabel="time (ps)", ylabel="total energy − start (meV/atom)", title="Energy of microcanonical runs")
    label_ends(axes, [*labels, (axes.get_xlim()[1], 0.0, "Verlet", GREY)])


def _outline(times: np.ndarray, values: np.ndarray, parts: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest value in each part of a long series, in their order: what a line of it would cover."""
    if len(values) <= 4 * parts:
        return times, values
    cuts = np.array_split(np.arange(len(values)), parts)
    kept = np.array([sorted((c[values[c].argmin()], c[values[c].argmax()])) for c in cuts]).ravel()
    return times[kept], values[kept]


def draw_temperatures(axes: Axes, temperatures: Sequence[dict[str, Any]]) -> None:
    """Each species against the mean of all: energy equally shared lies on the line."""
    whole = [row for row in temperatures if "species" in row]
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    for source, marker, shift in (("map", "o", -0.15), ("Verlet", "_", 0.15)):
        for i, row in enumerate(whole):
            found = row if source == "map" else row["reference"]
            if "species" not in found:
                continue
            T = np.array(found["temperatures_K"])
            for k, species in enumerate(found["species"]):
                axes.errorbar(
                    i + shift + 0.08 * k,
                    T[k] - T.mean(),
                    found["temperature_errors_K"][k],
                    fmt=marker,
                    color=COLOURS[k % len(COLOURS)],
                    markersize=6,
                    capsize=2,
                    label=f"{species}, {source}" if i == 0 else None,
                )
    axes.set_xticks(range(len(whole)), [f"{row['temperature_K']:g} K" for row in whole])
    axes.set(ylabel="kinetic temperature − mean (K)", title="Is the energy shared equally?")
    axes.set_xlim(-0.5, max(len(whole), 1) - 0.5)
    if whole:
        axes.legend(ncols=2)


def draw_radial(axes: Axes, row: dict[str, Any]) -> None:
    """Radial distributions of all pairs at one temperature, with errors."""
    series = row["series"]
    r, nearest = np.array(series["r"]), []
    for k, (pair, values) in enumerate(series["g"].items()):
        colour, g, error = COLOURS[k % len(COLOURS)], np.array(values), np.array(series["g_errors"][pair])
        axes.fill_between(r, g - error, g + error, color=colour, alpha=0.25, linewidth=0)
        axes.plot(r, g, color=colour, linewidth=1.2, label=pair)
        axes.plot(r, series["reference_g"][pair], color="black", linewidth=0.9, linestyle=":")
        nearest += r[g > 0][:1].tolist()
    axes.set_xlim(max(0.0, min(nearest, default=0.0) - 0.5), r[-1])
    axes.set(xlabel="distance (Å)", ylabel="g(r)", title=f"Radial distribution, {row['temperature_K']:g} K")
    axes.legend(title="dotted: Verlet, base step")


def draw_spectrum(axes: Axes, row: dict[str, Any]) -> None:
    """The velocity spectrum at one temperature, with errors, up to its Nyquist limit at most."""
    series = row["series"]
    nu, D, error = (np.array(series[name]) for name in ("per_cm", "density", "density_errors"))
    axes.fill_between(nu, 1e3 * (D - error), 1e3 * (D + error), color=COLOURS[0], alpha=0.25, linewidth=0)
    axes.plot(nu, 1e3 * D, color=COLOURS[0], linewidth=1.2, label="map")
    axes.plot(
        nu, 1e3 * np.array(series["reference_density"]), color="black", linewidth=1.1, linestyle=":", label="Verlet"
    )
    limit = row["spectrum"]["nyquist_per_cm"]
    shown = nu[np.cumsum(D) <= 0.9995 * D.sum()]
    right = min(limit, 1.3 * float(shown.max()) if len(shown) else limit)
    axes.set(xlim=(0, right), xlabel="wavenumber (cm⁻¹)", ylabel="density (10⁻³ cm)", title="Velocity spectrum")
    axes.legend(title=f"Nyquist limit {limit:.0f} cm⁻¹")
