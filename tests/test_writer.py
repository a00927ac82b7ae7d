"""Trajectories written by a thread of their own: in order, complete at every restart file, errors not lost."""

import os
import threading
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from test_restart import hot, make_map
from test_run import command, model  # noqa: F401  (a fixture)

import actionlearn as al
from actionlearn import cli
from actionlearn.dynamics import Langevin
from actionlearn.dynamics.frames import FrameFile, SystemFiles
from actionlearn.dynamics.writer import QUEUED, Writer
from actionlearn.errors import DataError, InvalidInput
from actionlearn.potentials import SecondMomentMetals


def test_jobs_are_done_in_order_while_the_caller_goes_on():
    done, gate = [], threading.Event()
    with Writer() as writer:
        writer.do(gate.wait)
        for k in range(10):
            writer.do(lambda k=k: done.append((k, threading.current_thread().name)))
        assert not done  # the caller did not wait
        gate.set()
        writer.flush()
        assert done == [(k, "writer") for k in range(10)]
    assert not any(thread.name == "writer" for thread in threading.enumerate())


def test_the_queue_is_bounded():
    gate, handed = threading.Event(), []
    with Writer() as writer:
        writer.do(gate.wait)
        filling = threading.Thread(target=lambda: [handed.append(writer.do(lambda: None)) for _ in range(QUEUED + 20)])
        filling.start()
        filling.join(0.2)
        assert filling.is_alive() and len(handed) <= QUEUED
        gate.set()
        filling.join()


def test_the_first_error_ends_the_work_and_surfaces_everywhere():
    done = []

    def fail():
        raise OSError(28, "No space left on device", "run.xyz")

    writer = Writer()
    writer.do(fail)
    for call in (writer.flush, lambda: writer.do(lambda: done.append(1)), writer.close):
        with pytest.raises(OSError, match="No space left"):
            call()
    assert not done
    with pytest.raises(OSError, match="No space left"), Writer() as other:
        other.do(fail)
    with pytest.raises(ZeroDivisionError), Writer() as other:  # what is on its way is not replaced
        other.do(fail)
        raise ZeroDivisionError


def test_a_full_disk_is_one_line_and_leaves_a_run_that_goes_on(model, tmp_path, capsys, monkeypatch):  # noqa: F811
    more = ["--restart-every", "20", "--frames-every", "5"]
    again = command(model, tmp_path / "run.xyz", *more, ps="0.5")
    append, frames = FrameFile.append, []

    def full(self, frame):
        frames.append(frame)
        if len(frames) == 12:  # step 55
            raise OSError(28, "No space left on device", str(self.path))
        append(self, frame)

    monkeypatch.setattr(FrameFile, "append", full)
    assert cli.main(again) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("nve")]
    assert len(lines) == 1 and "No space left on device" in lines[0] and not (tmp_path / "run.xyz.json").exists()
    monkeypatch.setattr(FrameFile, "append", append)
    assert cli.main(again) == 0
    assert cli.main(command(model, tmp_path / "whole.xyz", *more, ps="0.5")) == 0
    assert (tmp_path / "run.xyz").read_bytes() == (tmp_path / "whole.xyz").read_bytes()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("ending", ["xyz", "traj"])
def test_trajectories_of_replicas_are_the_same_after_kills(tmp_path, ending):
    states = [al.PhaseState.from_atoms(hot(name, seed=k)) for k, name in enumerate(("cuau32", "cu4"))]
    base = SecondMomentMetals(skin=0.2)

    def run(name, kill_at=None):
        def observe(step, now):
            if step == kill_at:
                raise Killed

        return al.simulate(
            make_map("Verlet", hot()), states, 60, ensemble=Langevin(900.0, 2.0, seed=1), observe=observe, every=5,
            trajectory=tmp_path / name / f"run.{ending}", potential=base, restart=tmp_path / f"{name}.restart",
            restart_every=10,
        )  # fmt: skip

    (tmp_path / "killed").mkdir()
    whole = run("whole")
    for at in (15, 35, 40):
        with pytest.raises(Killed):
            run("killed", at)
    assert torch.equal(run("killed").state.positions, whole.state.positions)
    for k, state in enumerate(whole.states):
        frames = [ase.io.read(tmp_path / name / f"run-00{k}.{ending}", ":") for name in ("whole", "killed")]
        assert [f.info["step"] for f in frames[0]] == [f.info["step"] for f in frames[1]] == list(range(0, 61, 5))
        for a, b in zip(*frames, strict=True):
            assert (a.positions == b.positions).all() and (a.get_momenta() == b.get_momenta()).all()
            assert a.get_potential_energy() == b.get_potential_energy()
        assert np.abs(frames[0][-1].positions - state.positions.numpy()).max() < 1e-7
        assert frames[0][-1].info["time_fs"] == 240.0


def test_one_system_has_one_file_and_other_runs_are_replaced(tmp_path):
    state = al.PhaseState.from_atoms(hot("cu4"))
    for steps in (20, 10):
        al.simulate(make_map("Verlet", hot()), state, steps, trajectory=tmp_path / "run.traj", every=5)
    assert len(ase.io.read(tmp_path / "run.traj", ":")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["run.traj"]
    with pytest.raises(InvalidInput, match="must end in .xyz"):
        al.simulate(make_map("Verlet", hot()), state, 1, trajectory="run.pdb")
    with pytest.raises(DataError, match="is gone"):
        SystemFiles(tmp_path / "none.traj", 2).begin(5)


@pytest.mark.parametrize("how", ["simulate", "run"])
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files are read from /proc")
def test_frames_are_on_the_disk_before_the_restart_file(model, tmp_path, monkeypatch, how):  # noqa: F811
    synced, fsync = [], os.fsync

    def noted(descriptor):
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    if how == "run":
        assert cli.main(command(model, tmp_path / "run.xyz", "--restart-every", "20")) == 0
    else:
        state, at = al.PhaseState.from_atoms(hot("cu4")), tmp_path / "run.xyz"
        al.simulate(
            make_map("Verlet", hot()), state, 40, trajectory=at, every=10, restart=tmp_path / "r", restart_every=20
        )
    kinds = ["restart" if name.endswith(".partial") else name for name in synced]
    assert kinds[:4] == ["run.xyz", "restart", "run.xyz", "restart"]
