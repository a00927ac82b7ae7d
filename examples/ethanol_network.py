"""Ethanol: networks matched to GFN2-xTB where they disagree, long steps on them, infrared. See ethanol_network.md."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ethanol_gfn2 import RECIPE as TIGHT_BINDING
from recipe import Repeated, command, main

import actionlearn as al
from actionlearn import dipoles, systems
from actionlearn.analysis import InfraredSpectrum, infrared_spectrum
from actionlearn.files import write_json
from actionlearn.losses import force_errors
from actionlearn.pictures import picture
from actionlearn.settings import Settings

BANDS = {"C-O, C-C": (800, 1200), "bends": (1200, 1600), "C-H": (2700, 3200), "O-H": (3300, 3900)}
RUNS, RUN_PS = 6, 2.5
"""Runs of long steps, and as many of Verlet on GFN2-xTB, from which the spectra are averaged."""


def committee(output: Path, quick: bool) -> str:
    """A committee of networks, trained on GFN2-xTB's forces on structures that it chose; the file is its name."""
    net = output / "net.pt"
    if not net.exists():
        options = {"kind": "potential", "members": 2 if quick else 3, "base": "gfn2-xtb", "step_fs": 0.5}
        options |= {"temperature": (300.0, 500.0), "adaptive": output / "chosen", "rounds": 1 if quick else 4}
        options |= {"explore_ps": 0.01 if quick else 0.5, "updates": 4 if quick else 400, "channels": 8, "hidden": 32}
        command("train", ["ethanol"], options | {"output": net})
    return str(net)


RECIPE = dataclasses.replace(
    TIGHT_BINDING,
    name="ethanol-network",
    potential=committee,
    step_fs=4.0,
    stages=4,
    train={"updates": 1200, "channels": 16, "learning_rate": 0.015, "batch_atoms": 288},
    ps=30.0,
    reference_ps=2.0,
)


def against_base(output: Path, quick: bool) -> dict[str, float]:
    """Errors of the committee's forces on held-out stretches of GFN2-xTB at 300 K."""
    held = al.ReferenceSet.open(Path(__file__).parent.parent / "data" / "ethanol")
    data = al.Dataset(list(held), step_fs=0.5, length=1)
    found = force_errors(al.load(output / "net.pt").potential, data, frames=8 if quick else 122)
    print(f"\nforces of the committee on held-out stretches of GFN2-xTB: {found}")
    return dataclasses.asdict(found)


def infrared(output: Path, quick: bool) -> dict[str, Any]:
    """Bands of long-step runs with a dipole model trained afterwards, beside those of Verlet on GFN2-xTB itself.

    Both start from the same states. A third spectrum has the frames of the long steps and the dipoles of GFN2-xTB: it
    differs from the first by the dipole model alone.
    """
    base, model = systems.potential("gfn2-xtb", systems.structure("ethanol")), al.load(output / "model.pt")
    seen = [s for s in al.ReferenceSet.open(output / "reference") if s.temperature_K == 300.0]
    known = [stretch.state(k) for stretch in seen for k in range(0, len(stretch), 8)]
    settings = Settings(minutes=None, updates=4 if quick else 400)
    network = dipoles.fit(known, dipoles.label(known, base), settings, network={"channels": 8}, progress=True)
    dipoles.save(network, output / "dipole.pt")
    steps, starts = (60, seen[:2]) if quick else (round(1000 * RUN_PS / model.step_fs), seen[:RUNS])
    substeps = 2 if quick else round(model.step_fs / RECIPE.base_step_fs)
    verlet = Repeated(al.Verlet(base, step_fs=model.step_fs / substeps), substeps)
    long, exact = ([run(step, stretch.state(0), steps) for stretch in starts] for step in (model, verlet))
    labels = [dipoles.label(states, base) for states in long]
    error = dipoles.errors(network, [state for states in long for state in states], np.concatenate(labels))
    print(f"dipoles along the long steps, against GFN2-xTB's: {error}")
    moments = {
        "long steps": [torch.cat([network(state) for state in states]).detach().numpy() for states in long],
        "long steps, dipoles of GFN2-xTB": labels,
        "Verlet on GFN2-xTB": [dipoles.label(states, base) for states in exact],
    }
    spectra = {
        name: [infrared_spectrum(mu, model.step_fs, resolution_per_cm=400 if quick else 40) for mu in runs]
        for name, runs in moments.items()
    }
    bands = {name: {band: centre(found, *limits) for band, limits in BANDS.items()} for name, found in spectra.items()}
    for name, at in bands.items():
        print(f"{name:32s} " + ", ".join(f"{band} {mean:.0f} ± {e:.0f}" for band, (mean, e) in at.items()) + " cm⁻¹")
    with picture(output / "infrared.png") as (axes,):
        for name, found in spectra.items():
            axes.plot(found[0].per_cm, 1e3 * np.mean([one.absorption for one in found], 0), label=name, lw=1)
        axes.set(xlabel="cm⁻¹", ylabel="absorption (10⁻³ cm)", title="Ethanol, infrared, 300 K")
        axes.legend()
    return {"bands_per_cm": bands, "dipole": dataclasses.asdict(error)}


@torch.no_grad()
def run(step: Any, state: al.PhaseState, n: int) -> list[al.PhaseState]:
    """The states after each of n steps."""
    found = [state]
    for _ in range(n):
        found.append(step.step(found[-1]))
    return found[1:]


def centre(spectra: list[InfraredSpectrum], low: float, high: float) -> tuple[float, float]:
    """Mean position of a band over runs, and the error of that mean, cm⁻¹."""
    found = [spectrum.band(low, high) for spectrum in spectra]
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(len(found)))


if __name__ == "__main__":
    folder, hurried = main(RECIPE)
    if not (folder / "infrared.json").exists():
        row = {"committee": against_base(folder, hurried), **infrared(folder, hurried)}
        write_json(folder / "infrared.json", row)
