"""A committee: mean and spread, exactly; a file; and states of which it is unsure, found by its own runs."""

import copy

import ase
import pytest
import torch
from test_adaptive import MASSES, TETRAHEDRON, candidates
from test_networks import alloy

import actionlearn as al
from actionlearn import cli, systems
from actionlearn.adaptive import Adaptive, Candidates, Disagreement, Plan, any_state, criterion_of, far_apart
from actionlearn.errors import InvalidInput
from actionlearn.maps.blueprint import Blueprint, networks_of
from actionlearn.potentials import SecondMomentMetals
from actionlearn.reference import ReferenceSet
from actionlearn.settings import Settings

NETWORK = {"cutoff": 4.5, "channels": 4, "hidden": 8, "radial": 4}


def member(seed, species=(29, 79), cutoff=4.5):
    net = al.AtomicMoments(species, **{**NETWORK, "cutoff": cutoff})
    return al.NetworkPotential(net.calibrate([alloy()]).randomise(0.5, seed=seed)).requires_grad_(False)


def test_mean_and_spread_are_those_of_the_members():
    state, members = alloy(), [member(seed) for seed in range(3)]
    committee = al.Committee(members)
    F = torch.stack([one.forces(state) for one in members])
    assert torch.allclose(committee.forces(state), F.mean(0), atol=1e-14)
    assert torch.allclose(committee.energy(state), sum(one.energy(state) for one in members) / 3, atol=1e-13)
    assert torch.allclose(committee.spread(state), F.var(0).sum(1).sqrt(), atol=1e-13)
    assert committee.spread(state).shape == (4,) and committee.spread(state).min() > 0
    searches = members[0].network.neighbours.searches
    committee.forces(state.moved(state.positions + torch.rand(4, 3).double(), state.momenta))
    assert members[0].network.neighbours.searches == searches + 1  # once for all three


def test_identical_members_agree():
    one = member(0)
    committee = al.Committee([one, copy.deepcopy(one), copy.deepcopy(one)])
    state = alloy()
    assert committee.spread(state).max() < 1e-14
    assert torch.allclose(committee.forces(state), one.forces(state), atol=1e-14)


def test_what_is_no_committee():
    with pytest.raises(InvalidInput, match="committee of 1 has no spread"):
        al.Committee([member(0)])
    with pytest.raises(InvalidInput, match=r"know the same elements, these \[29, 79\] and \[28, 29, 79\]"):
        al.Committee([member(0), member(1, species=(28, 29, 79))])
    with pytest.raises(InvalidInput, match="2 members of a discrete map: only a potential may have several"):
        Blueprint("discrete", (29, 79), MASSES, 16.0, 2, NETWORK, members=2)
    apart = al.Committee([member(0), member(1, cutoff=4.0)])  # each finds neighbours of its own
    assert apart.all[0].network.neighbours is not apart.all[1].network.neighbours


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    atoms = ase.Atoms("Cu2Au2", positions=TETRAHEDRON)
    options = {"stretches": 4, "frames": 11, "record_every": 4, "equilibrate_ps": 0.2, "decorrelate_ps": 0.1}
    folder = tmp_path_factory.mktemp("committee") / "first"
    return al.sample(atoms, "metals", folder, temperatures_K=[100.0], step_fs=2.0, **options)


def loop_of(first, folder, members=3, **options):
    blueprint = Blueprint("potential", (29, 79), MASSES, 4.0, 1, NETWORK, members=members)
    settings = Settings(minutes=None, updates=25, batch_atoms=64, validations=2, drift_share=0.0)
    plan = Plan((400.0,), rounds=1, stretches=3, runs=2, ps=0.2)
    return Adaptive(folder, [first], blueprint, settings, plan, SecondMomentMetals(), **options)


def test_runs_of_a_committee_find_where_it_is_unsure(first, tmp_path, monkeypatch):
    loop = loop_of(first, tmp_path / "loop")
    model, found = loop.run()
    assert isinstance(model.potential, al.Committee) and len(networks_of(model)) == 3
    assert [r.number for r in found] == [0, 1] and 0 < found[0].new <= 3 and found[0].largest > 1.0
    new = ReferenceSet.open(tmp_path / "loop")
    assert [len(stretch) for stretch in new] == [1] * found[0].new  # of each state its forces, one call
    assert loop.set.calls_per_stretch == 1
    assert found[1].calls == found[0].calls + found[0].new + 4  # and the ends of both runs
    criterion = criterion_of(model)
    assert isinstance(criterion, Disagreement) and criterion.edge == model.report["spread"] > 0
    u, y = criterion.look(first[0].state(0))
    assert u.shape == (1, 4) and y.shape[:2] == (1, 4)
    assert torch.allclose(u[0], model.potential.spread(first[0].state(0)) / criterion.edge)
    again = loop_of(first, tmp_path / "loop").run()[1]
    assert again == found
    monkeypatch.chdir(tmp_path / "loop" / "rounds")
    named = systems.potential("round-1.pt", first[0].system.to_atoms())
    assert torch.equal(named.forces(first[0].state(2)), model.potential.forces(first[0].state(2)))


def test_members_start_apart_and_learn(first, tmp_path, capsys):
    words = "--kind potential --step-fs 2 --members 2 --updates 30 --channels 4 --hidden 8 --cutoff 4.5".split()
    assert cli.main(["train", str(first.folder), "--output", str(tmp_path / "net.pt"), *words]) == 0
    model = al.load(tmp_path / "net.pt")
    one, other = model.potential.members
    assert not torch.equal(one.network.mix[0], other.network.mix[0])
    assert model.report["spread"] > 0 and model.report["curve"][-1]["momentum_error"] < 0.9
    assert torch.isfinite(model.step(first[0].state(0), 5).positions).all()


def test_choices_by_distance_and_by_chance():
    rows = [[[0.0, 0.0]] * 2, [[5.0, 0.0]] * 2, [[5.1, 0.0]] * 2, [[0.0, 3.0]] * 2, [[9.0, 9.0]] * 2]
    base = candidates(*rows)
    u = torch.tensor([[2.0, 0.0], [0.1, 4.0], [3.0, 3.0], [1.5, 0.0], [0.5, 0.5]])
    given = Candidates(base.states, base.temperatures_K, base.whitened, u)
    assert far_apart(given, 3) == [1, 3, 0]  # the last one is farthest, but nothing is unsure there
    assert sorted(far_apart(given, 5)) == [0, 1, 2, 3, 4] and far_apart(given, 1) == [1]
    assert sorted(any_state(given, 9)) == [0, 1, 2, 3, 4] and len(set(any_state(given, 3))) == 3
