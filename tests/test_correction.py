"""Grading and correcting trajectories that were made elsewhere, in Python and from the command line."""

import json

import ase.io
import numpy as np
import pytest
import torch
from ase.constraints import FixAtoms, FixBondLength, FixCom
from test_ase_dynamics import alloy, verlet

import actionlearn as al
from actionlearn import cli
from actionlearn.correction import Correction, Prediction, grade, long_steps
from actionlearn.errors import ActionlearnError, InvalidInput, UnsupportedSystem
from actionlearn.maps.blueprint import Blueprint, network_of
from actionlearn.potentials import SecondMomentMetals
from actionlearn.units import FEMTOSECOND

STEP = 10.0


def implicit(step_fs=STEP, **more):
    return al.MidpointAction(SecondMomentMetals(), step_fs=step_fs, tolerance=1e-11, **more)


def trajectory(model, n=8, atoms=None):
    """Frames of a map, one step apart."""
    atoms = atoms or alloy()
    state = al.PhaseState.from_atoms(atoms)
    frames = [state.to_atoms(atoms)]
    for _ in range(n):
        state = model.step(state)
        frames.append(state.to_atoms(atoms))
    return frames


def changed(frames, change):
    """The same frames after `change(n, atoms)`."""
    frames = [atoms.copy() for atoms in frames]
    for n, atoms in enumerate(frames):
        change(n, atoms)
    return frames


@pytest.fixture(scope="module")
def verlet_frames():
    return trajectory(verlet(STEP))


@pytest.fixture(scope="module")
def own_frames():
    return trajectory(implicit())


# --- grades ---------------------------------------------------------------------------------------


def test_own_trajectory_has_no_defect(own_frames, verlet_frames):
    own = grade(implicit(), long_steps(own_frames, implicit()))
    assert own.defect.max() < 1e-9 and own.position.max() < 1e-9 and own.momentum.max() < 1e-9
    other = grade(implicit(), long_steps(verlet_frames, implicit()))
    assert len(other.defect) == 8 and 1e-3 < other.defect.min() and other.defect.max() < 0.3
    assert grade(verlet(STEP), long_steps(verlet_frames, verlet(STEP))).defect.max() < 1e-12


def test_a_defect_is_found_where_it_is(own_frames):
    def heated(n, atoms):
        if n >= 5:  # a kick between frames 4 and 5: the trajectory is the action's before and, alone, not there
            atoms.set_momenta(1.01 * atoms.get_momenta())

    defect = grade(implicit(), long_steps(changed(own_frames, heated), implicit())).defect
    assert defect[:4].max() < 1e-9 and defect.argmax() == 4 and defect[4] > 3e-3


def test_two_harmonic_maps_differ_by_what_theory_says():
    """Exact motion graded by the implicit midpoint rule: δ = (1 − tan(θ/2)/(θ/2))-like, for every phase."""
    omega, h = 1.0 / FEMTOSECOND, FEMTOSECOND

    class Spring:
        def energy(self, state):
            return 0.5 * omega**2 * state.sum_by_system((state.masses[:, None] * state.positions**2).sum(1))

    atoms = ase.Atoms("Ar", [[0.3, -0.2, 0.1]])
    atoms.set_momenta([[0.0, 1.0, -2.0]])
    m, frames = atoms.get_masses()[0], []
    for n in range(4):
        c, s = np.cos(n * omega * h), np.sin(n * omega * h)
        frame = atoms.copy()
        frame.positions = c * atoms.positions + s * atoms.get_momenta() / (m * omega)
        frame.set_momenta(c * atoms.get_momenta() - s * m * omega * atoms.positions)
        frames.append(frame)
    action = al.MidpointAction(Spring(), step_fs=1.0)
    found = grade(action, long_steps(frames, action))
    # ∂S/∂z̄ = h·J·z̄ against the true 2·tan(θ/2)/θ of it
    expected = 1.0 - 0.5 / np.tan(0.5)
    for part in (found.defect, found.position, found.momentum):
        assert part == pytest.approx(np.full(3, expected), rel=1e-9)


def test_wrapped_frames_are_unwrapped(own_frames):
    def wrap(n, atoms):
        if n in (3, 4, 7):
            atoms.positions[1] += atoms.cell[0] - atoms.cell[1]

    def fly(n, atoms):
        atoms.positions += n * STEP * FEMTOSECOND * 0.1  # nobody wraps here

    frames = long_steps(changed(own_frames, wrap), implicit())
    assert frames.unwrapped == 4 and grade(implicit(), frames).defect.max() < 1e-9
    assert long_steps(changed(own_frames, fly), implicit()).unwrapped == 0


def test_constraints_are_kept_or_make_no_difference(own_frames):
    atoms = alloy()
    atoms.set_constraint(FixAtoms([0, 5]))
    frames = trajectory(implicit(), atoms=atoms)
    assert np.array_equal(frames[-1].positions[[0, 5]], atoms.positions[[0, 5]])
    assert grade(implicit(), long_steps(frames, implicit())).defect.max() < 1e-9
    end, _ = last(implicit(), frames)
    assert np.abs(end.positions.numpy() - frames[-1].positions).max() < 1e-8
    held = changed(own_frames, lambda n, atoms: atoms.set_constraint(FixCom()))
    assert grade(implicit(), long_steps(held, implicit())).defect.max() < 1e-9
    bound = changed(own_frames, lambda n, atoms: atoms.set_constraint(FixBondLength(0, 1)))
    with pytest.raises(UnsupportedSystem, match="FixBondLengths is not supported"):
        long_steps(bound, implicit())


def test_reconstructed_momenta_state_their_error():
    fine = trajectory(verlet(1.0), 80)[:: int(STEP)]
    bare = changed(fine, lambda n, atoms: atoms.set_momenta(0 * atoms.get_momenta()))
    frames = long_steps(bare, implicit(), reconstruct=True)
    assert len(frames) == len(fine) - 2
    true = np.stack([atoms.get_momenta() for atoms in fine[1:-1]])
    weight = 1.0 / np.sqrt(fine[0].get_masses())[:, None]
    error = np.sqrt(((weight * (frames.trajectory.momenta - true)) ** 2).mean() / ((weight * true) ** 2).mean())
    assert frames.momentum_error == pytest.approx(error, rel=0.2) and error > 0.01


# --- corrections ----------------------------------------------------------------------------------


def last(model, frames, iterations=None):
    correction = Correction(model, long_steps(frames, model), iterations)
    states = list(correction.states())
    assert len(states) == len(frames)
    return states[-1], correction


def test_converged_correction_is_the_trajectory_of_the_action(own_frames, verlet_frames):
    end = own_frames[-1]
    found, correction = last(implicit(), verlet_frames)
    assert np.abs(found.positions.numpy() - end.positions).max() < 1e-8 and correction.without_guess == 0
    assert np.abs(verlet_frames[-1].positions - end.positions).max() > 1e-4  # the original was not
    off = [np.abs(last(implicit(), verlet_frames, k)[0].positions.numpy() - end.positions).max() for k in (0, 1, 3, 6)]
    assert all(late < 0.7 * early for early, late in zip(off, off[1:], strict=False)), off
    none = last(implicit(), verlet_frames, 0)[0].positions.numpy()
    assert np.abs(none - verlet_frames[-1].positions).max() < 1e-12


def test_an_exploded_original_is_no_guess(own_frames):
    def explode(n, atoms):
        if n >= 6:
            atoms.set_momenta(1e4 * atoms.get_momenta())

    found, correction = last(implicit(), changed(own_frames, explode))
    assert correction.without_guess >= 1
    assert np.abs(found.positions.numpy() - own_frames[-1].positions).max() < 1e-8


def test_explicit_maps_make_their_own_step(own_frames, verlet_frames):
    found, _ = last(verlet(STEP), own_frames)
    assert np.array_equal(found.positions.numpy(), verlet_frames[-1].positions)


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Untrained maps: a random midpoint action, a map of two kicks, and a direct predictor."""
    folder = tmp_path_factory.mktemp("models")
    for kind, stages in (("midpoint", 1), ("discrete", 2), ("direct", 1)):
        blueprint = Blueprint(
            kind=kind, species=(29, 79), masses={29: 63.546, 79: 196.96657}, step_fs=STEP, stages=stages,
            network={"cutoff": 4.0, "channels": 2, "hidden": 4},
        )  # fmt: skip
        model = blueprint.build()
        if kind != "direct":
            network_of(model).calibrate([al.PhaseState.from_atoms(alloy())]).randomise(0.002, seed=1)
        al.save(model, folder / f"{kind}.pt", {"test": {"position": 0.01, "momentum": 0.02, "windows": 4}})
    return folder


@pytest.fixture
def files(tmp_path, verlet_frames):
    ase.io.write(tmp_path / "md.traj", verlet_frames)
    return tmp_path


def correct(files, checkpoints, *more, kind="midpoint", name="md.traj"):
    return ["correct", str(files / name), "--model", str(checkpoints / f"{kind}.pt"), *more]


@pytest.mark.parametrize("kind", ["midpoint", "discrete"])
def test_corrected_trajectory_and_its_grade(files, checkpoints, capsys, kind):
    output = files / "new" / "corrected.extxyz"
    assert cli.main(correct(files, checkpoints, "--output", str(output), kind=kind)) == 0
    out = capsys.readouterr().out
    how = "corrected to convergence" if kind == "midpoint" else "corrected by steps of its own"
    assert "9 frames of 16 atoms" in out and how in out and " -> " in out
    assert "dq 0.01 and dp 0.02" in out
    found = json.loads((files / "new" / "corrected.extxyz.json").read_text())
    assert len(found["steps"]["defect"]) == 8 and found["defect_median"] > 1e-3 and found["map"] == kind
    frames = ase.io.read(output, ":")
    assert len(frames) == 9 and frames[-1].info["time_fs"] == 8 * STEP
    model = al.load(checkpoints / f"{kind}.pt")
    assert grade(model, long_steps(frames, model)).defect.max() < 1e-5  # text keeps eight digits
    # its own trajectory again: nothing left to correct
    again = correct(output.parent, checkpoints, "--json", str(files / "again.json"), kind=kind, name=output.name)
    assert cli.main(again) == 0
    found = json.loads((files / "again.json").read_text())
    assert found["defect_largest"] < 1e-5 and found["interval"] == "from the times of the frames"
    assert "correction" not in found


def test_iterations_and_reconstruction_from_the_command_line(files, checkpoints, capsys, verlet_frames):
    bare = changed(verlet_frames, lambda n, atoms: atoms.set_momenta(0 * atoms.get_momenta()))
    ase.io.write(files / "bare.xyz", bare)
    more = ["--output", str(files / "out.traj"), "--iterations", "2", "--reconstruct-momenta"]
    assert cli.main(correct(files, checkpoints, *more, name="bare.xyz")) == 0
    out = capsys.readouterr().out
    assert "momenta reconstructed by central differences" in out and "by 2 iterations, 2.0 gradients a step" in out
    assert len(ase.io.read(files / "out.traj", ":")) == 7


@pytest.mark.parametrize("predictor", ["metals", "direct"])
def test_steps_predicted_on_the_fly_and_corrected(files, checkpoints, capsys, predictor):
    output = files / "predicted" / "run.traj"
    name = str(checkpoints / "direct.pt") if predictor == "direct" else predictor
    words = ["--predictor", name, "--ps", "0.08", "--output", str(output)]
    assert cli.main(correct(files, checkpoints, *words)) == 0
    assert "steps without guess  0" in capsys.readouterr().out
    frames = ase.io.read(output, ":")
    model = al.load(checkpoints / "midpoint.pt")
    assert len(frames) == 9 and frames[-1].info["time_fs"] == 80.0
    assert grade(model, long_steps(frames, model)).defect.max() < 1e-8  # converged: the action's own, whatever predicts
    found = json.loads((files / "predicted" / "run.traj.json").read_text())
    assert len(found["defects"]) == 8 and found["defect_median"] > 1e-3 and found["gradients_per_step"] > 1
    assert cli.main(correct(files, checkpoints, *words[:-1], str(files / "two.traj"), "--iterations", "2")) == 0
    assert 1e-8 < grade(model, long_steps(ase.io.read(files / "two.traj", ":"), model)).defect.max() < 0.2


def test_a_predictor_that_fails_is_no_guess():
    def explode(state):
        return state.moved(state.positions, state.momenta * torch.nan)

    start = al.PhaseState.from_atoms(alloy())
    prediction = Prediction(implicit(), explode, start, 3)
    *_, end = prediction.states()
    assert prediction.without_guess == 3 and np.isinf(prediction.grades.defect).all()
    own = implicit().step(start, 3)
    assert (end.positions - own.positions).abs().max() < 1e-8
    with pytest.raises(InvalidInput, match="only a midpoint action corrects .* 'splitting|only a midpoint action"):
        Prediction(verlet(STEP), explode, start, 3)


def apart(factor):
    def change(n, atoms):
        atoms.info["time_fs"] = n * factor * STEP

    return change


def set_species(n, atoms):
    atoms.numbers[0] = 47


def set_masses(n, atoms):
    atoms.set_masses([1.0 if Z == 29 else 196.96657 for Z in atoms.numbers])


def swap(n, atoms):
    atoms.numbers[:2] = atoms.numbers[[1, 0]] if n == 3 else atoms.numbers[:2]


def breathe(n, atoms):
    atoms.set_cell(atoms.cell * (1.0 + 0.001 * n))


def freeze(n, atoms):
    if n == 2:
        atoms.set_momenta(np.zeros((len(atoms), 3)))


def explode(n, atoms):
    atoms.positions[0, 0] = np.nan if n == 5 else atoms.positions[0, 0]


CHANGES = {
    "every second frame": (lambda frames: frames[::2], "frames are about 2.* fs apart, a step of the model is 10 fs"),
    "every fifth frame": (lambda frames: frames[::5], "fs apart, a step of the model is 10 fs"),
    "times of another step": (lambda frames: changed(frames, apart(2)), "frames 0 and 1 are 20 fs apart"),
    "momenta as velocities": (
        lambda frames: changed(frames, lambda n, a: a.set_momenta(a.get_velocities())), "momenta in sqrt"),
    "species": (lambda frames: changed(frames, set_species), "made for Cu, Au, the system also contains Ag"),
    "masses": (lambda frames: changed(frames, set_masses), "made for Cu of mass 63.546 u, the system has 1 u"),
    "single frame": (lambda frames: frames[:1], "at least 2 frames, this trajectory has 1"),
    "one without momenta": (lambda frames: changed(frames, freeze), "frame 2 has no momenta"),
    "other order": (lambda frames: changed(frames, swap), "frame 3 holds other atoms than frame 0"),
    "other cell": (lambda frames: changed(frames, breathe), "the cell of frame 1 differs"),
    "fewer atoms": (lambda frames: [*frames[:2], frames[2][:-1]], "frame 2 holds other atoms"),
    "not a number": (lambda frames: changed(frames, explode), "not finite: the run exploded, cut it before"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_unfit_trajectories_are_refused(files, checkpoints, capsys, verlet_frames, name):
    change, message = CHANGES[name]
    if name in ("every second frame", "every fifth frame"):
        verlet_frames = trajectory(verlet(STEP), 20)
    ase.io.write(files / "wrong.traj", change(verlet_frames))
    assert cli.main(correct(files, checkpoints, name="wrong.traj")) == 1
    err = capsys.readouterr().err.strip()
    assert err.startswith("actionlearn correct: ") and "\n" not in err
    with pytest.raises(InvalidInput, match=message):
        raise InvalidInput(err)


OPTIONS = {
    "no trajectory": (["--iterations", "1"], {"name": "gone.traj"}, "named? with --output|name it with --output"),
    "no file": ([], {"name": "gone.traj"}, "there is no trajectory .*gone.traj"),
    "no model": ([], {"kind": "gone"}, "there is no checkpoint"),
    "direct": ([], {"kind": "direct"}, "direct predictor: it has no action"),
    "not a trajectory": ([], {"name": "text.traj"}, "cannot read a trajectory from .*text.traj"),
    "ending": (["--output", "out.pdb"], {}, "must end in .xyz, .extxyz or .traj"),
    "explicit": (
        ["--output", "OUT", "--iterations", "2"],
        {"kind": "discrete"},
        "a map of kind 'discrete' is explicit",
    ),
    "negative": (["--output", "OUT", "--iterations", "-2"], {}, "iterations must be 0 or more"),
    "predictor without output": (["--predictor", "metals", "--ps", "1"], {}, "--predictor makes a trajectory"),
    "predictor without length": (["--predictor", "metals", "--output", "OUT"], {}, "--ps, a positive number, not None"),
    "negative length": (
        ["--predictor", "metals", "--output", "OUT", "--ps", "-1"],
        {},
        "--ps, a positive number, not -1.0",
    ),
    "length without predictor": (["--ps", "1"], {}, "name a --predictor"),
    "unknown predictor": (
        ["--predictor", "nonesuch", "--output", "OUT", "--ps", "1"],
        {},
        "no potential is called 'nonesuch'",
    ),
    "no such predictor": (
        ["--predictor", "gone.pt", "--output", "OUT", "--ps", "1"],
        {},
        "there is no checkpoint gone.pt",
    ),
    "predictor for an explicit map": (
        ["--predictor", "metals", "--output", "OUT", "--ps", "1"],
        {"kind": "discrete"},
        "only a midpoint action",
    ),
    "predictor from rest": (
        ["--predictor", "metals", "--output", "OUT", "--ps", "1"],
        {"name": "rest.traj"},
        "has no momenta",
    ),
    "predictor and reconstruction": (
        ["--predictor", "metals", "--output", "OUT", "--ps", "1", "--reconstruct-momenta"],
        {},
        "needs a trajectory",
    ),
    "itself": (["--output", "SELF"], {}, "is the trajectory itself"),
    "too few to reconstruct": (["--reconstruct-momenta"], {"name": "short.traj"}, "at least 5 frames"),
    "at rest": (["--reconstruct-momenta"], {"name": "rest.traj"}, "nothing moves"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_unfit_options_are_refused(files, checkpoints, capsys, verlet_frames, name):
    options, where, message = OPTIONS[name]
    (files / "text.traj").write_text("words")
    ase.io.write(files / "short.traj", verlet_frames[:4])
    still = changed(verlet_frames[:1], lambda n, atoms: atoms.set_momenta(0 * atoms.get_momenta()))
    ase.io.write(files / "rest.traj", still * 6)
    names = {"OUT": str(files / "out.traj"), "SELF": str(files / "md.traj")}
    assert cli.main(correct(files, checkpoints, *[names.get(word, word) for word in options], **where)) == 1
    err = capsys.readouterr().err.strip()
    assert err.startswith("actionlearn correct: ") and "\n" not in err
    with pytest.raises(InvalidInput, match=message):
        raise InvalidInput(err)


def test_both_ways_at_once_are_refused(files, checkpoints, capsys):
    with pytest.raises(SystemExit):
        cli.main(correct(files, checkpoints, "--iterations", "1", "--to-convergence"))
    assert "not allowed with" in capsys.readouterr().err


def test_things_that_are_no_map_are_refused(verlet_frames):
    with pytest.raises(ActionlearnError, match="model must be a map"):
        long_steps(verlet_frames, torch.nn.Linear(1, 1))
