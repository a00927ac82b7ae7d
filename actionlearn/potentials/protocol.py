"""What a potential is, and how forces follow from an energy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from actionlearn.errors import InvalidInput, NotDifferentiable
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
    refuse_forward_mode(state)
    outer, state = torch.is_grad_enabled(), state.ordinary()
    with torch.inference_mode(False), torch.enable_grad():
        q = state.positions if state.positions.requires_grad else state.positions.detach().requires_grad_()
        total = energy(state.moved(q, state.momenta)).sum()
        if not total.requires_grad:  # an energy that does not depend on the positions
            return torch.zeros_like(state.positions)
        keep = outer and (state.positions.requires_grad or _has_trainable_input(energy, total, q))
        (gradient,) = torch.autograd.grad(total, q, create_graph=keep, allow_unused=True)
    return torch.zeros_like(state.positions) if gradient is None else -gradient


def refuse_forward_mode(state: PhaseState) -> None:
    """Raise where a tangent of forward mode would be lost in a gradient taken by reverse mode."""
    for tensor in (state.positions, state.momenta):
        if forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotDifferentiable(
                "this is a gradient taken by reverse mode, which tangents of forward mode do not pass: differentiate "
                "the step by reverse mode (torch.func.jacrev, torch.autograd), or use al.step_jacobian(step, state)"
            )


def as_potentials(given: Potential | Iterable[Potential]) -> list[Any]:
    """Potentials as a list; one alone is a list of one. What has no forces is refused, and how to give it some said."""
    alone = hasattr(given, "forces") or not isinstance(given, Iterable)
    found: list[Any] = [given] if alone else list(given)  # type: ignore[arg-type]
    for one in found:
        if callable(getattr(one, "forces", None)):
            continue
        if hasattr(one, "get_potential_energy"):
            what = "wrap the ASE calculator, al.potentials.ASEPotential(calculator)"
        elif hasattr(one, "energy"):
            what = "add `def forces(self, state)`, which al.potentials.forces_from_energy(self.energy, state) can fill"
        else:
            what = "give an object with energy(state) and forces(state), or al.potentials.FunctionPotential(function)"
        raise InvalidInput(f"{type(one).__name__} is no potential, it has no forces(state): {what}")
    return found


def forces_of(potential: Potential, state: PhaseState) -> Tensor:
    """The forces of a potential, refused where adding them would broadcast, or change the precision of the state."""
    F = potential.forces(state)
    q = state.positions
    if not isinstance(F, Tensor):
        came = f"{type(F).__name__}, not a torch tensor"
    elif F.shape != q.shape:
        came = f"a tensor of shape {tuple(F.shape)}"
    elif F.dtype != q.dtype and torch.result_type(F, q) != q.dtype:
        came = f"a tensor of {F.dtype}"
    else:
        return F
    raise InvalidInput(
        f"forces of {type(potential).__name__} are {came}: expected a tensor of shape {tuple(q.shape)} and {q.dtype}, "
        "as the positions are"
    )


def weights_seen(*owners: object) -> tuple[tuple[int, int], ...]:
    """What changes with the weights and buffers of those owners that are modules; others are taken as constant."""
    tensors = (t for owner in owners if isinstance(owner, torch.nn.Module) for t in _tensors(owner))
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)


def _tensors(module: torch.nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _has_trainable_input(energy: Callable[[PhaseState], Tensor], total: Tensor, q: Tensor) -> bool:
    """Whether an energy was made with weights that are being trained: those of its owner, else any in its graph."""
    owner = getattr(energy, "__self__", None)
    if isinstance(owner, torch.nn.Module):
        return any(w.requires_grad for w in owner.parameters())
    nodes, seen = [total.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and leaf is not q:
            return True
        nodes.extend(before for before, _ in node.next_functions)
    return False
