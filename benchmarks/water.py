"""Flexible water: time of a force call, and a liquid's energy drift, pressure, structure and spectrum.

    python benchmarks/water.py [--quick]

Float64, one thread. 64 molecules at 0.997 g/cm³, equilibrated and sampled at 300 K by Langevin dynamics with 0.5 fs
steps; the spectrum and the drift come from a microcanonical run after that. The pressure is N·kT/V − ∂V_pot/∂V with
molecules moved apart as a whole, by a central difference of the energy; its uncertainty is that of block means.
"""

import argparse
import time
from functools import partial

import numpy as np
import torch
from ase.units import bar

import actionlearn as al
from actionlearn.potentials import SPCFw, forces_from_energy
from actionlearn.reference.thermostat import langevin, maxwell_boltzmann, without_total_momentum
from actionlearn.systems import structure
from actionlearn.units import BOLTZMANN

STEP_FS, TEMPERATURE_K, MOLECULES = 0.5, 300.0, 64


def timings(repeats: int) -> None:
    print(f"{'molecules':>9}{'forces ms':>11}{'energy':>8}{'reverse mode':>14}{'new search':>12}   (energy on: ratios)")
    for count in (64, 216):
        state, water = al.PhaseState.from_atoms(structure(f"water{count}")), SPCFw()
        unit = median_ms(water.forces, state, repeats)
        energy, reverse, search = (
            median_ms(call, state, repeats) / unit
            for call in (water.energy, partial(forces_from_energy, water.energy), lambda s: SPCFw().forces(s))
        )
        print(f"{count:9}{unit:11.2f}{energy:8.2f}{reverse:14.2f}{search:12.2f}")


def median_ms(call, state: al.PhaseState, repeats: int) -> float:
    call(state)
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call(state)
        taken.append(time.perf_counter() - start)
    return 1e3 * float(np.median(taken))


def pressure_bar(water: SPCFw, state: al.PhaseState, strain: float = 1e-4) -> float:
    """Molecular pressure of one configuration at the nominal temperature."""
    molecules = water.molecules(state)
    m = state.masses
    shares = (m[molecules.hydrogens] / m[:3].sum()).unsqueeze(2)
    centre = state.positions[molecules.oxygen] + (shares * molecules.bonds(state.positions)).sum(1)
    per_atom = centre[molecules.molecule]
    energies = [
        SPCFw()
        .energy(al.PhaseState(
            state.positions + sign * strain * per_atom, state.momenta, m, state.numbers,
            state.cell * (1 + sign * strain), state.pbc,
        ))
        .item()
        for sign in (-1, 1)
    ]  # fmt: skip
    volume = torch.linalg.det(state.cell[0]).item()
    ideal = len(molecules.oxygen) * BOLTZMANN * TEMPERATURE_K / volume
    return (ideal - (energies[1] - energies[0]) / (6 * strain * volume)) / bar


def oxygen_distances(state: al.PhaseState, reach: float) -> np.ndarray:
    edges = al.find_edges(state, reach, half=True)
    both = (state.numbers[edges.centre] == 8) & (state.numbers[edges.other] == 8)
    return edges.vectors(state.positions).norm(dim=1)[both].numpy()


def report_structure(distances: list[np.ndarray], volume: float) -> None:
    """First maximum and minimum of g(r) between oxygens."""
    counts, edges = np.histogram(np.concatenate(distances), bins=np.arange(2.0, 6.01, 0.05))
    r = 0.5 * (edges[1:] + edges[:-1])
    shells = 4 / 3 * np.pi * (edges[1:] ** 3 - edges[:-1] ** 3)
    g = counts / len(distances) / (0.5 * MOLECULES**2 / volume * shells)
    peak = g[r < 3.2].argmax()
    dip = peak + g[(r >= r[peak]) & (r < 4.2)].argmin()
    print(f"O-O g(r): first peak {g[peak]:.2f} at {r[peak]:.2f} Å, first minimum {g[dip]:.2f} at {r[dip]:.2f} Å")


def report_spectrum(velocities: np.ndarray, interval_fs: float) -> None:
    """Bands in the power spectrum of the hydrogens' velocities."""
    window = np.hanning(len(velocities))[:, None, None]
    power = (np.abs(np.fft.rfft(velocities * window, axis=0)) ** 2).sum((1, 2))
    wavenumbers = np.fft.rfftfreq(len(velocities), interval_fs) / 2.99792458e-5
    for name, low, high in (("bend", 1200, 2200), ("stretch", 3000, 4300)):
        band = (wavenumbers > low) & (wavenumbers < high)
        mean = (power * wavenumbers)[band].sum() / power[band].sum()
        print(f"{name}: peak {wavenumbers[band][power[band].argmax()]:.0f}, mean {mean:.0f} cm⁻¹")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a shorter run")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    timings(10 if quick else 50)

    water, generator = SPCFw(), torch.Generator().manual_seed(0)
    state = al.PhaseState.from_atoms(structure(f"water{MOLECULES}"))
    state = maxwell_boltzmann(state, TEMPERATURE_K, generator)
    options = {"step_fs": STEP_FS, "temperature_K": TEMPERATURE_K, "generator": generator}
    state = langevin(state, water, steps=1000 if quick else 6000, friction_per_ps=10.0, **options)

    pressures, temperatures, distances = [], [], []
    start = time.perf_counter()
    samples, stride = (20, 50) if quick else (300, 60)
    for _ in range(samples):
        state = langevin(state, water, steps=stride, friction_per_ps=2.0, **options)
        pressures.append(pressure_bar(water, state))
        temperatures.append(state.temperature_K().item())
        distances.append(oxygen_distances(state, 6.0))
    taken = time.perf_counter() - start
    blocks = np.array([block.mean() for block in np.array_split(np.array(pressures), 10)])
    print(
        f"\nNVT, {samples * stride * STEP_FS / 1000:g} ps, {1e3 * taken / (samples * stride):.1f} ms per step: "
        f"{np.mean(temperatures):.0f} K, pressure {blocks.mean():.0f} ± {blocks.std(ddof=1) / 10**0.5:.0f} bar"
    )
    report_structure(distances, torch.linalg.det(state.cell[0]).item())

    state = without_total_momentum(state)
    verlet = al.Verlet(water, step_fs=STEP_FS)
    energies, velocities = [], []
    hydrogens = state.numbers == 1
    for _ in range(1000 if quick else 4000):
        state = verlet.step(state, n=2)
        energies.append((state.kinetic_energy() + water.energy(state)).item())
        velocities.append(state.velocities[hydrogens].numpy())
    times = 2 * STEP_FS * np.arange(len(energies))
    print(f"NVE, {times[-1] / 1000:.1f} ps: drift {al.energy_drift(times, energies, state.n_atoms)}")
    print(f"total momentum at the end {state.momenta.sum(0).abs().max().item():.1e}")
    report_spectrum(np.array(velocities), 2 * STEP_FS)


if __name__ == "__main__":
    main()
