"""Runs that stop and go on, bit by bit, and runs of many replicas."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.constraints import FixAtoms

import actionlearn as al
from actionlearn.ase import ActionBussi, ActionGHMC, ActionLangevin, ActionNVE
from actionlearn.dynamics import GeneralisedHMC, Langevin, VelocityRescaling
from actionlearn.errors import DataError, InvalidInput
from actionlearn.potentials import LennardJones, SecondMomentMetals
from actionlearn.systems import structure
from actionlearn.units import BOLTZMANN


def hot(name="cuau32", temperature_K=900.0, seed=0):
    atoms = structure(name)
    m = atoms.get_masses()[:, None]
    atoms.set_momenta(np.random.default_rng(seed).normal(size=(len(atoms), 3)) * np.sqrt(m * BOLTZMANN * temperature_K))
    return atoms


def networks(atoms):
    state = al.PhaseState.from_atoms(atoms)
    torch.manual_seed(0)
    net = al.AtomicMoments([29, 79], cutoff=4.5, channels=4, hidden=8, heads=2, skin=0.3)
    net.calibrate([state]).randomise(1.0, seed=3).requires_grad_(False)
    net.readout.weight.div_(10.0 * net.forces(state).square().mean().sqrt())
    return net


def make_map(kind, atoms):
    base = SecondMomentMetals(skin=0.2)  # searched often, so that its history would show
    if kind == "Verlet":
        return al.Verlet(base, step_fs=4.0)
    net = networks(atoms)
    if kind == "corrected":
        return al.CorrectedVerlet(base, [net.head(1, 0), net.head(0, 1)], step_fs=8.0)
    if kind == "processed":
        inner = al.CorrectedVerlet(base, step_fs=6.0, stages=1)
        return al.ProcessedAction(inner, al.Displacement(net.head(0, 0.1), step_fs=6.0))
    assert kind == "midpoint"
    return al.MidpointAction(net, step_fs=6.0, guess="extrapolation")


class Killed(BaseException):
    pass


CASES = {
    "nve Verlet": (ActionNVE, "Verlet", {}),
    "nve corrected": (ActionNVE, "corrected", {}),
    "nve processed": (ActionNVE, "processed", {}),
    "nve midpoint": (ActionNVE, "midpoint", {}),
    "langevin": (ActionLangevin, "corrected", {"temperature_K": 900.0, "friction_per_ps": 2.0, "seed": 7}),
    "bussi": (ActionBussi, "Verlet", {"temperature_K": 900.0, "time_ps": 0.1, "seed": 7}),
    "ghmc": (
        ActionGHMC,
        "Verlet",
        {"temperature_K": 900.0, "friction_per_ps": 2.0, "pressure_GPa": 0.0, "volume_every": 3, "seed": 7},
    ),
}


def frames_of(case, steps, restart, kill_at=None):
    """Positions and momenta by step, until killed."""
    make, kind, options = CASES[case]
    atoms = hot()
    if make is ActionGHMC:
        options = {**options, "potential": SecondMomentMetals(skin=0.2)}
    dyn = make(atoms, model=make_map(kind, atoms), restart=restart, restart_every=5, **options)
    frames = {}

    def keep():
        if kill_at is not None and dyn.nsteps >= kill_at:
            raise Killed
        frames[dyn.nsteps] = (atoms.positions.copy(), atoms.get_momenta(), atoms.cell.array.copy())

    dyn.attach(keep, interval=1)
    try:
        dyn.run(steps - dyn.nsteps)
    except Killed:
        pass
    return frames, dyn


@pytest.mark.parametrize("case", CASES)
def test_killed_at_random_moments_and_resumed_to_the_last_bit(case, tmp_path):
    steps, kills = (12, 2) if case in ("nve processed", "nve midpoint") else (40, 3)
    whole, uninterrupted = frames_of(case, steps, tmp_path / "whole.restart")
    rng = np.random.default_rng(list(CASES).index(case))
    pieces, at = {}, 0
    for _ in range(kills):
        at = int(rng.integers(at + 1, at + steps // kills))
        frames, _ = frames_of(case, steps, tmp_path / "killed.restart", kill_at=at)
        pieces |= frames
    frames, dyn = frames_of(case, steps, tmp_path / "killed.restart")
    pieces |= frames
    assert sorted(pieces) == sorted(whole) == list(range(steps + 1))
    for step in whole:
        assert all((a == b).all() for a, b in zip(whole[step], pieces[step], strict=True)), f"step {step}"
    mine, theirs = dyn.summary(), uninterrupted.summary()
    assert mine["temperatures_K"] == theirs["temperatures_K"] and mine["steps"] == steps
    assert mine.get("acceptance") == theirs.get("acceptance")


def test_the_history_of_the_neighbours_would_show_without_care(monkeypatch, tmp_path):
    """A negative control: a run that does not forget when it writes is not the run that is resumed."""
    monkeypatch.setattr("actionlearn.dynamics.restart.forget_edges", lambda: None)
    monkeypatch.setattr("actionlearn.dynamics.engine.without_memory", lambda state, model: state)
    whole, _ = frames_of("nve Verlet", 300, tmp_path / "whole.restart")
    first, _ = frames_of("nve Verlet", 300, tmp_path / "killed.restart", kill_at=205)
    rest, _ = frames_of("nve Verlet", 300, tmp_path / "killed.restart")
    assert (whole[200][0] == first[200][0]).all()
    assert not (whole[300][0] == rest[300][0]).all()


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from test_restart import *
atoms = hot()
dyn = ActionLangevin(atoms, model=make_map("Verlet", atoms), temperature_K=900.0, friction_per_ps=2.0,
                     restart={restart!r}, restart_every=50)
dyn.run(500 - dyn.nsteps)
np.save({out!r}, np.concatenate([atoms.positions, atoms.get_momenta()]))
"""


def test_a_process_killed_for_real_resumes_to_the_same_end(tmp_path):
    def start(name):
        code = SCRIPT.format(
            tests=os.path.dirname(__file__),
            restart=str(tmp_path / f"{name}.restart"),
            out=str(tmp_path / f"{name}.npy"),
        )
        return subprocess.Popen([sys.executable, "-c", code])

    killed = tmp_path / "killed.restart"
    process = start("killed")
    deadline = time.monotonic() + 60
    while not killed.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process = start("killed")
    whole = hot()
    thermostat = {"temperature_K": 900.0, "friction_per_ps": 2.0}
    restart = {"restart": tmp_path / "whole.restart", "restart_every": 50}
    ActionLangevin(whole, model=make_map("Verlet", whole), **thermostat, **restart).run(500)
    assert process.wait() == 0
    assert (np.load(tmp_path / "killed.npy") == np.concatenate([whole.positions, whole.get_momenta()])).all()


def restart_file(tmp_path, atoms=None, **options):
    atoms = atoms or hot()
    path = tmp_path / "run.restart"
    ActionLangevin(
        atoms, model=make_map("Verlet", atoms), temperature_K=900.0, friction_per_ps=2.0, restart=path, **options
    ).run(3)
    return path


def test_a_run_is_not_gone_on_with_by_a_map_of_other_weights(tmp_path):
    path, atoms = tmp_path / "run.restart", hot()
    model = make_map("corrected", atoms)
    ActionNVE(atoms, model=model, restart=path).run(1)
    assert ActionNVE(hot(), model=model, restart=path).nsteps == 1
    with torch.no_grad():
        next(model.parameters()).add_(1e-6)
    with pytest.raises(DataError, match="was written with weights '[0-9a-f]{16}', this run has '[0-9a-f]{16}'"):
        ActionNVE(hot(), model=model, restart=path)


def test_restart_files_that_do_not_fit_are_refused(tmp_path):
    path = restart_file(tmp_path)
    atoms = hot()
    with pytest.raises(DataError, match="ensemble 'Langevin', this run has 'Microcanonical'"):
        ActionNVE(atoms, model=make_map("Verlet", atoms), restart=path)
    thermostat = {"temperature_K": 900.0, "friction_per_ps": 2.0}
    with pytest.raises(DataError, match="step_fs 4.0, this run has 2.0"):
        ActionLangevin(atoms, model=al.Verlet(SecondMomentMetals(), step_fs=2.0), restart=path, **thermostat)
    for change in ({"temperature_K": 300.0}, {"friction_per_ps": 1.0}):
        ((name, value),) = change.items()
        with pytest.raises(DataError, match=f"{name} {thermostat[name]}, this run has {value}: go on as it was begun"):
            ActionLangevin(atoms, model=make_map("Verlet", atoms), restart=path, **{**thermostat, **change})
    other = hot()
    other.numbers[0], other.numbers[1] = other.numbers[1], other.numbers[0]
    other.numbers[:] = other.numbers[::-1].copy()
    other.numbers[:3] = 79
    with pytest.raises(DataError, match="other atoms than these: their numbers differ"):
        ActionLangevin(other, model=make_map("Verlet", atoms), restart=path, **thermostat)
    held = hot()
    held.set_constraint(FixAtoms([0]))
    with pytest.raises(DataError, match="their fixed differ"):
        ActionLangevin(held, model=make_map("Verlet", atoms), restart=path, **thermostat)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="not readable as a restart file"):
        ActionLangevin(atoms, model=make_map("Verlet", atoms), restart=path, **thermostat)
    torch.save({"weights": 1}, path)
    with pytest.raises(DataError, match="not a restart file of format"):
        ActionLangevin(atoms, model=make_map("Verlet", atoms), restart=path, **thermostat)
    with pytest.raises(FileNotFoundError):
        ActionNVE(atoms, model=make_map("Verlet", atoms)).save_restart(tmp_path / "no" / "folder.restart")


# --- batches ----------------------------------------------------------------------------------------------


def test_replicas_of_different_sizes_move_as_they_would_alone():
    states = [al.PhaseState.from_atoms(hot(name, seed=k)) for k, name in enumerate(("cuau32", "cu4", "cuau108"))]
    model = al.CorrectedVerlet(SecondMomentMetals(), step_fs=4.0, stages=2)
    seen = []
    together = al.simulate(model, states, 30, observe=lambda step, now: seen.append((step, now.n_systems)), every=10)
    assert seen == [(0, 3), (10, 3), (20, 3), (30, 3)]
    assert together.summary["systems"] == 3 and together.summary["steps"] == 30
    for start, end in zip(states, together.states, strict=True):
        alone = al.simulate(al.Verlet(SecondMomentMetals(), step_fs=4.0), start, 0).state
        assert (alone.positions == start.positions).all()
        alone = al.simulate(model, start, 30).state
        assert (alone.positions - end.positions).abs().max() < 1e-9
        assert (alone.momenta - end.momenta).abs().max() < 1e-8


def test_engine_and_dynamics_object_agree_bit_by_bit():
    atoms = hot()
    start = al.PhaseState.from_atoms(atoms)
    ActionLangevin(atoms, model=make_map("Verlet", atoms), temperature_K=900.0, friction_per_ps=2.0, seed=3).run(30)
    end = al.simulate(make_map("Verlet", atoms), start, 30, ensemble=Langevin(900.0, 2.0, seed=3)).state
    assert (end.positions.numpy() == atoms.positions).all() and (end.momenta.numpy() == atoms.get_momenta()).all()


@pytest.mark.parametrize("kind", ["langevin", "bussi", "ghmc"])
def test_batches_stop_and_go_on(kind, tmp_path):
    potential = LennardJones()
    states = [al.PhaseState.from_atoms(bulk("Ar", cubic=True) * n) for n in (2, 3)]
    states = [state.moved(state.positions, 0.3 * torch.randn_like(state.positions)) for state in states]

    def ensemble():
        if kind == "langevin":
            return Langevin(40.0, 1.0, seed=1)
        if kind == "bussi":
            return VelocityRescaling(40.0, 0.5, seed=1)
        return GeneralisedHMC(potential, 40.0, 1.0, pressure_GPa=0.01, volume_every=5, seed=1)

    def run(steps, name):
        model = al.Verlet(potential, step_fs=10.0)
        return al.simulate(
            model, states, steps, ensemble=ensemble(), restart=tmp_path / name, restart_every=10
        )  # fmt: skip

    whole = run(40, "whole")
    run(20, "pieces")
    resumed = run(40, "pieces")
    assert (whole.state.positions == resumed.state.positions).all()
    assert (whole.state.cell == resumed.state.cell).all()
    assert run(40, "pieces").summary["steps"] == 40  # nothing left to do


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps must be a whole number, zero or more, got -1"),
        ({"steps": 1.5}, "steps must be a whole number.* got 1.5"),
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"restart_every": -5}, "restart_every must be .* got -5"),
        ({"states": []}, "empty list of states"),
        ({"model": "model.pt"}, "model must be a map .* got str"),
        ({"policy": "hope"}, "policy must be one of"),
        ({"drift_limit": 1.0}, "drift_limit needs energies"),
        ({"ensemble": Langevin(300.0, 1.0, zero_momentum=True), "states": ["fixed"]}, "cannot be held with fixed"),
    ],
)  # fmt: skip
def test_wrong_inputs_of_simulate(options, message):
    atoms = hot("cu4")
    if options.get("states") == ["fixed"]:
        atoms.set_constraint(FixAtoms([0]))
        options = {**options, "states": [al.PhaseState.from_atoms(atoms)]}
    given = {"model": make_map("Verlet", atoms), "states": al.PhaseState.from_atoms(atoms), "steps": 1} | options
    with pytest.raises((InvalidInput, ValueError), match=message) as caught:
        al.simulate(given.pop("model"), given.pop("states"), given.pop("steps"), **given)
    assert "\n" not in str(caught.value)
