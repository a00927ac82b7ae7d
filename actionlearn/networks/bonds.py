"""Radial and angular functions of the bonds to all neighbours, and the way back."""

from __future__ import annotations

import torch
from torch import Tensor

from actionlearn.networks.neighbourhood import Neighbourhood


class Bonds:
    """Radial and angular functions of all neighbours, and the forces that follow from derivatives by them.

        D = q_j − q_i + S·cell,    r = |D|,    u = D/r
        B_b(r) = sin(f_b r)·g(r),    g = t⁴/r,    t = max(0, 1 − r²/c²)

    | symbol | variable  | shape                    |
    |--------|-----------|--------------------------|
    | B      | `waves`   | (atoms, b, neighbours)   |
    | u      | `u`       | (atoms, 3, neighbours)   |
    | 1,u,uu | `angular` | (atoms, 10, neighbours)  |
    | g, t³  | `window`, `t3` | (atoms, 1, neighbours) |
    | f, c   | `frequencies`, `cutoff` | (b,), Å    |

    Of the symmetric u⊗u the six components of `SIX`.
    """

    def __init__(self, around: Neighbourhood, positions: Tensor, frequencies: Tensor, cutoff: float) -> None:
        """All of them for a state's positions."""
        self.around, self.cutoff = around, cutoff
        self.frequencies = frequencies.unsqueeze(1)
        D = around.differences(positions, around.offsets)
        r2 = (D * D).sum(1, keepdim=True)
        self.inverse = r2.rsqrt()
        self.u = D * self.inverse
        t = torch.rsub(r2, 1.0, alpha=1.0 / cutoff**2).clamp_min(0.0)
        self.t3 = t**3
        self.window = self.t3 * t * self.inverse
        self.phases = self.frequencies * (r2 * self.inverse)
        self.sines = self.phases.sin()
        self.waves = self.sines * self.window
        uu = self.u.index_select(1, around.first) * self.u.index_select(1, around.second)
        self.angular = torch.cat([around.ones, self.u, uu], dim=1)

    def forces(self, d_waves: Tensor, d_angular: Tensor) -> Tensor:
        """−∂E/∂q, (atoms, 3), from the derivatives of E by `waves` and by `angular` without its first row.

        ∂E/∂D = u·E' + (1 − u uᵀ)/r·∂E/∂u,    E' = Σ_b ∂E/∂B_b·(f_b cos(f_b r)·g − sin(f_b r)·(g/r + 8 t³/c²))

        Derivatives by u⊗u are those by any one of its nine components, the others being held.
        """
        around, u, inverse = self.around, self.u, self.inverse
        n, k = around.other.shape
        slope = torch.addcmul(self.t3 * (8.0 / self.cutoff**2), self.window, inverse)
        along = self.window * (d_waves * self.phases.cos() * self.frequencies).sum(1, keepdim=True)
        along = along - slope * (d_waves * self.sines).sum(1, keepdim=True)
        d_uu = d_angular[:, 3:].index_select(1, around.nine).view(n, 3, 3, k)
        d_u = torch.add(d_angular[:, :3], (d_uu * u.unsqueeze(1)).sum(2), alpha=2.0)
        d_D = torch.addcmul(d_u * inverse, u, along - inverse * (u * d_u).sum(1, keepdim=True))
        pulled = d_D.sum(2).view(-1).index_add(0, around.places.view(-1), d_D.view(-1), alpha=-1.0)
        return pulled.view(n, 3)
