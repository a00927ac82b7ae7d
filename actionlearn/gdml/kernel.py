"""The Matérn kernel between descriptors, its Hessian between forces, and the sums over training geometries."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from actionlearn.gdml.descriptor import PairDescriptor

BLOCK = 1 << 24
"""Numbers in the largest array that is made at a time, 128 MB in float64."""


@dataclasses.dataclass(frozen=True)
class Terms:
    """z (…, symmetries, pairs); s_n, exp(−s_n) and (z − z_n)·b_n (…, symmetries, references)."""

    z: Tensor
    s: Tensor
    decay: Tensor
    along: Tensor


@dataclasses.dataclass(frozen=True)
class Expansion:
    """Energies and their slopes from a sum over reference descriptors, taken for all permutations of the argument.

    With k(d) = (1 + s + s²/3)·exp(−s), s = √5·d/σ, and the scaled descriptor z = √5·x/σ, d² = σ²/5·|z − z_n|²:

        E(x) = Σ_p E₀(P_p x),   E₀ = −Σ_n ∂k/∂x_n · a_n = Σ_n (1 + s_n) exp(−s_n) (z − z_n)·b_n,   b_n = −√5/(3σ)·a_n
        ∂E₀/∂z = Σ_n exp(−s_n) [(1 + s_n) b_n − ((z − z_n)·b_n) (z − z_n)]

    n runs over the training geometries, a_n = J_n α_n is the coefficient of geometry n, p runs over the group of
    symmetries. Permuting the one argument rather than all references keeps the table of z_n and b_n, with which both
    sums are two products, small enough for the cache. Descriptors count from their mean, which keeps the
    rounding of |z − z_n|² small.

    | symbol    | here           | shape                    | unit |
    |-----------|----------------|--------------------------|------|
    | z_n, b_n  | `table`        | (2·references, pairs)    | 1, eV |
    | |z_n|²    | `norms`        | (references,)            |      |
    | z_n·b_n   | `own`          | (references,)            | eV   |
    | P_p       | `permutations` | (symmetries, pairs)      |      |
    | Σ_p P_pᵀ  | `back`         | (symmetries, pairs), into the flat (symmetries·pairs,) | |
    | mean of x | `centre`       | (pairs,)                 | 1/Å  |
    | √5/σ      | `scale`        |                          | Å    |
    """

    table: Tensor
    norms: Tensor
    own: Tensor
    centre: Tensor
    permutations: Tensor
    back: Tensor
    scale: float

    @classmethod
    def of(cls, x: Tensor, a: Tensor, sigma: float, permutations: Tensor) -> Expansion:
        """From descriptors x and coefficients a of the training geometries, (geometries, pairs)."""
        scale = math.sqrt(5.0) / sigma
        centre = x.mean(0)[permutations].mean(0)  # no permutation changes it
        z = scale * (x - centre)
        b = (-scale / 3.0) * a
        back = permutations.argsort(1) + permutations.shape[1] * torch.arange(len(permutations)).unsqueeze(1)
        return cls(torch.cat((z, b)), z.square().sum(1), (z * b).sum(1), centre, permutations, back, scale)

    def to(self, like: Tensor) -> Expansion:
        """The same in the dtype and on the device of a tensor."""
        real = {name: getattr(self, name).to(like) for name in ("table", "norms", "own", "centre")}
        whole = {name: getattr(self, name).to(like.device) for name in ("permutations", "back")}
        return dataclasses.replace(self, **real, **whole)

    def terms(self, x: Tensor) -> Terms:
        """What both sums are made of, for descriptors (…, pairs); s ends above zero, where it has no derivative."""
        z = (self.scale * (x - self.centre))[..., self.permutations]
        to_places, to_coefficients = (z @ self.table.T).split(len(self.norms), dim=-1)
        squares = z.square().sum(-1, keepdim=True) + self.norms - 2.0 * to_places
        s = squares.clamp_min(torch.finfo(z.dtype).eps).sqrt()
        return Terms(z, s, torch.exp(-s), to_coefficients - self.own)

    def energies(self, terms: Terms) -> Tensor:
        """E, (…,)."""
        return ((1.0 + terms.s) * terms.decay * terms.along).sum((-2, -1))

    def slopes(self, terms: Terms) -> Tensor:
        """∂E/∂x, (…, pairs)."""
        pull = terms.decay * terms.along
        weights = torch.cat((pull, (1.0 + terms.s) * terms.decay), dim=-1)
        slopes = weights @ self.table - pull.sum(-1, keepdim=True) * terms.z
        return self.scale * slopes.flatten(-2)[..., self.back].sum(-2)

    def loneliest(self, x: Tensor) -> float:
        """The largest distance s of a training geometry to the nearest other one, in any of its permutations."""
        found = 0.0
        for n in range(len(x)):
            s = self.terms(x[n]).s
            s[:, n] = torch.inf
            found = max(found, float(s.min()))
        return found


@dataclasses.dataclass(frozen=True)
class TrainingKernel:
    """The matrix K between the forces of all training geometries, as columns or as products.

        K_ij = J_iᵀ Σ_p [∂²k(x_i, P_p x_j)/∂x ∂x'] P_p J_j
             = 5/(3σ²) J_iᵀ Σ_p exp(−s) [(1 + s) − Δz Δzᵀ] P_p J_j,      Δz = z_i − P_p z_j

    x, slopes: what the descriptor gives for the training geometries; p runs over the group of symmetries.
    """

    descriptor: PairDescriptor
    x: Tensor
    slopes: Tensor
    sigma: float
    permutations: Tensor

    @property
    def size(self) -> int:
        """Number of force components."""
        return 3 * self.descriptor.n_atoms * len(self.x)

    def columns(self, j: int) -> Tensor:
        """The columns of geometry j, (size, 3·atoms)."""
        scale = math.sqrt(5.0) / self.sigma
        J_j = self.descriptor.jacobian(self.slopes[j])[self.permutations]  # (symmetries, pairs, 3·atoms)
        z_j = scale * self.x[j][self.permutations]
        columns = self.x.new_empty(len(self.x), J_j.shape[2], J_j.shape[2])
        chunk = max(1, BLOCK // max(J_j[0].numel(), J_j[:, :, 0].numel(), J_j[:, 0].numel()))
        for i in range(0, len(self.x), chunk):
            dz = scale * self.x[i : i + chunk].unsqueeze(1) - z_j  # (chunk, symmetries, pairs)
            s = dz.square().sum(-1).sqrt()
            decay = torch.exp(-s)
            inner = torch.einsum("ip,pdk->idk", (1.0 + s) * decay, J_j)
            along = torch.einsum("ipd,pdk->ipk", dz, J_j)
            inner -= (decay.unsqueeze(-1) * dz).transpose(1, 2) @ along
            columns[i : i + chunk] = self.descriptor.jacobian(self.slopes[i : i + chunk]).transpose(1, 2) @ inner
        return (scale**2 / 3.0) * columns.flatten(0, 1)

    def matrix(self) -> Tensor:
        """K whole, (size, size)."""
        whole = self.x.new_empty(self.size, self.size)
        width = 3 * self.descriptor.n_atoms
        for j in range(len(self.x)):
            whole[:, j * width : (j + 1) * width] = self.columns(j)
        return whole

    def diagonal(self) -> Tensor:
        """Its diagonal, (size,)."""
        width = 3 * self.descriptor.n_atoms
        single = (
            dataclasses.replace(self, x=self.x[j : j + 1], slopes=self.slopes[j : j + 1]) for j in range(len(self.x))
        )
        return torch.cat([one.columns(0).diagonal() for one in single]).reshape(len(self.x) * width)

    def expansion(self, coefficients: Tensor) -> Expansion:
        """The model whose forces at the training geometries are K·coefficients."""
        alpha = coefficients.view(len(self.x), -1, 3)
        return Expansion.of(self.x, self.descriptor.push_forward(alpha, self.slopes), self.sigma, self.permutations)

    def product(self, coefficients: Tensor) -> Tensor:
        """K·coefficients without the matrix: the forces that the model with these coefficients has in training."""
        model = self.expansion(coefficients)
        chunk = max(1, BLOCK // (4 * len(self.permutations) * (len(self.x) + self.x.shape[1])))
        forces = [
            -self.descriptor.pull_back(model.slopes(model.terms(self.x[i : i + chunk])), self.slopes[i : i + chunk])
            for i in range(0, len(self.x), chunk)
        ]
        return torch.cat(forces).flatten()
