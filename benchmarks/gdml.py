"""sGDML: force errors by number of geometries, with and without symmetries; both solvers; a call beside its peers.

    python benchmarks/gdml.py [--quick] [--data FOLDER]

Ethanol on GFN2-xTB: forces on other geometries, relative to their root mean square. FOLDER holds stretches of ethanol,
such as `actionlearn sample ethanol --temperature 500 …` writes; without it 300 geometries (with --quick 80) are sampled
here at 500 K, which needs tblite. Copper, 32 atoms in their cell at 600 K on the built-in metal: the same with the
lattice's shifts as symmetries, and conjugate gradients beside the closed form. A call is compared with one of the
package `sgdml`, same geometries and symmetries, where that is installed, and of the labels' potential: CPU time of one
process, in turns. Everything in float64 on one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from clock import Turns
from ledger import Ledger, json_option

import actionlearn as al
from actionlearn.gdml import GDML, ClosedForm, Iterative, Labels, crystal_symmetries, fit, force_error
from actionlearn.systems import potential, structure

SIGMA, SIGMA_CRYSTAL = 20.0, 30.0


@contextlib.contextmanager
def seconds(taken: list[float]) -> Iterator[None]:
    """CPU seconds of what is inside, appended."""
    started = time.process_time()
    yield
    taken.append(time.process_time() - started)


def sampled(name: str, base: str, temperature_K: float, step_fs: float, count: int) -> Labels:
    """Geometries of a built-in system, 20 steps apart."""
    stretches = count // 10
    with tempfile.TemporaryDirectory() as folder:
        reference = al.sample(
            name,
            base,
            folder,
            temperatures_K=[temperature_K],
            step_fs=step_fs,
            stretches=stretches,
            frames=10,
            record_every=20,
            equilibrate_ps=200 * step_fs / 1000,
            decorrelate_ps=100 * step_fs / 1000,
            friction_per_ps=20.0,
        )
        return Labels.from_stretches(reference, 10 * stretches)


def ethanol(folder: str | None, quick: bool) -> tuple[Labels, Labels]:
    count = 80 if quick else 300
    if folder is None:
        return sampled("ethanol", "gfn2-xtb", 500.0, 0.5, count).split(count - 30 if quick else 200)
    reference = al.ReferenceSet.open(folder)
    hot = [stretch for stretch in reference if stretch.temperature_K == max(reference.temperatures_K)]
    return Labels.from_stretches(hot, count).split(count - 30 if quick else 200)


def errors(training: Labels, test: Labels, counts: list[int], ledger: Ledger) -> GDML:
    print(f"\nethanol at 500 K, forces of {len(test)} other geometries, sigma {SIGMA:g}")
    print(f"{'geometries':>10}{'symmetries':>12}{'with':>9}{'without':>9}{'training s':>12}")
    for n in counts:
        part, taken = training.part(torch.arange(n)), []
        with seconds(taken):
            model = fit(part, sigma=SIGMA)
        with_them, without = force_error(model, test), force_error(fit(part, sigma=SIGMA, symmetries=None), test)
        case = f"ethanol, {n} geometries"
        print(f"{n:10}{len(model.permutations):12}{with_them:9.2%}{without:9.2%}{taken[0]:12.2f}", flush=True)
        ledger.add(case, "force error", 100 * with_them, unit="%", tolerance=0.1)
        ledger.add(case, "force error without symmetries", 100 * without, unit="%", tolerance=0.1)
    return model


def solvers(name: str, labels: Labels, test: Labels, sigma: float, symmetries: np.ndarray, ledger: Ledger) -> GDML:
    """Closed form and conjugate gradients: time, iterations, and how far their forces are apart."""
    print(f"\n{name}, {3 * labels.system.n_atoms * len(labels)} equations, {len(symmetries)} symmetries")
    print(f"{'solver':26}{'CPU s':>8}{'iterations':>12}{'error':>9}{'from closed form':>18}")
    closed: GDML | None = None
    F, unit = torch.zeros(0), 1.0
    for label, solver in {
        "closed form": ClosedForm(),
        "iterative, to 1e-4": Iterative(tolerance=1e-4),
        "iterative, to 1e-6": Iterative(tolerance=1e-6),
    }.items():
        taken: list[float] = []
        with seconds(taken):
            model = fit(labels, sigma=sigma, symmetries=symmetries, solver=solver)
        forces = model.forces(test.states())
        if closed is None:
            closed, F = model, forces
        apart = float((forces - F).norm() / F.norm())
        iterations = model.report.get("iterations", "")
        error = force_error(model, test)
        print(f"{label:26}{taken[0]:8.1f}{iterations:>12}{error:9.2%}{apart:18.1e}", flush=True)
        if isinstance(solver, Iterative):
            ledger.add(name, f"{label}: iterations", float(iterations), tolerance=0.1)
            ledger.add(name, f"{label}: CPU / closed form", taken[0] / unit, tolerance=0.5)
            ledger.add(name, f"{label}: forces from those of the closed form", 100 * apart, unit="%", tolerance=1.0)
        else:
            unit = taken[0]
            ledger.add(name, "force error", 100 * error, unit="%", tolerance=0.1)
    assert closed is not None
    return closed


def calls(
    name: str,
    model: GDML,
    state: al.PhaseState,
    others: dict[str, Callable[[al.PhaseState], object]],
    rounds: int,
    ledger: Ledger,
) -> None:
    """CPU time of a force call of one system, each at new positions."""
    generator = torch.Generator().manual_seed(0)
    shifts = 1e-3 * torch.randn(64, *state.positions.shape, generator=generator, dtype=torch.float64)
    place = [0]

    def moved() -> al.PhaseState:
        place[0] += 1
        return state.moved(state.positions + shifts[place[0] % 64], state.momenta)

    made = {"ours": model.forces, **others}
    turns = Turns({label: lambda call=call: call(moved()) for label, call in made.items()}, rounds)
    print(f"\n{name}: a force call with {len(model.positions)} geometries and {len(model.permutations)} symmetries")
    print(f"{'':26}{'CPU ms':>8}{'ratio':>10}")
    for label in made:
        ratio, error = turns.ratio(label, "ours")
        print(f"{label:26}{turns.ms(label):8.3f}{ratio:7.2f} ± {error:.2f}", flush=True)
        if label != "ours":
            ledger.add(name, f"CPU of a call, {label} / ours", ratio, error=error, better="higher", tolerance=0.3)


def packaged(
    training: Labels, test: Labels, permutations: torch.Tensor
) -> dict[str, Callable[[al.PhaseState], object]]:
    """Predictors of the package: its numpy one, and its torch one on one system at a time."""
    np.in1d = np.isin  # sgdml 1.0.3 calls it by the name it had before numpy 2.4
    from sgdml.predict import GDMLPredict
    from sgdml.train import GDMLTrain
    from sgdml.utils import io

    def dataset(labels: Labels, name: str) -> dict[str, object]:
        arrays = {"R": labels.positions, "E": labels.energies, "F": labels.forces, "z": labels.system.numbers}
        content = {"type": "d", "code_version": "1.0.3", "name": np.array(name), "theory": np.array("GFN2-xTB")}
        content |= {key: value.numpy() for key, value in arrays.items()}
        return content | {"md5": io.dataset_md5(content)}

    trainer = GDMLTrain(max_processes=1)
    task = trainer.create_task(
        dataset(training, "training"),
        len(training),
        dataset(test, "test"),
        len(test),
        sig=int(SIGMA),
        perms=permutations.numpy(),
    )
    made = trainer.train(task)
    numpy_one, torch_one = GDMLPredict(made, max_processes=1), GDMLPredict(made, use_torch=True)
    flat = lambda state: state.positions.numpy().reshape(1, -1)  # noqa: E731
    return {
        "package sgdml, numpy": lambda state: numpy_one.predict(flat(state)),
        "package sgdml, torch": lambda state: torch_one.predict(flat(state)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer geometries")
    parser.add_argument("--data", metavar="FOLDER", help="stretches of ethanol (sampled here)")
    json_option(parser)
    arguments = parser.parse_args()
    quick = arguments.quick
    torch.set_num_threads(1)
    ledger = Ledger("gdml")

    if arguments.data or importlib.util.find_spec("tblite"):
        training, test = ethanol(arguments.data, quick)
        model = errors(training, test, [25, 50] if quick else [50, 100, 200], ledger)
        permutations = model.permutations
        solvers("ethanol", training, test, SIGMA, permutations.numpy(), ledger)
        state = test.states().select(0)
        others: dict[str, Callable[[al.PhaseState], object]] = {}
        if importlib.util.find_spec("tblite"):
            others["GFN2-xTB"] = potential("gfn2-xtb", structure("ethanol")).forces
        if importlib.util.find_spec("sgdml"):
            others |= packaged(training, test, permutations)
        with torch.no_grad():
            calls("ethanol", model, state, others, 20 if quick else 200, ledger)
    else:
        print("ethanol is left out: it needs tblite (pip install 'actionlearn[xtb]'), or --data")

    atoms = structure("cu32")
    training, test = sampled("cu32", "metals", 600.0, 2.0, 60 if quick else 120).split(20 if quick else 60)
    model = solvers("copper", training, test, SIGMA_CRYSTAL, crystal_symmetries(atoms, rotations=False), ledger)
    with torch.no_grad():
        metals = {"second-moment metals": potential("metals", atoms).forces}
        calls("copper", model, test.states().select(0), metals, 5 if quick else 50, ledger)
    ledger.write(arguments.json, quick=quick)


if __name__ == "__main__":
    main()
