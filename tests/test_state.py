import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixBondLength

from actionlearn import PhaseState
from actionlearn.errors import InvalidState, UnsupportedSystem


def ethanol():
    atoms = molecule("CH3CH2OH")
    atoms.set_momenta(np.random.default_rng(0).normal(size=(9, 3)))
    return atoms


def test_atoms_go_in_and_out_without_loss():
    atoms = bulk("Cu", cubic=True) * 2
    atoms.set_tags(range(len(atoms)))
    atoms.info["origin"] = "test"
    atoms.set_masses(np.linspace(60, 70, len(atoms)))
    atoms.set_pbc((True, False, True))
    atoms.set_constraint(FixAtoms([0, 3]))
    atoms.set_momenta(np.random.default_rng(1).normal(size=(len(atoms), 3)))
    state = PhaseState.from_atoms(atoms)
    for back in (state.to_atoms(), state.to_atoms(like=atoms)):
        for name in ("numbers", "positions", "momenta", "masses"):
            assert np.array_equal(back.arrays[name], atoms.arrays[name])
        assert np.array_equal(back.cell.array, atoms.cell.array) and np.array_equal(back.pbc, atoms.pbc)
        assert back.constraints[0].get_indices().tolist() == [0, 3]
    assert back.info == atoms.info and np.array_equal(back.get_tags(), atoms.get_tags())


def test_batch_and_back():
    states = [PhaseState.from_atoms(ethanol()), PhaseState.from_atoms(bulk("Au", cubic=True))]
    batch = PhaseState.batch(states)
    assert batch.n_systems == 2 and batch.atoms_per_system.tolist() == [9, 4]
    for one, back in zip(states, batch.unbatch(), strict=True):
        assert torch.equal(one.positions, back.positions) and torch.equal(one.cell, back.cell)
    assert torch.allclose(batch.kinetic_energy(), torch.cat([s.kinetic_energy() for s in states]))


def test_temperature_agrees_with_ase():
    atoms = ethanol()
    assert PhaseState.from_atoms(atoms).temperature_K().item() == pytest.approx(atoms.get_temperature(), rel=1e-12)


def test_fixed_atoms_neither_drift_nor_take_kicks():
    atoms = ethanol()
    atoms.set_constraint(FixAtoms([2]))
    state = PhaseState.from_atoms(atoms)
    after = state.kick(torch.ones_like(state.momenta)).drift(1.0)
    assert torch.equal(after.positions[2], state.positions[2]) and torch.equal(after.momenta[2], state.momenta[2])
    assert not torch.equal(after.positions[1], state.positions[1])


def test_dtype_changes_only_when_asked():
    state = PhaseState.from_atoms(ethanol(), dtype=torch.float32)
    assert state.drift(0.1).positions.dtype == torch.float32
    assert state.to(torch.float64).momenta.dtype == torch.float64


GOOD = {"positions": torch.zeros(2, 3), "momenta": torch.zeros(2, 3), "masses": torch.ones(2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": torch.zeros(2, 4)}, "shape"),
        ({"momenta": torch.zeros(3, 3)}, r"momenta must have shape \(2, 3\)"),
        ({"masses": torch.tensor([1.0, 0.0])}, "mass of atom 1 is 0.0 u"),
        ({"positions": torch.tensor([[0.0, 0, 0], [0, float("nan"), 0]])}, "positions are not finite, first at atom 1"),
        ({"momenta": torch.zeros(2, 3, dtype=torch.float64)}, "use one dtype"),
        ({"pbc": torch.ones(1, 3, dtype=torch.bool)}, "span no volume"),
        ({"system": torch.tensor([0, 2])}, "skips|number the systems"),
        ({"positions": torch.zeros(0, 3), "momenta": torch.zeros(0, 3), "masses": torch.ones(0)}, "at least one atom"),
    ],
)
def test_bad_states_are_refused(change, message):
    with pytest.raises(InvalidState, match=message):
        PhaseState(**{**GOOD, **change})


def test_unknown_constraints_are_refused_by_name():
    atoms = ethanol()
    atoms.set_constraint(FixBondLength(0, 1))
    with pytest.raises(UnsupportedSystem, match="FixBondLength"):
        PhaseState.from_atoms(atoms)


def test_to_atoms_wants_one_system_and_the_right_template():
    state = PhaseState.from_atoms(ethanol())
    with pytest.raises(InvalidState, match="unbatch"):
        PhaseState.batch([state, state]).to_atoms()
    with pytest.raises(InvalidState, match="template"):
        state.to_atoms(like=ase.Atoms("H9", positions=np.zeros((9, 3))))
