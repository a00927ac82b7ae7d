"""Dynamics objects of ASE: a drop-in for its own, and what they notice, keep and refuse."""

import io
import warnings

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength, FixCom
from ase.io.trajectory import Trajectory
from ase.md.verlet import VelocityVerlet

import actionlearn as al
from actionlearn.ase import ActionBussi, ActionGHMC, ActionLangevin, ActionNVE
from actionlearn.ase.base import ActionDynamics
from actionlearn.dynamics import as_text, degrees_of_freedom
from actionlearn.errors import BlownUp, DriftTooLarge, InvalidInput, InvalidState, NonFinite, UnsupportedSystem
from actionlearn.potentials import ASEPotential, SecondMomentMetals
from actionlearn.units import BOLTZMANN, FEMTOSECOND


def alloy(temperature_K=500.0, seed=0, repeat=(2, 2, 1)):
    atoms = bulk("Cu", a=3.85, cubic=True) * repeat
    atoms.numbers[::2] = 79
    atoms.set_masses(None)
    atoms.rattle(0.05, seed=1)
    m = atoms.get_masses()[:, None]
    p = np.random.default_rng(seed).normal(size=(len(atoms), 3)) * np.sqrt(m * BOLTZMANN * temperature_K)
    atoms.set_momenta(p - m * p.sum(0) / m.sum())
    return atoms


def verlet(step_fs=5.0, potential=None):
    return al.Verlet(potential or SecondMomentMetals(), step_fs=step_fs)


# --- the drop-in -----------------------------------------------------------------------------------------


def script(make, folder, atoms):
    """What an ASE user writes, whatever the dynamics object."""
    atoms.calc = EMT()
    dyn = make(atoms, trajectory=str(folder / "md.traj"), logfile=str(folder / "md.log"), loginterval=5)
    seen = []
    dyn.attach(lambda: seen.append((dyn.nsteps, dyn.get_time(), atoms.get_total_energy())), interval=10)
    dyn.attach(seen.append, -7, "only at step 7")
    writer = Trajectory(folder / "other.traj", "w", atoms)
    dyn.attach(writer, interval=10)
    dyn.run(20)
    for _ in dyn.irun(10):
        seen.append(dyn.nsteps)
    writer.close()
    dyn.close()
    frames = ase.io.read(folder / "md.traj", ":")
    return seen, (folder / "md.log").read_text(), frames, ase.io.read(folder / "other.traj", ":")


@pytest.mark.parametrize("constraint", [None, FixAtoms([0, 3])])
def test_velocity_verlet_swapped_for_a_map_in_an_unmodified_script(tmp_path, constraint):
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
    start = alloy(repeat=(2, 1, 1))
    if constraint:
        start.set_constraint(constraint)
        start.set_momenta(start.get_momenta())  # fixed atoms lose theirs
    theirs = script(lambda atoms, **o: VelocityVerlet(atoms, 5 * FEMTOSECOND, **o), tmp_path / "theirs", start.copy())
    model = al.Verlet(ASEPotential(EMT()), step_fs=5.0)
    ours = script(lambda atoms, **o: ActionNVE(atoms, model=model, **o), tmp_path / "ours", start.copy())
    assert [x if isinstance(x, (int, str)) else x[0] for x in ours[0]] == [
        x if isinstance(x, (int, str)) else x[0] for x in theirs[0]
    ]
    for mine, other in zip(ours[0], theirs[0], strict=True):
        if isinstance(mine, tuple):
            assert mine == pytest.approx(other, abs=1e-9)
    assert ours[1] == theirs[1]  # the log file, letter by letter
    for which in (2, 3):
        assert len(ours[which]) == len(theirs[which])
        for mine, other in zip(ours[which], theirs[which], strict=True):
            assert np.abs(mine.positions - other.positions).max() < 1e-10
            assert np.abs(mine.get_momenta() - other.get_momenta()).max() < 1e-9
            assert mine.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-9)


class Counting:
    def __init__(self, potential):
        self.potential, self.calls = potential, 0

    def energy(self, state):
        return self.potential.energy(state)

    def forces(self, state):
        self.calls += 1
        return self.potential.forces(state)


class CountingEMT(EMT):
    calls = 0

    def calculate(self, *args, **kwargs):
        CountingEMT.calls += 1
        super().calculate(*args, **kwargs)


def test_one_force_a_step_and_none_from_the_calculator():
    potential = Counting(SecondMomentMetals())
    atoms = alloy()
    atoms.calc = CountingEMT()
    CountingEMT.calls = 0
    dyn = ActionNVE(atoms, model=verlet(potential=potential))
    dyn.run(30)
    for _ in dyn.irun(10):
        pass
    assert potential.calls == 41 and CountingEMT.calls == 0
    assert dyn.nsteps == 40 and dyn.get_time() == pytest.approx(200 * FEMTOSECOND)


def test_run_and_irun_give_the_same_bits():
    one, other = alloy(), alloy()
    ActionNVE(one, model=verlet()).run(37)
    for _ in ActionNVE(other, model=verlet()).irun(37):
        pass
    assert (one.positions == other.positions).all() and (one.get_momenta() == other.get_momenta()).all()


def network(state):
    torch.manual_seed(0)
    net = al.AtomicMoments(sorted(set(state.numbers.tolist())), cutoff=4.5, channels=4, hidden=8, heads=2)
    net.calibrate([state]).randomise(1.0, seed=3).requires_grad_(False)
    net.readout.weight.div_(net.forces(state).square().mean().sqrt())
    return net


def processed(state):
    net = network(state)
    inner = al.CorrectedVerlet(SecondMomentMetals(), step_fs=8.0, stages=1)
    return al.ProcessedAction(inner, al.Displacement(net.head(0, 0.1), step_fs=8.0))


def test_a_processed_map_is_left_only_when_something_looks(monkeypatch):
    atoms = alloy()
    state = al.PhaseState.from_atoms(atoms)
    model = processed(state)
    left = []
    leave = al.Displacement.leave
    monkeypatch.setattr(al.Displacement, "leave", lambda self, s: left.append(1) or leave(self, s))
    dyn = ActionNVE(atoms, model=model)
    dyn.attach(lambda: None, interval=10)
    dyn.run(20)
    assert len(left) == 2
    expected = model.step(state, 20)
    assert np.abs(atoms.positions - expected.positions.numpy()).max() < 1e-10


@pytest.mark.parametrize("kind", ["nve", "langevin", "bussi", "ghmc"])
def test_no_calculator_is_needed(kind, tmp_path):
    atoms = alloy()
    log = io.StringIO()
    make = {
        "nve": lambda **o: ActionNVE(atoms, model=verlet(), **o),
        "langevin": lambda **o: ActionLangevin(atoms, model=verlet(), temperature_K=500, friction_per_ps=1, **o),
        "bussi": lambda **o: ActionBussi(atoms, model=verlet(), temperature_K=500, time_ps=0.1, **o),
        "ghmc": lambda **o: ActionGHMC(
            atoms, model=verlet(), temperature_K=500, friction_per_ps=1, potential=SecondMomentMetals(), **o
        ),
    }[kind]
    dyn = make(logfile=log, trajectory=str(tmp_path / "a.traj"), loginterval=10)
    dyn.run(20)
    lines = log.getvalue().splitlines()
    assert len(lines) == 4 and ("nan" in lines[-1]) == (kind != "ghmc")
    frames = ase.io.read(tmp_path / "a.traj", ":")
    assert len(frames) == 3 and frames[-1].calc is None
    info = Trajectory(tmp_path / "a.traj").description
    assert info["type"] == "molecular-dynamics" and info["md-type"] == type(dyn).__name__
    assert info["timestep"] == pytest.approx(5 * FEMTOSECOND) and info["ensemble"] == kind
    summary = dyn.summary()
    assert summary["steps"] == 20 and summary["time_ps"] == pytest.approx(0.1)
    assert summary["ns_per_day"] > 0 and set(summary["temperatures_K"]) == {"Cu", "Au"}
    assert "ns per day" in dyn.report() and "\n" in as_text(summary)


# --- what others do to the atoms in between ---------------------------------------------------------------


def test_changes_between_steps_are_noticed():
    atoms = alloy()
    potential = Counting(SecondMomentMetals())
    dyn = ActionNVE(atoms, model=verlet(potential=potential))
    dyn.run(3)
    atoms.set_momenta(0.5 * atoms.get_momenta())
    expected = verlet().step(al.PhaseState.from_atoms(atoms), 2)
    calls = potential.calls
    dyn.run(2)
    assert potential.calls == calls + 2  # the force at unchanged positions was still known
    assert np.abs(atoms.positions - expected.positions.numpy()).max() < 1e-12
    atoms.positions[0] += 0.01
    expected = verlet().step(al.PhaseState.from_atoms(atoms), 2)
    dyn.run(2)
    assert np.abs(atoms.positions - expected.positions.numpy()).max() < 1e-12
    atoms.set_cell(atoms.cell * 1.01, scale_atoms=True)
    expected = verlet().step(al.PhaseState.from_atoms(atoms), 2)
    dyn.run(2)
    assert np.abs(atoms.positions - expected.positions.numpy()).max() < 1e-12
    held = atoms.positions[1].copy()
    atoms.set_constraint(FixAtoms([1]))
    dyn.run(2)
    assert (atoms.positions[1] == held).all()


def test_species_changed_in_a_run_are_refused():
    atoms = alloy()
    model = al.DiscreteAction([SecondMomentMetals(("Cu", "Au", "Ag"))] * 2, step_fs=2.0, species=(29, 79))
    dyn = ActionNVE(atoms, model=model)
    dyn.run(2)
    atoms.numbers[0] = 47
    with pytest.raises(UnsupportedSystem, match="made for Cu, Au, the system also contains Ag"):
        dyn.run(2)


class Spring:
    """Far too stiff for the step it is used with."""

    def forces(self, state):
        return -10.0 * state.positions


@pytest.mark.parametrize(
    ("step_fs", "error", "message"),
    [
        (1e20, NonFinite, r"momenta that are not finite .*: the trajectory has blown up, shorten the step"),
        (40.0, BlownUp, r"moves at .* Å a step of 40 fs.*: the trajectory has blown up; relax"),
    ],
)
def test_a_run_that_blows_up_says_so_and_keeps_the_last_good_frame(step_fs, error, message):
    atoms = alloy()
    dyn = ActionNVE(atoms, model=al.CorrectedVerlet(Spring(), step_fs=step_fs))
    with pytest.raises(error, match=message):
        dyn.run(500)
    assert dyn.nsteps < 500
    assert np.isfinite(atoms.positions).all() and np.isfinite(atoms.get_momenta()).all()


def trained(atoms, scale):
    """A map whose checkpoint would report this range of inputs."""
    model = al.DiscreteAction([network(al.PhaseState.from_atoms(atoms)).head(0.5, 0)], step_fs=1.0, stages=1)
    x = network(al.PhaseState.from_atoms(atoms)).features_and_vectors(al.PhaseState.from_atoms(atoms))[0]
    spread = scale * x.abs().amax().expand(x.shape[1])
    model.report = {"input_range": {"least": x.amin(0) - spread, "largest": x.amax(0) + spread, "spread": spread}}
    return model


def test_atoms_outside_the_range_of_training_are_warned_of_once():
    atoms = alloy()
    dyn = ActionNVE(atoms, model=trained(atoms, 10.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dyn.run(40)
    assert dyn.summary()["share_outside_training"] == 0.0
    dyn = ActionNVE(atoms, model=trained(alloy(), 0.0))
    with pytest.warns(UserWarning, match="of 16 atoms are outside the range of training after 0 steps") as caught:
        dyn.run(60)
    assert len(caught) == 1 and dyn.summary()["share_outside_training"] > 0.3


# --- constraints and degrees of freedom ------------------------------------------------------------------


def test_degrees_of_freedom():
    atoms = alloy()
    assert degrees_of_freedom(al.PhaseState.from_atoms(atoms)).tolist() == [45]
    moving = alloy()
    moving.set_momenta(moving.get_momenta() + 0.1)
    fixed = alloy()
    fixed.set_constraint(FixAtoms([0, 1]))
    states = [al.PhaseState.from_atoms(a) for a in (moving, fixed)]
    assert degrees_of_freedom(al.PhaseState.batch(states)).tolist() == [48, 42]
    one = al.PhaseState(np.zeros((1, 1)), np.ones((1, 1)), np.ones(1))
    assert degrees_of_freedom(one).tolist() == [1]


def test_centre_of_mass_is_held():
    atoms = alloy()
    atoms.set_constraint(FixCom())
    centre = atoms.get_center_of_mass()
    dyn = ActionLangevin(atoms, model=verlet(), temperature_K=500, friction_per_ps=5)
    dyn.run(50)
    assert np.abs(atoms.get_momenta().sum(0)).max() < 1e-10
    assert np.abs(atoms.get_center_of_mass() - centre).max() < 1e-10
    assert degrees_of_freedom(dyn.engine.state).tolist() == [45]


@pytest.mark.parametrize("make", [ActionNVE, ActionLangevin, ActionBussi, ActionGHMC])
def test_fixed_atoms_stay(make):
    atoms = alloy()
    atoms.set_constraint([FixAtoms([0]), FixAtoms([5, 6])])
    held = atoms.positions[[0, 5, 6]].copy()
    options = {} if make is ActionNVE else {"temperature_K": 500.0}
    options |= {"friction_per_ps": 5.0} if make in (ActionLangevin, ActionGHMC) else {}
    options |= {"time_ps": 0.1} if make is ActionBussi else {}
    options |= {"potential": SecondMomentMetals()} if make is ActionGHMC else {}
    make(atoms, model=verlet(), **options).run(20)
    assert (atoms.positions[[0, 5, 6]] == held).all()


def test_a_bias_among_the_extra_potentials_joins_the_kicks_and_the_acceptance_test():
    class Pull:
        def energy(self, state):
            return 0.5 * state.sum_by_system(state.positions[:, 0] ** 2)

        def forces(self, state):
            return torch.nn.functional.pad(-state.positions[:, :1], (0, 2))

    atoms = alloy()
    model = al.CorrectedVerlet(SecondMomentMetals(), step_fs=1.0, stages=2, extra=[Pull()])
    dyn = ActionGHMC(atoms, model=model, potential=SecondMomentMetals(), temperature_K=500, friction_per_ps=1)
    before = atoms.positions[:, 0].mean()
    dyn.run(30)
    assert dyn.summary()["acceptance"] > 0.8 and atoms.positions[:, 0].mean() < before
    model.extra.clear()
    assert float(dyn.ensemble.energy(model, dyn.engine.state)) == float(SecondMomentMetals().energy(dyn.engine.state))


# --- the drift guard --------------------------------------------------------------------------------------


def leaky(step_fs=5.0):
    """Verlet that gains energy slowly."""

    class Leaky(al.Verlet):
        def step(self, state, n=1):
            for _ in range(n):
                state = super().step(state)
                state = state.moved(state.positions, state.momenta * 1.0005)
            return state

    return Leaky(SecondMomentMetals(), step_fs=step_fs)


def test_energy_that_somebody_else_puts_in_is_no_drift():
    atoms = alloy()
    dyn = ActionNVE(atoms, model=verlet(2.0), potential=SecondMomentMetals(), drift_limit=1.0)
    dyn.run(800)
    atoms.set_momenta(1.5 * atoms.get_momenta())
    dyn.run(800)
    assert abs(dyn.summary()["drift_meV_per_atom_per_ps"]) < 1.0


def test_drift_beyond_the_limit_raises_or_warns_once(monkeypatch):
    monkeypatch.setattr("actionlearn.dynamics.engine.ENERGY_EVERY", 20)
    with pytest.raises(DriftTooLarge, match="drifts by .* meV/atom/ps after .* the limit is 1"):
        ActionNVE(alloy(), model=leaky(), potential=SecondMomentMetals(), drift_limit=1.0).run(1000)
    dyn = ActionNVE(alloy(), model=leaky(), potential=SecondMomentMetals(), drift_limit=1.0, policy="warn")
    with pytest.warns(UserWarning, match="conserved energy drifts") as caught:
        dyn.run(800)
    assert len(caught) == 1 and dyn.summary()["drift_warnings"] >= 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sound = ActionNVE(alloy(), model=verlet(), potential=SecondMomentMetals(), drift_limit=1.0)
        sound.run(800)
    assert abs(sound.summary()["drift_meV_per_atom_per_ps"]) < 1.0


# --- wrong inputs -----------------------------------------------------------------------------------------


def strange(constraint):
    atoms = alloy()
    atoms.set_constraint(constraint)
    return atoms


def with_mass(mass):
    atoms = alloy()
    atoms.set_masses([mass if Z == 29 else 196.96657 for Z in atoms.numbers])
    return atoms


def made_for(species=(), masses=None):
    return al.CorrectedVerlet(SecondMomentMetals(), step_fs=5.0, species=species, masses=masses)


def broken(name, value):
    atoms = alloy()
    atoms.arrays[name][2, 1] = value
    return atoms


def flat():
    atoms = alloy()
    atoms.cell[2] = 0
    return atoms


T = {"temperature_K": 300.0}
WRONG = {
    "no model": (lambda: ActionNVE(alloy(), model=None), InvalidInput, "model must be a map"),
    "a potential as model": (
        lambda: ActionNVE(alloy(), model=SecondMomentMetals()), InvalidInput, "model must be a map"),
    "no atoms": (lambda: ActionNVE([1, 2], model=verlet()), InvalidInput, "atoms must be an ase.Atoms, got list"),
    "time step": (
        lambda: ActionNVE(alloy(), 2.0 * FEMTOSECOND, model=verlet()), InvalidInput, "timestep is 2 fs, .* 5 fs"),
    "bonds": (lambda: ActionNVE(strange(FixBondLength(0, 1)), model=verlet()), UnsupportedSystem, "FixBondLength"),
    "both fixed": (
        lambda: ActionNVE(strange([FixAtoms([0]), FixCom()]), model=verlet()), UnsupportedSystem,
        "FixCom with FixAtoms"),
    "species": (
        lambda: ActionNVE(alloy(), model=made_for((29,))), UnsupportedSystem,
        "made for Cu, the system also contains Au"),
    "mass": (
        lambda: ActionNVE(with_mass(64.0), model=made_for((29, 79), {29: 63.546})), UnsupportedSystem,
        "Cu of mass 63.546 u, the system has 64 u"),
    "negative mass": (lambda: ActionNVE(with_mass(-1.0), model=verlet()), InvalidState, "masses must be positive"),
    "nan position": (
        lambda: ActionNVE(broken("positions", np.nan), model=verlet()), InvalidState, "not finite.*atom 2"),
    "infinite momentum": (
        lambda: ActionNVE(broken("momenta", np.inf), model=verlet()), InvalidState, "momenta are not finite"),
    "cell without height": (lambda: ActionNVE(flat(), model=verlet()), InvalidState, "span no volume"),
    "negative steps": (lambda: ActionNVE(alloy(), model=verlet()).run(-1), InvalidInput, "steps must be .* got -1"),
    "half a step": (lambda: ActionNVE(alloy(), model=verlet()).run(1.5), InvalidInput, "whole number.*1.5"),
    "policy": (
        lambda: ActionNVE(alloy(), model=verlet(), policy="ignore"), InvalidInput, "policy must be one of .*'ignore'"),
    "limit without energies": (
        lambda: ActionNVE(alloy(), model=verlet(), drift_limit=1.0), InvalidInput, "drift_limit needs energies"),
    "negative limit": (
        lambda: ActionNVE(alloy(), model=verlet(), drift_limit=-1.0, potential=SecondMomentMetals()), InvalidInput,
        "drift_limit must be a positive number"),
    "restart interval": (
        lambda: ActionNVE(alloy(), model=verlet(), restart_every=0), InvalidInput, "restart_every must be .* got 0"),
    "Langevin temperature": (
        lambda: ActionLangevin(alloy(), model=verlet(), temperature_K=-1, friction_per_ps=1), InvalidInput,
        "temperature_K must be a positive number, got -1"),
    "Langevin friction": (
        lambda: ActionLangevin(alloy(), model=verlet(), friction_per_ps=0.0, **T), InvalidInput, "friction_per_ps"),
    "no number": (
        lambda: ActionLangevin(alloy(), model=verlet(), friction_per_ps="1", **T), InvalidInput, "got '1'"),
    "nan temperature": (
        lambda: ActionBussi(alloy(), model=verlet(), temperature_K=float("nan"), time_ps=1), InvalidInput, "got nan"),
    "relaxation time": (
        lambda: ActionBussi(alloy(), model=verlet(), time_ps=-0.1, **T), InvalidInput, "time_ps must be .* got -0.1"),
    "nothing moves": (
        lambda: ActionBussi(bulk("Cu", cubic=True), model=verlet(), time_ps=0.1, **T), InvalidInput,
        "all momenta are zero"),
    "no energy to test": (
        lambda: ActionGHMC(alloy(), model=verlet(), friction_per_ps=1, **T), InvalidInput, "base potential's energy"),
    "no proposals": (lambda: ghmc(proposal_steps=0), InvalidInput, "steps_per_move must be .* got 0"),
    "volume interval": (lambda: ghmc(volume_every=-1), InvalidInput, "volume_every must be .* got -1"),
    "volume step": (lambda: ghmc(volume_step=0), InvalidInput, "volume_step must be .* got 0"),
    "pressure": (lambda: ghmc(pressure_GPa=float("inf")), InvalidInput, "pressure_GPa must be a number, got inf"),
    "pressure on a molecule": (lambda: ghmc(cluster(), pressure_GPa=0.0), UnsupportedSystem, "periodic in three"),
    "pressure on fixed atoms": (
        lambda: ghmc(strange(FixAtoms([0])), pressure_GPa=0.0), UnsupportedSystem, "which fixed atoms forbid"),
    "irreversible map": (lambda: ghmc(model=leaky()), UnsupportedSystem, "map is not reversible: there and back"),
    "direct predictor": (lambda: ghmc(model=direct()), UnsupportedSystem, "neither keeps volumes nor is reversible"),
}  # fmt: skip


def cluster():
    atoms = alloy()
    atoms.pbc = False
    return atoms


def direct():
    return al.DirectPredictor((29, 79), step_fs=5.0, cutoff=4.5, channels=4, hidden=8)


def ghmc(atoms=None, model=None, **options):
    start = alloy() if atoms is None else atoms
    return ActionGHMC(start, model=model or verlet(), friction_per_ps=1, potential=SecondMomentMetals(), **T, **options)


@pytest.mark.parametrize("case", WRONG, ids=lambda name: name.replace(" ", "-"))
def test_wrong_inputs(case):
    call, error, message = WRONG[case]
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_not_swallowed():
    with pytest.raises(TypeError, match="temperture_K"):
        ActionLangevin(alloy(), model=verlet(), temperture_K=300, friction_per_ps=1)


def test_a_molecule_without_cell():
    atoms = molecule("H2O")
    atoms.set_momenta(np.random.default_rng(0).normal(size=(3, 3)))

    class Free:
        def energy(self, state):
            return torch.zeros(state.n_systems, dtype=state.positions.dtype)

        def forces(self, state):
            return torch.zeros_like(state.positions)

    dyn = ActionNVE(atoms, model=al.Verlet(Free(), step_fs=1.0))
    assert isinstance(dyn, ActionDynamics)
    where = atoms.positions + 10 * FEMTOSECOND * atoms.get_velocities()
    dyn.run(10)
    assert np.abs(atoms.positions - where).max() < 1e-12
