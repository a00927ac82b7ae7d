"""Base potentials: static properties of the metals, time of a force call, energy drift of Verlet.

    python benchmarks/base_potentials.py [--quick]

Everything in float64 on one thread. Static: cohesive energy and lattice constant found by minimisation, and their
deviation from the table they were fitted to. Time: median of a force call on 108 atoms of CuAu while the neighbour
list holds, the time per step of a run with its searches, and ratios to both. Drift: 2 fs at 700 K after
equilibration, 10 ps (2 ps with --quick), as fitted slope and as largest excursion of block means.
"""

import argparse
import time

import numpy as np
import torch
from ase.build import bulk
from scipy.optimize import minimize_scalar

import actionlearn as al
from actionlearn.potentials import Potential, SecondMomentMetals, forces_from_energy
from actionlearn.reference.thermostat import maxwell_boltzmann
from actionlearn.systems import potential, structure

PRINTED = {
    "Ni": (4.432, 3.523),
    "Cu": (3.544, 3.615),
    "Pd": (3.936, 3.888),
    "Ag": (2.960, 4.086),
    "Pt": (5.853, 3.924),
    "Au": (3.779, 4.079),
    "Al": (3.339, 4.050),
}
STEP_FS = 2.0
TEMPERATURE_K = 700.0


def static() -> None:
    print(f"{'metal':6}{'E_coh eV':>10}{'printed':>10}{'meV off':>10}{'a Å':>10}{'printed':>10}{'mÅ off':>10}")
    for metal, (cohesive, lattice) in PRINTED.items():
        model = SecondMomentMetals((metal,))

        def energy(a, metal=metal, model=model):
            return model.energy(al.PhaseState.from_atoms(bulk(metal, "fcc", a=a))).item()

        bounds = (0.98 * lattice, 1.02 * lattice)
        best = minimize_scalar(energy, bounds=bounds, method="bounded", options={"xatol": 1e-6})
        off = 1e3 * (-best.fun - cohesive), 1e3 * (best.x - lattice)
        print(f"{metal:6}{-best.fun:10.4f}{cohesive:10.3f}{off[0]:10.2f}{best.x:10.4f}{lattice:10.3f}{off[1]:10.2f}")


def median_ms(call, repeats: int) -> float:
    call()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return 1e3 * float(np.median(taken))


def timings(state: al.PhaseState, repeats: int) -> None:
    atoms = state.to_atoms()
    metals, emt = potential("metals", atoms), potential("emt", atoms)
    unit = median_ms(lambda: metals.forces(state), repeats)
    nudge = iter(1e-6 * torch.randn(repeats + 1, *state.positions.shape, dtype=torch.float64))
    rows = {
        "forces": unit,
        "energy": median_ms(lambda: metals.energy(state), repeats),
        "forces by reverse mode": median_ms(lambda: forces_from_energy(metals.energy, state), repeats),
        "forces with a new search": median_ms(lambda: SecondMomentMetals().forces(state), repeats // 10),
        "EMT of ASE": median_ms(lambda: emt.forces(state.moved(state.positions + next(nudge), state.momenta)), 10),
    }
    print(f"\n{f'{len(atoms)} atoms':30}{'ms':>8}{'ratio':>8}")
    for name, taken in rows.items():
        print(f"{name:30}{taken:8.3f}{taken / unit:8.1f}")


def equilibrated(model: Potential, picoseconds: float) -> al.PhaseState:
    """Verlet with momenta drawn anew every 0.1 ps."""
    state = al.PhaseState.from_atoms(structure("cuau108"))
    verlet = al.Verlet(model, step_fs=STEP_FS)
    generator = torch.Generator().manual_seed(0)
    for _ in range(round(picoseconds / 0.1)):
        state = verlet.step(maxwell_boltzmann(state, TEMPERATURE_K, generator), n=round(100 / STEP_FS))
    return state


def drift(model: SecondMomentMetals, state: al.PhaseState, picoseconds: float) -> None:
    verlet = al.Verlet(model, step_fs=STEP_FS)
    steps = round(1000 * picoseconds / STEP_FS)
    energies = []
    start = time.perf_counter()
    for _ in range(steps):
        state = verlet.step(state)
        energies.append((state.kinetic_energy() + model.energy(state)).item())
    taken = time.perf_counter() - start
    slope = al.energy_drift(STEP_FS * np.arange(steps), energies, state.n_atoms)
    blocks = 1e3 * np.array([block.mean() for block in np.array_split(np.array(energies), 10)]) / state.n_atoms
    print(
        f"\nVerlet, {STEP_FS:g} fs, {picoseconds:g} ps, {state.temperature_K(removed=3).item():.0f} K at the end:"
        f" {slope}, block means within {np.ptp(blocks):.4f} meV/atom,"
        f" {1e3 * taken / steps:.2f} ms per step with energy"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a shorter run")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    static()
    model = SecondMomentMetals()
    state = equilibrated(model, 0.5 if quick else 2.0)
    timings(state, 100 if quick else 500)
    drift(model, state, 2.0 if quick else 10.0)


if __name__ == "__main__":
    main()
