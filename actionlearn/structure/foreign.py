"""Dynamics objects of ASE as plain steps, so that everything that takes a step takes them too."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ase.md.md import MolecularDynamics

from actionlearn.errors import InvalidInput
from actionlearn.state import PhaseState

Step = Callable[[PhaseState], PhaseState]


def as_callable(step: Step | MolecularDynamics) -> Step:
    """A step as it is, and a dynamics of ASE as one."""
    if isinstance(step, MolecularDynamics):
        return as_step(step)
    if not callable(step):
        raise InvalidInput(
            f"a step is a callable state -> state or an ASE dynamics, not {type(step).__name__}: the step comes first, "
            "the state second"
        )
    return step


def as_step(dynamics: MolecularDynamics) -> Step:
    """The step of an ASE dynamics as a callable state -> state, through the atoms it moves.

    Only positions and momenta go in and come out: variables inside the dynamics, such as those of a thermostat, stay
    as the last call left them. Observers are not called.
    """
    atoms = dynamics.atoms

    def step(state: PhaseState) -> PhaseState:
        if state.n_systems != 1 or state.numbers.tolist() != atoms.numbers.tolist():
            raise InvalidInput(
                f"the dynamics moves {atoms.get_chemical_formula()}, the state holds {state.n_atoms} atoms in "
                f"{state.n_systems} system(s): make it from the same atoms, PhaseState.from_atoms(dynamics.atoms)"
            )
        atoms.set_positions(state.positions.detach().cpu().numpy(), apply_constraint=False)
        atoms.set_momenta(state.momenta.detach().cpu().numpy(), apply_constraint=False)
        dynamics.step()  # type: ignore[attr-defined]  # every integrator of ASE has it, their base class does not
        return state.moved(
            torch.as_tensor(atoms.get_positions()).to(state.positions),
            torch.as_tensor(atoms.get_momenta()).to(state.momenta),
        )

    return step
