"""A network matched to forces: a potential by name, Verlet in any step, energies on the scale of the base."""

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from test_reference import cluster

import actionlearn as al
from actionlearn import cli, systems
from actionlearn.dataset import Dataset
from actionlearn.errors import DataError, InvalidInput
from actionlearn.losses import force_errors
from actionlearn.maps.blueprint import Blueprint
from actionlearn.potentials import SecondMomentMetals

NETWORK = {"cutoff": 4.5, "channels": 4, "hidden": 16, "radial": 4}
SMALL = "--channels 4 --hidden 16 --cutoff 4.5 --batch-atoms 32".split()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matched")
    return al.sample(
        cluster(),
        "metals",
        folder / "set",
        temperatures_K=[200.0],
        step_fs=2.0,
        stretches=5,
        frames=31,
        record_every=4,
        equilibrate_ps=0.3,
        decorrelate_ps=0.05,
    )


@pytest.fixture(scope="module")
def trained(reference, tmp_path_factory):
    output = tmp_path_factory.mktemp("net") / "net.pt"
    words = ["train", str(reference.folder), "--kind", "potential", "--step-fs", "2", "--updates", "80"]
    assert cli.main([*words, "--output", str(output), *SMALL]) == 0
    return output


def made(kind="potential", **changes):
    about = {"kind": kind, "species": (29, 79), "masses": {29: 63.546, 79: 196.96657}, "step_fs": 2.0, "stages": 1}
    return Blueprint(**{**about, "network": NETWORK, **changes})


def test_forces_and_energies_are_those_of_the_base(reference, trained, capsys):
    model, base = al.load(trained), SecondMomentMetals()
    data = Dataset(list(reference), step_fs=2.0, length=1).split(0)[2]
    found = force_errors(model.potential, data)
    assert found.relative < 0.4 and found.frames == 31
    assert model.report["forces"]["relative"] == pytest.approx(found.relative)
    assert model.report["test"]["momentum"] == model.report["test"]["position"] == pytest.approx(found.relative)
    state = data.windows(data.even(5)).frames[0]
    spread = (base.energy(state) - base.energy(state).mean()).square().mean().sqrt()
    assert (model.potential.energy(state) - base.energy(state)).abs().max() < max(0.5 * float(spread), 0.02)
    assert "meV/Å" in str(found) and "meV/atom" in str(found)


def test_exact_potentials_have_no_error(reference):
    data = Dataset(list(reference), step_fs=2.0, length=1)
    found = force_errors(SecondMomentMetals(), data)
    assert found.rms < 1e-12 and found.relative < 1e-12 and found.energy < 1e-12


def test_its_map_is_verlet_on_it(reference, trained):
    state = reference[0].state(0)
    for step_fs in (2.0, 1.0, 5.5):
        model = al.load(trained, step_fs=step_fs)
        verlet = al.Verlet(model.potential, step_fs=step_fs)
        one, other = model.step(state, 3), verlet.step(state, 3)
        assert torch.allclose(one.positions, other.positions, atol=1e-12)
        assert torch.allclose(one.momenta, other.momenta, atol=1e-12)
        assert (model.kind, model.stages, model.step_fs) == ("potential", 1, step_fs)
    assert al.symplectic_defect(model, state) < 1e-9


def test_constants_are_those_of_the_elements():
    """An untrained network is zero, so energies that are sums over elements are met exactly."""
    model = made().build()
    states = [al.PhaseState.from_atoms(ase.Atoms(name, np.eye(3)[: len(name) // 2] * 3)) for name in ("CuAu", "CuCuAu")]
    energies = [state.sum_by_system(torch.where(state.numbers == 29, -3.0, -4.0).double()) for state in states]
    model.potential.fit_constants(states, energies)
    assert torch.allclose(model.potential.constants, torch.tensor([-3.0, -4.0], dtype=torch.float64))
    assert torch.allclose(model.potential.energy(al.PhaseState.batch(states)), torch.cat(energies))
    model.potential.fit_constants(states[:1], energies[:1])  # one composition: the smallest of all solutions
    assert torch.allclose(model.potential.constants, torch.tensor([-3.5, -3.5], dtype=torch.float64))


def test_a_file_is_a_potential_by_its_name(reference, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained.parent)
    named = systems.potential("net.pt", cluster())
    state = reference[0].state(3)
    assert torch.equal(named.forces(state), al.load(trained).potential.forces(state))
    ase.io.write(tmp_path / "cluster.traj", cluster())
    words = "--potential net.pt --temperature 100 --step-fs 2 --record-every 2 --stretches 1 --frames 4".split()
    words += "--equilibrate-ps 0.05 --decorrelate-ps 0.01 --processes 1".split()
    assert cli.main(["sample", str(tmp_path / "cluster.traj"), "--output", str(tmp_path / "set"), *words]) == 0
    assert al.ReferenceSet.open(tmp_path / "set").potential == "net.pt"


def test_what_is_no_potential(reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    al.save(made("discrete").build(), "map.pt")
    torch.save({"format": "something else"}, tmp_path / "other.pt")
    (tmp_path / "broken.pt").write_bytes(b"no")
    for name, error, message in (
        ("map.pt", InvalidInput, "holds a discrete map, .* --kind potential"),
        ("none.pt", InvalidInput, "there is no file none.pt"),
        ("other.pt", DataError, "format 'something else', potentials come from .*actionlearn model"),
        ("broken.pt", DataError, "cannot be read as a potential"),
    ):
        with pytest.raises(error, match=message):
            systems.potential(name, cluster())
    with pytest.raises(InvalidInput, match="good for any step: give step_fs alone"):
        made(steps_fs=(1.0, 2.0))
    with pytest.raises(InvalidInput, match="a potential map has one stage, not 2"):
        made(stages=2)


def test_it_validates_between_frames_and_reports(reference, trained, tmp_path, capsys):
    """Frames are 8 fs apart, its steps 2 fs: four of them are one."""
    words = ["validate", str(trained), str(reference.folder), "--ps", "0.3", "--output", str(tmp_path / "validation")]
    assert cli.main(words) == 0
    assert "potential, s = 1, h = 2 fs" in capsys.readouterr().out
    assert cli.main(["report", str(trained), str(tmp_path / "validation"), "--output", str(tmp_path / "net.html")]) == 0
    page = (tmp_path / "net.html").read_text()
    assert "Verlet on a learned potential in steps of 2 fs" in page and "meV/atom (rms)" in page


def test_single_structures_are_enough(reference, tmp_path, capsys):
    frames = []
    for stretch in reference:
        for k in range(0, len(stretch), 10):
            atoms = stretch.state(k).to_atoms()
            energy, forces = float(stretch.frames.potential_energies[k]), stretch.frames.forces[k]
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
            atoms.info["temperature_K"] = 200.0
            frames.append(atoms)
    ase.io.write(tmp_path / "frames.xyz", frames)
    words = ["train", str(tmp_path / "frames.xyz"), "--kind", "potential", "--step-fs", "1", "--updates", "10"]
    assert cli.main([*words, "--output", str(tmp_path / "net.pt"), *SMALL]) == 0
    shown = capsys.readouterr().out
    assert "error of a kick" in shown and "error of the forces" in shown
