"""Training: labels in, model out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ase
import numpy as np
import torch
from torch import Tensor

from actionlearn.errors import DataError, InvalidInput
from actionlearn.gdml.descriptor import PairDescriptor
from actionlearn.gdml.kernel import TrainingKernel
from actionlearn.gdml.model import GDML
from actionlearn.gdml.solvers import solve_closed, solve_iteratively
from actionlearn.gdml.symmetries import recover_symmetries
from actionlearn.reference import Stretch
from actionlearn.state import PhaseState

REGULARISATION = 1e-10
"""λ, in units of the kernel; with exact labels it only has to keep the equations solvable."""


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """Geometries of one system with their energies and forces.

    | field       | shape                  | unit |
    |-------------|------------------------|------|
    | `system`    | one system             |      |
    | `positions` | (geometries, atoms, 3) | Å    |
    | `energies`  | (geometries,)          | eV   |
    | `forces`    | (geometries, atoms, 3) | eV/Å |
    """

    system: PhaseState
    positions: Tensor
    energies: Tensor
    forces: Tensor

    def __post_init__(self) -> None:
        """Shapes, and numbers that are numbers."""
        if self.system.n_systems != 1 or self.system.positions.shape[1] != 3:
            raise InvalidInput("labels belong to one system in three dimensions")
        n = len(self.positions)
        shapes = {"positions": (n, self.system.n_atoms, 3), "energies": (n,), "forces": (n, self.system.n_atoms, 3)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or not n:
                raise DataError(
                    f"{name} of the labels have shape {tuple(array.shape)}, expected {shape}, one row or more"
                )
            if not bool(torch.isfinite(array).all()):
                where = int((~torch.isfinite(array)).nonzero()[0, 0])
                raise DataError(f"{name} of the labels are not finite in geometry {where}: leave it out")

    @classmethod
    def from_stretches(cls, stretches: Iterable[Stretch], count: int) -> Labels:
        """`count` frames, evenly spread over recorded stretches, such as a `ReferenceSet`."""
        held = list(stretches)
        frames = [(s, k) for s in held for k in range(len(s))]
        if not 0 < count <= len(frames):
            raise InvalidInput(f"{count} geometries were asked for, the stretches hold {len(frames)} frames")
        chosen = [frames[k] for k in np.linspace(0, len(frames) - 1, count).round().astype(int)]

        def gather(name: str) -> Tensor:
            return torch.from_numpy(np.stack([getattr(s.frames, name)[k] for s, k in chosen]).astype(np.float64))

        return cls(held[0].system, gather("positions"), gather("potential_energies"), gather("forces"))

    @classmethod
    def from_atoms(cls, structures: Sequence[ase.Atoms]) -> Labels:
        """From structures that carry their energies and forces, such as those that `ase.io.read` finds in a file."""
        if not structures:
            raise InvalidInput("no structures: give at least one, with energy and forces")
        first = structures[0]
        for k, atoms in enumerate(structures):
            if atoms.calc is None:
                raise DataError(f"structure {k} carries no energy and forces: read a file that holds them")
            same = np.array_equal(atoms.numbers, first.numbers) and np.array_equal(atoms.pbc, first.pbc)
            if not same or np.abs(atoms.cell.array - first.cell.array).max() > 1e-6:
                raise DataError(f"structure {k} has other atoms, another order of them or another cell than the first")
        gather = {
            "positions": [atoms.positions for atoms in structures],
            "energies": [atoms.get_potential_energy() for atoms in structures],
            "forces": [atoms.get_forces(apply_constraint=False) for atoms in structures],
        }
        tensors = {name: torch.tensor(np.array(values), dtype=torch.float64) for name, values in gather.items()}
        return cls(PhaseState.from_atoms(first), **tensors)

    def __len__(self) -> int:
        """Number of geometries."""
        return len(self.positions)

    def split(self, first: int, seed: int = 0) -> tuple[Labels, Labels]:
        """`first` geometries drawn at random, and the others."""
        if not 0 < first < len(self):
            raise InvalidInput(
                f"{len(self)} geometries cannot be split into {first} and others: leave some on each side"
            )
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(self)))
        return self.part(order[:first]), self.part(order[first:])

    def part(self, indices: Tensor) -> Labels:
        """Some of the geometries."""
        return Labels(self.system, self.positions[indices], self.energies[indices], self.forces[indices])

    def states(self) -> PhaseState:
        """All geometries as one batch of systems at rest."""
        n, s = len(self), self.system
        return PhaseState(
            self.positions.flatten(0, 1),
            torch.zeros_like(self.positions).flatten(0, 1),
            s.masses.repeat(n),
            s.numbers.repeat(n),
            s.cell.expand(n, 3, 3),
            s.pbc.expand(n, 3),
            s.fixed.repeat(n),
            torch.arange(n).repeat_interleave(s.n_atoms),
        )


@dataclasses.dataclass(frozen=True)
class ClosedForm:
    """Solve the equations of training by Cholesky factorisation."""


@dataclasses.dataclass(frozen=True)
class Iterative:
    """Solve the equations of training by conjugate gradients, to a relative residual of `tolerance`.

    `rank` columns make the Nyström preconditioner, a quarter of all unless given: more of them mean fewer iterations.
    """

    rank: int | None = None
    tolerance: float = 1e-6
    max_iterations: int = 2000


def fit(
    labels: Labels,
    *,
    sigma: float,
    symmetries: np.ndarray | Tensor | str | None = "recover",
    regularisation: float = REGULARISATION,
    solver: ClosedForm | Iterative = ClosedForm(),  # noqa: B008  # frozen
) -> GDML:
    """Train a model on labelled geometries.

    `sigma` is the length of the kernel in 1/Å·sqrt(pairs), typically 5 to 50 (`choose_sigma` finds it). `symmetries`
    are permutations of the atoms, (permutations, atoms), which must form a group with the identity; "recover" finds
    those that the geometries show, None takes none.
    """
    if not (sigma > 0 and regularisation > 0):
        raise InvalidInput(f"sigma and regularisation must be positive, got {sigma} and {regularisation}")
    system = labels.system
    descriptor = PairDescriptor(system.n_atoms, system.cell[0][system.pbc[0]])
    x, slopes = descriptor(labels.positions)
    if isinstance(symmetries, str):
        if symmetries != "recover":
            raise InvalidInput(f"symmetries is {symmetries!r}, expected 'recover', None or an array of permutations")
        symmetries = recover_symmetries(_distances(descriptor, x), system.numbers.numpy())
    permutations = _as_group(symmetries, system.numbers)
    kernel = TrainingKernel(descriptor, x, slopes, float(sigma), descriptor.pair_permutations(permutations))
    report: dict[str, Any] = {"geometries": len(labels), "regularisation": regularisation}
    if isinstance(solver, Iterative):
        rank = solver.rank or max(3 * system.n_atoms, kernel.size // 4)
        solution, report["iterations"] = solve_iteratively(
            kernel,
            labels.forces,
            regularisation,
            rank=rank,
            tolerance=solver.tolerance,
            max_iterations=solver.max_iterations,
        )
    else:
        solution = solve_closed(kernel, labels.forces, regularisation)
    expansion = kernel.expansion(solution)
    left = labels.energies - expansion.energies(expansion.terms(x))
    _refuse_contradictions(labels.energies, left)
    return GDML(
        system,
        labels.positions,
        solution.view_as(labels.positions),
        permutations=permutations,
        sigma=float(sigma),
        constant=float(left.mean()),
        report=report,
    )


def choose_sigma(
    labels: Labels,
    validation: Labels,
    *,
    sigmas: Sequence[float] = (5.0, 10.0, 20.0, 40.0),
    symmetries: np.ndarray | Tensor | str | None = "recover",
    regularisation: float = REGULARISATION,
    solver: ClosedForm | Iterative = ClosedForm(),  # noqa: B008  # frozen
    progress: Callable[[float, float], object] = lambda sigma, error: None,
) -> GDML:
    """The model of the `sigmas` that has the smallest force errors on other geometries.

    Larger ones are no longer tried once the error rises. `progress` is told every sigma and its relative error.
    """
    if not sigmas:
        raise InvalidInput("no sigmas to choose from: give at least one")
    best: GDML | None = None
    tried: dict[str, float] = {}
    for sigma in sorted(sigmas):
        if best is not None:
            symmetries = best.permutations
        model = fit(labels, sigma=sigma, symmetries=symmetries, regularisation=regularisation, solver=solver)
        error = tried[f"{sigma:g}"] = force_error(model, validation)
        progress(sigma, error)
        if best is not None and error > min(list(tried.values())[:-1]):
            break
        best = model
    assert best is not None
    best.report["validation_force_error"] = tried
    return best


@torch.no_grad()
def force_error(model: GDML, labels: Labels) -> float:
    """Root mean square error of the forces, relative to the root mean square of the labels."""
    forces = model.forces(labels.states()).view_as(labels.forces)
    return float((forces - labels.forces).norm() / labels.forces.norm())


def _distances(descriptor: PairDescriptor, x: Tensor) -> np.ndarray:
    """Distances, of periodic systems those to the nearest images, as symmetric matrices."""
    full = x.new_zeros(len(x), descriptor.n_atoms, descriptor.n_atoms)
    full[:, descriptor.first, descriptor.second] = full[:, descriptor.second, descriptor.first] = (
        1.0 / x[:, -len(descriptor.first) :]
    )
    return full.numpy()


def _as_group(symmetries: np.ndarray | Tensor | None, numbers: Tensor) -> Tensor:
    """Permutations that are a group and keep the elements, or an error."""
    identity = torch.arange(len(numbers)).unsqueeze(0)
    if symmetries is None:
        return identity
    given = torch.as_tensor(symmetries, dtype=torch.int64)
    if given.ndim != 2 or given.shape[1] != len(numbers) or not bool((given.sort(1).values == identity).all()):
        raise InvalidInput(
            f"symmetries of shape {tuple(given.shape)} are no permutations of {len(numbers)} atoms: give rows that "
            "hold each index once"
        )
    wrong = (numbers[given] != numbers).any(1)
    if bool(wrong.any()):
        raise InvalidInput(f"permutation {given[wrong][0].tolist()} exchanges different elements: remove it")
    members = {tuple(p) for p in given.tolist()}
    some = given[:: max(1, len(given) // 32)]  # of large groups not all products are tried
    products = given[:, some].flatten(0, 1)
    if len(members) < len(given) or not {tuple(p) for p in products.tolist()} <= members:
        raise InvalidInput(
            f"{len(given)} permutations are no group: products of them are missing, or some come twice; "
            "`generated_group` completes them"
        )
    return given


def _refuse_contradictions(energies: Tensor, left: Tensor) -> None:
    """The integral of the forces must explain most of how energies vary between geometries."""
    spread = float(energies.std(correction=0))
    if len(energies) > 4 and float(left.std(correction=0)) > 0.5 * spread > 1e-9:
        raise DataError(
            f"energy labels vary by {spread:.3g} eV and differ from the integral of the force labels by "
            f"{float(left.std(correction=0)):.3g} eV: units or sign of one of them are wrong, or geometries are too few"
        )
