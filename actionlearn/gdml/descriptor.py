"""Inverse distances between all pairs of atoms, of molecules and of periodic cells, with their slopes."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from actionlearn.errors import InvalidInput

ORDERS = (2, 8)
"""Exponents of the sums over periodic images."""


class PairDescriptor:
    """Numbers for each pair i < j, that rotations, translations and lattice shifts leave alone.

        molecules    x_ij = 1/r_ij
        periodic     x_ij = (Σ_L s(r_L) r_L⁻ᵐ)^(1/m),   r_L = |q_j − q_i + L|,   m = 2 and m = 8

    With m = 8 that is close to the inverse distance to the nearest image, which has a kink where two images change
    places, so that forces jump in every pair that comes to half a cell: the sum is smooth in cells of any size. With
    m = 2 the further images count too; the two together predict much better than either in cells of a few atoms.
    The switch s falls from one to zero with three continuous derivatives between the largest distance any pair
    can have to its nearest image, the covering radius ρ of the lattice, and 1.5 ρ; so x is never zero.

    Of a periodic system the pairs come twice, once for each m.

    | symbol      | here        | shape                  | unit |
    |-------------|-------------|------------------------|------|
    | q           | `positions` | (geometries, atoms, 3) | Å    |
    | x           | first of `__call__`  | (geometries, pairs)    | 1/Å  |
    | g = ∂x_ij/∂q_j = −∂x_ij/∂q_i | second of `__call__` | (geometries, pairs, 3) | 1/Å² |
    | J = ∂x/∂q   | `jacobian`  | (geometries, pairs, 3·atoms) | 1/Å² |
    """

    def __init__(self, n_atoms: int, lattice: Tensor | None = None) -> None:
        """For `n_atoms` atoms; `lattice` holds the vectors along which the system repeats, (1 to 3, 3)."""
        if n_atoms < 2:
            raise InvalidInput(f"inverse distances need at least 2 atoms, this system has {n_atoms}")
        self.n_atoms = n_atoms
        self.first, self.second = torch.triu_indices(n_atoms, n_atoms, offset=1)
        pairs = torch.arange(len(self.first))
        pair_difference = torch.zeros(len(pairs), n_atoms, dtype=torch.float64)  # q_j − q_i
        pair_difference[pairs, self.second] = 1.0
        pair_difference[pairs, self.first] = -1.0
        self.images: Tensor | None = None
        self.channels = 1
        if lattice is not None and len(lattice):
            self.channels = len(ORDERS)
            self.lattice = lattice.to(torch.float64)
            self.inverse = torch.linalg.pinv(self.lattice)
            self.inner = covering_radius(self.lattice)
            self.outer = 1.5 * self.inner
            self.images = _images(self.lattice, self.outer)
        self.difference = pair_difference.repeat(self.channels, 1)

    def to(self, like: Tensor) -> PairDescriptor:
        """The same descriptor in the dtype and on the device of a tensor."""
        new = object.__new__(PairDescriptor)
        for name, value in self.__dict__.items():
            real = isinstance(value, Tensor) and value.dtype.is_floating_point
            new.__dict__[name] = value.to(like) if real else value
        new.first, new.second = self.first.to(like.device), self.second.to(like.device)
        return new

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs x and their slopes g, both differentiable."""
        d = self.difference[: len(self.first)] @ positions
        if self.images is None:
            x = d.square().sum(-1).rsqrt()
            return x, -d * (x * x * x).unsqueeze(-1)
        with torch.no_grad():
            home = torch.round(d @ self.inverse) @ self.lattice
        d = (d - home).unsqueeze(-2) + self.images
        r = d.square().sum(-1).sqrt()
        s, ds = self._switch(r)
        parts = [self._channel(m, d, r, s, ds) for m in ORDERS]
        return torch.cat([x for x, _ in parts], dim=-1), torch.cat([slopes for _, slopes in parts], dim=-2)

    def _channel(self, m: int, d: Tensor, r: Tensor, s: Tensor, ds: Tensor) -> tuple[Tensor, Tensor]:
        """(Σ s r⁻ᵐ)^(1/m) over the images and its slopes."""
        power = r**-m
        x = (s * power).sum(-1) ** (1.0 / m)
        slope = (ds - m * s / r) * power / r
        return x, (slope.unsqueeze(-1) * d).sum(-2) * (x ** (1 - m) / m).unsqueeze(-1)

    def pull_back(self, weights: Tensor, slopes: Tensor) -> Tensor:
        """Jᵀw, what weights on the pairs (geometries, pairs) are to the atoms, (geometries, atoms, 3)."""
        return self.difference.T @ (weights.unsqueeze(-1) * slopes)

    def push_forward(self, directions: Tensor, slopes: Tensor) -> Tensor:
        """Jα, the change of the pairs as atoms move along directions (geometries, atoms, 3)."""
        return ((self.difference @ directions) * slopes).sum(-1)

    def jacobian(self, slopes: Tensor) -> Tensor:
        """J written out."""
        dense = self.difference.unsqueeze(-1) * slopes.unsqueeze(-2)
        return dense.flatten(-2)

    def pair_permutations(self, permutations: Tensor) -> Tensor:
        """For permutations of atoms (n, atoms) those of pairs, (n, pairs): x(q[p]) = x(q)[pairs of p]."""
        count = len(self.first)
        number = torch.zeros(self.n_atoms, self.n_atoms, dtype=torch.int64)
        number[self.first, self.second] = number[self.second, self.first] = torch.arange(count)
        pairs = number[permutations[:, self.first], permutations[:, self.second]]
        return torch.cat([pairs + k * count for k in range(self.channels)], dim=1)

    def _switch(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """s(r) = t⁴(35 − 84t + 70t² − 20t³), t running from 1 at `inner` to 0 at `outer`, and ds/dr."""
        width = self.outer - self.inner
        t = ((self.outer - r) / width).clamp(0.0, 1.0)
        cube = t * t * t
        return cube * t * (35.0 + t * (-84.0 + t * (70.0 - 20.0 * t))), -140.0 / width * cube * (1.0 - t) ** 3


def covering_radius(lattice: Tensor) -> float:
    """The largest distance that a point of the lattice's span can have to the nearest lattice point, or a bit more.

    Half the diagonal of the shortest cell found by subtracting the vectors from each other, which is exact for
    orthogonal cells and an upper bound for others.
    """
    rows = [row.clone() for row in lattice]
    shortened = True
    while shortened:
        shortened = False
        for a, b in itertools.permutations(range(len(rows)), 2):
            n = torch.round(rows[a] @ rows[b] / (rows[b] @ rows[b]))
            if n != 0 and (rows[a] - n * rows[b]).norm() < (1 - 1e-9) * rows[a].norm():
                rows[a] = rows[a] - n * rows[b]
                shortened = True
    signs = itertools.product((-0.5, 0.5), repeat=len(rows))
    corners = [sum(s * row for s, row in zip(sign, rows, strict=True)) for sign in signs]
    return max(float(torch.as_tensor(corner).norm()) for corner in corners)


def _images(lattice: Tensor, cutoff: float) -> Tensor:
    """All L that bring a difference within half a cell of the origin to less than `cutoff` from it."""
    heights = 1.0 / torch.linalg.pinv(lattice).norm(dim=0)
    reach = [math.floor(cutoff / float(height) + 0.5) for height in heights]
    counts = torch.cartesian_prod(*(torch.arange(-n, n + 1, dtype=lattice.dtype) for n in reach))
    shifts = counts.reshape(-1, len(lattice)) @ lattice
    half_diagonal = 0.5 * float(lattice.norm(dim=1).sum())
    return shifts[shifts.norm(dim=1) < cutoff + half_diagonal]
