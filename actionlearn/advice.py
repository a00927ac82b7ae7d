"""How long a step may be, from the fastest motion of a short base run."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch

from actionlearn.analysis.spectra import THZ_PER_CM, VelocitySpectrum, velocity_spectrum
from actionlearn.analysis.trajectory import Trajectory
from actionlearn.dynamics.ensemble import positive
from actionlearn.dynamics.freedom import degrees_of_freedom
from actionlearn.errors import BlownUp, InvalidInput
from actionlearn.potentials.protocol import Potential
from actionlearn.reference.frequency import highest_frequency
from actionlearn.reference.recording import record
from actionlearn.reference.thermostat import langevin, maxwell_boltzmann, without_total_momentum
from actionlearn.state import PhaseState
from actionlearn.units import BOLTZMANN, FEMTOSECOND

ENSEMBLES = ("nve", "langevin", "bussi", "ghmc")

SHARE = 0.999
"""Part of the kinetic energy that moves no faster than the fastest period T."""

STEPS_PER_PERIOD = 40
"""Base steps in the period of ω_max."""

RUN, LEAST_RUN_PS = 30, 0.5
"""Periods of ω_max in a run, and its least length."""

RELAXATIONS = 10.0
"""Relaxation times in the stretch under the thermostat."""

LOOKS = 4
"""Configurations of the run where ω_max is computed."""

#: What follows holds for a learned map with an error of a few per cent in one step; measured on a copper-gold alloy.
VERLET_USUAL, VERLET_STABLE = 12.0, 5.5
SUBSTEP = {"nve": 7.0, "langevin": 5.5, "bussi": 5.5, "ghmc": 5.5}
MIDPOINT_PLAIN, MIDPOINT_EXISTS = 4.0, 2.0
MIDPOINT_GRADIENTS = 10.0


@dataclasses.dataclass(frozen=True)
class Motion:
    """The fastest motion of a system.

        ∫₀^(1/T) D(ν) dν = 0.999,      ω_max² = largest eigenvalue of M^−½ (∂²V/∂q²) M^−½

    | symbol | field               | unit |                                                   |
    |--------|---------------------|------|---------------------------------------------------|
    | T      | `period_fs`         | fs   | from the spectrum D of velocities in a run        |
    | 2π/ω_max | `harmonic_period_fs` | fs | by Lanczos iteration at a few configurations      |
    |        | `resolution`        |      | of T, relative                                    |

    T is the shorter one where motion is anharmonic, by a third in a hot alloy: the rules of steps are about T.
    """

    period_fs: float
    harmonic_period_fs: float
    resolution: float
    temperature_K: float
    base_step_fs: float
    run_ps: float

    @property
    def omega_max_per_fs(self) -> float:
        """ω_max in 1/fs."""
        return 2.0 * math.pi / self.harmonic_period_fs


def fastest_motion(
    state: PhaseState,
    potential: Potential,
    *,
    temperature_K: float | None = None,
    run_ps: float | None = None,
    seed: int = 0,
) -> Motion:
    """Thermalise one system at a temperature and measure a run at constant energy; without one, as it moves now.

    The run takes thirty of the periods of ω_max, half a picosecond at least, unless `run_ps` says otherwise; a stretch
    under the thermostat before it takes as long: some 2400 calls of the potential in all, or more for light atoms.
    """
    if state.n_systems != 1:
        raise InvalidInput(f"advice is for one system, not a batch of {state.n_systems}")
    generator = torch.Generator().manual_seed(seed)
    omega = highest_frequency(potential, state, generator=generator)
    if not (omega > 0 and math.isfinite(omega)):
        raise InvalidInput("nothing vibrates at this structure (no positive curvature): give one close to a minimum")
    harmonic_fs = 2.0 * math.pi / omega / FEMTOSECOND
    dt = harmonic_fs / STEPS_PER_PERIOD
    length_ps = max(RUN * harmonic_fs / 1000.0, LEAST_RUN_PS) if run_ps is None else positive("run_ps", run_ps)
    frames = math.ceil(1000.0 * length_ps / dt - 1e-9)
    if frames < 2 * STEPS_PER_PERIOD:
        raise InvalidInput(
            f"a run of {length_ps:g} ps is too short for a spectrum: take at least {2e-3 * harmonic_fs:.3g} ps, two of "
            "the fastest periods"
        )
    if temperature_K is not None:
        state = _thermalised(state, potential, positive("temperature_K", temperature_K), dt, frames, generator)
    elif not bool(state.momenta.any()):
        raise InvalidInput("the structure has no momenta: give a --temperature to draw them at")
    found = record(state, potential, step_fs=dt, frames=frames, record_every=1)
    if not (np.isfinite(found.positions).all() and np.isfinite(found.momenta).all()):
        raise BlownUp("the short base run blew up: relax the structure, or lower the temperature")
    run = Trajectory(found.positions, found.momenta, dt, state)
    spectrum = velocity_spectrum(run, blocks=1)
    T = period_of_share(spectrum)
    looks = np.linspace(0, frames - 1, LOOKS).astype(int)
    at = [state.moved(torch.from_numpy(run.positions[k]).to(state.positions), state.momenta) for k in looks]
    omega = max([omega, *(highest_frequency(potential, s, generator=generator) for s in at)])
    kinetic = 0.5 * run.momenta**2 * state.inverse_masses.numpy()
    return Motion(
        period_fs=T,
        harmonic_period_fs=2.0 * math.pi / omega / FEMTOSECOND,
        resolution=spectrum.resolution_per_cm * THZ_PER_CM * T / 1000.0,
        temperature_K=2.0 * float(kinetic.sum((1, 2)).mean()) / (BOLTZMANN * float(degrees_of_freedom(state)[0])),
        base_step_fs=dt,
        run_ps=frames * dt / 1000.0,
    )


def period_of_share(spectrum: VelocitySpectrum, share: float = SHARE) -> float:
    """The period, fs, that a part of the kinetic energy does not fall below."""
    energy = np.cumsum(spectrum.density)
    return 1000.0 / float(np.interp(share, energy / energy[-1], spectrum.thz))


@dataclasses.dataclass(frozen=True)
class Choice:
    """A map with its step: what it costs, and the fewest modes that can resonate with its substep.

    The error of a map is a kick repeated every h/s: n modes whose frequencies add up to 2π·s/h take energy from it,
    which needs n ≥ T·s/h.
    """

    kind: str
    stages: int
    step_fs: float
    gradients_per_ps: float
    resonance_order: int


@dataclasses.dataclass(frozen=True)
class Advice:
    """Limits in fs, maps that keep them, the one to take, and how to record reference trajectories for it."""

    ensemble: str
    motion: Motion
    limits: dict[str, float]
    choices: list[Choice]
    best: Choice
    base_step_fs: float
    record_every: int

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words."""
        return dataclasses.asdict(self) | {"omega_max_per_fs": self.motion.omega_max_per_fs}


def advise(motion: Motion, ensemble: str = "nve") -> Advice:
    """Which map, stages and step suit an ensemble.

    The cost per time depends on h/s alone, which the resonances limit. Two stages are the fewest that are exact for
    every harmonic mode below T; more stages cost the same and make a longer, harder map. A thermostat or a
    Metropolis test takes away what resonances bring, so that h/s may be longer. Steps are whole numbers of a base
    step that resolves the fastest motion.
    """
    if ensemble not in ENSEMBLES:
        raise InvalidInput(f"ensemble must be one of {', '.join(ENSEMBLES)}, not {ensemble!r}")
    T = motion.period_fs
    substep = T / SUBSTEP[ensemble]
    dt = _rounded(min(T, motion.harmonic_period_fs) / STEPS_PER_PERIOD)
    choices = [_choice("discrete", s, _multiple(s * substep, dt), s, T) for s in (1, 2, 3, 4)]
    midpoint = _choice("midpoint", 1, _multiple(T / MIDPOINT_PLAIN, dt), MIDPOINT_GRADIENTS, T)
    best = choices[1]
    return Advice(
        ensemble=ensemble,
        motion=motion,
        limits={
            "verlet_usual": T / VERLET_USUAL,
            "verlet_stable": T / VERLET_STABLE,
            "substep": substep,
            "midpoint_plain_iteration": T / MIDPOINT_PLAIN,
            "midpoint_exists": T / MIDPOINT_EXISTS,
        },
        choices=[*choices, midpoint],
        best=best,
        base_step_fs=dt,
        record_every=round(best.step_fs / dt),
    )


def _choice(kind: str, stages: int, step_fs: float, gradients: float, T: float) -> Choice:
    return Choice(kind, stages, step_fs, 1000.0 * gradients / step_fs, math.ceil(T * stages / step_fs))


def _multiple(longest_fs: float, dt: float) -> float:
    """The longest step that is a whole number of base steps."""
    return float(f"{math.floor(longest_fs / dt + 1e-9) * dt:.12g}")


def _rounded(step_fs: float) -> float:
    """Down to two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(step_fs)) - 1)
    return float(f"{math.floor(step_fs / unit + 1e-9) * unit:.12g}")


def _thermalised(
    state: PhaseState, potential: Potential, temperature_K: float, dt: float, steps: int, generator: torch.Generator
) -> PhaseState:
    state = langevin(
        maxwell_boltzmann(state, temperature_K, generator),
        potential,
        step_fs=dt,
        steps=steps,
        temperature_K=temperature_K,
        friction_per_ps=1000.0 * RELAXATIONS / (steps * dt),
        generator=generator,
    )
    return state if state.has_fixed or state.n_atoms == 1 else without_total_momentum(state)
