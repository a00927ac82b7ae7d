"""`Corrected`: a dynamics of ASE predicts, the midpoint action corrects."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from test_ase_dynamics import alloy, verlet

import actionlearn as al
from actionlearn.ase import ActionNVE, Corrected
from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.potentials import ASEPotential, SecondMomentMetals


def implicit(step_fs=20.0, **more):
    """The implicit midpoint rule: an action whose learned part is the potential."""
    return al.MidpointAction(SecondMomentMetals(), step_fs=step_fs, tolerance=1e-11, **more)


def started():
    atoms = alloy(500.0)
    atoms.calc = EMT()  # a potential of its own: the predictor is wrong as well as too long
    return atoms


def after(dyn, steps=6):
    dyn.run(steps)
    return np.stack([dyn.atoms.get_positions(), dyn.atoms.get_momenta()])


@pytest.mark.parametrize(
    "options", [{}, {"temperature_K": 900, "friction": 0.01, "fixcm": False}], ids=["verlet", "langevin"]
)
def test_converged_it_is_the_action_whatever_predicts(options):
    predictor = Langevin if options else VelocityVerlet
    own = after(ActionNVE(started(), model=implicit()))
    dyn = Corrected(predictor, started(), model=implicit(), options=options)
    corrected = after(dyn)
    assert np.abs(corrected - own).max() < 1e-7
    alone = predictor(started(), timestep=20 * units.fs, **options)
    assert np.abs(after(alone) - own).max() > 1e-2  # the control: the predictor by itself goes elsewhere
    summary = dyn.summary()
    assert summary["map"] == "predict-correct" and summary["gradients_per_step"] > 3 and summary["steps"] == 6


def test_iterations_approach_the_converged_step():
    own = after(ActionNVE(started(), model=implicit()), 1)
    distances = []
    for k in (0, 1, 2, 4, 8):
        corrected = after(Corrected(VelocityVerlet, started(), model=implicit(), iterations=k), 1)
        distances.append(np.abs(corrected - own).max())
    assert all(late < 0.7 * early for early, late in zip(distances, distances[1:], strict=False)), distances
    plain = after(VelocityVerlet(started(), timestep=20 * units.fs), 1)
    none = after(Corrected(VelocityVerlet, started(), model=implicit(), iterations=0), 1)
    assert np.array_equal(plain, none)


def test_it_is_a_dynamics_of_ase(tmp_path):
    atoms = started()
    seen = []
    dyn = Corrected(VelocityVerlet, atoms, 20 * units.fs, model=implicit(), iterations=2, logfile=str(tmp_path / "log"))
    dyn.attach(lambda: seen.append(dyn.nsteps), interval=2)
    dyn.run(4)
    assert seen == [0, 2, 4] and dyn.get_time() == pytest.approx(80 * units.fs)
    assert len((tmp_path / "log").read_text().splitlines()) == 6
    assert dyn.todict()["map"] == "predict-correct"


def other_species():
    atoms = started()
    atoms.numbers[0] = 47
    return atoms


WRONG = {
    "no class": (lambda: Corrected("verlet", started(), model=implicit()), "class of ASE dynamics .* got 'verlet'"),
    "an instance": (
        lambda: Corrected(VelocityVerlet(started(), 1.0), started(), model=implicit()), "class of ASE dynamics"),
    "an explicit map": (lambda: Corrected(VelocityVerlet, started(), model=verlet()), "only a midpoint action"),
    "no model": (lambda: Corrected(VelocityVerlet, started(), model=None), "only a midpoint action .* 'NoneType'"),
    "no atoms": (lambda: Corrected(VelocityVerlet, None, model=implicit()), "atoms must be an ase.Atoms"),
    "no calculator": (lambda: Corrected(VelocityVerlet, alloy(), model=implicit()), "needs forces .* set atoms.calc"),
    "another step": (
        lambda: Corrected(VelocityVerlet, started(), 5 * units.fs, model=implicit()), "timestep is 5 fs, the model"),
    "iterations": (
        lambda: Corrected(VelocityVerlet, started(), model=implicit(), iterations=-1), "iterations must be 0 or more"),
    "options": (
        lambda: Corrected(VelocityVerlet, started(), model=implicit(), options={"temprature": 3}), "these options"),
    "species": (
        lambda: Corrected(VelocityVerlet, other_species(), model=implicit(species=(29, 79))), "also contains Ag"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused(name):
    make, message = WRONG[name]
    with pytest.raises((InvalidInput, UnsupportedSystem), match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_corrector_refuses_other_species():
    state = al.PhaseState.from_atoms(Atoms("Ag2", [[0, 0, 0], [0, 0, 2.9]]))
    with pytest.raises(UnsupportedSystem, match="contains Ag, the map was made for Cu, Au"):
        al.PredictCorrect(lambda state: state, implicit(species=(29, 79)), iterations=1)(state)


def test_forces_of_the_predictor_do_not_disturb_the_calculator():
    atoms = started()
    dyn = Corrected(VelocityVerlet, atoms, model=implicit())
    dyn.run(2)
    state = al.PhaseState.from_atoms(atoms)
    assert atoms.get_potential_energy() == pytest.approx(float(ASEPotential(EMT).energy(state)[0]), abs=1e-10)
