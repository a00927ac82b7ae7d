"""The maps under data/models on recorded stretches that they have not seen: errors, structure and cost of a step.

python benchmarks/shipped_maps.py [--quick]

Errors are those of one step against the recording; a corrected map calls its potential, the others call none.
"""

import argparse
from pathlib import Path

import torch
from clock import Turns
from ledger import Ledger, json_option
from yardstick import Contender, moving

import actionlearn as al
from actionlearn import systems
from actionlearn.dataset import Dataset
from actionlearn.losses import step_errors
from actionlearn.structure import estimate_symplectic_defect, reversal_error
from actionlearn.validation.measure import held_out

ROOT = Path(__file__).parent.parent
DATA = {"cuau": ("cuau", "cuau108"), "ethanol": ("ethanol", "ethanol"), "water": ("water", "water64")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer windows")
    json_option(parser)
    arguments = parser.parse_args()
    quick, ledger = arguments.quick, Ledger("shipped_maps")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    found, calls = {}, {}
    for path in sorted((ROOT / "data" / "models").glob("*.pt")):
        folder, name = DATA[path.stem.split("-")[0]]
        stretches = list(al.ReferenceSet.open(ROOT / "data" / folder))
        base = systems.potential("water-spcfw", systems.structure(name)) if folder == "water" else None
        model = al.load(path, base=base)
        stretches = held_out(stretches, model.report)
        state = stretches[0].state(0)
        errors = step_errors(model, Dataset(stretches, step_fs=model.step_fs), windows=16 if quick else 100)
        defect = estimate_symplectic_defect(model, state, directions=2)
        found[path.stem] = model, errors, defect, reversal_error(model, state, n=5)
        calls[path.stem] = moving(Contender(path.stem, model), state)
    turns = Turns(calls, 15 if quick else 40)
    print("map                         gradients/ps   dq, %   dp, %    defect   back, Å  ms/ps (CPU)")
    for name, (model, errors, defect, back) in found.items():
        per_ps = 1000.0 / model.step_fs
        print(
            f"{name:28s}{model.stages * per_ps:12.0f} {100 * errors.position:7.3f} {100 * errors.momentum:7.3f} "
            f"{defect:9.1e} {back:9.1e} {turns.ms(name) * per_ps:9.0f}"
        )
        ledger.add(name, "error of Δq", 100 * errors.position, unit="%", tolerance=0.02)
        ledger.add(name, "error of Δp", 100 * errors.momentum, unit="%", tolerance=0.02)
        ledger.add(name, "estimate of the symplectic defect", defect, limit=1e-6)
        ledger.add(name, "reversal", back, unit="Å", limit=1e-9)
        if name != "cuau-discrete-24fs":
            ratio, error = turns.ratio(name, "cuau-discrete-24fs")
            ledger.add(name, "step / cuau-discrete-24fs", ratio, error=error, tolerance=0.25)
    ledger.write(arguments.json, quick=quick)


if __name__ == "__main__":
    main()
