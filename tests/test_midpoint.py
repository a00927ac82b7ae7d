"""The midpoint action: exact cases, structure on untrained random scalars, and what must fail."""

import math

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

import actionlearn as al
from actionlearn.errors import InvalidInput, NotConverged
from actionlearn.potentials.protocol import forces_from_energy
from actionlearn.potentials.toy_states import figure_eight, kepler_period, kepler_state
from actionlearn.solver import FixedPointSolver
from actionlearn.units import BOLTZMANN, FEMTOSECOND

MOLECULE, WATER, ALLOY = "CH3OH", "H2O", "alloy"


def thermal(atoms, temperature_K, seed=0):
    m = atoms.get_masses()[:, None]
    p = np.random.default_rng(seed).normal(size=(len(atoms), 3)) * np.sqrt(m * BOLTZMANN * temperature_K)
    atoms.set_momenta(p - m * p.sum(0) / m.sum())
    return al.PhaseState.from_atoms(atoms)


def state_of(name, seed=0):
    if name != ALLOY:
        return thermal(molecule(name), 500.0, seed)
    atoms = bulk("Cu", a=3.85, cubic=True) * (2, 1, 1)
    atoms.numbers[::2] = 79
    atoms.set_masses(None)
    atoms.rattle(0.05, seed=1)
    return thermal(atoms, 500.0, seed)


def step_of(name):
    return 8.0 if name == ALLOY else 1.0


class RandomAction:
    """An untrained network even in the momenta, weak enough to be a correction, with springs to hold it together."""

    def __init__(self, state, stiffness=8.0):
        species = sorted(set(state.numbers.tolist()))
        self.net = al.AtomicMoments(species, cutoff=4.0, channels=4, hidden=8, momenta=True)
        self.net.calibrate([state]).randomise(1.0, seed=3).requires_grad_(False)
        p = state.momenta.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.net.energy(state.moved(state.positions, p)).sum(), p)
        self.scale = 0.2 * float(state.velocities.norm() / slope.norm())
        self.stiffness, self.rest = stiffness, state.positions
        self.pairs = torch.combinations(torch.arange(state.n_atoms), 2).T

    def springs(self, state):
        i, j = self.pairs
        now, rest = ((q[i] - q[j]).norm(dim=1) for q in (state.positions, self.rest))
        return 0.5 * self.stiffness * (now - rest).square().sum().unsqueeze(0)

    def energy(self, state):
        learned = self.scale * self.net.energy(state)
        return learned if state.pbc.any() else learned + self.springs(state)


class PairAction:
    """A cheap random scalar of distances and relative velocities, even in the momenta."""

    def __init__(self, state):
        self.pairs = torch.combinations(torch.arange(state.n_atoms), 2).T
        self.rest = self.distances(state)[0]
        self.a, self.b = torch.rand(2, len(self.rest), dtype=torch.float64)

    def distances(self, state):
        i, j = self.pairs
        d, v = state.positions[i] - state.positions[j], state.velocities[i] - state.velocities[j]
        return d.norm(dim=1), (d * v).sum(1), v

    def energy(self, state):
        r, along, v = self.distances(state)
        spring = (2.0 + 6.0 * self.a) * (r - self.rest).square()
        return (spring + 0.02 * self.b * (along**2 + v.square().sum(1)) / (1 + r)).sum().unsqueeze(0)


def random_map(name, state, **options):
    return al.MidpointAction(RandomAction(state), step_fs=step_of(name), **options)


class HarmonicAction:
    """The exact action of one-dimensional oscillators, one per atom, less its kinetic part."""

    def __init__(self, omega, h):
        self.omega = torch.as_tensor(omega, dtype=torch.float64)
        self.factor = torch.tan(0.5 * self.omega * h) / (0.5 * self.omega * h)

    def energy(self, state):
        m, (q, p) = state.masses, (state.positions[:, 0], state.momenta[:, 0])
        H = self.factor * 0.5 * m * self.omega**2 * q**2 + (self.factor - 1) * p**2 / (2 * m)
        return state.sum_by_system(H)


def oscillators(turns):
    n = len(turns)
    z = torch.randn(2, n, 1, dtype=torch.float64)
    return al.PhaseState(positions=z[0], momenta=z[1], masses=torch.linspace(1.0, 3.0, n, dtype=torch.float64))


# --- exact cases ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fastest", [0.5, 1.57, 2.5, 2.99])
def test_harmonic_modes_are_exact(fastest):
    h = FEMTOSECOND
    omega = torch.linspace(0.1, 1.0, 12, dtype=torch.float64) * fastest / h
    state = oscillators(omega)
    step = al.MidpointAction(HarmonicAction(omega, h), step_fs=1.0, tolerance=1e-12)
    new = step(state)
    c, s = torch.cos(omega * h)[:, None], torch.sin(omega * h)[:, None]
    mw = (state.masses * omega)[:, None]
    q, p = state.positions, state.momenta
    assert (new.positions - (c * q + s * p / mw)).abs().max() < 1e-10 * q.abs().max()
    # momenta are compared in units of m·omega·q, the larger half of such fast modes
    assert ((new.momenta - (c * p - s * mw * q)) / mw).abs().max() < 1e-10 * q.abs().max()


def test_half_a_period_is_out_of_reach_and_says_so():
    h = FEMTOSECOND
    omega = torch.linspace(0.9, 1.0, 40, dtype=torch.float64) * (math.pi - 1e-7) / h
    step = al.MidpointAction(HarmonicAction(omega, h), step_fs=1.0)
    with pytest.raises(
        NotConverged, match=r"omega_max\*h = 3\.14\d \(h = T/2\.00\).*h = T/4.*h = T/2.*shorter|step of"
    ):
        step(oscillators(omega))


def test_two_half_steps_take_over():
    h = FEMTOSECOND
    omega = torch.linspace(0.9, 1.0, 40, dtype=torch.float64) * (math.pi - 1e-7) / h
    half = al.MidpointAction(HarmonicAction(omega, 0.5 * h), step_fs=0.5)
    step = al.MidpointAction(HarmonicAction(omega, h), step_fs=1.0, half=half)
    state = oscillators(omega)
    assert (step(state).positions - half.step(state, 2).positions).abs().max() < 1e-12 and step.halved == 1
    with pytest.raises(InvalidInput, match="half must have half the step, 0.5 fs"):
        al.MidpointAction(HarmonicAction(omega, h), step_fs=1.0, half=step)


def test_implicit_midpoint_rule_is_of_second_order_on_kepler_and_keeps_angular_momentum():
    potential = al.potentials.Kepler()
    state = kepler_state(potential, 0.3)
    period = kepler_period(potential)
    errors, counts = [], (64, 128, 256)
    for n in counts:
        step = al.MidpointAction(potential, step_fs=period / n / FEMTOSECOND, tolerance=1e-12)
        errors.append(float((step.step(state, n).positions - state.positions).norm()))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -2.15 < slope < -1.85
    assert al.angular_momentum_drift(step, state, n=50) < 1e-12


def test_three_bodies_keep_their_energy():
    potential, state = al.potentials.GravitationalThreeBody(), figure_eight()
    step = al.MidpointAction(potential, step_fs=0.02 / FEMTOSECOND, tolerance=1e-12)

    def energy(now):
        return float(now.kinetic_energy() + potential.energy(now))

    after = step.step(state, 300)
    assert abs(energy(after) - energy(state)) < 2e-3 * abs(energy(state))
    assert al.momentum_drift(step, state, n=50) < 1e-12 and al.reversal_error(step, state) < 1e-11


# --- structure on untrained random scalars --------------------------------------------------------


@pytest.mark.parametrize("name", [MOLECULE, ALLOY])
def test_symplectic_and_reversible(name):
    state = state_of(name)
    step = random_map(name, state, tolerance=1e-12)
    assert al.symplectic_defect(step, state, method="reverse") < 1e-9
    assert al.reversal_error(step, state, n=10) < 1e-10


def test_derivative_agrees_with_differences():
    state = state_of(WATER)
    step = al.MidpointAction(PairAction(state), step_fs=1.0, tolerance=1e-12)
    reverse = al.step_jacobian(step, state, method="reverse")
    differences = al.step_jacobian(step, state, method="differences", displacement=1e-4)
    assert (reverse - differences).abs().max() < 1e-7 * reverse.abs().max()


def test_gradients_reach_what_is_trained():
    state = state_of(ALLOY)
    action = RandomAction(state)
    step = al.MidpointAction(action.net.head(1.0), step_fs=0.5, tolerance=1e-12)
    weight = action.net.readout.weight.requires_grad_()
    target = torch.randn(state.positions.shape, dtype=torch.float64)
    (slope,) = torch.autograd.grad((step(state).positions * target).sum(), weight)
    direction = torch.randn_like(weight)
    values = []
    with torch.no_grad():
        for shift in (1e-4, -2e-4):
            weight += shift * direction
            values.append(float((step(state).positions * target).sum()))
    assert float((slope * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-5)


@pytest.mark.physics
def test_momenta_of_a_molecule_over_a_thousand_steps():
    state = state_of(MOLECULE)
    spin = torch.linalg.cross(torch.tensor([[0.1, 0.2, 0.3]]).double().expand(6, 3), state.positions)
    state = state.moved(state.positions, state.momenta + state.masses[:, None] * (spin + 0.1))
    step = al.MidpointAction(PairAction(state), step_fs=1.0, tolerance=1e-13)
    centre = (state.masses[:, None] * state.positions).sum(0) / state.masses.sum()
    velocity = state.momenta.sum(0) / state.masses.sum()
    totals = lambda s: (s.momenta.sum(0), torch.linalg.cross(s.positions, s.momenta).sum(0))  # noqa: E731
    after = step.step(state, 1000)
    (P0, L0), (P1, L1) = totals(state), totals(after)
    assert (P1 - P0).norm() < 1e-12 * state.momenta.norm(dim=1).sum()
    assert (L1 - L0).norm() < 1e-10 * L0.norm()
    moved = (after.masses[:, None] * after.positions).sum(0) / after.masses.sum() - centre
    assert (moved - 1000 * step.step_fs * FEMTOSECOND * velocity).norm() < 1e-10 * moved.norm()


def test_the_result_does_not_depend_on_the_guess():
    state = state_of(MOLECULE)
    action = RandomAction(state)
    verlet = al.Verlet(ForcesOf(action), step_fs=1.0)
    ends = []
    for guess in ("free flight", "extrapolation", verlet, lambda s: s):
        step = al.MidpointAction(action, step_fs=1.0, tolerance=1e-12, guess=guess)
        ends.append(step.step(state, 5))
    for end in ends[1:]:
        assert (end.positions - ends[0].positions).abs().max() < 1e-11


@pytest.mark.parametrize("factor", [float("nan"), 100.0])
def test_a_hopeless_guess_is_given_up(factor):
    state = state_of(MOLECULE)
    action = RandomAction(state)
    astray = lambda s: s.moved(s.positions * factor, s.momenta)  # noqa: E731
    step = al.MidpointAction(action, step_fs=1.0, tolerance=1e-12, guess=astray)
    plain = al.MidpointAction(action, step_fs=1.0, tolerance=1e-12)
    assert (step(state).positions - plain(state).positions).abs().max() < 1e-11


def test_a_batch_gives_what_its_systems_give_alone():
    atoms = [molecule("CH3OH"), molecule("H2O"), bulk("Cu", a=3.85, cubic=True)]
    states = [thermal(a, 500.0, seed) for seed, a in enumerate(atoms)]
    net = al.AtomicMoments([1, 6, 8, 29], cutoff=4.0, channels=4, hidden=8)
    net.calibrate([al.PhaseState.batch(states)]).randomise(0.3, seed=3).requires_grad_(False)
    step = al.MidpointAction(net, step_fs=0.7, tolerance=1e-12)
    together = step.step(al.PhaseState.batch(states), 3)
    spent = step.statistics.last_evaluations
    for k, state in enumerate(states):
        alone = al.MidpointAction(net, step_fs=0.7, tolerance=1e-12)
        end = alone.step(state, 3)
        assert (together.select(k).positions - end.positions).abs().max() < 1e-11
        assert (together.select(k).momenta - end.momenta).abs().max() < 1e-10
        assert abs(alone.statistics.last_evaluations[0] - spent[k]) <= 1


def test_fixed_atoms_stay():
    atoms = molecule("CH3OH")
    atoms.set_constraint(FixAtoms([0, 1]))
    state = thermal(atoms, 500.0)
    state = state.moved(state.positions, state.momenta.masked_fill(state.fixed[:, None], 0.0))
    step = random_map(MOLECULE, state, tolerance=1e-12)
    after = step.step(state, 5)
    assert torch.equal(after.positions[:2], state.positions[:2]) and torch.equal(after.momenta[:2], state.momenta[:2])
    assert al.symplectic_defect(step, state) < 1e-9 and al.reversal_error(step, state) < 1e-10


def test_at_rest_in_equilibrium_nothing_moves():
    state = al.PhaseState(*(torch.zeros(1, 1, dtype=torch.float64) for _ in range(2)), masses=torch.ones(1).double())
    step = al.MidpointAction(HarmonicAction([1.0], FEMTOSECOND), step_fs=1.0)
    assert step(state).positions.abs().max() == 0


# --- what must fail -------------------------------------------------------------------------------


class ForcesOf:
    """A scalar as a potential, its momenta left as they are."""

    def __init__(self, scalar):
        self.energy = scalar.energy

    def forces(self, state):
        return forces_from_energy(self.energy, state)


class OddAction(RandomAction):
    """With a part odd in the momenta: symplectic still, but not reversible."""

    def energy(self, state):
        i, j = self.pairs
        d, v = state.positions[i] - state.positions[j], state.velocities[i] - state.velocities[j]
        return super().energy(state) + 0.01 * (d * v).sum(1).tanh().sum().unsqueeze(0)


def test_an_odd_scalar_is_symplectic_but_not_reversible():
    state = state_of(WATER)
    step = al.MidpointAction(OddAction(state), step_fs=1.0, tolerance=1e-12)
    assert al.symplectic_defect(step, state, method="reverse") < 1e-9
    assert al.reversal_error(step, state, n=10) > 1e-6


def test_a_loose_solver_breaks_structure():
    state = state_of(WATER)
    step = random_map(WATER, state, tolerance=1e-3)
    assert al.reversal_error(step, state, n=10) > 1e-6
    assert al.symplectic_defect(step, state, method="differences") > 1e-6


def test_unequal_scales_on_the_two_derivatives_break_structure():
    state = state_of(WATER)
    exact = random_map(WATER, state, tolerance=1e-12)

    def scaled(start):
        end = exact(start)
        return start.moved(end.positions, start.momenta + 1.01 * (end.momenta - start.momenta))

    assert al.symplectic_defect(scaled, state) > 1e-4
    assert al.reversal_error(scaled, state, n=10) > 1e-6


# --- predict and correct --------------------------------------------------------------------------


def test_corrections_converge_from_any_predictor():
    state = state_of(MOLECULE)
    action = random_map(MOLECULE, state, tolerance=1e-12)
    exact = action(state)
    coarse = al.Verlet(ForcesOf(action.scalar), step_fs=1.0)
    errors = []
    for k in (0, 1, 3, 6, None):
        step = al.PredictCorrect(coarse, action, iterations=k)
        errors.append(float((step(state).positions - exact.positions).abs().max()))
    assert all(late < 0.5 * early for early, late in zip(errors, errors[1:], strict=False)) and errors[-1] < 1e-12
    assert torch.equal(al.PredictCorrect(coarse, action, iterations=0)(state).positions, coarse(state).positions)


def test_structure_comes_with_convergence():
    state = state_of(WATER)
    action = random_map(WATER, state, tolerance=1e-12)
    nowhere = lambda s: s  # noqa: E731
    defects = {
        k: al.symplectic_defect(al.PredictCorrect(nowhere, action, iterations=k), state, method="differences")
        for k in (2, 6)
    }
    assert 1e-3 < defects[2] and 1e-8 < defects[6] < 0.1 * defects[2], defects
    converged = al.PredictCorrect(nowhere, action)
    assert al.symplectic_defect(converged, state) < 1e-9 and al.reversal_error(converged, state) < 1e-10
    with pytest.raises(InvalidInput, match="iterations must be 0 or more"):
        al.PredictCorrect(nowhere, action, iterations=-1)


def test_statistics_count_gradients():
    state = state_of(MOLECULE)
    step = random_map(MOLECULE, state)
    calls, energy = [], step.scalar.energy
    step.scalar.energy = lambda s: calls.append(1) or energy(s)
    step.step(state, 3)
    s = step.statistics
    assert s.solves == 3 and s.evaluations == len(calls) and s.worst_residual <= step.tolerance
    assert s.evaluations_per_solve == len(calls) / 3


def test_bad_input_is_refused():
    scalar = HarmonicAction([1.0], 1.0)
    with pytest.raises(InvalidInput, match="step_fs must be positive"):
        al.MidpointAction(scalar, step_fs=0.0)
    with pytest.raises(InvalidInput, match="guess must be"):
        al.MidpointAction(scalar, step_fs=1.0, guess="verlet")
    with pytest.raises(InvalidInput, match="needs a solver that keeps pairs"):
        al.MidpointAction(scalar, step_fs=1.0, guess="extrapolation", solver=FixedPointSolver())
    step = al.MidpointAction(scalar, step_fs=1.0)
    state = al.PhaseState(positions=torch.ones(1, 1), momenta=torch.ones(1, 1), masses=torch.ones(1))
    with pytest.raises(InvalidInput, match="cannot be reached in torch.float32"):
        step(state)
