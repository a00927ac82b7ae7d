"""A chain: thermostat, stretch, thermostat, stretch …; one piece of work at a time, each of them repeatable.

Every piece starts from what the last one left on disk, with a random generator of its own (from the seed, the
temperature, the chain and the number of the piece) and a potential made anew. So neither a kill nor the process
that happens to do the work leaves a trace in the numbers.
"""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import ase
import numpy as np
import torch

from actionlearn import systems
from actionlearn.errors import ActionlearnError, CalculatorFailed, DataError, NonFinite
from actionlearn.files import sha256, write_atomically
from actionlearn.potentials.protocol import Potential
from actionlearn.reference.frequency import highest_frequency
from actionlearn.reference.recording import Checked, record
from actionlearn.reference.stretch import Stretch, read_stretch, write_stretch
from actionlearn.reference.thermostat import langevin, maxwell_boltzmann, without_total_momentum
from actionlearn.state import PhaseState
from actionlearn.units import FEMTOSECOND


@dataclasses.dataclass(frozen=True)
class Settings:
    """What determines the numbers of a run, one field an entry of its manifest."""

    step_fs: float
    frames: int
    record_every: int
    chains: int
    equilibrate_ps: float
    decorrelate_ps: float
    friction_per_ps: float
    zero_momentum: bool
    single: bool
    seed: int

    def thermostat_steps(self, equilibrate: bool) -> int:
        """Base steps of a thermostat piece, at least one."""
        return max(1, round(1000.0 * (self.equilibrate_ps if equilibrate else self.decorrelate_ps) / self.step_fs))

    @property
    def recorded_steps(self) -> int:
        """Base steps of a stretch."""
        return (self.frames - 1) * self.record_every


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything a process needs to work on any chain of a run."""

    folder: Path
    start: PhaseState
    atoms: ase.Atoms | None
    potential: str | bytes  # a name, or a pickled potential
    settings: Settings

    def make_potential(self) -> Potential:
        """A potential that remembers nothing."""
        if isinstance(self.potential, bytes):
            return Checked(pickle.loads(self.potential))
        atoms = self.start.to_atoms() if self.atoms is None else self.atoms.copy()
        try:
            return Checked(systems.potential(self.potential, atoms))
        except ActionlearnError:
            raise
        except Exception as problem:
            text = f"{type(problem).__name__}: {problem}"
            raise CalculatorFailed(f"the potential {self.potential} could not be made ({text})") from problem

    def stretch_path(self, temperature_K: float, index: int) -> Path:
        """The file of a stretch."""
        return self.folder / f"stretch-{temperature_K:g}K-{index:04d}.npz"

    def chain_path(self, temperature_K: float, chain: int) -> Path:
        """The file of where a chain stands."""
        return self.folder / "chains" / f"{temperature_K:g}K-{chain}.npz"


def recorded(job: Job, temperature_K: float, chain: int) -> int:
    """Stretches a chain has behind it, −1 before equilibration."""
    path = job.chain_path(temperature_K, chain)
    return int(_load_chain(path)["recorded"]) if path.exists() else -1


def work(job: Job, temperature_K: float, chain: int) -> dict[str, Any] | None:
    """The next piece of a chain: equilibration (returns nothing) or a stretch (returns its manifest entry)."""
    done = recorded(job, temperature_K, chain)
    generator = _generator(job.settings.seed, temperature_K, chain, done + 1)
    with torch.no_grad():
        if done < 0:
            _equilibrate(job, temperature_K, chain, generator)
            return None
        return _stretch(job, temperature_K, chain, done, generator)


def _equilibrate(job: Job, temperature_K: float, chain: int, generator: torch.Generator) -> None:
    potential = job.make_potential()
    state = maxwell_boltzmann(job.start, temperature_K, generator)
    state = _thermostat(job, state, potential, temperature_K, generator, equilibrate=True)
    omega_max = highest_frequency(potential, state, generator=generator)
    _save_chain(job.chain_path(temperature_K, chain), state, 0, omega_max * FEMTOSECOND)


def _stretch(job: Job, temperature_K: float, chain: int, done: int, generator: torch.Generator) -> dict[str, Any]:
    settings = job.settings
    kept = _load_chain(job.chain_path(temperature_K, chain))
    potential = job.make_potential()
    state = job.start.moved(torch.from_numpy(kept["positions"]), torch.from_numpy(kept["momenta"]))
    state = _thermostat(job, state, potential, temperature_K, generator, equilibrate=False)
    frames = record(
        state,
        potential,
        step_fs=settings.step_fs,
        frames=settings.frames,
        record_every=settings.record_every,
    )
    path = job.stretch_path(temperature_K, done * settings.chains + chain)
    stretch = Stretch(
        name=path.name,
        temperature_K=temperature_K,
        chain=chain,
        step_fs=settings.step_fs,
        steps=np.arange(settings.frames, dtype=np.int64) * settings.record_every,
        omega_max_per_fs=float(kept["omega_max"]),
        frames=frames,
        system=state,
    )
    before = sha256(path) if path.exists() else None
    if before is None:
        write_stretch(path, stretch, single=settings.single)
    entry = describe(path)
    if before is not None:
        _check_same(path, stretch)
    end = state.moved(torch.from_numpy(frames.positions[-1]), torch.from_numpy(frames.momenta[-1]))
    _save_chain(job.chain_path(temperature_K, chain), end, done + 1, float(kept["omega_max"]))
    return entry


def _check_same(path: Path, again: Stretch) -> None:
    """A stretch that was there already must be the one computed again; it is kept, never replaced."""
    there = read_stretch(path)
    if not np.allclose(there.frames.momenta, again.frames.momenta, rtol=1e-6, atol=1e-6):
        raise DataError(
            f"stretch {path} differs from what these settings give on this machine: "
            "it was made elsewhere; sample into a new folder"
        )


def _thermostat(
    job: Job,
    state: PhaseState,
    potential: Potential,
    temperature_K: float,
    generator: torch.Generator,
    *,
    equilibrate: bool,
) -> PhaseState:
    state = langevin(
        state,
        potential,
        step_fs=job.settings.step_fs,
        steps=job.settings.thermostat_steps(equilibrate),
        temperature_K=temperature_K,
        friction_per_ps=job.settings.friction_per_ps,
        generator=generator,
    )
    if not torch.isfinite(state.positions).all():
        raise NonFinite(
            f"positions are not finite at {temperature_K:g} K with steps of {job.settings.step_fs:g} fs: "
            "take a smaller step, or relax the structure first"
        )
    return without_total_momentum(state) if job.settings.zero_momentum else state


def describe(path: Path) -> dict[str, Any]:
    """The manifest entry of a stretch, from nothing but its file."""
    stretch = read_stretch(path)
    return {
        "file": path.name,
        "sha256": sha256(path),
        "temperature_K": stretch.temperature_K,
        "chain": stretch.chain,
        "frames": len(stretch),
        "kinetic_temperature_K": round(stretch.kinetic_temperature_K, 3),
        "energy_rms_meV_per_atom": float(f"{1e3 * stretch.energy_rms:.4g}"),
        "energy_drift_meV_per_atom_per_ps": float(f"{1e3 * stretch.energy_drift:.4g}"),
        "omega_max_per_fs": float(f"{stretch.omega_max_per_fs:.6g}"),
        "warnings": stretch.step_warnings(),
    }


def _generator(seed: int, temperature_K: float, chain: int, piece: int) -> torch.Generator:
    words = np.random.SeedSequence([seed, round(1000.0 * temperature_K), chain, piece]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


def _save_chain(path: Path, state: PhaseState, done: int, omega_max_per_fs: float) -> None:
    def write(file: BinaryIO) -> None:
        q, p = state.positions.numpy(), state.momenta.numpy()
        np.savez(file, positions=q, momenta=p, recorded=np.array(done), omega_max=np.array(omega_max_per_fs))

    write_atomically(path, write)


def _load_chain(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in ("positions", "momenta", "recorded", "omega_max")}
    except (OSError, ValueError, KeyError, EOFError) as problem:
        raise DataError(f"{path} cannot be read ({problem}): delete it, the chain is then computed again") from None
