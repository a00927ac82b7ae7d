import itertools
import pickle
from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

import actionlearn as al
from actionlearn import systems
from actionlearn.errors import (
    DataError,
    InvalidInput,
    NotConverged,
    NotDifferentiable,
    OutsideTraining,
    UnsupportedSystem,
)
from actionlearn.gdml import (
    GDML,
    ClosedForm,
    Iterative,
    Labels,
    choose_sigma,
    crystal_symmetries,
    fit,
    force_error,
    generated_group,
    recover_symmetries,
)
from actionlearn.gdml.descriptor import PairDescriptor, covering_radius
from actionlearn.gdml.kernel import TrainingKernel
from actionlearn.gdml.solvers import nystrom_preconditioner
from actionlearn.potentials import LennardJones, SecondMomentMetals, forces_from_energy

PACKAGE = np.load(Path(__file__).with_name("gdml_ethanol.npz"))


def ethanol(which=""):
    q, E, F, numbers = (
        torch.from_numpy(PACKAGE[name])
        for name in (f"{which}positions", f"{which}energies", f"{which}forces", "numbers")
    )
    system = al.PhaseState(q[0], torch.zeros_like(q[0]), torch.ones(len(numbers), dtype=q.dtype), numbers)
    return Labels(system, q, E, F)


def rattled(atoms, potential, count, scale, seed=0):
    """Geometries around a structure, with labels of a potential."""
    start = al.PhaseState.from_atoms(atoms)
    generator = torch.Generator().manual_seed(seed)
    shifts = scale * torch.randn(count, len(atoms), 3, generator=generator, dtype=torch.float64)
    states = [start.moved(start.positions + shift, start.momenta) for shift in shifts]
    return Labels(
        start,
        torch.stack([state.positions for state in states]),
        torch.cat([potential.energy(state) for state in states]),
        torch.stack([potential.forces(state) for state in states]),
    )


def cluster(count=12, seed=0):
    """Argon around a tetrahedron and one atom of krypton, whose labels are exact."""
    q = 2.0 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1], [3.5, 0.5, 0.2]])
    return rattled(ase.Atoms("Ar4Kr", positions=q * 0.75), LennardJones(), count, 0.12, seed)


@pytest.fixture(scope="module")
def model():
    return fit(ethanol(), sigma=20.0)


@pytest.fixture(scope="module")
def crystal():
    """Eight atoms of copper in a skewed cell, smaller than the reach of anything."""
    atoms = bulk("Cu", "fcc", a=3.65) * 2
    return atoms, fit(
        rattled(atoms, SecondMomentMetals(("Cu",)), 20, 0.1), sigma=10.0, symmetries=crystal_symmetries(atoms)
    )


# --- against the package ----------------------------------------------------------------------------


def test_model_is_that_of_the_package(model):
    test = ethanol("test_")
    F = model.forces(test.states()).view_as(test.forces)
    expected = torch.from_numpy(PACKAGE["package_forces"])
    assert (F - expected).norm() < 1e-7 * expected.norm()
    assert (model.energy(test.states()) - torch.from_numpy(PACKAGE["package_energies"])).abs().max() < 1e-7


def test_symmetries_are_those_of_the_package(model):
    as_set = lambda rows: {tuple(row) for row in rows.tolist()}  # noqa: E731
    assert as_set(model.permutations) == as_set(PACKAGE["package_permutations"])
    assert len(model.permutations) == 6  # methyl rotations and the mirror image


def test_symmetries_pay():
    training, test = ethanol(), ethanol("test_")
    without = force_error(fit(training, sigma=20.0, symmetries=None), test)
    assert force_error(fit(training, sigma=20.0), test) < 0.7 * without


# --- descriptor and kernel --------------------------------------------------------------------------


@pytest.mark.parametrize("lattice", [None, [[4.2, 0.0, 0.0], [1.3, 4.0, 0.1], [0.2, -0.7, 5.0]], [[4.2, 0.3, 0.0]]])
def test_slopes_of_the_descriptor(lattice):
    descriptor = PairDescriptor(4, None if lattice is None else torch.tensor(lattice, dtype=torch.float64))
    q = 3.0 * torch.rand(1, 4, 3, dtype=torch.float64)
    dense = torch.autograd.functional.jacobian(lambda q: descriptor(q)[0][0], q)[:, 0].flatten(1)
    x, slopes = descriptor(q)
    assert (descriptor.jacobian(slopes)[0] - dense).abs().max() < 1e-13
    directions, weights = torch.randn(1, 4, 3, dtype=q.dtype), torch.randn(x.shape, dtype=q.dtype)
    assert torch.allclose(descriptor.push_forward(directions, slopes)[0], dense @ directions.flatten())
    assert torch.allclose(descriptor.pull_back(weights, slopes).flatten(), dense.T @ weights[0])


def test_periodic_descriptor_is_smooth_where_the_nearest_image_changes():
    """Along a line through the middle of the cell the slope is continuous; that of the nearest image alone jumps."""
    descriptor = PairDescriptor(2, 4.0 * torch.eye(3, dtype=torch.float64))

    def slope(x):
        return descriptor(torch.tensor([[[0.0, 0.0, 0.0], [x, 0.4, 0.2]]], dtype=torch.float64))[1][0, 0, 0].item()

    assert abs(slope(2.0 + 1e-7) - slope(2.0 - 1e-7)) < 1e-6
    assert abs(slope(2.0)) < 1e-12
    assert abs(slope(1.9)) > 1e-3


def test_covering_radius_of_a_cell_given_by_long_vectors():
    skewed = torch.tensor([[3.0, 0, 0], [9.0, 3.0, 0], [6.0, -3.0, 3.0]], dtype=torch.float64)
    assert covering_radius(skewed) == pytest.approx(3.0 * np.sqrt(3.0) / 2.0)


@pytest.mark.parametrize("symmetric", [False, True])
def test_kernel_is_the_second_derivative_of_matern(symmetric):
    labels, sigma = cluster(2), 3.0
    group = [[0, 1, 2, 3, 4], [1, 0, 3, 2, 4]] if symmetric else [[0, 1, 2, 3, 4]]
    descriptor = PairDescriptor(5)

    def k(q, other):
        x, y = descriptor(q.view(1, 5, 3))[0][0], descriptor(other.view(1, 5, 3))[0][0]
        total = 0.0
        for p in group:
            s = 5**0.5 / sigma * (x - y[descriptor.pair_permutations(torch.tensor([p]))[0]]).norm()
            total = total + (1.0 + s + s * s / 3.0) * torch.exp(-s)
        return total

    a, b = labels.positions.flatten(1)
    hessian = torch.autograd.functional.hessian(k, (a, b))[0][1]
    x, slopes = descriptor(labels.positions)
    kernel = TrainingKernel(descriptor, x, slopes, sigma, descriptor.pair_permutations(torch.tensor(group)))
    K = kernel.matrix()
    assert (K[:15, 15:] - hessian).abs().max() < 1e-12 * K.abs().max()
    assert (K - K.T).abs().max() < 1e-13
    assert torch.linalg.eigvalsh(K).min() > -1e-13
    alpha = torch.randn(30, dtype=torch.float64)
    assert torch.allclose(kernel.product(alpha), K @ alpha, rtol=0.0, atol=1e-13)
    assert torch.allclose(kernel.diagonal(), K.diagonal())


# --- the potential ----------------------------------------------------------------------------------


def test_forces_are_the_gradient_and_energies_their_integral(model):
    test = ethanol("test_").states()
    F = model.forces(test)
    assert (F - forces_from_energy(model.energy, test)).abs().max() < 1e-8
    first = test.select(0)
    end = first.positions + 0.05 * torch.randn(9, 3, dtype=torch.float64)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    work = sum(
        0.5
        * w
        * (
            model.forces(first.moved(first.positions + 0.5 * (1 + t) * (end - first.positions), first.momenta))
            * (end - first.positions)
        ).sum()
        for t, w in zip(nodes, weights, strict=True)
    )
    change = model.energy(first.moved(end, first.momenta)) - model.energy(first)
    assert (change + work).abs() < 1e-9


def test_energies_twice_and_forces_once_more_agree_everywhere(model):
    """At a training geometry too, where the distance to it has no derivative."""
    for state in (ethanol("test_").states().select(3), ethanol().states().select(5)):

        def forces(q, state=state):
            return model.forces(state.moved(q, state.momenta))

        def energy(q, state=state):
            return model.energy(state.moved(q, state.momenta)).sum()

        hessian = torch.autograd.functional.hessian(energy, state.positions)
        assert torch.isfinite(hessian).all()
        assert (torch.autograd.functional.jacobian(forces, state.positions) + hessian).abs().max() < 1e-6
        step = torch.zeros_like(state.positions)
        step[4, 1] = 1e-5
        numeric = (forces(state.positions + step) - forces(state.positions - step)) / 2e-5
        assert (numeric + hessian[4, 1]).abs().max() < 1e-4


def test_energies_have_the_mean_of_the_labels(model):
    labels = ethanol()
    off = model.energy(labels.states()) - labels.energies
    assert off.mean().abs() < 1e-9
    assert off.std() < 0.02


def test_a_batch_is_its_systems_one_by_one(model):
    test = ethanol("test_").states()
    E, F = model.energy(test), model.forces(test).view(-1, 9, 3)
    for k, one in enumerate(test.unbatch()):
        assert torch.allclose(model.energy(one), E[k], rtol=0.0, atol=1e-8)
        assert torch.allclose(model.forces(one), F[k], rtol=0.0, atol=1e-8)


def test_every_permutation_of_the_group_leaves_the_energy(model):
    state = ethanol("test_").states().select(0)
    for p in model.permutations:
        moved = state.moved(state.positions[p], state.momenta)
        assert (model.energy(moved) - model.energy(state)).abs() < 1e-8
        assert (model.forces(moved) - model.forces(state)[p]).abs().max() < 1e-8
    other = state.positions[[0, 1, 2, 6, 4, 5, 3, 7, 8]]  # the hydroxyl with a methyl hydrogen: no symmetry
    with pytest.raises(OutsideTraining):
        model.energy(state.moved(other, state.momenta))


def test_momentum_and_angular_momentum_are_kept(model):
    state = ethanol("test_").states().select(1)
    F = model.forces(state)
    assert F.sum(0).abs().max() < 1e-12
    assert torch.linalg.cross(state.positions, F).sum(0).abs().max() < 1e-11


def test_single_precision_needs_more_regularisation(model):
    """Coefficients are as large as the regularisation is small, and cancel each other."""
    state = ethanol("test_").states()
    softer = fit(ethanol(), sigma=20.0, regularisation=1e-6)
    F = softer.forces(state.to(torch.float32))
    assert F.dtype == torch.float32
    assert (F - softer.forces(state)).norm() < 1e-2 * F.norm()
    assert (model.forces(state.to(torch.float32)) - model.forces(state)).norm() > 1e-2 * F.norm()


def test_far_away_is_refused(model):
    state = ethanol("test_").states()
    assert model.strangeness(state).max() < 0.6
    with pytest.raises(OutsideTraining, match="system 0 is .* times as far .* expected up to 4"):
        model.forces(state.moved(1.5 * state.positions, state.momenta))
    with pytest.raises(OutsideTraining):
        model.energy(state.moved(state.positions * float("nan"), state.momenta))


def test_other_systems_are_refused(model, crystal):
    ethanol_of_ase = al.PhaseState.from_atoms(molecule("CH3CH2OH"))
    swapped = al.PhaseState.from_atoms(molecule("CH3CH2OH")[[2, 1, 0, 3, 4, 5, 6, 7, 8]])
    model.forces(ethanol_of_ase)
    with pytest.raises(UnsupportedSystem, match="trained for C C O H H H H H H, .* holds O C C H"):
        model.forces(swapped)
    with pytest.raises(UnsupportedSystem, match="holds O H H in 1"):
        model.energy(al.PhaseState.from_atoms(molecule("H2O")))
    boxed = molecule("CH3CH2OH", cell=[9, 9, 9], pbc=True)
    with pytest.raises(UnsupportedSystem, match="pbc"):
        model.forces(al.PhaseState.from_atoms(boxed))
    strained = crystal[0].copy()
    strained.set_cell(1.01 * strained.cell.array, scale_atoms=True)
    with pytest.raises(UnsupportedSystem, match="differs by 0.0"):
        crystal[1].forces(al.PhaseState.from_atoms(strained))


def test_forward_mode_is_refused(model):
    state = ethanol("test_").states().select(0)
    with pytest.raises(NotDifferentiable):
        torch.func.jvp(
            lambda q: model.forces(state.moved(q, state.momenta)),
            (state.positions,),
            (torch.ones_like(state.positions),),
        )


# --- crystals ---------------------------------------------------------------------------------------


def test_crystal_knows_no_images_and_no_shifts(crystal):
    atoms, model = crystal
    test = rattled(atoms, SecondMomentMetals(("Cu",)), 5, 0.1, seed=1)
    assert force_error(model, test) < 0.05
    state = test.states().select(0)
    E, F = model.energy(state), model.forces(state)
    assert (F - forces_from_energy(model.energy, state)).abs().max() < 1e-8
    generator = torch.Generator().manual_seed(0)
    hops = torch.randint(-3, 4, (8, 3), generator=generator).to(torch.float64) @ state.cell[0]
    for q in (state.positions + hops, state.positions + torch.tensor([0.3, -1.7, 2.9], dtype=torch.float64)):
        moved = state.moved(q, state.momenta)
        assert (model.energy(moved) - E).abs() < 1e-8
        assert (model.forces(moved) - F).abs().max() < 1e-8


def test_symmetries_of_a_lattice():
    cubic = bulk("Cu", "fcc", a=3.6, cubic=True)
    assert len(crystal_symmetries(cubic, rotations=False)) == 4
    group = crystal_symmetries(cubic)
    assert len(group) == 24  # all of S₄
    assert group[0].tolist() == [0, 1, 2, 3]
    assert len(generated_group(list(group), 4)) == 24
    ordered = systems.structure("cuau32-ordered")
    group = crystal_symmetries(ordered)
    assert (ordered.numbers[group] == ordered.numbers).all()
    assert len(crystal_symmetries(ordered, rotations=False)) == 16
    with pytest.raises(InvalidInput, match="repeats in three directions"):
        crystal_symmetries(molecule("H2O"))


def test_symmetries_of_the_lattice_pay(crystal):
    atoms, model = crystal
    labels, test = (rattled(atoms, SecondMomentMetals(("Cu",)), n, 0.1, seed=n) for n in (10, 6))
    with_them = fit(labels, sigma=10.0, symmetries=crystal_symmetries(atoms))
    assert force_error(with_them, test) < 0.5 * force_error(fit(labels, sigma=10.0, symmetries=None), test)


# --- training ---------------------------------------------------------------------------------------


def test_both_solvers_find_the_same_model():
    labels, test = ethanol(), ethanol("test_").states()
    closed = fit(labels, sigma=20.0, regularisation=1e-8, solver=ClosedForm())
    iterative = fit(labels, sigma=20.0, regularisation=1e-8, solver=Iterative(tolerance=1e-10))
    F = closed.forces(test)
    assert (iterative.forces(test) - F).norm() < 1e-7 * F.norm()
    assert (iterative.energy(test) - closed.energy(test)).abs().max() < 1e-6
    assert iterative.report["iterations"] < 300


def test_the_preconditioner_pays():
    labels = ethanol().part(torch.arange(30))
    taken = [
        fit(labels, sigma=20.0, regularisation=1e-8, solver=Iterative(rank=rank)).report["iterations"]
        for rank in (27, 150, 600)
    ]
    assert taken[0] > 2 * taken[1] > 4 * taken[2]


def test_a_preconditioner_of_full_rank_is_the_inverse():
    labels = cluster(4)
    descriptor = PairDescriptor(5)
    x, slopes = descriptor(labels.positions)
    kernel = TrainingKernel(descriptor, x, slopes, 5.0, torch.arange(10).unsqueeze(0))
    precondition = nystrom_preconditioner(kernel, 1e-6, kernel.size)
    A = kernel.matrix() + 1e-6 * torch.eye(60, dtype=torch.float64)
    v = kernel.product(torch.randn(60, dtype=torch.float64))  # where the kernel sees
    assert (A @ precondition(v) - v).norm() < 1e-6 * v.norm()


def test_too_few_iterations_are_no_model():
    with pytest.raises(NotConverged, match="after 3 iterations") as caught:
        fit(ethanol(), sigma=20.0, solver=Iterative(rank=27, max_iterations=3))
    assert caught.value.iterations == 3
    assert caught.value.residual > caught.value.tolerance


def test_recovered_group_of_exchanged_geometries():
    """Two atoms that change places now and then, among four that look alike but never do."""
    positions = cluster(30).positions
    positions[::3] = positions[::3][:, [1, 0, 2, 3, 4]]
    found = recover_symmetries(torch.cdist(positions, positions).numpy(), np.array([18, 18, 18, 18, 36]))
    assert {tuple(p) for p in found.tolist()} >= {(0, 1, 2, 3, 4), (1, 0, 2, 3, 4)}
    assert (found[:, 4] == 4).all()


def test_a_group_that_is_too_large_is_refused():
    everything = [np.array([1, 0, *range(2, 9)]), np.roll(np.arange(9), 1)]
    with pytest.raises(InvalidInput, match="more than 5000"):
        generated_group(everything, 9)
    assert len(generated_group([np.array([1, 0, 2, 3]), np.array([1, 2, 3, 0])], 4)) == 24


def test_sigma_is_chosen_on_other_geometries():
    training, validation = ethanol(), ethanol("test_")
    told = []
    model = choose_sigma(
        training, validation, sigmas=(200.0, 2.0, 20.0), progress=lambda sigma, error: told.append((sigma, error))
    )
    assert [sigma for sigma, _ in told] == [2.0, 20.0, 200.0]
    assert model.sigma == min(told, key=lambda pair: pair[1])[0] == 20.0
    assert model.report["validation_force_error"]["20"] == pytest.approx(force_error(model, validation))


def test_labels_from_structures_and_from_stretches(tmp_path):
    labels, atoms = cluster(3), []
    for q, E, F in zip(labels.positions, labels.energies, labels.forces, strict=True):
        atoms.append(ase.Atoms("Ar4Kr", positions=q.numpy()))
        atoms[-1].calc = SinglePointCalculator(atoms[-1], energy=float(E), forces=F.numpy())
    again = Labels.from_atoms(atoms)
    assert torch.equal(again.positions, labels.positions)
    assert torch.equal(again.forces, labels.forces)
    atoms[1].calc = None
    with pytest.raises(DataError, match="structure 1 carries no energy"):
        Labels.from_atoms(atoms)
    with pytest.raises(DataError, match="structure 1 has other atoms"):
        Labels.from_atoms([atoms[0], again_with(atoms[0], [4, 0, 1, 2, 3])])
    reference = al.ReferenceSet.open(Path(__file__).parent.parent / "data" / "ethanol")
    labels = Labels.from_stretches(reference, 7)
    assert labels.positions.shape == (7, 9, 3)
    assert torch.equal(labels.states().select(6).positions, reference[1].state(-1).positions)
    with pytest.raises(InvalidInput, match="1000 geometries"):
        Labels.from_stretches(reference, 1000)
    first, others = labels.split(5)
    assert (len(first), len(others)) == (5, 2)
    with pytest.raises(InvalidInput, match="cannot be split"):
        labels.split(7)


def again_with(atoms, order):
    other = atoms[order]
    other.calc = SinglePointCalculator(other, energy=0.0, forces=np.zeros((5, 3)))
    return other


def test_bad_labels_and_options_are_refused():
    labels = cluster(6)
    with pytest.raises(DataError, match="forces of the labels are not finite in geometry 2"):
        Labels(
            labels.system,
            labels.positions,
            labels.energies,
            labels.forces.clone().index_fill_(0, torch.tensor(2), np.nan),
        )
    with pytest.raises(DataError, match="energies of the labels have shape"):
        Labels(labels.system, labels.positions, labels.energies[:3], labels.forces)
    with pytest.raises(InvalidInput, match="sigma and regularisation must be positive"):
        fit(labels, sigma=0.0)
    with pytest.raises(InvalidInput, match="expected 'recover'"):
        fit(labels, sigma=5.0, symmetries="find")
    with pytest.raises(InvalidInput, match="no permutations of 5 atoms"):
        fit(labels, sigma=5.0, symmetries=[[0, 1, 2, 3, 3]])
    with pytest.raises(InvalidInput, match="exchanges different elements"):
        fit(labels, sigma=5.0, symmetries=[[0, 1, 2, 3, 4], [4, 1, 2, 3, 0]])
    with pytest.raises(InvalidInput, match="are no group"):
        fit(labels, sigma=5.0, symmetries=[[0, 1, 2, 3, 4], [1, 2, 0, 3, 4]])
    twice = labels.part(torch.tensor([0, 1, 1, 2]))
    with pytest.raises(InvalidInput, match="not positive definite"):
        fit(twice, sigma=50.0, symmetries=None, regularisation=1e-30)
    swapped = Labels(labels.system, labels.positions, -labels.energies, labels.forces)
    with pytest.raises(DataError, match="units or sign"):
        fit(swapped, sigma=5.0)


# --- files ------------------------------------------------------------------------------------------


def test_saved_loaded_pickled_and_named(model, crystal, tmp_path):
    path = tmp_path / "ethanol.pt"
    model.save(path)
    state = ethanol("test_").states()
    F = model.forces(state)
    named = systems.potential(str(path), molecule("CH3CH2OH"))
    for other in (GDML.load(path), pickle.loads(pickle.dumps(model)), named):
        assert isinstance(other, GDML)
        assert torch.equal(other.forces(state), F)
        assert other.report == model.report
    crystal[1].save(path)
    state = al.PhaseState.from_atoms(crystal[0])
    assert torch.equal(GDML.load(path).energy(state), crystal[1].energy(state))


def test_files_that_hold_no_model(tmp_path):
    with pytest.raises(InvalidInput, match="there is no file"):
        GDML.load(tmp_path / "none.pt")
    path = tmp_path / "some.pt"
    path.write_text("text")
    with pytest.raises(DataError, match="no GDML, or damaged"):
        GDML.load(path)
    torch.save({"format": "other"}, path)
    with pytest.raises(DataError, match="holds 'other'"):
        GDML.load(path)


def test_base_potential_by_the_name_of_its_file(model, tmp_path):
    path = tmp_path / "ethanol.pt"
    model.save(path)
    reference = al.sample(
        "ethanol", str(path), tmp_path / "reference", temperatures_K=[300.0], step_fs=0.5, stretches=2, frames=5,
        equilibrate_ps=0.01, decorrelate_ps=0.01,
    )  # fmt: skip
    assert reference.potential == str(path)
    assert reference[0].energy_rms < 1e-3


def test_permutations_of_pairs():
    descriptor = PairDescriptor(5)
    q = torch.randn(1, 5, 3, dtype=torch.float64)
    for p in itertools.islice(itertools.permutations(range(5)), 0, 120, 17):
        p = torch.tensor([p])
        pairs = descriptor.pair_permutations(p)[0]
        assert torch.allclose(descriptor(q[:, p[0]])[0], descriptor(q)[0][:, pairs])
