import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from test_reference import cluster, files

from actionlearn import cli

HERE = Path(__file__).parent
SHORT = "--temperature 300 600 --step-fs 2 --stretches 3 --frames 6 --record-every 2 --equilibrate-ps 0.05".split()
SHORT += "--decorrelate-ps 0.02 --processes 1".split()


@pytest.fixture
def structure(tmp_path):
    ase.io.write(tmp_path / "cluster.traj", cluster())
    return str(tmp_path / "cluster.traj")


def sample(structure, output, *more, potential="sampled_potentials:springs"):
    return ["sample", structure, "--potential", potential, "--output", str(output), *SHORT, *more]


# a parent that runs in the background of a shell hands down an ignored SIGINT, which the test sends
INTERRUPTIBLE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from actionlearn.cli import main; sys.exit(main(sys.argv[1:]))"
)


def launch(arguments, **variables):
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_sample_prints_a_table(structure, tmp_path, capsys):
    assert cli.main(sample(structure, tmp_path / "set")) == 0
    out, err = capsys.readouterr()
    assert "36 frames 4 fs apart" in out and "the base step is sound" in out and "sampling [" in err


def test_help_of_every_verb(capsys):
    for verb in ([], ["sample"]):
        with pytest.raises(SystemExit) as ended:
            cli.main([*verb, "--help"])
        assert ended.value.code == 0
    assert "--seed" in capsys.readouterr().out


def broken_structure(tmp_path, name):
    atoms = cluster()
    if name == "nan.traj":
        atoms.positions[2, 1] = np.nan
    elif name == "massless.traj":
        atoms.set_masses([63.0, 0.0, 197.0, 197.0])
    elif name == "flat.traj":
        atoms.set_cell([5.0, 5.0, 0.0])
        atoms.pbc = True
    ase.io.write(tmp_path / name, atoms)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("absent.xyz", [], "absent.xyz"),
        ("nan.traj", [], "positions are not finite, first at atom 2"),
        ("massless.traj", [], "mass of atom 1 is 0.0 u"),
        ("flat.traj", [], "span no volume"),
        ("good.traj", ["--potential", "nonesuch"], "nonesuch"),
        ("good.traj", ["--potential", "nonesuch:factory"], "nonesuch"),
        ("good.traj", ["--potential", "sampled_potentials:absent"], "absent"),
        ("good.traj", ["--potential", "sampled_potentials:failing"], "self-consistency not reached in 250 cycles"),
        ("good.traj", ["--step-fs", "-1"], "step_fs is -1.0"),
        ("good.traj", ["--temperature", "0"], "temperature 1 is 0.0"),
        ("good.traj", ["--output", "/dev/null/set"], "cannot write in folder /dev/null/set"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, name, more, message):
    if name != "absent.xyz":
        broken_structure(tmp_path, name)
    assert cli.main([*sample(str(tmp_path / name), tmp_path / "set"), *more]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("sampling [")]
    assert len(lines) == 1 and message in lines[0] and lines[0].startswith("actionlearn sample: ")


def test_wrong_usage_ends_with_two(capsys):
    for arguments in ([], ["fly"], ["sample"], sample("x", "y", "--frames", "many")):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_refused(structure, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert cli.main(sample(structure, tmp_path / "locked")) == 1
    assert "cannot write in folder" in capsys.readouterr().err


def test_the_folder_of_another_run_is_refused(structure, tmp_path, capsys):
    assert cli.main(sample(structure, tmp_path / "set")) == 0
    assert cli.main(sample(structure, tmp_path / "set", "--seed", "5")) == 1
    assert "holds another run, which differs: seed is 0 there, 5 here" in capsys.readouterr().err


@pytest.mark.parametrize(("processes", "how"), [(1, signal.SIGKILL), (2, signal.SIGKILL), (1, signal.SIGINT)])
def test_killed_and_interrupted_runs_resume_to_the_same_files(structure, tmp_path, processes, how):
    assert cli.main(sample(structure, tmp_path / "whole", potential="sampled_potentials:slow")) == 0
    again = sample(structure, tmp_path / "set", potential="sampled_potentials:slow")
    run = launch([*again, "--processes", str(processes)], PAUSE="0.01")
    wait_for_more_stretches(tmp_path / "set", run)
    run.send_signal(how)
    _, err = run.communicate(timeout=60)
    if how == signal.SIGINT:
        assert run.returncode == cli.INTERRUPTED and "interrupted; what was written is kept" in err
        assert "Traceback" not in err
    assert cli.main(again) == 0
    assert files(tmp_path / "set") == files(tmp_path / "whole")


def wait_for_more_stretches(folder, run):
    """Until the run has written one more stretch."""
    before = len(list(folder.glob("stretch-*.npz")))
    for _ in range(600):
        if len(list(folder.glob("stretch-*.npz"))) > before:
            return
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    raise TimeoutError("no stretch was written")
