"""Derivatives through an implicit midpoint step, by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from actionlearn.errors import NotConverged
from actionlearn.krylov import gmres
from actionlearn.maps.midpoint_equation import Rows
from actionlearn.state import PhaseState

Derivatives = Callable[[PhaseState, bool], tuple[Tensor, Tensor]]


def implicit_output(
    derivatives: Derivatives, state: PhaseState, half_q: Tensor, half_p: Tensor, step: float
) -> tuple[Tensor, Tensor]:
    """The increments Δ = F(z + Δ/2) of a solved step with their exact derivative, dΔ = (1 − A/2)⁻¹ A dz.

    | symbol | variable             | shape         |
    |--------|----------------------|---------------|
    | z      | `state`              | (atoms, dims) |
    | Δ/2    | `half_q`, `half_p`   | (atoms, dims) |
    | F      | `derivatives`, drift | (atoms, dims) |
    | A      | ∂F/∂z̄                |               |

    F is evaluated once more at the midpoint, with a graph to z and to whatever is trained. On the way back the
    gradient v is first replaced by w, (1 − A/2)ᵀ w = v, found by GMRES with products wᵀA from that same graph;
    the known drift part of A is eliminated beforehand, which halves the work as it does in the step itself.
    """
    with torch.enable_grad():
        q_mid, p_mid = _with_gradient(state.positions, half_q), _with_gradient(state.momenta, half_p)
        learned, dp = derivatives(state.moved(q_mid, p_mid), True)
        dq = step * state.inverse_masses * p_mid + learned
    out: tuple[Tensor, Tensor] = _ImplicitOutput.apply(dq, dp, q_mid, p_mid, state, step)
    return out


def _with_gradient(start: Tensor, half: Tensor) -> Tensor:
    """The midpoint, a constant shift from a start that gradients flow to (or a new leaf if none is asked for)."""
    return start + half if start.requires_grad else (start + half).requires_grad_()


class _ImplicitOutput(torch.autograd.Function):
    """Passes (Δq, Δp) on; its backward pass solves the adjoint equation."""

    @staticmethod
    def forward(
        ctx: Any, dq: Tensor, dp: Tensor, q_mid: Tensor, p_mid: Tensor, state: PhaseState, step: float
    ) -> tuple[Tensor, Tensor]:
        # detached views of the graph cannot be differentiated again, so the tensors themselves are kept
        ctx.graph = (dq, dp, q_mid, p_mid)
        ctx.state, ctx.step = state, step
        return dq.clone(), dp.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_q: Tensor, v_p: Tensor) -> tuple[Tensor | None, ...]:
        dq, dp, q_mid, p_mid = ctx.graph
        rows, h = Rows(ctx.state), ctx.step
        weight = ctx.state.masses.sqrt().unsqueeze(1)
        flight = 0.5 * h * ctx.state.inverse_masses

        def scaled(w_q: Tensor, w_p: Tensor) -> Tensor:
            return rows.join(w_q * h / weight, w_p * weight)

        def eliminated(u: Tensor) -> tuple[Tensor, Tensor]:
            u_q, u_p = rows.split(u)
            w_q = u_q * weight / h
            return w_q, u_p / weight + flight * w_q

        def adjoint(u: Tensor) -> Tensor:
            w_q, w_p = eliminated(u)
            with torch.enable_grad():
                a_q, a_p = torch.autograd.grad(
                    (dq, dp), (q_mid, p_mid), (w_q, w_p), retain_graph=True, allow_unused=True
                )
            a_q = torch.zeros_like(w_q) if a_q is None else a_q
            return scaled(w_q - 0.5 * a_q, w_p - 0.5 * a_p)

        tolerance = 1e4 * torch.finfo(v_q.dtype).eps
        u, left, spent = gmres(adjoint, scaled(v_q, v_p), tolerance=tolerance, max_dimensions=300)
        if bool((left > 10 * tolerance).any()):
            raise NotConverged(
                f"the derivative of the implicit step did not converge: residual {float(left.max()):.1e} after "
                f"{spent} products, {tolerance:.1e} was asked for; use a shorter step",
                residual=float(left.max()),
                tolerance=tolerance,
                iterations=spent,
            )
        return *eliminated(u), None, None, None, None
