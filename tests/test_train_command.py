"""`actionlearn train`: from a folder of stretches to a checkpoint, and what it refuses."""

import ase
import ase.io
import pytest
import torch
from test_reference import cluster

import actionlearn as al
from actionlearn import cli

QUICK = "--step-fs 16 --updates 12 --channels 4 --hidden 16 --cutoff 4.5 --batch-atoms 32".split()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    ase.io.write(folder / "cluster.traj", cluster())
    wishes = "--potential metals --temperature 200 --step-fs 2 --record-every 4 --stretches 4 --frames 21".split()
    wishes += "--equilibrate-ps 0.2 --decorrelate-ps 0.05 --processes 1".split()
    assert cli.main(["sample", str(folder / "cluster.traj"), "--output", str(folder / "set"), *wishes]) == 0
    return str(folder / "set")


@pytest.mark.parametrize("kind", ["discrete", "corrected", "processed"])
def test_train_writes_a_map_its_curve_and_its_errors(reference, tmp_path, capsys, kind):
    output = tmp_path / "model.pt"
    assert cli.main(["train", reference, "--kind", kind, "--output", str(output), *QUICK]) == 0
    assert f"{kind}, s = 2, h = 16 fs: 12 updates" in capsys.readouterr().out
    model = al.load(output, step_fs=16.0)
    state = al.ReferenceSet.open(reference)[0].state(0)
    assert torch.isfinite(model.step(state, 2).positions).all()
    report = model.report
    assert report["test"]["momentum"] > 0 and report["temperatures_K"] == [200.0, 200.0]
    assert len(report["curve"]) == 12 and len(report["stretches"]["training"]) == 2
    assert (model.blueprint.base, model.kind) == ("metals" if kind == "corrected" else None, kind)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.png", "model.pt"]


def test_train_takes_labels_as_asked(reference, tmp_path):
    output, wishes = tmp_path / "model.pt", ["--force-matching", "0.5", "--action-weight", "0.2", "--window", "3"]
    assert cli.main(["train", reference, "--output", str(output), *QUICK, *wishes]) == 0
    settings = al.load(output).report["settings"]
    assert (settings["force_matching"], settings["action"], settings["window"]) == (0.5, 0.2, 3)


def test_sets_of_several_compositions_and_sizes_make_one_map(tmp_path, capsys):
    """Copper alone first: the base potential must know the gold that only the second set has."""
    trimer = ase.Atoms("Cu3", positions=[[0, 0, 0], [2.3, 0, 0], [1.15, 2.0, 0]])
    wishes = "--potential metals --temperature 150 300 --step-fs 2 --record-every 4 --stretches 2 --frames 17".split()
    wishes += "--equilibrate-ps 0.1 --decorrelate-ps 0.05 --processes 1".split()
    folders = []
    for name, atoms in (("small", trimer), ("large", cluster())):
        ase.io.write(tmp_path / f"{name}.traj", atoms)
        folders.append(str(tmp_path / name))
        assert cli.main(["sample", str(tmp_path / f"{name}.traj"), "--output", folders[-1], *wishes]) == 0
    output = str(tmp_path / "model.pt")
    assert cli.main(["train", *folders, "--kind", "corrected", "--output", output, *QUICK]) == 0
    model = al.load(output)
    assert model.species == (29, 79) and model.report["temperatures_K"] == [150.0, 300.0]
    used = model.report["checksums"]
    assert len(used["training"]) + len(used["validation"]) + len(used["test"]) == 8
    both = al.PhaseState.batch([al.ReferenceSet.open(folder)[0].state(0) for folder in folders])
    assert both.atoms_per_system.tolist() == [3, 4]
    together, alone = model.step(both), [model.step(state) for state in both.unbatch()]
    assert torch.allclose(together.momenta, torch.cat([state.momenta for state in alone]), atol=1e-10)
    capsys.readouterr()
    assert cli.main(["validate", output, *folders, "--ps", "1.7", "--output", str(tmp_path / "validation")]) == 0
    assert "VERDICT" in capsys.readouterr().out


def test_train_goes_on_and_ends_in_the_same_file(reference, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole.pt", tmp_path / "parts.pt"
    assert cli.main(["train", reference, "--output", str(whole), *QUICK]) == 0
    update = al.Trainer.update

    def interrupted(self):
        if self.updates == 7:
            raise KeyboardInterrupt
        return update(self)

    monkeypatch.setattr(al.Trainer, "update", interrupted)
    assert cli.main(["train", reference, "--output", str(parts), *QUICK]) == cli.INTERRUPTED
    assert not parts.exists() and (tmp_path / "parts.pt.state").exists()
    monkeypatch.undo()
    assert cli.main(["train", reference, "--output", str(parts), *QUICK]) == 0
    one, other = (torch.load(path, weights_only=True)["weights"] for path in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_train_starts_from_a_checkpoint(reference, tmp_path, capsys):
    first, second = str(tmp_path / "first.pt"), str(tmp_path / "second.pt")
    assert cli.main(["train", reference, "--output", first, *QUICK, "--stages", "3"]) == 0
    more = ["--start", first, "--step-fs", "24", "--updates", "8"]
    assert cli.main(["train", reference, "--output", second, *QUICK, *more]) == 0
    assert "discrete, s = 3, h = 24 fs: 8 updates" in capsys.readouterr().out
    assert al.load(second).blueprint.network == al.load(first).blueprint.network


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--step-fs", "15"], "step_fs=15 is no multiple of the 8 fs"),
        (["--stages", "-2"], "stages must be at least 1, not -2"),
        (["--kind", "direct", "--stages", "2"], "a direct map has one stage, not 2"),
        (["--kind", "corrected", "--base", "nonesuch"], "nonesuch"),
        (["--output", "/nowhere/model.pt"], "there is no folder /nowhere"),
        (["--force-matching", "1.5"], "from 0 to below 1, not 1.5"),
        (["--action-weight", "0.1", "--batch-atoms", "4"], "batch at least"),
        (["--updates", "0"], "the budget must be positive, not 0"),
    ],
)
def test_train_refuses_in_one_line(reference, tmp_path, capsys, more, message):
    wish = ["train", reference, "--output", str(tmp_path / "model.pt"), *QUICK, *more]
    assert cli.main(wish) == 1
    err = capsys.readouterr().err.strip()
    assert message in err and err.startswith("actionlearn train: ") and "\n" not in err


def test_train_overwrites_nothing_and_wants_data(reference, tmp_path, capsys):
    (tmp_path / "model.pt").touch()
    assert cli.main(["train", reference, "--output", str(tmp_path / "model.pt"), *QUICK]) == 1
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["train", str(tmp_path), "--output", str(tmp_path / "other.pt"), *QUICK]) == 1
    assert "manifest.json" in capsys.readouterr().err
