"""Building a learned map from a few numbers, the same ones that its checkpoint keeps."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import nn

from actionlearn.errors import InvalidInput
from actionlearn.maps.committee import Committee
from actionlearn.maps.corrected import CorrectedVerlet
from actionlearn.maps.direct import DirectPredictor
from actionlearn.maps.discrete import DiscreteAction, kick_weights
from actionlearn.maps.guard import Masses
from actionlearn.maps.matched import MatchedVerlet, NetworkPotential
from actionlearn.maps.midpoint import MidpointAction
from actionlearn.maps.processed import Displacement, ProcessedAction
from actionlearn.maps.step_range import StepRange
from actionlearn.networks import AtomicNetwork, make_network
from actionlearn.potentials.protocol import Potential

KINDS = ("discrete", "processed", "corrected", "midpoint", "direct", "potential")

#: Kinds of one stage.
SINGLE = ("midpoint", "direct", "potential")

#: Sizes of the parts of a kick potential that are learned besides the shared potential, relative to it. Small parts
#: that start at zero are learned by small steps.
REMAINDER, CORRECTION, DISPLACEMENT = 0.3, 0.1, 0.1

#: Powers of h² in the maps of a range of steps. Up to ωh = 2 they leave 0.5 % of the kicks of a harmonic mode unsaid,
#: 1 % of its midpoint action; what more of them would add is less than what they cost in training.
ORDERS = {"discrete": 1, "corrected": 1, "processed": 3, "midpoint": 2}


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """All that determines a map but its weights.

    One network with several heads serves a whole map. Head 0 is a potential V_0 that can be matched to the forces
    of the base potential; with the Newton-Cotes weights w_k the kicks of a discrete action are

        U_k = w_k V_0 + δ_k                        discrete, processed
        U_k = w_k V_base + δ_k                     corrected

    δ_k and the displacement w of a processed action are further heads. All heads start at zero. A corrected map
    does not use V_0 itself: matched to the forces, it lends its derivatives to a base potential that has none.
    A `potential` is V_0 alone, and its map velocity Verlet on it; of several `members`, networks of their own, it is
    the mean.

    With `steps_fs`, the shortest and the longest step, it is a `StepRange` that is built: each δ becomes a polynomial
    in h² without a constant, and so does the scalar of a midpoint action beyond V_0. `step_fs` is then the longest.
    """

    kind: str
    species: tuple[int, ...]
    masses: Masses
    step_fs: float
    stages: int = 2
    network: dict[str, Any] = dataclasses.field(default_factory=dict)
    base: str | None = None
    steps_fs: tuple[float, float] | None = None
    members: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.kind not in KINDS:
            raise InvalidInput(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.stages < 1:
            raise InvalidInput(f"stages must be at least 1, not {self.stages}")
        if self.kind in SINGLE and self.stages != 1:
            raise InvalidInput(f"a {self.kind} map has one stage, not {self.stages}")
        if self.members < 1 or (self.members > 1 and self.kind != "potential"):
            raise InvalidInput(f"{self.members} members of a {self.kind} map: only a potential may have several")
        if self.steps_fs is not None:
            low, high = self.steps_fs
            if self.kind == "direct":
                raise InvalidInput("a direct map has one step: give step_fs alone, or another kind")
            if self.kind == "potential":
                raise InvalidInput("a potential is good for any step: give step_fs alone, that of its Verlet")
            if not 0.0 < low < high or self.step_fs != high:
                raise InvalidInput(
                    f"a range of steps runs from a shorter to a longer one, which is step_fs: got {low:g} to {high:g} "
                    f"fs and step_fs {self.step_fs:g}"
                )

    def build(self, base: Potential | None = None, dtype: torch.dtype = torch.float64) -> Any:
        """The map with fresh weights; `base` is the potential that a corrected one calls."""
        if self.kind == "corrected" and base is None:
            raise InvalidInput(f"a corrected map calls its base potential ({self.base or 'unnamed'}): give it as base")
        if self.kind == "direct":
            model: Any = DirectPredictor(**self._about, **self._of_moments()).to(dtype)
        elif self.kind == "potential":
            make = functools.partial(make_network, self.species, self.network, heads=1, momenta=False, dtype=dtype)
            each = [NetworkPotential(make()) for _ in range(self.members)]
            model = MatchedVerlet(each[0] if self.members == 1 else Committee(each), **self._about)
        else:
            momenta, heads = self.kind == "midpoint", self._heads
            net = make_network(self.species, self.network, heads=heads, momenta=momenta, dtype=dtype)
            model = self.assemble(net, base, self.step_fs) if self.steps_fs is None else StepRange(self, net, base)
        model.blueprint = self
        return model

    def assemble(self, net: AtomicNetwork, base: Potential | None, step_fs: float) -> Any:
        """The map of one step, made of the heads of a network that `build` has made."""
        s, n_kicks = self.stages, self.stages // 2 + 1
        about = {**self._about, "step_fs": step_fs}
        if self.kind == "midpoint":
            return MidpointAction(_head(net, {0: 1.0} | self._learned(0, 1.0, step_fs)), **about)
        if self.kind == "corrected":
            correction = [_head(net, self._learned(k, CORRECTION, step_fs)) for k in range(n_kicks)]
            assert base is not None
            return CorrectedVerlet(base, correction, stages=s, **about)
        kicks = [_head(net, {0: w} | self._learned(k, REMAINDER, step_fs)) for k, w in enumerate(kick_weights(s))]
        model = DiscreteAction(kicks, stages=s, **about)
        if self.kind == "discrete":
            return model
        size = DISPLACEMENT * (self.step_fs / step_fs) ** 2  # w = W/h² has a constant
        return ProcessedAction(model, Displacement(_head(net, self._learned(n_kicks, size, step_fs)), step_fs=step_fs))

    def _of_moments(self) -> dict[str, Any]:
        """Options of the network of a direct map, which sees momenta."""
        if self.network.get("architecture", "moments") != "moments":
            raise InvalidInput(f"a direct map sees momenta, a {self.network['architecture']} does not: choose moments")
        return {key: value for key, value in self.network.items() if key != "architecture"}

    @property
    def _about(self) -> dict[str, Any]:
        return {"step_fs": self.step_fs, "species": self.species, "masses": self.masses}

    @property
    def _orders(self) -> int:
        return 1 if self.steps_fs is None else ORDERS[self.kind]

    @property
    def _heads(self) -> int:
        if self.kind == "midpoint":
            return 1 if self.steps_fs is None else 1 + self._orders
        return 1 + (self.stages // 2 + 1 + (self.kind == "processed")) * self._orders

    def _learned(self, part: int, size: float, step_fs: float) -> dict[int, float]:
        """Heads of one learned part and their coefficients; x^n, x = (h/h_max)², where h is not fixed."""
        if self.steps_fs is None:
            return {} if self.kind == "midpoint" else {1 + part: size}
        x, orders = (step_fs / self.steps_fs[1]) ** 2, self._orders
        return {1 + part * orders + n: size * x ** (n + 1) for n in range(orders)}


def learned_part(model: Any) -> nn.Module:
    """The module that holds all weights of a map made from a blueprint, each once."""
    if isinstance(model, DirectPredictor):
        return model
    if isinstance(model, MatchedVerlet):
        return model.potential
    return network_of(model)


def network_of(model: Any) -> AtomicNetwork:
    """The network of a map made from a blueprint, the first of a committee."""
    return networks_of(model)[0]


def networks_of(model: Any) -> list[AtomicNetwork]:
    """All networks of a map: one, or those of a committee."""
    return [module for module in model.modules() if isinstance(module, AtomicNetwork)]


def _head(network: AtomicNetwork, coefficients: dict[int, float]) -> Any:
    return network.head(*(coefficients.get(k, 0.0) for k in range(network.heads)))
