"""Hydrogen mass repartitioning: what is moved where, and that a map and a system of other masses do not meet."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

import actionlearn as al
from actionlearn import cli
from actionlearn.dataset import Dataset
from actionlearn.errors import DataError, InvalidInput, UnsupportedSystem
from actionlearn.hydrogen import repartitioned
from actionlearn.maps.blueprint import Blueprint
from actionlearn.potentials import SPCFw
from actionlearn.reference.frequency import highest_frequency
from actionlearn.systems import structure


def moving(atoms, seed=0):
    atoms.set_momenta(np.random.default_rng(seed).normal(size=(len(atoms), 3)))
    m, p = atoms.get_masses()[:, None], atoms.get_momenta()
    atoms.set_momenta(p - m * p.sum(0) / m.sum())
    return atoms


def test_what_hydrogens_gain_their_neighbours_lose():
    before = moving(molecule("CH3CH2OH"))
    after = repartitioned(before, 3.0)
    gain = 3.0 - 1.008
    assert after.get_masses() == pytest.approx(expected_masses(before, gain))
    assert set(np.round(after.get_masses(), 3)) == {3.0, 6.035, 8.027, 14.007}
    assert after.get_masses().sum() == pytest.approx(before.get_masses().sum())
    assert np.abs(after.get_momenta().sum(0)).max() < 1e-12
    assert after.get_kinetic_energy() == pytest.approx(before.get_kinetic_energy(), rel=0.05)
    assert (repartitioned(after, 3.0).get_masses() == after.get_masses()).all()
    assert (before.get_masses() == molecule("CH3CH2OH").get_masses()).all()


def expected_masses(atoms, gain):
    """By counting hydrogens within 1.3 Å."""
    near = (atoms.get_all_distances() < 1.3) & (atoms.numbers == 1)
    return np.where(atoms.numbers == 1, 3.0, atoms.get_masses() - gain * near.sum(1))


def test_bonds_reach_across_the_edge_of_a_cell_and_the_nearest_neighbour_counts():
    water = structure("water8")
    water.positions += 0.3
    water.wrap()
    masses = repartitioned(water, 3.0).get_masses()
    assert masses[water.numbers == 8] == pytest.approx(15.999 - 2 * (3.0 - 1.008))
    between = Atoms("OHO", [[0, 0, 0], [0, 0, 1.15], [0, 0, 2.35]])  # a shared proton, nearer to the first
    assert repartitioned(between, 2.0).get_masses() == pytest.approx([15.999 - 0.992, 2.0, 15.999])


def test_the_fastest_vibration_of_water_slows_down_as_its_reduced_mass_says():
    atoms = structure("water8")
    periods = []
    for start in (atoms, repartitioned(atoms, 3.0)):
        generator = torch.Generator().manual_seed(0)
        periods.append(1.0 / highest_frequency(SPCFw(), al.PhaseState.from_atoms(start), generator=generator))
    reduced = [1.008 * 15.999 / 17.007, 3.0 * 12.015 / 15.015]
    assert periods[1] / periods[0] == pytest.approx((reduced[1] / reduced[0]) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("make", "mass", "message"),
    [
        (lambda: molecule("H2O"), 0.5, "hydrogens of 0.5 u: expected a mass between 1.008 and 12 u"),
        (lambda: molecule("H2O"), float("nan"), "hydrogens of nan u"),
        (lambda: molecule("CO2"), 3.0, "there is no hydrogen"),
        (lambda: molecule("H2"), 3.0, "hydrogen atom 0 is bound to no heavy atom"),
        (lambda: molecule("CH4"), 3.5, "would leave atom 0 .C. with 2.04 u, less than theirs"),
        (lambda: heavy_water(), 3.0, "a hydrogen weighs 2.014 u already, expected 1.008"),
    ],
)
def test_what_cannot_be_repartitioned(make, mass, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        repartitioned(make(), mass)
    assert "\n" not in str(caught.value)


def heavy_water():
    atoms = molecule("H2O")
    atoms.set_masses([15.999, 2.014, 2.014])
    return atoms


# --- from sampling to a run -----------------------------------------------------------------------


SAMPLE = "sample water4 --temperature 300 --step-fs 1 --stretches 3 --frames 5 --record-every 4 --equilibrate-ps 0.02"
SAMPLE += " --decorrelate-ps 0.01 --processes 1 --hmr 3 --output"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hmr") / "set"
    assert cli.main([*SAMPLE.split(), str(folder)]) == 0
    return folder


def test_masses_are_recorded_and_a_mismatch_is_refused_all_the_way(recorded, tmp_path, capsys):
    manifest = json.loads((recorded / "manifest.json").read_text())
    assert set(np.round(manifest["settings"]["masses"], 3)) == {3.0, 12.015}
    assert cli.main([*SAMPLE.split()[:-3], "--output", str(recorded)]) == 1
    assert "holds another run, which differs in masses" in capsys.readouterr().err
    data = Dataset.open(recorded, step_fs=4.0)
    assert data.masses == {1: 3.0, 8: pytest.approx(12.015)}
    blueprint = Blueprint("discrete", data.species, data.masses, 4.0, 2, {"cutoff": 4.0, "channels": 2, "hidden": 4})
    al.save(blueprint.build(), tmp_path / "model.pt")
    run = f"run water4 --model {tmp_path}/model.pt --output {tmp_path}/run.xyz --ps 0.02 --temperature 300".split()
    assert cli.main(run) == 1
    assert "made for H of mass 3 u, the system has 1.008 u" in (err := capsys.readouterr().err) and "--hmr 3" in err
    assert cli.main([*run, "--hmr", "3"]) == 0
    assert "note: hydrogens are made heavier" in capsys.readouterr().err
    assert cli.main([*run, "--hmr", "2"]) == 1
    assert "the system has 2 u" in capsys.readouterr().err


def test_an_element_of_several_masses_is_kept_as_such(tmp_path):
    masses = {1: 3.0, 6: (6.035, 8.027), 8: 14.007}
    blueprint = Blueprint("discrete", (1, 6, 8), masses, 4.0, 2, {"cutoff": 4.0, "channels": 2, "hidden": 4})
    al.save(blueprint.build(), tmp_path / "model.pt")
    model = al.load(tmp_path / "model.pt")
    assert model.masses == masses
    ethanol = moving(molecule("CH3CH2OH"))
    model.step(al.PhaseState.from_atoms(repartitioned(ethanol, 3.0)))
    with pytest.raises(UnsupportedSystem, match="H of mass 1.008 u, the map was made for 3 u"):
        model.step(al.PhaseState.from_atoms(ethanol))
    wrong = repartitioned(ethanol, 3.0)
    wrong.set_masses([12.011 if Z == 6 else m for Z, m in zip(wrong.numbers, wrong.get_masses(), strict=True)])
    with pytest.raises(UnsupportedSystem, match="C of mass 12.011 u, the map was made for 6.035 or 8.027 u"):
        model.step(al.PhaseState.from_atoms(wrong))


def test_sets_of_other_masses_do_not_mix(recorded, tmp_path):
    assert cli.main([*SAMPLE.replace("--hmr 3", "--hmr 2.5").split(), str(tmp_path / "other")]) == 0
    with pytest.raises(DataError, match="element 8 has masses 12.015 and 13.015 u"):
        Dataset.open([recorded, tmp_path / "other"], step_fs=4.0)


def test_advice_offers_and_takes_it(capsys):
    words = "advise water4 --temperature 300 --ensemble langevin --ps 0.1".split()
    assert cli.main(words) == 0
    plain = capsys.readouterr().out
    assert "--hmr 3 makes hydrogens heavier" in plain
    assert cli.main([*words, "--hmr", "3"]) == 0
    out, err = capsys.readouterr()
    assert "--hmr 3 …" in out and "equilibrium averages stay" in err
    period = [float(text.split("T = ")[1].split(" fs")[0]) for text in (plain, out)]
    assert 1.4 < period[1] / period[0] < 1.8
