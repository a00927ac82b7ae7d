"""Labelled structures from any file: positions and forces without motion."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
import torch

from actionlearn.errors import DataError
from actionlearn.reference.recording import Frames
from actionlearn.reference.stretch import Stretch
from actionlearn.reference.thermostat import maxwell_boltzmann
from actionlearn.state import PhaseState


def read_structures(path: str | Path) -> list[Stretch]:
    """The structures of a file that ASE reads, each a stretch of one frame.

    A structure carries energy and forces, as ASE's extended XYZ and trajectory formats keep them, and in
    `atoms.info["temperature_K"]` the temperature of the canonical ensemble that it was drawn from. Momenta are drawn
    for it, always the same ones; those that the file may hold are left out.
    """
    try:
        found = ase.io.read(path, ":")
    except Exception as problem:
        raise DataError(f"cannot read structures from {path}: {type(problem).__name__}: {problem}") from None
    generator = torch.Generator().manual_seed(0)
    return [_labelled(atoms, f"{Path(path).name}:{k}", generator) for k, atoms in enumerate(found)]


def _labelled(atoms: ase.Atoms, name: str, generator: torch.Generator) -> Stretch:
    results = {} if atoms.calc is None else atoms.calc.results
    if "forces" not in results or "energy" not in results:
        raise DataError(f"structure {name} has no energy and forces: label it, as by ase.io.write after a calculation")
    if not float(atoms.info.get("temperature_K", 0.0)) > 0.0:
        raise DataError(
            f"structure {name} has no temperature: put that of the ensemble that it was drawn from into "
            'atoms.info["temperature_K"], for momenta are drawn for it'
        )
    temperature_K = float(atoms.info["temperature_K"])
    state = maxwell_boltzmann(PhaseState.from_atoms(atoms), temperature_K, generator)
    q, p, F = (np.asarray(x, dtype=np.float64)[None] for x in (state.positions, state.momenta, results["forces"]))
    if not np.isfinite(F).all() or F.shape != q.shape:
        raise DataError(f"structure {name}: forces of shape {F.shape[1:]}, expected {q.shape[1:]}, all finite")
    energies = np.array([float(results["energy"])]), state.kinetic_energy().numpy()
    return Stretch(
        name=name,
        temperature_K=temperature_K,
        chain=0,
        step_fs=0.0,
        steps=np.zeros(1, dtype=np.int64),
        omega_max_per_fs=0.0,
        frames=Frames(q, p, F, *energies, np.zeros(1)),
        system=state,
    )
