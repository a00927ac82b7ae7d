"""Kinetic temperatures in time, by element and by vibrational band, also of molecules that move and turn.

Any k orthonormal mass-weighted directions e hold, at equilibrium, the kinetic energy k/2 · k_B T, whatever the
potential, and also where the directions turn with the positions: momenta do not know of positions. So each fragment
of a system (a molecule, or a whole crystal) is laid upon a reference geometry at every frame, and its velocities are
projected on the directions found there, such as normal modes:

    w = R √m v,    R = argmin Σ m |R (q − q_com) − q_ref|²,    T = Σ_fragments Σ_e (e·w)² / (k_B k · fragments)

| symbol | here                          | shape            | unit |
|--------|-------------------------------|------------------|------|
| e      | directions of a band          | (k, atoms, dims) |      |
| q_ref  | `reference`, of one fragment  | (atoms, dims)    | Å    |
| R      | rotation, W. Kabsch, Acta Cryst. A 32, 922 (1976) | (frames, fragments, dims, dims) | |
| T      | `temperatures_K`              | (blocks, groups) | K    |

The directions of a band that is a vibration in small motion stay a fair division of the momenta in large motion; only
the name then says less. Exact in the canonical ensemble; in a microcanonical one of N degrees, up to 1/N.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from actionlearn.analysis.blocks import BLOCKS, block_means, mean_and_error
from actionlearn.analysis.trajectory import Trajectory
from actionlearn.errors import InvalidInput
from actionlearn.state import PhaseState
from actionlearn.units import BOLTZMANN


@dataclasses.dataclass(frozen=True, eq=False)
class Temperatures:
    """Kinetic temperature of each group in stretches of time, and over the whole run, with standard errors.

    Errors of a stretch come from `PARTS` parts of it, those of the run from its stretches; both are right where the
    parts are longer than the groups remember.
    """

    groups: tuple[str, ...]
    degrees: tuple[float, ...]
    times_fs: np.ndarray
    temperatures_K: np.ndarray
    errors_K: np.ndarray
    means_K: np.ndarray
    mean_errors_K: np.ndarray

    def __str__(self) -> str:
        """One line for each group."""
        rows = zip(self.groups, self.means_K, self.mean_errors_K, self.degrees, strict=True)
        return "\n".join(f"{name:>16} {T:8.1f} ± {error:.1f} K   ({k:.1f} degrees)" for name, T, error, k in rows)


PARTS = 5


def temperatures_by_species(
    trajectory: Trajectory, *, momentum_removed: bool = False, blocks: int = BLOCKS
) -> Temperatures:
    """Of each element. Where the total momentum is held at zero, atom i keeps d(1 − mᵢ/M) of its d degrees."""
    system = trajectory.system
    m, free = system.masses.numpy(), ~system.fixed.numpy()
    dims = trajectory.momenta.shape[2]
    share = dims * free * (1.0 - m / m[free].sum() if momentum_removed else 1.0)
    doubled = (trajectory.momenta**2 * system.inverse_masses.numpy()).sum(2)  # 2K of every atom
    numbers = system.numbers.numpy()
    kinds = sorted(set(numbers[free].tolist()))
    picks = np.stack([(numbers == z) & free for z in kinds], axis=1)
    names = tuple(chemical_symbols[z] for z in kinds)
    return _in_time(trajectory, names, doubled @ picks, share @ picks, blocks)


def temperatures_by_band(
    trajectory: Trajectory,
    bands: Mapping[str, Tensor],
    reference: PhaseState | None = None,
    *,
    turning: bool | None = None,
    momentum_removed: bool = False,
    blocks: int = BLOCKS,
) -> Temperatures:
    """Of each band of directions, as `structure.vibrational_bands` and `rigid_bands` make them.

    `reference` is the geometry of one fragment, for which the bands were made; the system is any number of these, one
    after the other, elements in the same order. It may be left out where the fragment is the system and does not turn.
    With `turning` (default: where nothing is periodic, or there are several fragments) fragments are turned onto it.
    Where the total momentum is held at zero, bands lose what the motion of the whole has of them, such as three
    degrees of the translations of all molecules. Of fixed atoms they lose all that these have of them.
    """
    e = _directions(bands)
    system, n = trajectory.system, e[0].shape[1]
    if system.n_atoms % n:
        raise InvalidInput(f"the bands are for fragments of {n} atoms, {system.n_atoms} atoms are no multiple of that")
    fragments = system.n_atoms // n
    if turning is None:
        turning = fragments > 1 or not bool(system.pbc.any())
    if reference is not None:
        _check_fragments(system, reference, n)
    root = np.sqrt(system.masses.numpy()).reshape(fragments, n, 1)
    shape = (len(trajectory), fragments, n, -1)
    free = ~system.fixed.numpy().reshape(fragments, n, 1)
    if momentum_removed and not free.all():
        raise InvalidInput("with fixed atoms the total momentum is not held at zero: leave momentum_removed out")
    w = trajectory.momenta.reshape(shape) / root * free
    if turning:
        if reference is None:
            raise InvalidInput("fragments that turn are turned back onto a reference: give the geometry of the bands")
        w = _turned(trajectory.positions.reshape(shape), w, root, reference.positions.detach().numpy())
    doubled = np.stack([(np.einsum("tfad,kad->tfk", w, one) ** 2).sum((1, 2)) for one in e], axis=1)
    degrees = np.array([float((np.einsum("fax,kad->fkd", free, one**2)).sum()) for one in e])
    if momentum_removed:
        whole = root / np.sqrt((root**2).sum())
        degrees -= [(np.einsum("fam,kad->fkd", whole, one) ** 2).sum() for one in e]
    return _in_time(trajectory, tuple(bands), doubled, degrees, blocks)


def rigid_bands(reference: PhaseState) -> dict[str, Tensor]:
    """Directions of the motion of a fragment as a whole: "translation" and "rotation", mass-weighted, orthonormal."""
    q, root = reference.positions.detach(), reference.masses.sqrt().unsqueeze(1)
    dims = q.shape[1]
    centred = q - (root**2 * q).sum(0) / (root**2).sum()
    turns = []
    for a in range(dims):
        for b in range(a):
            turn = torch.zeros_like(q)
            turn[:, a], turn[:, b] = centred[:, b], -centred[:, a]
            turns.append(root * turn)
    moves = torch.stack([root * axis for axis in torch.eye(dims).to(q)])
    found = {"translation": _orthonormal(moves)}
    if turns and len(q) > 1:
        found["rotation"] = _orthonormal(torch.stack(turns))
    return found


def _orthonormal(directions: Tensor) -> Tensor:
    _, size, rows = torch.linalg.svd(directions.flatten(1), full_matrices=False)
    return rows[size > 1e-8 * size[0]].view(-1, *directions.shape[1:])


def _directions(bands: Mapping[str, Tensor]) -> list[np.ndarray]:
    """The directions of every band, seen to be orthonormal within it."""
    if not bands:
        raise InvalidInput("no bands were given: structure.vibrational_bands(potential, state, edges) makes some")
    found = []
    for name, directions in bands.items():
        e = torch.as_tensor(directions).detach().double().numpy()
        flat = e.reshape(len(e), -1)
        off = np.abs(flat @ flat.T - np.eye(len(e))).max()
        if off > 1e-6:
            raise InvalidInput(f"directions of band {name} are not orthonormal (off by {off:.1e}): orthonormalise them")
        found.append(e)
    return found


def _check_fragments(system: PhaseState, reference: PhaseState, n: int) -> None:
    if reference.n_atoms != n:
        raise InvalidInput(f"the reference has {reference.n_atoms} atoms, the bands are for {n}: they must be of one")
    if (system.numbers.reshape(-1, n) != reference.numbers).any():
        raise InvalidInput("the elements of the fragments differ from those of the reference, or their order does")


def _turned(q: np.ndarray, w: np.ndarray, root: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Mass-weighted velocities in the axes of the reference; fragments must not be cut by a cell's edge."""
    m = root**2
    target = reference - (m[0] * reference).sum(0) / m[0].sum()
    centred = q - (m * q).sum(2, keepdims=True) / m.sum(1)[:, None]
    U, _, Vh = np.linalg.svd(np.einsum("tfai,aj->tfij", m * centred, target))
    sign = np.linalg.det(U @ Vh)
    U[..., -1] *= sign[..., None]
    return np.einsum("tfai,tfij->tfaj", w, U @ Vh)


def _in_time(
    trajectory: Trajectory, groups: tuple[str, ...], doubled: np.ndarray, degrees: np.ndarray, blocks: int
) -> Temperatures:
    """Temperatures from twice the kinetic energies, (frames, groups)."""
    if (degrees < 1e-9).any():
        raise InvalidInput(f"group {groups[int(np.argmin(degrees))]} has no degree of freedom: leave it out")
    series = doubled / (BOLTZMANN * degrees)
    length = len(series) // blocks
    if length < PARTS:
        raise InvalidInput(f"{len(series)} frames do not fill {blocks} blocks of {PARTS}: record more, or fewer blocks")
    first = len(series) - blocks * length
    stretches = [mean_and_error(series[first + k * length :][:length], PARTS) for k in range(blocks)]
    times = trajectory.interval_fs * (first + length * (np.arange(blocks) + 0.5) - 0.5)
    means = block_means(series, blocks)
    return Temperatures(
        groups,
        tuple(float(k) for k in degrees),
        times,
        means,
        np.stack([error for _, error in stretches]),
        means.mean(0),
        means.std(0, ddof=1) / np.sqrt(blocks),
    )
