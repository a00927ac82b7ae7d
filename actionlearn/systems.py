"""Structures and potentials by name: what the command line, the examples and the tests start from."""

from __future__ import annotations

import importlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import torch
from ase.build import bulk, molecule
from ase.cluster import Icosahedron

from actionlearn.errors import ActionlearnError, DataError, InvalidInput
from actionlearn.potentials import ASEPotential, LennardJones, Potential, SecondMomentMetals, packages
from actionlearn.potentials.lennard_jones import NOBLE_GASES
from actionlearn.units import GRAM_PER_CM3

#: Lattice constants at zero temperature, Å; those of the metals are what `SecondMomentMetals` relaxes to.
LATTICE_CONSTANTS: Mapping[str, float] = {
    "Ni": 3.523, "Cu": 3.615, "Pd": 3.888, "Ag": 4.086, "Pt": 3.924, "Au": 4.079, "Al": 4.050,
}  # fmt: skip

#: Random CuAu with relaxed positions on `SecondMomentMetals`: 3.876 to 3.878 Å over three arrangements.
RANDOM_CUAU_A = 3.877

#: a and c of the ordered L1₀ phase on `SecondMomentMetals`; planes of Cu and Au alternate along c.
ORDERED_CUAU_A, ORDERED_CUAU_C = 3.902, 3.806

SPCFW_BOND, SPCFW_ANGLE_DEGREES = 1.012, 113.24
WATER_DENSITY_G_PER_CM3 = 0.997


# --- structures -----------------------------------------------------------------------------------


def structure(name: str, seed: int = 0) -> ase.Atoms:
    """A built-in system by name (`structure_names()` lists them), or else a file that ASE reads.

    Whatever is random in it, the arrangement of an alloy or the orientation of molecules, follows `seed`.
    """
    for pattern, (build, _) in _STRUCTURES.items():
        match = re.fullmatch(pattern, name)
        if match:
            return build(match, seed)
    if not Path(name).exists():
        raise InvalidInput(
            f"no built-in system and no file is called {name!r}: built in are {', '.join(structure_names())}"
        )
    try:
        atoms = ase.io.read(name)
    except Exception as error:
        raise InvalidInput(f"cannot read a structure from {name}: {type(error).__name__}: {error}") from error
    return atoms[-1] if isinstance(atoms, list) else atoms


def default_potential(name: str) -> str:
    """Name of the potential that goes with a built-in system."""
    for pattern, (_, potential_name) in _STRUCTURES.items():
        if re.fullmatch(pattern, name):
            return potential_name
    raise InvalidInput(f"{name!r} is no built-in system, so name a potential for it: {', '.join(potential_names())}")


def structure_names() -> list[str]:
    """The built-in systems; <N> stands for a number of atoms, or of molecules for water."""
    metals = [f"{symbol.lower()}<N>" for symbol in LATTICE_CONSTANTS]
    return ["cuau<N>", "cuau<N>-ordered", *metals, "ethanol", "dipeptide", "water<N>", "lj<N>"]


def _cells_per_side(match: re.Match[str], per_cell: int = 4) -> int:
    count = int(match["count"])
    side = round((count / per_cell) ** (1 / 3))
    if count != per_cell * side**3 or count == 0:
        near = [per_cell * k**3 for k in range(max(1, side - 1), side + 3)]
        raise InvalidInput(
            f"{match[0]}: a cube of the crystal holds 4n³ atoms, {count} does not fit: try one of {near}"
        )
    return side


def _metal(match: re.Match[str], seed: int) -> ase.Atoms:
    symbol = match["symbol"].capitalize()
    return bulk(symbol, "fcc", a=LATTICE_CONSTANTS[symbol], cubic=True) * _cells_per_side(match)


def _random_cuau(match: re.Match[str], seed: int) -> ase.Atoms:
    atoms = bulk("Cu", "fcc", a=RANDOM_CUAU_A, cubic=True) * _cells_per_side(match)
    symbols = np.array(["Cu"] * len(atoms))
    symbols[np.random.default_rng(seed).permutation(len(atoms))[: len(atoms) // 2]] = "Au"
    return ase.Atoms(symbols.tolist(), positions=atoms.positions, cell=atoms.cell, pbc=True)


def _ordered_cuau(match: re.Match[str], seed: int) -> ase.Atoms:
    cell = bulk("Cu", "fcc", a=1.0, cubic=True)
    cell.symbols[cell.positions[:, 2] > 0.25] = "Au"
    cell.set_cell([ORDERED_CUAU_A, ORDERED_CUAU_A, ORDERED_CUAU_C], scale_atoms=True)
    atoms = cell * _cells_per_side(match)
    return ase.Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)


def _ethanol(match: re.Match[str], seed: int) -> ase.Atoms:
    return molecule("CH3CH2OH")


def _dipeptide(match: re.Match[str], seed: int) -> ase.Atoms:
    """Alanine between an acetyl and an N-methyl group, extended, from ideal bonds and angles, close to its minimum."""
    return ase.Atoms(
        "HCHHCONHCHCHHHCONHCHHH",
        positions=[
            *((2.000, 1.000, 0.000), (2.000, 2.090, 0.000), (1.486, 2.454, 0.890), (1.486, 2.454, -0.890)),
            *((3.427, 2.641, 0.000), (4.391, 1.877, 0.000), (3.555, 3.970, 0.000), (2.733, 4.556, 0.000)),
            *((4.853, 4.614, 0.000), (5.408, 4.316, 0.890), (5.661, 4.221, -1.232), (5.123, 4.521, -2.131)),
            *((6.630, 4.719, -1.206), (5.809, 3.141, -1.241), (4.713, 6.129, 0.000), (3.601, 6.653, 0.000)),
            *((5.846, 6.835, 0.000), (6.737, 6.359, 0.000), (5.846, 8.284, 0.000), (4.819, 8.648, 0.000)),
            *((6.360, 8.648, 0.890), (6.360, 8.648, -0.890)),
        ],
    )


def _cluster(match: re.Match[str], seed: int) -> ase.Atoms:
    """Mackay icosahedra of argon, nearest distance 1.085 σ, close to their minimum."""
    count = int(match["count"])
    sizes = {(10 * k**3 + 15 * k**2 + 11 * k + 3) // 3: k for k in range(1, 6)}
    if count not in sizes:
        raise InvalidInput(f"{match[0]}: built-in clusters are icosahedra of {list(sizes)} atoms, not {count}")
    cluster = Icosahedron("Ar", sizes[count] + 1, latticeconstant=1.085 * NOBLE_GASES["Ar"][1] * math.sqrt(2))
    return ase.Atoms(cluster.symbols, positions=cluster.positions)


def _water(match: re.Match[str], seed: int) -> ase.Atoms:
    """A periodic cube of water: oxygens on a cubic lattice of molecules, orientations drawn at random.

    Every molecule takes, of twelve orientations, the one that keeps furthest from those placed before it.
    """
    count = int(match["count"])
    if count == 0:
        raise InvalidInput("water<N> needs at least one molecule")
    rng = np.random.default_rng(seed)
    half_angle = math.radians(SPCFW_ANGLE_DEGREES) / 2
    arms = SPCFW_BOND * np.array([[math.sin(half_angle), 0, math.cos(half_angle)]]) * [[1, 1, 1], [-1, 1, 1]]
    atoms = ase.Atoms("OH2" * count, pbc=True)
    side = (atoms.get_masses().sum() / (WATER_DENSITY_G_PER_CM3 * GRAM_PER_CM3)) ** (1 / 3)
    sites = side * _lattice_sites(count, rng)
    hydrogens = np.empty((0, 3))
    for k, oxygen in enumerate(sites):
        candidates = oxygen + np.einsum("kab,hb->kha", _random_rotations(12, rng), arms)
        others = np.concatenate((np.delete(sites, k, axis=0), hydrogens))
        gaps = candidates[:, :, None] - others
        gaps -= side * np.round(gaps / side)
        closest = (gaps**2).sum(-1).min(axis=(1, 2), initial=np.inf)
        best = candidates[closest.argmax()]
        atoms.positions[3 * k : 3 * k + 3] = [oxygen, *best]
        hydrogens = np.concatenate((hydrogens, best))
    atoms.set_cell([side] * 3)
    return atoms


def _lattice_sites(count: int, rng: np.random.Generator) -> np.ndarray:
    """Sites in the unit cube, drawn from whichever cubic lattice leaves the widest spacing."""
    bases: dict[str, list[list[float]]] = {
        "sc": [[0, 0, 0]],
        "bcc": [[0, 0, 0], [0.5, 0.5, 0.5]],
        "fcc": [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    }
    nearest = {"sc": 1.0, "bcc": math.sqrt(0.75), "fcc": math.sqrt(0.5)}
    sides = {kind: math.ceil((count / len(basis)) ** (1 / 3) - 1e-9) for kind, basis in bases.items()}
    kind = max(bases, key=lambda kind: nearest[kind] / sides[kind])
    n = sides[kind]
    corners = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    sites = (corners + np.array(bases[kind])).reshape(-1, 3) / n
    return sites[np.sort(rng.permutation(len(sites))[:count])]


def _random_rotations(count: int, rng: np.random.Generator) -> np.ndarray:
    """Rotation matrices of unit quaternions, uniform over all orientations."""
    w, x, y, z = (quaternions := rng.normal(size=(4, count))) / np.linalg.norm(quaternions, axis=0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


#: Pattern of the name: how it is built, and the potential that goes with it.
_STRUCTURES: dict[str, tuple[Callable[[re.Match[str], int], ase.Atoms], str]] = {
    r"cuau(?P<count>\d+)": (_random_cuau, "metals"),
    r"cuau(?P<count>\d+)-ordered": (_ordered_cuau, "metals"),
    rf"(?P<symbol>{'|'.join(LATTICE_CONSTANTS).lower()})(?P<count>\d+)": (_metal, "metals"),
    r"ethanol": (_ethanol, "gfn2-xtb"),
    r"dipeptide": (_dipeptide, "gfn2-xtb"),
    r"water(?P<count>\d+)": (_water, "water-spcfw"),
    r"lj(?P<count>\d+)": (_cluster, "lj"),
}


# --- potentials -----------------------------------------------------------------------------------


def potential(name: str, atoms: ase.Atoms) -> Potential:
    """A potential for these atoms: a built-in name (`potential_names()`), a trained one's file, or `module:factory`.

    The factory is a function in an importable module, or in a file of the working directory; called without
    arguments, or with the atoms if it requires one, it returns an ASE calculator or a potential.
    """
    if name in _POTENTIALS:
        return _POTENTIALS[name](atoms)
    if name.endswith(".pt"):
        return _from_file(Path(name), atoms)
    if ":" in name:
        return _from_factory(name, atoms)
    raise InvalidInput(f"no potential is called {name!r}: choose from {', '.join(potential_names())}")


def common_potential(name: str, structures: Sequence[ase.Atoms]) -> Potential:
    """One potential for several systems: made for the first that has all their elements, or for a list of these."""
    elements = sorted({int(z) for atoms in structures for z in set(atoms.numbers)})
    whole = (atoms for atoms in structures if set(atoms.numbers) == set(elements))
    return potential(name, next(whole, ase.Atoms(elements)))


def potential_names() -> list[str]:
    """The built-in potentials, and the forms that any other is given in."""
    return [*_POTENTIALS, "FILE.pt", "module:factory"]


def _metals(atoms: ase.Atoms) -> Potential:
    return SecondMomentMetals(sorted(set(atoms.get_chemical_symbols())))


def _lennard_jones(atoms: ase.Atoms) -> Potential:
    return LennardJones()


def _flexible_water(atoms: ase.Atoms) -> Potential:
    water: Potential = importlib.import_module("actionlearn.potentials.water").SPCFw()
    return water


def _emt(atoms: ase.Atoms) -> Potential:
    from ase.calculators.emt import EMT

    return ASEPotential(EMT)


def _from_file(path: Path, atoms: ase.Atoms) -> Potential:
    if not path.is_file():
        raise InvalidInput(f"there is no file {path} to take a potential from: train one, or name another")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
        found = content["format"]
    except Exception as problem:
        reason = (str(problem).splitlines() or [""])[0]
        raise DataError(f"{path} cannot be read as a potential: {type(problem).__name__}: {reason}") from None
    if found not in FILE_FORMATS:
        raise DataError(f"{path} is a file of format {found!r}, potentials come from {', '.join(FILE_FORMATS)}")
    return FILE_FORMATS[found](path, atoms)


def _from_factory(name: str, atoms: ase.Atoms) -> Potential:
    module_name, _, factory_name = name.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # where an installed command does not look by itself
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except ModuleNotFoundError as error:
        if f"{module_name}.".startswith(f"{error.name}."):
            raise InvalidInput(f"cannot find the potential {name!r}: {error}; write module:factory") from error
        what = f"the potential {name!r} needs the package {error.name}, which is not installed here: install it"
        raise InvalidInput(what) from error
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(f"cannot find the potential {name!r}: {error}; write module:factory") from error
    if not callable(factory):
        raise InvalidInput(f"{name!r} is a {type(factory).__name__}: name a function that returns an ASE calculator")
    try:
        made = factory(atoms.copy()) if _requires_an_argument(factory) else factory()
    except ActionlearnError:
        raise
    except Exception as error:
        raise InvalidInput(f"{name!r} failed to make a potential: {type(error).__name__}: {error}") from error
    return made if isinstance(made, Potential) else ASEPotential(made)


def _requires_an_argument(factory: Callable[..., Any]) -> bool:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # some built-in classes have no signature
        return False
    return any(p.kind in positional and p.default is inspect.Parameter.empty for p in parameters)


#: What makes a potential of a `.pt` file, by the "format" that the file names; filled in where formats are defined.
FILE_FORMATS: dict[str, Callable[[Path, ase.Atoms], Potential]] = {}

_POTENTIALS: dict[str, Callable[[ase.Atoms], Potential]] = {
    "metals": _metals,
    "lj": _lennard_jones,
    "water-spcfw": _flexible_water,
    "emt": _emt,
    "gfn2-xtb": lambda atoms: ASEPotential(packages.gfn2_xtb),
    "so3lr": lambda atoms: ASEPotential(packages.so3lr),
}
