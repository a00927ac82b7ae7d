"""One recorded stretch: its file, and the checks that find bad data and name it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from actionlearn.errors import DataError
from actionlearn.files import write_atomically
from actionlearn.reference.recording import Frames
from actionlearn.state import PhaseState
from actionlearn.units import BOLTZMANN, FEMTOSECOND, PICOSECOND

FORMAT = "actionlearn stretch 1"
UNITS = {
    "positions": "angstrom",
    "momenta": "sqrt(u*eV)",
    "forces": "eV/angstrom",
    "energies": "eV",
    "action": "angstrom*sqrt(u*eV)",
    "masses": "u",
    "cell": "angstrom",
    "omega_max": "1/fs",
}
_SYSTEM = ("masses", "numbers", "cell", "pbc", "fixed")
_FRAMES = ("momenta", "forces", "potential_energies", "kinetic_energies", "action")


@dataclasses.dataclass(frozen=True, eq=False)
class Stretch:
    """A microcanonical stretch: frames `interval_fs` apart, and the system they belong to.

    Positions are continuous (never wrapped into the cell). Arrays are float64, whatever they were stored as.
    """

    name: str
    temperature_K: float
    chain: int
    step_fs: float
    steps: np.ndarray
    omega_max_per_fs: float
    frames: Frames
    system: PhaseState

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.steps)

    @property
    def interval_fs(self) -> float:
        """Time between two frames, fs; zero where there is one alone."""
        if len(self.steps) == 1:
            return 0.0
        return float(self.steps[1] - self.steps[0]) * self.step_fs

    @property
    def times_fs(self) -> np.ndarray:
        """Time of each frame since the start of the stretch, fs."""
        return self.steps * self.step_fs

    @property
    def total_energies(self) -> np.ndarray:
        """T + V of each frame, eV."""
        return self.frames.kinetic_energies + self.frames.potential_energies

    @functools.cached_property
    def checksum(self) -> str:
        """SHA-256 of the motion and the system, whatever the file is called and however it is packed."""
        digest = hashlib.sha256(repr((self.step_fs, self.steps.tolist())).encode())
        for array in (*(getattr(self.system, name).numpy() for name in _SYSTEM), self.frames.positions):
            digest.update(np.ascontiguousarray(array).data)
        digest.update(np.ascontiguousarray(self.frames.momenta).data)
        return digest.hexdigest()

    def state(self, frame: int, dtype: torch.dtype = torch.float64) -> PhaseState:
        """Frame `frame` as a phase-space state; negative numbers count from the end."""

        def real(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array[frame]).to(dtype)

        system = self.system if dtype == torch.float64 else self.system.to(dtype)
        return system.moved(real(self.frames.positions), real(self.frames.momenta))

    def forces(self, frame: int) -> Tensor:
        """Forces of the base potential at frame `frame`, eV/Å."""
        return torch.from_numpy(self.frames.forces[frame])

    # --- figures ----------------------------------------------------------------------------------

    @property
    def kinetic_temperature_K(self) -> float:
        """Kinetic temperature averaged over the frames; three momenta count as removed unless an atom is fixed."""
        dims = self.frames.positions.shape[2]
        free = dims * int((~self.system.fixed).sum())
        at_rest = np.abs(self.frames.momenta[0].sum(0)).max() < 1e-6 * np.abs(self.frames.momenta[0]).sum()
        free -= dims if at_rest and free > dims else 0
        return float(2.0 * self.frames.kinetic_energies.mean() / (free * BOLTZMANN))

    @property
    def energy_rms(self) -> float:
        """Root mean square fluctuation of the total energy, eV per atom."""
        return float(self.total_energies.std() / self.system.n_atoms)

    @property
    def energy_drift(self) -> float:
        """Slope of a straight line through the total energy, eV per atom per ps; zero of one frame."""
        if len(self.steps) == 1:
            return 0.0
        time_ps = self.times_fs * (FEMTOSECOND / PICOSECOND)
        return float(np.polyfit(time_ps, self.total_energies, 1)[0] / self.system.n_atoms)

    def step_warnings(self) -> list[str]:
        """Signs that the base step is too large, none if it is sound."""
        found = []
        phase = self.omega_max_per_fs * self.step_fs
        if phase > 0.4:
            found.append(
                f"ω_max·dt = {phase:.2f} exceeds 0.4: the fastest period, {2 * np.pi / self.omega_max_per_fs:.1f} fs, "
                f"has fewer than 16 steps; use at most {0.4 / self.omega_max_per_fs:.2g} fs"
            )
        kT = BOLTZMANN * self.temperature_K
        root = (self.system.n_atoms * self.frames.positions.shape[2]) ** 0.5
        fluctuation = self.energy_rms * self.system.n_atoms / (kT * root) if kT > 0 else 0.0
        if fluctuation > 0.02:
            found.append(
                f"the total energy fluctuates by {1e3 * self.energy_rms:.3g} meV/atom "
                f"({100 * fluctuation:.1f} % of kT·sqrt(degrees of freedom), 2 % are allowed); use a smaller step"
            )
        change = abs(self.energy_drift) * float(self.times_fs[-1]) * (FEMTOSECOND / PICOSECOND)
        if change > 2.0 * self.energy_rms and change > 1e-3 * kT:
            found.append(
                f"the total energy drifts by {1e3 * self.energy_drift:.3g} meV/atom/ps; use a smaller step "
                "or tighter forces"
            )
        return found


def write_stretch(path: Path, stretch: Stretch, *, single: bool) -> None:
    """Write a stretch, atomically and identically for identical content.

    With `single`, momenta, forces and the displacements from the first frame are stored in float32: displacements
    of less than 1 Å are then right to 6e-8 Å. The first frame and all energies and actions stay float64.
    """
    dtype = np.float32 if single else np.float64
    first = stretch.frames.positions[0]
    system = stretch.system
    content = {
        "format": np.array(FORMAT),
        "units": np.array(json.dumps(UNITS)),
        "temperature_K": np.array(stretch.temperature_K),
        "chain": np.array(stretch.chain),
        "step_fs": np.array(stretch.step_fs),
        "steps": stretch.steps,
        "omega_max": np.array(stretch.omega_max_per_fs),
        "first_positions": first,
        "displacements": (stretch.frames.positions - first).astype(dtype),
        "momenta": stretch.frames.momenta.astype(dtype),
        "forces": stretch.frames.forces.astype(dtype),
        "potential_energies": stretch.frames.potential_energies,
        "kinetic_energies": stretch.frames.kinetic_energies,
        "action": stretch.frames.action,
        **{name: getattr(system, name).numpy() for name in _SYSTEM},
    }

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in content.items():  # fixed dates, so that the same content is the same file
                info = zipfile.ZipInfo(f"{name}.npy")
                info.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(info, "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)

    write_atomically(path, write)


def read_stretch(path: Path) -> Stretch:
    """Read a stretch and check it; whatever is wrong is a `DataError` that names the file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"stretch {path} is missing: restore it, or sample again into the same folder") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as problem:
        raise DataError(f"stretch {path} cannot be read ({problem}): it is damaged or another kind of file") from None
    if str(content.get("format")) != FORMAT:
        raise DataError(f"stretch {path} has format {content.get('format')}, expected '{FORMAT}'")
    wanted = {"units", "temperature_K", "chain", "step_fs", "steps", "omega_max", "first_positions", "displacements"}
    missing = sorted((wanted | set(_SYSTEM) | set(_FRAMES)) - set(content))
    if missing:
        raise DataError(f"stretch {path} lacks {', '.join(missing)}: it was not written by this package")
    _check_units(path, str(content["units"]))
    q = content["first_positions"] + content["displacements"].astype(np.float64)
    p = content["momenta"].astype(np.float64)
    try:
        system = PhaseState(q[0], p[0], **{name: content[name] for name in _SYSTEM})
    except (ValueError, IndexError) as problem:
        raise DataError(f"stretch {path} holds no valid system: {problem}") from None
    frames = Frames(q, p, *(content[name].astype(np.float64) for name in _FRAMES[1:]))
    stretch = Stretch(
        name=path.name,
        temperature_K=float(content["temperature_K"]),
        chain=int(content["chain"]),
        step_fs=float(content["step_fs"]),
        steps=content["steps"],
        omega_max_per_fs=float(content["omega_max"]),
        frames=frames,
        system=system,
    )
    check_stretch(stretch)
    return stretch


def _check_units(path: Path, text: str) -> None:
    try:
        units = json.loads(text)
    except ValueError:
        units = {}
    for name, unit in UNITS.items():
        came = units.get(name) if isinstance(units, dict) else None
        if came != unit:
            raise DataError(f"stretch {path}: {name} are in {came}, expected {unit}; convert them before use")


def check_stretch(stretch: Stretch) -> None:
    """Raise `DataError` on numbers that contradict each other: order, finiteness, masses, jumps."""
    name, frames = stretch.name, stretch.frames
    n = len(stretch)
    if n < 1:
        raise DataError(f"stretch {name} has no frames, at least one is needed")
    for field in dataclasses.fields(frames):
        array = getattr(frames, field.name)
        shape = frames.positions.shape if array.ndim == 3 else (n,)
        if len(array) != n or array.shape != shape:
            raise DataError(f"stretch {name}: {field.name} have shape {array.shape}, expected {shape}")
        bad = ~np.isfinite(array.reshape(n, -1)).all(1)
        if bad.any():
            raise DataError(f"stretch {name}: {field.name} are not finite in frame {int(bad.argmax())}")
    gaps = np.diff(stretch.steps)
    if n > 1 and ((gaps <= 0).any() or (gaps != gaps[0]).any()):
        k = int(np.argmax((gaps <= 0) | (gaps != gaps[0])))
        raise DataError(
            f"stretch {name}: frames are out of order, step {int(stretch.steps[k + 1])} follows step "
            f"{int(stretch.steps[k])} where every {int(gaps[0])}th was recorded"
        )
    T = 0.5 * (frames.momenta**2 * stretch.system.inverse_masses.numpy()).sum((1, 2))
    wrong = np.abs(T - frames.kinetic_energies) > 1e-5 * np.abs(T).max()
    if wrong.any():
        k = int(wrong.argmax())
        raise DataError(
            f"stretch {name}: momenta and masses give a kinetic energy of {T[k]:.6g} eV in frame {k}, recorded is "
            f"{frames.kinetic_energies[k]:.6g} eV: the masses or the momenta are not those of the run"
        )
    if n > 1:
        _check_energies(stretch)
        _check_jumps(stretch)


def _check_energies(stretch: Stretch) -> None:
    """What the kinetic energy gains the potential one loses; in other units, or of other frames, it does not."""
    T, V = stretch.frames.kinetic_energies, stretch.frames.potential_energies
    change = max(float(T.std()), float(V.std()))
    if stretch.energy_rms * stretch.system.n_atoms > 0.7 * change and change > 1e-9 * float(np.abs(T).max()):
        raise DataError(
            f"stretch {stretch.name}: the kinetic energy varies by {T.std():.3g} eV, the potential energy by "
            f"{V.std():.3g} eV and their sum by {(T + V).std():.3g} eV, where it should be constant: the potential "
            "energies are in another unit, or not those of the run"
        )


def _check_jumps(stretch: Stretch) -> None:
    """Successive frames must follow from each other.

        Δq = H/2·(v + v') − H²/12·(a' − a) + O((ωH)⁴) + O((ω·dt)²),      Δp = H/2·(F + F') + O((ωH)²)

    The second remainder of Δq is that of Verlet itself. A frame is bad if it exceeds a few times what a harmonic mode
    at ω_max leaves and also stands out from the rest of the stretch tenfold, or exceeds the former tenfold, as a
    stretch does whose frames are all wrong. Sharp where many frames fall on the fastest period, blind below three.
    """
    frames, H = stretch.frames, stretch.interval_fs * FEMTOSECOND
    w = stretch.system.inverse_masses.numpy()
    x, y = stretch.omega_max_per_fs * stretch.interval_fs, stretch.omega_max_per_fs * stretch.step_fs
    q, p, F = frames.positions, frames.momenta, frames.forces * (w > 0)
    expected_dq = 0.5 * H * w * (p[1:] + p[:-1]) - H * H / 12.0 * w * (F[1:] - F[:-1])
    expected_dp = 0.5 * H * (F[1:] + F[:-1])
    for what, array, expected, slack in (
        ("positions", q, expected_dq, x**4 / 24.0 + y**2 / 2.0),
        ("momenta", p, expected_dp, x**2 / 3.0),
    ):
        rest = np.abs(np.diff(array, axis=0) - expected).max((1, 2))
        limit = (1e-3 + slack) * np.abs(expected).max() + 1e-6 * np.abs(array).max()  # the latter for rounding
        limit = np.clip(10.0 * np.quantile(rest, 0.25), limit, 10.0 * limit)
        if rest.max() > limit:
            k = int(rest.argmax())
            raise DataError(
                f"stretch {stretch.name}: {what} jump between frames {k} and {k + 1}, by {rest[k]:.3g} more than "
                f"the motion explains ({limit:.3g} at most): the frames do not belong to one trajectory"
            )
