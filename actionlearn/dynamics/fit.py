"""Whether a map was made for a system."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from ase.data import chemical_symbols
from torch import Tensor

from actionlearn.dynamics.ensemble import Map
from actionlearn.errors import BlownUp, NonFinite, UnsupportedSystem
from actionlearn.maps.guard import as_mass, wrong_masses
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND

MASS_TOLERANCE = 1e-3
"""Relative difference between masses that are still the same: that of successive tables, not of isotopes."""


LONGEST_STRIDE = 5.0
"""Å a step; an atom (not a particle without a species, as in toy systems) that moves further is not in a solid, liquid
or molecule."""

_CURE = "the trajectory has blown up; relax the start, lower the temperature, or use a model of a shorter step"


def check_fit(model: Map, state: PhaseState) -> None:
    """Refuse species and masses that the map was not made for."""
    species = tuple(getattr(model, "species", None) or ())
    strangers = sorted(set(state.numbers.tolist()) - set(species)) if species else []
    if strangers:
        raise UnsupportedSystem(
            f"this model was made for {_symbols(species)}, the system also contains {_symbols(strangers)}: "
            "train a model with these species"
        )
    masses = getattr(model, "masses", None)
    for Z, expected in (masses if isinstance(masses, Mapping) else {}).items():
        wrong = wrong_masses(state, int(Z), expected, MASS_TOLERANCE)
        if bool(wrong.any()):
            how = f" (--hmr {expected:g} does it)" if Z == 1 and isinstance(expected, float) and expected > 1.5 else ""
            raise UnsupportedSystem(
                f"this model was made for {chemical_symbols[int(Z)]} of mass {as_mass(expected)} u, the system "
                f"has {float(state.masses[wrong][0]):g} u: a step depends on the masses, set them as in training{how}"
            )


def unsound_atoms(state: PhaseState, model: Map) -> Tensor:
    """Which atoms are lost, (atoms,): not finite, or further in a step than any atom goes."""
    finite = torch.isfinite(state.positions).all(1) & torch.isfinite(state.momenta).all(1)
    return ~finite | (_stride(state, model) > LONGEST_STRIDE)


def check_sound(state: PhaseState, model: Map) -> None:
    """Raise `NonFinite` or `BlownUp` naming the first atom that is lost."""
    sound = torch.isfinite(state.positions).all(1) & torch.isfinite(state.momenta).all(1)
    if not bool(sound.all()):
        atom = int((~sound).nonzero()[0])
        raise NonFinite(
            f"atom {atom} has a position or momentum that is not finite after a step of {model.step_fs:g} fs: {_CURE}"
        )
    stride = _stride(state, model)
    atom = int(stride.argmax())
    if float(stride[atom]) > LONGEST_STRIDE:
        raise BlownUp(
            f"atom {atom} moves at {float(stride[atom]):.3g} Å a step of {model.step_fs:g} fs, more than "
            f"{LONGEST_STRIDE:g} Å: {_CURE}"
        )


def _stride(state: PhaseState, model: Map) -> Tensor:
    """How far each atom goes in a step at its velocity, (atoms,), Å; zero without a species."""
    return (state.velocities.norm(dim=1) * (model.step_fs * FEMTOSECOND)).masked_fill(state.numbers == 0, 0.0)


def _symbols(numbers: tuple[int, ...] | list[int]) -> str:
    return ", ".join(chemical_symbols[int(Z)] if 0 <= int(Z) < len(chemical_symbols) else str(Z) for Z in numbers)
