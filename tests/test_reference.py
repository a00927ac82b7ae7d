import dataclasses
import json
import math
import shutil
from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from sampled_potentials import Failing, KilledOnce, Springs

from actionlearn import PhaseState
from actionlearn.errors import CalculatorFailed, DataError, InvalidInput, InvalidState
from actionlearn.files import sha256
from actionlearn.potentials import forces_from_energy
from actionlearn.reference import ReferenceSet, highest_frequency, record, sample
from actionlearn.reference import stretch as stretch_file
from actionlearn.reference.recording import Checked
from actionlearn.reference.thermostat import langevin, maxwell_boltzmann, without_total_momentum
from actionlearn.units import FEMTOSECOND

SHORT = {
    "temperatures_K": [300.0, 600.0],
    "step_fs": 2.0,
    "stretches": 3,
    "frames": 6,
    "record_every": 2,
    "equilibrate_ps": 0.05,
    "decorrelate_ps": 0.02,
}


def cluster():
    return ase.Atoms("Cu2Au2", positions=2.5 / 8**0.5 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]))


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "set"
    sample(cluster(), Springs(), folder, **SHORT)
    return folder


# --- what is recorded -----------------------------------------------------------------------------


class OneSpring:
    def energy(self, state):
        return state.sum_by_system((0.5 * state.positions**2).sum(1))

    def forces(self, state):
        return forces_from_energy(self.energy, state)


def test_the_action_is_second_order():
    errors = []
    for n in (20, 40, 80):
        state = PhaseState(torch.tensor([[1.0]]).double(), torch.tensor([[0.3]]).double(), torch.ones(1).double())
        frames = record(state, OneSpring(), step_fs=1.0 / FEMTOSECOND / n, frames=2, record_every=n)
        # ∫(T − V)dt of q = cos t + 0.3 sin t over one unit of time is [q·p/2] at the ends
        q, p = math.cos(1) + 0.3 * math.sin(1), 0.3 * math.cos(1) - math.sin(1)
        errors.append(abs(frames.action[-1] - 0.5 * (q * p - 0.3)))
    slopes = np.diff(np.log(errors)) / np.log(0.5)
    assert np.allclose(slopes, 2.0, atol=0.02)


def test_the_action_generates_the_recorded_trajectory():
    """∂A/∂q_end = p_end along the recorded path, with q_start fixed: A and the path belong together to rounding."""
    state = maxwell_boltzmann(PhaseState.from_atoms(cluster()), 600.0, torch.Generator().manual_seed(0))

    def end(p):
        frames = record(state.moved(state.positions, p), Springs(), step_fs=2.0, frames=2, record_every=10)
        return frames.positions[-1].ravel(), frames.momenta[-1].ravel(), frames.action[-1]

    direction = torch.randn(state.momenta.shape, dtype=torch.float64)
    e = 1e-4
    (q1, _, A1), (q0, _, A0) = end(state.momenta + e * direction), end(state.momenta - e * direction)
    _, p_end, _ = end(state.momenta)
    assert (A1 - A0) == pytest.approx(p_end @ (q1 - q0), rel=1e-7)
    assert abs((A1 - A0) / (1.001 * p_end @ (q1 - q0)) - 1.0) > 1e-4  # the check can fail


def test_stretches_conserve_energy_and_start_at_rest(whole):
    for stretch in ReferenceSet.open(whole):
        assert np.abs(stretch.frames.momenta.sum(1)).max() < 1e-12
        assert np.ptp(stretch.total_energies) < 1e-2 * stretch.frames.kinetic_energies.mean()
        assert stretch.times_fs.tolist() == [0, 4, 8, 12, 16, 20] and stretch.interval_fs == 4.0
        state = stretch.state(3)
        assert torch.allclose(Springs().forces(state), stretch.forces(3), atol=1e-12)
        assert Springs().energy(state).item() == pytest.approx(stretch.frames.potential_energies[3], rel=1e-12)
        assert stretch.state(0, torch.float32).positions.dtype == torch.float32


def test_langevin_reaches_its_temperature():
    generator = torch.Generator().manual_seed(1)
    state = maxwell_boltzmann(PhaseState.from_atoms(cluster()), 300.0, generator)
    total = []
    for _ in range(400):
        state = langevin(
            state, Springs(), step_fs=2.0, steps=5, temperature_K=300.0, friction_per_ps=20.0, generator=generator
        )
        total.append(state.temperature_K().item())
    error = np.std(total) / len(total) ** 0.5 * 2.0  # samples are 10 fs apart, correlated over about 40
    assert np.mean(total) == pytest.approx(300.0, abs=4.0 * error)
    assert np.abs(without_total_momentum(state).momenta.sum(0).numpy()).max() < 1e-12


def test_highest_frequency_of_known_springs():
    k = torch.tensor([[2.0, 0.3], [0.3, 5.0]]).double()

    class Matrix:
        def forces(self, state):
            return -(state.positions.reshape(-1) @ k).reshape(-1, 1)

    state = PhaseState(torch.zeros(2, 1).double(), torch.zeros(2, 1).double(), torch.tensor([1.0, 4.0]).double())
    root = torch.tensor([1.0, 0.5]).double()
    exact = torch.linalg.eigvalsh(root[:, None] * k * root)[-1].sqrt().item()
    found = highest_frequency(Matrix(), state, generator=torch.Generator().manual_seed(0))
    assert found == pytest.approx(exact, rel=1e-8)


def test_a_step_that_is_too_large_is_said(tmp_path, whole):
    assert ReferenceSet.open(whole).warnings == []
    coarse = {"step_fs": 30.0, "record_every": 1, "temperatures_K": [300.0]}
    large = sample(cluster(), Springs(), tmp_path, **{**SHORT, **coarse})
    assert any("ω_max·dt" in line for line in large.warnings)
    assert any("energy fluctuates" in line for line in large.warnings)


class Nothing:
    def energy(self, state):
        return torch.zeros(1, dtype=torch.float64)

    def forces(self, state):
        return torch.zeros_like(state.positions)


def test_free_flight_is_no_jump(tmp_path):
    found = sample(cluster(), Nothing(), tmp_path, **{**SHORT, "temperatures_K": [300.0]}, single=True)
    assert found.omega_max_per_fs == 0.0 and len(list(found)) == 3 and found.warnings == []


# --- repeatable, resumable ------------------------------------------------------------------------


def test_same_seed_same_files_and_another_seed_others(whole, tmp_path):
    sample(cluster(), Springs(), tmp_path / "same", **SHORT)
    sample(cluster(), Springs(), tmp_path / "other", **SHORT, seed=1)
    assert files(tmp_path / "same") == files(whole)
    assert not set(files(tmp_path / "other").values()) & set(files(whole).values())


def test_processes_leave_no_trace(whole, tmp_path):
    sample(cluster(), Springs(), tmp_path / "set", **SHORT, processes=2)
    assert files(tmp_path / "set") == files(whole)


@pytest.mark.parametrize("calls", [3, 60, 95, 180])
def test_a_stopped_run_keeps_what_it_has_and_goes_on(whole, tmp_path, calls, monkeypatch):
    """The run stops at some force call; the same call again completes it."""
    folder = tmp_path / "set"
    before, total = Checked.forces, 0

    def forces(self, state):
        nonlocal total
        total += 1
        if total == calls:
            raise KeyboardInterrupt
        return before(self, state)

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(Checked, "forces", forces)
        sample(cluster(), Springs(), folder, **SHORT)
    assert not ReferenceSet.open(folder).complete
    sample(cluster(), Springs(), folder, **SHORT)
    assert files(folder) == files(whole)


def test_a_killed_worker_is_said_and_leaves_no_trace(whole, tmp_path):
    folder = tmp_path / "set"
    with pytest.raises(CalculatorFailed, match="a worker process died.*are kept in"):
        sample(cluster(), KilledOnce(folder), folder, **SHORT, processes=2)
    sample(cluster(), KilledOnce(folder), folder, **SHORT)
    stretches = {name: content for name, content in files(whole).items() if name != "manifest.json"}
    assert {name: content for name, content in files(folder).items() if name != "manifest.json"} == stretches


def test_more_stretches_later(whole, tmp_path):
    sample(cluster(), Springs(), tmp_path / "set", **{**SHORT, "stretches": 2})
    longer = sample(cluster(), Springs(), tmp_path / "set", **SHORT)
    assert len(longer) == 6 and files(tmp_path / "set") == files(whole)


def test_a_deleted_stretch_is_made_again(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "set")
    (tmp_path / "set" / "stretch-300K-0000.npz").unlink()
    sample(cluster(), Springs(), tmp_path / "set", **SHORT)
    assert files(tmp_path / "set") == files(whole)


@pytest.mark.parametrize(("how", "processes"), [("raise", 1), ("nan", 1), ("raise", 2)])
def test_a_failing_calculator_is_named(tmp_path, how, processes):
    message = {"nan": "forces that are not finite", "raise": "ArithmeticError: self-consistency not reached in"}[how]
    with pytest.raises(CalculatorFailed, match=message) as caught:
        sample(cluster(), Failing(30, how), tmp_path / "set", **SHORT, processes=processes)
    assert "0 of 6 stretches are kept" in str(caught.value) and "\n" not in str(caught.value)


def test_single_precision_keeps_displacements(whole, tmp_path):
    single = sample(cluster(), Springs(), tmp_path / "set", **SHORT, single=True)
    for small, large in zip(single, ReferenceSet.open(whole), strict=True):
        assert np.abs(small.frames.positions - large.frames.positions).max() < 6e-8
        assert np.array_equal(small.frames.positions[0], large.frames.positions[0])
        assert np.array_equal(small.frames.action, large.frames.action)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperatures_K": []}, "temperatures are"),
        ({"temperatures_K": [300.0, 300.0]}, "all different"),
        ({"temperatures_K": [-5.0]}, "temperature 1 is -5.0, expected a positive"),
        ({"step_fs": 0.0}, "step_fs is 0.0"),
        ({"step_fs": float("nan")}, "step_fs is nan"),
        ({"frames": 1}, "at least 2"),
        ({"stretches": 0}, "stretches is 0"),
        ({"record_every": 0}, "record_every is 0"),
        ({"processes": 0}, "processes is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"decorrelate_ps": -0.1}, "decorrelate_ps is -0.1"),
    ],
)
def test_bad_settings_are_refused(tmp_path, change, message):
    with pytest.raises(InvalidInput, match=message):
        sample(cluster(), Springs(), tmp_path / "set", **{**SHORT, **change})
    assert not (tmp_path / "set").exists()


def test_bad_structures_are_refused(tmp_path):
    atoms = cluster()
    atoms.positions[1, 2] = float("nan")
    with pytest.raises(InvalidState, match="positions are not finite, first at atom 1"):
        sample(atoms, Springs(), tmp_path, **SHORT)
    atoms = cluster()
    atoms.set_masses([1.0, 0.0, 1.0, 1.0])
    with pytest.raises(InvalidState, match="mass of atom 1 is 0.0 u"):
        sample(atoms, Springs(), tmp_path, **SHORT)
    with pytest.raises(InvalidInput, match="zero_momentum=False"):
        sample(ase.Atoms("Cu"), Springs(), tmp_path, **SHORT)
    state = PhaseState.from_atoms(cluster())
    with pytest.raises(InvalidState, match="holds 2 in"):
        sample(PhaseState.batch([state, state]), Springs(), tmp_path, **SHORT)


def test_bad_potentials_are_refused(tmp_path):
    unpicklable = Springs()
    unpicklable.anything = lambda: None
    with pytest.raises(InvalidInput, match="module:factory"):
        sample(cluster(), unpicklable, tmp_path, **SHORT)
    with pytest.raises(InvalidInput, match="nonesuch"):
        sample(cluster(), "nonesuch", tmp_path, **SHORT)


def test_folders_are_refused(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "set")
    with pytest.raises(InvalidInput, match="holds another run, which differs: seed is 0 there, 3 here"):
        sample(cluster(), Springs(), tmp_path / "set", **SHORT, seed=3)
    with pytest.raises(InvalidInput, match="differs in temperatures_K"):
        sample(cluster(), Springs(), tmp_path / "set", **{**SHORT, "temperatures_K": [300.0]})
    (tmp_path / "set" / "manifest.json").unlink()
    with pytest.raises(InvalidInput, match=r"stretches but no manifest\.json"):
        sample(cluster(), Springs(), tmp_path / "set", **SHORT)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot write in folder"):
        sample(cluster(), Springs(), tmp_path / "file" / "set", **SHORT)


# --- bad data -------------------------------------------------------------------------------------


def rewrite(folder, change, name="stretch-300K-0001.npz"):
    """Change arrays of a stretch and make the manifest's checksum fit again."""
    path = folder / name
    with np.load(path) as archive:
        content = {key: archive[key] for key in archive.files}
    change(content)
    np.savez(path, **content)
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["stretches"]:
        if entry["file"] == name:
            entry["sha256"] = sha256(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def swap_frames(content):
    for key in ("displacements", "momenta", "forces", "potential_energies", "kinetic_energies", "action"):
        content[key][[2, 3]] = content[key][[3, 2]]


def other_units(content):
    content["units"] = np.array(json.dumps({**stretch_file.UNITS, "momenta": "u*angstrom/fs"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_units, r"momenta are in u\*angstrom/fs, expected sqrt"),
        (lambda c: c.update(steps=c["steps"][[0, 1, 3, 2, 4, 5]]), "out of order, step 6 follows step 2"),
        (swap_frames, "jump between frames"),
        (lambda c: c["displacements"][4:].__iadd__(0.3), "positions jump between frames 3 and 4"),
        (lambda c: c["masses"].__imul__(1.1), "masses or the momenta are not those of the run"),
        (lambda c: c["masses"].__setitem__(0, 0.0), "mass of atom 0 is 0.0 u"),
        (lambda c: c["forces"].__setitem__((2, 0, 0), np.nan), "forces are not finite in frame 2"),
        (lambda c: c["forces"].__imul__(23.06), "momenta jump between frames"),  # kcal/mol
        (lambda c: c["displacements"].__imul__(0.1), "positions jump between frames"),  # nm
        (lambda c: c["momenta"].__imul__(0.098), "masses or the momenta are not those"),  # u·Å/fs
        (lambda c: c["potential_energies"].__imul__(23.06), "potential energies are in another unit"),
        (lambda c: c["potential_energies"].__imul__(1 / 27.2), "potential energies are in another unit"),
        (lambda c: c.update(potential_energies=c["potential_energies"][::-1].copy()), "or not those of the run"),
        (lambda c: c.update(action=c["action"][:-1]), "action have shape"),
        (lambda c: c.pop("action"), "lacks action"),
        (lambda c: c.update(format=np.array("something else")), "has format something else"),
    ],
)
def test_bad_data_are_found_and_named(whole, tmp_path, change, message):
    folder = tmp_path / "set"
    shutil.copytree(whole, folder)
    rewrite(folder, change)
    opened = ReferenceSet.open(folder)
    assert len(opened[0]) == 6
    with pytest.raises(DataError, match=message) as caught:
        list(opened)
    assert "stretch-300K-0001.npz" in str(caught.value)


def test_wrong_masses_are_found_even_if_consistent(whole, tmp_path):
    def scale(content):
        content["masses"] *= 1.21
        content["momenta"] *= 1.1

    shutil.copytree(whole, tmp_path / "set")
    rewrite(tmp_path / "set", scale)
    with pytest.raises(DataError, match="stretch-300K-0001.npz"):
        list(ReferenceSet.open(tmp_path / "set"))


def test_damaged_sets_are_refused(whole, tmp_path):
    with pytest.raises(InvalidInput, match="holds no manifest.json"):
        ReferenceSet.open(tmp_path)
    folder = tmp_path / "set"
    shutil.copytree(whole, folder)
    path = folder / "stretch-600K-0002.npz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="does not have the checksum"):
        ReferenceSet.open(folder)[-1]
    with pytest.raises(DataError, match="was changed since it was recorded"):
        sample(cluster(), Springs(), folder, **SHORT)
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        ReferenceSet.open(folder)[-1]
    (folder / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="not readable as JSON"):
        ReferenceSet.open(folder)


def test_a_stretch_of_another_run_is_refused(whole):
    stretch = ReferenceSet.open(whole)[0]
    frames = dataclasses.replace(stretch.frames, momenta=stretch.frames.momenta[::-1].copy())
    with pytest.raises(DataError, match="not those of the run|jump"):
        stretch_file.check_stretch(dataclasses.replace(stretch, frames=frames))
