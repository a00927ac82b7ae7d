"""Several processes that train one map together, as `torchrun` starts them, and the device each works on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from actionlearn.errors import ActionlearnError, InvalidInput

Made = TypeVar("Made")


class Ranks:
    """This process among `size` that work together; alone by default, where nothing is sent anywhere."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        """Process `rank` of `size`."""
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this is the process that measures, writes and prints."""
        return self.rank == 0

    def same(self, make: Callable[[], Made]) -> Made:
        """What `make()` returns on the first process, on all of them; its errors are raised on all of them."""
        if self.size == 1:
            return make()
        box: list[Any] = [None]
        if self.first:
            try:
                box = [make()]
            except ActionlearnError as problem:
                box = [problem]
        distributed.broadcast_object_list(box, device=torch.device("cpu"))
        if isinstance(box[0], ActionlearnError):
            raise box[0]
        made: Made = box[0]
        return made

    def sums(self, *values: float) -> list[float]:
        """Each number summed over the processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    def average_gradients(self, weights: Iterable[Tensor], share: float) -> None:
        """Gradients averaged over the processes, each counting by its `share`: Σ_r share_r g_r / Σ_r share_r.

        A process without work takes part with none. What no process has a gradient of keeps none.
        """
        if self.size == 1:
            return
        weights = list(weights)
        there = [float(w.grad is not None) for w in weights]
        parts = [torch.zeros_like(w) if w.grad is None else share * w.grad for w in weights]
        flat = torch.cat([part.reshape(-1) for part in parts] + [parts[0].new_tensor([*there, share])])
        distributed.all_reduce(flat)
        counts = flat[-len(weights) - 1 : -1].tolist()
        sizes = [w.numel() for w in weights]
        for w, mean, count in zip(weights, (flat[: sum(sizes)] / flat[-1]).split(sizes), counts, strict=True):
            w.grad = mean.view_as(w) if count else None

    @torch.no_grad()
    def spread(self, weights: Iterable[Tensor]) -> None:
        """Give all processes the weights of the first, which on machines of one kind they have anyway."""
        if self.size == 1:
            return
        weights = list(weights)
        flat = torch.cat([w.reshape(-1) for w in weights])
        distributed.broadcast(flat, 0)
        for w, first in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
            w.copy_(first.view_as(w))


@contextlib.contextmanager
def together(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started for as long as the block lasts; without it there is one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def choose_device(wish: str) -> torch.device:
    """`auto` is the GPU if there is one, and under `torchrun` each process takes one of its own."""
    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wish)
    except RuntimeError:
        raise InvalidInput(f"device is {wish!r}, expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InvalidInput(f"device is {wish!r} but torch sees no GPU: use cpu, or install torch with CUDA")
        if device.index is None:
            local = int(os.environ.get("LOCAL_RANK", "0"))
            device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
    return device
