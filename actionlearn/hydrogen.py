"""Hydrogen mass repartitioning: heavier hydrogens move slower, and allow longer steps."""

from __future__ import annotations

import ase
import numpy as np
from ase.data import atomic_masses, covalent_radii
from ase.neighborlist import neighbor_list

from actionlearn.errors import InvalidInput

REACH = 1.3
"""A bond is no longer than this times the sum of covalent radii."""

CAUTION = (
    "hydrogens are made heavier and their neighbours lighter: equilibrium averages stay what they are, "
    "times, spectra and diffusion do not"
)


def repartitioned(atoms: ase.Atoms, hydrogen_mass: float) -> ase.Atoms:
    """A copy in which every hydrogen weighs `hydrogen_mass` (u), and what it gains its heavy neighbour loses.

    The neighbour is the nearest atom that is no hydrogen, within reach of a bond. Each molecule keeps its mass. The
    potential knows nothing of masses, so that positions, and with them all averages at equilibrium, are distributed
    as before; how fast things happen is not. Momenta keep their kinetic energies, atom by atom, but for a total of
    zero that stays zero. Atoms that are repartitioned like this already are left alone. K. A. Feenstra, B. Hess and
    H. J. C. Berendsen, J. Comput. Chem. 20, 786 (1999).
    """
    natural = float(atomic_masses[1])
    if not natural < hydrogen_mass < 12.0:
        raise InvalidInput(
            f"hydrogens of {hydrogen_mass:g} u: expected a mass between {natural:g} and 12 u, 3 is usual (--hmr 3)"
        )
    is_hydrogen = atoms.numbers == 1
    if not is_hydrogen.any():
        raise InvalidInput("there is no hydrogen in this structure whose mass could be repartitioned: leave --hmr out")
    before = atoms.get_masses()
    after = atoms.copy()
    after.set_constraint(atoms.constraints)
    if np.allclose(before[is_hydrogen], hydrogen_mass, rtol=1e-6):
        return after
    if not np.allclose(before[is_hydrogen], natural, rtol=1e-3):
        odd = float(before[is_hydrogen][np.abs(before[is_hydrogen] - natural).argmax()])
        raise InvalidInput(
            f"a hydrogen weighs {odd:g} u already, expected {natural:g}: masses can be repartitioned once, to one value"
        )
    masses = before.copy()
    for k, heavy in _neighbours(atoms, is_hydrogen).items():
        masses[heavy] -= hydrogen_mass - before[k]
        masses[k] = hydrogen_mass
    light = ~is_hydrogen & (masses < hydrogen_mass)
    if light.any():
        k = int(light.argmax())
        raise InvalidInput(
            f"hydrogens of {hydrogen_mass:g} u would leave atom {k} ({atoms.symbols[k]}) with {masses[k]:.3g} u, less "
            "than theirs: choose a smaller mass"
        )
    after.set_masses(masses)
    if atoms.has("momenta"):
        p = atoms.get_momenta() * np.sqrt(masses / before)[:, None]
        if np.abs(atoms.get_momenta().sum(0)).max() <= 1e-8 * np.abs(p).sum():  # at rest as a whole, as before
            p -= masses[:, None] * p.sum(0) / masses.sum()
        after.set_momenta(p, apply_constraint=False)
    return after


def _neighbours(atoms: ase.Atoms, is_hydrogen: np.ndarray) -> dict[int, int]:
    """The heavy atom that each hydrogen is bound to."""
    i, j, d = neighbor_list("ijd", atoms, REACH * covalent_radii[atoms.numbers])
    bonds = is_hydrogen[i] & ~is_hydrogen[j]
    i, j, d = i[bonds], j[bonds], d[bonds]
    nearest = np.argsort(-d, kind="stable")  # the last one that is put down stays
    found = dict(zip(i[nearest].tolist(), j[nearest].tolist(), strict=True))
    for k in is_hydrogen.nonzero()[0].tolist():
        if k not in found:
            raise InvalidInput(f"hydrogen atom {k} is bound to no heavy atom that could lend it mass: leave --hmr out")
    return found
