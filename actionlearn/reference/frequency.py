"""The highest vibrational frequency at a configuration, from differences of forces."""

from __future__ import annotations

import torch

from actionlearn.potentials.protocol import Potential
from actionlearn.state import PhaseState


def highest_frequency(
    potential: Potential, state: PhaseState, *, generator: torch.Generator, evaluations: int = 16
) -> float:
    """ω_max, the root of the largest eigenvalue of K = M^−½ (∂²V/∂q²) M^−½, by Lanczos iteration.

    Products with the Hessian are force differences, H·u ≈ (F(q) − F(q + εu))/ε with the largest displacement of an
    atom 1e-3 Å, so any potential will do. The estimate approaches ω_max from below; sixteen evaluations bring it
    within a few per cent. Returned in (Å·sqrt(u/eV))⁻¹, 0 where nothing vibrates.
    """
    root = state.inverse_masses.sqrt()  # zero for fixed atoms
    free = state.positions.numel() - int(state.fixed.sum()) * state.positions.shape[1]
    F = potential.forces(state)

    def product(u: torch.Tensor) -> torch.Tensor:
        w = root * u
        epsilon = 1e-3 / float(w.norm(dim=1).max())
        return root * (F - potential.forces(state.moved(state.positions + epsilon * w, state.momenta))) / epsilon

    u = torch.randn(state.positions.shape, generator=generator, dtype=state.positions.dtype)
    u = u.masked_fill(state.fixed.unsqueeze(1), 0.0)
    basis = [u / u.norm()]
    diagonal: list[float] = []
    coupling: list[float] = []
    for _ in range(min(evaluations, free)):
        w = product(basis[-1])
        diagonal.append(float((w * basis[-1]).sum()))
        for _twice in range(2):  # against loss of orthogonality
            for v in basis:
                w = w - (w * v).sum() * v
        size = float(w.norm())
        if size <= 1e-8 * max(map(abs, diagonal)):
            break
        coupling.append(size)
        basis.append(w / size)
    n = len(diagonal)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for k, size in enumerate(coupling[: n - 1]):
        tridiagonal[k, k + 1] = tridiagonal[k + 1, k] = size
    return max(float(torch.linalg.eigvalsh(tridiagonal)[-1]), 0.0) ** 0.5
