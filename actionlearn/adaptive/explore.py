"""Long-step runs of a map that remember where it was unsure, and the choice of states among them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actionlearn.adaptive.criteria import Criterion, criterion_of
from actionlearn.dynamics import Langevin, simulate
from actionlearn.errors import BlownUp, DataError, NonFinite, NotConverged
from actionlearn.files import write_atomically
from actionlearn.potentials.protocol import Potential
from actionlearn.reference.thermostat import maxwell_boltzmann, without_total_momentum
from actionlearn.state import PhaseState

TRUST = 3.0
"""Uncertainty of an atom from which on the rest of a run is not believed: its states may be none of the system's."""

BEYOND = 1e-3
"""Share of atoms beyond the edge of training that is put up with: the edge is the largest of a sample."""

LOOK_EVERY = 2
"""Long steps between two looks at a run."""

LOOK_FS = 12.0
"""At least so long between two looks at a run of a potential, whose steps are short."""

FRICTION_PER_PS = 5.0


@dataclasses.dataclass(frozen=True, eq=False)
class Explored:
    """What the long-step runs of a round have met.

    | field         | shape               |                                                                      |
    |---------------|---------------------|----------------------------------------------------------------------|
    | `positions`   | (states, atoms, 3)  | the states that were chosen, most informative first, Å               |
    | `momenta`     | (states, atoms, 3)  |                                                                      |
    | `temperatures_K`, `uncertainties` | (states,) | of these states; uncertainty of the worst atom             |
    | `largest`     |                     | largest uncertainty of any atom                                      |
    | `beyond`      |                     | share of atoms beyond the edge of training, over all looks           |
    | `drifts`      | (runs,)             | of the base energy less the heat, meV/atom/ps; empty if a run failed |
    | `calls`       |                     | calls of the base potential that the runs took                       |
    | `failure`     |                     | why runs ended early, or nothing                                     |
    """

    positions: np.ndarray
    momenta: np.ndarray
    temperatures_K: np.ndarray
    uncertainties: np.ndarray
    largest: float
    beyond: float
    drifts: np.ndarray
    calls: int
    failure: str

    def write(self, path: Path) -> None:
        """Keep it, atomically."""
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in dataclasses.asdict(self).items()}
        write_atomically(path, lambda file: np.savez(file, **arrays))

    @classmethod
    def read(cls, path: Path) -> Explored:
        """What `write` wrote."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                found: dict[str, Any] = {field.name: archive[field.name] for field in dataclasses.fields(cls)}
        except (OSError, ValueError, KeyError, EOFError) as problem:
            raise DataError(f"{path} cannot be read ({problem}): delete it, the runs are then made again") from None
        for name, kind in (("largest", float), ("beyond", float), ("calls", int), ("failure", str)):
            found[name] = kind(found[name])
        return cls(**found)


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """States of the runs that may be believed, and how the surroundings of their atoms look to the network."""

    states: list[PhaseState]
    temperatures_K: list[float]
    whitened: Tensor  # (states, atoms, D), of length u unless uncertainties are given
    given: Tensor | None = None  # (states, atoms)

    @property
    def uncertainties(self) -> Tensor:
        """That of every atom, (states, atoms)."""
        return self.whitened.norm(dim=2) if self.given is None else self.given


def most_uncertain(candidates: Candidates, count: int) -> list[int]:
    """The most uncertain state, then the one most uncertain when that is known, and so on.

    With y the whitened inputs, of length u, and y_s those of the atoms of chosen states that lie beyond the edge (and
    of the worst atom of each, wherever it lies),

        u² = yᵀ (1 + Σ_s y_s y_sᵀ)⁻¹ y,

    by which every such atom comes to lie inside the edge, and with it all that differ from training in the same way:
    states that tell the same are not computed twice.
    """
    numbers, y = candidates.states[0].numbers, candidates.whitened
    D = y.shape[2]
    known = {z: torch.eye(D, dtype=y.dtype) for z in numbers.unique().tolist()}
    chosen: list[int] = []
    u = y.norm(dim=2)
    while len(chosen) < min(count, len(y)):
        worst = u.amax(1)
        worst[chosen] = -1.0
        best = int(worst.argmax())
        chosen.append(best)
        telling = y[best].norm(dim=1) > 1.0
        telling[u[best].argmax()] = True
        for z, A in known.items():
            mine = numbers == z
            found = y[best, mine & telling]
            A += found.T @ found
            left = torch.linalg.solve_triangular(torch.linalg.cholesky(A), y[:, mine].reshape(-1, D).T, upper=False)
            u[:, mine] = left.norm(dim=0).view(len(y), -1)
    return chosen


def half_uncertain(candidates: Candidates, count: int) -> list[int]:
    """In turn the most uncertain states and states drawn at random: what is rare, and what is typical."""
    order = torch.randperm(len(candidates.states), generator=torch.Generator().manual_seed(len(candidates.states)))
    both = zip(most_uncertain(candidates, count), order.tolist(), strict=False)
    return list(dict.fromkeys(k for pair in both for k in pair))[:count]


def far_apart(candidates: Candidates, count: int) -> list[int]:
    """Of the states beyond the edge the most uncertain one, then always that whose inputs are farthest from all chosen.

    Where fewer are beyond the edge than asked for, the most uncertain ones join them.
    """
    worst = candidates.uncertainties.amax(1)
    order = worst.argsort(descending=True)
    pool = order[: max(int((worst > 1.0).sum()), min(count, len(order)))]
    y = candidates.whitened[pool].flatten(1)
    chosen = [0]
    nearest = (y - y[0]).norm(dim=1)
    while len(chosen) < min(count, len(pool)):
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (y - y[chosen[-1]]).norm(dim=1))
    return pool[chosen].tolist()


def any_state(candidates: Candidates, count: int) -> list[int]:
    """States drawn at random, which look at no uncertainty."""
    generator = torch.Generator().manual_seed(len(candidates.states))
    return torch.randperm(len(candidates.states), generator=generator)[:count].tolist()


Choose = Callable[[Candidates, int], list[int]]


@torch.no_grad()
def explore(
    model: Any,
    starts: list[PhaseState],
    temperatures_K: list[float],
    base: Potential,
    *,
    ps: float,
    states: int,
    seed: int,
    choose: Choose,
    criterion: Criterion | None = None,
) -> Explored:
    """Langevin runs of the map from every start at every temperature; chooses at most `states` of what they meet.

    Where runs left what can be believed, the last states before that are among them, up to half of all. How unsure
    the map is says the criterion, by default the one that it was trained with.
    """
    steps = max(round(1000.0 * ps / model.step_fs), LOOK_EVERY)
    criterion = criterion or criterion_of(model)
    every = LOOK_EVERY if model.kind != "potential" else max(LOOK_EVERY, round(LOOK_FS / model.step_fs))
    kept: list[PhaseState] = []
    at: list[float] = []
    whitened: list[Tensor] = []
    unsure: list[Tensor] = []
    looks: list[Tensor] = []
    drifts: list[Tensor] = []
    failures, calls = [], 0
    last: dict[tuple[float, int], int] = {}  # where a run was last believed
    left: set[tuple[float, int]] = set()  # runs that are no longer
    generator = torch.Generator().manual_seed(seed)
    for T in temperatures_K:
        batch = PhaseState.batch([_warmed(state, T, generator) for state in starts])
        alive = torch.ones(len(starts), dtype=torch.bool)
        noise = int(torch.randint(2**31, (1,), generator=generator))
        thermostat = Langevin(T, FRICTION_PER_PS, seed=noise, zero_momentum=_at_rest(starts[0]))

        def look(step: int, state: PhaseState, alive: Tensor = alive, T: float = T) -> None:
            u, y = criterion.look(state)
            looks.append(u)
            alive &= u.amax(1) <= TRUST
            for k in alive.nonzero().flatten().tolist():
                last[T, k] = len(kept)
                kept.append(state.select(k))
                at.append(T)
                whitened.append(y[k])
                unsure.append(u[k])
            for k in (~alive).nonzero().flatten().tolist():
                left.add((T, k))

        try:
            with warnings.catch_warnings():  # atoms outside training are what is looked for
                warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ atoms are outside the range of training")
                done = simulate(model, batch, steps, ensemble=thermostat, observe=look, every=every)
        except (NonFinite, BlownUp, NotConverged) as problem:
            failures.append(f"at {T:g} K, after {len(kept)} states: {problem}")
            continue
        finally:
            calls += steps * len(starts) * model.stages if model.kind == "corrected" else 0
        gained = [base.energy(s) + s.kinetic_energy() for s in (done.state, batch)]
        drift = gained[0] - gained[1] - thermostat.heat
        drifts.append(1e3 * drift / batch.atoms_per_system / (1e-3 * steps * model.step_fs))
        calls += 2 * len(starts)
    u = torch.cat([look.flatten() for look in looks])
    beyond = float((u > 1.0).double().mean())
    chosen: list[int] = []
    if kept and (beyond > BEYOND or failures):
        candidates = Candidates(kept, at, torch.stack(whitened), torch.stack(unsure))
        doubtful = [last[run] for run in sorted(left & set(last))][: states // 2]
        chosen = [k for k in choose(candidates, states) if k not in doubtful]
        chosen = [*doubtful, *chosen][:states]
    shape = (0, *starts[0].positions.shape)
    return Explored(
        positions=np.stack([kept[k].positions.numpy() for k in chosen]) if chosen else np.zeros(shape),
        momenta=np.stack([kept[k].momenta.numpy() for k in chosen]) if chosen else np.zeros(shape),
        temperatures_K=np.array([at[k] for k in chosen]),
        uncertainties=np.array([float(unsure[k].max()) for k in chosen]),
        largest=float(u.max()),
        beyond=beyond,
        drifts=torch.cat(drifts).numpy() if drifts and not failures else np.zeros(0),
        calls=calls,
        failure="; ".join(failures),
    )


def _warmed(state: PhaseState, temperature_K: float, generator: torch.Generator) -> PhaseState:
    """The same positions with momenta of a temperature, at rest as a whole if it was."""
    new = maxwell_boltzmann(state, temperature_K, generator)
    return without_total_momentum(new) if _at_rest(state) else new


def _at_rest(state: PhaseState) -> bool:
    p = state.momenta
    return state.n_atoms > 1 and not state.has_fixed and float(p.sum(0).abs().max()) <= 1e-6 * float(p.abs().sum())
