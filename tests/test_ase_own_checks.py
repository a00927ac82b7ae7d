"""What ASE's own tests ask of its dynamics objects, asked of ours.

Each test here does what one in `ase/test/md` (ASE 3.29), or the step counts in `ase/test/optimize`, does to ASE's own
classes. Left out are those of attributes and options that only one of them has (Asap's names, NumPy generators,
anisotropic stress), and of rigid molecules, which are refused by name.
"""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import compare_atoms
from ase.calculators.emt import EMT
from ase.calculators.idealgas import IdealGas
from ase.constraints import FixCom
from ase.io import Trajectory
from ase.md import VelocityVerlet, thermalize_momenta
from ase.md.velocitydistribution import Stationary
from ase.units import GPa, bar, fs, kB
from scipy.integrate import simpson
from scipy.stats import gaussian_kde

import actionlearn as al
from actionlearn.ase import ActionBussi, ActionGHMC, ActionLangevin, ActionNVE, Corrected
from actionlearn.potentials import ASEPotential, LennardJones, SecondMomentMetals
from actionlearn.potentials.toys import Morse
from actionlearn.reference.thermostat import maxwell_boltzmann

STEP = 1.0


def gold(calculator=True):
    atoms = bulk("Au") * 2
    atoms.rattle(0.05, seed=1)
    thermalize_momenta(atoms, 100.0, rng=np.random.default_rng(0))
    if calculator:
        atoms.calc = EMT()
    return atoms


def make(kind, atoms, step_fs=STEP, **more):
    base = SecondMomentMetals(("Au",))
    model = al.Verlet(base, step_fs=step_fs)
    bath = {"temperature_K": 300.0}
    if kind == "nve":
        return ActionNVE(atoms, model=model, **more)
    if kind == "langevin":
        return ActionLangevin(atoms, model=model, friction_per_ps=1.0, **bath, **more)
    if kind == "bussi":
        return ActionBussi(atoms, model=model, time_ps=0.1, **bath, **more)
    if kind == "ghmc":
        return ActionGHMC(atoms, model=model, friction_per_ps=1.0, potential=base, **bath, **more)
    return Corrected(VelocityVerlet, atoms, model=al.MidpointAction(base, step_fs=step_fs), **more)


KINDS = pytest.mark.parametrize("kind", ["nve", "langevin", "bussi", "ghmc", "corrected"])


@KINDS
def test_md(kind, tmp_path):
    """test_md.py: a context manager, observers, a trajectory writer among them, and what run returns."""
    atoms, seen = gold(), []
    with make(kind, atoms) as md:
        md.attach(lambda: seen.append(atoms.get_total_energy()))
        with Trajectory(tmp_path / "Au.traj", "w", atoms) as traj:
            md.attach(traj.write, interval=3)
            converged = md.run(steps=20)
        assert converged is True and len(seen) == 21
    with Trajectory(tmp_path / "Au.traj", "r") as traj:
        assert isinstance(traj[-1], Atoms) and len(traj) == 7


@KINDS
def test_run_twice(kind):
    """test_md.py: steps add up."""
    with make(kind, gold()) as md:
        md.run(steps=5)
        md.run(steps=5)
    assert md.nsteps == md.max_steps == md.get_number_of_steps() == 10 and md.converged()


@KINDS
def test_irun_start(kind):
    """test_md_stepwise.py: the first yield comes before the first step."""
    atoms = gold()
    before = atoms.copy()
    with make(kind, atoms) as md:
        irun = md.irun(steps=10)
        next(irun)
        assert not compare_atoms(before, atoms)
        next(irun)
        assert compare_atoms(before, atoms) == ["positions"]


@KINDS
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_nsteps(kind, steps):
    """optimize/test_nsteps.py: one yield more than steps, the last of them true."""
    with make(kind, gold()) as md:
        found = list(md.irun(steps=steps))
    assert found == [False] * steps + [True]


@KINDS
def test_irun_call_order(kind):
    """test_irun_force_call_order.py: the order of step, properties, log and observers."""
    md, calls = make(kind, gold()), []
    for name in ("step", "_refresh_properties", "log", "call_observers"):
        setattr(md, name, lambda name=name: calls.append(name))
    list(md.irun(steps=2))
    shown = ["_refresh_properties", "log", "call_observers"]
    assert calls == [*shown, "step", *shown, "step", *shown]


@KINDS
@pytest.mark.parametrize("loginterval", [1, 2])
def test_log_and_trajectory(kind, loginterval, tmp_path):
    """test_md_logger.py and test_md_logger_interval.py: as many lines as frames, and the same in both."""
    atoms = gold()
    files = {"logfile": str(tmp_path / "md.log"), "trajectory": str(tmp_path / "md.traj"), "loginterval": loginterval}
    with make(kind, atoms, **files) as md:
        md.run(steps=5)
        md.run(steps=5)
    lines = (tmp_path / "md.log").read_text().splitlines()
    with Trajectory(tmp_path / "md.traj") as traj:
        frames = list(traj)
    assert len(lines) == len(frames) + 1 == 10 // loginterval + 2
    for line, frame in zip(lines[1:], frames, strict=True):
        assert float(line.split()[-3]) == pytest.approx(frame.get_potential_energy(), abs=0.01)
        assert float(line.split()[-1]) == pytest.approx(frame.get_temperature(), abs=0.1)


@KINDS
def test_attach_an_open_trajectory(kind, tmp_path):
    """optimize/test_optimize_stepwise.py: a trajectory that is open already; its first frame is the start."""
    atoms = gold()
    before = atoms.copy()
    with Trajectory(tmp_path / "tmp.traj", "w") as traj:
        irun = make(kind, atoms, trajectory=traj).irun(10)
        for _ in range(3):
            next(irun)
    with Trajectory(tmp_path / "tmp.traj") as traj:
        images = list(traj)
    assert len(images) == 3
    assert not compare_atoms(before, images[0]) and compare_atoms(before, images[-1]) == ["positions"]


def test_langevin_com():
    """test_langevin_com.py: with FixCom nothing moves the centre of an isolated cluster of two elements."""
    atoms = bulk("CuAu", "rocksalt", a=5.0) * 2
    atoms.pbc = False
    atoms.set_constraint(FixCom())
    thermalize_momenta(atoms, 300.0, rng=np.random.default_rng(0))
    Stationary(atoms)
    model = al.Verlet(SecondMomentMetals(("Cu", "Au")), step_fs=0.01)
    with ActionLangevin(atoms, model=model, temperature_K=300.0, friction_per_ps=200.0) as dyn:
        dyn.run(10)
    assert np.linalg.norm(atoms.get_momenta().sum(0)) < 1e-8


def test_idealgas():
    """test_idealgas.py: pV = NkT for atoms that do not interact."""
    atoms = bulk("Kr").repeat((10, 10, 10))
    atoms.center(vacuum=100)
    atoms.calc = IdealGas()
    thermalize_momenta(atoms, 1000, rng=np.random.default_rng(17))
    with ActionNVE(atoms, model=al.Verlet(ASEPotential(IdealGas()), step_fs=0.1 / fs)) as md:
        for _ in range(5):
            md.run(5)
            stress = atoms.get_stress(include_ideal_gas=True)
            assert atoms.get_stresses(include_ideal_gas=True).mean(0) == pytest.approx(stress)
            pV = -stress[:3].sum() / 3 * atoms.cell.volume
            assert pV == pytest.approx(len(atoms) * kB * atoms.get_temperature(), abs=1e-6)


def test_position_distribution():
    """test_position_distribution.py: the bond length of an oxygen molecule under Langevin dynamics."""
    depth, r0, rho0, T = 5.211, 1.207, 2.78, 300.0
    model = al.Verlet(Morse(depth, rho0 / r0, r0), step_fs=1.0)
    atoms = Atoms("O2", positions=[[0, 0, -0.5 * r0], [0, 0, 0.5 * r0]])
    thermalize_momenta(atoms, T, rng=np.random.default_rng(42))
    with ActionLangevin(atoms, model=model, temperature_K=T, friction_per_ps=10.0, seed=1) as dyn:
        distances = [atoms.get_distance(0, 1) for _ in dyn.irun(1000)]
    grid = np.linspace(0.9, 1.6, 281)
    exact = np.exp(-depth * (1.0 - np.exp(-rho0 / r0 * (grid - r0))) ** 2 / (kB * T)) * grid**2
    exact /= simpson(exact, x=grid)
    found = np.maximum(gaussian_kde(distances)(grid), np.finfo(float).eps)
    exact = np.maximum(exact, np.finfo(float).eps)
    assert simpson(found * np.log(found / exact), x=grid) < 0.05


def test_verlet_and_thermostats():
    """test_verlet_thermostats_asap.py: energy kept; without friction the thermostat is Verlet; with it, it heats."""
    start = bulk("Au").repeat((3, 3, 3))
    start.symbols[5] = "Ag"
    thermalize_momenta(start, 300.0, exact_temperature=True, rng=np.random.default_rng(0))
    Stationary(start)
    base = SecondMomentMetals(("Ag", "Au"))
    verlet = start.copy()
    dyn = ActionNVE(verlet, model=al.Verlet(base, step_fs=0.5), potential=base)
    before = dyn.conserved_energy()
    dyn.run(60)
    assert abs(dyn.conserved_energy() - before) < 1e-4
    for make_one in (
        lambda atoms: ActionLangevin(
            atoms, model=al.Verlet(base, step_fs=0.5), temperature_K=300.0, friction_per_ps=1e-20),
        lambda atoms: ActionBussi(atoms, model=al.Verlet(base, step_fs=0.5), temperature_K=300.0, time_ps=1e20),
    ):  # fmt: skip
        atoms = start.copy()
        make_one(atoms).run(60)
        assert np.allclose(atoms.positions, verlet.positions)
    cold = start.copy()
    thermalize_momenta(cold, 10.0, exact_temperature=True, rng=np.random.default_rng(1))
    Stationary(cold)
    dyn, seen = ActionLangevin(cold, model=al.Verlet(base, step_fs=4.0), temperature_K=300.0, friction_per_ps=50.0), []
    dyn.run(50)
    dyn.attach(lambda: seen.append(cold.get_temperature()))
    dyn.run(500)
    assert np.mean(seen) == pytest.approx(300.0, abs=20.0)


# --- test_bussi.py -------------------------------------------------------------------------------------


def copper(size, seed=42):
    atoms = bulk("Cu") * (size, size, size)
    thermalize_momenta(atoms, 300.0, rng=np.random.default_rng(seed), exact_temperature=True)
    return atoms


class Free:
    def forces(self, state):
        return torch.zeros_like(state.positions)


def bussi(atoms, step_fs, time_ps, seed=0):
    model = al.Verlet(Free(), step_fs=step_fs)
    return ActionBussi(atoms, model=model, temperature_K=300.0, time_ps=time_ps, seed=seed)


def test_bussi():
    """Velocities are needed; energy is transferred."""
    with pytest.raises(ValueError, match="all momenta are zero"):
        bussi(bulk("Pt"), 0.1, 0.1)
    with bussi(copper(2), 0.1, 0.1) as dyn:
        dyn.run(10)
    assert dyn.dt == pytest.approx(0.1 * fs) and float(dyn.ensemble.heat) != 0.0


def test_bussi_transferred_energy_conservation():
    atoms = copper(4)
    potential = SecondMomentMetals(("Cu",))
    with ActionBussi(
        atoms, model=al.Verlet(potential, step_fs=1e-5), temperature_K=300.0, time_ps=0.1, potential=potential
    ) as dyn:
        conserved = [dyn.conserved_energy() for _ in dyn.irun(100)]
    assert np.ptp(conserved) < 1e-10


@pytest.mark.parametrize("size", [3, 4])  # odd and even numbers of degrees of freedom
def test_bussi_paranoia_check(size):
    """Atoms that do not move: the kinetic energy still takes its canonical distribution."""
    atoms = copper(size, seed=10)
    with bussi(atoms, 1e-100, 1e-103, seed=1) as dyn:
        T = [atoms.get_temperature() for _ in dyn.irun(1000)]
    assert np.mean(T) == pytest.approx(300, abs=5.0)


# --- test_nvt_npt.py and test_langevinbaoab.py ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["langevin", "bussi", "ghmc"])
def test_nvt(kind):
    """Mean and spread of the temperature of four gold atoms."""
    atoms = bulk("Au", cubic=True)
    state = maxwell_boltzmann(al.PhaseState.from_atoms(atoms), 300.0, torch.Generator().manual_seed(2))
    atoms.set_momenta(state.momenta.numpy())
    base, T = SecondMomentMetals(("Au",)), []
    model = al.Verlet(base, step_fs=20.0)
    dyn = {
        "langevin": lambda: ActionLangevin(atoms, model=model, temperature_K=300.0, friction_per_ps=2.0),
        "bussi": lambda: ActionBussi(atoms, model=model, temperature_K=300.0, time_ps=0.2),
        "ghmc": lambda: ActionGHMC(atoms, model=model, temperature_K=300.0, friction_per_ps=2.0, potential=base),
    }[kind]()
    dyn.run(50)
    for _ in range(250):
        dyn.run(5)
        T.append(atoms.get_temperature())
    allowed = 0.67 / len(atoms) * 300.0
    assert np.mean(T) == pytest.approx(300.0, abs=allowed)
    assert np.std(T) == pytest.approx(np.sqrt(2.0 / 12) * 300.0, abs=allowed)


def test_npt():
    """Volume moves keep the shape of the cell, and the mean pressure is the one asked for."""
    argon, P = LennardJones(), 5000.0 * bar / GPa
    atoms = bulk("Ar", a=5.2, cubic=True)
    state = maxwell_boltzmann(al.PhaseState.from_atoms(atoms), 80.0, torch.Generator().manual_seed(2))
    atoms.set_momenta(state.momenta.numpy())
    start, pressures = atoms.cell.array.copy(), []

    def virial():
        now = dyn.engine.state
        up, down = (argon.energy(now.in_cell(s * now.cell, s * now.positions)) for s in (1 + 1e-5, 1 - 1e-5))
        V = atoms.get_volume()
        pressures.append((len(atoms) * kB * 40.0 - float(up - down) / 6e-5) / V / GPa)

    dyn = ActionGHMC(
        atoms, model=al.Verlet(argon, step_fs=20.0), potential=argon, temperature_K=40.0, friction_per_ps=2.0,
        pressure_GPa=P, volume_every=2, volume_step=0.03, seed=1,
    )  # fmt: skip
    dyn.run(100)
    dyn.attach(virial, interval=2)
    dyn.run(600)
    ratio = atoms.cell.array[0, 0] / start[0, 0]
    assert abs(ratio - 1.0) > 1e-6 and np.allclose(atoms.cell.array, ratio * start, atol=1e-9)
    blocks = [np.mean(part) for part in np.array_split(pressures, 10)]
    error = np.std(blocks, ddof=1) / 10**0.5
    assert np.mean(pressures) == pytest.approx(P, abs=4.0 * error) and error < 0.2 * P
