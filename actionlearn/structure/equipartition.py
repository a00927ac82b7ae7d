"""Kinetic temperatures of parts of a system, and whether they are one temperature.

Any part of phase space spanned by k orthonormal mass-weighted directions e holds the kinetic energy
K = ½ Σ (e·p/√m)², whose mean at equilibrium is k/2 · k_B T, whatever the potential. So T = 2⟨K⟩ / (k_B k).

| symbol | here                      | shape           | unit |
|--------|---------------------------|-----------------|------|
| T      | `temperatures_K`          | (groups,)       | K    |
| k      | `degrees`                 | (groups,)       |      |
| e      | directions of a `band`    | (k, atoms, dims)|      |

Where the total momentum is held at zero, atom i keeps d(1 − mᵢ/M) of its d degrees: heavy atoms lose more than light
ones. Where the angular momentum is held at zero too, each group loses the part of the rigid rotations that it carries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from actionlearn.errors import InvalidInput
from actionlearn.potentials.protocol import Potential
from actionlearn.state import PhaseState
from actionlearn.units import BOLTZMANN, wavenumber_per_cm


@dataclasses.dataclass(frozen=True)
class Equipartition:
    """Kinetic temperature of each group, with standard errors, and the p-value of all being equal."""

    groups: tuple[str, ...]
    temperatures_K: tuple[float, ...]
    errors_K: tuple[float, ...]
    degrees: tuple[float, ...]
    p_value: float

    def __str__(self) -> str:
        """One line for each group, then the p-value."""
        rows = zip(self.groups, self.temperatures_K, self.errors_K, self.degrees, strict=True)
        lines = [f"{name:>12} {T:8.1f} ± {error:.1f} K   ({k:.1f} degrees)" for name, T, error, k in rows]
        return "\n".join([*lines, f"{'p':>12} {self.p_value:8.3g}"])


def equipartition(
    momenta: Tensor | np.ndarray,
    state: PhaseState,
    *,
    groups: Mapping[str, ArrayLike] | None = None,
    bands: Mapping[str, Tensor] | None = None,
    momentum_removed: bool = False,
    rotation_removed: bool = False,
    blocks: int = 20,
) -> Equipartition:
    """Kinetic temperatures from momenta (frames, atoms, dims) of one system.

    By species unless `groups` names atoms (indices or a mask) or `bands` names directions, as `vibrational_bands`
    makes them. Say with `momentum_removed` and `rotation_removed` what is held at zero in the run; the positions of
    `state` give the rotations, which must not have turned much.

    Errors and p-value come from means over `blocks` stretches of time, which must be longer than the groups remember:
    Hotelling's T² on the differences between the groups, which may be correlated among each other. One group alone
    has no p-value (nan).
    """
    p = torch.as_tensor(momenta).detach().to(state.positions)
    if state.n_systems != 1 or p.ndim != 3 or p.shape[1:] != state.positions.shape:
        raise InvalidInput(
            f"momenta must have shape (frames, {', '.join(map(str, state.positions.shape))}) for one system, "
            f"not {tuple(p.shape)} for {state.n_systems}"
        )
    if not torch.isfinite(p).all():
        raise InvalidInput("momenta are not finite: the run exploded, shorten its step")
    if groups is not None and bands is not None:
        raise InvalidInput("give groups or bands, not both: they are two ways to divide the same degrees of freedom")
    removed = _rigid_directions(state, momentum_removed, rotation_removed)
    weighted = (p * state.inverse_masses.sqrt()).flatten(1)  # zero for atoms that are fixed
    weighted = weighted - (weighted @ removed.T) @ removed
    if bands is not None:
        names = tuple(bands)
        kinetic, degrees = _by_band(weighted, bands)
    else:
        masks = _masks(state, groups)
        names = tuple(masks)
        kinetic, degrees = _by_atoms(weighted, masks, state, removed)
    if min(degrees) < 1e-9:
        raise InvalidInput(f"group {names[int(np.argmin(degrees))]} has no degree of freedom: leave it out")
    series = 2.0 * kinetic / (BOLTZMANN * degrees)
    p_value = _p_value_of_equality(_block_means(series, blocks)) if len(names) > 1 else float("nan")
    errors = _block_means(series, blocks).std(0, ddof=1) / np.sqrt(blocks)
    floats = lambda values: tuple(float(v) for v in values)  # noqa: E731
    return Equipartition(names, floats(series.mean(0)), floats(errors), floats(degrees), p_value)


def vibrational_bands(
    potential: Potential, state: PhaseState, edges_per_cm: ArrayLike, displacement: float = 1e-3
) -> dict[str, Tensor]:
    """Directions of the harmonic modes of `state`, sorted into bands between these wavenumbers.

    The mass-weighted Hessian is taken by central differences of the forces, so any potential will do. Modes below the
    first edge (rigid motion, saddles) and above the last are left out. Meant for a relaxed structure that keeps its
    orientation: a solid, or a molecule that does not turn.
    """
    edges = np.asarray(edges_per_cm, dtype=float)
    free = (~state.fixed).nonzero().flatten().tolist()
    dims = state.positions.shape[1]
    columns = []
    for atom in free:
        for axis in range(dims):
            forces = []
            for sign in (1.0, -1.0):
                q = state.positions.detach().clone()
                q[atom, axis] += sign * displacement
                forces.append(potential.forces(state.moved(q, state.momenta)).detach()[free].flatten())
            columns.append((forces[1] - forces[0]) / (2.0 * displacement))
    root = state.inverse_masses[free].sqrt().expand(-1, dims).flatten()
    hessian = torch.stack(columns) * root[:, None] * root[None]
    squares, modes = torch.linalg.eigh((hessian + hessian.T) / 2)
    wavenumbers = np.array([wavenumber_per_cm(float(w)) for w in squares.sign() * squares.abs().sqrt()])
    bands = {}
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        chosen = torch.as_tensor((wavenumbers >= low) & (wavenumbers < high))
        if chosen.any():
            directions = torch.zeros(int(chosen.sum()), *state.positions.shape).to(state.positions)
            directions[:, free] = modes.T[chosen].view(-1, len(free), dims)
            bands[f"{low:g}-{high:g} /cm"] = directions
    if not bands:
        raise InvalidInput(
            f"no mode lies between {edges[0]:g} and {edges[-1]:g} /cm: the highest is {wavenumbers[-1]:.0f}"
        )
    return bands


def _masks(state: PhaseState, groups: Mapping[str, ArrayLike] | None) -> dict[str, Tensor]:
    """Which atoms each group holds; species with a mobile atom by default."""
    if groups is None:
        kinds = state.numbers[~state.fixed].unique().tolist()
        return {chemical_symbols[Z]: state.numbers == Z for Z in kinds}
    masks = {}
    for name, chosen in groups.items():
        mask = torch.zeros_like(state.fixed)
        mask[torch.as_tensor(np.asarray(chosen), device=mask.device)] = True
        masks[name] = mask
    return masks


def _by_atoms(
    weighted: Tensor, masks: Mapping[str, Tensor], state: PhaseState, removed: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    dims = state.positions.shape[1]
    share = (~state.fixed).to(weighted).repeat_interleave(dims) - (removed**2).sum(0)
    picks = torch.stack([mask.repeat_interleave(dims) for mask in masks.values()]).to(weighted)
    return (0.5 * weighted**2 @ picks.T).cpu().numpy(), (picks @ share).cpu().numpy()


def _by_band(weighted: Tensor, bands: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    flat = [torch.as_tensor(e).to(weighted).flatten(1) for e in bands.values()]
    for name, e in zip(bands, flat, strict=True):
        off = float((e @ e.T - torch.eye(len(e)).to(e)).abs().max())
        if off > 1e-6:
            raise InvalidInput(f"directions of band {name} are not orthonormal (off by {off:.1e}): orthonormalise them")
    kinetic = torch.stack([0.5 * ((weighted @ e.T) ** 2).sum(1) for e in flat], 1)
    return kinetic.cpu().numpy(), np.array([float(len(e)) for e in flat])


def _rigid_directions(state: PhaseState, momentum_removed: bool, rotation_removed: bool) -> Tensor:
    """Orthonormal mass-weighted directions of the rigid motions that are held at zero, (k, atoms·dims)."""
    q, root = state.positions.detach(), (state.masses * ~state.fixed).sqrt().unsqueeze(1)
    dims = q.shape[1]
    rows = []
    if momentum_removed:
        rows += [root * axis for axis in torch.eye(dims).to(q)]
    if rotation_removed:
        centred = q - (root**2 * q).sum(0) / (root**2).sum()
        planes = [(a, b) for a in range(dims) for b in range(a)]
        for a, b in planes:
            turn = torch.zeros_like(q)
            turn[:, a], turn[:, b] = centred[:, b], -centred[:, a]
            rows.append(root * turn)
    if not rows:
        return q.new_zeros(0, q.numel())
    _, size, directions = torch.linalg.svd(torch.stack(rows).flatten(1), full_matrices=False)
    return directions[size > 1e-8 * size[0]]


def _block_means(series: np.ndarray, blocks: int) -> np.ndarray:
    """Means over equal stretches of time, (blocks, groups)."""
    groups = series.shape[1]
    if blocks < groups + 2 or len(series) < 2 * blocks:
        raise InvalidInput(
            f"{len(series)} frames in {blocks} blocks cannot compare {groups} groups: "
            f"use at least {groups + 2} blocks of two frames"
        )
    length = len(series) // blocks
    return series[len(series) - blocks * length :].reshape(blocks, length, groups).mean(1)


def _p_value_of_equality(means: np.ndarray) -> float:
    """Hotelling's T² of the differences of neighbouring groups being zero."""
    differences = np.diff(means, axis=1)
    n, k = differences.shape
    mean, covariance = differences.mean(0), np.atleast_2d(np.cov(differences.T))
    try:
        t2 = n * mean @ np.linalg.solve(covariance, mean)
    except np.linalg.LinAlgError:
        raise InvalidInput(
            "the groups' temperatures do not fluctuate independently: atoms fly freely, or two groups are the same"
        ) from None
    return float(stats.f.sf(t2 * (n - k) / (k * (n - 1)), k, n - k))
