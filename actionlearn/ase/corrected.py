"""Any dynamics object of ASE, corrected by the midpoint action."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import ase
from ase.md.md import MolecularDynamics

from actionlearn.ase.ensembles import ActionNVE
from actionlearn.errors import InvalidInput
from actionlearn.maps.midpoint import MidpointAction
from actionlearn.maps.predict_correct import PredictCorrect
from actionlearn.potentials.protocol import Potential
from actionlearn.structure.foreign import as_step
from actionlearn.units import FEMTOSECOND


class Corrected(ActionNVE):
    """`Corrected(VelocityVerlet, atoms, model=action)`: that dynamics predicts each step, the action corrects it.

    The predictor takes one step of the action's length on a copy of the atoms, with their calculator; it may be far
    too long for it. After `iterations` gradients of the action, or at convergence with None, the state is the step.
    At convergence it no longer depends on the predictor, is symplectic and reversible, and the ensemble is the
    microcanonical one, whatever the predictor was; after a finite number of iterations it is none of these, the less
    so the more there are. One or two may drift more than a predictor that has a structure of its own, such as Verlet.
    """

    def __init__(
        self,
        dynamics: type[MolecularDynamics],
        atoms: ase.Atoms,
        timestep: float | None = None,
        *,
        model: MidpointAction,
        iterations: int | None = None,
        options: Mapping[str, Any] | None = None,
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
        """`options` are those of the predictor besides atoms and time step, such as the temperature of a thermostat."""
        if not (isinstance(dynamics, type) and issubclass(dynamics, MolecularDynamics)):
            raise InvalidInput(f"dynamics must be a class of ASE dynamics such as VelocityVerlet, got {dynamics!r}")
        if not isinstance(model, MidpointAction):
            kind = getattr(model, "kind", type(model).__name__)
            raise InvalidInput(
                f"only a midpoint action corrects a predicted step, this model is of kind {kind!r}: give an "
                "al.MidpointAction, or use ActionNVE, whose explicit maps need no prediction"
            )
        if not isinstance(atoms, ase.Atoms):
            raise InvalidInput(f"atoms must be an ase.Atoms, got {type(atoms).__name__}")
        if atoms.calc is None:
            raise InvalidInput(f"{dynamics.__name__} needs forces to predict a step: set atoms.calc")
        copy = atoms.copy()
        copy.calc = atoms.calc
        try:
            predictor = dynamics(copy, timestep=model.step_fs * FEMTOSECOND, **(options or {}))
        except TypeError as problem:
            raise InvalidInput(f"{dynamics.__name__} cannot be made with these options: {problem}") from None
        super().__init__(
            atoms,
            timestep,
            model=PredictCorrect(as_step(predictor), model, iterations=iterations),
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
