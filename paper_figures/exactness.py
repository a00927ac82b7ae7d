"""What a network's error does to averages, with and without the Metropolis test on the base potential.

    python paper_figures/exactness.py [--quick] [--redraw]

Two systems, each with a smooth random network on top of the base potential whose forces are a given share of the
base's: a particle in a double well (600 K, 20 u, steps of 12 fs; averages known by quadrature) and a cluster of 13
argon atoms (15 K, steps of 40 fs; reference: velocity Verlet at 10 fs with the same thermostat). Plain sampling is
Langevin dynamics with the map, the other is generalised hybrid Monte Carlo with the same map as its proposal. Bias is
that of the mean potential energy; errors are the scatter over replicas. A distribution's distance from the reference
is half the sum of |Δ| over its bins (of x, and of pair distances), less what the noise of as many replicas makes.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ase.cluster import Icosahedron
from ground.figure import Canvas, Row, Tables, chosen, column, make

import actionlearn as al
from actionlearn.dynamics import GeneralisedHMC, Langevin
from actionlearn.maps.corrected import WeightedSum
from actionlearn.pictures import COLOURS, GREY
from actionlearn.potentials import FunctionPotential, LennardJones
from actionlearn.potentials.toys import DoubleWell
from actionlearn.state import PhaseState
from actionlearn.units import BOLTZMANN

WELL_K, BARRIER, HALF_WIDTH = 600.0, 0.12, 0.7
CLUSTER_K = 15.0
PERCENT = (1.0, 3.0, 10.0, 30.0)
PLAIN, EXACT = "Langevin", "with the test"
STYLES = ((PLAIN, COLOURS[1], "D"), (EXACT, COLOURS[0], "o"))


@dataclasses.dataclass(frozen=True)
class Known:
    """Mean energy and shares of the bins, with their errors."""

    energy: float
    shares: np.ndarray
    energy_error: float = 0.0
    shares_error: np.ndarray | float = 0.0


@dataclasses.dataclass(frozen=True)
class Case:
    """What is sampled: thermal states, the noise, and what is known or has to be sampled as reference."""

    name: str
    base: Any
    noise: Any
    states: PhaseState
    temperature_K: float
    step_fs: float
    small_fs: float
    ps: float
    friction_per_ps: tuple[float, float]
    counts: Callable[[PhaseState], torch.Tensor]
    exact: Known | None = None


def compute(args: argparse.Namespace) -> Tables:
    rows = []
    for case in (_double_well(args.quick), _cluster(args.quick)):
        share = _size(case.noise, case.states) / _size(case.base, case.states)
        plain, exact = case.friction_per_ps
        T = case.temperature_K
        reference = case.exact or _means(
            *_sampled(case, al.Verlet(case.base, step_fs=case.small_fs), Langevin(T, plain, seed=5))
        )
        for percent in (30.0,) if args.quick else PERCENT:
            bad = al.Verlet(WeightedSum([(1.0, case.base), (percent / 100 / share, case.noise)]), step_fs=case.step_fs)
            for name, ensemble in (
                (PLAIN, Langevin(T, plain, seed=1)),
                (EXACT, GeneralisedHMC(case.base, T, exact, steps_per_move=2, seed=1)),
            ):
                energies, counts = _sampled(case, bad, ensemble)
                rows.append(
                    {"system": case.name, "sampling": name, "force_error_percent": percent}
                    | _compared(energies, counts, reference, BOLTZMANN * T)
                    | {"acceptance": ensemble.summary().get("acceptance", 1.0)}
                )
                print(
                    "{system}: {force_error_percent:g} %, {sampling}: {bias_kT:+.4f} ± {error_kT:.4f} kT".format(
                        **rows[-1]
                    )
                )
    return {"": rows}


def _double_well(quick: bool) -> Case:
    well = DoubleWell(BARRIER, HALF_WIDTH)
    kT = BOLTZMANN * WELL_K
    grid = torch.linspace(-1.4, 1.4, 2801, dtype=torch.float64)
    particle = PhaseState(np.array([[0.0]]), np.zeros((1, 1)), np.array([20.0]))
    states = _thermal([particle] * len(grid), WELL_K)
    on_grid = states.moved(grid.unsqueeze(1), states.momenta)
    V = well.energy(on_grid)
    weights = torch.exp(-V / kT)
    weights = weights / weights.sum()
    edges = torch.linspace(-1.2, 1.2, 31, dtype=torch.float64)
    shares = np.histogram(grid.numpy(), edges.numpy(), weights=weights.numpy())[0]
    generator = torch.Generator().manual_seed(0)
    drawn = grid[torch.multinomial(weights, 200 if quick else 4000, replacement=True, generator=generator)]
    start = _thermal([particle] * len(drawn), WELL_K)
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)).double()
    net.requires_grad_(False)
    net[0].weight.mul_(4.0)

    def counts(state: PhaseState) -> torch.Tensor:
        return _histograms(state.positions[:, 0], state.system, state.n_systems, edges)

    return Case(
        "double well",
        well,
        FunctionPotential(lambda state: state.sum_by_system(net(state.positions)[:, 0])),
        start.moved(drawn.unsqueeze(1), start.momenta),
        WELL_K,
        12.0,
        1.0,
        1.0 if quick else 12.0,
        (20.0, 5.0),
        counts,
        Known(float((weights * V).sum()), shares),
    )


def _cluster(quick: bool) -> Case:
    argon = LennardJones()
    atoms = PhaseState.from_atoms(Icosahedron("Ar", 2, latticeconstant=5.3))
    states = _thermal([atoms] * (4 if quick else 32), CLUSTER_K)
    warm = Langevin(CLUSTER_K, 2.0, seed=9)
    states = al.simulate(al.Verlet(argon, step_fs=20.0), states, 100 if quick else 1500, ensemble=warm).state
    torch.manual_seed(0)
    net = al.AtomicMoments((18,), cutoff=6.5, channels=4, hidden=8).calibrate(states.unbatch()[:4])
    edges = torch.linspace(2.5, 8.0, 45, dtype=torch.float64)

    def counts(state: PhaseState) -> torch.Tensor:
        found = al.find_edges(state, 8.0)
        r = found.vectors(state.positions).norm(dim=1)
        return _histograms(r, state.system[found.centre], state.n_systems, edges)

    noise = net.randomise(1.0, seed=1).requires_grad_(False)
    return Case(
        "argon cluster", argon, noise, states, CLUSTER_K, 40.0, 10.0, 4.0 if quick else 80.0, (2.0, 1.0), counts
    )


def _thermal(copies: list[PhaseState], temperature_K: float) -> PhaseState:
    """Momenta drawn anew, at rest as a whole where there is more than one atom."""
    batch = PhaseState.batch(copies)
    random = torch.randn(batch.momenta.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    momenta = random * (batch.masses * BOLTZMANN * temperature_K).sqrt().unsqueeze(1)
    if copies[0].n_atoms > 1:
        momenta = al.dynamics.freedom.without_total_momentum(batch, momenta)
    return batch.moved(batch.positions, momenta)


@torch.no_grad()
def _size(potential: Any, states: PhaseState) -> float:
    return float(potential.forces(states).square().mean().sqrt())


def _histograms(values: torch.Tensor, system: torch.Tensor, systems: int, edges: torch.Tensor) -> torch.Tensor:
    """Shares of each system's values that fall into the bins, (systems, bins)."""
    bins = len(edges) - 1
    k = torch.bucketize(values, edges) - 1
    inside = (k >= 0) & (k < bins)
    found = torch.bincount(system[inside] * bins + k[inside], minlength=systems * bins).reshape(systems, bins)
    return found / torch.bincount(system, minlength=systems).clamp_min(1).unsqueeze(1)


def _sampled(case: Case, model: Any, ensemble: Any) -> tuple[np.ndarray, np.ndarray]:
    """Energies (systems,) and histograms (systems, bins), means over the last four fifths of a run."""
    moves = math.ceil(1e3 * case.ps / (model.step_fs * getattr(ensemble, "steps_per_move", 1)))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def look(step: int, now: PhaseState) -> None:
        if step >= moves // 5:
            seen.append((case.base.energy(now), case.counts(now)))

    al.simulate(model, case.states, moves, ensemble=ensemble, observe=look, every=max(1, moves // 150))
    energies, counts = zip(*seen, strict=True)
    return torch.stack(energies).mean(0).numpy(), torch.stack(counts).mean(0).numpy()


def _means(energies: np.ndarray, counts: np.ndarray) -> Known:
    root = math.sqrt(len(energies))
    return Known(energies.mean(), counts.mean(0), energies.std(ddof=1) / root, counts.std(0, ddof=1) / root)


def _compared(energies: np.ndarray, counts: np.ndarray, known: Known, kT: float) -> Row:
    found = _means(energies, counts)
    noise = np.hypot(found.shares_error, known.shares_error) * math.sqrt(2.0 / math.pi)  # ⟨|Δ|⟩ of a normal variable
    return {
        "bias_kT": (found.energy - known.energy) / kT,
        "error_kT": math.hypot(found.energy_error, known.energy_error) / kT,
        "distance_percent": 50.0 * (np.abs(found.shares - known.shares).sum() - noise.sum()),
    }


def draw(tables: Tables, canvas: Canvas) -> None:
    names = list(dict.fromkeys(row["system"] for row in tables[""]))
    with canvas(len(names), rows=2, width=4.8, height=3.0) as axes:
        for k, name in enumerate(names):
            rows = chosen(tables[""], system=name)
            _bias(axes[k], rows)
            _distance(axes[len(names) + k], rows)
            axes[k].set_title(name.capitalize())
        axes[0].legend(title="numbers: moves accepted", title_fontsize=8)


def _bias(ax, rows: list[Row]) -> None:
    for sampling, ink, marker in STYLES:
        mine = chosen(rows, sampling=sampling)
        x, y, error = (column(mine, key) for key in ("force_error_percent", "bias_kT", "error_kT"))
        ax.errorbar(x, y, error, color=ink, marker=marker, label=sampling)
    for row in chosen(rows, sampling=EXACT):
        place = (row["force_error_percent"], row["bias_kT"] - row["error_kT"])
        words = f"{100 * row['acceptance']:.0f} %"
        ax.annotate(
            words, place, xytext=(0, -12), textcoords="offset points", ha="center", fontsize=8, color=STYLES[1][1]
        )
    ax.axhline(0.0, color=GREY, linewidth=0.8)
    ax.set(xscale="log", ylabel="bias of the mean energy, $k_BT$")
    ax.margins(y=0.15)


def _distance(ax, rows: list[Row]) -> None:
    for sampling, ink, marker in STYLES:
        mine = chosen(rows, sampling=sampling)
        ax.plot(column(mine, "force_error_percent"), column(mine, "distance_percent"), color=ink, marker=marker)
    ax.axhline(0.0, color=GREY, linewidth=0.8)
    ax.set(xscale="log", xlabel="error of the network's forces, %", ylabel="distance of the distribution, %")
    ax.set_yscale("symlog", linthresh=1.0)
    ax.margins(y=0.08)


def main(argv: list[str] | None = None) -> Tables:
    return make(__file__, __doc__ or "", compute, draw, argv)


if __name__ == "__main__":
    main()
