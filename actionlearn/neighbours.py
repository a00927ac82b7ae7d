"""Neighbour edges: pairs found by `vesin` under real periodic boundaries, edge vectors built in torch.

Pairs are discrete and carry no gradient; the vectors D = q_j − q_i + S·cell are plain torch, so energies made
from them are differentiable to any order. Periodic images are explicit: an atom may be its own neighbour, and a
cell smaller than the cutoff is as good as a large one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
import vesin
from torch import Tensor

from actionlearn.errors import InvalidInput, NonFinite
from actionlearn.state import PhaseState

#: Coordinates beyond this (Å) belong to no simulation, and overflow the bins of the search.
FURTHEST = 1e6

#: The same for how far atoms spread along a direction that does not repeat while others do.
WIDEST = 500.0


@dataclasses.dataclass(frozen=True, eq=False)
class Edges:
    """Directed pairs i → j of a state, sorted by i.

    | symbol | field     | shape      | unit |
    |--------|-----------|------------|------|
    | i      | `centre`  | (edges,)   |      |
    | j      | `other`   | (edges,)   |      |
    | S      | `shifts`  | (edges, 3) | cells|
    | S·cell | `offsets` | (edges, 3) | Å    |
    """

    centre: Tensor
    other: Tensor
    shifts: Tensor
    offsets: Tensor

    def vectors(self, positions: Tensor) -> Tensor:
        """D = q_j − q_i + S·cell, (edges, 3), differentiable in the positions."""
        return positions.index_select(0, self.other) - positions.index_select(0, self.centre) + self.offsets

    def __len__(self) -> int:
        """Number of directed pairs."""
        return self.centre.shape[0]


def find_edges(state: PhaseState, cutoff: float, *, half: bool = False) -> Edges:
    """All pairs closer than `cutoff`, periodic images included.

    With `half`, each pair comes once instead of in both directions.
    """
    q = state.positions.detach().cpu().to(torch.float64).numpy()
    _refuse_explosions(q)
    cells = state.cell.detach().cpu().to(torch.float64).numpy()
    pbc = state.pbc.cpu().numpy()
    if q.shape[1] < 3:
        q = np.concatenate([q, np.zeros((len(q), 3 - q.shape[1]))], axis=1)
    counts = state.atoms_per_system.tolist()
    search = vesin.NeighborList(cutoff=cutoff, full_list=not half, sorted=True)
    centres, others, shifts = [], [], []
    first = 0
    for k, count in enumerate(counts):
        points = q[first : first + count]
        mixed = pbc[k].any() and not pbc[k].all()
        cell = _with_room(points, cells[k], pbc[k], cutoff) if mixed else cells[k]
        i, j, s = search.compute(points, cell, pbc[k] | mixed, quantities="ijS")
        centres.append(i.astype(np.int64) + first)
        others.append(j.astype(np.int64) + first)
        shifts.append(s.astype(np.float64))
        first += count
    device = state.positions.device
    centre = torch.from_numpy(np.concatenate(centres)).to(device)
    shift = torch.from_numpy(np.concatenate(shifts)).to(device, state.positions.dtype)
    if len(counts) == 1:
        offsets = shift @ state.cell[0]
    else:
        offsets = torch.einsum("ea,eab->eb", shift, state.cell[state.system[centre]])
    dims = state.positions.shape[1]
    return Edges(centre, torch.from_numpy(np.concatenate(others)).to(device), shift, offsets[:, :dims].detach())


def _refuse_explosions(q: np.ndarray) -> None:
    astray = ~(np.abs(q) <= FURTHEST).all(axis=1)
    if astray.any():
        atom = int(astray.argmax())
        raise NonFinite(
            f"atom {atom} is at {q[atom].tolist()} Å, expected finite coordinates within {FURTHEST:g}: the run has "
            "exploded, shorten its step or start from a relaxed structure"
        )


def _with_room(points: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> np.ndarray:
    """Replace the vectors of directions that do not repeat by normals long enough to part all images.

    Under mixed boundaries vesin takes seconds, or divides by zero, where atoms spread over many lengths of a vector
    along which nothing repeats; with room for all of them such a direction may as well be periodic.
    """
    cell = cell.copy()
    kept = [cell[d] for d in range(3) if pbc[d]]
    for d in range(3):
        if not pbc[d]:
            normal = np.linalg.svd(np.array(kept).reshape(-1, 3))[2][len(kept)]
            spread = float(np.ptp(points @ normal))
            if spread > WIDEST:
                raise NonFinite(
                    f"atoms spread over {spread:g} Å along direction {d}, expected at most {WIDEST:g} where others are "
                    "periodic: the run has exploded, or atoms left the surface; shorten its step or remove them"
                )
            cell[d] = (spread + 2.0 * cutoff) * normal
            kept.append(normal)
    return cell


class NeighbourList:
    """Edges that are kept while they are still complete.

    Pairs are searched out to cutoff + skin. They stay complete until two atoms may have approached each other by
    more than the skin since the search, that is until some atom has moved further than skin/2; then, or when
    anything but the positions changes, they are searched anew. Pairs between cutoff and cutoff + skin are part of
    what is returned, so whatever uses them must vanish smoothly at the cutoff.
    """

    def __init__(self, cutoff: float, skin: float = 0.5, *, half: bool = False) -> None:
        """Search within `cutoff` + `skin` (Å), each pair once if `half`."""
        if not (cutoff > 0 and skin >= 0):
            raise InvalidInput(f"cutoff must be positive and skin not negative, got {cutoff} and {skin} Å")
        self.cutoff = cutoff
        self.skin = skin
        self.half = half
        self.searches = 0
        self._generation = _generation
        self._positions: Tensor | None = None  # where the edges were searched
        self._frame: tuple[Tensor, ...] = ()
        self._edges: Edges | None = None

    @torch.inference_mode(False)  # what is kept must serve gradients later on
    def __call__(self, state: PhaseState) -> Edges:
        """Edges of the state, searched only when needed."""
        stale = self._generation != _generation or _search_always
        if self._edges is None or stale or not self._still_complete(state):
            self._edges = find_edges(state, self.cutoff + self.skin, half=self.half)
            self._generation = _generation
            # copies, so that a change in place is noticed too
            self._positions = state.positions.detach().clone()
            self._frame = tuple(part.detach().clone() for part in (state.system, state.cell, state.pbc))
            self.searches += 1
        return self._edges

    def _still_complete(self, state: PhaseState) -> bool:
        q, at = state.positions.detach(), self._positions
        if at is None or q.shape != at.shape or q.dtype != at.dtype or q.device != at.device:
            return False
        frame = zip((state.system, state.cell, state.pbc), self._frame, strict=True)
        if not all(torch.equal(now, then) for now, then in frame):
            return False
        return bool((q - at).square().sum(1).max() <= (0.5 * self.skin) ** 2)


_search_always = False
_generation = 0


def forget_edges() -> None:
    """Make every neighbour list search anew when it is next called, as in a process that has just started."""
    global _generation
    _generation += 1


@contextlib.contextmanager
def without_history() -> Iterator[None]:
    """Search at every call, so that edges, and the order of sums over them, depend on the positions alone."""
    global _search_always
    before, _search_always = _search_always, True
    try:
        yield
    finally:
        _search_always = before
