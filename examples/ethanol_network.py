"""Ethanol: networks matched to GFN2-xTB where they disagree, long steps on them, infrared. See ethanol_network.md."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from recipe import Recipe, command, main

import actionlearn as al
from actionlearn import dipoles, systems
from actionlearn.analysis import infrared_spectrum
from actionlearn.files import write_json
from actionlearn.losses import force_errors
from actionlearn.pictures import picture
from actionlearn.settings import Settings

BANDS = {"C-O, C-C": (800, 1200), "bends": (1200, 1600), "C-H": (2700, 3200), "O-H": (3300, 3900)}


def committee(output: Path, quick: bool) -> str:
    """A committee of networks, trained on GFN2-xTB's forces on structures that it chose; the file is its name."""
    net = output / "net.pt"
    if not net.exists():
        options = {"kind": "potential", "members": 2 if quick else 3, "base": "gfn2-xtb", "step_fs": 0.5}
        options |= {"temperature": (300.0, 500.0), "adaptive": output / "chosen", "rounds": 1 if quick else 3}
        options |= {"explore_ps": 0.01 if quick else 0.5, "updates": 4 if quick else 250, "channels": 8, "hidden": 32}
        command("train", ["ethanol"], options | {"output": net})
    return str(net)


RECIPE = Recipe(
    name="ethanol-network",
    atoms=lambda: systems.structure("ethanol"),
    potential=committee,
    step_fs=4.0,
    stages=4,
    base_step_fs=0.5,
    record_every=4,
    temperatures_K=(300.0, 500.0),
    stretches=10,
    frames=41,
    thermostat_ps=0.3,
    decorrelate_ps=0.06,
    train={"updates": 800, "channels": 16, "batch_atoms": 288},
    ps=10.0,
    reference_ps=2.0,
)


def against_base(output: Path, quick: bool) -> dict[str, float]:
    """Errors of the committee's forces on held-out stretches of GFN2-xTB at 300 K."""
    held = al.ReferenceSet.open(Path(__file__).parent.parent / "data" / "ethanol")
    data = al.Dataset(list(held), step_fs=0.5, length=1)
    found = force_errors(al.load(output / "net.pt").potential, data, frames=8 if quick else 122)
    print(f"\nforces of the committee on held-out stretches of GFN2-xTB: {found}")
    return dataclasses.asdict(found)


def infrared(output: Path, quick: bool) -> dict[str, dict[str, float]]:
    """The infrared spectrum of a long-step run, with a dipole model trained on GFN2-xTB's dipoles afterwards."""
    base, model = systems.potential("gfn2-xtb", systems.structure("ethanol")), al.load(output / "model.pt")
    seen = [s for s in al.ReferenceSet.open(output / "reference") if s.temperature_K == 300.0]
    known = [stretch.state(k) for stretch in seen for k in range(0, len(stretch), 4)]
    settings = Settings(minutes=None, updates=4 if quick else 400)
    mu = dipoles.label(known, base)
    network = dipoles.fit(known, mu, settings, network={"channels": 8}, progress=True)
    dipoles.save(network, output / "dipole.pt")
    states = [seen[-1].state(-1)]
    with torch.no_grad():
        for _ in range(100 if quick else 3000):
            states.append(model.step(states[-1]))
        moments = np.concatenate([network(state).numpy() for state in states])
    checked = states[:2] if quick else states[::20]
    found = dipoles.errors(network, checked, dipoles.label(checked, base))
    print(f"dipoles along {len(states)} steps of {model.step_fs:g} fs, against GFN2-xTB's: {found}")
    spectrum = infrared_spectrum(moments, model.step_fs, resolution_per_cm=200 if quick else 40)
    with picture(output / "infrared.png") as (axes,):
        axes.plot(spectrum.per_cm, 1e3 * spectrum.absorption)
        axes.set(xlabel="cm⁻¹", ylabel="absorption (10⁻³ cm)", title="Ethanol, infrared, steps of 4 fs")
    bands = {name: spectrum.band(*limits) for name, limits in BANDS.items()}
    for name, at in bands.items():
        print(f"  {name:10s} {at:6.0f} cm⁻¹")
    return {"bands_per_cm": bands, "dipole": dataclasses.asdict(found)}


if __name__ == "__main__":
    folder, hurried = main(RECIPE)
    row = {"committee": against_base(folder, hurried), **infrared(folder, hurried)}
    write_json(folder / "infrared.json", row)
