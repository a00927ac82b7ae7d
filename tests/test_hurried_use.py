"""What a hurried user does with maps and measures: it works, or says in one line why not."""

import dataclasses

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from ase.units import fs
from torch.autograd import forward_ad

import actionlearn as al
from actionlearn.cli import main
from actionlearn.errors import InvalidInput, InvalidState, NonFinite, NotDifferentiable, UnsupportedSystem

STEP_FS = 1.0


def water(n: int = 1) -> al.PhaseState:
    rng = np.random.default_rng(0)
    q = np.array([[0.0, 0.0, 0.1], [0.0, 0.77, -0.49], [0.0, -0.77, -0.49]])
    return al.PhaseState(
        positions=np.concatenate([q + 5.0 * k for k in range(n)]),
        momenta=0.3 * rng.normal(size=(3 * n, 3)),
        masses=np.tile([16.0, 1.0, 1.0], n),
        numbers=np.tile([8, 1, 1], n),
    )


def network(momenta: bool = False, heads: int = 1) -> al.AtomicMoments:
    torch.manual_seed(0)
    return al.AtomicMoments((1, 8), cutoff=4.0, channels=4, hidden=16, momenta=momenta, heads=heads).randomise(1.0)


def maps(net: al.AtomicMoments, even: al.AtomicMoments) -> dict:
    inner = al.DiscreteAction([net.head(1.0, 0.0)], step_fs=STEP_FS)
    return {
        "discrete": al.DiscreteAction([net, net], stages=2, step_fs=STEP_FS),
        "processed": al.ProcessedAction(inner, al.Displacement(net.head(0.0, 0.01), step_fs=STEP_FS)),
        "corrected": al.CorrectedVerlet(net, step_fs=STEP_FS),
        "midpoint": al.MidpointAction(even, step_fs=STEP_FS),
        "Verlet": al.Verlet(net, step_fs=STEP_FS),
    }


KINDS = ("discrete", "processed", "corrected", "midpoint", "Verlet")


@pytest.mark.parametrize("kind", KINDS)
def test_inference_mode_gives_what_no_grad_gives(kind):
    nets, others = (network(heads=2), network(momenta=True)), (network(heads=2), network(momenta=True))
    with torch.no_grad():
        expected = maps(*nets)[kind].step(water(), 2)
    with torch.inference_mode():
        step = maps(*others)[kind]
        found = step.step(step.step(water()))
    assert torch.equal(found.positions, expected.positions) and torch.equal(found.momenta, expected.momenta)
    al.reversal_error(step, found, n=1)  # what was kept in inference mode serves later


def test_a_network_looked_at_in_inference_mode_still_has_forces_and_gradients():
    net, state = network(), water()
    with torch.inference_mode():
        net.energy(state)
        forces = net.forces(water())
    torch.testing.assert_close(net.forces(state).detach(), forces)
    net.energy(state).sum().backward()
    assert net.mix[0].grad is not None


def test_energies_taken_without_gradients_do_not_cut_later_ones():
    net, state = network(), water()
    with torch.no_grad():
        net.energy(state)
    net.energy(state).sum().backward()
    assert net.mix[0].grad.abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_changed_weights_take_effect_at_once(kind):
    net, even = network(heads=2), network(momenta=True)
    step = maps(net, even)[kind]
    with torch.no_grad():
        state = step.step(water())
        before = step.step(state)
        state = step.step(water())
        for w in (net.readout.weight, even.readout.weight):
            w.mul_(3.0)
        after, fresh = step.step(state), maps(net, even)[kind].step(state)
    torch.testing.assert_close(after.positions, fresh.positions, rtol=0, atol=1e-12)
    assert (after.positions - before.positions).abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["discrete", "processed", "corrected"])
def test_steps_without_gradients_do_not_cut_later_ones(kind):
    gradients = []
    for keep in (True, False):
        net = network(heads=2)
        step = maps(net, network(momenta=True))[kind]
        with torch.no_grad():
            state = step.step(water())
        step.step(
            state if keep else state.moved(state.positions.clone(), state.momenta.clone())
        ).positions.sum().backward()
        gradients.append(net.readout.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_state_and_no_number_of_steps_is_refused(kind):
    step = maps(network(heads=2), network(momenta=True))[kind]
    with pytest.raises(InvalidInput, match="from_atoms"):
        step.step(water().to_atoms())
    with pytest.raises(InvalidInput, match="n must not be negative, got -1"):
        step.step(water(), n=-1)


class Constant:
    def __init__(self, force: torch.Tensor) -> None:
        self.force = force

    def energy(self, state: al.PhaseState) -> torch.Tensor:
        return state.positions.new_zeros(state.n_systems)

    def forces(self, state: al.PhaseState) -> torch.Tensor:
        return self.force


def test_numbers_that_are_not_finite_are_never_returned():
    with pytest.raises(NonFinite, match="not finite within 1 step"):
        al.DiscreteAction([Constant(torch.full((3, 3), torch.nan))], step_fs=STEP_FS).step(water())


@pytest.mark.parametrize("make", [al.DiscreteAction, al.Verlet])
@pytest.mark.parametrize(
    ("force", "match"),
    [
        (torch.zeros(3, 1).double(), r"shape \(3, 1\)"),
        (np.zeros((3, 3)), "ndarray"),
        (torch.zeros(3, 3).double(), "torch.float64: expected .*torch.float32"),
    ],
    ids=["broadcast", "numpy", "precision"],
)
def test_forces_that_would_broadcast_or_cast_are_refused(make, force, match):
    state = water().to(torch.float32) if "float32" in match else water()
    with pytest.raises(InvalidInput, match=match):
        make(Constant(force), step_fs=STEP_FS).step(state)


def test_a_network_and_a_state_of_other_precision():
    with pytest.raises(UnsupportedSystem, match=r"torch.float32, the network torch.float64.*state.to\(dtype\)"):
        al.DiscreteAction([network()], step_fs=STEP_FS).step(water().to(torch.float32))


def test_a_lattice_takes_kicks_and_drifts():
    with pytest.raises(InvalidInput, match="DiscreteAction"):
        al.LatticeMap(al.Verlet(network(), step_fs=STEP_FS))


def test_measures_never_pass_what_they_did_not_measure():
    explosion = lambda state: state.moved(state.positions, state.momenta * torch.nan)  # noqa: E731
    assert al.momentum_drift(explosion, water(), n=2) == float("inf")
    for measure in (al.reversal_error, al.momentum_drift, al.angular_momentum_drift):
        with pytest.raises(InvalidInput, match="at least one step"):
            measure(explosion, water(), n=0)


class Spring(torch.nn.Module):
    """A plain module whose call is an energy."""

    def __init__(self) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, state: al.PhaseState) -> torch.Tensor:
        return state.sum_by_system(0.5 * self.k * state.positions.square().sum(1))


def test_a_scalar_may_be_an_object_a_module_or_a_function():
    class Bare:
        def energy(self, state):
            return Spring()(state)

    ends = [al.MidpointAction(G, step_fs=STEP_FS).step(water()) for G in (Bare(), Spring(), lambda s: Spring()(s))]
    assert all(torch.equal(ends[0].positions, end.positions) for end in ends)
    with pytest.raises(InvalidInput, match=r"energy\(state\).* not a float"):
        al.MidpointAction(3.0, step_fs=STEP_FS)


def test_one_potential_needs_no_list():
    spring = al.potentials.FunctionPotential(Spring())
    alone, listed = al.DiscreteAction(spring, step_fs=STEP_FS), al.DiscreteAction([spring], step_fs=STEP_FS)
    assert torch.equal(alone.step(water()).positions, listed.step(water()).positions)
    alone = al.CorrectedVerlet(spring, spring, step_fs=STEP_FS)
    listed = al.CorrectedVerlet(spring, [spring], step_fs=STEP_FS)
    assert torch.equal(alone.step(water()).positions, listed.step(water()).positions)


def test_weights_inside_a_function_are_trained_through_its_forces():
    spring = Spring()
    al.DiscreteAction(al.potentials.FunctionPotential(spring), step_fs=STEP_FS).step(water()).momenta.sum().backward()
    assert spring.k.grad.abs() > 0
    spring.requires_grad_(False)
    assert not al.potentials.FunctionPotential(spring).forces(water()).requires_grad


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [(EMT(), "ASEPotential"), (network().energy, "FunctionPotential"), (Spring(), "FunctionPotential")],
)
def test_what_is_no_potential_is_refused_with_advice(wrong, advice):
    for make in (al.DiscreteAction, al.Verlet, al.CorrectedVerlet):
        with pytest.raises(InvalidInput, match=rf"no potential.*{advice}"):
            make(wrong, step_fs=STEP_FS)


def test_measures_take_a_dynamics_of_ase_as_it_is_and_refuse_a_swap():
    atoms = bulk("Cu", cubic=True)
    atoms.set_momenta(np.random.default_rng(0).normal(size=(4, 3)))
    atoms.calc = EMT()
    state = al.PhaseState.from_atoms(atoms)
    assert al.symplectic_defect(VelocityVerlet(atoms, 2.0 * fs), state) < 1e-11
    assert al.reversal_error(VelocityVerlet(atoms, 2.0 * fs), state, n=2) < 1e-12
    with pytest.raises(InvalidInput, match="step comes first"):
        al.symplectic_defect(state, VelocityVerlet(atoms, 2.0 * fs))
    with pytest.raises(InvalidInput, match="method must be one of auto"):
        al.symplectic_defect(VelocityVerlet(atoms, 2.0 * fs), state, method="forward")


def test_energy_drift_takes_tensors_with_a_graph():
    t = torch.arange(64.0, dtype=torch.float64)
    slope, _ = al.energy_drift(t, (1e-6 * t).requires_grad_(), 1)
    assert slope == pytest.approx(1.0)


def test_states_take_plain_lists_and_say_what_a_cell_is():
    atoms = bulk("Cu", cubic=True)
    given = {"positions": atoms.positions, "momenta": np.zeros((4, 3)), "masses": [63.5] * 4, "pbc": True}
    assert al.PhaseState(**given, cell=atoms.cell).cell.dtype == torch.float64
    assert al.PhaseState(**given, cell=atoms.cell.tolist()).cell.dtype == torch.float64
    with pytest.raises(InvalidState, match="rows in Å"):
        al.PhaseState(**given, cell=[3.6, 3.6, 3.6])


def test_steps_must_be_finite():
    with pytest.raises(InvalidInput, match="positive and finite"):
        al.DiscreteAction([Constant(torch.zeros(3, 3))], step_fs=float("inf"))


def test_bad_usage_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        main(["sample", "cuau108"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "required" in line and "actionlearn sample --help" in line


@pytest.mark.parametrize("kind", KINDS)
def test_reverse_mode_passes_a_step_and_forward_mode_is_refused_where_it_would_be_wrong(kind):
    step, state = (
        maps(network(heads=2).requires_grad_(False), network(momenta=True).requires_grad_(False))[kind],
        water(),
    )

    def momenta(q):
        return step.step(state.moved(q, state.momenta)).momenta.flatten()

    J = torch.autograd.functional.jacobian(momenta, state.positions).reshape(9, 9)
    torch.testing.assert_close(J, al.step_jacobian(step, state, method="differences")[9:, :9], rtol=1e-6, atol=1e-8)
    with pytest.raises(NotDifferentiable, match="forward mode"), forward_ad.dual_level():
        momenta(forward_ad.make_dual(state.positions, torch.ones_like(state.positions)))


def test_where_nothing_moves_there_is_no_jacobian():
    state = dataclasses.replace(water(), fixed=torch.ones(3, dtype=torch.bool))
    with pytest.raises(InvalidInput, match="all atoms are fixed"):
        al.symplectic_defect(al.Verlet(network(), step_fs=STEP_FS), state)
