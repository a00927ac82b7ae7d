"""What a network gradient costs, and what an explicit and an implicit step cost with the same network.

python benchmarks/networks.py [--quick]
"""

import argparse
import time
from pathlib import Path

import torch

import actionlearn as al
from actionlearn.maps.blueprint import network_of
from actionlearn.reference.thermostat import maxwell_boltzmann
from actionlearn.systems import structure

DATA = Path(__file__).parent.parent / "data"


def seconds(call, repeat):
    """Lower quartile of the time of one call."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 4]


def thermal(atoms, temperature_K=500.0):
    state = al.PhaseState.from_atoms(atoms)
    return maxwell_boltzmann(state, temperature_K, torch.Generator().manual_seed(0))


def network(state, cutoff, force=1.0, **options):
    net = al.AtomicMoments(sorted(set(state.numbers.tolist())), cutoff=cutoff, **options)
    net.calibrate([state]).randomise().requires_grad_(False)
    net.readout.weight.mul_(force / net.forces(state).square().mean().sqrt())
    return net


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, no large cells")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    repeat = 20 if quick else 100
    alloy = structure("cuau108")
    systems = {"alloy, 108 atoms": (thermal(alloy), 5.6), "ethanol, 9 atoms": (thermal(structure("ethanol")), 5.0)}

    print("one gradient, float64, one thread")
    print("system               layers channels parameters  forward ms  gradient ms  ratio")
    for name, (state, cutoff) in systems.items():
        for layers, channels in ((1, 16), (1, 32), (2, 16)):
            net = network(state, cutoff, layers=layers, channels=channels)
            with torch.no_grad():
                forward = seconds(lambda n=net, s=state: n.energy(s), repeat)
                gradient = seconds(lambda n=net, s=state: n.forces(s), repeat)
            size = sum(w.numel() for w in net.parameters())
            print(
                f"{name:20s} {layers:4d} {channels:8d} {size:10d} {1e3 * forward:11.2f} {1e3 * gradient:12.2f} "
                f"{gradient / forward:7.2f}"
            )

    print("\ntime per atom of the default network against the size of the cell")
    for repeats in ((1, 1, 1), (2, 1, 1)) if quick else ((1, 1, 1), (2, 2, 1), (2, 2, 2), (3, 3, 2), (4, 3, 3)):
        state = thermal(alloy * repeats)
        net = network(state, 5.6)
        with torch.no_grad():
            gradient = seconds(lambda n=net, s=state: n.forces(s), 5 if state.n_atoms > 500 else repeat)
        print(f"{state.n_atoms:6d} atoms  {1e6 * gradient / state.n_atoms:7.1f} µs/atom")

    print("\nexplicit against implicit, the network of data/models/cuau-discrete-24fs.pt, 24 fs, 500 K")
    explicit = al.load(DATA / "models" / "cuau-discrete-24fs.pt")
    stretch = next(s for s in al.ReferenceSet.open(DATA / "cuau") if s.temperature_K == 500.0)
    state, n = stretch.state(0), 5 if quick else 20
    shared = network_of(explicit)
    potential = shared.head(1.0, *[0.0] * (shared.heads - 1))  # the part that was matched to forces
    times = {"discrete s=2": seconds(lambda: explicit.step(state, n), 3) / n}
    for tolerance in (1e-5, 1e-10):
        implicit = al.MidpointAction(potential, step_fs=24.0, tolerance=tolerance)
        spent = seconds(lambda m=implicit: m.step(state, n), 3) / n
        gradients = implicit.statistics.evaluations_per_solve
        times[f"midpoint, {tolerance:.0e}, {gradients:.1f} gradients"] = spent
    for name, spent in times.items():
        print(f"{name:34s} {1e3 * spent:8.1f} ms/step   × {spent / times['discrete s=2']:.1f}")


if __name__ == "__main__":
    main()
