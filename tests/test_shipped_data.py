"""The data sets under data/ are whole, and are what their README says."""

from pathlib import Path

import numpy as np
import pytest

from actionlearn import ReferenceSet, systems
from actionlearn.files import sha256

DATA = Path(__file__).parent.parent / "data"
SETS = sorted(path.parent for path in DATA.glob("*/manifest.json"))


@pytest.mark.parametrize("folder", SETS, ids=lambda folder: folder.name)
def test_every_stretch_is_sound(folder):
    found = ReferenceSet.open(folder)
    assert found.complete and found.warnings == []
    assert sha256(folder / "manifest.json") in (folder / "README.md").read_text()
    assert sum(path.stat().st_size for path in folder.glob("*") if path.is_file()) < 6.0e6
    # half a femtosecond is a nineteenth of the period of O-H: Verlet's energy swings by (ωh)²/8 of what is in it
    limit = 1e-3 if folder.name == "ethanol" else 1e-4
    for stretch in found:
        assert np.ptp(stretch.total_energies) / stretch.system.n_atoms < limit


def test_the_alloy_has_the_forces_and_energies_of_its_potential():
    found = ReferenceSet.open(DATA / "cuau")
    assert found.interval_fs == 8.0 and found.temperatures_K == [300.0, 500.0, 700.0, 900.0] and len(found) == 24
    potential = systems.potential(found.potential, systems.structure("cuau108"))
    for index in (0, -1):
        state = found[index].state(30)
        assert (potential.forces(state) - found[index].forces(30)).abs().max() < 2e-6
        assert potential.energy(state).item() == pytest.approx(found[index].frames.potential_energies[30], abs=1e-5)
