"""Ensembles against what is known exactly: moments, histograms, conserved energies, volumes."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import actionlearn as al
from actionlearn.ase import ActionBussi, ActionNVE
from actionlearn.dynamics import GeneralisedHMC, Langevin, VelocityRescaling
from actionlearn.dynamics.freedom import without_total_momentum
from actionlearn.potentials import SecondMomentMetals
from actionlearn.systems import structure
from actionlearn.units import BOLTZMANN, FEMTOSECOND

T = 300.0
KT = BOLTZMANN * T


class Wells:
    """Σ a_k q_k² + b q_k⁴ of every coordinate: independent wells of each atom."""

    def __init__(self, a, b=0.0):
        self.a, self.b = a, b

    def energy(self, state):
        q2 = state.positions**2
        return state.sum_by_system((self.a * q2 + self.b * q2**2).sum(1))

    def forces(self, state):
        q = state.positions
        return -2.0 * self.a * q - 4.0 * self.b * q**3


def resting(systems, atoms, dims=3, mass=20.0):
    zeros = torch.zeros(systems * atoms, dims, dtype=torch.float64)
    system = torch.arange(systems).repeat_interleave(atoms)
    return al.PhaseState(zeros, zeros.clone(), torch.full((len(zeros),), mass, dtype=torch.float64), system=system)


def thermal(state, temperature_K=T, seed=0):
    width = (state.masses * BOLTZMANN * temperature_K).sqrt().unsqueeze(1)
    noise = torch.randn(state.positions.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return state.moved(state.positions, width * noise)


def sampled(model, state, ensemble, moves, every, skip, observable):
    """Values (frames, …) of an observable along a run."""
    seen = []
    al.simulate(
        model, state, moves, ensemble=ensemble, every=every,
        observe=lambda step, now: seen.append(observable(now)) if step >= skip else None,
    )  # fmt: skip
    return torch.stack(seen).numpy()


def z_score(samples, exact):
    """How many standard errors the mean is off, the replicas (second axis) being independent."""
    means = samples.mean(0)
    return float((means.mean() - exact) / (means.std(ddof=1) / math.sqrt(len(means))))


# --- thermostats: moments ---------------------------------------------------------------------------------

OMEGA = 1.0  # 1/(Å·sqrt(u/eV)); about 10 fs


@pytest.mark.parametrize("kind", ["langevin", "bussi"])
def test_harmonic_moments_are_those_of_the_shadow_energy(kind):
    """Momenta exactly canonical; positions too, with Verlet's known 1/(1 − θ²/4)."""
    theta = 1.0
    state = thermal(resting(150, 4))
    # incommensurate frequencies, or a global thermostat leaves each oscillator its phase
    a = 0.5 * 20.0 * torch.linspace(0.8, 1.2, 12, dtype=torch.float64).view(4, 3).repeat(150, 1)
    model = al.Verlet(Wells(a), step_fs=theta / OMEGA / FEMTOSECOND)
    state = state.moved(state.momenta / 20.0, state.momenta)
    ensemble = Langevin(T, 40.0, seed=1) if kind == "langevin" else VelocityRescaling(T, 0.02, seed=1)
    exact = KT / (2.0 * a) / (1.0 - (2.0 * a / 20.0) * theta**2 / 4.0)

    def observable(now):
        K = now.kinetic_energy() / (6.0 * KT)  # K² has mean 1 + 2/Nf
        u = now.sum_by_system((now.positions**2 / exact).mean(1)) / 4.0
        return torch.stack([K, K**2, u], 1)

    values = sampled(model, state, ensemble, 1200, 3, 200, observable)
    assert abs(z_score(values[..., 0], 1.0)) < 3.5
    assert abs(z_score(values[..., 1], 1.0 + 2.0 / 12.0)) < 3.5
    # velocity rescaling does not move energy between uncoupled oscillators: only the sum is canonical
    if kind == "langevin":
        assert abs(z_score(values[..., 2], 1.0)) < 3.5
        assert abs(z_score(values[..., 2], 1.0 - 0.25)) > 20  # it could have failed


def test_exact_action_gives_exact_configurations_at_two_radians_a_step():
    """The exact harmonic action, s = 2, at ωh = 2: no shadow energy, so no error at all."""
    theta, m = 2.0, 20.0
    h = theta / OMEGA
    c = (4.0 / h) * (1.0 - math.sin(theta) / theta)
    a = (2.0 - theta / math.tan(theta / 2.0)) / h
    # kicks h·U with h·U_1 = ½ m c q² and h·U_0 = ½ m a q²
    model = al.DiscreteAction([Wells(0.5 * m * a / h), Wells(0.5 * m * c / h)], step_fs=h / FEMTOSECOND)
    state = thermal(resting(1, 3000, mass=m))
    values = []
    al.simulate(
        model, state, 400, ensemble=Langevin(T, 50.0, seed=2), every=10,
        observe=lambda step, now: values.append((now.positions**2).mean(1)) if step >= 50 else None,
    )  # fmt: skip
    assert abs(z_score(torch.stack(values).numpy(), KT / (m * OMEGA**2))) < 3.5


def test_velocity_rescaling_draws_the_canonical_kinetic_energy():
    """K of a free gas under rescaling alone: Γ(Nf/2, kT), from a far start, momentum zero or not."""
    for at_rest in (True, False):
        state = thermal(resting(4000, 2), 1000.0)
        if at_rest:
            state = state.moved(state.positions, without_total_momentum(state, state.momenta))
        ensemble = VelocityRescaling(T, 0.01, seed=3)
        for _ in range(20):
            state = ensemble.rescale(state, 10.0 * FEMTOSECOND)
        K = state.kinetic_energy().numpy() / KT
        assert stats.kstest(K, stats.gamma((3 if at_rest else 6) / 2).cdf).pvalue > 1e-3
        assert stats.kstest(K, stats.gamma(4.5 / 2).cdf).pvalue < 1e-6


@pytest.mark.parametrize("kind", ["langevin", "bussi", "ghmc"])
def test_two_temperatures_have_histograms_of_the_right_ratio(kind):
    """Ln P₂(U)/P₁(U) is a line of slope 1/kT₁ − 1/kT₂, whatever the density of states (Shirts 2013)."""
    potential = Wells(2.0, 1.0)
    samples = []
    for temperature in (300.0, 360.0):
        model = al.Verlet(potential, step_fs=2.0)
        if kind == "langevin":
            ensemble = Langevin(temperature, 20.0, seed=4)
        elif kind == "bussi":
            ensemble = VelocityRescaling(temperature, 0.02, seed=4)
        else:
            ensemble = GeneralisedHMC(potential, temperature, 20.0, seed=4)
        state = thermal(resting(300, 2), temperature)
        state = state.moved(0.01 * state.momenta, state.momenta)
        samples.append(sampled(model, state, ensemble, 800, 50, 200, potential.energy).ravel())
    # maximum likelihood of p = 1/(1 + exp(ΔF + Δβ·U)): a logistic regression in one variable
    U = np.concatenate(samples)
    y = np.repeat([0.0, 1.0], [len(s) for s in samples])
    X = np.stack([np.ones_like(U), (U - U.mean()) / U.std()], 1)
    w = np.zeros(2)
    for _ in range(20):
        p = 1.0 / (1.0 + np.exp(-X @ w))
        H = X.T @ (X * (p * (1 - p))[:, None])
        w += np.linalg.solve(H, X.T @ (y - p))
    slope, error = w[1] / U.std(), math.sqrt(np.linalg.inv(H)[1, 1]) / U.std()
    exact = 1.0 / (BOLTZMANN * 300.0) - 1.0 / (BOLTZMANN * 360.0)
    assert error < 0.1 * exact
    assert abs(slope - exact) < 4.0 * error


# --- the conserved energy of velocity rescaling -----------------------------------------------------------


def test_energy_less_heat_is_as_flat_as_the_energy_of_the_map_alone():
    potential = SecondMomentMetals()
    scatter = {}
    for make, options in ((ActionNVE, {}), (ActionBussi, {"temperature_K": 600.0, "time_ps": 0.05})):
        atoms = structure("cuau32")
        state = thermal(al.PhaseState.from_atoms(atoms), 600.0)
        atoms.set_momenta(without_total_momentum(state, state.momenta).numpy())
        model = al.Verlet(potential, step_fs=2.0)
        dyn = make(atoms, model=model, potential=potential, **options)
        times, conserved, total = [], [], []

        def look(dyn=dyn, atoms=atoms, times=times, conserved=conserved, total=total):
            times.append(dyn.get_time() / FEMTOSECOND)
            conserved.append(dyn.conserved_energy())
            total.append(dyn.potential_energy() + atoms.get_kinetic_energy())

        dyn.attach(look, interval=10)
        dyn.run(1500)
        drift = al.energy_drift(times, conserved, 32)
        assert abs(drift.value) < max(4.0 * drift.error, 0.05)
        scatter[make] = np.std(conserved), np.std(total)
    assert scatter[ActionBussi][0] < 4.0 * scatter[ActionNVE][0]
    assert scatter[ActionBussi][1] > 20.0 * scatter[ActionBussi][0]  # the energy itself goes up and down
