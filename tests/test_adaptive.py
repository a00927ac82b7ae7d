"""Adaptive sampling: picks what differs, counts what it spends, keeps all it computed, and survives a kill anywhere."""

import dataclasses
import sys

import ase
import numpy as np
import pytest
import torch

import actionlearn as al
from actionlearn import cli
from actionlearn.adaptive import (
    Adaptive,
    Candidates,
    Plan,
    draw,
    explore,
    half_uncertain,
    most_uncertain,
    rounds,
    table,
)
from actionlearn.dataset import Dataset
from actionlearn.errors import CalculatorFailed, DataError, InvalidInput
from actionlearn.maps.blueprint import Blueprint, learned_part
from actionlearn.potentials import SecondMomentMetals
from actionlearn.reference import ReferenceSet
from actionlearn.reference.growing import GrowingSet
from actionlearn.settings import Settings
from actionlearn.training import Trainer

STEP_FS = 16.0
explore_module = sys.modules["actionlearn.adaptive.explore"]  # the package has a function of that name
MASSES = {29: 63.546, 79: 196.966569}
NETWORK = {"cutoff": 4.5, "channels": 4, "hidden": 8, "radial": 4}
TETRAHEDRON = 2.5 / 8**0.5 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
PLAN = Plan((300.0,), rounds=2, stretches=3, runs=2, ps=0.3)
BRIEF = Plan((300.0,), rounds=1, stretches=2, runs=2, ps=0.15)


class Counting(SecondMomentMetals):
    """Counts what an evaluation costs: one for each system."""

    calls = 0

    def forces(self, state):
        self.calls += state.n_systems
        return super().forces(state)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adaptive") / "first"
    options = {"stretches": 4, "frames": 17, "record_every": 4, "equilibrate_ps": 0.3, "decorrelate_ps": 0.1}
    atoms = ase.Atoms("Cu2Au2", positions=TETRAHEDRON)
    return al.sample(atoms, SecondMomentMetals(), folder, temperatures_K=[100.0], step_fs=2.0, **options)


def adaptive(first, folder, plan=BRIEF, base=None, kind="discrete", updates=8, **options):
    blueprint = Blueprint(kind, (29, 79), MASSES, STEP_FS, 2, NETWORK)
    settings = Settings(minutes=None, updates=updates, batch_atoms=32, validations=4, learning_rate=0.01)
    return Adaptive(folder, [first], blueprint, settings, plan, base or SecondMomentMetals(), **options)


@pytest.fixture(scope="module")
def whole(first, tmp_path_factory):
    base = Counting()
    loop = adaptive(first, tmp_path_factory.mktemp("whole"), plan=PLAN, base=base, updates=40)
    return loop, *loop.run(), base


# --- which states ---------------------------------------------------------------------------------


def candidates(*rows):
    state = al.PhaseState(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2), numbers=[29, 79])
    return Candidates([state] * len(rows), [300.0] * len(rows), torch.tensor(rows))


def test_the_most_uncertain_states_that_differ_are_chosen():
    near, x, x_again, y = [0.2, 0.1], [2.0, 0.0], [1.9, 0.1], [0.0, 1.5]
    rows = [[near, near], [near, x], [near, x_again], [near, y], [y, near]]
    assert most_uncertain(candidates(*rows), 3) == [1, 3, 4]  # Au in the direction of y says nothing about Cu
    assert sorted(most_uncertain(candidates(*rows), 9)) == [0, 1, 2, 3, 4]
    assert most_uncertain(candidates(*rows), 1) == [1]


def test_half_of_the_states_are_the_most_uncertain():
    rows = [[[0.1 * k, 0.0], [0.0, 0.1]] for k in range(20)]
    found = half_uncertain(candidates(*rows), 6)
    assert found[0] == 19 and len(set(found)) == 6 and sorted(half_uncertain(candidates(*rows), 99)) == list(range(20))


def test_inside_the_edge_states_that_differ_are_chosen_too():
    rows = [[[0.2, 0.1]] * 2, [[0.1, 0.1], [0.0, 0.8]], [[0.1, 0.1], [0.0, 0.79]], [[0.1, 0.1], [0.75, 0.0]]]
    assert most_uncertain(candidates(*rows), 2) == [1, 3]


# --- the rounds -----------------------------------------------------------------------------------


def test_rounds_buy_accuracy_where_the_first_stretches_were_not(first, whole):
    loop, model, found, _ = whole
    assert [r.number for r in found] == [0, 1, 2] and found[-1].new == 0
    hot = al.sample(
        first[0].system.to_atoms(),
        SecondMomentMetals(),
        loop.folder / "hot",
        temperatures_K=[300.0],
        step_fs=2.0,
        stretches=2,
        frames=17,
        record_every=4,
        equilibrate_ps=0.3,
    )
    hot = Dataset(list(hot), step_fs=STEP_FS)
    error = [al.losses.step_errors(m, hot).momentum for m in (al.load(loop.folder / "rounds/round-0.pt"), model)]
    assert error[1] < error[0]
    assert found[0].largest > 1.0


def test_a_run_that_cannot_be_believed_is_gone_on_from_where_it_could(first, whole, monkeypatch):
    monkeypatch.setattr(explore_module, "TRUST", 1e-3)  # not even the start is
    model = al.load(whole[0].folder / "rounds/round-0.pt")
    options = {"ps": 0.2, "states": 5, "seed": 0, "choose": most_uncertain}
    starts = [first[0].state(0), first[1].state(0), first[2].state(0)]
    assert len(explore(model, starts, [300.0], SecondMomentMetals(), **options).positions) == 0
    monkeypatch.setattr(explore_module, "TRUST", 1.0)
    found = explore(model, starts, [300.0], SecondMomentMetals(), **options)
    assert len(found.positions) == 5 and (found.uncertainties <= 1.0).all() and found.largest > 1.0


def test_calls_are_those_that_were_made(first, whole):
    loop, _, found, base = whole
    new = len(loop.set.entries)
    assert new == found[0].new + found[1].new == found[2].stretches - found[0].stretches
    assert base.calls == new * loop.set.calls_per_stretch
    runs = sum(2 * PLAN.runs for r in found if r.drift is not None)
    assert found[2].calls == loop.first_calls + base.calls + runs


def test_calls_of_sampled_stretches(tmp_path):
    base, options = Counting(), {"stretches": 3, "frames": 5, "record_every": 2, "chains": 1}
    atoms = ase.Atoms("Cu2Au2", positions=TETRAHEDRON)
    seen = []

    forces = SecondMomentMetals.forces

    def counted(self, state):
        seen.append(1)
        return forces(self, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SecondMomentMetals, "forces", counted)
        found = al.sample(
            atoms, SecondMomentMetals(), tmp_path / "set", temperatures_K=[50.0], step_fs=2.0, equilibrate_ps=0.1,
            decorrelate_ps=0.04, **options
        )  # fmt: skip
    assert abs(rounds.calls_of(found) - len(seen)) <= 3 and not base.calls


def test_all_stretches_stay_and_the_folder_is_a_set_like_any_other(whole):
    loop, model, found, _ = whole
    kept = ReferenceSet.open(loop.folder)
    assert len(kept) == sum(r.new for r in found) and kept.complete and kept.temperatures_K == [300.0]
    training, validation = loop.sets(2)
    used = {s.checksum for s in [*training.stretches, *validation.stretches, *loop.test.stretches]}
    assert {s.checksum for s in kept} <= used and len(used) == len(kept) + 4
    assert not {s.checksum for s in loop.held_out.stretches} & {s.checksum for s in training.stretches}
    assert isinstance(Dataset.open([loop.folder], step_fs=STEP_FS), Dataset)
    assert model.uncertainty(kept[0].state(0)).shape == (4,)


def test_table_and_picture(whole, tmp_path):
    lines = table(whole[2]).splitlines()
    assert len(lines) == 4 and lines[0].split()[:3] == ["round", "base", "calls"]
    draw(whole[2], tmp_path / "rounds.png")
    assert (tmp_path / "rounds.png").stat().st_size > 5000


class Killed(BaseException):
    pass


def killed_after(function, count):
    """The same function, which dies at its call number `count`."""
    calls = iter(range(count))

    def dying(*arguments, **options):
        if next(calls, None) is None:
            raise Killed
        return function(*arguments, **options)

    return dying


@pytest.fixture(scope="module")
def unbroken(first, tmp_path_factory):
    return adaptive(first, tmp_path_factory.mktemp("unbroken")).run()


@pytest.mark.parametrize(
    ("where", "what", "count"),
    [(GrowingSet, "add", 1), (Trainer, "update", 13), (rounds, "explore", 1), (rounds.Explored, "write", 0)],
)
def test_a_killed_run_goes_on_and_ends_the_same(first, unbroken, tmp_path, monkeypatch, where, what, count):
    with monkeypatch.context() as patch:
        patch.setattr(where, what, killed_after(getattr(where, what), count))
        with pytest.raises(Killed):
            adaptive(first, tmp_path).run()
    left = {path: path.read_bytes() for path in tmp_path.glob("stretch-*.npz")}
    base = Counting()
    loop = adaptive(first, tmp_path, base=base)
    model, found = loop.run()
    assert found == unbroken[1] and found[0].new == 2
    one, other = (learned_part(m).state_dict() for m in (model, unbroken[0]))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(path.read_bytes() == content for path, content in left.items())
    assert base.calls == (len(loop.set.entries) - len(left)) * loop.set.calls_per_stretch
    again = Counting()
    assert adaptive(first, tmp_path, base=again).run()[1] == found and again.calls == 0


def test_budgets_end_it_and_larger_ones_go_on(first, unbroken, tmp_path):
    loop = adaptive(first, tmp_path, plan=dataclasses.replace(BRIEF, calls=1))
    assert [r.new for r in loop.run()[1]] == [0]
    enough = loop.first_calls + 4 + loop.set.calls_per_stretch
    found = adaptive(first, tmp_path, plan=dataclasses.replace(BRIEF, calls=enough)).run()[1]
    assert [r.new for r in found] == [1, 0] and found[0].wanted == 2 and found[-1].calls <= enough + 4
    assert [r.new for r in adaptive(first, tmp_path).run()[1]][0] == 2


def test_a_corrected_map_counts_the_calls_of_its_runs(first, tmp_path):
    loop = adaptive(first, tmp_path, kind="corrected", plan=dataclasses.replace(BRIEF, temperatures_K=(100.0,)))
    found = loop.run()[1]
    steps = round(150.0 / STEP_FS)
    assert found[0].calls - loop.first_calls == steps * 2 * 2 + (4 if found[0].drift is not None else 0)
    assert found[0].error.momentum < 0.3


def test_a_state_that_the_potential_cannot_do_is_left_out(first, tmp_path):
    class Refusing(SecondMomentMetals):
        def forces(self, state):
            raise RuntimeError("no convergence")

    with pytest.warns(UserWarning, match="no stretch from state 0 of round 0: the potential raised RuntimeError"):
        found = adaptive(first, tmp_path, base=Refusing(), plan=dataclasses.replace(BRIEF, stretches=1)).run()[1]
    assert found[1].stretches == found[0].stretches


# --- the set that grows ---------------------------------------------------------------------------


def growing(first, folder, **changes):
    options = {"potential_name": "metals", "step_fs": 2.0, "record_every": 4, "frames": 5, "temperatures_K": [300.0]}
    options |= {"omega_max_per_fs": 0.05, "system": first[0].system, "potential": SecondMomentMetals()} | changes
    return GrowingSet(folder=folder, **options)


def test_a_set_grows_and_knows_what_it_has(first, tmp_path):
    states = [first[k].state(3) for k in range(3)]
    found = growing(first, tmp_path / "set")
    found.add(states[0], 300.0, 0, 0)
    before = (tmp_path / "set" / "stretch-300K-0000.npz").read_bytes()
    growing(first, tmp_path / "set").add(states[0], 300.0, 0, 0)
    growing(first, tmp_path / "set").add(states[1], 300.0, 1, 1)
    kept = ReferenceSet.open(tmp_path / "set")
    assert kept.names == ["stretch-300K-0000.npz", "stretch-300K-0001.npz"] and [s.chain for s in kept] == [0, 1]
    assert (tmp_path / "set" / kept.names[0]).read_bytes() == before
    assert torch.equal(kept[1].state(0).positions, states[1].positions)
    with pytest.raises(InvalidInput, match="another set, which differs in step_fs"):
        growing(first, tmp_path / "set", step_fs=1.0)
    (tmp_path / "set" / "stretch-300K-0002.npz").write_bytes(before)
    with pytest.raises(DataError, match="starts elsewhere"):
        growing(first, tmp_path / "set").add(states[2], 300.0, 1, 2)
    (tmp_path / "set" / "manifest.json").unlink()
    with pytest.raises(InvalidInput, match="holds stretches but no manifest"):
        growing(first, tmp_path / "set")


def test_failing_potentials_are_named(first, tmp_path):
    class Broken(SecondMomentMetals):
        def forces(self, state):
            return super().forces(state) * float("nan")

    with pytest.raises(CalculatorFailed, match="not finite"):
        growing(first, tmp_path, potential=Broken()).add(first[0].state(0), 300.0, 0, 0)
    assert not list(tmp_path.glob("stretch-*"))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperatures_K": ()}, "give one or more, all different"),
        ({"temperatures_K": (300.0, 300.0)}, "all different"),
        ({"temperatures_K": (-3.0,)}, "temperature is -3.0, expected a positive number"),
        ({"rounds": 0}, "rounds is 0, expected a positive number"),
        ({"calls": -1}, "calls is -1"),
        ({"ps": float("nan")}, "ps is nan"),
    ],
)
def test_plans_that_make_no_sense(changes, message):
    with pytest.raises(InvalidInput, match=message):
        Plan(**{"temperatures_K": (300.0,), **changes})


def test_another_plan_or_system_is_refused(first, whole, tmp_path):
    with pytest.raises(InvalidInput, match="begun otherwise, the plan was Plan"):
        adaptive(first, whole[0].folder, plan=Plan((300.0,), runs=5), updates=40)
    atoms = ase.Atoms("Cu3", positions=TETRAHEDRON[:3])
    options = {"temperatures_K": [50.0], "step_fs": 2.0, "stretches": 3, "frames": 17, "record_every": 4}
    other = al.sample(atoms, SecondMomentMetals(), tmp_path / "other", **options, equilibrate_ps=0.01)
    blueprint = Blueprint("discrete", (29, 79), MASSES, STEP_FS, 2, NETWORK)
    with pytest.raises(InvalidInput, match="another system or cell"):
        Adaptive(tmp_path / "a", [first, other], blueprint, Settings(), PLAN, SecondMomentMetals())


# --- on the command line --------------------------------------------------------------------------

QUICK = "--step-fs 24 --updates 8 --channels 4 --hidden 8 --cutoff 4.5 --batch-atoms 16 --rounds 1".split()


def test_train_adaptively_from_nothing_but_a_structure(tmp_path, capsys):
    wish = ["train", "cuau4", "--adaptive", str(tmp_path / "set"), "--temperature", "400", *QUICK]
    assert cli.main([*wish, "--output", str(tmp_path / "model.pt")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[0] == "round" and [line.split()[0] for line in out[1:3]] == ["0", "1"]
    assert "calls of the base potential" in out[3]
    model = al.load(tmp_path / "model.pt")
    assert len(model.report["rounds"]) == 2 and model.uncertainty is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.png", "model.pt", "set"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--temperature", "300"], "--temperature goes with --adaptive FOLDER"),
        (["--held-out", "x"], "--held-out goes with --adaptive FOLDER"),
        (["--adaptive", "a"], "--adaptive needs --temperature"),
        (["--adaptive", "a", "--temperature", "300", "--calls", "0"], "calls is 0, expected a positive number"),
        (["--adaptive", "a", "--temperature", "300", "--base", "lj"], "is not of"),
    ],
)
def test_train_refuses_in_one_line(first, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    step = [] if "--steps-fs" in more else ["--step-fs", "16"]
    wish = ["train", str(first.folder), "--output", "model.pt", *step, *more]
    assert cli.main(wish) == 1
    err = capsys.readouterr().err.strip()
    assert err.startswith("actionlearn train: ") and "\n" not in err
    assert message in err or "come from" in err
