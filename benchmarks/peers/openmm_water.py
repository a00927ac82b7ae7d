"""Flexible water in OpenMM, with PME: its own integrators beside our corrected map on its forces.

    python benchmarks/peers/openmm_water.py [--quick] [--molecules 216] [--json FILE]

Needs OpenMM (pip install 'actionlearn[openmm]'). SPC/Fw water is written down as an OpenMM system: harmonic bonds and
angles, Lennard-Jones, charges under particle mesh Ewald, 9 Å, double precision where the platform has it. One thread.

Errors are those of Δp over 4 fs from the same states against Verlet on the same forces at 1/32 fs, so that what the
network learned on shifted and damped charges is judged on Ewald's. Speed is nanoseconds a day of this machine under
whatever load it has; the columns that compare are CPU times measured in turns, in units of OpenMM's Verlet of 0.5 fs.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from clock import Turns  # noqa: E402
from ledger import Ledger, json_option  # noqa: E402
from yardstick import Contender, moving  # noqa: E402

import actionlearn as al  # noqa: E402
from actionlearn import systems  # noqa: E402
from actionlearn.dynamics import Langevin  # noqa: E402
from actionlearn.potentials.water import (  # noqa: E402
    ANGLE,
    ANGLE_STIFFNESS,
    BOND,
    BOND_STIFFNESS,
    EPSILON,
    HYDROGEN_CHARGE,
    OXYGEN_CHARGE,
    SIGMA,
)
from actionlearn.reference.thermostat import maxwell_boltzmann  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
SPAN_FS = 4.0
EV = 96.48533212331
"""One eV in kJ/mol."""
PS = 1000.0 * al.units.FEMTOSECOND
SLOW, FAST = 1, 0


def water_system(atoms: Any) -> openmm.System:
    """SPC/Fw for molecules listed as O, H, H; bonds and angles in force group 0, the rest in group 1."""
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    system.setDefaultPeriodicBoxVectors(*(0.1 * atoms.cell.array))
    bonds, angles, nonbonded = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.NonbondedForce()
    for o in range(0, len(atoms), 3):
        for h in (o + 1, o + 2):
            bonds.addBond(o, h, 0.1 * BOND, BOND_STIFFNESS * EV * 100.0)
        angles.addAngle(o + 1, o, o + 2, ANGLE, ANGLE_STIFFNESS * EV)
        nonbonded.addParticle(OXYGEN_CHARGE, 0.1 * SIGMA, EPSILON * EV)
        for _ in range(2):
            nonbonded.addParticle(HYDROGEN_CHARGE, 0.1, 0.0)
        for i, j in ((o, o + 1), (o, o + 2), (o + 1, o + 2)):
            nonbonded.addException(i, j, 0.0, 0.1, 0.0)
    nonbonded.setNonbondedMethod(openmm.NonbondedForce.PME)
    nonbonded.setCutoffDistance(0.9)
    nonbonded.setEwaldErrorTolerance(1e-5)
    for force, group in ((bonds, FAST), (angles, FAST), (nonbonded, SLOW)):
        force.setForceGroup(group)
        system.addForce(force)
    return system


def context(system: openmm.System, integrator: openmm.Integrator) -> openmm.Context:
    """On the CPU platform, one thread."""
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})


class OpenMMForces:
    """The forces of a context as a base potential; without derivatives."""

    def __init__(self, system: openmm.System) -> None:
        """A context of its own."""
        self.context = context(system, openmm.VerletIntegrator(0.001))

    def _state(self, state: al.PhaseState, **wanted: bool) -> openmm.State:
        self.context.setPositions(0.1 * state.positions.detach().numpy())
        return self.context.getState(**wanted)

    def energy(self, state: al.PhaseState) -> torch.Tensor:
        """Potential energy, (1,), eV."""
        found = self._state(state, getEnergy=True).getPotentialEnergy()
        return state.positions.new_tensor([found.value_in_unit(unit.kilojoule_per_mole) / EV])

    def forces(self, state: al.PhaseState) -> torch.Tensor:
        """−∂V/∂q, (atoms, 3), eV/Å."""
        found = self._state(state, getForces=True).getForces(asNumpy=True)
        return state.positions.new_tensor(found.value_in_unit(unit.kilojoule_per_mole / unit.nanometer) / EV / 10.0)


class Native:
    """An integrator of OpenMM that covers the long step inside OpenMM, in `substeps` steps."""

    def __init__(self, system: openmm.System, integrator: openmm.Integrator, substeps: int) -> None:
        """A context of its own."""
        self.context, self.substeps = context(system, integrator), substeps
        leapfrog = isinstance(integrator, openmm.VerletIntegrator)
        self.behind_ps = 0.5 * SPAN_FS / substeps / 1000.0 if leapfrog else 0.0
        """By how much velocities lag behind positions."""

    def place(self, state: al.PhaseState) -> None:
        """Put a state in; units of OpenMM are nm and ps."""
        self.context.setPositions(0.1 * state.positions.numpy())
        v = 0.1 * PS * state.velocities.numpy()
        self.context.setVelocities(v - self.behind_ps * self._acceleration(state))

    def cover(self) -> None:
        """The long step."""
        self.context.getIntegrator().step(self.substeps)
        self.context.getState(getForces=True)  # a reader waits for its forces, too

    def momenta(self, state: al.PhaseState) -> np.ndarray:
        """Momenta after the long step from a state, in ASE's units."""
        self.place(state)
        self.cover()
        found = self.context.getState(getVelocities=True).getVelocities(asNumpy=True)
        v = found.value_in_unit(unit.nanometer / unit.picosecond) + self.behind_ps * self._acceleration(state)
        return v * 10.0 / PS * state.masses.unsqueeze(1).numpy()

    def _acceleration(self, state: al.PhaseState) -> np.ndarray:
        """Of the positions in the context, nm/ps²."""
        found = self.context.getState(getForces=True).getForces(asNumpy=True)
        return found.value_in_unit(unit.kilojoule_per_mole / unit.nanometer) / state.masses.unsqueeze(1).numpy()


def integrators() -> dict[str, tuple[Any, int, str]]:
    """Name → integrator, its steps in 4 fs, whether it follows Newton's equations."""
    fs = 1e-3
    found: dict[str, tuple[Any, int, str]] = {}
    for n in (16, 8, 4):
        found[f"Verlet, {SPAN_FS / n:g} fs"] = openmm.VerletIntegrator(SPAN_FS / n * fs), n, "Newton"
    for outer, inner in ((2.0, 4), (2.0, 8)):
        groups = [(SLOW, 1), (FAST, inner)]
        found[f"MTS, {outer:g} fs / {inner}"] = openmm.MTSIntegrator(outer * fs, groups), int(SPAN_FS / outer), "Newton"
    for step in (0.5, 1.0):
        langevin = openmm.LangevinMiddleIntegrator(300.0, 1.0, step * fs)
        found[f"LangevinMiddle, {step:g} fs"] = langevin, round(SPAN_FS / step), "Langevin"
    return found


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer starts and turns")
    parser.add_argument("--molecules", type=int, default=216)
    json_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    quick, ledger = arguments.quick, Ledger("openmm_water")
    atoms = systems.structure(f"water{arguments.molecules}")
    system = water_system(atoms)
    base = OpenMMForces(system)
    cold = maxwell_boltzmann(al.PhaseState.from_atoms(atoms), 300.0, torch.Generator().manual_seed(0))
    bath = Langevin(300.0, 10.0, seed=0, zero_momentum=True)
    state = al.simulate(al.Verlet(base, step_fs=0.5), cold, 400 if quick else 2000, ensemble=bath).state
    starts = [state]
    for _ in range(1 if quick else 3):
        starts.append(al.simulate(al.Verlet(base, step_fs=0.5), starts[-1], 100).state)
    with torch.no_grad():
        exact = [al.Verlet(base, step_fs=SPAN_FS / 128).step(s, 128).momenta.numpy() for s in starts]
    weight = 1.0 / np.sqrt(state.masses.unsqueeze(1).numpy())
    size = math.sqrt(sum((((e - s.momenta.numpy()) * weight) ** 2).sum() for e, s in zip(exact, starts, strict=True)))

    def error(ends: list[np.ndarray]) -> float:
        squares = sum((((end - e) * weight) ** 2).sum() for end, e in zip(ends, exact, strict=True))
        return math.sqrt(squares) / size

    errors, calls, forces = {}, {}, {}
    for name, (integrator, n, kind) in integrators().items():
        native = Native(system, integrator, n)
        errors[name] = error([native.momenta(s) for s in starts]) if kind == "Newton" else math.nan
        native.place(state)
        calls[name], forces[name] = native.cover, n
    for name in ("water-corrected-2fs", "water-corrected-4fs"):
        model = al.load(ROOT / "data" / "models" / f"{name}.pt", base=OpenMMForces(system))
        contender = Contender(name, model, round(SPAN_FS / model.step_fs))
        with torch.no_grad():
            errors[name] = error([contender.cover(s).momenta.numpy() for s in starts])
        calls[name], forces[name] = moving(contender, state), contender.substeps * model.stages
    plain = al.Verlet(OpenMMForces(system), step_fs=0.5)
    calls["our Verlet on it, 0.5 fs"] = moving(Contender("", plain, 8), state)
    with torch.no_grad():
        errors["our Verlet on it, 0.5 fs"] = error([plain.step(s, 8).momenta.numpy() for s in starts])
    forces["our Verlet on it, 0.5 fs"] = 8
    turns = Turns(calls, 5 if quick else 25)
    print(
        f"{arguments.molecules} molecules of flexible water, PME, OpenMM {openmm.__version__}, CPU platform\n"
        f"{'':27s}{'slow forces/ps':>15s}{'dp over 4 fs, %':>17s}{'CPU ms/ps':>11s}{'ns/day':>8s}"
        f"{'CPU / Verlet 0.5 fs':>21s}"
    )
    for name in calls:
        ms = turns.ms(name) * 1000.0 / SPAN_FS
        ratio, uncertainty = turns.ratio(name, "Verlet, 0.5 fs")
        shown = "      –" if math.isnan(errors[name]) else f"{100 * errors[name]:7.3f}"
        print(
            f"{name:27s}{forces[name] * 1000.0 / SPAN_FS:15.0f}{shown:>17s}{ms:11.0f}{86400.0 / ms:8.2f}"
            f"{ratio:14.2f} ±{uncertainty:.2f}"
        )
        ledger.add(name, "CPU / OpenMM's Verlet of 0.5 fs", ratio, error=uncertainty, tolerance=0.25)
        if not math.isnan(errors[name]):
            ledger.add(name, "error of Δp over 4 fs", 100 * errors[name], unit="%", tolerance=0.1)
    ledger.write(arguments.json, quick=quick)


if __name__ == "__main__":
    main()
