"""The measures of structure on integrators that are right and on some that are wrong, as one table.

    python benchmarks/structure.py [--quick]

Systems: an isolated Cu-Au cluster and a periodic Cu-Au alloy near 600 K. Columns: largest entry of |MᵀΩM − Ω| (full
Jacobian), its estimate from random directions, reversal over 10 + 10 steps, drifts of energy, momentum and angular
momentum, p-value of equal Cu and Au temperatures, and the seconds that the full defect took.
"""

import argparse
import time

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from ledger import Ledger, expected, json_option

import actionlearn as al
from actionlearn.potentials import SecondMomentMetals
from actionlearn.units import FEMTOSECOND

STEP_FS = 4.0
WRONG = ("Verlet, rescaled", "explicit Euler")


def warm(atoms: Atoms) -> Atoms:
    """Every second atom gold, about 600 K once the motion has spread, at rest as a whole."""
    atoms.numbers[::2] = 79
    atoms.set_masses("defaults")
    thermal = np.sqrt(1200 * units.kB * atoms.get_masses())[:, None]  # half of it goes into the potential energy
    atoms.set_momenta(thermal * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    Stationary(atoms)
    if not atoms.pbc.any():
        ZeroRotation(atoms)
    return atoms


def euler(potential):
    h = STEP_FS * FEMTOSECOND
    return lambda s: s.moved(s.drift(h).positions, s.kick(h * potential.forces(s)).momenta)


def rescaled(potential):
    """Verlet whose momenta are scaled back to the energy before the step."""
    verlet = al.Verlet(potential, step_fs=STEP_FS)

    def step(state):
        after = verlet(state)
        wanted = state.kinetic_energy() + potential.energy(state) - potential.energy(after)
        return after.moved(after.positions, after.momenta * (wanted / after.kinetic_energy()).sqrt())

    return step


def ase_verlet(atoms: Atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    return atoms.calc, al.as_step(VelocityVerlet(atoms, timestep=STEP_FS * units.fs))


def run(step, state, energy, steps):
    """Energies and momenta along a run, or None where it explodes."""
    start, energies, momenta = energy(state), [], []
    for _ in range(steps):
        state = step(state).detach()
        energies.append(energy(state))
        if not abs(energies[-1] - start) < state.n_atoms:  # 1 eV/atom
            return None
        momenta.append(state.momenta)
    return np.array(energies), torch.stack(momenta)


def measure(system, name, step, state, energy, steps, ledger):
    began = time.perf_counter()
    defect = al.symplectic_defect(step, state)
    seconds = time.perf_counter() - began
    estimate = al.estimate_symplectic_defect(step, state)
    back = al.reversal_error(step, state)
    linear = al.momentum_drift(step, state, 100)
    case, wrong = f"{system}, {name}", name in WRONG
    ledger.add(case, "symplectic defect", defect, **expected(wrong, 1e-11, 1e-6))
    ledger.add(case, "estimate of the defect / defect", estimate / defect, **expected(True, 0.0, 0.3))
    ledger.add(case, "reversal", back, unit="Å", **expected(wrong, 1e-13, 1e-7))
    ledger.add(case, "change of momentum", linear, limit=1e-12)
    isolated = not state.pbc.any()
    angular = f"{al.angular_momentum_drift(step, state, 100):9.1e}" if isolated else f"{'–':>9}"
    record = run(step, state, energy, steps)
    if record is None:
        drift, p_value = "exploded", float("nan")
    else:
        energies, momenta = record
        times = STEP_FS * np.arange(1, steps + 1)
        drift = str(al.energy_drift(times, energies, state.n_atoms)).removesuffix(" meV/atom/ps")
        later = momenta[steps // 4 :]
        p_value = al.equipartition(later, state, momentum_removed=True, rotation_removed=isolated, blocks=12).p_value
        if not wrong:
            ledger.add(case, "p of equal temperatures", p_value, **expected(True, 0.0, 1e-3))
    print(
        f"{name:20s} {defect:9.1e} {estimate:9.1e} {back:9.1e} {linear:9.1e} {angular} {drift:>22s} {p_value:8.2g} "
        f"{seconds:8.2f}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter runs, smaller alloy")
    json_option(parser)
    arguments = parser.parse_args()
    quick, ledger = arguments.quick, Ledger("structure")
    torch.set_num_threads(1)
    steps = 1500 if quick else 10_000
    metals = SecondMomentMetals()
    systems = {
        "cluster": warm(Atoms(Icosahedron("Cu", 2, 3.7))),
        "alloy": warm(bulk("Cu", a=3.87, cubic=True) * (2 if quick else 3)),
    }
    for name, atoms in systems.items():
        state = al.PhaseState.from_atoms(atoms)
        print(f"\n{name}: {atoms.get_chemical_formula()}, step {STEP_FS:g} fs, {steps} steps")
        print(
            f"{'':20s} {'defect':>9} {'estimate':>9} {'back, Å':>9} {'momentum':>9} {'angular':>9} "
            f"{'drift, meV/atom/ps':>22} {'p':>8} {'seconds':>8}"
        )
        total = lambda s: float(s.kinetic_energy() + metals.energy(s))  # noqa: E731
        for label, step in {
            "Verlet": al.Verlet(metals, step_fs=STEP_FS),
            "Verlet, rescaled": rescaled(metals),
            "explicit Euler": euler(metals),
        }.items():
            measure(name, label, step, state, total, steps, ledger)
        if not quick and name == "alloy":
            continue  # differences over EMT at this size take minutes
        calculator, step = ase_verlet(atoms)
        total_emt = lambda s, calc=calculator: float(s.kinetic_energy()) + calc.get_potential_energy()  # noqa: E731
        measure(name, "VelocityVerlet (ASE)", step, state, total_emt, steps, ledger)
    ledger.write(arguments.json, quick=quick)


if __name__ == "__main__":
    main()
