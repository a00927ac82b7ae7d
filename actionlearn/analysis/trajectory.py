"""Frames of one system at equal intervals, as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import ase
import numpy as np

from actionlearn.errors import InvalidInput
from actionlearn.state import PhaseState


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """Positions and momenta along a run.

    | symbol | field         | shape                 | unit       |
    |--------|---------------|-----------------------|------------|
    | q      | `positions`   | (frames, atoms, dims) | Å          |
    | p      | `momenta`     | (frames, atoms, dims) | sqrt(u·eV) |
    |        | `interval_fs` |                       | fs         |

    `system` supplies masses, elements, cell and the atoms that are held: all that does not change.
    """

    positions: np.ndarray
    momenta: np.ndarray
    interval_fs: float
    system: PhaseState

    def __post_init__(self) -> None:
        """See that the arrays fit the system."""
        shape = tuple(self.system.positions.shape)
        for name in ("positions", "momenta"):
            array = getattr(self, name)
            if array.ndim != 3 or array.shape[1:] != shape or len(array) != len(self.positions):
                raise InvalidInput(f"{name} must have shape (frames, {shape[0]}, {shape[1]}), not {array.shape}")
            if not np.isfinite(array).all():
                raise InvalidInput(f"{name} are not finite: the run exploded, cut it before or shorten its step")
        if self.system.n_systems != 1:
            raise InvalidInput(f"a trajectory is of one system, not {self.system.n_systems}: unbatch it first")
        if not self.interval_fs > 0:
            raise InvalidInput(f"interval_fs must be positive, not {self.interval_fs}")

    @classmethod
    def from_states(cls, states: Sequence[PhaseState], interval_fs: float) -> Trajectory:
        """From states of one system."""
        if not states:
            raise InvalidInput("a trajectory needs at least one frame")
        q, p = (
            np.stack([getattr(s, name).detach().cpu().numpy() for s in states]) for name in ("positions", "momenta")
        )
        return cls(q, p, float(interval_fs), states[0].detach())

    @classmethod
    def from_atoms(cls, frames: Iterable[ase.Atoms], interval_fs: float) -> Trajectory:
        """From `ase.Atoms`, such as those of `ase.io.read(…, index=":")`, all of one cell and order of atoms."""
        frames = list(frames)
        if not frames:
            raise InvalidInput("a trajectory needs at least one frame")
        first = frames[0]
        for k, atoms in enumerate(frames):
            if not np.array_equal(atoms.numbers, first.numbers):
                raise InvalidInput(f"frame {k} holds other atoms than frame 0: give frames of one system")
            if not np.allclose(atoms.cell.array, first.cell.array, atol=1e-9):
                raise InvalidInput(f"the cell of frame {k} differs from that of frame 0: give a run at constant volume")
        q = np.stack([atoms.get_positions() for atoms in frames])
        p = np.stack([atoms.get_momenta() for atoms in frames])
        return cls(q, p, float(interval_fs), PhaseState.from_atoms(first))

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.positions)

    def part(self, frames: slice) -> Trajectory:
        """Some of the frames, one after the other."""
        return dataclasses.replace(self, positions=self.positions[frames], momenta=self.momenta[frames])
