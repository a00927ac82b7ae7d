"""Structure of the explicit maps on untrained random networks, exact cases, and what must fail."""

import math

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

import actionlearn as al
from actionlearn.errors import InvalidInput, NonFinite, NotConverged, UnsupportedSystem
from actionlearn.maps import kick_weights
from actionlearn.potentials.protocol import forces_from_energy
from actionlearn.units import BOLTZMANN, FEMTOSECOND

MOLECULE, ALLOY = "molecule", "alloy"


def thermal(atoms, temperature_K, seed=0):
    m = atoms.get_masses()[:, None]
    p = np.random.default_rng(seed).normal(size=(len(atoms), 3)) * np.sqrt(m * BOLTZMANN * temperature_K)
    atoms.set_momenta(p - m * p.sum(0) / m.sum())
    return al.PhaseState.from_atoms(atoms)


def state_of(name):
    if name == MOLECULE:
        return thermal(molecule("CH3CH2OH"), 500.0)
    atoms = bulk("Cu", a=3.85, cubic=True) * (2, 2, 1)
    atoms.numbers[::2] = 79
    atoms.set_masses(None)
    atoms.rattle(0.05, seed=1)
    return thermal(atoms, 500.0)


def network(state, heads=2, **options):
    species = sorted(set(state.numbers.tolist()))
    net = al.AtomicMoments(species, cutoff=4.5, channels=8, hidden=16, heads=heads, **options)
    net.calibrate([state]).randomise(1.0, seed=3).requires_grad_(False)
    # random, but weak enough that ten steps are not chaos, which would hide structure behind rounding
    net.readout.weight.mul_(0.2 / net.forces(state).square().mean().sqrt())
    return net


class Springs:
    """Springs between all pairs, so that a molecule of random forces stays together."""

    def __init__(self, state, stiffness=15.0):
        self.pairs = torch.combinations(torch.arange(state.n_atoms), 2).T
        self.stiffness, self.lengths = stiffness, self.distances(state)

    def distances(self, state):
        return (state.positions[self.pairs[0]] - state.positions[self.pairs[1]]).norm(dim=1)

    def energy(self, state):
        return 0.5 * self.stiffness * (self.distances(state) - self.lengths).square().sum().unsqueeze(0)

    def forces(self, state):
        return forces_from_energy(self.energy, state)


def random_map(kind, state):
    net = network(state)
    step_fs = 1.0 if state.numbers.min() == 1 else 8.0
    if kind == "discrete s=1":
        return al.DiscreteAction([net.head(1, 0)], step_fs=step_fs)
    if kind == "discrete s=2":
        return al.DiscreteAction([net.head(1, 0), net.head(0, 1)], step_fs=step_fs)
    if kind == "discrete s=4":
        kicks = [net.head(1, 0), net.head(0, 1), net.head(0.5, 0.5)]
        return al.DiscreteAction(kicks, step_fs=step_fs, stages=4)
    if kind == "corrected s=2":
        return al.CorrectedVerlet(net.head(1, 0), [net.head(0, 0.1), net.head(0.1, 0)], step_fs=step_fs)
    assert kind == "processed s=1"
    inner = al.DiscreteAction([net.head(1, 0)], step_fs=step_fs)
    return al.ProcessedAction(inner, al.Displacement(net.head(0, 0.5), step_fs=step_fs))


EXPLICIT = ["discrete s=1", "discrete s=2", "discrete s=4", "corrected s=2"]


@pytest.mark.parametrize("system", [MOLECULE, ALLOY])
@pytest.mark.parametrize("kind", EXPLICIT)
def test_explicit_maps_are_symplectic_and_reversible(kind, system):
    state = state_of(system)
    step = random_map(kind, state)
    assert al.symplectic_defect(step, state) < 1e-11
    assert al.reversal_error(step, state, n=10) < 1e-10


@pytest.mark.parametrize("system", [MOLECULE])
def test_processed_map_is_symplectic_and_reversible_in_physical_variables(system):
    state = state_of(system)
    step = random_map("processed s=1", state)
    entered = step.displacement.enter(state)
    assert (entered.positions - state.positions).abs().max() > 1e-3  # the displacement does something
    assert al.symplectic_defect(step, state) < 1e-9
    assert al.reversal_error(step, state, n=10) < 1e-9


@pytest.mark.parametrize("kind", [*EXPLICIT, "processed s=1"])
def test_momentum_and_angular_momentum_of_a_molecule(kind):
    state = state_of(MOLECULE)
    step = random_map(kind, state)
    inner = getattr(step, "inner", step)
    inner.extra.append(Springs(state))
    n = 10 if kind.startswith("processed") else 100
    assert al.momentum_drift(step, state, n=n) < 1e-12
    assert al.angular_momentum_drift(step, state, n=n) < 1e-10


def test_direct_predictor_has_no_structure():
    state = state_of(MOLECULE)
    direct = al.DirectPredictor((1, 6, 8), step_fs=1.0, cutoff=4.5, channels=8, hidden=16).calibrate([state])
    free = direct.step(state)
    assert torch.allclose(free.positions, state.drift(FEMTOSECOND).positions)  # untrained: free flight
    direct.randomise(1.0).requires_grad_(False)
    assert al.symplectic_defect(direct, state) > 1e-4
    assert al.reversal_error(direct, state, n=10) > 1e-4
    assert al.momentum_drift(direct, state, n=10) > 1e-6


def test_unequal_scales_on_the_two_derivatives_fail():
    state = state_of(MOLECULE)
    step = random_map("discrete s=2", state)

    def scaled(z):
        after = step(z)
        return after.moved(z.positions + 0.99 * (after.positions - z.positions), after.momenta)

    assert al.symplectic_defect(scaled, state) > 1e-4


def test_direct_predictor_is_equivariant():
    state = state_of(MOLECULE)
    direct = al.DirectPredictor((1, 6, 8), step_fs=1.0, cutoff=4.5, channels=4, hidden=8, layers=2)
    direct.calibrate([state]).randomise()
    R = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turned = direct(state.moved(state.positions @ R.T, state.momenta @ R.T))
    after = direct(state)
    assert torch.allclose(after.positions @ R.T, turned.positions, atol=1e-12)
    assert torch.allclose(after.momenta @ R.T, turned.momenta, atol=1e-10)


# --- exact cases ---------------------------------------------------------------------------------------


class Quadratic:
    """½ k m q²: force −k m q."""

    def __init__(self, k):
        self.k = k

    def energy(self, state):
        return state.sum_by_system(0.5 * self.k * state.masses * state.positions.square().sum(1))

    def forces(self, state):
        return -self.k * state.masses.unsqueeze(1) * state.positions


def oscillator(mass=2.5):
    one = torch.tensor([[0.7]], dtype=torch.float64)
    return al.PhaseState(one, -1.3 * one, torch.tensor([mass], dtype=torch.float64))


def rotated(state, theta, h):
    w, m = theta / h, state.masses.unsqueeze(1)
    q, p = state.positions, state.momenta
    return math.cos(theta) * q + math.sin(theta) / (m * w) * p, math.cos(theta) * p - m * w * math.sin(theta) * q


def assert_rotates(step, theta, h, tolerance):
    state = oscillator()
    q, p = rotated(state, theta, h)
    after = step(state)
    w = theta / h * state.masses
    assert (after.positions - q).abs().max() < tolerance
    assert ((after.momenta - p) / w).abs().max() < tolerance


@pytest.mark.parametrize("theta", [0.01, 0.5, 1.5, 3.0, math.pi, 4.0, 5.0, 5.99])
def test_two_stages_are_exact_for_every_harmonic_mode(theta):
    step_fs = 10.0
    h = step_fs * FEMTOSECOND
    c = 4.0 / h * (1.0 - math.sin(theta) / theta)
    a = (2.0 - theta / math.tan(theta / 2.0)) / h
    step = al.DiscreteAction([Quadratic(a / h), Quadratic(c / h)], step_fs=step_fs)
    assert_rotates(step, theta, h, 1e-12)


@pytest.mark.parametrize("theta", [0.1, 1.0, 2.0, 2.5, 2.99])
def test_processed_single_stage_is_exact_for_every_harmonic_mode(theta):
    step_fs = 10.0
    h = step_fs * FEMTOSECOND
    inner = al.DiscreteAction([Quadratic((1.0 - math.cos(theta)) / h**2)], step_fs=step_fs)
    scale = math.sqrt(theta / math.sin(theta))
    step = al.ProcessedAction(inner, al.Displacement(Quadratic((scale - 1.0) / h**2), step_fs=step_fs))
    assert_rotates(step, theta, h, 1e-10)


def test_corrected_without_correction_is_velocity_verlet():
    state = state_of(MOLECULE)
    base = network(state, heads=1)
    ours = al.CorrectedVerlet(base, step_fs=0.5).step(state, 5)
    theirs = al.Verlet(base, step_fs=0.5).step(state, 5)
    assert torch.allclose(ours.positions, theirs.positions, atol=1e-13)


def test_weights_are_newton_cotes():
    assert kick_weights(1) == pytest.approx([1 / 2])
    assert kick_weights(2) == pytest.approx([1 / 6, 4 / 6])
    assert kick_weights(3) == pytest.approx([1 / 8, 3 / 8])
    assert kick_weights(4) == pytest.approx([7 / 90, 32 / 90, 12 / 90])


# --- behaviour -----------------------------------------------------------------------------------------


class Counting:
    def __init__(self, potential):
        self.potential, self.calls = potential, 0

    def energy(self, state):
        return self.potential.energy(state)

    def forces(self, state):
        self.calls += 1
        return self.potential.forces(state)


def test_the_last_kick_is_the_first_of_the_next_step():
    kicks = [Counting(Quadratic(0.1)), Counting(Quadratic(0.2))]
    step = al.DiscreteAction(kicks, step_fs=5.0)
    state = step.step(oscillator(), 3)
    for _ in range(4):
        state = step.step(state)
    assert [u.calls for u in kicks] == [8, 7]
    step.step(state.moved(state.positions + 0.0, state.momenta))  # other positions as far as anyone can tell
    assert kicks[0].calls == 10
    with torch.no_grad():
        state.positions.add_(0.1)  # changed in place behind our back
    step.step(state)
    assert kicks[0].calls == 12


def test_fixed_atoms_stay_and_batches_equal_singles():
    atoms = molecule("CH3CH2OH")
    one = thermal(atoms, 300.0)
    atoms.set_constraint(FixAtoms([1, 4]))
    two = thermal(atoms, 400.0, seed=2)
    other = thermal(molecule("H2O"), 300.0)
    for kind in ("discrete s=2", "processed s=1"):
        step = random_map(kind, one)
        batch = step.step(al.PhaseState.batch([one, two, other]), 3)
        assert torch.equal(batch.unbatch()[1].positions[[1, 4]], two.positions[[1, 4]])
        assert torch.equal(batch.unbatch()[1].momenta[[1, 4]], two.momenta[[1, 4]])
        for single, got in zip((one, two, other), batch.unbatch(), strict=True):
            assert torch.allclose(step.step(single, 3).positions, got.positions, atol=1e-11)


def test_extra_potentials_join_the_kicks():
    state = oscillator()
    learned = [Quadratic(0.02), Quadratic(0.05)]
    both = al.DiscreteAction(learned, step_fs=3.0, extra=[Quadratic(0.3)])
    by_hand = al.DiscreteAction([Quadratic(0.02 + 0.3 / 6), Quadratic(0.05 + 0.3 * 4 / 6)], step_fs=3.0)
    assert torch.allclose(both(state).momenta, by_hand(state).momenta, atol=1e-14)


def test_bit_exact_run_comes_back_to_the_same_integers():
    state = state_of(ALLOY)
    lattice = al.LatticeMap(random_map("discrete s=2", state))
    start = lattice.enter(state)
    back = lattice.step(lattice.step(start, 30).flip(), 30).flip()
    assert torch.equal(back.positions, start.positions) and torch.equal(back.momenta, start.momenta)
    free = lattice.leave(lattice.step(start, 5))
    exact = lattice.action.step(state, 5)
    assert (free.positions - exact.positions).abs().max() < 1e-9


def test_bit_exact_run_notices_an_explosion():
    with pytest.raises(NonFinite, match="smaller step"):
        al.LatticeMap(al.DiscreteAction([Quadratic(-1e3)], step_fs=50.0)).step(
            al.LatticeMap(al.DiscreteAction([Quadratic(1.0)], step_fs=50.0)).enter(oscillator()), 50
        )


def test_displacement_that_cannot_be_inverted_is_loud():
    h = 10.0 * FEMTOSECOND
    inner = al.DiscreteAction([Quadratic(0.0)], step_fs=10.0)
    folded = al.ProcessedAction(inner, al.Displacement(Quadratic(-1.5 / h**2), step_fs=10.0))
    with pytest.raises(NotConverged, match="not invertible"):
        folded.step(oscillator())


def test_processing_is_passed_only_at_the_ends_of_a_run():
    step = random_map("processed s=1", state_of(MOLECULE))
    state = step.step(state_of(MOLECULE))
    calls = []
    step.displacement.enter = lambda s: calls.append(s)  # type: ignore[method-assign]
    step.step(state, 2)
    assert not calls


@pytest.mark.parametrize(("count", "stages"), [(1, 2), (2, 4), (3, None), (1, 0)])
def test_number_of_potentials_must_fit_the_stages(count, stages):
    with pytest.raises(InvalidInput, match="stages"):
        al.DiscreteAction([Quadratic(1.0)] * count, step_fs=1.0, stages=stages)


def test_steps_must_be_positive():
    with pytest.raises(InvalidInput, match="positive"):
        al.DiscreteAction([Quadratic(1.0)], step_fs=0.0)


def test_unknown_species_are_refused():
    net = network(state_of(MOLECULE))
    with pytest.raises(UnsupportedSystem, match=r"\[29, 79\]"):
        net.energy(state_of(ALLOY))


def test_gradients_of_parameters_pass_through_the_processed_map():
    state = state_of(MOLECULE)
    net = network(state).requires_grad_(True)
    inner = al.DiscreteAction([net.head(1, 0)], step_fs=1.0)
    step = al.ProcessedAction(inner, al.Displacement(net.head(0, 0.5), step_fs=1.0))

    def loss():
        after = step(state)
        step.forget()
        return (after.positions * 1e2).square().mean() + after.momenta.square().mean()

    weight = net.readout.weight
    (gradient,) = torch.autograd.grad(loss(), weight)
    direction = torch.randn_like(weight)
    eps = 1e-4
    with torch.no_grad():
        weight += eps * direction
        plus = loss()
        weight -= 2 * eps * direction
        minus = loss()
    assert ((plus - minus) / (2 * eps)).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-5)


def test_forces_from_energy_follow_an_energy_without_positions():
    state = oscillator()
    assert torch.equal(forces_from_energy(lambda s: s.masses.sum(0, keepdim=True), state), torch.zeros(1, 1).double())
