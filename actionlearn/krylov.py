"""Batched GMRES, and Newton's method on top of it without a Jacobian.

A batch holds one vector per system, (systems, dofs); shorter ones are padded with zeros. Every system has its own
Krylov space and keeps its solution from the moment it has converged.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gmres(
    apply: Callable[[Tensor], Tensor], rhs: Tensor, *, tolerance: Tensor | float, max_dimensions: int
) -> tuple[Tensor, Tensor, int]:
    """Solve A x = b by the least residual in the Krylov space of A and b (Saad and Schultz 1986).

    | symbol | variable    | shape                 |
    |--------|-------------|-----------------------|
    | A·v    | `apply(v)`  | (systems, dofs)       |
    | b      | `rhs`       | (systems, dofs)       |
    | V      | `basis`     | (systems, dofs, k)    |
    | H      | `H`         | (systems, k + 1, k)   |

    Returns the solutions, their residuals |b − A x| / |b| and how often A was applied.
    """
    size = rhs.norm(dim=1)
    beta = size.clamp_min(torch.finfo(rhs.dtype).tiny)
    basis = (rhs / beta.unsqueeze(1)).unsqueeze(2)
    solution, residual = torch.zeros_like(rhs), torch.where(size > 0, 1.0, 0.0).to(rhs.dtype)
    limit = min(max_dimensions, rhs.shape[1])
    H = rhs.new_zeros(rhs.shape[0], limit + 1, limit)
    applications = 0
    while applications < limit and bool((residual > tolerance).any()):
        k = applications
        v = apply(basis[:, :, k])
        applications += 1
        length = v.norm(dim=1)
        for _ in range(2):  # orthogonalised twice: once loses what near dependence hides
            along = torch.einsum("bdk,bd->bk", basis, v)
            v = v - torch.einsum("bdk,bk->bd", basis, along)
            H[:, : k + 1, k] += along
        rest = v.norm(dim=1)
        alive = rest > 10 * torch.finfo(rhs.dtype).eps * length
        H[:, k + 1, k] = torch.where(alive, rest, 0.0)
        basis = torch.cat([basis, torch.where(alive, 1.0 / rest, 0.0)[:, None, None] * v.unsqueeze(2)], dim=2)
        small = H[:, : k + 2, : k + 1]
        b = torch.zeros_like(small[:, :, 0])
        b[:, 0] = beta
        coefficients = (torch.linalg.pinv(small) @ b.unsqueeze(2)).squeeze(2)
        left = (b - (small @ coefficients.unsqueeze(2)).squeeze(2)).norm(dim=1) / beta
        active = residual > tolerance
        new = torch.einsum("bdk,bk->bd", basis[:, :, : k + 1], coefficients)
        solution = torch.where(active.unsqueeze(1), new, solution)
        residual = torch.where(active, left, residual)
    return solution, residual, applications


def newton_krylov(
    function: Callable[[Tensor], Tensor],
    start: Tensor,
    relative: Callable[[Tensor, Tensor], Tensor],
    active: Tensor,
    *,
    tolerance: float,
    max_evaluations: int,
    dimensions: int = 40,
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Solve y = g(y) for the `active` systems by Newton steps, (1 − ∂g/∂y) δ = g(y) − y.

    The product of the Jacobian with a vector is a difference of two values of g; each Newton step is found by
    GMRES and halved while it makes matters worse. `relative(residual, y)` measures each system.
    Returns y, g(y), the residuals and how often g was evaluated; converged or not, the caller judges.
    """
    y = start
    g = function(y)
    evaluations = 1
    left = relative(g - y, y)
    spacing = torch.finfo(y.dtype).eps ** 0.5
    while bool((active & (left > tolerance)).any()) and evaluations < max_evaluations:
        todo = (active & (left > tolerance)).unsqueeze(1)
        r = torch.where(todo, g - y, 0.0)
        scale = spacing * y.norm(dim=1, keepdim=True).clamp_min(spacing)

        def jacobian(v: Tensor, y: Tensor = y, g: Tensor = g, scale: Tensor = scale) -> Tensor:
            length = v.norm(dim=1, keepdim=True)
            step = torch.where(length > 0, scale / length, 0.0)
            change = function(y + step * v) - g
            return v - torch.where(length > 0, change / step, 0.0)

        forcing = (0.3 * tolerance / left).clamp(1e-4, 0.1)
        delta, _, spent = gmres(
            jacobian, r, tolerance=forcing, max_dimensions=min(dimensions, max_evaluations - evaluations)
        )
        evaluations += spent
        better = torch.zeros_like(active)
        for _ in range(6):
            trial = torch.where(todo & ~better.unsqueeze(1), y + delta, y)
            g_trial = function(trial)
            evaluations += 1
            left_trial = relative(g_trial - trial, trial)
            gain = todo.squeeze(1) & ~better & (left_trial < left)
            y = torch.where(gain.unsqueeze(1), trial, y)
            g = torch.where(gain.unsqueeze(1), g_trial, g)
            left = torch.where(gain, left_trial, left)
            better = better | gain
            if bool((better | ~todo.squeeze(1)).all()):
                break
            delta = 0.5 * delta
        if not bool(better.any()):
            break
    return y, g, left, evaluations
