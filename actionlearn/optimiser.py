"""Adam in the eigenbasis of the gradients' own covariance, for networks so small that the basis costs little."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Preconditioned(torch.optim.Optimizer):
    """Adam's update, taken in the basis in which the gradients of a weight matrix are least correlated.

    The method known as SOAP (Vyas and others, 2024). G is the gradient of a weight as a matrix (all but its last
    dimension are rows), ⟨·⟩ an exponential mean with memory β:

        L = ⟨G Gᵀ⟩ = Q_L Λ_L Q_Lᵀ,     R = ⟨Gᵀ G⟩ = Q_R Λ_R Q_Rᵀ
        G̃ = Q_Lᵀ G Q_R,      m̃ = Q_Lᵀ ⟨G⟩ Q_R,      v = ⟨G̃²⟩
        w ← w − η Q_L (m̃ / √v) Q_Rᵀ

    The bases follow by one step of orthogonal iteration every few updates. Sides longer than `longest` keep their own
    axes, vectors get plain Adam. The first update only looks at the gradient.

    | symbol   | variable         |
    |----------|------------------|
    | ⟨G⟩, v    | `mean`, `square` |
    | L, R     | `covariances`    |
    | Q_L, Q_R | `bases`          |
    | η, β     | `lr`, `memory`   |
    """

    def __init__(
        self,
        weights: Iterable[Tensor],
        lr: float = 1e-2,
        *,
        memory: float = 0.95,
        weight_decay: float = 1e-4,
        every: int = 5,
        longest: int = 512,
    ) -> None:
        """Refresh the bases `every` so many updates."""
        super().__init__(
            weights, {"lr": lr, "memory": memory, "weight_decay": weight_decay, "every": every, "longest": longest}
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every weight that has a gradient."""
        if closure is not None:
            raise NotImplementedError("the loss is not evaluated again: call step() without a closure")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        assert weight.grad is not None
        gradient = weight.grad.reshape(-1, weight.shape[-1] if weight.ndim > 1 else weight.numel())
        state, memory = self.state[weight], group["memory"]
        if not state:
            state.update(_begin(gradient, weight.ndim > 1, group["longest"]))
            _follow(state["covariances"], gradient, 1.0)
            state["bases"] = [None if c is None else torch.linalg.eigh(c)[1] for c in state["covariances"]]
            return
        _follow(state["covariances"], gradient, 1.0 - memory)
        state["updates"] += 1
        left, right = state["bases"]
        turned = _turn(gradient, left, right)
        state["mean"].lerp_(gradient, 1.0 - memory)
        state["square"].mul_(memory).addcmul_(turned, turned, value=1.0 - memory)
        # both means lack the same share of their past, 1 − βⁿ, while they fill up
        filled = 1.0 - memory ** state["updates"]
        mean, square = _turn(state["mean"], left, right) / filled, state["square"] / filled
        change = _turn_back(mean / (square.sqrt() + 1e-8), left, right)
        if weight.ndim > 1:
            weight.mul_(1.0 - group["lr"] * group["weight_decay"])
        weight.add_(change.reshape(weight.shape), alpha=-group["lr"])
        if state["updates"] % group["every"] == 0:
            state["bases"] = [
                None if basis is None else torch.linalg.qr(covariance @ basis)[0]
                for covariance, basis in zip(state["covariances"], state["bases"], strict=True)
            ]


def _begin(gradient: Tensor, is_matrix: bool, longest: int) -> dict[str, Any]:
    return {
        "updates": 0,
        "mean": torch.zeros_like(gradient),
        "square": torch.zeros_like(gradient),
        "covariances": [gradient.new_zeros(n, n) if is_matrix and 1 < n <= longest else None for n in gradient.shape],
    }


def _follow(covariances: list[Tensor | None], gradient: Tensor, share: float) -> None:
    left, right = covariances
    if left is not None:
        left.lerp_(gradient @ gradient.T, share)
    if right is not None:
        right.lerp_(gradient.T @ gradient, share)


def _turn(matrix: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """Into the bases."""
    matrix = matrix if left is None else left.T @ matrix
    return matrix if right is None else matrix @ right


def _turn_back(matrix: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    matrix = matrix if left is None else left @ matrix
    return matrix if right is None else matrix @ right.T
