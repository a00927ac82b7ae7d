"""Training data: windows of frames one long step apart, from recorded stretches, in batches of systems of any size."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from actionlearn.errors import DataError, InvalidInput
from actionlearn.maps.guard import Masses
from actionlearn.reference import Stretch
from actionlearn.reference.shelf import MEMORY_GB, open_stretches
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND

REPARTITIONED = 2.1
"""A hydrogen that weighs more, u, has been given mass of its neighbour; deuterium weighs less."""


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """A batch of windows: the same systems at times 0, h, 2h, ….

    | symbol | field    | shape                       | unit         |
    |--------|----------|-----------------------------|--------------|
    | q, p   | `frames` | L states                    |              |
    | F      | `forces` | L × (atoms, dims)           | eV/Å         |
    | V      | `energies`| L × (systems,)             | eV           |
    | ∫(T − V)dt | `action` | (L − 1, systems)        | Å·sqrt(u·eV) |
    | s_q²   | `scale_q`| (systems,), of the stretch  | eV           |
    | s_p²   | `scale_p`| (systems,), of the stretch  | eV           |

    s_q² and s_p² are the mean squares, per degree of freedom, of sqrt(m)·(Δq − h p/m)/h and of Δp/sqrt(m): what
    a step does beyond free flight. Residuals divided by them have no units and weigh hot and cold, light and heavy,
    positions and momenta alike.
    """

    frames: list[PhaseState]
    forces: list[Tensor]
    energies: list[Tensor]
    action: Tensor
    scale_q: Tensor
    scale_p: Tensor

    def centre(self) -> PhaseState:
        """The middle of the window, half way between two frames if need be: from there it is not far to any."""
        n = len(self.frames)
        first, last = self.frames[(n - 1) // 2], self.frames[n // 2]
        return first.moved(0.5 * (first.positions + last.positions), first.momenta)

    def reversed(self) -> Windows:
        """The same motion run backwards: frames in the opposite order, momenta flipped."""
        frames = [state.flip() for state in reversed(self.frames)]
        forces, energies = self.forces[::-1], self.energies[::-1]
        return dataclasses.replace(self, frames=frames, forces=forces, energies=energies, action=self.action.flip(0))


class Dataset:
    """Windows of `length` frames, `step_fs` apart, that start at every recorded frame of every stretch.

    Windows overlap; they never cross from one stretch to another. Frames are kept in float64 and handed out in
    any precision, on any device. Frames of a set larger than `memory_gb` are read when they are needed. Windows of
    one frame are structures without motion.
    """

    def __init__(self, stretches: Sequence[Stretch], *, step_fs: float, length: int = 2) -> None:
        """Cut stretches into windows."""
        if not stretches:
            raise InvalidInput("a data set needs at least one stretch")
        self.stretches, self.step_fs, self.memory_gb = list(stretches), float(step_fs), math.inf
        self._cut(length)
        self._scales = [_scales(s, k, self.step_fs) for s, k in zip(self.stretches, self._strides, strict=True)]

    @classmethod
    def open(
        cls,
        folders: str | Path | Iterable[str | Path],
        *,
        step_fs: float,
        length: int = 2,
        memory_gb: float = MEMORY_GB,
    ) -> Dataset:
        """The windows of one folder of reference trajectories, or of several together."""
        if not memory_gb > 0:
            raise InvalidInput(f"memory_gb must be positive, not {memory_gb}")
        data = cls(open_stretches(folders, memory_gb=memory_gb), step_fs=step_fs, length=length)
        data.memory_gb = memory_gb
        return data

    def _cut(self, length: int) -> None:
        if length < 1:
            raise InvalidInput(f"a window has at least 2 frames, or 1 where no motion is asked for, not {length}")
        self.length = length
        self.masses = _masses(self.stretches)
        self._strides = [_stride(stretch, self.step_fs, length) for stretch in self.stretches]
        self._windows = [
            (k, start)
            for k, stretch in enumerate(self.stretches)
            for start in range(len(stretch) - (length - 1) * self._strides[k])
        ]

    def _part(self, indices: Sequence[int], length: int) -> Dataset:
        """Some of the stretches, in windows of another length."""
        part = copy.copy(self)
        part.stretches = [self.stretches[k] for k in indices]
        part._scales = [self._scales[k] for k in indices]
        part._cut(length)
        return part

    def __len__(self) -> int:
        """Number of windows."""
        return len(self._windows)

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers, in order."""
        return tuple(self.masses)

    @property
    def temperatures_K(self) -> tuple[float, float]:
        """The lowest and the highest temperature."""
        T = [s.temperature_K for s in self.stretches]
        return min(T), max(T)

    def temperatures_of(self, indices: Sequence[int]) -> list[float]:
        """The temperature of each of these windows, K."""
        return [self.stretches[self._windows[index][0]].temperature_K for index in indices]

    def steps_between(self, low_fs: float, high_fs: float) -> list[float]:
        """The steps within a range that lie on the frames of every stretch, fs."""
        intervals = {s.interval_fs for s in self.stretches}
        interval = max(intervals)
        if any(abs(interval / other - round(interval / other)) > 1e-6 for other in intervals):
            raise InvalidInput(f"frames {sorted(intervals)} fs apart have no steps in common: train on fewer sets")
        first, last = math.ceil(low_fs / interval - 1e-6), math.floor(high_fs / interval + 1e-6)
        steps = [k * interval for k in range(max(first, 1), last + 1)]
        if len(steps) < 2:
            raise InvalidInput(
                f"{len(steps)} step(s) from {low_fs:g} to {high_fs:g} fs lie on frames {interval:g} fs apart, a range "
                "takes at least 2: choose a wider one, or sample with a smaller record_every"
            )
        return steps

    def at_step(self, step_fs: float) -> Dataset:
        """The same stretches in windows of another step."""
        data = Dataset(self.stretches, step_fs=step_fs, length=self.length)
        data.memory_gb = self.memory_gb
        return data

    def resized(self, length: int) -> Dataset:
        """The same stretches in windows of another length."""
        return self._part(range(len(self.stretches)), length)

    def split(self, seed: int = 0, *, validation: float = 0.1, test: float = 0.1) -> tuple[Dataset, Dataset, Dataset]:
        """Training, validation and test sets that share no stretch.

        Stretches are shuffled by `seed` within their temperature and dealt out evenly over the temperatures.
        """
        n = len(self.stretches)
        parts = [max(1, round(part * n)) for part in (validation, test)]
        if sum(parts) >= n:
            raise InvalidInput(
                f"{n} stretches cannot be split into training, validation ({validation:g}) and test ({test:g}): "
                "sample at least 3 stretches, or lower the parts"
            )
        shuffled = np.random.default_rng(seed).permutation(n).tolist()
        rest = sorted(shuffled, key=lambda k: (self.stretches[k].temperature_K, self.stretches[k].system.n_atoms))
        held: list[list[int]] = []
        for count in parts:
            at = [int((i + 0.5) * len(rest) / count) for i in range(count)]
            held.append([rest[i] for i in at])
            rest = [k for i, k in enumerate(rest) if i not in at]
        dealt = [self._part(sorted(indices), self.length) for indices in (rest, *held)]
        return dealt[0], dealt[1], dealt[2]

    # --- batches ----------------------------------------------------------------------------------

    def order(self, atoms: int, seed: int, epoch: int) -> list[list[int]]:
        """One pass over all windows, shuffled and packed into batches of at most `atoms` atoms (at least one window).

        Of a set larger than its memory, stretches are visited in shuffled groups that fit, so that each is read about
        once a pass. The order depends on nothing but the data and the arguments, so that training can go on anywhere.
        """
        random = np.random.default_rng([seed, epoch])
        batches: list[list[int]] = []
        for group in self._groups(random):
            room = 0
            for index in random.permutation(group).tolist():
                size = self.stretches[self._windows[index][0]].system.n_atoms
                if not room or size > room:
                    batches.append([])
                    room = atoms
                batches[-1].append(index)
                room = max(room - size, 0)
        return batches

    def _groups(self, random: np.random.Generator) -> list[np.ndarray]:
        """Windows of as many stretches as fit into memory together, in one group if all do."""
        sizes = np.array([(72 * s.system.n_atoms + 24) * len(s) for s in self.stretches])
        owner = np.array([k for k, _ in self._windows])
        if sizes.sum() <= 1e9 * self.memory_gb:
            return [np.arange(len(self))]
        groups: list[list[int]] = []
        room = 0.0
        for k in random.permutation(len(sizes)).tolist():
            if not groups or sizes[k] > room:
                groups.append([])
                room = 1e9 * self.memory_gb
            groups[-1].append(k)
            room -= sizes[k]
        return [np.flatnonzero(np.isin(owner, group)) for group in groups]

    def even(self, count: int) -> list[int]:
        """About `count` windows, spread evenly over the set."""
        return np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)).tolist()

    def windows(
        self, indices: Sequence[int], dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> Windows:
        """Several windows as one batch."""
        chosen = [self._windows[index] for index in indices]
        rows: list[list[np.ndarray]] = [[] for _ in chosen]
        for n in sorted(range(len(chosen)), key=chosen.__getitem__):  # a stretch after the other: each is read once
            k, start = chosen[n]
            at = start + self._strides[k] * np.arange(self.length)
            rows[n] = [getattr(self.stretches[k].frames, name)[at] for name in ("positions", "momenta", "forces")]
            rows[n].append(np.diff(self.stretches[k].frames.action[at]))
            rows[n].append(self.stretches[k].frames.potential_energies[at])

        def gather(part: int, frame: int) -> Tensor:
            return torch.from_numpy(np.concatenate([row[part][frame] for row in rows])).to(device, dtype)

        template = PhaseState.batch([self.stretches[k].system for k, _ in chosen]).to(dtype, device)
        scales = torch.tensor([self._scales[k] for k, _ in chosen]).to(device, dtype)
        return Windows(
            frames=[template.moved(gather(0, n), gather(1, n)) for n in range(self.length)],
            forces=[gather(2, n) for n in range(self.length)],
            energies=list(torch.from_numpy(np.stack([row[4] for row in rows], axis=1)).to(device, dtype)),
            action=torch.from_numpy(np.stack([row[3] for row in rows], axis=1)).to(device, dtype),
            scale_q=scales[:, 0],
            scale_p=scales[:, 1],
        )


def used_stretches(**parts: Dataset) -> dict[str, dict[str, list[str]]]:
    """Names and checksums of the stretches of each part of the data, for the report of a map."""
    return {
        "stretches": {part: [s.name for s in data.stretches] for part, data in parts.items()},
        "checksums": {part: [s.checksum for s in data.stretches] for part, data in parts.items()},
    }


def _stride(stretch: Stretch, step_fs: float, length: int) -> int:
    """Recorded intervals per long step, 0 for single frames."""
    if length == 1:
        return 0
    if len(stretch) == 1:
        raise InvalidInput(f"{stretch.name} is a single frame, which holds no motion: train potentials on it")
    stride = round(step_fs / stretch.interval_fs)
    if stride < 1 or abs(stride * stretch.interval_fs - step_fs) > 1e-6 * step_fs:
        raise InvalidInput(
            f"step_fs={step_fs:g} is no multiple of the {stretch.interval_fs:g} fs between the frames of "
            f"{stretch.name}: choose a multiple, or sample with another record_every"
        )
    if len(stretch) <= (length - 1) * stride:
        raise InvalidInput(
            f"stretch {stretch.name} spans {stretch.times_fs[-1]:g} fs, too short for {length} frames "
            f"{step_fs:g} fs apart: sample longer stretches"
        )
    return stride


def _scales(stretch: Stretch, stride: int, step_fs: float) -> tuple[float, float]:
    """Mean squares of what a step does beyond free flight, s_q² and s_p², eV; of single frames under their forces."""
    free = ~stretch.system.fixed.numpy()
    m, h = stretch.system.masses.numpy()[free, None], step_fs * FEMTOSECOND
    q, p = stretch.frames.positions[:, free], stretch.frames.momenta[:, free]
    if stride == 0:
        dp = h * stretch.frames.forces[:, free]
        dq = 0.5 * h * dp / m
    else:
        dp = p[stride:] - p[:-stride]
        dq = q[stride:] - q[:-stride] - h * p[:-stride] / m
    tiny = np.finfo(float).tiny
    return max(float((m * dq**2).mean() / h**2), tiny), max(float((dp**2 / m).mean()), tiny)


def _masses(stretches: Sequence[Stretch]) -> Masses:
    """The mass of every element; one of two masses is refused, unless hydrogens have theirs at the cost of others."""
    hydrogens = {m for s in stretches for m in s.system.masses[s.system.numbers == 1].tolist()}
    if hydrogens and max(hydrogens) - min(hydrogens) < 1e-6 and min(hydrogens) > REPARTITIONED:
        atoms = (zip(s.system.numbers.tolist(), s.system.masses.tolist(), strict=True) for s in stretches)
        pairs = {pair for stretch in atoms for pair in stretch}
        found = {z: tuple(sorted(m for other, m in pairs if other == z)) for z, _ in sorted(pairs)}
        return {z: m[0] if len(m) == 1 else m for z, m in found.items()}
    masses: dict[int, float] = {}
    for stretch in stretches:
        for z, m in zip(stretch.system.numbers.tolist(), stretch.system.masses.tolist(), strict=True):
            if abs(masses.setdefault(z, m) - m) > 1e-6 * m:
                raise DataError(
                    f"element {z} has masses {masses[z]:g} and {m:g} u, the latter in {stretch.name}: "
                    "a model holds one mass for an element; give the sets of each isotope to a model of its own"
                )
    return dict(sorted(masses.items()))
