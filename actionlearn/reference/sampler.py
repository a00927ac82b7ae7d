"""Sampling: many short microcanonical stretches from independent points, in parallel, resumable."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from importlib import metadata
from pathlib import Path
from typing import Any

import ase
import torch

from actionlearn import systems
from actionlearn.errors import ActionlearnError, CalculatorFailed, DataError, InvalidInput, InvalidState
from actionlearn.files import read_json, remove_partial, sha256, writable_folder, write_json
from actionlearn.hydrogen import repartitioned
from actionlearn.potentials.protocol import Potential
from actionlearn.progress import Progress
from actionlearn.reference.chain import Job, Settings, describe, recorded, work
from actionlearn.reference.reader import FORMAT, MANIFEST, ReferenceSet
from actionlearn.reference.stretch import UNITS
from actionlearn.state import PhaseState

Chain = tuple[float, int]  # temperature in K, number of the chain at this temperature


def sample(
    structure: str | ase.Atoms | PhaseState,
    potential: str | Potential,
    output: str | Path,
    *,
    temperatures_K: Sequence[float],
    step_fs: float,
    stretches: int,
    frames: int,
    record_every: int = 1,
    chains: int = 2,
    equilibrate_ps: float = 2.0,
    decorrelate_ps: float = 0.5,
    friction_per_ps: float = 5.0,
    zero_momentum: bool = True,
    hydrogen_mass: float | None = None,
    single: bool = False,
    seed: int = 0,
    processes: int = 1,
    progress: bool = False,
) -> ReferenceSet:
    """Record reference trajectories of a base potential.

    At each temperature `chains` chains equilibrate under a Langevin thermostat and then alternate between
    `decorrelate_ps` under the thermostat and a microcanonical stretch of `frames` frames, every `record_every`-th
    step of velocity Verlet, until there are `stretches` stretches at this temperature. Stretches start with zero
    total momentum unless `zero_momentum` is off or atoms are fixed. With `hydrogen_mass` (u), hydrogens are made that
    heavy at the cost of their neighbours; the masses are recorded, and a map that learns from this holds only for them.

    Each stretch is a file; a run that was stopped goes on where it was when called again, and gives the same files
    as one that was not, whatever the number of processes. `stretches` may be larger in a later call. A potential
    given as an object is pickled for the worker processes; one that cannot be is given as "module:factory".
    A script that uses several processes needs the usual `if __name__ == "__main__":`.
    """
    settings = Settings(
        step_fs=float(step_fs),
        frames=frames,
        record_every=record_every,
        chains=min(chains, max(stretches, 1)),
        equilibrate_ps=float(equilibrate_ps),
        decorrelate_ps=float(decorrelate_ps),
        friction_per_ps=float(friction_per_ps),
        zero_momentum=zero_momentum,
        single=single,
        seed=seed,
    )
    temperatures = [float(T) for T in temperatures_K]
    _check_settings(settings, temperatures, stretches, processes)
    job, names = _job(structure, potential, Path(output), settings, hydrogen_mass)
    with _one_thread(), torch.no_grad():
        job.make_potential().energy(job.start)  # an unknown or unfit potential fails before anything is written
    manifest = _open_folder(job, names, temperatures, stretches)
    todo = _todo(job, temperatures, stretches)
    total = sum(sum(pieces) for pieces in todo.values())
    with Progress("sampling", total, shown=progress and total > 0) as bar:
        try:
            _run(job, todo, processes, manifest, bar)
        except ActionlearnError as problem:
            kept = len(manifest["stretches"])
            problem.args = (
                f"{problem} ({kept} of {stretches * len(temperatures)} stretches are kept in {job.folder}: "
                "the same call goes on from there)",
            )
            raise
    manifest["complete"] = True
    write_json(job.folder / MANIFEST, manifest)
    return ReferenceSet.open(job.folder)


def _check_settings(settings: Settings, temperatures: list[float], stretches: int, processes: int) -> None:
    positive = {
        "step_fs": settings.step_fs,
        "stretches": stretches,
        "record_every": settings.record_every,
        "chains": settings.chains,
        "friction_per_ps": settings.friction_per_ps,
        "processes": processes,
        **{f"temperature {k + 1}": T for k, T in enumerate(temperatures)},
    }
    for name, value in positive.items():
        if not 0 < value < float("inf"):
            raise InvalidInput(f"{name} is {value}, expected a positive number")
    for name in ("equilibrate_ps", "decorrelate_ps", "seed"):
        if not 0 <= getattr(settings, name) < float("inf"):
            raise InvalidInput(f"{name} is {getattr(settings, name)}, expected zero or more")
    if settings.frames < 2:
        raise InvalidInput(f"frames is {settings.frames}: a stretch needs at least 2")
    if not temperatures or len({f"{T:g}" for T in temperatures}) < len(temperatures):
        raise InvalidInput(f"temperatures are {temperatures}: give one or more, all different")


def _job(
    structure: str | ase.Atoms | PhaseState,
    potential: str | Potential,
    folder: Path,
    settings: Settings,
    hydrogen_mass: float | None,
) -> tuple[Job, dict[str, str]]:
    """The job, and what to call its structure and potential in the manifest."""
    if isinstance(structure, PhaseState):
        if hydrogen_mass is not None:
            raise InvalidInput("hydrogen_mass needs bonds, which a state does not know: give an ase.Atoms")
        atoms, start = None, structure
    else:
        atoms = systems.structure(structure) if isinstance(structure, str) else structure.copy()
        if hydrogen_mass is not None:
            atoms = repartitioned(atoms, hydrogen_mass)
        start = PhaseState.from_atoms(atoms)
    if start.n_systems != 1 or start.positions.dtype != torch.float64:
        raise InvalidState(
            f"sampling starts from one system in float64, this state holds {start.n_systems} in "
            f"{start.positions.dtype}: use unbatch() or to(torch.float64)"
        )
    if start.has_fixed:
        settings = dataclasses.replace(settings, zero_momentum=False)
    if settings.zero_momentum and start.n_atoms == 1:
        raise InvalidInput(
            "one atom with zero total momentum does not move: sample with zero_momentum=False (--keep-momentum)"
        )
    made: str | bytes
    if isinstance(potential, str):
        name = made = potential
    else:
        name = f"{type(potential).__module__}:{type(potential).__qualname__}"
        try:
            made = pickle.dumps(potential)
        except Exception as problem:
            raise InvalidInput(
                f"the potential {name} cannot be sent to other processes ({problem}): give it as 'module:factory'"
            ) from None
    called = structure if isinstance(structure, str) else f"{start.n_atoms} atoms"
    return Job(folder, start, atoms, made, settings), {"structure": called, "potential": name}


def _identity(job: Job, names: dict[str, str], temperatures: list[float]) -> dict[str, Any]:
    """What a folder must agree on to be this run's."""
    start = job.start
    return {
        **names,
        "numbers": start.numbers.tolist(),
        "masses": start.masses.tolist(),
        "cell": start.cell[0].tolist(),
        "pbc": start.pbc[0].tolist(),
        "fixed": start.fixed.nonzero().flatten().tolist(),
        "start_positions": start.positions.tolist(),
        "temperatures_K": temperatures,
        **dataclasses.asdict(job.settings),
    }


def _open_folder(job: Job, names: dict[str, str], temperatures: list[float], stretches: int) -> dict[str, Any]:
    """Make the folder or resume the one that is there; returns its manifest with the stretches that are whole."""
    identity = _identity(job, names, temperatures)
    path = job.folder / MANIFEST
    before: dict[str, Any] = {}
    if path.exists():
        before = read_json(path)
        if before.get("format") != FORMAT:
            raise InvalidInput(f"{path} has format {before.get('format')}, expected '{FORMAT}': choose another folder")
        for key, value in identity.items():
            there = before["settings"].get(key)
            if there != value:
                shown = f": {key} is {there} there, {value} here" if not isinstance(value, list) else f" in {key}"
                raise InvalidInput(
                    f"folder {job.folder} holds another run, which differs{shown}: "
                    "choose another folder, or the settings of that run"
                )
    writable_folder(job.folder)
    writable_folder(job.folder / "chains")
    for folder in (job.folder, job.folder / "chains"):
        remove_partial(folder)
    entries = []
    known = {entry["file"]: entry["sha256"] for entry in before.get("stretches", [])}
    for stretch in sorted(job.folder.glob("stretch-*.npz")):
        if not before:
            raise InvalidInput(f"folder {job.folder} holds stretches but no {MANIFEST}: choose another folder")
        if known.get(stretch.name, (checksum := sha256(stretch))) != checksum:
            raise DataError(f"stretch {stretch} was changed since it was recorded: restore it, or delete it")
        entries.append(describe(stretch))
    manifest = {
        "format": FORMAT,
        "package_version": metadata.version("actionlearn"),
        "units": UNITS,
        "settings": identity,
        "stretches_per_temperature": stretches,
        "complete": False,
        "stretches": entries,
    }
    write_json(path, manifest)
    return manifest


def _todo(job: Job, temperatures: list[float], stretches: int) -> dict[Chain, list[int]]:
    """The pieces that each chain has ahead of it, in base steps."""
    settings = job.settings
    todo: dict[Chain, list[int]] = {}
    for T in temperatures:
        for chain in range(settings.chains):
            mine = range(chain, stretches, settings.chains)
            there = [job.stretch_path(T, index).exists() for index in mine]
            if all(there):
                continue
            done = recorded(job, T, chain)
            if not all(there[: max(done, 0)]):  # a stretch was deleted: this chain starts again
                job.chain_path(T, chain).unlink()
                done = -1
            piece = settings.thermostat_steps(equilibrate=False) + settings.recorded_steps
            todo[T, chain] = [settings.thermostat_steps(equilibrate=True)] * (done < 0)
            todo[T, chain] += [piece] * (len(mine) - max(done, 0))
    return todo


def _run(job: Job, todo: dict[Chain, list[int]], processes: int, manifest: dict[str, Any], bar: Progress) -> None:
    """Do all pieces, those of one chain in order, those of different chains side by side."""

    def finish(chain: Chain, entry: dict[str, Any] | None) -> None:
        steps = todo[chain].pop(0)
        if entry is not None:
            others = [there for there in manifest["stretches"] if there["file"] != entry["file"]]
            manifest["stretches"] = sorted([*others, entry], key=lambda one: str(one["file"]))
            write_json(job.folder / MANIFEST, manifest)
        bar.advance(steps, f"{len(manifest['stretches'])} stretches")

    if processes == 1 or len(todo) < 2:
        with _one_thread():
            for chain in todo:
                while todo[chain]:
                    finish(chain, _named(job, chain))
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(processes, len(todo)), context, initializer=_start_worker) as pool:
        running = {pool.submit(_named, job, chain): chain for chain in todo}
        try:
            while running:
                done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    chain = running.pop(future)
                    finish(chain, future.result())
                    if todo[chain]:
                        running[pool.submit(_named, job, chain)] = chain
        except BrokenProcessPool:
            raise CalculatorFailed(
                "a worker process died: if memory was short use fewer processes; a script that samples in several "
                'processes must do so under if __name__ == "__main__":'
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _named(job: Job, chain: Chain) -> dict[str, Any] | None:
    """The next piece of a chain; what goes wrong says where."""
    try:
        return work(job, *chain)
    except ActionlearnError as problem:
        where = f"at {chain[0]:g} K, chain {chain[1]}, after {max(recorded(job, *chain), 0)} stretches"
        problem.args = (f"{problem}; {where}",)
        raise


class _one_thread:
    """Torch on one thread inside, as many as before outside: the numbers must not depend on it."""

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *exception: object) -> None:
        torch.set_num_threads(self.before)


def _start_worker() -> None:
    """One thread, no farewell on Ctrl-C, and no life after the parent's."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def leave_with_parent() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
