"""The dynamics objects, one for each ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import ase

from actionlearn.ase.atoms import holds_centre
from actionlearn.ase.base import ActionDynamics
from actionlearn.dynamics import GeneralisedHMC, Langevin, Map, Microcanonical, VelocityRescaling
from actionlearn.errors import InvalidInput
from actionlearn.potentials.ase_calculator import ASEPotential
from actionlearn.potentials.protocol import Potential


class ActionNVE(ActionDynamics):
    """Microcanonical: the map alone. `ActionNVE(atoms, model=model)` takes the place of `VelocityVerlet(atoms, dt)`."""

    def __init__(
        self,
        atoms: ase.Atoms,
        timestep: float | None = None,
        *,
        model: Map,
        trajectory: Any = None,
        logfile: IO[str] | str | None = None,
        loginterval: int = 1,
        append_trajectory: bool = False,
        potential: Potential | None = None,
        drift_limit: float | None = None,
        policy: str = "raise",
        on_uncertain: str = "warn",
        fallback: Potential | None = None,
        restart: str | Path | None = None,
        restart_every: int = 1000,
    ) -> None:
        """The step comes from the model; a `timestep` (ASE units) that contradicts it is an error."""
        super().__init__(
            atoms,
            timestep,
            model,
            Microcanonical(),
            trajectory=trajectory,
            logfile=logfile,
            loginterval=loginterval,
            append_trajectory=append_trajectory,
            potential=potential,
            drift_limit=drift_limit,
            policy=policy,
            on_uncertain=on_uncertain,
            fallback=fallback,
            restart=restart,
            restart_every=restart_every,
        )


class ActionLangevin(ActionDynamics):
    """Canonical: half an exact Ornstein-Uhlenbeck process on each side of the map, see `dynamics.Langevin`.

    With FixCom among the constraints the total momentum is zero and stays so.
    """

    def __init__(
        self,
        atoms: ase.Atoms,
        timestep: float | None = None,
        *,
        model: Map,
        temperature_K: float,
        friction_per_ps: float,
        seed: int = 0,
        trajectory: Any = None,
        logfile: IO[str] | str | None = None,
        loginterval: int = 1,
        append_trajectory: bool = False,
        potential: Potential | None = None,
        drift_limit: float | None = None,
        policy: str = "raise",
        on_uncertain: str = "warn",
        fallback: Potential | None = None,
        restart: str | Path | None = None,
        restart_every: int = 1000,
    ) -> None:
        """Temperature and friction; runs that should differ need different seeds."""
        super().__init__(
            atoms,
            timestep,
            model,
            Langevin(temperature_K, friction_per_ps, seed=seed, zero_momentum=holds_centre(atoms)),
            trajectory=trajectory,
            logfile=logfile,
            loginterval=loginterval,
            append_trajectory=append_trajectory,
            potential=potential,
            drift_limit=drift_limit,
            policy=policy,
            on_uncertain=on_uncertain,
            fallback=fallback,
            restart=restart,
            restart_every=restart_every,
        )


class ActionBussi(ActionDynamics):
    """Canonical: stochastic velocity rescaling around the map, see `dynamics.VelocityRescaling`.

    `conserved_energy()` is the total energy less the heat, flat where the map conserves energy.
    """

    def __init__(
        self,
        atoms: ase.Atoms,
        timestep: float | None = None,
        *,
        model: Map,
        temperature_K: float,
        time_ps: float,
        seed: int = 0,
        trajectory: Any = None,
        logfile: IO[str] | str | None = None,
        loginterval: int = 1,
        append_trajectory: bool = False,
        potential: Potential | None = None,
        drift_limit: float | None = None,
        policy: str = "raise",
        on_uncertain: str = "warn",
        fallback: Potential | None = None,
        restart: str | Path | None = None,
        restart_every: int = 1000,
    ) -> None:
        """Temperature and relaxation time; runs that should differ need different seeds."""
        super().__init__(
            atoms,
            timestep,
            model,
            VelocityRescaling(temperature_K, time_ps, seed=seed),
            trajectory=trajectory,
            logfile=logfile,
            loginterval=loginterval,
            append_trajectory=append_trajectory,
            potential=potential,
            drift_limit=drift_limit,
            policy=policy,
            on_uncertain=on_uncertain,
            fallback=fallback,
            restart=restart,
            restart_every=restart_every,
        )


class ActionGHMC(ActionDynamics):
    """Exact sampling: the map proposes, the base potential's energy decides, see `dynamics.GeneralisedHMC`.

    The energy is that of `potential`, or of the atoms' calculator, plus the map's extra potentials. One step of the
    dynamics is one proposal, `proposal_steps` long steps. With `pressure_GPa` the volume changes too, isotropically.
    """

    def __init__(
        self,
        atoms: ase.Atoms,
        timestep: float | None = None,
        *,
        model: Map,
        temperature_K: float,
        friction_per_ps: float,
        potential: Potential | None = None,
        proposal_steps: int = 1,
        pressure_GPa: float | None = None,
        volume_every: int = 10,
        volume_step: float = 0.01,
        seed: int = 0,
        trajectory: Any = None,
        logfile: IO[str] | str | None = None,
        loginterval: int = 1,
        append_trajectory: bool = False,
        on_uncertain: str = "warn",
        restart: str | Path | None = None,
        restart_every: int = 1000,
    ) -> None:
        """Temperature, friction, proposals; runs that should differ need different seeds."""
        if potential is None:
            if atoms.calc is None:
                raise InvalidInput(
                    "exact sampling needs the base potential's energy: give potential=…, or put a calculator on the "
                    "atoms"
                )
            potential = ASEPotential(atoms.calc)
        ensemble = GeneralisedHMC(
            potential,
            temperature_K,
            friction_per_ps,
            steps_per_move=proposal_steps,
            pressure_GPa=pressure_GPa,
            volume_every=volume_every,
            volume_step=volume_step,
            seed=seed,
            zero_momentum=holds_centre(atoms),
        )
        super().__init__(
            atoms,
            timestep,
            model,
            ensemble,
            trajectory=trajectory,
            logfile=logfile,
            loginterval=loginterval,
            append_trajectory=append_trajectory,
            on_uncertain=on_uncertain,
            restart=restart,
            restart_every=restart_every,
        )
        self.potential = potential
