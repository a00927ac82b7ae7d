"""Does a map heat? Short roll-outs from recorded states, cheap enough to be made while it is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from actionlearn.errors import CalculatorFailed, InvalidInput, NonFinite, NotConverged
from actionlearn.neighbours import forget_edges
from actionlearn.potentials.protocol import Potential
from actionlearn.state import PhaseState
from actionlearn.structure import Measured, energy_drift

EXPLODED = 0.5
"""Change of the energy, eV per atom, at which a run is given up."""

STEPS = 128
"""Long steps of a roll-out: some thirty of the fastest periods."""


def own_energy(model: Any) -> Callable[[PhaseState], Tensor] | None:
    """The energy that a map takes its step from, T + Σ_k U_k over all kicks, or None where it has none.

    The exact action of a potential V has Σ_k U_k = V + O(h²); a map that is symplectic keeps an energy close to this
    one, unless a resonance heats it. That of a midpoint map is T + G at one point of phase space.
    """
    if model.kind == "midpoint":
        return lambda state: model.scalar.energy(state) + state.kinetic_energy()
    if model.kind not in ("discrete", "corrected", "potential"):
        return None
    s, kicks = model.stages, model.potentials

    def energy(state: PhaseState) -> Tensor:
        inner = [2.0 * kicks[k].energy(state) for k in range((s + 1) // 2)]
        middle = [kicks[s // 2].energy(state)] if s % 2 == 0 else []
        return torch.stack([*inner, *middle]).sum(0) + state.kinetic_energy()

    return energy


@torch.no_grad()
def heating(model: Any, start: PhaseState, base: Potential | None = None, steps: int = STEPS) -> Measured | None:
    """Drift of the energy per atom over `steps` steps from `start`, a batch of systems taken as one, meV/atom/ps.

    The energy is that of the base potential, or the map's own without one; a processed map is followed in its own
    variables, which need no equation to be solved, with its own energy. A run that fails, by numbers that are not
    finite, an equation without a solution or half an eV per atom, counts as having gained that much until then, for
    certain. None where a map has no energy of its own and no base is given.
    """
    if steps < 16:
        raise InvalidInput(f"a drift takes 16 steps or more, not {steps}")
    forget_edges()  # sums over edges then depend on the start alone
    if hasattr(model, "forget"):
        model.forget()
    state, inner = start, model
    if model.kind == "processed":
        inner, base = model.inner, None
        inner.forget()
    energy = own_energy(inner) if base is None else _energy_on(base)
    if energy is None:
        return None
    energies: list[float] = []
    try:
        if model.kind == "processed":
            state = model.displacement.enter(state)
        energies.append(float(energy(state).sum()))
        for _ in range(steps):
            state = inner.step(state)
            energies.append(float(energy(state).sum()))
            if not abs(energies[-1] - energies[0]) < EXPLODED * start.n_atoms:
                raise NonFinite("the energy has exploded")
    except (NonFinite, NotConverged, CalculatorFailed):
        gone_ps = max(len(energies), 1) * model.step_fs / 1000.0
        return Measured(1000.0 * EXPLODED / gone_ps, 0.0, "meV/atom/ps")
    times_fs = [k * model.step_fs for k in range(steps + 1)]
    return energy_drift(times_fs, energies, start.n_atoms)


def certain(drift: Measured) -> float:
    """How much of a drift is beyond doubt: |drift| less twice its standard error, meV/atom/ps."""
    return max(abs(drift.value) - 2.0 * drift.error, 0.0)


def _energy_on(base: Potential) -> Callable[[PhaseState], Tensor]:
    return lambda state: base.energy(state) + state.kinetic_energy()
