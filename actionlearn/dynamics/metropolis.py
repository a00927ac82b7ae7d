"""Exact sampling: the learned map proposes, the base potential's energy decides."""

from __future__ import annotations

import torch
from torch import Tensor

from actionlearn.dynamics.ensemble import Map, positive, positive_whole
from actionlearn.dynamics.thermostats import Langevin
from actionlearn.errors import InvalidInput, NonFinite, NotConverged, UnsupportedSystem
from actionlearn.potentials.protocol import Potential
from actionlearn.state import PhaseState
from actionlearn.units import BOLTZMANN, FEMTOSECOND, GIGAPASCAL


class GeneralisedHMC(Langevin):
    """Generalised hybrid Monte Carlo: the Boltzmann distribution of `potential`, whatever the error of the map.

        1.  p ← c·p + sqrt((1 − c²)·m·kT)·ξ,        c = exp(−γ·k·h)       partial refreshment
        2.  (q', p') = Φᵏ(q, p)                                           proposal
        3.  accept with min(1, exp(−ΔH/kT)), H = U + K; else (q, −p)      Metropolis, momentum flip

    Without bias, because Φ keeps volumes in phase space and is undone by flipping the momenta: a map that is not
    reversible is refused. A proposal that is not finite, or whose equation has no solution, is rejected and counted.

    With `pressure_GPa`, every `volume_every` proposals the cell and all atoms with it are scaled by a random factor:

        ln V' = ln V + δ·ξ,    accept with min(1, exp(−(ΔU + PΔV)/kT + (N + 1)·ln(V'/V)))

    | symbol | variable          | unit |                                             |
    |--------|-------------------|------|---------------------------------------------|
    | U      | `potential` + the map's `extra` | eV |                                 |
    | γ      | `friction_per_ps` | 1/ps | how soon momenta are forgotten              |
    | k      | `steps_per_move`  |      | long steps in a proposal                    |
    | P      | `pressure_GPa`    | GPa  |                                             |
    | δ      | `volume_step`     |      | width of the change of ln V                 |

    All systems of a batch are tested each on its own. A. M. Horowitz, Phys. Lett. B 268, 247 (1991).
    """

    name = "ghmc"

    def __init__(
        self,
        potential: Potential,
        temperature_K: float,
        friction_per_ps: float,
        *,
        steps_per_move: int = 1,
        pressure_GPa: float | None = None,
        volume_every: int = 10,
        volume_step: float = 0.01,
        seed: int = 0,
        zero_momentum: bool = False,
    ) -> None:
        """Sample the canonical distribution of `potential`, or the isothermal-isobaric one."""
        super().__init__(temperature_K, friction_per_ps, seed=seed, zero_momentum=zero_momentum)
        self.potential = potential
        self.steps_per_move = positive_whole("steps_per_move", steps_per_move)
        if pressure_GPa is not None and not abs(pressure_GPa) < float("inf"):
            raise InvalidInput(f"pressure_GPa must be a number, got {pressure_GPa!r}")
        self.pressure_GPa = pressure_GPa
        self.volume_every = positive_whole("volume_every", volume_every)
        self.volume_step = positive("volume_step", volume_step)
        self.counts = dict.fromkeys(("moves", "proposed", "accepted", "failed", "resizes", "resized"), 0)
        self._known: tuple[PhaseState, Tensor] | None = None

    def begin(self, model: Map, state: PhaseState) -> None:
        """Refuse maps that are not reversible, and systems that the pressure cannot act on."""
        super().begin(model, state)
        if self.pressure_GPa is not None:
            _check_scalable(state)
        if model.kind == "direct":
            raise UnsupportedSystem(
                "a direct predictor neither keeps volumes nor is reversible, so no acceptance test makes it exact: "
                "use a map made of an action"
            )
        there = model.step(state)
        back = model.step(there.flip())
        moved = float((there.positions - state.positions).abs().max())
        error = float((back.positions - state.positions).abs().max())
        eps = torch.finfo(state.positions.dtype).eps
        allowed = 1e-6 * moved + 1e3 * eps * float(state.positions.abs().max())
        if not error <= allowed:
            raise UnsupportedSystem(
                f"this {model.kind} map is not reversible: there and back again misses by {error:.1e} Å, exact "
                f"sampling needs less than {allowed:.1e} Å; tighten its solver's tolerance or use an explicit map"
            )

    def advance(self, model: Map, state: PhaseState, n: int = 1) -> PhaseState:
        """N proposals, and the volume moves that fall due."""
        time = self.steps_per_move * model.step_fs * FEMTOSECOND
        for _ in range(n):
            state = self._propose(model, self.refresh(state, time))
            if self.pressure_GPa is not None and self.counts["moves"] % self.volume_every == 0:
                state = self._resize(model, state)
        return state

    def settings(self) -> dict[str, float]:
        """Temperature, friction, and what is proposed."""
        pressure = {} if self.pressure_GPa is None else {"pressure_GPa": self.pressure_GPa}
        proposals = {name: getattr(self, name) for name in ("steps_per_move", "volume_every", "volume_step")}
        return {**super().settings(), **proposals, **pressure}

    def energy(self, model: Map, state: PhaseState) -> Tensor:
        """U of the potential and of whatever else kicks the map, (systems,), eV."""
        terms = [self.potential, *extra_potentials(model)]
        return sum((u.energy(state).detach() for u in terms), start=state.positions.new_zeros(state.n_systems))

    def _propose(self, model: Map, state: PhaseState) -> PhaseState:
        kT = BOLTZMANN * self.temperature_K
        U = self._energy_here(model, state)
        log_u = self._log_uniform(U)
        self.counts["moves"] += 1
        self.counts["proposed"] += state.n_systems
        new = self._steps(model, state)
        sound = _finite(new)
        if not bool(sound.all()):
            self.counts["failed"] += int((~sound).sum())
            new = _choose(sound, new, state)
        U_new = self.energy(model, new)
        dH = U_new + new.kinetic_energy() - U - state.kinetic_energy()
        accepted = sound & (log_u < -dH / kT)  # false if dH is nan
        self.counts["accepted"] += int(accepted.sum())
        chosen = _choose(accepted, new, state.flip())
        self._known = (chosen, torch.where(accepted, U_new, U))
        return chosen

    def _steps(self, model: Map, state: PhaseState) -> PhaseState:
        """The end of a proposal; a system whose steps fail gets momenta that are no numbers, others go on."""
        try:
            return model.step(state, self.steps_per_move)
        except (NonFinite, NotConverged):
            if state.n_systems == 1:
                return state.moved(state.positions, torch.full_like(state.momenta, torch.nan))
            ends = [self._steps(model, one) for one in state.unbatch()]
            return state.moved(torch.cat([e.positions for e in ends]), torch.cat([e.momenta for e in ends]))

    def _resize(self, model: Map, state: PhaseState) -> PhaseState:
        assert self.pressure_GPa is not None
        kT = BOLTZMANN * self.temperature_K
        U = self._energy_here(model, state)
        change = self.volume_step * self.normal(U, U.shape)  # of ln V
        log_u = self._log_uniform(U)
        scale = (change / 3.0).exp()
        q = state.positions * scale[state.system].unsqueeze(1)
        new = state.in_cell(scale[:, None, None] * state.cell, q)
        V = torch.linalg.det(state.cell).abs()
        work = self.pressure_GPa * GIGAPASCAL * V * torch.expm1(change)
        U_new = self.energy(model, new)
        gain = -(U_new - U + work) / kT + (state.atoms_per_system + 1) * change
        accepted = log_u < gain
        self.counts["resizes"] += state.n_systems
        self.counts["resized"] += int(accepted.sum())
        if not bool(accepted.any()):
            return state
        chosen = _choose(accepted, new, state)
        self._known = (chosen, torch.where(accepted, U_new, U))
        return chosen

    def _energy_here(self, model: Map, state: PhaseState) -> Tensor:
        """U where the last test left the state, or computed if it has been moved since."""
        if self._known is not None:
            at, U = self._known
            if at.positions is state.positions and at.cell is state.cell:
                return U
        return self.energy(model, state)

    def _log_uniform(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=self.generator, dtype=like.dtype).to(like.device).log()

    def memory(self) -> dict[str, object]:
        """State of the generator, and the counts."""
        return {**super().memory(), "counts": dict(self.counts)}

    def recall(self, memory: dict[str, object]) -> None:
        """Go on where `memory` stopped."""
        super().recall(memory)
        self.counts = dict(memory["counts"])  # type: ignore[call-overload]
        self._known = None

    def summary(self) -> dict[str, object]:
        """Acceptance of the proposals, and of the changes of volume."""
        counts = self.counts
        found: dict[str, object] = {**super().summary(), "proposals": counts["proposed"], "failed": counts["failed"]}
        found["acceptance"] = counts["accepted"] / counts["proposed"] if counts["proposed"] else None
        if self.pressure_GPa is not None:
            found["pressure_GPa"] = self.pressure_GPa
            found["volume_acceptance"] = counts["resized"] / counts["resizes"] if counts["resizes"] else None
        return found


def extra_potentials(model: Map) -> list[Potential]:
    """What kicks the map besides what it learned: biases, restraints, external fields."""
    return list(getattr(getattr(model, "inner", model), "extra", ()))


def _finite(state: PhaseState) -> Tensor:
    """Which systems hold only finite numbers, (systems,)."""
    broken = ~(torch.isfinite(state.positions) & torch.isfinite(state.momenta)).all(1)
    return state.sum_by_system(broken.to(torch.int64)) == 0


def _choose(mask: Tensor, new: PhaseState, old: PhaseState) -> PhaseState:
    """The new state of the systems in the mask, the old state of the others."""
    if bool(mask.all()):
        return new
    if not bool(mask.any()):
        return old
    atoms = mask[new.system].unsqueeze(1)
    q, p = torch.where(atoms, new.positions, old.positions), torch.where(atoms, new.momenta, old.momenta)
    if new.cell is old.cell:
        return new.moved(q, p)
    return new.moved(q, p).in_cell(torch.where(mask[:, None, None], new.cell, old.cell), q)


def _check_scalable(state: PhaseState) -> None:
    if state.positions.shape[1] != 3 or not bool(state.pbc.all()):
        raise UnsupportedSystem(
            "a pressure needs a system that is periodic in three directions: set pbc and a cell, or leave pressure out"
        )
    if state.has_fixed:
        raise UnsupportedSystem(
            "a pressure scales all positions, which fixed atoms forbid: remove FixAtoms, or leave pressure out"
        )
