"""Neighbour edges: pairs found by `vesin` under real periodic boundaries, edge vectors built in torch.

Pairs are discrete and carry no gradient; the vectors D = q_j − q_i + S·cell are plain torch, so energies made
from them are differentiable to any order. Periodic images are explicit: an atom may be its own neighbour, and a
cell smaller than the cutoff is as good as a large one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

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
    return _joined(state, _search(state, range(state.n_systems), cutoff, half))


Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""i, j and S of the pairs within one system, whose atoms count from zero."""


def _search(state: PhaseState, systems: Iterable[int], cutoff: float, half: bool) -> list[Pairs]:
    """The pairs of some of the systems."""
    q = state.positions.detach().cpu().to(torch.float64).numpy()
    _refuse_explosions(q)
    cells = state.cell.detach().cpu().to(torch.float64).numpy()
    pbc = state.pbc.cpu().numpy()
    if q.shape[1] < 3:
        q = np.concatenate([q, np.zeros((len(q), 3 - q.shape[1]))], axis=1)
    last = np.cumsum(state.atoms_per_system.cpu().numpy())
    search = vesin.NeighborList(cutoff=cutoff, full_list=not half, sorted=True)
    found = []
    for k in systems:
        points = q[last[k - 1] if k else 0 : last[k]]
        mixed = pbc[k].any() and not pbc[k].all()
        cell = _with_room(points, cells[k], pbc[k], cutoff) if mixed else cells[k]
        i, j, shifts = search.compute(points, cell, pbc[k] | mixed, quantities="ijS")
        found.append((i.astype(np.int64), j.astype(np.int64), shifts.astype(np.float64)))
    return found


def _joined(state: PhaseState, found: Sequence[Pairs]) -> Edges:
    """The pairs of all systems of a state as edges between its atoms."""
    counts = state.atoms_per_system.tolist()
    first = np.cumsum([0, *counts[:-1]])
    device = state.positions.device
    centre, other = (
        torch.from_numpy(np.concatenate([pairs[end] + n for pairs, n in zip(found, first, strict=True)])).to(device)
        for end in (0, 1)
    )
    shift = torch.from_numpy(np.concatenate([pairs[2] for pairs in found])).to(device, state.positions.dtype)
    if len(counts) == 1:
        offsets = shift @ state.cell[0]
    else:
        offsets = torch.einsum("ea,eab->eb", shift, state.cell[state.system[centre]])
    dims = state.positions.shape[1]
    return Edges(centre, other, shift, offsets[:, :dims].detach())


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

    Pairs are searched out to cutoff + skin. Those of a system stay complete until two of its atoms may have
    approached each other by more than the skin since the search, that is until one has moved further than skin/2;
    then that system is searched anew, and all are when anything but the positions changes. A molecule of which every
    pair was found can only lose some, and is looked at again when an atom has moved by the cutoff. Pairs beyond the
    cutoff are part of what is returned, so whatever uses them must vanish smoothly there.
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
        self._positions: Tensor | None = None  # where the edges of each system were searched
        self._slack = torch.empty(0)  # how far the atoms may have moved since, squared
        self._frame: tuple[Tensor, ...] = ()
        self._seen: tuple[tuple[Tensor, int], ...] = ()
        self._found: list[Pairs] = []
        self._edges: Edges | None = None

    @torch.inference_mode(False)  # what is kept must serve gradients later on
    def __call__(self, state: PhaseState) -> Edges:
        """Edges of the state, searched only where needed."""
        now = state.positions.detach()
        if self._edges is None or self._positions is None or not self._is_known(state):
            self._found = _search(state, range(state.n_systems), self.cutoff + self.skin, self.half)
            self._generation = _generation
            # copies, so that a change in place is noticed too
            self._positions = now.clone()
            self._frame = tuple(part.detach().clone() for part in (state.system, state.cell, state.pbc))
            self._seen = _versions(state)
        else:
            near = (now - self._positions).square().sum(1) <= self._slack  # not so what is no number
            if bool(near.all()):
                return self._edges
            systems = state.system[~near].unique()
            places = systems.tolist()
            fresh = _search(state, places, self.cutoff + self.skin, self.half)
            for k, pairs in zip(places, fresh, strict=True):
                self._found[k] = pairs
            inside = torch.isin(state.system, systems)
            self._positions[inside] = now[inside]
        self._edges = _joined(state, self._found)
        self._slack = self._reach(state)
        self.searches += 1
        return self._edges

    def _reach(self, state: PhaseState) -> Tensor:
        """How far each atom may move before its system is searched anew, squared, Å², (atoms,)."""
        counts = state.atoms_per_system.tolist()
        pairs = [n * (n - 1) // (2 if self.half else 1) for n in counts]
        whole = [len(found[0]) == most for found, most in zip(self._found, pairs, strict=True)]
        reach = [self.cutoff if all_pairs else 0.5 * self.skin for all_pairs in whole]
        squared = state.positions.new_tensor(reach).square()
        return torch.where(state.pbc.any(1), (0.5 * self.skin) ** 2, squared)[state.system]

    def _is_known(self, state: PhaseState) -> bool:
        """Whether these are the systems of the last search, but for their positions."""
        q, at = state.positions, self._positions
        if self._generation != _generation or _search_always:
            return False
        if at is None or q.shape != at.shape or q.dtype != at.dtype or q.device != at.device:
            return False
        versions = _versions(state)
        if all(a is b and v == w for (a, v), (b, w) in zip(versions, self._seen, strict=True)):
            return True
        frame = zip((state.system, state.cell, state.pbc), self._frame, strict=True)
        same = all(torch.equal(now, then) for now, then in frame)
        if same:
            self._seen = versions
        return same


def _versions(state: PhaseState) -> tuple[tuple[Tensor, int], ...]:
    """What tells without a look at the numbers that nothing but the positions has changed."""
    return tuple((t, -1 if t.is_inference() else t._version) for t in (state.system, state.cell, state.pbc))


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
