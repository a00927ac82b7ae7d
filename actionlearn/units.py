"""Units: ASE's, Å, eV and u, so that time is counted in Å·sqrt(u/eV) and no constant enters a kernel.

A name without a suffix is in these units; any other unit is part of the name (`step_fs`, `temperature_K`).
"""

from ase import units as _ase_units

FEMTOSECOND: float = _ase_units.fs
"""One femtosecond in Å·sqrt(u/eV)."""

PICOSECOND: float = 1000.0 * FEMTOSECOND
"""One picosecond in Å·sqrt(u/eV)."""

BOLTZMANN: float = _ase_units.kB
"""Boltzmann's constant in eV/K."""

COULOMB: float = _ase_units.Hartree * _ase_units.Bohr
"""The energy of two unit charges one ångström apart, eV·Å."""

KCAL_PER_MOL: float = _ase_units.kcal / _ase_units.mol
"""One kcal/mol in eV."""

GIGAPASCAL: float = _ase_units.GPa
"""One gigapascal in eV/Å³."""

GRAM_PER_CM3: float = _ase_units.kg / 1000.0 / (_ase_units.m / 100.0) ** 3
"""One g/cm³ in u/Å³."""


def wavenumber_per_cm(angular_frequency: float) -> float:
    """Wavenumber in cm⁻¹ of an angular frequency in (Å·sqrt(u/eV))⁻¹."""
    speed_of_light_cm_per_fs = 2.99792458e-5
    return angular_frequency * FEMTOSECOND / (2.0 * 3.141592653589793 * speed_of_light_cm_per_fs)
