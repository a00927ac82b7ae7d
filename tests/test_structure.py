import numpy as np
import pytest
import torch
from ase import units as ase_units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.md.verlet import VelocityVerlet
from test_schemes import Toy, harmonic, natural, orbit

from actionlearn import (
    PhaseState,
    Verlet,
    angular_momentum_drift,
    as_step,
    estimate_symplectic_defect,
    momentum_drift,
    reversal_error,
    step_jacobian,
    symplectic_defect,
)
from actionlearn.errors import InvalidInput
from actionlearn.potentials import HenonHeiles, Kepler, kepler_state
from actionlearn.structure import momentum_reversal_error, symplectic_form


def pair_energy(q):
    """Every pair by a soft anharmonic spring: invariant to translations and rotations."""
    d = (q[:, None] - q[None]).pow(2).sum(-1)
    return (0.05 * (d - 2.0) ** 2 + 0.01 * (d - 2.0) ** 3).sum(1) / 2 / len(q)


def cluster(n=6, seed=0, fixed=None):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    masses = 1.0 + 20.0 * torch.rand(n, generator=g, dtype=torch.float64)
    return PhaseState(
        positions=draw(n, 3), momenta=0.3 * draw(n, 3) * masses[:, None] ** 0.5, masses=masses, fixed=fixed
    )


VERLET = Verlet(Toy(pair_energy), step_fs=natural(0.4))


def euler(state, h=0.4):
    force = Toy(pair_energy).forces(state)
    return state.moved(state.drift(h).positions, state.kick(h * force).momenta)


def rescaled(state):
    """Verlet, then all momenta scaled back to the energy of the start."""
    after, energy = VERLET(state), Toy(pair_energy).energy
    wanted = state.kinetic_energy() + energy(state) - energy(after)
    return after.moved(after.positions, after.momenta * (wanted / after.kinetic_energy()).sqrt())


def unequal(state):
    """Verlet with one half of the map one per mille too large."""
    after = VERLET(state)
    return after.moved(after.positions, state.momenta + 1.001 * (after.momenta - state.momenta))


def blind(state):
    """Verlet on forces whose derivative is cut off."""
    return Verlet(Toy(pair_energy, differentiable=False), step_fs=natural(0.4))(state)


def test_verlet_passes_and_the_others_fail_by_orders_of_magnitude():
    state = cluster()
    assert symplectic_defect(VERLET, state) < 1e-12
    assert estimate_symplectic_defect(VERLET, state) < 1e-12
    for wrong in (euler, rescaled, unequal):
        assert symplectic_defect(wrong, state) > 1e-5
        assert estimate_symplectic_defect(wrong, state) > 1e-6


def test_reversal_separates_right_from_wrong():
    state = cluster()
    assert reversal_error(VERLET, state) < 1e-12 and momentum_reversal_error(VERLET, state) < 1e-11
    for wrong in (euler, unequal):
        assert reversal_error(wrong, state) > 1e-5 and momentum_reversal_error(wrong, state) > 1e-5


def test_jacobian_of_a_harmonic_step_is_exact():
    h, m = 0.3, 2.5
    M = step_jacobian(Verlet(Toy(harmonic), step_fs=natural(h)), orbit(mass=m))
    a = 1 - h**2 / (2 * m)
    block = torch.tensor([[a, h / m], [-h * (1 - h**2 / (4 * m)), a]], dtype=torch.float64)
    torch.testing.assert_close(M, torch.kron(block, torch.eye(2, dtype=torch.float64)), rtol=1e-14, atol=1e-14)


def test_differences_agree_with_reverse_mode():
    state = cluster()
    exact = step_jacobian(VERLET, state, method="reverse")
    assert (step_jacobian(VERLET, state, method="differences") - exact).abs().max() < 1e-8
    assert symplectic_defect(VERLET, state, method="differences") < 1e-8


def test_steps_in_numpy_are_taken_by_differences():
    def numpy_verlet(state):
        q, p = (torch.as_tensor(x.numpy().copy()) for x in (state.positions, state.momenta))
        return VERLET(state.moved(q, p))

    assert symplectic_defect(numpy_verlet, cluster()) < 1e-8


def test_single_precision_is_measured_as_it_is():
    assert 1e-9 < symplectic_defect(VERLET, cluster().to(torch.float32)) < 1e-5


def test_a_cut_graph_is_found_out():
    state = cluster()
    exact = step_jacobian(VERLET, state)
    assert (step_jacobian(blind, state) - exact).abs().max() < 1e-8
    with pytest.raises(InvalidInput, match='method="differences"'):
        step_jacobian(blind, state, method="reverse")
    with pytest.raises(InvalidInput, match='method="differences"'):
        step_jacobian(lambda s: VERLET(s).detach(), state, method="reverse")


@pytest.mark.parametrize("method", ["reverse", "differences"])
def test_the_estimate_is_that_of_the_full_matrix(method):
    state = cluster(8)
    s = torch.cat([state.masses.repeat_interleave(3) ** 0.5, state.masses.repeat_interleave(3) ** -0.5])
    for wrong in (euler, rescaled, unequal):
        M = s[:, None] * step_jacobian(wrong, state) / s
        D = M.T @ symplectic_form(M) @ M - symplectic_form(M)
        full = float(D.norm() / len(s) ** 0.5)
        assert estimate_symplectic_defect(wrong, state, directions=48, method=method) == pytest.approx(full, rel=0.15)
        assert D.abs().max().item() == pytest.approx(symplectic_defect(wrong, state), rel=1e-9)


def test_only_atoms_that_move_count():
    fixed = torch.tensor([True, False, False, True, False])
    state = cluster(5, fixed=fixed)
    assert step_jacobian(VERLET, state).shape == (18, 18)
    assert symplectic_defect(VERLET, state) < 1e-12
    assert symplectic_defect(VERLET, state, method="differences") < 1e-8
    assert symplectic_defect(lambda s: euler(s).moved(euler(s).positions, euler(s).momenta), state) > 1e-5


def test_a_batch_of_systems_is_one_step():
    batch = PhaseState.batch([orbit(), orbit(mass=4.0)])
    step = Verlet(HenonHeiles(), step_fs=natural(0.2))
    assert symplectic_defect(step, batch) < 1e-13 and momentum_drift(step, batch, 3) > 1e-3


def test_momenta_are_conserved_by_a_free_cluster_alone():
    state = cluster()
    assert momentum_drift(VERLET, state, 50) < 1e-14 and angular_momentum_drift(VERLET, state, 50) < 1e-13
    assert angular_momentum_drift(euler, state, 50) > 1e-4
    planet = Verlet(Kepler(), step_fs=natural(0.05))
    assert angular_momentum_drift(planet, kepler_state(Kepler(), 0.3), 100) < 1e-13
    flat = Verlet(HenonHeiles(), step_fs=natural(0.2))
    assert angular_momentum_drift(flat, orbit(), 20) > 1e-2


def test_questions_without_an_answer_are_refused():
    state = cluster()
    still = state.moved(state.positions, torch.zeros_like(state.momenta))
    with pytest.raises(InvalidInput, match="give it some motion"):
        momentum_drift(VERLET, still)
    periodic = PhaseState(
        positions=state.positions, momenta=state.momenta, masses=state.masses, cell=10 * torch.eye(3).double(), pbc=True
    )
    with pytest.raises(InvalidInput, match="periodic"):
        angular_momentum_drift(VERLET, periodic)
    with pytest.raises(InvalidInput, match="at least 2, not 1"):
        estimate_symplectic_defect(VERLET, state, directions=1)


def ase_dynamics(fixed=()):
    atoms = bulk("Cu", cubic=True)
    atoms.numbers[0] = 79
    atoms.set_masses("defaults")
    atoms.calc = EMT()
    atoms.rattle(0.1, seed=1)
    atoms.set_momenta(np.random.default_rng(0).normal(scale=2.0, size=(4, 3)))
    atoms.set_constraint(FixAtoms(list(fixed)))
    return VelocityVerlet(atoms, timestep=5 * ase_units.fs)


@pytest.mark.parametrize("fixed", [(), (1,)])
def test_the_verlet_of_ase_passes_through_the_wrapper(fixed):
    dynamics = ase_dynamics(fixed)
    step, state = as_step(dynamics), PhaseState.from_atoms(dynamics.atoms)
    assert symplectic_defect(step, state) < 1e-8  # what differences can tell
    assert estimate_symplectic_defect(step, state, directions=4) < 1e-8
    assert reversal_error(step, state) < 1e-12

    def warmed(s):
        after = step(s)
        return after.moved(after.positions, 1.0001 * after.momenta)

    assert symplectic_defect(warmed, state) > 1e-5 and reversal_error(warmed, state) > 1e-5


def test_the_wrapper_wants_the_atoms_of_its_dynamics():
    with pytest.raises(InvalidInput, match="AuCu3|Cu3Au"):
        as_step(ase_dynamics())(cluster())
