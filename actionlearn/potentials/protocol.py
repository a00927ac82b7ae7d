"""What a potential is, and how forces follow from an energy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from actionlearn.state import PhaseState


@runtime_checkable
class Potential(Protocol):
    """Anything with an energy per system and a force on every atom."""

    def energy(self, state: PhaseState) -> Tensor:
        """Potential energy, one number per system, eV."""
        ...

    def forces(self, state: PhaseState) -> Tensor:
        """−∂V/∂q, (atoms, dims), eV/Å."""
        ...


def forces_from_energy(energy: Callable[[PhaseState], Tensor], state: PhaseState) -> Tensor:
    """−∂V/∂q by reverse mode, itself differentiable whenever the positions or anything in V asks for gradients."""
    outer, state = torch.is_grad_enabled(), state.ordinary()
    with torch.inference_mode(False), torch.enable_grad():
        q = state.positions if state.positions.requires_grad else state.positions.detach().requires_grad_()
        total = energy(state.moved(q, state.momenta)).sum()
        if not total.requires_grad:  # an energy that does not depend on the positions
            return torch.zeros_like(state.positions)
        keep = outer and (state.positions.requires_grad or _has_trainable_input(energy))
        (gradient,) = torch.autograd.grad(total, q, create_graph=keep, allow_unused=True)
    return torch.zeros_like(state.positions) if gradient is None else -gradient


def weights_seen(*owners: object) -> tuple[tuple[int, int], ...]:
    """What changes with the weights and buffers of those owners that are modules; others are taken as constant."""
    tensors = (t for owner in owners if isinstance(owner, torch.nn.Module) for t in _tensors(owner))
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)


def _tensors(module: torch.nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _has_trainable_input(energy: Callable[[PhaseState], Tensor]) -> bool:
    """Whether the owner of a bound `energy` is a module with parameters that are being trained."""
    owner = getattr(energy, "__self__", None)
    return isinstance(owner, torch.nn.Module) and any(w.requires_grad for w in owner.parameters())
