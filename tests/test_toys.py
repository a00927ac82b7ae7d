import pytest
import torch

from actionlearn import PhaseState
from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.potentials import (
    DoubleWell,
    GravitationalThreeBody,
    Harmonic,
    HenonHeiles,
    Kepler,
    Morse,
    Potential,
    figure_eight,
    forces_from_energy,
    henon_heiles_state,
    kepler_state,
    morse_state,
)


def particles(n, dims, systems):
    """A batch of systems of n atoms with random masses, spread out."""
    q = torch.randn(systems, n, dims, dtype=torch.float64) * 0.3 + torch.arange(1, n + 1).reshape(1, n, 1)
    atoms = systems * n
    return PhaseState(
        q.reshape(atoms, dims),
        torch.randn(atoms, dims, dtype=torch.float64),
        1.0 + torch.rand(atoms, dtype=torch.float64),
        system=torch.arange(systems).repeat_interleave(n),
    )


def hessian():
    a = torch.randn(6, 6, dtype=torch.float64)
    return a @ a.T


def cases():
    torch.manual_seed(1)
    return {
        "harmonic": (Harmonic(hessian(), torch.randn(2, 3, dtype=torch.float64)), particles(2, 3, 4)),
        "morse": (Morse(1.3, 0.7, 1.1), particles(1, 1, 4)),
        "morse bond": (Morse(1.3, 0.7, 1.1), particles(2, 3, 4)),
        "double well": (DoubleWell(0.4, 0.8), particles(2, 2, 4)),
        "henon-heiles": (HenonHeiles(1.2, 0.7), particles(1, 2, 4)),
        "kepler 2d": (Kepler(2.0), particles(1, 2, 4)),
        "kepler 3d": (Kepler(2.0), particles(2, 3, 4)),
        "three bodies": (GravitationalThreeBody(0.8), particles(3, 3, 4)),
    }


@pytest.fixture(params=list(cases()))
def case(request):
    return cases()[request.param]


def total(potential, state):
    return lambda q: potential.energy(state.moved(q, state.momenta)).sum()


def test_written_forces_are_the_gradient(case):
    potential, state = case
    assert isinstance(potential, Potential)
    torch.testing.assert_close(potential.forces(state), forces_from_energy(potential.energy, state))


def test_derivatives_to_third_order(case):
    potential, state = case
    state = state.select(0)
    q = state.positions.clone().requires_grad_()
    assert torch.autograd.gradcheck(total(potential, state), q)
    assert torch.autograd.gradgradcheck(total(potential, state), q)
    assert torch.autograd.gradgradcheck(lambda q: potential.forces(state.moved(q, state.momenta)), q)


def test_batch_equals_singles(case):
    potential, state = case
    singles = state.unbatch()
    torch.testing.assert_close(potential.energy(state), torch.cat([potential.energy(s) for s in singles]))
    torch.testing.assert_close(potential.forces(state), torch.cat([potential.forces(s) for s in singles]))


def test_harmonic_frequencies():
    omega = torch.tensor([0.5, 2.0], dtype=torch.float64)
    state = PhaseState(torch.ones(2, 1).double(), torch.zeros(2, 1).double(), torch.full((2,), 3.0).double())
    potential = Harmonic.from_frequencies(omega, masses=3.0)
    torch.testing.assert_close(potential.forces(state)[:, 0], -3.0 * omega**2)


def test_morse_state_has_the_energy_it_was_asked_for():
    potential = Morse(1.7, 0.6, 2.0)
    fractions = torch.tensor([0.0, 0.05, 0.5, 0.95])
    state = morse_state(potential, fractions, torch.linspace(0, 6, 4), mass=2.5)
    energy = potential.energy(state) + state.kinetic_energy()
    torch.testing.assert_close(energy, 1.7 * fractions.double())


def test_henon_heiles_energies():
    potential = HenonHeiles()
    saddles = torch.tensor([[0.0, 1.0], [3**0.5 / 2, -0.5], [-(3**0.5) / 2, -0.5]], dtype=torch.float64)
    state = PhaseState(saddles, torch.zeros(3, 2).double(), torch.ones(3).double(), system=torch.arange(3))
    torch.testing.assert_close(potential.energy(state), torch.full((3,), 1 / 6, dtype=torch.float64))
    assert potential.forces(state).abs().max() < 1e-15
    state = henon_heiles_state(potential, 0.125, y=torch.tensor([0.1, -0.2]), momentum_y=0.05)
    torch.testing.assert_close(potential.energy(state) + state.kinetic_energy(), torch.full((2,), 0.125).double())


def test_kepler_and_figure_eight_states():
    potential = Kepler(2.0)
    state = kepler_state(potential, torch.tensor([0.0, 0.9]), semi_major_axis=1.5, mass=3.0, dims=3)
    torch.testing.assert_close(potential.energy(state) + state.kinetic_energy(), torch.full((2,), -2 / 3).double())
    eight = figure_eight()
    assert eight.momenta.sum(0).abs().max() == 0 and eight.positions.sum(0).abs().max() == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Harmonic(torch.ones(2, 3)), "square"),
        (lambda: Harmonic(torch.tensor([[1.0, 2.0], [0.0, 1.0]])), "not symmetric"),
        (lambda: Harmonic(torch.eye(2), torch.zeros(3)), "centre has 3"),
        (lambda: Morse(-1.0), "positive depth"),
        (lambda: DoubleWell(0.0), "positive barrier"),
        (lambda: Kepler(-1.0), "must be positive"),
        (lambda: morse_state(Morse(), 1.2), "0 ≤ E/D < 1, got 1.2"),
        (lambda: kepler_state(Kepler(), 1.0), "eccentricity < 1"),
        (lambda: henon_heiles_state(HenonHeiles(), 0.1, y=1.0), "is not enough"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()


@pytest.mark.parametrize(
    ("potential", "message"),
    [
        (Harmonic(torch.eye(3)), "systems of 3 coordinates each"),
        (Morse(), "one atom in one dimension or two atoms"),
        (HenonHeiles(), "lives in 2 dimensions"),
        (Kepler(), "2 or 3 dimensions"),
        (GravitationalThreeBody(), "3 bodies per system"),
    ],
)
def test_wrong_systems(potential, message):
    with pytest.raises(UnsupportedSystem, match=message):
        potential.energy(particles(4, 1, 2))
