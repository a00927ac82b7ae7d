"""The clock of a map: exact where it is known, and blind to errors that do not drive the motion."""

import math

import pytest
from harmonic_stretches import STEP_FS, Spring, exact_discrete, stretch

import actionlearn as al
from actionlearn.clock import clock_error
from actionlearn.errors import InvalidInput
from actionlearn.units import FEMTOSECOND

THETA = 0.3
STRETCHES = [stretch(THETA, n_frames=201, n_atoms=100, seed=seed) for seed in range(4)]


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_the_shift_of_verlet(fraction):
    verlet = al.Verlet(Spring((THETA / (STEP_FS * FEMTOSECOND)) ** 2), step_fs=fraction * STEP_FS)
    found = clock_error(verlet, STRETCHES, step_fs=fraction * STEP_FS, steps=50)
    turn = fraction * THETA
    shift = 2.0 / turn * math.asin(turn / 2.0) - 1.0
    assert shift == pytest.approx(turn**2 / 24.0, rel=0.02)
    assert found.value == pytest.approx(shift, rel=0.06) and found.error < 0.03 * shift
    assert found.windows == 4 / fraction


@pytest.mark.parametrize("slow", [0.99, 1.0, 1.01])
def test_a_map_that_is_exact_for_another_frequency(slow):
    found = clock_error(exact_discrete(slow * THETA), STRETCHES, step_fs=STEP_FS)
    assert found.value == pytest.approx(slow - 1.0, abs=1e-3)


def test_windows_follow_each_other_and_one_stretch_is_halved():
    exact = exact_discrete(THETA)
    assert clock_error(exact, STRETCHES[:1], step_fs=STEP_FS, steps=50).windows == 2
    assert clock_error(exact, STRETCHES, step_fs=STEP_FS, steps=10).windows == 20
    assert clock_error(exact, STRETCHES, step_fs=STEP_FS, steps=10, windows=3).windows == 12
    with pytest.raises(InvalidInput, match="a single window has no spread"):
        clock_error(exact, STRETCHES[:1], step_fs=STEP_FS, windows=1)
