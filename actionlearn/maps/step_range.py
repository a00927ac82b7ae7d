"""One set of weights for every step of a range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from actionlearn.errors import InvalidInput
from actionlearn.networks import AtomicNetwork
from actionlearn.potentials.protocol import Potential

if TYPE_CHECKING:
    from actionlearn.maps.blueprint import Blueprint


class StepRange(nn.Module):
    """Maps of all steps from `steps_fs[0]` to `steps_fs[1]` that share one network: `at(step_fs)` is one of them.

    Run backwards, a reversible map of step h is the one of step −h, so what a kick or the scalar of a midpoint action
    depends on besides the state is h², and for h → 0 only the potential energy is left:

        U_k(q; h) = w_k V(q) + Σ_n x^n δ_kn(q),    G(q̄, p̄; h) = V + Σ_n x^n G_n(q̄, p̄),    x = (h/h_max)², n = 1, 2, …

    V, δ_kn and G_n are heads of the network: another step takes another linear combination of them. The weights are
    shared, so a map that was taken before training went on changes with them.
    """

    def __init__(self, blueprint: Blueprint, network: AtomicNetwork, base: Potential | None = None) -> None:
        """The maps of a blueprint that has `steps_fs`; `base` is the potential that corrected ones call."""
        super().__init__()
        if blueprint.steps_fs is None:
            raise InvalidInput("this blueprint is for one step: give it steps_fs, the shortest and the longest")
        self.blueprint, self.network, self.base = blueprint, network, base
        self.steps_fs = blueprint.steps_fs
        self.kind, self.stages = blueprint.kind, blueprint.stages
        self.species, self.masses = blueprint.species, blueprint.masses

    def at(self, step_fs: float) -> Any:
        """The map of one step."""
        low, high = self.steps_fs
        if not low * (1.0 - 1e-9) <= step_fs <= high * (1.0 + 1e-9):
            raise InvalidInput(
                f"this model was trained for steps of {low:g} to {high:g} fs, asked for {step_fs:g} fs: "
                "take a step within, or train another model"
            )
        return self.beyond(step_fs)

    def beyond(self, step_fs: float) -> Any:
        """The map of any step, inside the range or not, as training in between and below it needs."""
        return self.blueprint.assemble(self.network, self.base, step_fs)
