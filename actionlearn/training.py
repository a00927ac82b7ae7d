"""The training loop: a schedule over a budget, an average of the weights, and a state that survives a kill."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actionlearn.assessment import at_steps, errors_of, map_at
from actionlearn.dataset import Dataset, Windows
from actionlearn.errors import DataError, InvalidInput, NonFinite
from actionlearn.files import write_atomically
from actionlearn.hamilton_jacobi import force_scales, hamilton_jacobi_loss
from actionlearn.heating import STEPS, heating
from actionlearn.losses import StepErrors, force_loss, look_around, map_loss, window_length
from actionlearn.maps.blueprint import Blueprint, learned_part, network_of, networks_of
from actionlearn.optimiser import Preconditioned
from actionlearn.parallel import Ranks
from actionlearn.potentials.borrowed import BorrowedDerivatives, has_derivatives
from actionlearn.potentials.protocol import Potential
from actionlearn.progress import Progress
from actionlearn.settings import Report, Settings
from actionlearn.state import PhaseState
from actionlearn.structure import Measured

STATE_FORMAT = "actionlearn training state 2"

#: What a step of a roll-out costs, in updates on as many atoms; 0.5 for the other kinds.
UPDATES_A_STEP = {"corrected": 1.0, "midpoint": 5.0}


class Trainer:
    """Trains the map of a blueprint; `run` does it all, `update` is one step of it.

    Weights are float32 in training; errors are measured, and the map is handed out, in float64 with averaged weights.
    Everything random follows the seed and the number of updates, so a run that goes on from its state file ends in
    the same weights as one that was never stopped (in updates, on one thread).

    Of several processes (`ranks`) each takes its own batch of an update, and all take the same step along the mean
    gradient, as one process with batches that many times as large; the first one measures and writes.

    The map that is handed out is the best of those validated (see `Settings`). Drifts are those of the energy of
    `watched`, a base potential (that of a corrected map unless another is given), else of the map's own energy.

    A `potential` is matched to the forces of single frames for the whole budget, and handed out with the constants of
    the elements fitted to recorded energies. Its errors are those of a kick, its drift is that of its own energy.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        training: Dataset,
        validation: Dataset,
        settings: Settings | None = None,
        base: Potential | None = None,
        start: Any = None,
        *,
        device: torch.device | str = "cpu",
        ranks: Ranks | None = None,
        watched: Potential | None = None,
    ) -> None:
        """Fresh weights and features standardised over the training set, or those of the map `start`."""
        self.blueprint, self.settings, self.base = blueprint, settings or Settings(), base
        self.device, self.ranks = torch.device(device), ranks or Ranks()
        if training.step_fs != blueprint.step_fs:
            raise InvalidInput(f"data in steps of {training.step_fs:g} fs for a map of {blueprint.step_fs:g} fs")
        if self.settings.hamilton_jacobi and (blueprint.kind != "midpoint" or blueprint.steps_fs is None):
            raise InvalidInput(
                "the Hamilton-Jacobi equation is that of midpoint actions for a range of steps, not of a "
                f"{blueprint.kind} map{'' if blueprint.steps_fs else ' of one step'}: kind midpoint with steps_fs"
            )
        if training.length == 1 and self.settings.hamilton_jacobi < 1.0 and blueprint.kind != "potential":
            raise InvalidInput(
                "single structures hold no motion: train midpoint maps for a range of steps on them, with "
                f"hamilton_jacobi=1 (--without-trajectories), not {self.settings.hamilton_jacobi}, or a potential"
            )
        if self.settings.action:
            self._check_action(training)
        torch.manual_seed(self.settings.seed)
        self.average = blueprint.build(base)  # float64, averaged weights
        calibration = training.windows(training.even(16)).frames
        self._started = start is not None  # then matching forces would undo what is there
        if start is None:
            for network in networks_of(self.average):
                network.calibrate(calibration)
        else:
            self._take_over(start)
        self._borrowed = None
        if base is not None and not has_derivatives(base, calibration[0]):
            self._borrowed = BorrowedDerivatives(base)
        self.model = blueprint.build(self._borrowed or base, torch.float32)
        if self._borrowed is not None:
            self._borrowed.network = network_of(self.model)
        weights = self.ranks.same(lambda: learned_part(self.average).state_dict())
        for model in (self.average, self.model):
            learned_part(model).load_state_dict(weights)
            model.to(self.device)
        length = max(self.settings.window or 2, window_length(self.model)) if training.length > 1 else 1
        if blueprint.kind == "potential":
            length, validation = 1, validation.resized(1)
        self.training, self.validation = training.resized(length), validation
        alone = self.settings.hamilton_jacobi == 1.0  # draws steps of its own
        self._sets = [self.training] if alone else at_steps(self.training, blueprint)
        self._force_scales = force_scales(self.training.stretches) if self.settings.hamilton_jacobi else {}
        self.optimiser = Preconditioned(learned_part(self.model).parameters(), weight_decay=self.settings.weight_decay)
        learned_part(self.average).requires_grad_(False)
        self.updates, self.seconds = 0, 0.0
        self.epoch, self.position = 0, 0
        self.curve: list[dict[str, float]] = []
        self._recent: list[float] = []
        self._order = self._shuffled(0)
        self._watched = None if blueprint.kind == "potential" else watched or base
        self._starts = self._roll_out_starts()
        self._drift: tuple[float, float] | None = None  # the last that was measured, and its standard error
        self._best: tuple[float, tuple[float, float] | None, dict[str, torch.Tensor]] | None = None

    @property
    def done(self) -> float:
        """Part of the budget that is spent."""
        if self.settings.updates is not None:
            return self.updates / self.settings.updates
        return self.seconds / (60.0 * (self.settings.minutes or 1.0))

    def run(self, state_file: Path | None = None, *, progress: bool = False) -> Report:
        """Train until the budget is spent, or go on from the state file if there is one."""
        if state_file is not None and self.ranks.same(state_file.exists):
            self.load_state(state_file)
        begun, due = time.monotonic() - self.seconds, self._next_validation()
        with Progress("training", 1.0, done=self.done, shown=progress and self.ranks.first) as bar:
            while self.done < 1.0 and not self._gave_up():
                shown = self.done
                loss = self.update()
                self._look_at_clock(begun)
                if self.done >= min(due, 1.0):
                    self.validate()
                    self._look_at_clock(begun)
                    due = self._next_validation()
                    if state_file is not None:
                        self.save_state(state_file)
                bar.advance(self.done - shown, self._note(loss))
        if not self.curve:
            self.validate()
        drift = self._drift
        if self._best is not None:
            _, drift, weights = self._best
            learned_part(self.average).load_state_dict(weights)
        if self.blueprint.kind == "potential":
            self._fit_constants()
        errors = self.ranks.same(lambda: errors_of(self.average, self.validation, device=self.device))
        return Report(self.updates, self.seconds, errors, self.curve, _measured(drift))

    def update(self) -> float:
        """One batch on each process, one step of the optimiser, and its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate(self.done)
        self.optimiser.zero_grad(set_to_none=True)
        loss, share = 0.0, 0
        for data, batch in self._next_batches()[self.ranks.rank :][:1]:  # none where an epoch ends on too few
            windows = data.windows(batch, torch.float32, self.device)
            value = self._loss(windows, data.step_fs, data.temperatures_of(batch))
            value.backward()
            loss, share = float(value.detach()), int((~windows.frames[0].fixed).sum())
        loss, shares = self.ranks.sums(share * loss, share)
        loss /= shares
        weights = list(learned_part(self.model).parameters())
        self.ranks.average_gradients(weights, share)
        norm = torch.nn.utils.clip_grad_norm_(weights, self.settings.clip)
        if not bool(torch.isfinite(norm)):
            raise NonFinite(
                f"the gradient is not finite after {self.updates} updates (loss {loss:g}): "
                "lower the learning rate or the step"
            )
        self.optimiser.step()
        self.ranks.spread(weights)
        self.updates += 1
        self._average_weights()
        self._recent.append(loss)
        return loss

    def _loss(self, windows: Windows, step_fs: float, temperatures_K: list[float]) -> Tensor:
        """What an update makes small."""
        if self.blueprint.kind == "potential":
            return torch.stack([force_loss(one, windows, step_fs) for one in self.model.potential.members]).mean()
        if self._matching_forces():
            return force_loss(self._shared_potential, windows, step_fs)
        if self.blueprint.kind == "direct" and self.updates % 2:
            windows = windows.reversed()  # the other maps are reversible by construction
        weight, loss = self.settings.hamilton_jacobi, windows.scale_p.new_zeros(())
        if weight < 1.0:
            loss = (1.0 - weight) * map_loss(map_at(self.model, step_fs), windows, self.settings.action)
        if weight > 0.0:
            look_around(self.model, windows)
            count = self.updates * self.ranks.size + self.ranks.rank
            generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + count)
            there = hamilton_jacobi_loss(self.model, windows, temperatures_K, self._force_scales, generator)
            loss = loss + weight * there
        if self._borrowed is not None:
            loss = loss + force_loss(self._shared_potential, windows, step_fs)
        return loss

    def validate(self) -> StepErrors:
        """Errors of the averaged map on the validation set, at times its drift, and a point of the learning curve."""
        # maps that solve equations cost tens of explicit steps each
        windows = 8 if self.blueprint.kind in ("processed", "midpoint") else 32
        errors = self.ranks.same(lambda: errors_of(self.average, self.validation, windows=windows, device=self.device))
        point = {
            "update": self.updates,
            "seconds": round(self.seconds, 3),
            "learning_rate": self.settings.rate(self.done),
            "loss": sum(self._recent) / max(len(self._recent), 1),
            "position_error": errors.position,
            "momentum_error": errors.momentum,
        }
        if self._roll_out_is_due():
            longest = map_at(self.average, self.blueprint.step_fs)
            found = self.ranks.same(lambda: heating(longest, self._starts, self._watched))
            if found is not None:
                self._drift = point["drift"], point["drift_error"] = found.value, found.error
        point["score"] = self.settings.score(errors.momentum, _measured(self._drift))
        self.curve.append(point)
        self._recent = []
        best = self._best
        # a map of unknown drift is no better than one of known drift
        if best is None or (best[1] is None and self._drift is not None) or point["score"] <= best[0]:
            self._best = (point["score"], self._drift, copy.deepcopy(learned_part(self.average).state_dict()))
        return errors

    def _roll_out_starts(self) -> PhaseState:
        """First frames of held-out windows, spread over the set, of half a batch in all."""
        largest = max(s.system.n_atoms for s in self.validation.stretches)
        count = min(max(self.settings.batch_atoms // (2 * largest), 1), 8)
        return self.validation.windows(self.validation.even(count), device=self.device).frames[0]

    def _roll_out_is_due(self) -> bool:
        """At so many validations, evenly spaced and at the last, as the share of the budget pays for."""
        cost = STEPS * UPDATES_A_STEP.get(self.blueprint.kind, 0.5) * self._starts.n_atoms / self.settings.batch_atoms
        validations, done = self.settings.validations, min(self.done, 1.0)
        paid = min(int(self.settings.drift_share * self.updates / max(done, 1e-9) / cost + 1e-9), validations)
        k = round(validations * done)
        return k * paid // validations > (k - 1) * paid // validations

    def _take_over(self, start: Any) -> None:
        """Begin with the weights of a map of the same make."""
        theirs = dataclasses.replace(start.blueprint, base=self.blueprint.base)
        if theirs.steps_fs is None:  # the weights of a range belong to its longest step
            theirs = dataclasses.replace(theirs, step_fs=self.blueprint.step_fs)
        if theirs != self.blueprint:
            raise InvalidInput(f"cannot start from {start.blueprint}: it is made otherwise than {self.blueprint}")
        learned_part(self.average).load_state_dict(learned_part(start).state_dict())

    def _check_action(self, training: Dataset) -> None:
        """Values of the action need a map that has one, and two systems a batch: one alone fixes the constant."""
        if self.blueprint.kind == "direct":
            raise InvalidInput("a direct map has no action to give values to: leave the weight of the action at 0")
        atoms = min(s.system.n_atoms for s in training.stretches)
        if self.settings.batch_atoms < 2 * atoms:
            raise InvalidInput(
                f"batches of {self.settings.batch_atoms} atoms hold one system of {atoms}, and the action has a free "
                f"constant: batch at least {2 * atoms} atoms, or leave the weight of the action at 0"
            )

    # --- pieces of an update ----------------------------------------------------------------------

    def _next_batches(self) -> list[tuple[Dataset, list[int]]]:
        """One for each process, as far as the epoch goes."""
        if self.position >= len(self._order):
            self.epoch, self.position = self.epoch + 1, 0
            self._order = self._shuffled(self.epoch)
        self.position += self.ranks.size
        return self._order[self.position - self.ranks.size : self.position]

    def _shuffled(self, epoch: int) -> list[tuple[Dataset, list[int]]]:
        """Batches of one pass over all windows, each of one step; those of several steps in random order."""
        seed, atoms = self.settings.seed, self.settings.batch_atoms
        batches = [(data, batch) for data in self._sets for batch in data.order(atoms, seed, epoch)]
        if len(self._sets) == 1:
            return batches
        return [batches[k] for k in np.random.default_rng([seed, epoch, 1]).permutation(len(batches))]

    def _look_at_clock(self, begun: float) -> None:
        """The seconds spent, by the clock of the first process."""
        (self.seconds,) = self.ranks.sums(time.monotonic() - begun if self.ranks.first else 0.0)

    def _fit_constants(self) -> None:
        """Energies on the scale of the recorded ones, from frames all over the training set."""
        indices = self.training.even(512)
        batches = [self.training.windows(indices[k : k + 16], device=self.device) for k in range(0, len(indices), 16)]
        states, energies = [batch.frames[0] for batch in batches], [batch.energies[0] for batch in batches]
        self.average.potential.fit_constants(states, energies)

    def _matching_forces(self) -> bool:
        heads = self.blueprint.kind in ("discrete", "processed") and not self._started
        return heads and self.done < self.settings.force_matching

    @property
    def _shared_potential(self) -> Potential:
        return network_of(self.model)

    @torch.no_grad()
    def _average_weights(self) -> None:
        keep = min(1.0 - 1.0 / self.settings.averaging, self.updates / (self.updates + 10.0))
        for mean, now in zip(
            learned_part(self.average).parameters(), learned_part(self.model).parameters(), strict=True
        ):
            mean.lerp_(now.to(mean.dtype), 1.0 - keep)

    def _next_validation(self) -> float:
        """Part of the budget at which errors are measured next; a validation that takes long delays the next."""
        return (math.floor(self.done * self.settings.validations + 1e-9) + 1) / self.settings.validations

    def _gave_up(self) -> bool:
        first = next((k for k, point in enumerate(self.curve) if "drift" in point), 0)
        patience, scores = self.settings.patience, [point["score"] for point in self.curve[first:]]
        return bool(patience) and len(scores) > patience and min(scores[-patience:]) > min(scores)

    def _note(self, loss: float) -> str:
        if not self.curve:
            return f"loss {loss:.2e}"
        last = self.curve[-1]
        drift = "" if self._drift is None else f"  drift {self._drift[0]:+.2g} ± {self._drift[1]:.1g} meV/atom/ps"
        errors = f"dq {100 * last['position_error']:.2f} % dp {100 * last['momentum_error']:.2f} %"
        return f"loss {loss:.2e}  errors {errors}{drift}"

    # --- going on after a kill --------------------------------------------------------------------

    def save_state(self, path: Path) -> None:
        """Everything the next update depends on, atomically."""
        if not self.ranks.first:
            return
        content = {
            "format": STATE_FORMAT,
            "made_for": self._made_for(),
            "weights": learned_part(self.model).state_dict(),
            "average": learned_part(self.average).state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best": self._best,
            "drift": self._drift,
            "counters": [self.updates, self.epoch, self.position],
            "seconds": self.seconds,
            "recent": self._recent,
            "curve": self.curve,
        }
        write_atomically(path, lambda file: torch.save(content, file))

    def load_state(self, path: Path) -> None:
        """Go on from a state of the same blueprint, data and settings."""
        content = self.ranks.same(lambda: _read_state(path))
        if content.get("format") != STATE_FORMAT or content["made_for"] != self._made_for():
            raise InvalidInput(
                f"{path} is the state of a training with other settings, data or package version: "
                "call with the same ones to go on, or delete it to start anew"
            )
        learned_part(self.model).load_state_dict(content["weights"])
        learned_part(self.average).load_state_dict(content["average"])
        self.optimiser.load_state_dict(content["optimiser"])
        self._best, self._drift = content["best"], content["drift"]
        self.updates, self.epoch, self.position = content["counters"]
        self.seconds, self._recent, self.curve = content["seconds"], content["recent"], content["curve"]
        self._order = self._shuffled(self.epoch)

    def _made_for(self) -> list[str]:
        checksums = [s.checksum for data in (self.training, self.validation) for s in data.stretches]
        size = f"{self.ranks.size} processes"
        return [repr(self.blueprint), repr(self.settings), size, f"{self.training.memory_gb:g} GB", *checksums]


def _measured(drift: tuple[float, float] | None) -> Measured | None:
    return None if drift is None else Measured(*drift, "meV/atom/ps")


def _read_state(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as problem:
        raise DataError(f"{path} is no readable training state ({problem}): delete it to start anew") from None
    return content
