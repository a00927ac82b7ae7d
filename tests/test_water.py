import math

import numpy as np
import pytest
import torch
from ase.units import bar

import actionlearn as al
from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.potentials import SPCFw, forces_from_energy
from actionlearn.potentials.water import ANGLE, ANGLE_STIFFNESS, BOND, BOND_STIFFNESS, HYDROGEN_CHARGE
from actionlearn.reference.thermostat import langevin, maxwell_boltzmann, without_total_momentum
from actionlearn.systems import structure
from actionlearn.units import COULOMB, wavenumber_per_cm


def box(count, seed=0, shear=0.0, rattle=0.05):
    """Water in a sheared box, off its equilibrium; below 48 molecules smaller than twice the cutoff by far."""
    atoms = structure(f"water{count}", seed)
    cell = atoms.cell.array
    cell[1, 0] = shear * cell[0, 0]
    atoms.set_cell(cell)
    atoms.positions += np.random.default_rng(seed).normal(scale=rattle, size=atoms.positions.shape)
    return atoms


def state_of(*args, **kwargs):
    return al.PhaseState.from_atoms(box(*args, **kwargs))


def isolated():
    atoms = structure("water1")
    atoms.set_pbc(False)
    return al.PhaseState.from_atoms(atoms)


def test_forces_are_the_gradient_and_finite_differences():
    state, potential = state_of(8, shear=0.3), SPCFw()
    forces = potential.forces(state)
    torch.testing.assert_close(forces, forces_from_energy(potential.energy, state), rtol=0, atol=1e-12)
    assert forces.sum(0).abs().max() < 1e-12
    for atom, axis in [(0, 0), (7, 1), (23, 2)]:
        shift = torch.zeros_like(state.positions)
        shift[atom, axis] = 1e-4
        ends = [potential.energy(state.moved(state.positions + k * shift, state.momenta)).item() for k in (-1, 1)]
        assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(forces[atom, axis].item(), abs=1e-6)


def test_parts_make_the_whole():
    state, potential = state_of(8, shear=0.3), SPCFw()
    parts = potential.parts()
    for name in ("energy", "forces"):
        inside, between = (getattr(part, name)(state) for part in parts)
        torch.testing.assert_close(inside + between, getattr(potential, name)(state), rtol=0, atol=1e-12)
    for part in parts:
        torch.testing.assert_close(part.forces(state), forces_from_energy(part.energy, state), rtol=0, atol=1e-12)
    # r-RESPA is Verlet with one inner step, and closer to the motion than that with four
    fast, slow = parts
    moving = maxwell_boltzmann(state, 300.0, torch.Generator().manual_seed(0))
    ends = {
        inner: al.Splitting({"F": fast, "S": slow}, al.schemes.respa(inner), step_fs=0.8)(moving) for inner in (1, 4)
    }
    torch.testing.assert_close(ends[1].positions, al.Verlet(potential, step_fs=0.8)(moving).positions)
    exact = al.Verlet(potential, step_fs=0.05).step(moving, 16).momenta
    assert (ends[4].momenta - exact).norm() < 0.3 * (ends[1].momenta - exact).norm()


def test_second_and_third_derivatives():
    state, potential = state_of(2), SPCFw(cutoff=(4.0, 5.0))
    q = state.positions.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda q: potential.forces(state.moved(q, state.momenta)), q, atol=1e-4)
    along = torch.randn_like(q)

    def curvature(q):
        (gradient,) = torch.autograd.grad(potential.energy(state.moved(q, state.momenta)).sum(), q, create_graph=True)
        return torch.autograd.grad((gradient * along).sum(), q, create_graph=True)[0]

    step = 1e-4 * along
    (exact,) = torch.autograd.grad((curvature(q) * along).sum(), q)
    difference = (curvature(q + step) - curvature(q - step)) / 2e-4
    torch.testing.assert_close(difference, exact, rtol=1e-4, atol=1e-3)


def test_batch_equals_singles():
    singles, potential = [state_of(2), state_of(5, 1, shear=0.2), isolated()], SPCFw()
    batch = al.PhaseState.batch(singles)
    for name in ("energy", "forces", "dipole"):
        one_by_one = torch.cat([getattr(potential, name)(s) for s in singles])
        torch.testing.assert_close(getattr(potential, name)(batch), one_by_one)


def test_a_small_box_is_as_good_as_a_large_one():
    small = box(3, shear=0.2)
    large = al.PhaseState.from_atoms(small * (2, 3, 2))
    small, potential = al.PhaseState.from_atoms(small), SPCFw()
    torch.testing.assert_close(12 * potential.energy(small), potential.energy(large))
    torch.testing.assert_close(potential.forces(small).repeat(12, 1), potential.forces(large))


def test_wrapping_and_order_change_nothing():
    atoms, potential = box(6, shear=0.3), SPCFw()
    state = al.PhaseState.from_atoms(atoms)
    shuffle = np.random.default_rng(1).permutation(len(atoms))
    wrapped = atoms[shuffle]
    wrapped.wrap()
    other = al.PhaseState.from_atoms(wrapped)
    assert (other.positions - state.positions[shuffle]).abs().max() > 1.0
    torch.testing.assert_close(potential.energy(other), potential.energy(state))
    torch.testing.assert_close(potential.forces(other), potential.forces(state)[shuffle])
    torch.testing.assert_close(potential.dipole(other), potential.dipole(state))


def test_single_molecule_at_rest():
    state, potential = isolated(), SPCFw()
    assert potential.energy(state).abs().max() < 1e-20 and potential.forces(state).abs().max() < 1e-12
    debye_per_eA = 4.80320
    expected = 2 * HYDROGEN_CHARGE * BOND * math.cos(ANGLE / 2)
    assert potential.dipole(state).norm().item() == pytest.approx(expected)
    assert expected * debye_per_eA == pytest.approx(2.19, abs=0.01)


def test_vibrations_of_a_molecule_follow_from_its_force_constants():
    """Wilson's G and F matrices of a bent molecule AB₂, and none but three vibrations."""
    state, potential = isolated(), SPCFw()
    hessian = -torch.autograd.functional.jacobian(
        lambda q: potential.forces(state.moved(q.view(3, 3), state.momenta)).view(-1), state.positions.view(-1)
    )
    root = state.masses.sqrt().repeat_interleave(3)
    squares = torch.linalg.eigvalsh(hessian / (root.unsqueeze(1) * root))
    assert squares[:6].abs().max() < 1e-9 * squares[-1]

    m_o, m_h = state.masses[:2].tolist()
    cos, sin = math.cos(ANGLE), math.sin(ANGLE)
    mixed = -math.sqrt(2) * sin / (m_o * BOND)
    G = np.array([[1 / m_h + (1 + cos) / m_o, mixed], [mixed, 2 / BOND**2 * (1 / m_h + (1 - cos) / m_o)]])
    even = np.linalg.eigvals(G @ np.diag([BOND_STIFFNESS, ANGLE_STIFFNESS]))
    odd = BOND_STIFFNESS * (1 / m_h + (1 - cos) / m_o)
    np.testing.assert_allclose(squares[6:], sorted([*even, odd]), rtol=1e-9)
    bend, symmetric, antisymmetric = (wavenumber_per_cm(math.sqrt(x)) for x in squares[6:].tolist())
    assert 1350 < bend < 1500 and 3500 < symmetric < antisymmetric < 3900


def pair_at(distance):
    """Two molecules with their oxygens this far apart."""
    atoms = structure("water1")
    atoms.set_pbc(False)
    other = atoms.copy()
    other.positions += [distance, 0, 0]
    return al.PhaseState.from_atoms(atoms + other)


def test_close_molecules_attract_and_repel_like_point_charges():
    """Undamped and with a far cutoff R this is plain Coulomb and Lennard-Jones, but for dipole²/(r·R²) ~ 1e-4 eV."""
    state, potential = pair_at(2.8), SPCFw(cutoff=(90.0, 100.0), damping_per_A=0.0)
    q = torch.tensor([-0.82, 0.41, 0.41], dtype=torch.float64)
    r = torch.cdist(state.positions[:3], state.positions[3:])
    x6 = (3.165492 / 2.8) ** 6
    expected = COULOMB * (q.unsqueeze(1) * q / r).sum() + 4 * 0.1554253 * al.units.KCAL_PER_MOL * x6 * (x6 - 1)
    assert potential.energy(state).item() == pytest.approx(expected.item(), abs=2e-4)


def test_energy_is_twice_continuously_differentiable_at_both_ends_of_the_switch():
    potential = SPCFw()

    def curvature(distance):
        state = pair_at(distance)
        q = state.positions.clone().requires_grad_()
        pull = potential.forces(state.moved(q, state.momenta))[3:, 0].sum()
        return torch.autograd.grad(pull, q)[0][3:, 0].sum().item()

    for edge in potential.cutoff:
        near, far = (abs(curvature(edge + step) - curvature(edge - step)) for step in (1e-7, 1e-5))
        assert near < 0.02 * far < 1e-4 * abs(curvature(4.0))  # a jump would not shrink with the step


def test_energy_and_momentum_are_conserved():
    potential, generator = SPCFw(), torch.Generator().manual_seed(0)
    state = al.PhaseState.from_atoms(structure("water16"))
    options = {"temperature_K": 300.0, "friction_per_ps": 20.0, "generator": generator}
    state = langevin(maxwell_boltzmann(state, 300.0, generator), potential, step_fs=0.5, steps=200, **options)
    state = without_total_momentum(state)
    verlet = al.Verlet(potential, step_fs=0.5)
    energies = []
    for _ in range(150):
        state = verlet.step(state)
        energies.append((state.kinetic_energy() + potential.energy(state)).item())
    assert np.std(energies) / state.n_atoms < 1e-3
    assert abs(np.mean(energies[-50:]) - np.mean(energies[:50])) / state.n_atoms < 3e-4
    assert state.momenta.sum(0).abs().max() < 1e-10


def test_structure_of_steps():
    state, potential = state_of(2), SPCFw()
    step = al.Verlet(potential, step_fs=0.5)
    assert al.symplectic_defect(step, state) < 1e-11 and al.reversal_error(step, state) < 1e-11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda atoms: atoms.numbers.__setitem__(3, 18), "atomic numbers .*18"),
        (lambda atoms: atoms.positions.__setitem__((4, 0), atoms.positions[4, 0] + 1.8), "hydrogen 4 has no oxygen"),
        (lambda atoms: atoms.numbers.__setitem__(4, 8), "oxygen 3 is nearest to 1 hydrogens"),
    ],
)
def test_what_is_not_water_is_refused(change, message):
    atoms = structure("water3")
    atoms.set_cell([30, 30, 30])
    change(atoms)
    with pytest.raises(UnsupportedSystem, match=message):
        SPCFw().energy(al.PhaseState.from_atoms(atoms))


def test_bad_cutoff_is_refused():
    with pytest.raises(InvalidInput, match="0 < start < end"):
        SPCFw(cutoff=(9.0, 8.0))


def with_molecules_apart(state, molecules, factor):
    """The box and the places of the molecules scaled, their shapes kept; by their oxygens, which is as good."""
    places = state.positions[molecules.oxygen][molecules.molecule]
    return al.PhaseState(
        state.positions + (factor - 1) * places,
        state.momenta,
        state.masses,
        state.numbers,
        cell=factor * state.cell,
        pbc=state.pbc,
    )


@pytest.mark.physics
def test_liquid_water():
    """At 300 K and 0.997 g/cm³: pressure, nearest neighbours, and the O-H stretch."""
    potential, generator = SPCFw(), torch.Generator().manual_seed(1)
    state = maxwell_boltzmann(al.PhaseState.from_atoms(structure("water64")), 300.0, generator)
    options = {"step_fs": 0.5, "temperature_K": 300.0, "generator": generator}
    state = langevin(state, potential, steps=1000, friction_per_ps=10.0, **options)
    volume = torch.linalg.det(state.cell[0]).item()
    pressures, distances = [], []
    for _ in range(15):
        state = langevin(state, potential, steps=50, friction_per_ps=5.0, **options)
        molecules = potential.molecules(state)
        low, high = (SPCFw().energy(with_molecules_apart(state, molecules, 1 + e)).item() for e in (-1e-4, 1e-4))
        ideal = 64 * al.units.BOLTZMANN * 300.0 / volume
        pressures.append((ideal - (high - low) / (6e-4 * volume)) / bar)
        edges = al.find_edges(state, 4.0, half=True)
        oxygens = (state.numbers[edges.centre] == 8) & (state.numbers[edges.other] == 8)
        distances.append(edges.vectors(state.positions).norm(dim=1)[oxygens].numpy())
    assert abs(np.mean(pressures)) < 1500
    counts, bins = np.histogram(np.concatenate(distances), bins=np.arange(2.3, 4.01, 0.1))
    r = 0.5 * (bins[1:] + bins[:-1])
    density = counts / r**2 / (4 * np.pi * 0.1 * 0.5 * 64 * 64 / volume) / 15
    assert 2.65 < r[density.argmax()] < 2.9 and 2.0 < density.max() < 3.7

    verlet = al.Verlet(potential, step_fs=0.5)
    velocities = []
    for _ in range(400):
        state = verlet.step(state, n=2)
        velocities.append(state.velocities[state.numbers == 1].numpy())
    power = (np.abs(np.fft.rfft(np.array(velocities) * np.hanning(400)[:, None, None], axis=0)) ** 2).sum((1, 2))
    wavenumbers = np.fft.rfftfreq(400, 1.0) / 2.99792458e-5
    assert 3500 < wavenumbers[wavenumbers > 2500][power[wavenumbers > 2500].argmax()] < 3800
    bend = (wavenumbers > 1200) & (wavenumbers < 2200)
    assert 1350 < wavenumbers[bend][power[bend].argmax()] < 1600
