"""What a run is watched for while it goes on, and what is said of it at its end."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from actionlearn.dynamics.ensemble import Ensemble, Map
from actionlearn.dynamics.familiar import Outside
from actionlearn.dynamics.freedom import at_rest_as_a_whole
from actionlearn.errors import DriftTooLarge, InvalidInput, OutsideTraining
from actionlearn.potentials.protocol import Potential
from actionlearn.state import PhaseState
from actionlearn.structure.drift import FEWEST_BLOCKS, Measured, energy_drift
from actionlearn.units import BOLTZMANN

POLICIES = ("raise", "warn", "fallback")
"""What to do about trouble: stop with one line; warn once and count; let a base potential take over, and count."""


class Record:
    """Counts, mean temperatures and the conserved energy of a run, and what is found wrong with it.

    Temperatures are means over the looks that were taken. The conserved energy, total energy less the heat of the
    thermostat and less what others put in who change atoms of a run, is followed where a `potential` is given for it;
    it must not drift by more than `drift_limit` (meV/atom/ps, beyond twice its standard error), or else the `policy`
    holds. For atoms outside the range of training it is `on_uncertain`. Either may be to raise, to warn once and
    count, or to let a base potential take over: `taken_over` says of which systems, until the next look or judgement.
    """

    def __init__(
        self,
        step_fs: float,
        *,
        potential: Potential | None = None,
        drift_limit: float | None = None,
        policy: str = "raise",
        on_uncertain: str = "warn",
        familiar: Outside | None = None,
    ) -> None:
        """Start with nothing; `step_fs` is the time between steps."""
        for name, value in (("policy", policy), ("on_uncertain", on_uncertain)):
            if value not in POLICIES:
                raise InvalidInput(f"{name} must be one of {', '.join(POLICIES)}, got {value!r}")
        if drift_limit is not None:
            if not 0 < drift_limit < float("inf"):
                raise InvalidInput(f"drift_limit must be a positive number of meV/atom/ps, got {drift_limit!r}")
            if potential is None:
                raise InvalidInput("a drift_limit needs energies: give a potential, or put a calculator on the atoms")
        self.step_fs, self.potential, self.drift_limit, self.policy = step_fs, potential, drift_limit, policy
        self.on_uncertain, self.familiar = on_uncertain, familiar
        self.strangers = 0  # atoms outside the range of training, summed over looks
        self.judged = 0  # atoms that were looked at for it
        self.strange: list[bool] = []  # systems that had some at the last look
        self.drifts = False  # at the last judgement
        self.steps = 0
        self.seconds = 0.0
        self.looks = 0
        self.warned = 0
        self.kinetic: dict[int, float] = {}  # 2K/(k_B·degrees) by species, summed over looks
        self.times_fs: list[float] = []
        self.energies: list[float] = []
        self.brought = 0.0  # energy that changes from outside have brought in, eV
        self._since = 0.0

    def start_clock(self) -> None:
        """Stepping begins."""
        self._since = time.perf_counter()

    def stepped(self, n: int) -> None:
        """Stepping ends after n steps."""
        self.seconds += time.perf_counter() - self._since
        self.steps += n

    def changed(self, before: PhaseState, after: PhaseState) -> None:
        """Somebody else put the run from one state to another: its energy, where it is followed, goes on from there."""
        if self.potential is not None and self.energies:
            E, E_new = (float((self.potential.energy(s) + s.kinetic_energy()).sum()) for s in (before, after))
            self.brought += E_new - E

    def look(self, state: PhaseState, ensemble: Ensemble, *, energy: bool) -> None:
        """Take in temperatures, and the conserved energy if it is due."""
        self.looks += 1
        for Z, T in temperatures_by_species(state).items():
            self.kinetic[Z] = self.kinetic.get(Z, 0.0) + T
        self.judge_familiarity(state)
        if energy and self.potential is not None:
            total = self.potential.energy(state).detach() + state.kinetic_energy() - ensemble.heat
            self.times_fs.append(self.steps * self.step_fs)
            self.energies.append(float(total.sum()) - self.brought)
            self._judge_drift(state.n_atoms)

    def judge_familiarity(self, state: PhaseState) -> None:
        """Whether all atoms are where the map has learned something."""
        if self.familiar is None:
            return
        strange = self.familiar.strangers(state)
        self.strange = (state.sum_by_system(strange.to(torch.int64)) > 0).tolist()
        count = int(strange.sum())
        if count and self.on_uncertain != "fallback":
            self._say_strange(strange, state, first=not self.strangers)
        self.strangers, self.judged = self.strangers + count, self.judged + state.n_atoms

    def _say_strange(self, strange: Tensor, state: PhaseState, first: bool) -> None:
        atom = int(strange.nonzero()[0])
        text = (
            f"{int(strange.sum())} of {state.n_atoms} atoms are outside the range of training after {self.steps} "
            f"steps, the first is atom {atom} ({chemical_symbols[int(state.numbers[atom])]})"
        )
        if self.on_uncertain == "raise":
            raise OutsideTraining(
                f"{text}: train on such conditions, or go on with on_uncertain 'warn' or 'fallback' (a base potential)"
            )
        if first:
            warnings.warn(f"{text}: expect larger errors there; train on such conditions", UserWarning, stacklevel=2)

    def taken_over(self, systems: int) -> list[bool]:
        """Which systems a base potential is to take over for now."""
        strange = self.strange if self.on_uncertain == "fallback" and self.strange else [False] * systems
        drifts = self.policy == "fallback" and self.drifts
        return [drifts or one for one in strange]

    def drift(self, n_atoms: int) -> Measured | None:
        """Slope of the conserved energy so far, or None while there are too few energies."""
        if len(self.energies) < 2 * FEWEST_BLOCKS:
            return None
        return energy_drift(self.times_fs, self.energies, n_atoms)

    def _judge_drift(self, n_atoms: int) -> None:
        if self.drift_limit is None or len(self.energies) % FEWEST_BLOCKS:
            return
        found = self.drift(n_atoms)
        self.drifts = found is not None and abs(found.value) - 2.0 * found.error > self.drift_limit
        if not self.drifts:
            return
        text = (
            f"the conserved energy drifts by {found} after {self.steps} steps, the limit is {self.drift_limit:g}: "
            "use a better model or a shorter step, or a thermostat if only averages matter"
        )
        if self.policy == "raise":
            raise DriftTooLarge(text)
        if self.policy == "warn" and not self.warned:
            warnings.warn(text, UserWarning, stacklevel=2)
        self.warned += 1

    def summary(self, state: PhaseState, model: Map, ensemble: Ensemble) -> dict[str, Any]:
        """Everything worth reporting, as plain numbers and words."""
        ps = self.steps * self.step_fs / 1000.0
        drift = self.drift(state.n_atoms)
        found: dict[str, Any] = {
            "map": model.kind,
            "atoms": state.n_atoms,
            "systems": state.n_systems,
            "step_fs": model.step_fs,
            "steps": self.steps,
            "time_ps": ps,
            "seconds": self.seconds,
            "ns_per_day": ps / 1000.0 / self.seconds * 86400.0 if self.seconds > 0 else None,
            "temperatures_K": {
                chemical_symbols[Z]: T / self.looks for Z, T in sorted(self.kinetic.items()) if self.looks
            },
            "drift_meV_per_atom_per_ps": None if drift is None else drift.value,
            "drift_error": None if drift is None else drift.error,
            "drift_warnings": self.warned,
            "share_outside_training": self.strangers / self.judged if self.judged else None,
        }
        solver = getattr(model, "solver", None)  # of an implicit map
        if solver is not None:
            spent = solver.statistics
            found["gradients_per_step"] = spent.evaluations_per_solve
            found["worst_residual"], found["failed_solves"] = spent.worst_residual, spent.failures
        return found | ensemble.summary()

    def memory(self) -> dict[str, Any]:
        """All that is counted, for a restart."""
        names = ("steps", "seconds", "looks", "warned", "strangers", "judged", "strange", "drifts")
        return {name: getattr(self, name) for name in (*names, "kinetic", "times_fs", "energies", "brought")}

    def recall(self, memory: dict[str, Any]) -> None:
        """Go on counting where `memory` stopped."""
        for name, value in memory.items():
            setattr(self, name, value)


def temperatures_by_species(state: PhaseState) -> dict[int, float]:
    """Kinetic temperature of the moving atoms of each species, K, all systems together.

    Where the whole is at rest an atom keeps the share 1 − m/M of its degrees of freedom.
    """
    dims = state.positions.shape[1]
    total = state.sum_by_system(state.masses)[state.system]
    share = 1.0 - at_rest_as_a_whole(state)[state.system] * state.masses / total
    degrees = dims * share.masked_fill(state.fixed, 0.0)
    kinetic = (0.5 * state.inverse_masses * state.momenta.detach() ** 2).sum(1)
    found = {}
    for Z in torch.unique(state.numbers).tolist():
        mine = state.numbers == Z
        freedom = float(degrees[mine].sum())
        if freedom > 0:
            found[Z] = 2.0 * float(kinetic[mine].sum()) / (BOLTZMANN * freedom)
    return found


def as_text(summary: dict[str, Any]) -> str:
    """A summary as lines of text, what is unknown left out."""
    lines = []
    for name, value in summary.items():
        if value is None or value == {}:
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{key} {_number(x)}" for key, x in value.items())
        lines.append(f"{name.replace('_', ' '):>26}  {_number(value)}")
    return "\n".join(lines)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return "not finite" if not math.isfinite(value) else f"{value:.6g}"
    return str(value)
