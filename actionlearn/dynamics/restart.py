"""A run put on disk, whole, so that it can go on exactly where it was."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from actionlearn.errors import DataError
from actionlearn.files import write_atomically
from actionlearn.neighbours import forget_edges
from actionlearn.state import PhaseState

FORMAT = "actionlearn run 2"
_ARRAYS = ("positions", "momenta", "masses", "numbers", "cell", "pbc", "fixed", "system")


def write_restart(path: str | Path, state: PhaseState, content: dict[str, Any]) -> None:
    """Write a state and what else a run remembers; the file is there whole, or as it was before."""
    arrays = {name: getattr(state, name).detach().cpu().contiguous() for name in _ARRAYS}
    data = {"format": FORMAT, "state": arrays, **content}
    write_atomically(Path(path), lambda file: torch.save(data, file))


def read_restart(path: str | Path) -> tuple[PhaseState, dict[str, Any]]:
    """The state and the rest of what was written."""
    try:
        data = torch.load(path, weights_only=True)
    except OSError:
        raise
    except Exception as problem:
        raise DataError(
            f"{path} is not readable as a restart file ({type(problem).__name__}): it is damaged or another kind of "
            "file; delete it to start the run afresh"
        ) from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise DataError(f"{path} is not a restart file of format {FORMAT!r}: delete it to start the run afresh")
    state = PhaseState(**data.pop("state"))
    return state, data


def weights_of(model: Any) -> str:
    """A checksum of the weights of a map, the same wherever it is loaded; of nothing for a map without."""
    whole = isinstance(model, torch.nn.Module)
    digest = hashlib.sha256()
    for tensor in model.state_dict().values() if whole else getattr(model, "parameters", tuple)():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def without_memory(state: PhaseState, model: Any) -> PhaseState:
    """The same state as a new process would read it: kept forces and neighbours forgotten.

    A run does this whenever it writes a restart file, so that it goes on from there as a resumed one does, bit by bit.
    """
    forget_edges()
    if hasattr(model, "forget"):
        model.forget()
    return state.moved(state.positions.detach().clone(), state.momenta.detach().clone())
