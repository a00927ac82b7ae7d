import itertools

import numpy as np
import pytest
import torch
from ase.build import bulk

from actionlearn import NeighbourList, PhaseState, find_edges
from actionlearn import neighbours as module
from actionlearn.errors import InvalidInput, NonFinite
from actionlearn.potentials import LennardJones, SecondMomentMetals

CELLS = {
    "cubic": np.diag([4.0, 4.0, 4.0]),
    "triclinic": np.array([[4.0, 0.3, -0.2], [1.7, 3.5, 0.4], [-1.1, 1.3, 4.4]]),
    "left-handed": np.array([[0.0, 3.5, 0.1], [4.0, 0.2, 0.0], [0.5, 0.3, 3.8]]),
    "needle": np.array([[1.3, 0.0, 0.0], [0.4, 5.0, 0.0], [0.1, 0.9, 6.0]]),
}
SOME_PBC = [(True, True, True), (True, False, True), (False, True, False), (False, False, False)]


def scattered(n, cell=None, pbc=None, seed=0, dims=3, spread=1.0):
    """Atoms all over the cell and, beyond `spread` 1, outside it."""
    rng = np.random.default_rng(seed)
    places = spread * rng.uniform(size=(n, dims))
    q = torch.tensor(places @ cell if cell is not None else 5.0 * places)
    return PhaseState(
        q,
        torch.zeros_like(q),
        torch.ones(n, dtype=torch.float64),
        cell=None if cell is None else torch.tensor(cell),
        pbc=None if pbc is None else torch.tensor(pbc),
    )


def brute_force(state, cutoff):
    """{(i, j, S)} by looping over every image that could reach."""
    found = set()
    for k in range(state.n_systems):
        mine = torch.nonzero(state.system == k).flatten().tolist()
        cell, pbc = state.cell[k].numpy(), state.pbc[k].numpy()
        reach = [8 if periodic else 0 for periodic in pbc]
        images = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))))
        q = state.positions.numpy()
        offsets = (images @ cell)[:, : q.shape[1]]
        for i, j in itertools.product(mine, mine):
            r = np.linalg.norm(q[j] - q[i] + offsets, axis=1)
            for n in np.nonzero(r < cutoff)[0]:
                if i != j or images[n].any():
                    found.add((i, j, *images[n].tolist()))
    return found


def as_set(edges):
    rows = [
        (i, j, *map(int, s))
        for i, j, s in zip(edges.centre.tolist(), edges.other.tolist(), edges.shifts.tolist(), strict=True)
    ]
    assert len(rows) == len(set(rows)) == len(edges)
    return set(rows)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("pbc", SOME_PBC)
@pytest.mark.parametrize("cutoff", [1.9, 4.7])
def test_edges_are_those_of_brute_force(name, pbc, cutoff):
    state = scattered(5, CELLS[name], pbc, spread=1.6)
    assert as_set(find_edges(state, cutoff)) == brute_force(state, cutoff)


@pytest.mark.parametrize("pbc", SOME_PBC)
def test_half_edges_are_each_pair_once(pbc):
    state = scattered(4, CELLS["triclinic"], pbc, spread=1.6)
    half = as_set(find_edges(state, 4.7, half=True))
    turned = {(j, i, -a, -b, -c) for i, j, a, b, c in half}
    assert not half & turned and half | turned == brute_force(state, 4.7)


@pytest.mark.parametrize("dims", [1, 2])
def test_fewer_dimensions(dims):
    state = scattered(7, dims=dims)
    edges = find_edges(state, 2.0)
    assert as_set(edges) == brute_force(state, 2.0)
    assert edges.vectors(state.positions).shape == (len(edges), dims)


def test_a_batch_has_the_edges_of_its_systems():
    singles = [
        scattered(4, CELLS["triclinic"], (True, True, True)),
        scattered(1, CELLS["cubic"], (True, True, True)),
        scattered(6, seed=3),
        scattered(1),  # nothing within reach
        scattered(3, CELLS["needle"], (True, False, False), seed=4),
    ]
    batch = PhaseState.batch(singles)
    edges = find_edges(batch, 4.2)
    assert as_set(edges) == brute_force(batch, 4.2)
    assert (edges.centre.diff() >= 0).all()
    together = edges.vectors(batch.positions)
    alone = torch.cat([find_edges(s, 4.2).vectors(s.positions) for s in singles])
    assert torch.allclose(together, alone, atol=1e-14)


def test_vectors_are_as_long_as_the_search_says():
    state = scattered(5, CELLS["triclinic"], (True, True, True), spread=3.0)
    assert find_edges(state, 3.3).vectors(state.positions).norm(dim=1).max() < 3.3


@pytest.mark.parametrize("where", [float("nan"), float("inf"), 1e12])
@pytest.mark.parametrize("pbc", [(True, True, True), (False, False, False)])
def test_exploded_positions_are_refused_by_name(where, pbc):
    state = scattered(5, CELLS["cubic"], pbc)
    with pytest.raises(NonFinite, match=r"atom 3 is at \[.*the run has exploded, shorten its step"):
        NeighbourList(3.0)(moved(state, 3, [0.0, where, 0.0]))
    kept = NeighbourList(3.0)
    kept(state)
    with pytest.raises(NonFinite, match="atom 3 is at"):
        kept(moved(state, 3, [0.0, where, 0.0]))


@pytest.mark.parametrize("pbc", [(True, False, False), (False, True, True)])
def test_wide_slabs_and_wires_are_searched_at_once(pbc):
    state = scattered(6, CELLS["triclinic"], pbc)
    free = [d for d in range(3) if not pbc[d]]
    wide = state.positions.clone()
    wide[:3, free] += 300.0
    wide[1] += 40 * state.cell[0, pbc.index(True)]
    state = state.moved(wide, state.momenta)
    back = state.moved(wide.clone(), state.momenta)
    back.positions[1] -= 40 * state.cell[0, pbc.index(True)]
    distances = [find_edges(s, 3.0).vectors(s.positions).norm(dim=1).sort().values for s in (state, back)]
    assert len(distances[0]) == len(brute_force(back, 3.0)) > 0
    assert torch.allclose(*distances, atol=1e-11)
    with pytest.raises(NonFinite, match="atoms spread over .* expected at most 500 where others are periodic"):
        find_edges(moved(state, 0, [1e4, 1e4, 1e4]), 3.0)


def bent_energy(state, cutoff=3.7):
    """A smooth many-body energy: pairs, and the squared sum of vectors around each atom."""
    edges = find_edges(state, cutoff)
    D = edges.vectors(state.positions)
    weight = (1.0 - D.square().sum(1) / cutoff**2).clamp_min(0.0) ** 4
    around = torch.zeros_like(state.positions).index_add(0, edges.centre, weight.unsqueeze(1) * D)
    return weight.sum() + around.square().sum()


@pytest.mark.parametrize("name", ["triclinic", "needle"])
@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, True, False)])
def test_first_and_second_derivatives_against_finite_differences(name, pbc):
    state = scattered(3, CELLS[name], pbc, seed=2)
    energy = lambda q: bent_energy(state.moved(q, state.momenta))  # noqa: E731

    def gradient(q):
        q = q.detach().requires_grad_()
        return torch.autograd.grad(energy(q), q)[0]

    q, h = state.positions, 1e-5
    hessian = torch.autograd.functional.hessian(energy, q).reshape(9, 9)
    for k, shift in enumerate(h * torch.eye(9, dtype=torch.float64).view(9, 3, 3)):
        slope = (energy(q + shift) - energy(q - shift)) / (2 * h)
        bend = (gradient(q + shift) - gradient(q - shift)).flatten() / (2 * h)
        assert gradient(q).flatten()[k].item() == pytest.approx(slope.item(), abs=1e-7)
        assert torch.allclose(hessian[k], bend, atol=1e-7)


# --- the skin -------------------------------------------------------------------------------------


def moved(state, atom, by):
    q = state.positions.clone()
    q[atom] += torch.as_tensor(by, dtype=q.dtype)
    return state.moved(q, state.momenta)


def test_edges_are_kept_until_an_atom_has_moved_half_the_skin():
    state = scattered(5, CELLS["triclinic"], (True, True, True))
    neighbours = NeighbourList(2.0, skin=0.4)
    first = neighbours(state)
    assert neighbours(state) is first and neighbours(moved(state, 1, [0.199, 0, 0])) is first
    assert neighbours.searches == 1
    assert neighbours(moved(state, 1, [0.15, 0.15, 0])) is not first  # 0.21 away though less along each axis
    assert neighbours.searches == 2
    drifting = state
    for _ in range(30):  # slow motion adds up
        drifting = moved(drifting, 1, [0.01, 0, 0])
        within = find_edges(drifting, 2.0)
        assert as_set(within) <= as_set(neighbours(drifting))
    assert neighbours.searches == 4  # one to come back, one on the way


def test_a_molecule_of_which_every_pair_is_known_is_left_alone():
    q = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [0, 1.2, 0]], dtype=torch.float64)
    alone = PhaseState(q, torch.zeros_like(q), torch.ones(3, dtype=torch.float64))
    far = PhaseState(3.0 * q, torch.zeros_like(q), torch.ones(3, dtype=torch.float64))
    for half in (False, True):
        neighbours = NeighbourList(2.0, skin=0.4, half=half)
        batch = PhaseState.batch([alone, far])  # of the second not every pair is within reach
        neighbours(batch)
        neighbours(moved(batch, 1, [1.5, 0, 0]))
        assert neighbours.searches == 1
        neighbours(moved(batch, 4, [0.3, 0, 0]))
        assert neighbours.searches == 2
        neighbours(moved(batch, 1, [2.1, 0, 0]))  # in case somebody comes who was not a neighbour, or is lost
        assert neighbours.searches == 3
        with pytest.raises(NonFinite, match="exploded"):
            neighbours(moved(batch, 1, [1e7, 0, 0]))
        with pytest.raises(NonFinite, match="exploded"):
            neighbours(moved(batch, 1, [float("nan"), 0, 0]))
    crystal = scattered(1, CELLS["cubic"], (True, True, True))  # no pairs, but images may come
    neighbours = NeighbourList(1.0, skin=0.4)
    neighbours(crystal)
    neighbours(moved(crystal, 0, [0.3, 0, 0]))
    assert neighbours.searches == 2


@pytest.mark.parametrize("wrapped", [0, 3])
def test_atoms_wrapped_by_a_lattice_vector_are_noticed(wrapped):
    """Shifts belong to the positions they were found with: after a wrap the old ones would be wrong."""
    state = scattered(5, CELLS["triclinic"], (True, True, True))
    neighbours = NeighbourList(3.0)
    before = neighbours(state).vectors(state.positions).norm(dim=1).sort().values
    back = moved(state, wrapped, state.cell[0, 1])
    after = neighbours(back).vectors(back.positions).norm(dim=1).sort().values
    assert neighbours.searches == 2
    assert torch.allclose(before, after, atol=1e-12)


def test_whatever_else_changes_is_noticed():
    state = scattered(4, CELLS["cubic"], (True, True, True))

    def changed(**fields):
        kept = {k: getattr(state, k) for k in ("positions", "momenta", "masses", "cell", "pbc", "system")}
        return PhaseState(**{**kept, **fields})

    larger = torch.cat([state.cell] * 2)
    for other in (
        changed(cell=state.cell * 1.01),
        changed(pbc=torch.tensor([[True, True, False]])),
        changed(system=torch.tensor([0, 0, 1, 1]), cell=larger, pbc=torch.ones(2, 3, dtype=torch.bool)),
        scattered(5, CELLS["cubic"], (True, True, True)),
        state.to(torch.float32),
    ):
        neighbours = NeighbourList(2.5)
        neighbours(state)
        edges = neighbours(other)
        assert neighbours.searches == 2 and edges.offsets.dtype == other.positions.dtype
        assert as_set(edges) == as_set(find_edges(other, 3.0))


def test_what_does_not_matter_is_not_noticed():
    state = scattered(4, CELLS["cubic"], (True, True, True))
    neighbours = NeighbourList(2.5)
    neighbours(state)
    equal = PhaseState(state.positions.clone(), state.momenta + 1.0, 2 * state.masses, cell=state.cell, pbc=state.pbc)
    neighbours(equal.flip())
    assert neighbours.searches == 1


def test_positions_changed_in_place_are_noticed():
    state = scattered(4, CELLS["cubic"], (True, True, True))
    neighbours = NeighbourList(2.5)
    neighbours(state)
    state.positions[2] += 1.0
    assert as_set(neighbours(state)) == as_set(find_edges(state, 3.0)) and neighbours.searches == 2


@pytest.mark.parametrize("name", ["cell", "pbc"])
def test_cell_and_pbc_changed_in_place_are_noticed(name):
    state = scattered(4, CELLS["cubic"], (True, True, True))
    state = PhaseState(state.positions, state.momenta, state.masses, cell=state.cell.clone(), pbc=state.pbc.clone())
    neighbours = NeighbourList(2.5)
    neighbours(state)
    getattr(state, name)[0, 1] = 0 if name == "pbc" else 5.0
    assert as_set(neighbours(state)) == as_set(find_edges(state, 3.0))


def crystal(symbol):
    atoms = bulk(symbol, "fcc", a={"Cu": 3.7, "Ar": 5.3}[symbol], cubic=True) * 2
    atoms.rattle(0.05, seed=0)
    return PhaseState.from_atoms(atoms)


def along_a_path(state, step=0.001, n=200):
    direction = torch.tensor(np.random.default_rng(1).normal(size=state.positions.shape))
    for k in range(n):
        yield state.moved(state.positions + step * k * direction, state.momenta), step * direction


def largest_jump(potential, state):
    """What the trapezoidal rule misses: step³/12 of a smooth energy's third derivative, and all of a jump."""
    energies, slopes = [], []
    for here, direction in along_a_path(state):
        energies.append(potential.energy(here).item())
        slopes.append(-(potential.forces(here) * direction).sum().item())
    return np.abs(np.diff(energies) - 0.5 * (np.array(slopes)[1:] + slopes[:-1])).max()


MAKERS = {"Cu": lambda **how: SecondMomentMetals(("Cu",), **how), "Ar": lambda **how: LennardJones(**how)}


@pytest.mark.parametrize("symbol", MAKERS)
def test_energy_and_forces_do_not_notice_a_new_search(symbol):
    kept = MAKERS[symbol](skin=0.3)
    for k, (here, _) in enumerate(along_a_path(crystal(symbol))):
        energy, forces = kept.energy(here), kept.forces(here)
        if k % 10 == 9:
            fresh = MAKERS[symbol](skin=0.3)
            assert torch.allclose(energy, fresh.energy(here), rtol=1e-13)
            assert torch.allclose(forces, fresh.forces(here), atol=1e-12)


@pytest.mark.parametrize("symbol", MAKERS)
def test_energy_is_continuous_where_pairs_come_and_go(symbol):
    assert largest_jump(MAKERS[symbol](skin=0.3), crystal(symbol)) < 1e-5
    abrupt = MAKERS[symbol](skin=0.3, cutoff=(2.28, 2.28 + 1e-9))
    assert largest_jump(abrupt, crystal(symbol)) > 1e-4


def test_bad_cutoffs_are_refused():
    for cutoff, skin in ((0.0, 0.5), (-1.0, 0.5), (3.0, -0.1)):
        with pytest.raises(InvalidInput, match="cutoff must be positive and skin not negative"):
            NeighbourList(cutoff, skin)


def test_only_the_system_that_moved_is_searched_anew(monkeypatch):
    one = scattered(5, CELLS["triclinic"], (True, True, True))
    two = scattered(4, CELLS["triclinic"], (True, False, True), seed=3)
    state = PhaseState.batch([one, two, one])
    kept = NeighbourList(2.0, skin=0.4)
    before = kept(state)
    searched = []
    search = module._search

    def noted(state, systems, *rest):
        searched.append(list(systems))
        return search(state, systems, *rest)

    monkeypatch.setattr(module, "_search", noted)
    state = moved(state, 6, [0.3, 0, 0])  # of the second system
    after = kept(state)
    assert searched == [[1]] and after is not before
    assert as_set(after) == as_set(find_edges(state, 2.4))
    assert (after.centre.diff() >= 0).all()
    for k, alone in enumerate((one, two, one)):
        mine = state.system[after.centre] == k
        if k != 1:
            fresh = find_edges(alone, 2.4)
            assert torch.equal(after.offsets[mine], fresh.offsets)
    state = moved(state, 0, [0.15, 0, 0])  # too little, but the second system has begun anew
    assert kept(moved(state, 6, [0.15, 0, 0])) is after
