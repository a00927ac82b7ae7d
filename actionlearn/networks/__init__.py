"""Scalar networks that potentials and actions are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from actionlearn.errors import InvalidInput
from actionlearn.networks.atomic import AtomicNetwork, Head
from actionlearn.networks.atomic_moments import AtomicMoments
from actionlearn.networks.schnet import SchNet

__all__ = ["ARCHITECTURES", "AtomicMoments", "AtomicNetwork", "Head", "SchNet", "make_network"]

ARCHITECTURES: dict[str, type[AtomicNetwork]] = {"moments": AtomicMoments, "schnet": SchNet}


def make_network(
    species: Sequence[int], options: Mapping[str, Any], *, heads: int, momenta: bool, dtype: torch.dtype
) -> AtomicNetwork:
    """A network with these options; "architecture" among them says which, `AtomicMoments` unless it is there."""
    options = dict(options)
    name = options.pop("architecture", "moments")
    if name not in ARCHITECTURES:
        raise InvalidInput(f"the architecture of a network is one of {', '.join(ARCHITECTURES)}, not {name!r}")
    return ARCHITECTURES[name](species, heads=heads, momenta=momenta, dtype=dtype, **options)
