"""Force fields of OpenMM as an ASE calculator; needs the package `openmm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ase
import ase.units
import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from actionlearn.errors import InvalidInput, UnsupportedSystem

try:
    import openmm
    from openmm import unit
except ImportError as error:
    raise ImportError("force fields of OpenMM need its package: pip install 'actionlearn[openmm]'") from error

NM = ase.units.nm
KJ_PER_MOL = ase.units.kJ / ase.units.mol


class OpenMMCalculator(Calculator):
    """Energies (eV) and forces (eV/Å) of an `openmm.System`, for the atoms of its topology in their order.

    The system must be unconstrained (made with `constraints=None, rigidWater=False`): constraint forces belong to an
    integrator, not to a potential. Particles without mass, such as virtual sites, have no momenta and are refused.

    A periodic system takes its box from the atoms; OpenMM wants the cell lower triangular. The platform `Reference`
    computes in double precision; `CPU`, much faster for boxes of hundreds of atoms, sums pairs in single precision.
    Smooth forces under PME need an `ewaldErrorTolerance` of 1e-5 or less and a `switchDistance`.

    Before the first calculation nothing of OpenMM but the system is held, so it can be sent to other processes.
    """

    implemented_properties = ["energy", "forces"]

    def __init__(self, system: openmm.System, topology: Any, *, platform: str = "Reference", threads: int = 1) -> None:
        """A system with its `openmm.app.Topology`, on a platform by name; `threads` are those of `CPU`."""
        super().__init__()
        self.numbers = _numbers(topology)
        if system.getNumParticles() != len(self.numbers):
            raise InvalidInput(
                f"a system of {system.getNumParticles()} particles does not fit a topology of {len(self.numbers)} atoms"
            )
        if system.getNumConstraints():
            raise InvalidInput(
                f"the system has {system.getNumConstraints()} constraints and a potential none: create it with "
                "constraints=None, rigidWater=False"
            )
        massless = [k for k in range(len(self.numbers)) if not _mass(system, k) > 0]
        if massless:
            raise InvalidInput(f"particle {massless[0]} has no mass: a potential takes atoms that move by themselves")
        self.system, self.platform, self.threads = system, platform, threads
        self._context: openmm.Context | None = None

    def make_atoms(self, positions: Any) -> ase.Atoms:
        """The atoms at these positions, an OpenMM quantity or Å, with the masses and the box of the system."""
        q = positions.value_in_unit(unit.angstrom) if unit.is_quantity(positions) else positions
        atoms = ase.Atoms(self.numbers, positions=np.array(q, dtype=float))
        atoms.set_masses([_mass(self.system, k) for k in range(len(atoms))])
        if self.system.usesPeriodicBoundaryConditions():
            box = self.system.getDefaultPeriodicBoxVectors()
            atoms.set_cell(np.array([vector.value_in_unit(unit.angstrom) for vector in box]))
            atoms.pbc = True
        return atoms

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Energy and forces together."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        context = self._ready(self.atoms)
        context.setPositions(self.atoms.positions / NM)
        state = context.getState(getEnergy=True, getForces=True)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        self.results = {"energy": energy * KJ_PER_MOL, "forces": np.array(forces) * (KJ_PER_MOL / NM)}

    def _ready(self, atoms: ase.Atoms) -> openmm.Context:
        """The context, made on first use, with the box of these atoms."""
        if not np.array_equal(atoms.numbers, self.numbers):
            raise UnsupportedSystem(
                f"this system is {ase.Atoms(self.numbers).get_chemical_formula()} in the order of its topology, "
                f"the atoms are {atoms.get_chemical_formula()}{' in another order' * self._same_kinds(atoms)}"
            )
        periodic = self.system.usesPeriodicBoundaryConditions()
        if not (atoms.pbc == periodic).all():
            raise UnsupportedSystem(
                f"this system is {'' if periodic else 'not '}periodic, the atoms have pbc {atoms.pbc}"
            )
        if self._context is None:
            platform = openmm.Platform.getPlatformByName(self.platform)
            settings = {"Threads": str(self.threads), "DeterministicForces": "true"} if self.platform == "CPU" else {}
            self._context = openmm.Context(self.system, openmm.VerletIntegrator(0.001), platform, settings)
        if periodic:
            if np.triu(atoms.cell.array, 1).any():
                raise UnsupportedSystem(f"OpenMM wants a lower triangular cell, not {atoms.cell.array.tolist()}")
            self._context.setPeriodicBoxVectors(*(atoms.cell.array / NM))
        return self._context

    def _same_kinds(self, atoms: ase.Atoms) -> bool:
        return sorted(atoms.numbers) == sorted(self.numbers)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what another process has to make for itself."""
        return {**self.__dict__, "_context": None}


def _numbers(topology: Any) -> np.ndarray:
    elements = [atom.element for atom in topology.atoms()]
    if None in elements:
        raise InvalidInput(f"particle {elements.index(None)} of the topology is no atom, virtual sites have no momenta")
    return np.array([element.atomic_number for element in elements])


def _mass(system: openmm.System, particle: int) -> float:
    return float(system.getParticleMass(particle).value_in_unit(unit.dalton))
