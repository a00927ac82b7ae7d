"""Drifts of short roll-outs: none where there is none, the right one where there is one; what training makes of it."""

import functools
import math

import pytest
import torch
from harmonic_stretches import MASSES, STEP_FS, Spring, exact_discrete, exact_processed, stretch

from actionlearn import training
from actionlearn.dataset import Dataset
from actionlearn.errors import InvalidInput
from actionlearn.heating import EXPLODED, STEPS, certain, heating, own_energy
from actionlearn.maps import DiscreteAction, MidpointAction
from actionlearn.maps.blueprint import Blueprint, learned_part
from actionlearn.settings import Settings
from actionlearn.state import PhaseState
from actionlearn.structure import Measured
from actionlearn.training import Trainer
from actionlearn.units import FEMTOSECOND

THETA = 1.2
BASE = Spring((THETA / (STEP_FS * FEMTOSECOND)) ** 2)
START = PhaseState.batch([stretch(THETA, seed=k, n_atoms=2 + k).state(0) for k in range(3)])
MEAN_meV = 1000.0 * float((BASE.energy(START) + START.kinetic_energy()).sum()) / START.n_atoms


class Heated(torch.nn.Module):
    """An exact map whose momenta grow by a part of themselves every step."""

    kind, step_fs, stages = "discrete", STEP_FS, 2

    def __init__(self, growth):
        super().__init__()
        self.exact, self.growth = exact_discrete(THETA), growth
        self.potentials = self.exact.potentials

    def step(self, state):
        state = self.exact.step(state)
        return state.moved(state.positions, (1.0 + self.growth) * state.momenta)


def test_exact_maps_do_not_heat():
    assert abs(heating(exact_discrete(THETA), START, BASE).value) < 1e-9
    for model in (exact_discrete(THETA), exact_processed(THETA)):
        drift = heating(model, START)  # of their own energies, which fluctuate
        assert certain(drift) < 1e-3 * MEAN_meV and drift.error > 0.0


@pytest.mark.parametrize("base", [BASE, None])
def test_heating_is_found_and_is_the_right_one(base):
    growth = 1e-5
    drift = heating(Heated(growth), START, base)
    expected = MEAN_meV * growth / (STEP_FS / 1000.0)  # 2·growth of T, half of the energy, every step
    assert drift.value == pytest.approx(expected, rel=0.1)
    if base is not None:
        assert certain(drift) > 0.5 * expected
        cooled = heating(Heated(-growth), START, base)
        assert cooled.value == pytest.approx(-expected, rel=0.1) and certain(cooled) > 0.5 * expected


def test_a_run_that_explodes_has_gained_half_an_eV_by_then():
    unstable = DiscreteAction([Spring(4.0 * BASE.k)], step_fs=STEP_FS)
    drift = heating(unstable, START, BASE)
    assert drift.error == 0.0 and drift.value >= 1000.0 * EXPLODED / (STEPS * STEP_FS / 1000.0)
    lost = DiscreteAction([Spring(math.nan)], step_fs=STEP_FS)
    assert heating(lost, START).value == pytest.approx(1000.0 * EXPLODED / (STEP_FS / 1000.0))


def test_own_energies():
    T, V = START.kinetic_energy(), BASE.energy(START)
    for stages, kicks in ((1, [0.5]), (2, [1 / 6, 4 / 6]), (3, [1 / 8, 3 / 8]), (4, [0.1, 0.2, 0.4])):
        model = DiscreteAction([Spring(w * BASE.k) for w in kicks], stages=stages, step_fs=STEP_FS)
        assert torch.allclose(own_energy(model)(START), T + V, rtol=1e-12)
    assert torch.allclose(own_energy(MidpointAction(BASE, step_fs=STEP_FS))(START), T + V, rtol=1e-12)
    model = Blueprint("direct", (29, 79), MASSES, STEP_FS, 1).build()
    assert own_energy(model) is None and heating(model, START) is None
    with pytest.raises(InvalidInput, match="takes 16 steps or more, not 3"):
        heating(exact_discrete(THETA), START, steps=3)


# --- in training ----------------------------------------------------------------------------------


def trainer(**settings):
    data = Dataset([stretch(THETA, seed=k) for k in range(6)], step_fs=STEP_FS)
    blueprint = Blueprint(
        "discrete", data.species, data.masses, STEP_FS, 2, {"cutoff": 4.5, "channels": 2, "hidden": 8, "radial": 4}
    )
    settings = {"minutes": None, "updates": 16, "batch_atoms": 12, "validations": 8} | settings
    return Trainer(blueprint, *data.split(0, validation=0.3)[:2], Settings(**settings))


def pretend(monkeypatch, drifts, errors=(0.05,) * 8):
    """Roll-outs and validations that give these numbers one after the other."""
    drifts, errors = iter(drifts), iter(errors)
    calls = []

    def heating(*args):
        calls.append(args)
        return Measured(*next(drifts), "meV/atom/ps")

    def errors_of(*args, **options):
        return training.StepErrors(0.0, next(errors, 9.0), 1)

    monkeypatch.setattr(training, "heating", heating)
    monkeypatch.setattr(training, "errors_of", errors_of)
    return calls


def test_roll_outs_cost_their_share_and_the_last_is_at_the_end(monkeypatch):
    for share, updates, count in ((0.0, 64, 0), (0.05, 64, 0), (1.0, 64, 2), (0.05, 1280, 2), (99.0, 64, 8)):
        with monkeypatch.context() as context:
            calls = pretend(context, [(0.0, 0.1)] * 8)
            made = trainer(updates=updates, drift_share=share)
            made.update = lambda made=made: setattr(made, "updates", made.updates + 1) or 0.0
            report = made.run()
        assert len(calls) == count, (share, updates)
        atoms = made._starts.n_atoms
        assert 6 <= atoms <= made.settings.batch_atoms
        assert count * STEPS * 0.5 * atoms / made.settings.batch_atoms <= share * updates
        if count:
            assert "drift" in report.curve[-1] and report.drift == Measured(0.0, 0.1, "meV/atom/ps")
        else:
            assert report.drift is None


def test_the_map_that_heats_is_not_the_best(monkeypatch):
    """The error falls all the time; from the fifth validation on the map heats, beyond doubt or not."""
    errors = [0.08, 0.07, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01]
    for late, best in (((5.0, 0.1), 4), ((5.0, 4.0), 8), ((-5.0, 0.1), 4)):
        with monkeypatch.context() as context:
            pretend(context, [(0.0, 0.1)] * 4 + [late] * 4, errors)
            made = trainer(drift_share=99.0)
            kept = []
            validate = made.validate

            def validate_and_keep(validate=validate, kept=kept, made=made):
                found = validate()
                kept.append({k: v.clone() for k, v in learned_part(made.average).state_dict().items()})
                return found

            made.validate = validate_and_keep
            report = made.run()
        weights = learned_part(made.average).state_dict()
        same = [all(torch.equal(weights[name], point[name]) for name in point) for point in kept]
        assert same == [k == best - 1 for k in range(8)], late
        assert report.drift.value == ((0.0, 0.1) if best == 4 else late)[0]


def test_training_stops_when_only_the_drift_gets_worse(monkeypatch):
    pretend(monkeypatch, [(0.0, 0.1)] * 2 + [(1.0 + k, 0.1) for k in range(6)], [0.1 / (1 + k) for k in range(8)])
    made = trainer(drift_share=99.0, patience=2)
    report = made.run()
    assert len(report.curve) == 4 and report.updates == 8 and report.drift.value == 0.0
    assert [round(point["drift"], 3) for point in report.curve] == [0.0, 0.0, 1.0, 2.0]


def test_a_map_of_unknown_drift_is_not_the_best(monkeypatch):
    pretend(monkeypatch, [(5.0, 0.1)] * 2, [0.01] * 4 + [0.02] * 4)
    made = trainer(updates=64, drift_share=1.0, patience=4)
    report = made.run()
    assert ["drift" in point for point in report.curve] == [False, False, False, True] * 2
    assert report.drift.value == 5.0 and report.curve[0]["score"] < report.curve[3]["score"]


def test_drifts_are_kept_over_a_break(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "heating", functools.partial(heating, steps=20))
    whole, stopped = (trainer(drift_share=99.0, updates=8, validations=4) for _ in range(2))
    expected = whole.run()
    for _ in range(6):
        stopped.update()
        if stopped.updates % 2 == 0:
            stopped.validate()
    stopped.save_state(tmp_path / "state")
    found = trainer(drift_share=99.0, updates=8, validations=4).run(tmp_path / "state")
    assert found.drift == expected.drift and len(found.curve) == 4
    for one, other in zip(found.curve, expected.curve, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0} and math.isfinite(one["drift"])


def test_settings_of_drifts():
    settings = Settings()
    assert settings.score(0.02, None) == settings.score(0.02, Measured(0.3, 0.2, "")) == 0.02
    assert settings.score(0.02, Measured(-0.3, 0.1, "")) == pytest.approx(0.04)
    with pytest.raises(InvalidInput, match="drift_share must not be negative and drift_limit positive, not -1"):
        Settings(drift_share=-1.0)
