"""Trajectory files that a run can go on writing after it was stopped at any moment."""

from __future__ import annotations

import os
from pathlib import Path

import ase
import ase.io
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory

from actionlearn.errors import DataError, InvalidInput
from actionlearn.files import PARTIAL, writable_folder
from actionlearn.state import PhaseState


def frame_of(atoms: ase.Atoms, step: int, time_fs: float, energy: float | None = None) -> ase.Atoms:
    """A copy of the atoms as they are now, with step, time and, where there is one, energy."""
    frame = atoms.copy()
    frame.set_constraint(atoms.constraints)
    frame.info["step"], frame.info["time_fs"] = step, time_fs
    if energy is not None:
        frame.calc = SinglePointCalculator(frame, energy=energy)
    return frame


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
        self.append(frame_of(atoms, step, time_fs, energy))

    def append(self, frame: ase.Atoms) -> None:
        """Add what `frame_of` made."""
        if self.is_text:
            ase.io.write(self.path, frame, format="extxyz", append=True)
        else:
            with Trajectory(self.path, "a") as file:
                file.write(frame)

    def settle(self) -> None:
        """Wait until all frames are on the disk: a restart file must not outlive frames that it takes for written."""
        if self.path.exists():
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())

    def start(self) -> None:
        """Remove frames of another run, but nothing that is not of a run."""
        if self.path.exists() and not self._is_of_a_run():
            raise InvalidInput(
                f"{self.path} exists and was not written by a run: it would be lost; choose another name for the "
                "output, or delete it"
            )
        self.path.unlink(missing_ok=True)

    def _is_of_a_run(self) -> bool:
        """Whether the first frame has the step that `frame_of` gives it; or nothing whole was written yet."""
        if self.is_text:
            with self.path.open("rb") as file:
                file.readline()
                header = file.readline()
            return not header.endswith(b"\n") or b" step=" in header
        try:
            with Trajectory(self.path) as file:
                return len(file) == 0 or "step" in file[0].info
        except Exception:  # of many kinds, whatever the file is
            return self.path.stat().st_size == 0

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


class SystemFiles:
    """Frames of all systems of a batch, `run.xyz` for one, `run-000.xyz`, `run-001.xyz` … for several."""

    def __init__(self, path: str | Path, systems: int) -> None:
        """Choose the format by the ending of the name."""
        path = Path(path)
        names = [path] if systems == 1 else [path.with_stem(f"{path.stem}-{k:03d}") for k in range(systems)]
        self.files = [FrameFile(name) for name in names]

    def begin(self, after: int | None) -> None:
        """Remove frames of another run, or those of this one after a step."""
        writable_folder(self.files[0].path.parent)
        for file in self.files:
            if after is None:
                file.start()
            else:
                file.cut_after(after)

    def settle(self) -> None:
        """Wait until all frames are on the disk."""
        for file in self.files:
            file.settle()

    def write(self, state: PhaseState, step: int, time_fs: float, energies: list[float] | None) -> None:
        """Add a frame to every file."""
        for k, file in enumerate(self.files):
            one = state if state.n_systems == 1 else state.select(k)
            file.write(one.to_atoms(), step, time_fs, None if energies is None else energies[k])
