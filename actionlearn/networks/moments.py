"""Moments of the neighbourhoods, their channels, the invariants made of these, and the way back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from actionlearn.networks.neighbourhood import Neighbourhood


class Moments:
    """One layer: moments of its radial functions, mixed into channels that products make invariant.

        M = Σ_j R_j A_j,    a = W M,    x = L⁰, L¹·R¹, L²:R², L¹·L²·R¹

    | symbol | variable           | shape                                 |
    |--------|--------------------|---------------------------------------|
    | R      | `radial`           | (atoms, width, neighbours)            |
    | A      | `angular`          | (atoms, 10 or 23, neighbours)         |
    | M      | `moments`          | (atoms, 10 or 23, width)              |
    | W      | `weights`          | (atoms, width, 2C) for every rank     |
    | L, R   | halves of `a1`, `a2`, … | (atoms, components, C)           |
    | x      | `x`                | (atoms, features)                     |

    Of a⁰ only the left half is used. With 23 rows the last 13 are odd under time reversal, and enter in pairs.
    """

    def __init__(self, radial: Tensor, angular: Tensor, weights: Sequence[Tensor], around: Neighbourhood) -> None:
        """From radial functions to invariants."""
        self.radial, self.angular, self.weights, self.around = radial, angular, weights, around
        moments = torch.bmm(angular, radial.transpose(1, 2))
        a0 = torch.bmm(moments[:, :1], weights[0])
        self.a1 = torch.bmm(moments[:, 1:4], weights[1])
        self.six = torch.bmm(moments[:, 4:10], weights[2])
        self.a2 = self.six.index_select(1, around.nine)
        L1, R1 = self.a1.chunk(2, 2)
        L2, R2 = self.a2.chunk(2, 2)
        self.turned = _turn(L2, R1)
        x = [a0.squeeze(1), (L1 * R1).sum(1), (L2 * R2).sum(1), (L1 * self.turned).sum(1)]
        self.odd: list[Tensor] = []
        if len(weights) > 3:
            rows = (slice(10, 11), slice(11, 14), slice(14, 23))
            self.odd = [torch.bmm(moments[:, r], w) for r, w in zip(rows, weights[3:], strict=True)]
            x += [(left * right).sum(1) for left, right in (o.chunk(2, 2) for o in self.odd)]
            left, right = self.odd[1].chunk(2, 2)
            x.append((_turn(R2, right) * left).sum(1))
        self.x = torch.cat(x, dim=1)

    def vectors(self) -> Tensor:
        """Equivariant vectors, (atoms, vectors, 3), odd under inversion; those with `odd` mixed in time parity."""
        found = [self.a1, self.turned]
        if self.odd:
            o0, o1, o2 = self.odd
            (L1, R1), L2, C = self.a1.chunk(2, 2), self.a2.chunk(2, 2)[0], self.turned.shape[2]
            found += [o1, _turn(L2, o1[..., C:]), o0[..., :C] * L1, _turn(o2[..., :C], R1)]
        return torch.cat(found, dim=2).transpose(1, 2)

    def derivatives(self, d_x: Tensor) -> tuple[Tensor, Tensor]:
        """∂E/∂R and ∂E/∂A from ∂E/∂x, without odd moments and without the constant first row of A.

            ∂E/∂L¹ = x₁' R¹ + x₃' L²R¹    ∂E/∂R¹ = x₁' L¹ + x₃' L²L¹    ∂E/∂L² = x₂' R² + x₃' L¹⊗R¹    ∂E/∂R² = x₂' L²

        with x' for ∂E/∂x. Derivatives by u⊗u are those by any one of its nine components, the others being held.
        """
        around, (W0, W1, W2), C = self.around, self.weights, self.turned.shape[2]
        x0, x1, x2, x3 = d_x.unsqueeze(1).split(C, 2)
        L1, R1 = self.a1.chunk(2, 2)
        L6, R6 = self.six.chunk(2, 2)
        L2 = self.a2[..., :C]
        d_L1 = torch.addcmul(x1 * R1, x3, self.turned)
        d_R1 = torch.addcmul(x1 * L1, x3, _turn(L2, L1))
        outer = L1.index_select(1, around.first) * R1.index_select(1, around.second)
        outer = outer + L1.index_select(1, around.second) * R1.index_select(1, around.first)
        d_L2 = torch.addcmul(x2 * R6, x3, outer, value=0.5)
        d_moments = torch.cat(
            [
                torch.bmm(x0, W0.transpose(1, 2)),
                torch.bmm(torch.cat([d_L1, d_R1], 2), W1.transpose(1, 2)),
                torch.bmm(torch.cat([d_L2, x2 * L6], 2), W2.transpose(1, 2)),
            ],
            dim=1,
        )
        d_angular = torch.bmm(d_moments[:, 1:], self.radial)
        d_radial = torch.bmm((d_moments * around.copies).transpose(1, 2), self.angular)
        return d_radial, d_angular


def _turn(tensors: Tensor, vectors: Tensor) -> Tensor:
    """Rank-2 channels (atoms, 9, C) applied to vector channels (atoms, 3, C)."""
    n, _, C = tensors.shape
    return (tensors.view(n, 3, 3, C) * vectors.unsqueeze(1)).sum(2)
