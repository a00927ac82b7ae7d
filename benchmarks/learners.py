"""What can be learned of the alloy in the same time: with and without trajectories, with and without structure.

    python benchmarks/learners.py [--quick] [--cpu-minutes M] [--only NAME …] [--models DIR] [--json FILE]

The same structures of `data/cuau`, the same network (5.6 Å, 16 channels) and optimiser, and the same CPU time for all:

  force matching   Verlet on a network matched to the forces, no trajectories
  discrete         our explicit map of two stages, from trajectories
  midpoint         our midpoint action for 4 to 24 fs, from structures and forces alone (`--without-trajectories`)
  flow map         mean velocities and forces made consistent, from structures and forces alone (`peers/flow_maps.py`)

Errors are those of Δq and Δp over 24 fs against the exact flow. Models are kept in --models and not trained again.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from clock import Turns
from ledger import Ledger, expected, json_option
from peers.flow_maps import FlowMap, Repaired
from peers.flow_maps import trained as trained_flow
from yardstick import Contender, Spans, long_run, moving

import actionlearn as al
from actionlearn import checkpoint
from actionlearn.dataset import Dataset
from actionlearn.maps.blueprint import Blueprint
from actionlearn.potentials import SecondMomentMetals
from actionlearn.settings import Settings
from actionlearn.structure import estimate_symplectic_defect, reversal_error
from actionlearn.training import Trainer

ROOT = Path(__file__).parent.parent
SPAN_FS, SHORTEST_FS = 24.0, 4.0
NETWORK = {"cutoff": 5.6}
LEARNERS = ("force matching", "discrete", "midpoint", "flow map")


def blueprint(name, data):
    """What is trained by the package's own trainer."""
    if name == "force matching":
        return Blueprint("potential", data.species, data.masses, SPAN_FS, 1, NETWORK)
    if name == "discrete":
        return Blueprint("discrete", data.species, data.masses, SPAN_FS, 2, NETWORK)
    return Blueprint("midpoint", data.species, data.masses, SPAN_FS, 1, NETWORK, steps_fs=(SHORTEST_FS, SPAN_FS))


def trained(name, training, validation, arguments):
    """The model of this name, from its file or newly trained, with CPU seconds and updates in its report."""
    path = Path(arguments.models) / f"{name.replace(' ', '-')}-{arguments.cpu_minutes:g}.pt"
    seconds = 60.0 * arguments.cpu_minutes
    path.parent.mkdir(parents=True, exist_ok=True)
    if name == "flow map":
        if not path.exists():
            flow = trained_flow(training, SPAN_FS, seconds, NETWORK)
            torch.save({"weights": flow.state_dict(), "force_scale": flow.force_scale, "report": flow.report}, path)
        kept = torch.load(path, weights_only=True)
        flow = FlowMap(training.species, SPAN_FS, kept["force_scale"], **NETWORK)
        flow.load_state_dict(kept["weights"])
        flow.requires_grad_(False).report = kept["report"]
        return flow
    if not path.exists():
        without = {"hamilton_jacobi": 1.0} if name == "midpoint" else {}
        learning_rate = 0.02 if name == "discrete" else 0.01
        settings = Settings(minutes=arguments.cpu_minutes, learning_rate=learning_rate, **without)
        sets = [part.resized(1) if name == "midpoint" else part for part in (training, validation)]
        trainer = Trainer(blueprint(name, training), *sets, settings)
        started = time.process_time()
        while trainer.done < 1.0:
            trainer.update()
            trainer.seconds = time.process_time() - started
        report = {"updates": trainer.updates, "cpu_seconds": trainer.seconds}
        checkpoint.save(trainer.average, path, report)
    return al.load(path)


def contenders(name, model, base):
    """Ways to take the long step with a model."""
    if name == "force matching":
        steps = [(n, al.Verlet(model.potential, step_fs=SPAN_FS / n)) for n in (2, 3, 4)]
        return [Contender(f"Verlet on forces, {SPAN_FS / n:g} fs", v, n, gradients=1) for n, v in steps]
    if name == "discrete":
        return [Contender("discrete, trajectories", model, gradients=2)]
    if name == "midpoint":
        return [Contender("midpoint, without", model.at(SPAN_FS), gradients=1)]
    repaired = Repaired(model, base)
    return [
        Contender("flow map, without", model, gradients=1),
        Contender("flow map, repaired", repaired, calls=1, gradients=1),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds of training each, no long runs")
    parser.add_argument("--cpu-minutes", type=float, default=3.0, help="of training, each")
    parser.add_argument("--only", nargs="+", choices=LEARNERS, default=LEARNERS)
    parser.add_argument("--models", default="out/learners")
    parser.add_argument("--ps", type=float, default=10.0, help="length of the long runs")
    json_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    quick, ledger, base = arguments.quick, Ledger("learners"), SecondMomentMetals()
    if quick:
        arguments.cpu_minutes = 0.1
    training, validation, test = Dataset.open(ROOT / "data" / "cuau", step_fs=SPAN_FS).split(0)
    starts = test.windows(test.even(4 if quick else 16)).frames[0].unbatch()
    spans = Spans.exact(base, starts, SPAN_FS, 1.0)
    found = []
    for name in arguments.only:
        model = trained(name, training, validation, arguments)
        found += [(contender, model.report) for contender in contenders(name, model, base)]
    errors = {contender.name: spans.errors(contender) for contender, _ in found}
    calls = {c.name: moving(c, starts[0]) for c, _ in found if math.isfinite(errors[c.name][1])}
    calls["Verlet, 2 fs"] = moving(Contender("", al.Verlet(SecondMomentMetals(), step_fs=2.0), 12), starts[0])
    turns = Turns(calls, 3 if quick else 40)
    start = min(test.stretches, key=lambda s: abs(s.temperature_K - 500.0)).state(0)
    print(
        f"alloy, {arguments.cpu_minutes:g} CPU minutes of training each; 24 fs; long runs of {arguments.ps:g} ps\n"
        f"{'':26s}{'updates':>8s}{'grad./ps':>9s}{'CPU ms/ps':>10s}{'dq, %':>8s}{'dp, %':>8s}{'defect':>9s}"
        f"{'back, Å':>9s}  drift, meV/atom/ps, and temperatures"
    )
    for contender, report in found:
        position, momentum, error = errors[contender.name]
        if contender.name not in calls:
            print(f"{contender.name:26s}{report['updates']:8d}  its step has no solution, or none that is finite")
            continue
        solver = getattr(contender.step_map, "statistics", None)
        gradients = solver.evaluations_per_solve if solver is not None else contender.gradients
        defect = estimate_symplectic_defect(contender.cover, starts[0], directions=2, method="differences")
        back = reversal_error(contender.cover, starts[0], n=2)
        ms = turns.ms(contender.name) * 1000.0 / SPAN_FS
        text = (
            f"{contender.name:26s}{report['updates']:8d}{contender.per_ps(gradients):9.0f}{ms:10.0f}"
            f"{100 * position:8.3f}{100 * momentum:8.3f}{defect:9.1e}{back:9.1e}"
        )
        case = f"alloy, {arguments.cpu_minutes:g} CPU minutes, {contender.name}"
        ledger.add(case, "updates", report["updates"], better="higher", tolerance=0.5)
        ledger.add(case, "gradients", contender.per_ps(gradients), unit="per ps", tolerance=0.05)
        ledger.add(case, "error of Δq", 100 * position, unit="%", tolerance=0.3)
        ledger.add(case, "error of Δp", 100 * momentum, error=100 * error, unit="%", tolerance=0.3)
        ratio, uncertainty = turns.ratio(contender.name, "Verlet, 2 fs")
        ledger.add(case, "CPU / Verlet of 2 fs on the base", ratio, error=uncertainty, tolerance=0.25)
        ledger.add(case, "symplectic defect", defect, **expected("flow map" in contender.name, 1e-5, 1e-4))
        ledger.add(case, "reversal", back, unit="Å", **expected("flow map" in contender.name, 1e-6, 1e-4))
        if not quick:
            run = long_run(contender, base, start, arguments.ps, None)
            ledger.add(case, "drift, absolute", abs(run.drift), error=run.drift_error, unit="meV/atom/ps")
            ledger.add(case, "time that the run lasted", run.ps, unit="ps", better="higher")
            T = ", ".join(f"{symbol} {value:.0f}" for symbol, value in run.temperatures_K.items())
            ended = f"  ended after {run.ps:.2f} ps: {run.failure[:50]}"
            text += ended if run.failure else f"  {run.drift:+.3f} ±{run.drift_error:.3f}, {T} K"
        print(text, flush=True)
    ledger.write(arguments.json, quick=quick)


if __name__ == "__main__":
    main()
