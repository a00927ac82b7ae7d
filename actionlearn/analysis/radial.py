"""Radial distributions by pairs of species, with every periodic image counted."""

from __future__ import annotations

import dataclasses
from itertools import combinations_with_replacement

import numpy as np
import torch
from ase.data import chemical_symbols

from actionlearn.analysis.blocks import BLOCKS, mean_and_error
from actionlearn.analysis.trajectory import Trajectory
from actionlearn.errors import InvalidInput
from actionlearn.neighbours import find_edges


@dataclasses.dataclass(frozen=True, eq=False)
class RadialDistribution:
    """The mean number of B atoms around an A atom in each shell, over what it would be if they were spread evenly.

        g_AB(r) = n_AB(r) / (ρ_B · 4π/3 · ((r + dr/2)³ − (r − dr/2)³)),      ρ_B = N_B/V

    | symbol | field    | shape              | unit                                        |
    |--------|----------|--------------------|---------------------------------------------|
    | r      | `r`      | (bins,)            | Å, middle of the shells                     |
    | g_AB   | `values` | pair → (bins,)     | none; neighbours per Å if not `relative`    |
    |        | `errors` | pair → (bins,)     | the same; standard errors from blocks       |

    Images are real: r may exceed half the cell, and an atom meets its own images. N_B counts all atoms of B, so that
    g → 1 at large r whatever the cell; an ideal gas in a cell has 1 − 1/N_B below its shortest period for like pairs.
    Where the system does not repeat in three directions no density is defined, and n_AB/dr is given instead.
    """

    r: np.ndarray
    values: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    relative: bool


def radial_distribution(
    trajectory: Trajectory, *, largest: float = 6.0, bins: int = 120, frames: int = 200, blocks: int = BLOCKS
) -> RadialDistribution:
    """Distances up to `largest` Å in `bins` shells, over at most `frames` frames spread evenly along the run."""
    if not largest > 0 or bins < 1:
        raise InvalidInput(f"largest must be positive and bins at least 1, got {largest} Å and {bins}")
    system = trajectory.system
    if system.positions.shape[1] != 3:
        raise InvalidInput(f"distances in shells need three dimensions, this system has {system.positions.shape[1]}")
    numbers = system.numbers.numpy()
    kinds = sorted(set(numbers.tolist()))
    pairs = list(combinations_with_replacement(range(len(kinds)), 2))
    kind_of = np.searchsorted(kinds, numbers)
    population = np.bincount(kind_of, minlength=len(kinds))
    width = largest / bins
    counts = []
    for k in np.unique(np.linspace(0, len(trajectory) - 1, min(frames, len(trajectory))).round().astype(int)):
        state = system.moved(torch.from_numpy(trajectory.positions[k]).to(system.cell), system.momenta)
        edges = find_edges(state, largest)
        d = edges.vectors(state.positions).norm(dim=1).numpy()
        shell = np.minimum((d / width).astype(int), bins - 1)
        a, b = kind_of[edges.centre.numpy()], kind_of[edges.other.numpy()]
        index = (a * len(kinds) + b) * bins + shell
        counts.append(np.bincount(index, minlength=len(kinds) ** 2 * bins).reshape(len(kinds), len(kinds), bins))
    mean, error = mean_and_error(np.stack(counts), blocks)
    edges_r = width * np.arange(bins + 1)
    relative = bool(system.pbc.all())
    shells = (
        4.0 / 3.0 * np.pi * np.diff(edges_r**3) / abs(float(torch.linalg.det(system.cell[0]))) if relative else width
    )
    values, errors = {}, {}
    for a, b in pairs:
        name = f"{chemical_symbols[kinds[a]]}-{chemical_symbols[kinds[b]]}"
        expected = population[a] * (population[b] if relative else 1) * shells
        values[name], errors[name] = mean[a, b] / expected, error[a, b] / expected
    return RadialDistribution(0.5 * (edges_r[1:] + edges_r[:-1]), values, errors, relative)


def coordination(
    trajectory: Trajectory, radius: float, *, frames: int = 200, blocks: int = BLOCKS
) -> dict[str, tuple[float, float]]:
    """Mean number of B atoms within `radius` Å of an A atom and its standard error, for every "A-B"."""
    found = radial_distribution(trajectory, largest=radius, bins=1, frames=frames, blocks=blocks)
    system = trajectory.system
    symbols = [chemical_symbols[z] for z in system.numbers.tolist()]
    volume = abs(float(torch.linalg.det(system.cell[0])))
    counts = {}
    for pair in found.values:
        a, b = pair.split("-")
        one = 4.0 / 3.0 * np.pi * radius**3 / volume * symbols.count(b) if found.relative else radius
        mean, error = one * float(found.values[pair][0]), one * float(found.errors[pair][0])
        counts[pair] = (mean, error)
        there_and_back = symbols.count(a) / symbols.count(b)
        counts[f"{b}-{a}"] = (mean * there_and_back, error * there_and_back)
    return counts
