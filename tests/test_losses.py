"""Losses vanish on exact maps and on nothing else; data sets cut, split and batch stretches."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from harmonic_stretches import MASSES, STEP_FS, Spring, exact_discrete, exact_processed, stretch

import actionlearn as al
from actionlearn.dataset import Dataset
from actionlearn.errors import DataError, InvalidInput
from actionlearn.losses import (
    action_residual,
    force_loss,
    map_loss,
    midpoint_residuals,
    processed_residuals,
    rough_momenta,
    step_errors,
    stretched,
    unrolled_residuals,
)
from actionlearn.units import FEMTOSECOND


def harmonic(theta=1.5, length=2, **options):
    return Dataset([stretch(theta, seed=k, **options) for k in range(4)], step_fs=STEP_FS, length=length)


@pytest.mark.parametrize("theta", [0.5, 1.5, 2.5])
def test_losses_of_exact_maps_vanish(theta):
    windows = harmonic(theta).windows([0, 3, 7])
    assert map_loss(exact_discrete(theta), windows) < 1e-20
    windows = harmonic(theta, length=4, n_frames=20).windows([0, 3, 7])
    assert map_loss(exact_processed(theta), windows) < 1e-18
    assert map_loss(exact_discrete(theta), windows) < 1e-20  # three steps unrolled


def test_losses_of_wrong_maps_do_not_vanish():
    windows = harmonic(1.5).windows(range(8))
    assert map_loss(exact_discrete(1.4), windows) > 1e-4
    free_flight = al.DiscreteAction([Spring(0.0)], step_fs=STEP_FS)
    assert map_loss(free_flight, windows) == pytest.approx(1.0, rel=0.5)


def exact_midpoint(theta):
    """S = (2/ω)·tan(ωh/2)·H."""
    h = STEP_FS * FEMTOSECOND
    ratio = math.tan(0.5 * theta) / (0.5 * theta)

    def scalar(state):
        spring = ratio * Spring((theta / h) ** 2).energy(state)
        return spring + (ratio - 1.0) * state.kinetic_energy()

    return al.MidpointAction(scalar, step_fs=STEP_FS)


class Offset(Spring):
    """A spring of another zero of energy for each element."""

    def energy(self, state):
        return super().energy(state) + state.sum_by_system(0.3 * state.numbers.to(torch.float64))


def action_residuals(model, windows):
    """r_A of every step and system."""
    residuals = {"processed": processed_residuals, "midpoint": midpoint_residuals}.get(model.kind, unrolled_residuals)
    return action_residual(torch.stack(residuals(model, windows, True)[2]), windows, STEP_FS)


@pytest.mark.parametrize("theta", [0.5, 1.5, 2.5])
@pytest.mark.parametrize("exact", [exact_discrete, exact_processed, exact_midpoint])
def test_exact_maps_have_the_recorded_action(exact, theta):
    windows = harmonic(theta, length=4, n_frames=20).windows([0, 3, 7])
    residual = action_residuals(exact(theta), windows)
    assert residual.shape[1] == 3 and residual.abs().max() < 1e-9
    assert map_loss(exact(theta), windows, action=1.0) < 1e-18
    shifted = dataclasses.replace(windows, action=windows.action + 17.0)  # as another zero of energy would
    assert action_residuals(exact(theta), shifted).abs().max() < 1e-9
    wrong = dataclasses.replace(windows, action=windows.action * torch.tensor([1.0, 1.0, 1.1]))
    assert action_residuals(exact(theta), wrong).abs().max() > 1e-3


def test_maps_with_another_action_have_values_that_say_so():
    windows = harmonic(1.5, length=4, n_frames=20).windows(range(8))
    for model in (exact_discrete(1.4), exact_midpoint(1.4), exact_processed(1.4)):
        assert action_residuals(model, windows).square().mean().sqrt() > 3e-3
        with torch.no_grad():
            more = float(map_loss(model, windows, action=2.0) - map_loss(model, windows))
        assert more == pytest.approx(float(action_residuals(model, windows).square().mean()), rel=1e-9)


def test_the_action_has_a_free_constant_for_each_composition():
    """Systems of several compositions and sizes in one batch; the zero of energy of an element means nothing."""
    sets = [{29: 63.546}, {79: 196.96657}, MASSES]
    stretches = [stretch(1.5, seed=k, n_atoms=2 + n, masses=m) for n, m in enumerate(sets) for k in range(3)]
    windows = Dataset(stretches, step_fs=STEP_FS).windows(range(0, 72, 3))
    assert len(windows.frames[0].atoms_per_system.unique()) == 3
    h = STEP_FS * FEMTOSECOND
    one, other = (
        al.DiscreteAction([kind((1.5 / h) ** 2 / 6), kind((1.4 / h) ** 2 / 1.5)], step_fs=STEP_FS)
        for kind in (Spring, Offset)
    )
    assert torch.allclose(action_residuals(one, windows), action_residuals(other, windows), rtol=1e-6, atol=1e-9)
    assert action_residuals(one, windows).abs().max() > 1e-2


@pytest.mark.parametrize("processed", [False, True])
def test_gradients_of_values_need_not_pass_through_the_path(processed):
    """S is stationary along the path: the gradient is that of a difference, up to the error of the map."""
    windows = harmonic(1.5, length=4, n_frames=20).windows(range(8))
    h = STEP_FS * FEMTOSECOND

    def loss(k, w):
        k, w = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (k, w))
        if processed:
            inner = al.DiscreteAction([Spring(k / h**2)], step_fs=STEP_FS)
            model = al.ProcessedAction(inner, al.Displacement(Spring(w / h**2), step_fs=STEP_FS))
        else:
            model = al.DiscreteAction([Spring(k / h**2), Spring(w / h**2)], step_fs=STEP_FS)
        return action_residuals(model, windows).square().mean(), (k, w)

    exact = exact_processed(1.5) if processed else exact_discrete(1.5)
    inner = exact.inner if processed else exact
    kicks = [*inner.potentials, *([exact.displacement.potential] if processed else [])]
    k, w = (1.003 * u.k * h**2 for u in kicks)
    value, weights = loss(k, w)
    gradient = torch.autograd.grad(value, weights)
    e = 1e-6
    by_hand = [(loss(k + e, w)[0] - loss(k - e, w)[0]) / (2 * e), (loss(k, w + e)[0] - loss(k, w - e)[0]) / (2 * e)]
    assert torch.allclose(torch.stack(gradient), torch.stack(by_hand), rtol=0.1)


def test_momenta_close_what_positions_leave_open():
    """Any stretching of the variables suits the positions of a harmonic mode; the loss sees a wrong one."""
    windows = harmonic(1.5, length=4, n_frames=20).windows(range(8))
    model = exact_processed(1.5, twist=1.05)
    Q = [state.positions + model.displacement.shift(state) for state in windows.frames]
    h, m = STEP_FS * FEMTOSECOND, windows.frames[0].masses.unsqueeze(1)
    kick = 2.0 * h * model.inner.stage_force(0, windows.frames[1].moved(Q[1], windows.frames[1].momenta))
    assert torch.allclose(m * (Q[2] - 2.0 * Q[1] + Q[0]) / h, kick, rtol=1e-9)
    assert map_loss(model, windows).sqrt() > 0.03


def test_the_processed_loss_measures_the_error_of_the_real_map():
    """P* makes it another number, by the part of a half that displacements make of this mode, not another measure."""
    data = harmonic(1.5, length=4, n_frames=24)
    for twist in (0.98, 1.02):
        model = exact_processed(1.5, twist=twist)
        windows = data.windows(range(len(data)))
        rq, rp, _ = processed_residuals(model, windows)
        state, target = windows.frames[1], windows.frames[2]
        end, goal = model.inner.step(model.displacement.enter(state)), model.displacement.enter(target)
        m, h = state.masses.unsqueeze(1), STEP_FS * FEMTOSECOND
        scale_q, scale_p = (s[state.system].unsqueeze(1) for s in (windows.scale_q, windows.scale_p))
        dq = (m * (end.positions - goal.positions) ** 2 / (h**2 * scale_q)).mean().sqrt()
        dp = ((end.momenta - goal.momenta) ** 2 / (m * scale_p)).mean().sqrt()
        assert min(dq, dp) > 0.01
        assert 0.5 < rq.square().mean().sqrt() / dq < 2.0
        assert 0.5 < rp.square().mean().sqrt() / dp < 2.0


def test_stretching_and_its_rough_inverse():
    chi = exact_processed(2.0).displacement
    state = stretch(2.0).state(0)
    exact = chi.stretch(state, state.momenta)
    shift = chi.shift(state)
    assert torch.allclose(stretched(chi, state, shift, state.momenta), exact, rtol=1e-9)
    assert torch.allclose(rough_momenta(chi, state, shift), chi.enter(state).momenta, rtol=1e-6)


def test_errors_are_relative_and_of_one_step():
    data = harmonic(1.0)
    assert step_errors(exact_discrete(1.0), data).position < 1e-12
    errors = step_errors(al.DiscreteAction([Spring(0.0)], step_fs=STEP_FS), data)
    assert errors.momentum == pytest.approx(1.0, abs=1e-12)  # free flight changes no momenta
    windows = data.windows(range(len(data)))
    first, last = windows.frames
    m, h = first.masses.unsqueeze(1), STEP_FS * FEMTOSECOND
    dq = last.positions - first.positions
    by_hand = ((m * (dq - h * first.velocities) ** 2).sum() / (m * dq**2).sum()).sqrt()
    assert errors.position == pytest.approx(float(by_hand), rel=1e-12)


def test_forces_are_matched_in_the_same_units():
    data = harmonic(1.0)
    omega = 1.0 / (STEP_FS * FEMTOSECOND)
    assert force_loss(Spring(omega**2), data.windows([0, 1]), STEP_FS) < 1e-25
    assert force_loss(Spring(0.0), data.windows(range(len(data))), STEP_FS) == pytest.approx(1.0, rel=0.3)


def test_the_loss_has_no_units():
    """Heavier atoms, another temperature: the same loss."""
    losses = [
        float(map_loss(exact_discrete(1.2), harmonic(1.5, temperature_K=T, masses=masses).windows(range(8))))
        for T, masses in [(300.0, MASSES), (900.0, MASSES), (300.0, {1: 1.008, 8: 15.999})]
    ]
    assert np.allclose(losses, losses[0], rtol=1e-9)


# --- data -----------------------------------------------------------------------------------------


def test_windows_are_what_was_recorded():
    data = harmonic(1.5, length=3, n_frames=12)
    assert len(data) == 4 * (12 - 2 * 4) and data.species == (29, 79)
    s = data.stretches[1]
    windows = data.windows([5, 0])
    for n, start in enumerate((1, 5, 9)):
        state = windows.frames[n].select(0)
        assert np.array_equal(state.positions, s.frames.positions[start])
        assert np.array_equal(state.momenta, s.frames.momenta[start])
        assert np.array_equal(windows.forces[n][:3], s.frames.forces[start])
    assert np.allclose(
        windows.action[:, 0], [s.frames.action[5] - s.frames.action[1], np.diff(s.frames.action[5::4])[0]]
    )
    back = windows.reversed()
    assert torch.equal(back.frames[0].momenta, -windows.frames[2].momenta)
    assert torch.equal(back.action[0], windows.action[1])
    assert data.windows([0], torch.float32).frames[0].positions.dtype == torch.float32


def test_splits_share_no_stretch_and_follow_the_seed():
    stretches = [stretch(1.0, seed=k, temperature_K=T) for k in range(10) for T in (300.0, 500.0, 700.0)]
    data = Dataset(stretches, step_fs=STEP_FS)
    parts = data.split(seed=3, validation=0.2, test=0.2)
    names = [{s.name for s in part.stretches} for part in parts]
    assert [len(n) for n in names] == [18, 6, 6] and len(set.union(*names)) == 30
    assert all({s.temperature_K for s in part.stretches} == {300.0, 500.0, 700.0} for part in parts)
    again, other = (data.split(seed=seed, validation=0.2, test=0.2)[1] for seed in (3, 4))
    assert [s.name for s in again.stretches] == [s.name for s in parts[1].stretches]
    assert [s.name for s in other.stretches] != [s.name for s in parts[1].stretches]
    with pytest.raises(InvalidInput, match="2 stretches cannot be split"):
        Dataset(stretches[:2], step_fs=STEP_FS).split()


def test_batches_hold_every_window_once_within_the_budget():
    data = Dataset([stretch(1.0, seed=k, n_atoms=n) for k, n in enumerate((2, 5, 9))], step_fs=STEP_FS)
    order = data.order(atoms=10, seed=1, epoch=0)
    assert sorted(k for batch in order for k in batch) == list(range(len(data)))
    sizes = [data.windows(batch).frames[0].n_atoms for batch in order]
    assert max(sizes) <= 10 and np.mean(sizes) > 6
    assert order == data.order(10, 1, 0) != data.order(10, 1, 1)
    assert len(data.order(atoms=1, seed=0, epoch=0)) == len(data)


def test_a_set_larger_than_memory_is_read_as_needed(tmp_path):
    al.sample(
        al.PhaseState(np.eye(3), np.zeros((3, 3)), np.full(3, 63.546), numbers=np.full(3, 29)),
        Spring(0.01),
        tmp_path,
        temperatures_K=[300.0],
        step_fs=1.0,
        stretches=9,
        frames=20,
        record_every=4,
        equilibrate_ps=0.01,
        decorrelate_ps=0.01,
    )
    size = (3 * 3 * 3 + 3) * 8 * 20
    whole = Dataset.open(tmp_path, step_fs=STEP_FS)
    data = Dataset.open(tmp_path, step_fs=STEP_FS, memory_gb=3.5e-9 * size)
    shelf = data.stretches[0].frames._place[0]
    assert shelf.most == 3 * size
    for name in ("checksum", "name", "temperature_K"):
        assert [getattr(s, name) for s in data.stretches] == [getattr(s, name) for s in whole.stretches]
    one, other = (d.resized(3).windows(range(0, 100, 7)) for d in (data, whole))
    for a, b in zip(one.frames + one.forces, other.frames + other.forces, strict=True):
        assert torch.equal(getattr(a, "positions", a), getattr(b, "positions", b))
    assert torch.equal(one.action, other.action) and torch.equal(one.scale_p, other.scale_p)
    order, before = data.order(12, 1, 0), shelf.reads
    for batch in order:
        data.windows(batch)
    assert shelf.reads - before <= 9 and shelf.most == 3 * size
    assert sorted(k for batch in order for k in batch) == list(range(len(data)))
    assert order == data.order(12, 1, 0) != whole.order(12, 1, 0)
    mixed = {data._windows[k][0] for batch in order[: len(order) // 3] for k in batch}
    assert len(mixed) == 3  # the windows of three stretches at a time, shuffled
    training, validation, test = data.split(seed=1)
    assert [len(part.stretches) for part in (training, validation, test)] == [7, 1, 1]
    assert len(training.order(12, 0, 0)) >= 3 and shelf.most == 3 * size
    with pytest.raises(InvalidInput, match="memory_gb must be positive, not 0"):
        Dataset.open(tmp_path, step_fs=STEP_FS, memory_gb=0.0)


def test_checksums_know_the_motion_not_the_file():
    s = stretch(1.0)
    assert s.checksum == dataclasses.replace(s, name="other").checksum == stretch(1.0).checksum
    changed = dataclasses.replace(s.frames, momenta=s.frames.momenta * (1.0 + 1e-15))
    assert dataclasses.replace(s, frames=changed).checksum != s.checksum != stretch(1.0, seed=1).checksum


def test_bad_data_and_wishes_are_named():
    with pytest.raises(InvalidInput, match=r"step_fs=7 is no multiple of the 2 fs"):
        Dataset([stretch(1.0)], step_fs=7.0)
    with pytest.raises(InvalidInput, match="spans 22 fs, too short for 4 frames"):
        Dataset([stretch(1.0)], step_fs=STEP_FS, length=4)
    heavy = dataclasses.replace(stretch(1.0, seed=1, masses={29: 65.0}), name="heavy")
    with pytest.raises(DataError, match="element 29 has masses 63.546 and 65 u, the latter in heavy"):
        Dataset([stretch(1.0), heavy], step_fs=STEP_FS)
    with pytest.raises(InvalidInput, match="at least 2 frames, or 1 where no motion is asked for, not 0"):
        Dataset([stretch(1.0)], step_fs=STEP_FS, length=0)
    with pytest.raises(InvalidInput, match="windows of 4 frames or more, not 2"):
        map_loss(exact_processed(1.0), harmonic(1.0).windows([0]))
