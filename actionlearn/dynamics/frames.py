"""Trajectory files that a run can go on writing after it was stopped at any moment."""

from __future__ import annotations

import os
from pathlib import Path

import ase
import ase.io
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory

from actionlearn.errors import DataError, InvalidInput
from actionlearn.files import PARTIAL


class FrameFile:
    """Frames of one run in extended XYZ (`.xyz`, `.extxyz`) or ASE's own format (`.traj`), each with step and time."""

    def __init__(self, path: str | Path) -> None:
        """Choose the format by the ending of the name."""
        self.path = Path(path)
        if self.path.suffix not in (".xyz", ".extxyz", ".traj"):
            raise InvalidInput(f"output {self.path} must end in .xyz, .extxyz or .traj")
        self.is_text = self.path.suffix != ".traj"

    def write(self, atoms: ase.Atoms, step: int, time_fs: float, energy: float | None = None) -> None:
        """Add a frame; the energy is stored with it where there is one."""
        frame = atoms.copy()
        frame.set_constraint(atoms.constraints)
        frame.info["step"], frame.info["time_fs"] = step, time_fs
        if energy is not None:
            frame.calc = SinglePointCalculator(frame, energy=energy)
        if self.is_text:
            ase.io.write(self.path, frame, format="extxyz", append=True)
        else:
            with Trajectory(self.path, "a") as file:
                file.write(frame)

    def start(self) -> None:
        """Remove frames of another run."""
        self.path.unlink(missing_ok=True)

    def cut_after(self, step: int) -> None:
        """Drop all frames after a step, whole or not: those that a resumed run will write again."""
        if not self.path.exists():
            raise DataError(
                f"{self.path} is gone, its run cannot be continued: delete the restart file to start afresh"
            )
        if self.is_text:
            os.truncate(self.path, self._bytes_until(step))
            return
        partial = self.path.with_name(self.path.name + PARTIAL)
        with Trajectory(self.path) as old, Trajectory(partial, "w") as new:
            for frame in old:
                if frame.info["step"] <= step:
                    new.write(frame)
        os.replace(partial, self.path)

    def _bytes_until(self, step: int) -> int:
        """Length of the file up to the last frame that is kept."""
        kept = 0
        with self.path.open("rb") as file:
            while first := file.readline():
                header = file.readline()
                found = [word for word in header.split() if word.startswith(b"step=")]
                if not found or int(found[0].removeprefix(b"step=")) > step:
                    break
                for _ in range(int(first)):
                    file.readline()
                kept = file.tell()
        return kept
