import functools

import numpy as np
import pytest
import torch

from actionlearn import PhaseState, Splitting, Verlet, reversal_error, symplectic_defect
from actionlearn.errors import InvalidInput, NonFinite, UnsupportedSystem
from actionlearn.potentials import HenonHeiles, forces_from_energy
from actionlearn.schemes import (
    BLANES_MOAN_4,
    CHIN_4A,
    MCLACHLAN_4,
    PUBLISHED,
    TAKAHASHI_IMADA,
    VELOCITY_VERLET,
    YOSHIDA_4,
    YOSHIDA_6,
    Scheme,
    respa,
)
from actionlearn.units import FEMTOSECOND


class Toy:
    """A potential from a function of the positions, with or without derivatives of its forces."""

    def __init__(self, energy_of, differentiable=True):
        self.energy_of, self.differentiable = energy_of, differentiable

    def energy(self, state):
        return state.sum_by_system(self.energy_of(state.positions))

    def forces(self, state):
        forces = forces_from_energy(self.energy, state)
        return forces if self.differentiable else forces.detach()


class Counted:
    """A potential that counts how often its forces are asked for."""

    def __init__(self, potential):
        self.potential, self.calls = potential, 0

    def forces(self, state):
        self.calls += 1
        return self.potential.forces(state)


def harmonic(q):
    return 0.5 * (q**2).sum(1)


def orbit(mass=1.0):
    return PhaseState(
        positions=torch.tensor([[0.12, 0.10]], dtype=torch.float64),
        momenta=torch.tensor([[0.30, -0.20]], dtype=torch.float64),
        masses=torch.tensor([mass], dtype=torch.float64),
    )


def natural(step):
    """A step in natural units as femtoseconds."""
    return step / FEMTOSECOND


def flat(state):
    return torch.cat([state.positions, state.momenta]).flatten()


@functools.cache
def exact_orbit(time):
    """The end of the orbit to about 1e-13."""
    return flat(Splitting(HenonHeiles(), YOSHIDA_6, natural(time / 300)).step(orbit(), 300))


def fitted_order(step_of, counts, time=4.0):
    at_end = [flat(step_of(natural(time / n)).step(orbit(), n)) for n in counts]
    errors = [float((end - exact_orbit(time)).abs().max()) for end in at_end]
    return np.polyfit(np.log(time / np.array(counts)), np.log(errors), 1)[0]


@pytest.mark.parametrize("scheme", PUBLISHED, ids=lambda s: s.name)
def test_orders_on_henon_heiles(scheme):
    counts = {2: (40, 60, 90), 4: (20, 30, 45), 6: (24, 36, 54)}[scheme.order]
    slope = fitted_order(lambda h: Splitting(HenonHeiles(), scheme, h), counts)
    assert slope == pytest.approx(scheme.order, abs=0.1)


@pytest.mark.parametrize("scheme", PUBLISHED, ids=lambda s: s.name)
def test_every_scheme_is_symplectic_and_reversible(scheme):
    step = Splitting(HenonHeiles(), scheme, natural(0.3))
    assert symplectic_defect(step, orbit(mass=3.0)) < 1e-11
    assert reversal_error(step, orbit(mass=3.0)) < 1e-12


def test_respa_is_second_order_in_both_parts_and_counts_its_forces():
    slow, fast = Counted(Toy(lambda q: q[:, 0] ** 2 * q[:, 1] - q[:, 1] ** 3 / 3)), Counted(Toy(harmonic))
    split = lambda h: Splitting({"S": slow, "F": fast}, respa(4), h)  # noqa: E731
    assert fitted_order(split, (40, 60, 90)) == pytest.approx(2, abs=0.1)
    assert symplectic_defect(split(natural(0.3)), orbit()) < 1e-11
    step = split(natural(0.1))
    slow.calls = fast.calls = 0
    step.step(orbit(), 10)
    assert (slow.calls, fast.calls) == (11, 41) and step.stages == 5


def test_weights_of_the_composed_schemes_cancel_the_third_powers():
    for scheme in (YOSHIDA_4, YOSHIDA_6):
        w = np.array([move.fraction for move in scheme.moves if move.letter == "R"])
        assert abs((w**3).sum()) < 1e-14
        if scheme.order == 6:
            mid = np.cumsum(w) - w / 2
            assert abs((w**5).sum()) < 1e-13 and abs((w**3 * mid**2).sum()) < 1e-14


def test_takahashi_imada_has_the_frequency_to_fourth_order():
    counts = np.array([10, 20, 40])
    errors = []
    for h in 1.0 / counts:
        one = lambda q, p, h=h: Splitting(Toy(harmonic), TAKAHASHI_IMADA, natural(h))(  # noqa: E731
            PhaseState(
                positions=torch.full((1, 1), q, dtype=torch.float64),
                momenta=torch.full((1, 1), p, dtype=torch.float64),
                masses=torch.ones(1, dtype=torch.float64),
            )
        )
        trace = one(1.0, 0.0).positions.item() + one(0.0, 1.0).momenta.item()
        errors.append(abs(np.arccos(trace / 2) / h - 1))
    assert np.polyfit(np.log(1.0 / counts), np.log(errors), 1)[0] == pytest.approx(4, abs=0.1)


def test_verlet_is_kick_drift_kick():
    h, state = 0.2, orbit(mass=2.0)
    force = lambda q: HenonHeiles().forces(orbit().moved(q, q))  # noqa: E731
    p = state.momenta + h / 2 * force(state.positions)
    q = state.positions + h * p / 2.0
    p = p + h / 2 * force(q)
    after = Verlet(HenonHeiles(), step_fs=natural(h)).step(state)
    torch.testing.assert_close(after.positions, q, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(after.momenta, p, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("scheme", "stages"),
    [(VELOCITY_VERLET, 1), (YOSHIDA_4, 3), (YOSHIDA_6, 7), (MCLACHLAN_4, 5), (BLANES_MOAN_4, 6), (CHIN_4A, 2)],
    ids=lambda s: getattr(s, "name", s),
)
def test_forces_are_reused_within_and_across_calls(scheme, stages):
    potential = Counted(HenonHeiles())
    step = Splitting(potential, scheme, natural(0.1))
    state = step.step(orbit(), 3)
    state = step(step(state))
    shared = 1 if scheme.moves[0].letter == "V" else 0
    assert step.stages == stages and potential.calls == 5 * stages + shared


def test_forces_are_not_reused_where_they_could_be_stale():
    step = Verlet(HenonHeiles(), step_fs=natural(0.1))
    start = orbit()
    step(start)
    start.positions.mul_(2.0)  # the same tensor, written in place
    fresh = Verlet(HenonHeiles(), step_fs=natural(0.1))
    assert torch.equal(step(start).momenta, fresh(start).momenta)

    class Spring(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.k = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

        def energy(self, state):
            return self.k * state.sum_by_system(harmonic(state.positions))

        def forces(self, state):
            return forces_from_energy(self.energy, state)

    spring, start = Spring(), orbit()
    step = Verlet(spring, step_fs=natural(0.1))
    before = step(start)
    with torch.no_grad():
        spring.k.mul_(3.0)
    assert not torch.allclose(step(start).momenta, before.momenta)


def test_a_graph_is_recorded_only_when_asked_for():
    step = Splitting(HenonHeiles(), CHIN_4A, natural(0.1))
    after = step(orbit())
    assert not after.positions.requires_grad and not after.momenta.requires_grad
    with torch.inference_mode():
        assert not Verlet(HenonHeiles(), step_fs=1.0).step(orbit(), 2).positions.requires_grad
    start = orbit()
    start.positions.requires_grad_()
    after = step.step(start, 2)
    (gradient,) = torch.autograd.grad(after.positions.sum(), start.positions)
    for _ in range(2):  # a second graph of the same positions, after the first is gone
        (again,) = torch.autograd.grad(step.step(start, 2).positions.sum(), start.positions)
        assert torch.equal(gradient, again)


def test_fixed_atoms_stay_under_force_gradients():
    two = PhaseState(
        positions=torch.tensor([[0.1, 0.2], [0.3, 0.1]], dtype=torch.float64),
        momenta=torch.tensor([[0.0, 0.0], [0.1, 0.1]], dtype=torch.float64),
        masses=torch.ones(2, dtype=torch.float64),
        fixed=torch.tensor([True, False]),
    )
    pair = Toy(lambda q: ((q - q.flip(0)) ** 2).sum(1) ** 2)
    step = Splitting(pair, CHIN_4A, natural(0.2))
    assert torch.equal(step.step(two, 5).positions[0], two.positions[0])
    assert symplectic_defect(step, two) < 1e-12


def test_words_say_what_a_scheme_does():
    assert Scheme.parse("V R V", order=2, source="").moves == VELOCITY_VERLET.moves
    scheme = Scheme.parse("V:1/6 R V:2/3 R V", order=2, source="")
    assert [move.fraction for move in scheme.moves] == pytest.approx([1 / 6, 1 / 2, 2 / 3, 1 / 2, 1 / 6])
    assert str(VELOCITY_VERLET) == "V:0.5 R:1 V:0.5" and "h²G" in str(CHIN_4A)


@pytest.mark.parametrize(
    ("words", "message"),
    [("V:0.4 R V:0.5", "fractions of V add up to 0.9"), ("V:x R", "'x' is not a fraction"), ("V 3", "'3' in 'V 3'")],
)
def test_bad_words_are_refused(words, message):
    with pytest.raises(InvalidInput, match=message):
        Scheme.parse(words, order=1, source="")


def test_bad_input_is_refused():
    with pytest.raises(InvalidInput, match="step_fs must be a positive number of femtoseconds, not -1.0"):
        Verlet(Toy(harmonic), step_fs=-1.0)
    with pytest.raises(InvalidInput, match="one potential for each"):
        Splitting(Toy(harmonic), respa(2), 1.0)
    with pytest.raises(InvalidInput, match="at least one inner step"):
        respa(0)
    with pytest.raises(UnsupportedSystem, match="without derivatives"):
        Splitting(Toy(harmonic, differentiable=False), CHIN_4A, 1.0)(orbit())
    with pytest.raises(NonFinite, match="shorten the step"):
        Verlet(Toy(lambda q: -(q**6).sum(1)), step_fs=natural(5.0)).step(orbit(), 20)
