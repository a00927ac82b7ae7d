"""What a network gradient costs, and what an explicit and an implicit step cost with the same network.

python benchmarks/networks.py [--quick]

Calls take turns, so that a busy machine slows all of them; the unit is a force call of ASE's EMT on the alloy.
"""

import argparse
from pathlib import Path

import torch
from clock import Turns
from ledger import Ledger, json_option

import actionlearn as al
from actionlearn.maps.blueprint import network_of
from actionlearn.reference.thermostat import maxwell_boltzmann
from actionlearn.systems import potential, structure

DATA = Path(__file__).parent.parent / "data"


def thermal(atoms, temperature_K=500.0):
    state = al.PhaseState.from_atoms(atoms)
    return maxwell_boltzmann(state, temperature_K, torch.Generator().manual_seed(0))


def network(state, cutoff, force=1.0, **options):
    net = al.AtomicMoments(sorted(set(state.numbers.tolist())), cutoff=cutoff, **options)
    net.calibrate([state]).randomise().requires_grad_(False)
    net.readout.weight.mul_(force / net.forces(state).square().mean().sqrt())
    return net


def emt_call(state):
    """A force call of EMT that is not remembered."""
    emt = potential("emt", state.to_atoms())
    nudge = torch.zeros_like(state.positions)

    def call():
        nudge.add_(1e-7)
        return emt.forces(state.moved(state.positions + nudge, state.momenta))

    return call


def gradients(systems, repeat, ledger):
    """Energy and gradient of networks of several sizes."""
    networks = {}
    for name, (state, cutoff) in systems.items():
        for layers, channels in ((1, 16), (1, 32), (2, 16)):
            networks[name, layers, channels] = network(state, cutoff, layers=layers, channels=channels), state
    calls = {"EMT": emt_call(systems["alloy, 108 atoms"][0])}
    for key, (net, state) in networks.items():
        calls |= {
            (*key, "energy"): lambda n=net, s=state: n.energy(s),
            (*key, "gradient"): lambda n=net, s=state: n.forces(s),
        }
    with torch.no_grad():
        turns = Turns(calls, repeat)
    print(f"one gradient, float64, one thread; EMT on the alloy {turns.ms('EMT'):.2f} ms")
    print("system               layers channels parameters  forward ms  gradient ms  /forward  /EMT")
    for key, (net, _) in networks.items():
        name, layers, channels = key
        (forward, _), (emt, error) = (turns.ratio((*key, "gradient"), unit) for unit in ((*key, "energy"), "EMT"))
        size = sum(w.numel() for w in net.parameters())
        times = f"{turns.ms((*key, 'energy')):11.2f} {turns.ms((*key, 'gradient')):12.2f}"
        print(f"{name:20s} {layers:4d} {channels:8d} {size:10d} {times} {forward:9.2f} {emt:5.2f}")
        label = f"{name}, {layers} layers, {channels} channels"
        ledger.add(label, "gradient / EMT call on the alloy", emt, error=error, tolerance=0.2)


def sizes(alloy, repeats, repeat, ledger):
    """Time per atom against the size of the cell."""
    states = [thermal(alloy * cells) for cells in repeats]
    networks = [network(state, 5.6) for state in states]
    calls = {s.n_atoms: lambda n=n, s=s: n.forces(s) for n, s in zip(networks, states, strict=True)}
    with torch.no_grad():
        turns = Turns(calls, repeat)
    print("\ntime per atom of the default network against the size of the cell")
    smallest = states[0].n_atoms
    for n_atoms in calls:
        print(f"{n_atoms:6d} atoms  {1e3 * turns.ms(n_atoms) / n_atoms:7.1f} µs/atom")
        if n_atoms != smallest:
            ratio, error = (smallest / n_atoms * x for x in turns.ratio(n_atoms, smallest))
            case = f"alloy, {n_atoms} atoms"
            ledger.add(case, f"time per atom / {smallest} atoms", ratio, error=error, tolerance=0.2)


def explicit_and_implicit(quick, ledger):
    """Steps of both kinds with one network."""
    explicit = al.load(DATA / "models" / "cuau-discrete-24fs.pt")
    stretch = next(s for s in al.ReferenceSet.open(DATA / "cuau") if s.temperature_K == 500.0)
    state, n = stretch.state(0), 5 if quick else 20
    shared = network_of(explicit)
    potential = shared.head(1.0, *[0.0] * (shared.heads - 1))  # the part that was matched to forces
    steps = {"discrete s=2": explicit}
    for tolerance in (1e-5, 1e-10):
        steps[f"midpoint, {tolerance:.0e}"] = al.MidpointAction(potential, step_fs=24.0, tolerance=tolerance)
    turns = Turns({name: lambda m=m: m.step(state, n) for name, m in steps.items()}, 3 if quick else 7, lead_in=1)
    print("\nexplicit against implicit, the network of data/models/cuau-discrete-24fs.pt, 24 fs, 500 K")
    for name, step_map in steps.items():
        ratio, error = turns.ratio(name, "discrete s=2")
        print(f"{name:34s} {turns.ms(name) / n:8.1f} ms/step   × {ratio:.1f}")
        if step_map is not explicit:
            count = step_map.statistics.evaluations_per_solve
            ledger.add(name, "gradients per step", count, tolerance=0.03)
            ledger.add(name, "step / explicit step", ratio, error=error, tolerance=0.2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, no large cells")
    json_option(parser)
    arguments = parser.parse_args()
    quick, ledger = arguments.quick, Ledger("networks")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    alloy = structure("cuau108")
    systems = {"alloy, 108 atoms": (thermal(alloy), 5.6), "ethanol, 9 atoms": (thermal(structure("ethanol")), 5.0)}
    gradients(systems, 30 if quick else 100, ledger)
    cells = ((1, 1, 1), (2, 1, 1)) if quick else ((1, 1, 1), (2, 2, 1), (2, 2, 2), (3, 3, 2), (4, 3, 3))
    sizes(alloy, cells, 20 if quick else 10, ledger)
    explicit_and_implicit(quick, ledger)
    ledger.write(arguments.json, quick=quick)


if __name__ == "__main__":
    main()
