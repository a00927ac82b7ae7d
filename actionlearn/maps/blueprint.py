"""Building a learned map from a few numbers, the same ones that its checkpoint keeps."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from actionlearn.errors import InvalidInput
from actionlearn.maps.corrected import CorrectedVerlet
from actionlearn.maps.direct import DirectPredictor
from actionlearn.maps.discrete import DiscreteAction, kick_weights
from actionlearn.maps.guard import Masses
from actionlearn.maps.midpoint import MidpointAction
from actionlearn.maps.processed import Displacement, ProcessedAction
from actionlearn.networks.atomic_moments import AtomicMoments
from actionlearn.potentials.protocol import Potential

KINDS = ("discrete", "processed", "corrected", "midpoint", "direct")

#: Sizes of the parts of a kick potential that are learned besides the shared potential, relative to it. Small parts
#: that start at zero are learned by small steps.
REMAINDER, CORRECTION, DISPLACEMENT = 0.3, 0.1, 0.1


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """All that determines a map but its weights.

    One network with several heads serves a whole map. Head 0 is a potential V_0 that can be matched to the forces
    of the base potential; with the Newton-Cotes weights w_k the kicks of a discrete action are

        U_k = w_k V_0 + δ_k                        discrete, processed
        U_k = w_k V_base + δ_k                     corrected

    δ_k and the displacement w of a processed action are further heads. All heads start at zero. A corrected map
    does not use V_0 itself: matched to the forces, it lends its derivatives to a base potential that has none.
    """

    kind: str
    species: tuple[int, ...]
    masses: Masses
    step_fs: float
    stages: int = 2
    network: dict[str, Any] = dataclasses.field(default_factory=dict)
    base: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.kind not in KINDS:
            raise InvalidInput(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.stages < 1:
            raise InvalidInput(f"stages must be at least 1, not {self.stages}")
        if self.kind in ("midpoint", "direct") and self.stages != 1:
            raise InvalidInput(f"a {self.kind} map has one stage, not {self.stages}")

    def build(self, base: Potential | None = None, dtype: torch.dtype = torch.float64) -> Any:
        """The map with fresh weights; `base` is the potential that a corrected one calls."""
        s, n_kicks = self.stages, self.stages // 2 + 1
        about: dict[str, Any] = {"step_fs": self.step_fs, "species": self.species, "masses": self.masses}
        if self.kind == "direct":
            model: Any = DirectPredictor(**about, **self.network).to(dtype)
        elif self.kind == "midpoint":
            model = MidpointAction(self._network(1, dtype, momenta=True), **about)
        elif self.kind == "corrected":
            if base is None:
                raise InvalidInput(
                    f"a corrected map calls its base potential ({self.base or 'unnamed'}): give it as base"
                )
            net = self._network(1 + n_kicks, dtype)
            correction = [_head(net, {1 + k: CORRECTION}) for k in range(n_kicks)]
            model = CorrectedVerlet(base, correction, stages=s, **about)
        else:
            net = self._network(1 + n_kicks + (self.kind == "processed"), dtype)
            kicks = [_head(net, {0: w, 1 + k: REMAINDER}) for k, w in enumerate(kick_weights(s))]
            model = DiscreteAction(kicks, stages=s, **about)
            if self.kind == "processed":
                displacement = Displacement(_head(net, {1 + n_kicks: DISPLACEMENT}), step_fs=self.step_fs)
                model = ProcessedAction(model, displacement)
        model.blueprint = self
        return model

    def _network(self, heads: int, dtype: torch.dtype, momenta: bool = False) -> AtomicMoments:
        return AtomicMoments(self.species, heads=heads, momenta=momenta, dtype=dtype, **self.network)


def learned_part(model: Any) -> nn.Module:
    """The module that holds all weights of a map made from a blueprint, each once."""
    if isinstance(model, DirectPredictor):
        return model
    return network_of(model)


def network_of(model: Any) -> AtomicMoments:
    """The network of a map made from a blueprint."""
    return next(module for module in model.modules() if isinstance(module, AtomicMoments))


def _head(network: AtomicMoments, coefficients: dict[int, float]) -> Any:
    return network.head(*(coefficients.get(k, 0.0) for k in range(network.heads)))
