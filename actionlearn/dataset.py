"""Training data: windows of frames one long step apart, from recorded stretches, in batches of systems of any size."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from actionlearn.errors import DataError, InvalidInput
from actionlearn.reference import ReferenceSet, Stretch
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """A batch of windows: the same systems at times 0, h, 2h, ….

    | symbol | field    | shape                       | unit         |
    |--------|----------|-----------------------------|--------------|
    | q, p   | `frames` | L states                    |              |
    | F      | `forces` | L × (atoms, dims)           | eV/Å         |
    | ∫(T − V)dt | `action` | (L − 1, systems)        | Å·sqrt(u·eV) |
    | s_q²   | `scale_q`| (systems,), of the stretch  | eV           |
    | s_p²   | `scale_p`| (systems,), of the stretch  | eV           |

    s_q² and s_p² are the mean squares, per degree of freedom, of sqrt(m)·(Δq − h p/m)/h and of Δp/sqrt(m): what
    a step does beyond free flight. Residuals divided by them have no units and weigh hot and cold, light and heavy,
    positions and momenta alike.
    """

    frames: list[PhaseState]
    forces: list[Tensor]
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
        return dataclasses.replace(self, frames=frames, forces=self.forces[::-1], action=self.action.flip(0))


class Dataset:
    """Windows of `length` frames, `step_fs` apart, that start at every recorded frame of every stretch.

    Windows overlap; they never cross from one stretch to another. Frames are kept in float64 and handed out in
    any precision.
    """

    def __init__(self, stretches: Sequence[Stretch], *, step_fs: float, length: int = 2) -> None:
        """Cut stretches into windows."""
        if length < 2:
            raise InvalidInput(f"a window has at least 2 frames, not {length}")
        if not stretches:
            raise InvalidInput("a data set needs at least one stretch")
        self.stretches, self.step_fs, self.length = list(stretches), float(step_fs), length
        self.masses = _masses(stretches)
        self._windows: list[tuple[int, int]] = []
        self._strides, self._scales = [], []
        for k, stretch in enumerate(self.stretches):
            stride = _stride(stretch, self.step_fs, length)
            self._strides.append(stride)
            self._scales.append(_scales(stretch, stride, self.step_fs))
            self._windows += [(k, start) for start in range(len(stretch) - (length - 1) * stride)]

    @classmethod
    def open(cls, folders: str | Path | Iterable[str | Path], *, step_fs: float, length: int = 2) -> Dataset:
        """The windows of one folder of reference trajectories, or of several together."""
        folders = [folders] if isinstance(folders, str | Path) else list(folders)
        return cls([s for folder in folders for s in ReferenceSet.open(folder)], step_fs=step_fs, length=length)

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

    def resized(self, length: int) -> Dataset:
        """The same stretches in windows of another length."""
        return Dataset(self.stretches, step_fs=self.step_fs, length=length)

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
        held = []
        for count in parts:
            at = [int((i + 0.5) * len(rest) / count) for i in range(count)]
            held.append([rest[i] for i in at])
            rest = [k for i, k in enumerate(rest) if i not in at]

        def part(indices: list[int]) -> Dataset:
            return Dataset([self.stretches[k] for k in sorted(indices)], step_fs=self.step_fs, length=self.length)

        return part(rest), part(held[0]), part(held[1])

    # --- batches ----------------------------------------------------------------------------------

    def order(self, atoms: int, seed: int, epoch: int) -> list[list[int]]:
        """One pass over all windows, shuffled and packed into batches of at most `atoms` atoms (at least one window).

        It depends on nothing but the arguments, so that training can go on anywhere.
        """
        batches: list[list[int]] = [[]]
        room = atoms
        for index in np.random.default_rng([seed, epoch]).permutation(len(self)).tolist():
            size = self.stretches[self._windows[index][0]].system.n_atoms
            if batches[-1] and size > room:
                batches.append([])
                room = atoms
            batches[-1].append(index)
            room -= size
        return batches

    def even(self, count: int) -> list[int]:
        """About `count` windows, spread evenly over the set."""
        return np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)).tolist()

    def windows(self, indices: Sequence[int], dtype: torch.dtype = torch.float64) -> Windows:
        """Several windows as one batch."""
        chosen = [self._windows[index] for index in indices]

        def gather(name: str, frame: int) -> Tensor:
            arrays = [getattr(self.stretches[k].frames, name)[start + frame * self._strides[k]] for k, start in chosen]
            return torch.from_numpy(np.concatenate(arrays)).to(dtype)

        template = PhaseState.batch([self.stretches[k].system for k, _ in chosen]).to(dtype)
        frames = [template.moved(gather("positions", n), gather("momenta", n)) for n in range(self.length)]
        action = [
            np.diff(self.stretches[k].frames.action[start :: self._strides[k]][: self.length]) for k, start in chosen
        ]
        scales = torch.tensor([self._scales[k] for k, _ in chosen]).to(dtype)
        return Windows(
            frames=frames,
            forces=[gather("forces", n) for n in range(self.length)],
            action=torch.from_numpy(np.stack(action, axis=1)).to(dtype),
            scale_q=scales[:, 0],
            scale_p=scales[:, 1],
        )


def _stride(stretch: Stretch, step_fs: float, length: int) -> int:
    """Recorded intervals per long step."""
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
    """Mean squares of what a step does beyond free flight, s_q² and s_p², eV."""
    free = ~stretch.system.fixed.numpy()
    m, h = stretch.system.masses.numpy()[free, None], step_fs * FEMTOSECOND
    q, p = stretch.frames.positions[:, free], stretch.frames.momenta[:, free]
    dp = p[stride:] - p[:-stride]
    dq = q[stride:] - q[:-stride] - h * p[:-stride] / m
    tiny = np.finfo(float).tiny
    return max(float((m * dq**2).mean() / h**2), tiny), max(float((dp**2 / m).mean()), tiny)


def _masses(stretches: Sequence[Stretch]) -> dict[int, float]:
    """The mass of every element; one element of two masses is refused."""
    masses: dict[int, float] = {}
    for stretch in stretches:
        for z, m in zip(stretch.system.numbers.tolist(), stretch.system.masses.tolist(), strict=True):
            if abs(masses.setdefault(z, m) - m) > 1e-6 * m:
                raise DataError(
                    f"element {z} has masses {masses[z]:g} and {m:g} u, the latter in {stretch.name}: "
                    "a model holds one mass for an element; give the sets of each isotope to a model of its own"
                )
    return dict(sorted(masses.items()))
