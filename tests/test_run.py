"""`actionlearn run`: what it writes, that it goes on after a kill, and what it says to wrong input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.constraints import FixBondLength

import actionlearn as al
from actionlearn import cli
from actionlearn.dynamics.frames import FrameFile
from actionlearn.dynamics.restart import read_restart
from actionlearn.maps.blueprint import Blueprint
from actionlearn.systems import structure


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A corrected map without a correction: untrained heads are zero."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    blueprint = Blueprint(
        kind="corrected", species=(29, 79), masses={29: 63.546, 79: 196.96657}, step_fs=5.0, stages=1, base="metals",
        network={"cutoff": 4.0, "channels": 2, "hidden": 4},
    )  # fmt: skip
    al.save(blueprint.build(al.potentials.SecondMomentMetals()), path)
    return str(path)


def command(model, output, *more, ps="0.2", name="cuau32"):
    return ["run", name, "--model", model, "--output", str(output), "--ps", ps, "--temperature", "300", *more]


@pytest.mark.parametrize("ending", ["xyz", "traj"])
@pytest.mark.parametrize("ensemble", ["nve", "langevin", "bussi", "ghmc"])
def test_trajectory_and_summary(model, tmp_path, capsys, ensemble, ending):
    output = tmp_path / "new folder" / f"run.{ending}"
    more = ["--ensemble", ensemble, "--potential", "metals", "--frames-every", "10"]
    more += ["--pressure", "0.1"] if ensemble == "ghmc" else []
    assert cli.main(command(model, output, *more)) == 0
    out, err = capsys.readouterr()
    assert "ns per day" in out and f"{ensemble} 0.2 ps [" in err
    frames = ase.io.read(output, ":")
    assert [frame.info["step"] for frame in frames] == [0, 10, 20, 30, 40]
    assert frames[-1].info["time_fs"] == 200.0 and frames[-1].get_potential_energy() < -90
    assert np.abs(frames[-1].get_momenta()).max() > 0
    summary = json.loads((tmp_path / "new folder" / f"run.{ending}.json").read_text())
    assert summary["steps"] == 40 and summary["ensemble"] == ensemble and summary["step_fs"] == 5.0
    assert ("acceptance" in summary) == (ensemble == "ghmc")


def test_dry_run_writes_nothing(model, tmp_path, capsys):
    assert cli.main(command(model, tmp_path / "deep" / "run.xyz", "--dry-run")) == 0
    out = capsys.readouterr().out
    assert "corrected, steps of 5 fs" in out and "minutes" in out and not list(tmp_path.iterdir())


def test_a_finished_run_is_continued_and_a_seed_gives_the_same_files(model, tmp_path):
    more = ["--ensemble", "langevin", "--restart-every", "20", "--frames-every", "7", "--seed", "3"]
    assert cli.main(command(model, tmp_path / "whole.xyz", *more, ps="0.3")) == 0
    assert cli.main(command(model, tmp_path / "pieces.xyz", *more, ps="0.1")) == 0
    assert cli.main(command(model, tmp_path / "pieces.xyz", *more, ps="0.3")) == 0
    assert (tmp_path / "whole.xyz").read_bytes() == (tmp_path / "pieces.xyz").read_bytes()
    assert cli.main(command(model, tmp_path / "pieces.xyz", *more, ps="0.3")) == 0  # nothing left
    assert (tmp_path / "whole.xyz").read_bytes() == (tmp_path / "pieces.xyz").read_bytes()
    other = [*more[:-1], "4"]
    assert cli.main(command(model, tmp_path / "other.xyz", *other, ps="0.3")) == 0
    assert (tmp_path / "whole.xyz").read_bytes() != (tmp_path / "other.xyz").read_bytes()


# forks of one process that has imported everything: each runs the command until it is killed
KILLER = """
import os, random, signal, sys, time
import torch
from actionlearn import cli
torch.set_num_threads(1)
random.seed(0)
restart, *arguments = sys.argv[1:]
written = lambda: os.stat(restart).st_mtime_ns if os.path.exists(restart) else 0
kills = 0
while kills < 20:
    before, deadline = written(), time.monotonic() + random.choice([0, 20, 20])
    child = os.fork()
    if child == 0:
        os._exit(cli.main(arguments))
    while written() == before and time.monotonic() < deadline:  # mostly, let it get somewhere
        time.sleep(1e-3)
    time.sleep(random.uniform(0.0, 0.1))
    os.kill(child, signal.SIGKILL)
    kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
"""


def test_killed_twenty_times_and_resumed_to_the_same_file(model, tmp_path):
    """The run is longer than the kills allow; it is then ended, and compared with one that was left alone."""
    more = ["--ensemble", "langevin", "--restart-every", "10", "--frames-every", "5"]
    output, restart = tmp_path / "killed.xyz", tmp_path / "killed.xyz.restart"
    endless = command(model, output, *more, ps="1000")
    subprocess.run([sys.executable, "-c", KILLER, str(restart), *endless], check=True)
    steps = read_restart(restart)[1]["record"]["steps"]
    assert steps >= 100
    ps = f"{(steps + 50) * 5e-3:.3f}"
    assert cli.main(command(model, output, *more, ps=ps)) == 0
    assert cli.main(command(model, tmp_path / "whole.xyz", *more, ps=ps)) == 0
    assert output.read_bytes() == (tmp_path / "whole.xyz").read_bytes()


@pytest.mark.parametrize("ending", ["xyz", "traj"])
def test_frames_after_the_restart_file_are_cut_off(model, tmp_path, ending):
    output = tmp_path / f"run.{ending}"
    assert cli.main(command(model, output, ps="0.1")) == 0
    atoms = ase.io.read(output)
    FrameFile(output).write(atoms, 30, 150.0)
    if ending == "xyz":
        with output.open("a") as file:
            file.write("32\nProperties=spec")  # a frame that was being written
    assert cli.main(command(model, output, ps="0.2")) == 0
    assert [frame.info["step"] for frame in ase.io.read(output, ":")] == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("ending", ["xyz", "traj"])
def test_a_file_that_is_not_of_a_run_is_not_written_over(model, tmp_path, capsys, ending):
    output = tmp_path / f"start.{ending}"
    ase.io.write(output, structure("cuau32"))
    before = output.read_bytes()
    assert cli.main(command(model, output, name=str(output))) == 1
    assert "was not written by a run: it would be lost" in capsys.readouterr().err
    assert output.read_bytes() == before
    FrameFile(tmp_path / f"run.{ending}").write(structure("cuau32"), 0, 0.0)  # of a run without a restart file yet
    assert cli.main(command(model, tmp_path / f"run.{ending}")) == 0


def wrong_structure(path, change):
    atoms = structure("cuau32")
    change(atoms)
    ase.io.write(path, atoms)
    return str(path)


def put(name, value):
    def change(atoms):
        atoms.arrays[name][2] = value

    return change


def heavier(atoms):
    atoms.set_masses(atoms.get_masses() * 1.5)


def bonded(atoms):
    atoms.set_constraint(FixBondLength(0, 1))


BAD = {
    "no structure": (["nosuch.xyz"], [], "nosuch.xyz"),
    "no model": ([], ["--model", "nosuch.pt"], "there is no checkpoint nosuch.pt"),
    "a model that is none": ([], ["--model", __file__], "is no checkpoint"),
    "format": ([], ["--output", "run.pdb"], "must end in .xyz, .extxyz or .traj"),
    "folder": ([], ["--output", "/dev/null/run.xyz"], "cannot write in folder /dev/null"),
    "length": ([], ["--ps", "-1"], "--ps is -1.0"),
    "endless": ([], ["--ps", "inf"], "--ps is inf"),
    "frames": ([], ["--frames-every", "0"], "--frames-every is 0"),
    "restart": ([], ["--restart-every", "-3"], "--restart-every is -3"),
    "temperature": ([], ["--temperature", "-300"], "--temperature is -300.0"),
    "friction": ([], ["--ensemble", "langevin", "--friction-per-ps", "0"], "friction_per_ps must be a positive"),
    "relaxation": ([], ["--ensemble", "bussi", "--relaxation-ps", "-1"], "time_ps must be a positive"),
    "pressure without ghmc": ([], ["--pressure", "1"], "--pressure needs --ensemble ghmc"),
    "ghmc without energies": ([], ["--ensemble", "ghmc"], "name it with --potential"),
    "potential": ([], ["--potential", "nonesuch"], "no potential is called 'nonesuch'"),
    "proposal": (
        [], ["--ensemble", "ghmc", "--potential", "metals", "--proposal-steps", "0"], "steps_per_move must be"),
    "drift of ghmc": (
        [], ["--ensemble", "ghmc", "--potential", "metals", "--drift-limit", "1"], "no meaning with --ensemble ghmc"),
    "policy of ghmc": (
        [], ["--ensemble", "ghmc", "--potential", "metals", "--policy", "fallback"], "--policy has no meaning"),
    "fallback of ghmc": (
        [], ["--ensemble", "ghmc", "--potential", "metals", "--on-uncertain", "fallback"], "needs no fallback"),
    "drift without energies": ([], ["--drift-limit", "1"], "drift_limit needs energies"),
    "drift": ([], ["--drift-limit", "-1", "--potential", "metals"], "drift_limit must be a positive"),
    "hydrogens": ([], ["--hmr", "3"], "there is no hydrogen in this structure"),
    "mass of hydrogens": (["water4"], ["--hmr", "0.5"], "expected a mass between 1.008 and 12 u"),
    "species": (["ag32"], [], "made for Cu, Au"),
    "nan": ([put("positions", np.nan)], [], "positions are not finite, first at atom 2"),
    "mass": ([heavier], [], "mass"),
    "constraint": ([bonded], [], "FixBondLength"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_one_line(model, tmp_path, capsys, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    what, options, message = BAD[case]
    name = what[0] if what else "cuau32"
    if callable(name):
        name = wrong_structure(tmp_path / "wrong.traj", name)
    assert cli.main([*command(model, "run.xyz", name=name), *options]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0] and lines[0].startswith("actionlearn run: ")
    assert not (tmp_path / "run.xyz").exists()


def test_momenta_are_needed_from_somewhere(model, tmp_path, capsys):
    arguments = [a for a in command(model, tmp_path / "run.xyz") if a not in ("--temperature", "300")]
    assert cli.main(arguments) == 1
    assert "has no momenta: give a --temperature" in capsys.readouterr().err
    assert cli.main([*arguments, "--ensemble", "bussi"]) == 1
    assert "needs a --temperature" in capsys.readouterr().err


def test_a_restart_of_another_run_is_refused(model, tmp_path, capsys):
    output = tmp_path / "run.xyz"
    assert cli.main(command(model, output)) == 0
    capsys.readouterr()
    assert cli.main(command(model, output, "--ensemble", "langevin")) == 1
    assert "written with ensemble 'Microcanonical', this run has 'Langevin'" in capsys.readouterr().err
    assert cli.main(command(model, output, name="cuau108")) == 1
    assert "other atoms than these" in capsys.readouterr().err
    os.remove(output)
    assert cli.main(command(model, output, ps="0.4")) == 1
    assert "is gone, its run cannot be continued" in capsys.readouterr().err


def test_a_run_outside_the_range_of_training_falls_back_and_counts(tmp_path, capsys):
    shipped = str(Path(__file__).parent.parent / "data" / "models" / "cuau-discrete-24fs.pt")
    atoms = structure("cuau32")
    atoms.set_cell(0.9 * atoms.cell, scale_atoms=True)
    ase.io.write(tmp_path / "dense.traj", atoms)
    again = command(
        shipped, tmp_path / "run.xyz", "--potential", "metals", ps="0.48", name=str(tmp_path / "dense.traj")
    )
    assert cli.main([*again, "--on-uncertain", "raise"]) == 1
    assert "atoms are outside the range of training after 0 steps" in capsys.readouterr().err
    assert cli.main([*again, "--on-uncertain", "fallback"]) == 0
    out = capsys.readouterr().out
    assert "fallbacks  1" in out and "fallback steps  20" in out
    assert float(out.split("share outside training")[1].split()[0]) > 0.5
