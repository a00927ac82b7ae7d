"""Reading a folder of stretches, one at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from actionlearn.errors import DataError, InvalidInput
from actionlearn.files import read_json, sha256
from actionlearn.reference.stretch import UNITS, Stretch, read_stretch

FORMAT = "actionlearn reference 1"
MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class ReferenceSet:
    """A folder of stretches: `for stretch in ReferenceSet.open(folder)` holds one in memory at a time.

    Each stretch is checked when it is read: checksum, units, order of frames, masses, jumps.
    """

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> ReferenceSet:
        """Open a folder by its manifest; stretches are read later."""
        folder = Path(folder)
        path = folder / MANIFEST
        if not path.is_file():
            raise InvalidInput(f"{folder} holds no {MANIFEST}: give a folder written by `actionlearn sample`")
        manifest = read_json(path)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise DataError(f"{path} is no manifest of format '{FORMAT}'")
        for name, unit in UNITS.items():
            came = manifest.get("units", {}).get(name)
            if came != unit:
                raise DataError(f"{path}: {name} are in {came}, expected {unit}; convert the set before use")
        return cls(folder, manifest)

    def __len__(self) -> int:
        """Number of stretches."""
        return len(self.manifest["stretches"])

    def __getitem__(self, index: int) -> Stretch:
        """Read and check a stretch."""
        entry = self.manifest["stretches"][index]
        path = self.folder / entry["file"]
        if path.is_file() and sha256(path) != entry["sha256"]:
            raise DataError(f"stretch {path} does not have the checksum of the manifest: it was changed or damaged")
        stretch = read_stretch(path)
        settings = self.manifest["settings"]
        if not np.array_equal(stretch.system.masses.numpy(), settings["masses"]):
            raise DataError(f"stretch {path} has other masses than the manifest: it belongs to another run")
        if not np.array_equal(stretch.system.numbers.numpy(), settings["numbers"]):
            raise DataError(f"stretch {path} has other elements than the manifest: it belongs to another run")
        if stretch.step_fs != settings["step_fs"] or (len(stretch) > 1 and stretch.interval_fs != self.interval_fs):
            raise DataError(
                f"stretch {path} has frames {stretch.interval_fs:g} fs apart by steps of {stretch.step_fs:g} fs, "
                f"the manifest {self.interval_fs:g} by {settings['step_fs']:g} fs: it belongs to another run"
            )
        return stretch

    def __iter__(self) -> Iterator[Stretch]:
        """Stream the stretches."""
        for index in range(len(self)):
            yield self[index]

    @property
    def names(self) -> list[str]:
        """File names of the stretches, in order."""
        return [entry["file"] for entry in self.manifest["stretches"]]

    @property
    def complete(self) -> bool:
        """Whether the run that wrote the folder came to its end."""
        return bool(self.manifest["complete"])

    @property
    def potential(self) -> str:
        """Name of the base potential."""
        return str(self.manifest["settings"]["potential"])

    @property
    def temperatures_K(self) -> list[float]:
        """Temperatures that were sampled."""
        return list(self.manifest["settings"]["temperatures_K"])

    @property
    def step_fs(self) -> float:
        """Base step, fs."""
        return float(self.manifest["settings"]["step_fs"])

    @property
    def interval_fs(self) -> float:
        """Time between two frames, fs."""
        return self.step_fs * int(self.manifest["settings"]["record_every"])

    @property
    def omega_max_per_fs(self) -> float:
        """The highest vibrational frequency met, 1/fs."""
        return max(float(entry["omega_max_per_fs"]) for entry in self.manifest["stretches"])

    @property
    def warnings(self) -> list[str]:
        """What the run said about its base step, one line a stretch."""
        return [f"{entry['file']}: {line}" for entry in self.manifest["stretches"] for line in entry["warnings"]]
