"""Between `ase.Atoms` and the state of a run: reading, writing back, and noticing what somebody else changed."""

from __future__ import annotations

from typing import Any

import ase
import numpy as np
import torch
from ase.constraints import FixAtoms, FixCom

from actionlearn.errors import UnsupportedSystem
from actionlearn.state import PhaseState


class Mirror:
    """Atoms and the state that was last written to or read from them."""

    def __init__(self, atoms: ase.Atoms, model: Any) -> None:
        """Read the atoms, in the precision and on the device of the model's weights."""
        self.atoms = atoms
        weights = [w for w in getattr(model, "parameters", tuple)() if w.is_floating_point()]
        self.dtype = weights[0].dtype if weights else torch.float64
        self.device = weights[0].device if weights else torch.device("cpu")
        self.state = self._read()
        self._seen = self._look()

    def write(self, state: PhaseState) -> None:
        """Show a state on the atoms."""
        atoms = self.atoms
        if state.cell is not self.state.cell:
            atoms.set_cell(_array(state.cell[0]))
        atoms.set_positions(_array(state.positions), apply_constraint=False)
        atoms.set_momenta(_array(state.momenta), apply_constraint=False)
        self.state = state
        self._seen = self._look()

    def changed(self) -> PhaseState | None:
        """The state anew if anything on the atoms differs from what was last seen, else None.

        Where only momenta were changed, the positions stay the same tensor, so that a map keeps what it knows of them.
        """
        now = self._look()
        same = {name: np.array_equal(now[name], seen) for name, seen in self._seen.items()}
        if all(same.values()):
            return None
        state = self._read()
        if all(equal for name, equal in same.items() if name != "momenta"):
            state = self.state.moved(self.state.positions, state.momenta)
        self.state, self._seen = state, now
        return state

    def _read(self) -> PhaseState:
        bare = self.atoms.copy()
        bare.set_constraint([c for c in constraints_of(self.atoms) if not isinstance(c, FixCom)])
        return PhaseState.from_atoms(bare, dtype=self.dtype, device=self.device)

    def _look(self) -> dict[str, np.ndarray]:
        atoms = self.atoms
        fixed = [c.get_indices() for c in atoms.constraints if isinstance(c, FixAtoms)]
        return {
            "positions": atoms.positions.copy(),
            "momenta": atoms.get_momenta(),
            "cell": atoms.cell.array.copy(),
            "pbc": atoms.pbc.copy(),
            "numbers": atoms.numbers.copy(),
            "masses": atoms.get_masses(),
            "fixed": np.concatenate([*fixed, np.empty(0, dtype=int)]),
            "constraints": np.array([id(c) for c in atoms.constraints]),
        }


def constraints_of(atoms: ase.Atoms) -> list[Any]:
    """The constraints on the atoms, each of a kind that a map can keep."""
    for constraint in atoms.constraints:
        if not isinstance(constraint, (FixAtoms, FixCom)):
            name = type(constraint).__name__
            raise UnsupportedSystem(
                f"constraint {name} cannot be kept by a long step, only FixAtoms and FixCom can: remove it, or hold "
                "the atoms with a restraint among the map's extra potentials"
            )
    kinds = {type(c) for c in atoms.constraints}
    if {FixAtoms, FixCom} <= kinds:
        raise UnsupportedSystem(
            "FixCom with FixAtoms: fixed atoms exchange momentum with the others, so the centre of mass cannot be held "
            "too; remove one of them"
        )
    return list(atoms.constraints)


def holds_centre(atoms: ase.Atoms) -> bool:
    """Whether FixCom is among the constraints."""
    return any(isinstance(c, FixCom) for c in constraints_of(atoms))


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(float, copy=False)
