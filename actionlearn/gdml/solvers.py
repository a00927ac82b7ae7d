"""The linear equations of training, (K + λ)α = F: in closed form, or by preconditioned conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from actionlearn.errors import InvalidInput, NotConverged
from actionlearn.gdml.kernel import TrainingKernel


def solve_closed(kernel: TrainingKernel, forces: Tensor, regularisation: float) -> Tensor:
    """α by Cholesky factorisation: exact, (components)² numbers of memory and (components)³/3 operations."""
    K = kernel.matrix()
    K.diagonal().add_(regularisation)
    factor, broken = torch.linalg.cholesky_ex(K)
    if int(broken):
        raise InvalidInput(
            f"the kernel matrix is not positive definite to rounding with regularisation {regularisation:g}: two "
            "geometries are alike, or σ is too large for it; use a larger regularisation or a smaller sigma"
        )
    return torch.cholesky_solve(forces.reshape(-1, 1), factor).view(-1)


def solve_iteratively(
    kernel: TrainingKernel,
    forces: Tensor,
    regularisation: float,
    *,
    rank: int,
    tolerance: float,
    max_iterations: int,
) -> tuple[Tensor, int]:
    """α by conjugate gradients behind a Nyström preconditioner, and the iterations that took.

    The matrix is never made: products with it are predictions. Memory is `rank` vectors.
    """
    precondition = nystrom_preconditioner(kernel, regularisation, rank)
    return conjugate_gradients(
        lambda v: kernel.product(v) + regularisation * v,
        forces.flatten(),
        precondition,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


def nystrom_preconditioner(kernel: TrainingKernel, regularisation: float, rank: int) -> Callable[[Tensor], Tensor]:
    """The map r → (L Lᵀ + δ)⁻¹ r, where L Lᵀ is the Nyström approximation of K by columns of some geometries.

    The geometries are those of largest remaining trace, one after the other (a partial Cholesky factorisation in
    pivoted blocks); within each, directions that nothing is left of, such as its translations and rotations, are
    dropped. δ = λ + the mean of what is left on the diagonal: the bare λ, where it is far below what few columns
    resolve, would blow up everything outside their span. Woodbury's identity gives the inverse:

        (L Lᵀ + δ)⁻¹ = [1 − L (δ + LᵀL)⁻¹ Lᵀ]/δ

    S. Blücher, K.-R. Müller and S. Chmiela, J. Chem. Theory Comput. 19, 4619 (2023), arXiv:2212.12737.
    """
    width = 3 * kernel.descriptor.n_atoms
    rank = min(rank, kernel.size)
    left = kernel.diagonal()
    floor = 1e-12 * float(left.max())
    L = left.new_zeros(kernel.size, rank)
    filled = 0
    while filled < rank and float(left.max()) > floor:
        j = int(left.view(-1, width).sum(1).argmax())
        mine = slice(j * width, (j + 1) * width)
        block = kernel.columns(j) - L[:, :filled] @ L[mine, :filled].T
        values, vectors = torch.linalg.eigh(block[mine])
        kept = (values > max(floor, 1e-10 * float(values.max()))).nonzero().flatten().flip(0)[: rank - filled]
        if not len(kept):
            left[mine] = 0.0
            continue
        new = block @ (vectors[:, kept] / values[kept].sqrt())
        L[:, filled : filled + len(kept)] = new
        filled += len(kept)
        left = (left - new.square().sum(1)).clamp_min(0.0)
        if filled < rank:
            left[mine] = 0.0
    L = L[:, :filled]
    shift = regularisation + float(left.mean())
    inner = L.T @ L
    inner.diagonal().add_(shift)
    W = torch.linalg.solve_triangular(torch.linalg.cholesky(inner), L.T, upper=False)
    return lambda r: (r - W.T @ (W @ r)) / shift


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    right: Tensor,
    precondition: Callable[[Tensor], Tensor],
    *,
    tolerance: float,
    max_iterations: int,
) -> tuple[Tensor, int]:
    """The x with A x = b, to |A x − b| ≤ tolerance·|b|, for a positive definite A; raises `NotConverged`."""
    goal = tolerance * float(right.norm())
    x, r = torch.zeros_like(right), right.clone()
    z = precondition(r)
    p, rz = z, float(r @ z)
    for iteration in range(1, max_iterations + 1):
        if float(r.norm()) <= goal:
            return x, iteration - 1
        Ap = product(p)
        step = rz / float(p @ Ap)
        x = x + step * p
        r = r - step * Ap if iteration % 50 else right - product(x)  # rounding must not pass for convergence
        z = precondition(r)
        rz, before = float(r @ z), rz
        p = z + (rz / before) * p
    residual = float(r.norm() / right.norm())
    raise NotConverged(
        f"training stands at a relative residual of {residual:.1e} after {max_iterations} iterations, expected "
        f"{tolerance:g}: raise rank, max_iterations or regularisation, or use the closed form",
        residual=residual,
        tolerance=tolerance,
        iterations=max_iterations,
    )
