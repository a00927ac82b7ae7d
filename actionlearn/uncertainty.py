"""How far an atom's surroundings lie from those of training: an uncertainty per atom, without labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from actionlearn.dataset import Dataset
from actionlearn.maps.blueprint import network_of
from actionlearn.state import PhaseState

ATOMS = 20_000
"""Atoms of a training set that are looked at, spread evenly over it."""


class Uncertainty:
    """Mahalanobis distance of the inputs of a network's readout, in units of the largest distance in training.

        u_i = |L_z⁻¹ (x_i − μ_z)| / (√D·e),    C_z = L_z L_zᵀ,    z the species of atom i

    | symbol | variable                 | shape          |                                                   |
    |--------|--------------------------|----------------|---------------------------------------------------|
    | x      | `features_and_vectors`   | (atoms, D)     | invariants of the surroundings, standardised      |
    | μ, C   | `mean`, –                | (species, D …) | mean and covariance in training                   |
    | L⁻¹/√D e | `whitening`            | (species, D, D)|                                                   |
    | e      | –                        |                | largest |L⁻¹(x − μ)|/√D of training and validation |

    u = 1 is the edge of what training has seen; inside, typical atoms have a half. A sum over all directions sees
    what no single input shows: an unusual combination of usual values. The error of a step grows with u;
    `benchmarks/adaptive.py` measures how well they go together, beside other measures. Atoms of an element that
    training has not seen are infinitely far.
    """

    def __init__(self, model: Any, mean: Tensor, whitening: Tensor) -> None:
        """The distance for the network of a map, from what `tensors` gave."""
        self.network = network_of(model)
        self.mean, self.whitening = mean, whitening

    @classmethod
    @torch.no_grad()
    def fit(cls, model: Any, training: Dataset, validation: Dataset | None = None) -> Uncertainty:
        """Mean and covariance of the training set, the edge of both sets."""
        network = network_of(model)
        x, numbers = _inputs(network, training)
        if validation is None:
            seen, seen_numbers = x, numbers
        else:
            more, more_numbers = _inputs(network, validation)
            seen, seen_numbers = torch.cat([x, more]), torch.cat([numbers, more_numbers])
        n_species, D = len(network.species), x.shape[1]
        mean, whitening = x.new_zeros(n_species, D), x.new_zeros(n_species, D, D)
        for k, z in enumerate(network.species):
            mine = x[numbers == z]
            if len(mine) < 2:
                mean[k] = float("nan")
                continue
            mean[k] = mine.mean(0)
            # a ten-thousandth keeps directions alive that do not vary in training, such as the species itself
            C = torch.cov(mine.T)
            C = C + 1e-4 * (C.diagonal().mean() + 1e-12) * torch.eye(D).to(C)
            whitening[k] = torch.linalg.inv(torch.linalg.cholesky(C)) / D**0.5
        found = cls(model, mean, whitening)
        u = found.of_inputs(seen, seen_numbers)
        found.whitening /= u[u.isfinite()].max().clamp_min(1e-12)
        return found

    @classmethod
    def of(cls, model: Any) -> Uncertainty | None:
        """What a trained map's report holds, None for a map without."""
        kept = (getattr(model, "report", None) or {}).get("uncertainty")
        if kept is None:
            return None
        mean, whitening = kept["mean"], kept["whitening"]
        if whitening.ndim == 2:  # older checkpoints keep the zeros as well
            n_species, D = mean.shape
            rows, columns = torch.tril_indices(D, D)
            packed, whitening = whitening, whitening.new_zeros(n_species, D, D)
            whitening[:, rows, columns] = packed
        return cls(model, mean, whitening)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, in single precision: of triangles what is not zero."""
        rows, columns = torch.tril_indices(*self.whitening.shape[1:]).unbind()
        return {"mean": self.mean.float(), "whitening": self.whitening[:, rows, columns].float()}

    @torch.no_grad()
    def __call__(self, state: PhaseState) -> Tensor:
        """The uncertainty of every atom, (atoms,)."""
        return self.of_inputs(self.network.features_and_vectors(state)[0], state.numbers)

    def of_inputs(self, x: Tensor, numbers: Tensor) -> Tensor:
        """The uncertainty of atoms whose inputs are known, (atoms,)."""
        return self.whitened(x, numbers).norm(dim=1).nan_to_num(nan=float("inf"))

    def whitened(self, x: Tensor, numbers: Tensor) -> Tensor:
        """Inputs in units in which training fills a sphere, (atoms, D); their length is u."""
        y = torch.full_like(x, float("nan"))
        for k, z in enumerate(self.network.species):
            mine = numbers == z
            y[mine] = (x[mine] - self.mean[k].to(x)) @ self.whitening[k].to(x).T
        return y


def _inputs(network: Any, data: Dataset) -> tuple[Tensor, Tensor]:
    """Inputs and species of atoms at the starts of windows, spread evenly over a set."""
    most = max(s.system.n_atoms for s in data.stretches)
    indices, size = data.even(max(ATOMS // most, 32)), max(1, 1024 // most)
    found = []
    for k in range(0, len(indices), size):
        state = data.windows(indices[k : k + size], device=network.identity.device).frames[0]
        found.append((network.features_and_vectors(state)[0], state.numbers))
    return torch.cat([x for x, _ in found]), torch.cat([numbers for _, numbers in found])
