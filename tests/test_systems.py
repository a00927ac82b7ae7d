import sys

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk

from actionlearn import PhaseState, units
from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.potentials import ASEPotential, Potential, SecondMomentMetals
from actionlearn.systems import default_potential, potential, potential_names, structure, structure_names


def test_the_alloy():
    atoms = structure("cuau108")
    assert atoms.get_chemical_formula() == "Au54Cu54"
    assert atoms.pbc.all() and atoms.cell.lengths() == pytest.approx([3 * 3.877] * 3)
    assert set(atoms.get_masses().round(1)) == {63.5, 197.0}
    assert np.array_equal(atoms.numbers, structure("cuau108").numbers)
    assert not np.array_equal(atoms.numbers, structure("cuau108", seed=1).numbers)


@pytest.mark.parametrize(("name", "count"), [("cu32", 32), ("au108", 108), ("al4", 4), ("cuau32-ordered", 32)])
def test_crystals_are_at_rest_and_relaxed(name, count):
    atoms = structure(name)
    assert len(atoms) == count and default_potential(name) == "metals"
    state = PhaseState.from_atoms(atoms)
    model = potential("metals", atoms)
    assert model.forces(state).abs().max() < 1e-10

    def energy(scale):
        stretched = atoms.copy()
        stretched.set_cell(atoms.cell * scale, scale_atoms=True)
        return model.energy(PhaseState.from_atoms(stretched)).item()

    assert energy(1.0) < energy(1.001) and energy(1.0) < energy(0.999)


@pytest.mark.parametrize("count", [1, 2, 9, 32, 64])
def test_water_boxes(count):
    atoms = structure(f"water{count}")
    assert len(atoms) == 3 * count and atoms.pbc.all()
    assert atoms.get_masses().sum() / atoms.get_volume() / units.GRAM_PER_CM3 == pytest.approx(0.997)
    for k in range(0, 3 * count, 3):
        assert atoms.get_distances(k, [k + 1, k + 2]) == pytest.approx([1.012] * 2)
        assert atoms.get_angle(k + 1, k, k + 2) == pytest.approx(113.24)
    distances = atoms.get_all_distances(mic=True)
    molecule = np.arange(3 * count) // 3
    between = distances[molecule[:, None] != molecule]
    assert count == 1 or between.min() > 1.1
    assert np.array_equal(atoms.positions, structure(f"water{count}").positions)
    assert not np.allclose(atoms.positions, structure(f"water{count}", seed=1).positions)


def test_molecules_and_clusters():
    assert structure("ethanol").get_chemical_formula() == "C2H6O" and default_potential("ethanol") == "gfn2-xtb"
    for count in (13, 55, 147):
        assert len(structure(f"lj{count}")) == count
    atoms = structure("lj13")
    energy = potential("lj", atoms).energy(PhaseState.from_atoms(atoms)).item()
    assert energy == pytest.approx(-44.3268 * 0.0104, rel=0.02)


def test_every_listed_name_works():
    for listed in structure_names():
        for count in (4, 13):
            name = listed.replace("<N>", str(count))
            assert default_potential(name) in potential_names()
            try:
                assert len(structure(name)) > 0
                break
            except InvalidInput:
                continue
        else:
            pytest.fail(f"{listed} builds with neither count")


def test_files_are_read(tmp_path):
    path = tmp_path / "start.xyz"
    ase.io.write(path, [bulk("Cu"), bulk("Au")])
    assert structure(str(path)).symbols[0] == "Au"
    (tmp_path / "broken.xyz").write_text("not a structure")
    with pytest.raises(InvalidInput, match="cannot read a structure from .*broken.xyz"):
        structure(str(tmp_path / "broken.xyz"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "no built-in system and no file is called 'nothing': built in are cuau<N>, "),
        ("cu100", r"4n³ atoms, 100 does not fit: try one of .*108"),
        ("cuau0", "does not fit"),
        ("lj14", r"icosahedra of \[13, 55, 147"),
        ("water0", "at least one molecule"),
    ],
)
def test_unknown_structures(name, message):
    with pytest.raises(InvalidInput, match=message):
        structure(name)


def test_default_potential_of_a_file():
    with pytest.raises(InvalidInput, match="'start.xyz' is no built-in system, so name a potential for it: metals"):
        default_potential("start.xyz")


def test_built_in_potentials():
    atoms = structure("cuau32")
    assert isinstance(potential("metals", atoms), SecondMomentMetals)
    assert potential("metals", atoms).species == ("Au", "Cu")
    assert isinstance(potential("emt", atoms), ASEPotential)
    with pytest.raises(UnsupportedSystem, match="'C'"):
        potential("metals", structure("ethanol"))


def test_gfn2_xtb():
    pytest.importorskip("tblite")
    atoms = structure("ethanol")
    state = PhaseState.from_atoms(atoms)
    model = potential("gfn2-xtb", atoms)
    assert model.energy(state).item() == pytest.approx(-308.0, abs=5.0)
    assert 0.1 < model.dipole(state).norm().item() < 1.0 and model.calculations == 1


def test_potentials_from_a_module_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    (tmp_path / "my_potentials.py").write_text(
        "from ase.calculators.emt import EMT\n"
        "from actionlearn.potentials import LennardJones\n"
        "def for_atoms(atoms): return EMT() if len(atoms) == 4 else None\n"
        "def torch_native(): return LennardJones()\n"
        "def broken(): raise OSError('license server is down')\n"
        "constant = 3\n"
    )
    (tmp_path / "my_network.py").write_text("import no_such_package")
    atoms = structure("cu4")
    state = PhaseState.from_atoms(atoms)
    reference = potential("emt", atoms).energy(state)
    assert torch.equal(potential("my_potentials:for_atoms", atoms).energy(state), reference)
    assert torch.equal(potential("ase.calculators.emt:EMT", atoms).energy(state), reference)
    assert isinstance(potential("my_potentials:torch_native", atoms), Potential)
    for name, message in {
        "my_potentials:broken": "failed to make a potential: OSError: license server is down",
        "my_potentials:constant": "is a int: name a function",
        "my_potentials:missing": "cannot find the potential 'my_potentials:missing'.*missing",
        "no_such_module:make": "cannot find.*No module named 'no_such_module'",
        "my_network:make": "'my_network:make' needs the package no_such_package, which is not installed here: install",
        ":make": "cannot find",
        "metal": "no potential is called 'metal': choose from metals, lj, .*, gfn2-xtb, so3lr, FILE.pt, module",
    }.items():
        with pytest.raises(InvalidInput, match=message):
            potential(name, atoms)
