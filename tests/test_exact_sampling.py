"""Generalised hybrid Monte Carlo: a wrong map gives right averages, at constant volume and at constant pressure."""

import math

import numpy as np
import torch
from ase.cluster import Icosahedron
from scipy import integrate, special, stats

import actionlearn as al
from actionlearn.dynamics import GeneralisedHMC, Langevin
from actionlearn.errors import NonFinite
from actionlearn.potentials import LennardJones
from actionlearn.potentials.toys import DoubleWell
from actionlearn.units import BOLTZMANN, GIGAPASCAL


class Scaled:
    """A potential that is wrong by a factor, and therefore makes a wrong map."""

    def __init__(self, potential, factor):
        self.potential, self.factor = potential, factor

    def energy(self, state):
        return self.factor * self.potential.energy(state)

    def forces(self, state):
        return self.factor * self.potential.forces(state)


def maxwell(state, temperature_K, seed=0):
    width = (state.masses * BOLTZMANN * temperature_K).sqrt().unsqueeze(1)
    noise = torch.randn(state.positions.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return state.moved(state.positions, width * noise)


def replicas(positions, systems, mass, **more):
    n = len(positions)
    return al.PhaseState(
        positions.repeat(systems, 1),
        torch.zeros(systems * n, positions.shape[1], dtype=torch.float64),
        torch.full((systems * n,), mass, dtype=torch.float64),
        system=torch.arange(systems).repeat_interleave(n),
        **more,
    )


def averages(model, state, ensemble, moves, skip, every, *observables):
    """Mean of each observable over a run, system by system."""
    seen = []
    al.simulate(
        model, state, moves, ensemble=ensemble, every=every,
        observe=lambda step, now: seen.append(torch.stack([f(now) for f in observables])) if step >= skip else None,
    )  # fmt: skip
    return torch.stack(seen).mean(0).numpy()


def z_score(values, exact, exact_error=0.0):
    error = math.hypot(values.std(ddof=1) / math.sqrt(len(values)), exact_error)
    return float((values.mean() - exact) / error)


def test_double_well_against_quadrature():
    T, well = 600.0, DoubleWell(barrier=0.12, distance=0.7)
    kT = BOLTZMANN * T
    weight = lambda x: math.exp(-0.12 * ((x / 0.7) ** 2 - 1.0) ** 2 / kT)  # noqa: E731
    Z = integrate.quad(weight, -3, 3)[0]
    exact = [
        integrate.quad(lambda x, f=f: f(x) * weight(x), -3, 3)[0] / Z
        for f in (lambda x: 0.12 * ((x / 0.7) ** 2 - 1.0) ** 2, lambda x: x**2, lambda x: float(abs(x) < 0.2))
    ]
    observables = (
        well.energy,
        lambda now: now.positions[:, 0] ** 2,
        lambda now: (now.positions[:, 0].abs() < 0.2).to(torch.float64),
    )
    state = maxwell(replicas(torch.tensor([[0.7]], dtype=torch.float64), 2000, 20.0), T)
    bad = al.Verlet(Scaled(well, 1.25), step_fs=12.0)
    exactly = GeneralisedHMC(well, T, 5.0, steps_per_move=2, seed=1)
    right = averages(bad, state, exactly, 400, 100, 20, *observables)
    assert 0.6 < exactly.summary()["acceptance"] < 0.99
    assert all(abs(z_score(mine, value)) < 3.5 for mine, value in zip(right, exact, strict=True))
    wrong = averages(bad, state, Langevin(T, 20.0, seed=1), 600, 100, 20, *observables)
    assert all(abs(z_score(mine, value)) > 5.0 for mine, value in zip(wrong, exact, strict=True))


def test_lennard_jones_cluster_against_a_long_reference():
    T, argon = 15.0, LennardJones()
    cluster = torch.tensor(Icosahedron("Cu", 2, latticeconstant=5.3).positions)
    state = replicas(cluster, 32, 39.948, numbers=torch.full((32 * 13,), 18))
    state = maxwell(state, T)
    pairs = torch.combinations(torch.arange(13)).T

    def spread(now):
        q = now.positions.view(-1, 13, 3)
        return (q[:, pairs[0]] - q[:, pairs[1]]).norm(dim=2).mean(1)

    observables = (argon.energy, spread)
    reference = averages(al.Verlet(argon, step_fs=20.0), state, Langevin(T, 2.0, seed=5), 1000, 300, 10, *observables)
    bad = al.Verlet(Scaled(argon, 1.1), step_fs=40.0)
    ensemble = GeneralisedHMC(argon, T, 1.0, steps_per_move=2, seed=2)
    right = averages(bad, state, ensemble, 400, 120, 10, *observables)
    wrong = averages(bad, state, Langevin(T, 2.0, seed=2), 700, 250, 10, *observables)
    assert 0.3 < ensemble.summary()["acceptance"] < 0.99
    for k in range(2):
        value, error = reference[k].mean(), reference[k].std(ddof=1) / math.sqrt(32)
        assert abs(z_score(right[k], value, error)) < 3.5
    assert abs(z_score(wrong[0], reference[0].mean(), reference[0].std(ddof=1) / math.sqrt(32))) > 5.0


def test_each_system_of_a_batch_is_tested_on_its_own():
    """Rejected systems go back with momenta flipped, accepted ones go on."""
    well = DoubleWell(barrier=0.12, distance=0.7)
    state = maxwell(replicas(torch.tensor([[0.5]], dtype=torch.float64), 200, 20.0), 900.0)
    ensemble = GeneralisedHMC(well, 300.0, 1e-12, seed=3)
    after = ensemble.advance(al.Verlet(Scaled(well, 3.0), step_fs=12.0), state)
    back = after.positions == state.positions
    assert 10 < int(back.sum()) < 190
    assert int(back.sum()) == 200 - ensemble.counts["accepted"]
    assert torch.allclose(after.momenta[back], -state.momenta[back], atol=1e-5)


def test_proposals_that_fail_are_rejected_and_counted():
    well = DoubleWell(barrier=0.12, distance=0.7)

    class Fails(al.Verlet):
        def step(self, state, n=1):
            if (state.positions > 0.65).any():
                raise NonFinite("lost")
            return super().step(state, n)

    state = maxwell(replicas(torch.tensor([[0.7]], dtype=torch.float64), 1, 20.0), 300.0)
    ensemble = GeneralisedHMC(well, 300.0, 1e-12)
    after = ensemble.advance(Fails(well, step_fs=5.0), state)
    assert (after.positions == state.positions).all() and ensemble.counts["failed"] == 1
    assert torch.allclose(after.momenta, -state.momenta, atol=1e-5)


# --- constant pressure ------------------------------------------------------------------------------------


class Corrugation:
    """U = Σ ε·(V/V₀)·(1 − cos 2πx/L): a wave that fits the cell and grows with it."""

    def __init__(self, strength, volume):
        self.strength, self.volume = strength, volume

    def _waves(self, state):
        L = state.cell[:, 0, 0]
        height = self.strength * L**3 / self.volume
        k = (2.0 * math.pi / L)[state.system]
        return height[state.system], k, k * state.positions[:, 0]

    def energy(self, state):
        height, _, phase = self._waves(state)
        return state.sum_by_system(height * (1.0 - phase.cos()))

    def forces(self, state):
        height, k, phase = self._waves(state)
        return torch.nn.functional.pad((-height * k * phase.sin()).unsqueeze(1), (0, 2))


def test_volume_at_constant_pressure_against_quadrature():
    """P(V) ∝ V^N exp(−βPV)·[exp(−βεV/V₀)·I₀(βεV/V₀)]^N, with a map that is wrong, and for the ideal gas a Γ law."""
    T, P, N, V0 = 300.0, 0.2, 4, 64.0
    kT = BOLTZMANN * T
    generator = torch.Generator().manual_seed(4)
    for strength in (0.0, 0.05):
        potential = Corrugation(strength, V0)
        q = torch.rand(N, 3, generator=generator, dtype=torch.float64) * 4.0
        cell = 5.0 * torch.eye(3, dtype=torch.float64)
        state = maxwell(replicas(q, 500, 20.0, cell=cell.repeat(500, 1, 1), pbc=torch.tensor([True] * 3)), T)
        ensemble = GeneralisedHMC(potential, T, 20.0, pressure_GPa=P, volume_every=1, volume_step=0.8, seed=5)
        model = al.Verlet(Scaled(potential, 1.3), step_fs=10.0)
        volumes = []
        al.simulate(
            model, state, 600, ensemble=ensemble, every=30,
            observe=lambda step, now, v=volumes: v.append(torch.linalg.det(now.cell)) if step >= 120 else None,
        )  # fmt: skip
        volumes = torch.stack(volumes).numpy()
        grid = np.linspace(1e-3, 4000.0, 40001)
        x = strength * grid / V0 / kT
        log_p = N * np.log(grid) - P * GIGAPASCAL * grid / kT + N * np.log(special.i0e(x))
        p = np.exp(log_p - log_p.max())
        exact = (grid * p).sum() / p.sum()
        assert abs(z_score(volumes.mean(0), exact)) < 3.5
        cdf = np.cumsum(p) / p.sum()
        assert stats.kstest(volumes[-1], lambda v, g=grid, c=cdf: np.interp(v, g, c)).pvalue > 1e-3
        if strength == 0.0:
            assert abs(exact / ((N + 1) * kT / (P * GIGAPASCAL)) - 1.0) < 1e-3
            assert abs(z_score(volumes.mean(0), N * kT / (P * GIGAPASCAL))) > 5.0  # the power of V matters
        assert 0.1 < ensemble.summary()["volume_acceptance"] < 0.9
