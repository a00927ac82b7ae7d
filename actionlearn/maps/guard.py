"""Refusing systems that a map was not made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from ase.data import chemical_symbols
from torch import Tensor

from actionlearn.errors import UnsupportedSystem
from actionlearn.state import PhaseState

Masses = Mapping[int, float | tuple[float, ...]]
"""What atoms of an element may weigh, u: one number, or several where masses were repartitioned."""


def wrong_masses(state: PhaseState, z: int, expected: float | tuple[float, ...], tolerance: float) -> Tensor:
    """Which atoms of an element weigh something else, (atoms,)."""
    known = torch.as_tensor(expected, dtype=state.masses.dtype, device=state.masses.device).reshape(-1)
    off = (state.masses.unsqueeze(1) / known - 1.0).abs().amin(1)
    return (state.numbers == z) & (off > tolerance)


def as_mass(expected: float | tuple[float, ...]) -> str:
    """One mass or several, for messages."""
    return " or ".join(f"{m:g}" for m in (expected if isinstance(expected, tuple) else (expected,)))


class SystemGuard:
    """Checks the elements and masses of a state against those of a map, once for every set of tensors."""

    def __init__(self, species: Sequence[int], masses: Masses) -> None:
        """Without `species`, or without a mass for an element, anything passes."""
        self.species, self.masses = frozenset(species), dict(masses)
        self._passed: tuple[Tensor, Tensor] | None = None

    def check(self, state: PhaseState) -> None:
        """Raise `UnsupportedSystem` if the map was not made for this state."""
        if self._passed is not None and self._passed[0] is state.numbers and self._passed[1] is state.masses:
            return
        came = set(state.numbers.tolist())
        if self.species and not came <= self.species:
            raise UnsupportedSystem(
                f"the state contains {_symbols(came - self.species)}, the map was made for {_symbols(self.species)}: "
                "use another model, or train one with these elements"
            )
        for z, mass in self.masses.items():
            wrong = wrong_masses(state, z, mass, 1e-4)
            if bool(wrong.any()):
                found = float(state.masses[wrong][0])
                raise UnsupportedSystem(
                    f"{_symbols([z])} of mass {found:g} u, the map was made for {as_mass(mass)} u: set the masses of "
                    "the atoms (ASE: atoms.set_masses), or train a model with these"
                )
        self._passed = (state.numbers, state.masses)


def _symbols(numbers: Sequence[int] | set[int] | frozenset[int]) -> str:
    return ", ".join(chemical_symbols[z] for z in sorted(numbers))
