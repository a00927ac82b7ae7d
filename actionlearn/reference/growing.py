"""A set of reference trajectories that grows by stretches from given states."""

from __future__ import annotations

import dataclasses
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actionlearn.errors import DataError, InvalidInput
from actionlearn.files import read_json, remove_partial, writable_folder, write_json
from actionlearn.potentials.protocol import Potential
from actionlearn.reference.chain import describe
from actionlearn.reference.reader import FORMAT, MANIFEST, ReferenceSet
from actionlearn.reference.recording import Checked, record
from actionlearn.reference.stretch import UNITS, Stretch, read_stretch, write_stretch
from actionlearn.state import PhaseState


@dataclasses.dataclass(frozen=True)
class GrowingSet:
    """A folder like that of `sample`, whose stretches start where they are told to; none is ever dropped.

    `omega_max_per_fs` is the highest frequency known of the system: the frames of a stretch are checked against it.
    """

    folder: Path
    system: PhaseState
    potential: Potential
    potential_name: str
    step_fs: float
    record_every: int
    frames: int
    temperatures_K: list[float]
    omega_max_per_fs: float

    def __post_init__(self) -> None:
        """Make the folder, or see that it is one of this set."""
        path = self.folder / MANIFEST
        if not path.exists():
            if self.folder.is_dir() and any(self.folder.glob("stretch-*.npz")):
                raise InvalidInput(f"folder {self.folder} holds stretches but no {MANIFEST}: choose another folder")
            writable_folder(self.folder)
            self._write([])
            return
        there = read_json(path)
        for key, value in self._identity().items():
            if there.get("settings", {}).get(key) != value:
                raise InvalidInput(
                    f"folder {self.folder} holds another set, which differs in {key}: choose another folder, or the "
                    "settings of that set"
                )
        remove_partial(self.folder)

    def _identity(self) -> dict[str, Any]:
        system = self.system
        return {
            "structure": f"{system.n_atoms} atoms",
            "potential": self.potential_name,
            "numbers": system.numbers.tolist(),
            "masses": system.masses.tolist(),
            "cell": system.cell[0].tolist(),
            "pbc": system.pbc[0].tolist(),
            "fixed": system.fixed.nonzero().flatten().tolist(),
            "temperatures_K": self.temperatures_K,
            "step_fs": self.step_fs,
            "frames": self.frames,
            "record_every": self.record_every,
        }

    def _write(self, entries: list[dict[str, Any]]) -> None:
        manifest = {
            "format": FORMAT,
            "package_version": metadata.version("actionlearn"),
            "units": UNITS,
            "settings": self._identity(),
            "complete": True,
            "stretches": entries,
        }
        write_json(self.folder / MANIFEST, manifest)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What the manifest says of every stretch, in the order in which they were computed."""
        entries: list[dict[str, Any]] = ReferenceSet.open(self.folder).manifest["stretches"]
        return entries

    @property
    def calls_per_stretch(self) -> int:
        """Calls of the base potential that a stretch costs."""
        return (self.frames - 1) * self.record_every + 1

    def add(self, state: PhaseState, temperature_K: float, chain: int, number: int) -> None:
        """Record the stretch of this number from a state, unless it is there already."""
        entries = self.entries
        path = self.folder / f"stretch-{temperature_K:g}K-{number:04d}.npz"
        if path.name in (entry["file"] for entry in entries):
            return
        if not path.exists():
            with torch.no_grad():
                frames = record(
                    state,
                    Checked(self.potential),
                    step_fs=self.step_fs,
                    frames=self.frames,
                    record_every=self.record_every,
                )
            stretch = Stretch(
                name=path.name,
                temperature_K=temperature_K,
                chain=chain,
                step_fs=self.step_fs,
                steps=np.arange(self.frames, dtype=np.int64) * self.record_every,
                omega_max_per_fs=self.omega_max_per_fs,
                frames=frames,
                system=state,
            )
            write_stretch(path, stretch, single=False)
        elif not np.allclose(read_stretch(path).frames.positions[0], state.positions.numpy(), atol=1e-6):
            raise DataError(f"stretch {path} starts elsewhere than it should: it belongs to another run, delete it")
        self._write([*entries, describe(path)])

    def stretches(self) -> list[Stretch]:
        """All stretches, read and checked; `chain` is what they were added with."""
        return list(ReferenceSet.open(self.folder))
