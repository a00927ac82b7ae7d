"""One set of weights for every step of a range: what its maps share, what training does to all of them, its files."""

import math

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator

import actionlearn as al
from actionlearn import cli
from actionlearn.assessment import errors_of
from actionlearn.checkpoint import load, save
from actionlearn.dataset import Dataset
from actionlearn.errors import DataError, InvalidInput
from actionlearn.losses import step_errors
from actionlearn.maps import StepRange
from actionlearn.maps.blueprint import CORRECTION, DISPLACEMENT, ORDERS, REMAINDER, Blueprint, learned_part, network_of
from actionlearn.potentials import SecondMomentMetals
from actionlearn.reference import read_structures
from actionlearn.settings import Settings
from actionlearn.training import Trainer

LOW, HIGH = 8.0, 24.0
NETWORK = {"cutoff": 4.5, "channels": 4, "hidden": 16, "radial": 4}
TETRAHEDRON = 2.5 / 8**0.5 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
STAGES = {"corrected": 2, "discrete": 2, "processed": 1, "midpoint": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("range") / "reference"
    al.sample(
        ase.Atoms("Cu2Au2", positions=TETRAHEDRON),
        "metals",
        folder,
        temperatures_K=[200.0],
        step_fs=2.0,
        stretches=6,
        frames=61,
        record_every=2,
        equilibrate_ps=0.5,
        decorrelate_ps=0.1,
        processes=1,
    )
    return folder


@pytest.fixture(scope="module")
def data(folder):
    return Dataset.open(folder, step_fs=HIGH).split(seed=1)


def blueprint(kind, **other):
    wishes = {"step_fs": HIGH, "stages": STAGES[kind], "network": NETWORK, "steps_fs": (LOW, HIGH)} | other
    return Blueprint(kind, (29, 79), {29: 63.546, 79: 196.96657}, **wishes)


def random_range(kind, state):
    model = blueprint(kind).build(SecondMomentMetals())
    network_of(model).calibrate([state]).randomise(0.01)
    return model.requires_grad_(False)


@pytest.mark.parametrize("kind", STAGES)
def test_maps_of_a_range_are_polynomials_in_the_squared_step(data, kind):
    state = data[2].windows([0]).frames[0]
    model = random_range(kind, state)
    E = network_of(model).energies(state)[0]
    V = SecondMomentMetals().energy(state)[0] if kind == "corrected" else E[0]
    for step_fs in (LOW, 10.0, HIGH):
        step = model.at(step_fs)
        assert (step.step_fs, step.kind, step.stages) == (step_fs, kind, STAGES[kind])
        x = (step_fs / HIGH) ** 2

        def learned(part, size, x=x):
            return sum(size * x ** (n + 1) * E[1 + part * ORDERS[kind] + n] for n in range(ORDERS[kind]))

        if kind == "midpoint":
            found, expected = [step.scalar.energy(state)], [V + learned(0, 1.0)]
        else:
            inner = step.inner if kind == "processed" else step
            weights = [1 / 6, 4 / 6] if STAGES[kind] == 2 else [1 / 2]
            size = CORRECTION if kind == "corrected" else REMAINDER
            found = [u.energy(state) for u in inner.potentials]
            expected = [w * V + learned(k, size) for k, w in enumerate(weights)]
            if kind == "processed":
                found.append(step.displacement.potential.energy(state))
                expected.append(learned(1, DISPLACEMENT) / x)
        assert torch.allclose(torch.stack(found).flatten(), torch.stack(expected), rtol=1e-12)
    assert al.reversal_error(model.at(10.0), state, n=2) < 1e-8
    assert al.estimate_symplectic_defect(model.at(10.0), state, directions=2) < 1e-7


def test_without_remainder_short_steps_approach_the_motion_of_the_potential(data):
    """What is learned beyond the potential vanishes with h²: the kicks of a short step are those of the head alone."""
    state = data[2].windows([0]).frames[0]
    model = random_range("discrete", state)
    head = network_of(model)
    off = []
    for step_fs in (2.0, 1.0):
        bare = al.DiscreteAction([head.head(w, *[0.0] * (head.heads - 1)) for w in (1 / 6, 4 / 6)], step_fs=step_fs)
        off.append(float((model.beyond(step_fs).step(state).momenta - bare.step(state).momenta).abs().max()))
    assert off[0] / off[1] == pytest.approx(8.0, rel=0.1)  # h·h²


@pytest.mark.parametrize("kind", STAGES)
def test_a_checkpoint_gives_the_map_of_any_step(data, kind, tmp_path):
    state = data[2].windows([0]).frames[0]
    model, base = random_range(kind, state), SecondMomentMetals()
    save(model, tmp_path / "model.pt", {"temperatures_K": [200.0, 200.0]})
    for step_fs in (LOW, 17.0):
        again = al.load(tmp_path / "model.pt", base=base, step_fs=step_fs)
        assert torch.equal(again.step(state).positions, model.at(step_fs).step(state).positions)
        assert again.step_fs == step_fs and again.report["temperatures_K"] == [200.0, 200.0]
    family = load(tmp_path / "model.pt", base=base)
    assert isinstance(family, StepRange) and family.steps_fs == (LOW, HIGH)
    with pytest.raises(InvalidInput, match="trained for steps of 8 to 24 fs, asked for 30 fs"):
        load(tmp_path / "model.pt", base=base, step_fs=30.0)


def test_dataset_names_the_steps_on_its_frames(data):
    assert data[0].steps_between(LOW, HIGH) == [8.0, 12.0, 16.0, 20.0, 24.0]
    assert data[0].at_step(12.0).step_fs == 12.0 and len(data[0].at_step(12.0)) > len(data[0])
    assert set(data[0].temperatures_of([0, 5])) == {200.0}
    with pytest.raises(InvalidInput, match=r"1 step\(s\) from 9 to 15 fs lie on frames 4 fs apart"):
        data[0].steps_between(9.0, 15.0)


def trainer(data, kind, **settings):
    settings = {"minutes": None, "updates": 100, "batch_atoms": 24, "validations": 1} | settings
    return Trainer(blueprint(kind), *data[:2], Settings(**settings), SecondMomentMetals())


@pytest.mark.parametrize(("kind", "more"), [("discrete", {}), ("midpoint", {}), ("midpoint", {"hamilton_jacobi": 1.0})])
def test_training_serves_every_step(data, kind, more):
    training = trainer(data, kind, **more)
    steps = (LOW, 12.0, HIGH)
    tests = [data[2].at_step(step_fs) for step_fs in steps]

    def errors():
        return [step_errors(training.average.at(t.step_fs), t, windows=4).momentum for t in tests]

    before, report, after = errors(), training.run(), errors()
    assert all(b < a / 1.5 for a, b in zip(before, after, strict=True)), (before, after)
    assert report.updates == 100 and report.errors == errors_of(training.average, data[1])


def test_training_corrects_the_longest_step_of_a_range_most(data):
    training = trainer(data, "corrected")
    test = data[2].at_step(HIGH)
    before = step_errors(training.average.at(HIGH), test, windows=8).momentum
    training.run()
    assert step_errors(training.average.at(HIGH), test, windows=8).momentum < before / 1.1


def test_a_map_that_has_no_step_yet_is_infinitely_wrong(data):
    model = blueprint("midpoint").build()
    network_of(model).calibrate([data[2].windows([0]).frames[0]]).randomise(10.0)
    errors = errors_of(model.requires_grad_(False), data[1], windows=4)
    assert errors.position == errors.momentum == math.inf


def test_a_killed_training_of_a_range_ends_in_the_same_weights(data, tmp_path):
    for kind, more in (("discrete", {}), ("midpoint", {"hamilton_jacobi": 0.5})):
        whole, stopped, again = (trainer(data, kind, updates=8, learning_rate=1e-4, **more) for _ in range(3))
        whole.run()
        for _ in range(5):
            stopped.update()
        stopped.save_state(tmp_path / kind)
        again.run(tmp_path / kind)
        for a, b in zip(learned_part(whole.model).parameters(), learned_part(again.model).parameters(), strict=True):
            assert torch.equal(a, b)


def test_ranges_that_make_no_sense(data):
    with pytest.raises(InvalidInput, match="runs from a shorter to a longer one"):
        blueprint("discrete", steps_fs=(24.0, 8.0))
    with pytest.raises(InvalidInput, match="a direct map has one step"):
        Blueprint("direct", (29,), {29: 63.5}, HIGH, 1, steps_fs=(LOW, HIGH))
    with pytest.raises(InvalidInput, match="that of midpoint actions for a range of steps, not of a discrete map"):
        trainer(data, "discrete", hamilton_jacobi=1.0)
    with pytest.raises(InvalidInput, match="a weight from 0 to 1, not 2"):
        Settings(hamilton_jacobi=2.0)
    with pytest.raises(InvalidInput, match="give it steps_fs"):
        StepRange(blueprint("discrete", steps_fs=None), None)
    first = trainer(data, "discrete").average
    one = blueprint("discrete", steps_fs=None)
    with pytest.raises(InvalidInput, match="cannot start from .*made otherwise"):
        Trainer(one, *data[:2], Settings(), start=first)


def test_train_and_run_on_the_command_line(folder, tmp_path, capsys):
    model, structure = str(tmp_path / "model.pt"), str(tmp_path / "cluster.traj")
    ase.Atoms("Cu2Au2", positions=TETRAHEDRON).write(structure)
    small = "--channels 4 --hidden 16 --cutoff 4.5 --batch-atoms 32 --updates 4 --steps-fs 8 24".split()
    small += ["--learning-rate", "1e-5"]
    wish = ["train", str(folder), "--kind", "midpoint", "--without-trajectories", "--output", model, *small]
    assert cli.main(wish) == 0
    assert "midpoint, s = 1, h = 8 to 24 fs: 4 updates" in capsys.readouterr().out
    go = ["run", structure, "--model", model, "--output", str(tmp_path / "run.xyz"), "--ps", "0.1", "--temperature"]
    assert cli.main([*go, "200"]) == 1
    assert "holds maps for steps of 8 to 24 fs: choose one with --step-fs" in capsys.readouterr().err
    assert cli.main([*go, "200", "--step-fs", "10"]) == 0
    assert "10" in capsys.readouterr().out
    assert cli.main(["train", str(folder), "--without-trajectories", "--output", f"{model}2", *small]) == 1
    assert "not of a discrete map" in capsys.readouterr().err


@pytest.fixture(scope="module")
def labelled(folder, tmp_path_factory):
    """Single frames of the stretches, as a file of structures without motion."""
    path = tmp_path_factory.mktemp("labelled") / "structures.extxyz"
    frames = []
    for stretch in al.ReferenceSet.open(folder):
        for k in (0, 20, 40):
            atoms = stretch.state(k).to_atoms()
            atoms.set_momenta(np.zeros((4, 3)))
            atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=stretch.forces(k).numpy())
            atoms.info["temperature_K"] = stretch.temperature_K
            frames.append(atoms)
    ase.io.write(path, frames)
    return path


def test_structures_without_motion_teach_a_step(labelled, data):
    structures = Dataset(read_structures(labelled), step_fs=HIGH, length=1)
    assert len(structures) == 18 and structures.temperatures_K == (200.0, 200.0)
    parts = structures.split(seed=0)
    settings = Settings(minutes=None, updates=100, batch_atoms=16, validations=1, hamilton_jacobi=1.0)
    training = Trainer(blueprint("midpoint"), *parts[:2], settings)
    residual = errors_of(training.average, parts[2])
    report = training.run()
    assert report.errors.momentum < residual.momentum / 1.5
    assert step_errors(training.average.at(HIGH), data[2], windows=4).momentum < 0.7
    with pytest.raises(InvalidInput, match="single structures hold no motion"):
        Trainer(blueprint("midpoint"), *parts[:2], Settings())


def test_structures_without_labels_are_named(labelled, tmp_path, capsys):
    frames = ase.io.read(labelled, ":2")
    del frames[1].info["temperature_K"]
    ase.io.write(tmp_path / "cold.extxyz", frames)
    with pytest.raises(DataError, match="structure cold.extxyz:1 has no temperature"):
        read_structures(tmp_path / "cold.extxyz")
    frames[0].calc = None
    ase.io.write(tmp_path / "bare.extxyz", frames)
    with pytest.raises(DataError, match="structure bare.extxyz:0 has no energy and forces"):
        read_structures(tmp_path / "bare.extxyz")
    small = "--channels 4 --hidden 16 --cutoff 4.5 --batch-atoms 32 --updates 2 --steps-fs 8 24".split()
    wish = ["train", str(labelled), "--kind", "midpoint", "--without-trajectories", *small]
    assert cli.main([*wish, "--output", str(tmp_path / "model.pt")]) == 0
    assert "residual of the Hamilton-Jacobi equation, relative" in capsys.readouterr().out
