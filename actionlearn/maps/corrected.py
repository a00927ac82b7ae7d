"""Verlet-like kicks of a base potential with a small learned correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from actionlearn.errors import InvalidInput
from actionlearn.maps.discrete import DiscreteAction, kick_weights
from actionlearn.maps.guard import Masses
from actionlearn.potentials.protocol import Potential, as_potentials
from actionlearn.state import PhaseState


class WeightedSum(nn.Module):
    """Σ_k w_k V_k as one potential."""

    def __init__(self, terms: Sequence[tuple[float, Potential]]) -> None:
        """Pairs of weight and potential."""
        super().__init__()
        self.terms = list(terms)
        self.parts = nn.ModuleList([v for _, v in terms if isinstance(v, nn.Module)])

    def energy(self, state: PhaseState) -> Tensor:
        """Σ w V, one number per system, eV."""
        return sum((w * v.energy(state) for w, v in self.terms), start=state.positions.new_zeros(state.n_systems))

    def forces(self, state: PhaseState) -> Tensor:
        """Σ w F, (atoms, dims), eV/Å."""
        return sum((w * v.forces(state) for w, v in self.terms), start=state.positions.new_zeros(state.positions.shape))


class CorrectedVerlet(DiscreteAction):
    """A discrete action whose kicks are base forces plus a learned remainder.

        U_k = w_k V_base + δ_k,    w the Newton-Cotes weights, 1/6, 4/6, 1/6 for s = 2

    The base potential is called s times a step and the network only learns what is left, so its error is scaled
    down with it. Without corrections (`correction` empty) s = 1 is velocity Verlet. Symplectic and reversible for
    any δ_k, explicit. The base may be any potential, an ASE calculator included.
    """

    kind = "corrected"

    def __init__(
        self,
        base: Potential,
        correction: Potential | Sequence[Potential] = (),
        *,
        step_fs: float,
        stages: int | None = None,
        extra: Sequence[Potential] = (),
        species: Sequence[int] = (),
        masses: Masses | None = None,
    ) -> None:
        """`correction` holds δ_0 … δ_⌊s/2⌋, or nothing; one potential alone is δ_0 of s = 1."""
        correction = as_potentials(correction)
        (base,) = as_potentials([base])
        if stages is None:
            stages = {0: 1, 1: 1, 2: 2}.get(len(correction), 0)
        weights = kick_weights(stages) if stages >= 1 else []
        if correction and len(correction) != len(weights):
            raise InvalidInput(
                f"{len(correction)} corrections with stages={stages}: a step of s stages takes s//2 + 1, or none"
            )
        kicks: list[Any] = []
        for k, w in enumerate(weights):
            learned = [(1.0, correction[k])] if correction else []
            kicks.append(WeightedSum([(w, base), *learned]))
        super().__init__(kicks, step_fs=step_fs, stages=stages, extra=extra, species=species, masses=masses)
        self.base, self.correction = base, correction
