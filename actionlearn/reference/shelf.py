"""Frames that stay on disk: read when they are asked for, and kept only while there is room."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np

from actionlearn.reference.reader import ReferenceSet
from actionlearn.reference.recording import Frames
from actionlearn.reference.stretch import Stretch

MEMORY_GB = 4.0
"""Frames that are kept in memory unless somebody says otherwise."""

_ARRAYS = frozenset(field.name for field in dataclasses.fields(Frames))


class Shelf:
    """The frames of the stretches used last, as many as `limit` bytes hold (one stretch at least).

    `reads` counts the files that were read, `most` is the largest number of bytes ever held.
    """

    def __init__(self, limit: int) -> None:
        """Hold nothing yet."""
        self.limit, self.held, self.most, self.reads = limit, 0, 0, 0
        self._kept: OrderedDict[tuple[Path, int], Frames] = OrderedDict()

    def stretch(self, found: ReferenceSet, index: int) -> Stretch:
        """A stretch of a set, read and checked once now, whose frames come from here."""
        whole = found[index]
        self._keep((found.folder, index), whole.frames)
        system = whole.system.moved(whole.system.positions.clone(), whole.system.momenta.clone())
        return dataclasses.replace(whole, frames=cast(Frames, FramesOnDisk(self, found, index)), system=system)

    def frames(self, found: ReferenceSet, index: int) -> Frames:
        """Frames of a stretch, from memory or else from its file, with all checks."""
        key = (found.folder, index)
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._keep(key, found[index].frames)
        return self._kept[key]

    def _keep(self, key: tuple[Path, int], frames: Frames) -> None:
        self.reads += 1
        self.held += _size(frames) - (_size(self._kept.pop(key)) if key in self._kept else 0)
        self._kept[key] = frames
        while self.held > self.limit and len(self._kept) > 1:
            self.held -= _size(self._kept.popitem(last=False)[1])
        self.most = max(self.most, self.held)


class FramesOnDisk:
    """Looks like `Frames`; every array is fetched from a shelf."""

    def __init__(self, shelf: Shelf, found: ReferenceSet, index: int) -> None:
        """The frames of one stretch of a set."""
        self._place = shelf, found, index

    def __getattr__(self, name: str) -> np.ndarray:
        """One of the arrays of `Frames`."""
        if name not in _ARRAYS:
            raise AttributeError(f"frames have no {name}")
        shelf, found, index = self._place
        array: np.ndarray = getattr(shelf.frames(found, index), name)
        return array


def open_stretches(folders: str | Path | Iterable[str | Path], *, memory_gb: float) -> list[Stretch]:
    """All stretches of one folder or several, with no more than `memory_gb` of frames in memory at a time."""
    shelf = Shelf(round(1e9 * memory_gb))
    sets = [ReferenceSet.open(folder) for folder in ([folders] if isinstance(folders, str | Path) else folders)]
    return [shelf.stretch(found, index) for found in sets for index in range(len(found))]


def _size(frames: Frames) -> int:
    return sum(getattr(frames, name).nbytes for name in _ARRAYS)
