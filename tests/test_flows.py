import math

import pytest
import torch

from actionlearn import PhaseState, Verlet, reversal_error, symplectic_defect
from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.flows import harmonic_flow, kepler_flow, morse_flow, reference_flow, reference_flow_with_action
from actionlearn.potentials import (
    FIGURE_EIGHT_PERIOD,
    GravitationalThreeBody,
    Harmonic,
    HenonHeiles,
    Kepler,
    Morse,
    figure_eight,
    henon_heiles_state,
    kepler_period,
    kepler_state,
    morse_state,
)
from actionlearn.units import FEMTOSECOND


def close(one, other, tolerance=1e-10):
    torch.testing.assert_close(one.positions, other.positions, rtol=0, atol=tolerance)
    torch.testing.assert_close(one.momenta, other.momenta, rtol=0, atol=tolerance)


def harmonic_case():
    a = torch.randn(6, 6, dtype=torch.float64)
    potential = Harmonic(a @ a.T, torch.randn(2, 3, dtype=torch.float64))
    state = PhaseState(
        torch.randn(6, 3).double(),
        torch.randn(6, 3).double(),
        1.0 + torch.rand(6).double(),
        system=torch.tensor([0, 0, 1, 1, 2, 2]),
    )
    return potential, state


def flows():
    """Each closed form with its potential, and a batch to try it on."""
    torch.manual_seed(2)
    morse, kepler = Morse(1.3, 0.8, 0.5), Kepler(2.0)
    orbit = kepler_flow(kepler, 0.7)(kepler_state(kepler, torch.tensor([0.0, 0.4, 0.9]), 1.2, mass=1.5, dims=3))
    return {
        "harmonic": (harmonic_flow, *harmonic_case()),
        "morse": (morse_flow, morse, morse_state(morse, torch.tensor([0.01, 0.5, 0.9]), 1.0, mass=2.0)),
        "kepler": (kepler_flow, kepler, orbit),
    }


@pytest.fixture(params=["harmonic", "morse", "kepler"])
def case(request):
    return flows()[request.param]


@pytest.mark.parametrize("time", [3.1, -1.7])
def test_closed_forms_agree_with_the_reference_flow(case, time):
    flow, potential, state = case
    close(flow(potential, time)(state), reference_flow(potential, time, 1e-13)(state), 1e-9)


def test_closed_forms_are_groups_and_keep_the_structure(case):
    flow, potential, state = case
    whole = flow(potential, 2.0)
    close(flow(potential, 1.2)(flow(potential, 0.8)(state)), whole(state))
    assert symplectic_defect(whole, state) < 1e-9
    assert reversal_error(whole, state, n=3) < 1e-9
    before, after = (potential.energy(s) + s.kinetic_energy() for s in (state, whole(state)))
    torch.testing.assert_close(before, after, rtol=1e-11, atol=1e-12)


def test_harmonic_flow_is_a_rotation():
    omega = torch.tensor([0.5, 2.0], dtype=torch.float64)
    q, p = torch.tensor([1.0, 0.5]).double(), torch.tensor([0.3, -2.0]).double()
    state = PhaseState(q.unsqueeze(1), p.unsqueeze(1), torch.ones(2).double())
    after = harmonic_flow(Harmonic.from_frequencies(omega), 0.9)(state)
    cos, sin = torch.cos(0.9 * omega), torch.sin(0.9 * omega)
    torch.testing.assert_close(after.positions[:, 0], cos * q + sin / omega * p)
    torch.testing.assert_close(after.momenta[:, 0], cos * p - omega * sin * q)


def test_harmonic_flow_with_free_and_falling_modes():
    potential = Harmonic(torch.diag(torch.tensor([1.0, 0.0, -0.5], dtype=torch.float64)))
    state = PhaseState(torch.ones(1, 3).double(), torch.ones(1, 3).double(), torch.full((1,), 2.0).double())
    close(harmonic_flow(potential, 1.3)(state), reference_flow(potential, 1.3)(state))


def test_kepler_orbits_close_after_a_period():
    potential = Kepler(2.0)
    state = kepler_state(potential, torch.tensor([0.1, 0.7]), semi_major_axis=1.3, mass=0.6)
    period = kepler_period(potential, semi_major_axis=1.3, mass=0.6)
    close(kepler_flow(potential, 5 * period)(state), state, 1e-9)
    close(reference_flow(potential, period, 1e-13)(state), state, 1e-8)
    half = kepler_flow(potential, 0.5 * period)(state)
    torch.testing.assert_close(half.positions[:, 0], -1.3 * torch.tensor([1.1, 1.7], dtype=torch.float64))


def test_morse_oscillates_with_its_frequency():
    potential, f, mass = Morse(1.3, 0.8, 0.5), 0.4, 2.0
    period = 2 * math.pi / (0.8 * math.sqrt(2 * 1.3 * (1 - f) / mass))
    start = morse_state(potential, f, 0.3, mass)
    close(morse_flow(potential, period)(start), start)
    close(morse_flow(potential, 0.25 * period)(start), morse_state(potential, f, 0.3 + 0.5 * math.pi, mass))


def test_three_bodies_return_after_the_figure_eight():
    state, potential = figure_eight(), GravitationalThreeBody()
    close(reference_flow(potential, FIGURE_EIGHT_PERIOD)(state), state, 1e-9)
    third = reference_flow(potential, FIGURE_EIGHT_PERIOD / 3)(state)
    assert (third.positions - state.positions).abs().max() > 0.1
    torch.testing.assert_close(third.positions, state.positions[[2, 0, 1]], rtol=0, atol=1e-9)


def test_henon_heiles_keeps_its_energy():
    potential = HenonHeiles()
    state = henon_heiles_state(potential, 0.125, y=torch.tensor([0.1, -0.2]))
    after = reference_flow(potential, 20.0)(state)
    torch.testing.assert_close(potential.energy(after) + after.kinetic_energy(), torch.full((2,), 0.125).double())


def test_reference_flow_is_symplectic_to_its_tolerance_and_differentiable():
    potential = HenonHeiles()
    state = henon_heiles_state(potential, 0.1, y=0.1)
    assert symplectic_defect(reference_flow(potential, 1.0), state) < 1e-9
    assert symplectic_defect(reference_flow(potential, 1.0, 1e-3), state) > 1e-9


def test_action_of_a_harmonic_oscillator():
    """Over a time t from (q, p): A = (p²/m − mω²q²)·sin 2ωt/4ω − qp·sin² ωt."""
    omega, t, m = 1.7, 0.6, 2.0
    potential = Harmonic.from_frequencies(torch.tensor([omega], dtype=torch.float64), masses=m)
    q, p = torch.tensor([0.7, -0.2]).double(), torch.tensor([0.4, 1.1]).double()
    state = PhaseState(q.unsqueeze(1), p.unsqueeze(1), torch.full((2,), m).double(), system=torch.arange(2))
    after, action = reference_flow_with_action(potential, t)(state)
    close(after, harmonic_flow(potential, t)(state))
    sin2 = math.sin(omega * t) ** 2
    exact = (p**2 / m - m * omega**2 * q**2) * math.sin(2 * omega * t) / (4 * omega) - q * p * sin2
    torch.testing.assert_close(action, exact)


def test_action_generates_the_flow():
    """The action's gradient is dA = p'·dq' − p·dq at fixed time."""
    potential = HenonHeiles()
    start = henon_heiles_state(potential, 0.1, y=0.1)
    q, p = start.positions.clone().requires_grad_(), start.momenta.clone().requires_grad_()
    after, action = reference_flow_with_action(potential, 1.5)(start.moved(q, p))
    by_action = torch.autograd.grad(action.sum(), (q, p), retain_graph=True)
    by_ends = torch.autograd.grad((after.momenta.detach() * after.positions).sum(), (q, p))
    torch.testing.assert_close(by_action[0], by_ends[0] - p, rtol=0, atol=1e-9)
    torch.testing.assert_close(by_action[1], by_ends[1], rtol=0, atol=1e-9)


def test_reference_flow_leaves_fixed_atoms():
    potential = Harmonic(torch.eye(2, dtype=torch.float64))
    state = PhaseState(
        torch.ones(2, 1).double(), torch.ones(2, 1).double(), torch.ones(2).double(), fixed=torch.tensor([True, False])
    )
    after = reference_flow(potential, 1.0)(state)
    assert after.positions[0] == 1.0 and after.momenta[0] == 1.0 and after.positions[1] != 1.0
    assert reference_flow(potential, 0.0)(state) is state
    with pytest.raises(UnsupportedSystem, match="no fixed atoms"):
        harmonic_flow(potential, 1.0)(state)


def test_verlet_is_not_the_flow():
    morse, state = flows()["morse"][1:]
    step_fs = 3.0
    step = Verlet(morse, step_fs=step_fs)
    exact = morse_flow(morse, step_fs * FEMTOSECOND)
    assert 1e-6 < (step(state).positions - exact(state).positions).abs().max() < 1e-2


def test_errors():
    with pytest.raises(UnsupportedSystem, match="bound states"):
        morse_flow(Morse(), 1.0)(PhaseState(torch.zeros(1, 1), torch.full((1, 1), 2.0), torch.ones(1)))
    with pytest.raises(UnsupportedSystem, match="one atom per system"):
        morse_flow(Morse(), 1.0)(PhaseState(torch.randn(2, 3), torch.zeros(2, 3), torch.ones(2)))
    with pytest.raises(UnsupportedSystem, match="bound orbits"):
        kepler_flow(Kepler(), 1.0)(PhaseState(torch.ones(1, 2), torch.full((1, 2), 2.0), torch.ones(1)))
    with pytest.raises(InvalidInput, match="needs float64"):
        reference_flow(Kepler(), 1.0)(PhaseState(torch.ones(1, 2), torch.zeros(1, 2), torch.ones(1)))
    with pytest.raises(InvalidInput, match="positive tolerance"):
        reference_flow(Kepler(), 1.0, 0.0)(kepler_state(Kepler(), 0.1))
