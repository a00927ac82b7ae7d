"""Guards at run time: what is done when a map cannot be trusted, and that it is counted."""

import warnings

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from test_ase_dynamics import alloy, leaky, trained, verlet

import actionlearn as al
from actionlearn.ase import ActionGHMC, ActionLangevin, ActionNVE
from actionlearn.dynamics import Langevin
from actionlearn.errors import BlownUp, DriftTooLarge, InvalidInput, NonFinite, NotConverged, OutsideTraining
from actionlearn.potentials import SecondMomentMetals, Wall

BASE = SecondMomentMetals()


def state_of(seed=0, temperature_K=500.0):
    return al.PhaseState.from_atoms(alloy(temperature_K, seed))


def energy_of(state):
    return BASE.energy(state) + state.kinetic_energy()


class Breaks(al.Verlet):
    """Verlet whose calls of some numbers fail, for the systems whose first atom is right of a place."""

    def __init__(self, how, fails=(3,), beyond=-np.inf):
        super().__init__(BASE, step_fs=5.0)
        self.how, self.fails, self.beyond, self.calls = how, fails, beyond, 0

    def step(self, state, n=1):
        self.calls += 1
        state = super().step(state, n)
        first = torch.cat([torch.ones(1, dtype=torch.bool), state.system.diff() > 0])
        here = (state.positions[first][:, 0] > self.beyond) & (self.calls in self.fails)
        if not bool(here.any()):
            return state
        if self.how == "raises":
            raise NonFinite("lost")
        if self.how == "no solution":
            raise NotConverged("no", residual=1.0, tolerance=0.1, iterations=5)
        factor = {"nan": float("nan"), "flies": 1e3}[self.how]
        return state.moved(
            state.positions, torch.where(here[state.system].unsqueeze(1), factor * state.momenta, state.momenta)
        )


HOW = {"raises": NonFinite, "no solution": NotConverged, "nan": NonFinite, "flies": BlownUp}


@pytest.mark.parametrize("how", HOW)
def test_a_broken_stretch_raises_or_is_taken_by_the_base_potential(how):
    for policy in ("raise", "warn"):
        with pytest.raises(HOW[how]):
            al.simulate(Breaks(how), state_of(), 100, policy=policy, on_uncertain="fallback", fallback=BASE)
    start = state_of()
    found = al.simulate(Breaks(how), start, 100, policy="fallback", fallback=BASE)
    assert found.summary["fallbacks"] == 1 and found.summary["fallback_steps"] == 20
    assert found.summary["steps"] == 100
    assert abs(float(energy_of(found.state) - energy_of(start))) < 0.01 * 16 * 0.1
    sound = al.simulate(al.Verlet(BASE, step_fs=1.0), start, 500).state
    assert (found.state.positions - sound.positions).abs().max() < 0.2  # same motion, up to the steps of 5 fs


def test_a_sound_run_is_left_alone_bit_by_bit():
    plain = al.simulate(verlet(), state_of(), 60)
    guarded = al.simulate(verlet(), state_of(), 60, policy="fallback", on_uncertain="fallback", fallback=BASE)
    assert torch.equal(plain.state.positions, guarded.state.positions)
    assert guarded.summary["fallbacks"] == guarded.summary["fallback_steps"] == 0
    assert "fallbacks" not in plain.summary


@pytest.mark.parametrize(("how", "fails"), [("nan", (3,)), ("raises", (3, 4, 5))])
def test_only_the_systems_that_fail_are_taken_over(how, fails):
    """What raises, raises for all; each is then tried alone."""
    states = [state_of(0), state_of(1)]
    states[1] = states[1].moved(states[1].positions + 50.0, states[1].momenta)
    found = al.simulate(Breaks(how, fails, beyond=25.0), states, 100, policy="fallback", fallback=BASE)
    assert found.summary["fallbacks"] == 1 and found.summary["fallback_steps"] == 20
    alone = al.simulate(verlet(), states[0], 100).state
    assert (found.states[0].positions - alone.positions).abs().max() < 1e-9


def test_under_a_thermostat_the_noise_is_the_same():
    """The ensemble draws what it would have drawn: only the steps between are others."""
    ends = [
        al.simulate(model, state_of(), 100, ensemble=Langevin(500.0, 5.0, seed=3), policy="fallback", fallback=BASE)
        for model in (Breaks("nan", fails=range(46, 60)), verlet())
    ]
    assert ends[0].summary["fallbacks"] == 1 and ends[0].summary["fallback_steps"] == 14
    assert (ends[0].state.positions - ends[1].state.positions).abs().max() < 0.1


def test_biases_act_in_a_fallback_too():
    wall = Wall([1.0, 0.0, 0.0], 0.0, 5.0)

    class Never(al.CorrectedVerlet):
        def step(self, state, n=1):
            raise NonFinite("never")

    never = Never(BASE, step_fs=5.0, extra=[wall])
    start = state_of()
    biased = al.simulate(never, start, 40, policy="fallback").state  # its own base
    free = al.simulate(Never(BASE, step_fs=5.0), start, 40, policy="fallback").state
    exact = al.simulate(al.CorrectedVerlet(BASE, step_fs=1.0, extra=[wall]), start, 200).state
    assert (biased.positions - exact.positions).abs().max() < 0.05 < (biased.positions - free.positions).abs().max()


# --- atoms outside the range of training ----------------------------------------------------------


def test_strangers_raise_or_warn_or_are_taken_over():
    familiar, strange = alloy(), alloy()
    strange.set_cell(0.93 * strange.cell, scale_atoms=True)
    model = trained(familiar, 0.05)
    with pytest.raises(
        OutsideTraining, match=r"of 16 atoms are outside .* after 0 steps, the first is atom \d+ \("
    ) as e:
        ActionNVE(strange, model=model, on_uncertain="raise").run(20)
    assert "\n" not in str(e.value) and "'warn' or 'fallback'" in str(e.value)
    with pytest.warns(UserWarning, match="outside the range of training") as caught:
        dyn = ActionNVE(strange.copy(), model=model)
        dyn.run(60)
    assert len(caught) == 1 and dyn.summary()["share_outside_training"] > 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dyn = ActionNVE(strange.copy(), model=model, on_uncertain="fallback", fallback=BASE)
        dyn.run(60)
    assert dyn.summary()["fallbacks"] == 1 and dyn.summary()["fallback_steps"] == 60
    by_base = al.simulate(al.Verlet(BASE, step_fs=0.25), al.PhaseState.from_atoms(strange), 240).state
    assert np.abs(dyn.atoms.positions - by_base.positions.numpy()).max() < 1e-3


def test_the_uncertainty_of_a_checkpoint_decides_where_there_is_one():
    model = trained(alloy(), 0.0)  # by its range of inputs all would be strangers
    model.uncertainty = lambda state: torch.full((state.n_atoms,), 1.4)
    assert al.simulate(model, state_of(), 20).summary["share_outside_training"] == 0.0
    model.uncertainty = lambda state: torch.where(torch.arange(state.n_atoms) == 5, 1.6, 0.5)
    with pytest.warns(UserWarning, match="^1 of 16 atoms are outside .* the first is atom 5"):
        assert al.simulate(model, state_of(), 20).summary["share_outside_training"] == 1 / 16


def test_a_run_goes_back_to_the_map_when_its_atoms_are_familiar_again():
    class FirstOnly:
        calls = 0

        def strangers(self, state):
            self.calls += 1
            return torch.arange(state.n_atoms) == (3 if self.calls < 3 else -1)

    dyn = ActionNVE(alloy(), model=verlet(), on_uncertain="fallback", fallback=BASE)
    dyn.engine.record.familiar = FirstOnly()
    dyn.run(100)
    assert dyn.summary()["fallbacks"] == 1 and dyn.summary()["fallback_steps"] == 40
    assert dyn.summary()["share_outside_training"] == pytest.approx(2 / (6 * 16))
    assert "fallbacks  1" in dyn.report()


def test_the_calculator_of_the_atoms_is_a_base_potential():
    atoms = alloy()
    atoms.calc = EMT()
    dyn = ActionNVE(atoms, model=Breaks("raises"), policy="fallback")
    dyn.run(60)
    assert dyn.summary()["fallbacks"] == 1


def test_a_stopped_run_goes_on_in_its_fallback_bit_by_bit(tmp_path):
    """Restart files every 7 steps, within stretches that the base potential has."""

    class Some:
        def strangers(self, state):
            return state.positions[:, 0] > float(state.positions[:, 0].median()) + 3.0

    def run(name, pieces):
        for steps in pieces:
            atoms = alloy()
            guards = {"on_uncertain": "fallback", "policy": "fallback", "fallback": BASE}
            files = {"restart": tmp_path / name, "restart_every": 7}
            model = Breaks("nan", fails=range(46, 60))
            dyn = ActionLangevin(atoms, model=model, temperature_K=500, friction_per_ps=5, **guards, **files)
            dyn.model.calls = dyn.nsteps
            dyn.engine.record.familiar = Some()
            dyn.run(steps - dyn.nsteps)
        return atoms, dyn.summary()

    whole, counted = run("whole", [63])
    parts, again = run("parts", [28, 49, 63])
    assert (whole.positions == parts.positions).all() and (whole.get_momenta() == parts.get_momenta()).all()
    assert counted["fallbacks"] == again["fallbacks"] > 0 and counted["fallback_steps"] == again["fallback_steps"] > 0


def test_a_drift_beyond_the_limit_hands_over_to_the_base_potential(monkeypatch):
    monkeypatch.setattr("actionlearn.dynamics.engine.ENERGY_EVERY", 20)
    options = {"potential": BASE, "drift_limit": 1.0}
    with pytest.raises(DriftTooLarge):
        al.simulate(leaky(), state_of(), 1000, **options)
    found = al.simulate(leaky(), state_of(), 1000, policy="fallback", **options)
    assert 400 < found.summary["fallback_steps"] < 1000 and found.summary["drift_warnings"] >= 1
    free = al.simulate(leaky(), state_of(), 1000, potential=BASE).summary
    assert found.summary["drift_meV_per_atom_per_ps"] < 0.7 * free["drift_meV_per_atom_per_ps"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ActionNVE(alloy(), model=verlet(), on_uncertain="hope"), "on_uncertain must be one of .*'hope'"),
        (lambda: ActionNVE(alloy(), model=verlet(), policy="fallback"), "needs a base potential to go on with"),
        (lambda: ActionNVE(alloy(), model=verlet(), on_uncertain="fallback"), "needs a base potential"),
        (
            lambda: ActionNVE(alloy(), model=verlet(), policy="fallback", fallback=EMT()),
            "EMT is no potential.*ASEPotential",
        ),
        (
            lambda: ActionGHMC(
                alloy(), model=verlet(), potential=BASE, temperature_K=300, friction_per_ps=1, on_uncertain="fallback"
            ),
            "exact sampling needs no fallback",
        ),
        (lambda: al.simulate(verlet(), state_of(), 1, policy="never"), "policy must be one of .*'never'"),
    ],
)
def test_wrong_guards(make, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
