"""FlashMD's steppers as plain steps, state -> state, so that everything here that takes a step takes them too."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import ase.units
import conversion
import torch
from ase.calculators.calculator import Calculator, all_changes
from flashmd.ase.velocity_verlet import VelocityVerlet
from flashmd.stepper import FlashMDStepper
from flashmd.symplectic_stepper import SymplecticStepper, _make_system
from metatomic.torch import System, load_atomistic_model
from metatrain.utils.architectures import get_default_hypers
from metatrain.utils.io import load_model

import actionlearn as al
from actionlearn.potentials import Potential

CPU = torch.device("cpu")


def exported(checkpoint: Path, dtype: torch.dtype) -> Any:
    """A trained model as its users have it: compiled, in the precision asked for."""
    return _compiled(load_model(str(checkpoint)), dtype)


def _compiled(model: Any, dtype: torch.dtype) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "model.pt")
        model.to(dtype).export().save(file)
        return load_atomistic_model(file)


def weights(checkpoint: Path) -> int:
    """Number of parameters of a trained model."""
    return sum(w.numel() for w in load_model(str(checkpoint)).parameters())


def default_network(checkpoint: Path, kind: str, state: al.PhaseState) -> tuple[float, int]:
    """Seconds of the processor for a pass of a network as large as metatrain makes it, and its number of weights.

    Untrained, which changes nothing of what it costs. The pass of a symplectic one takes its gradient.
    """
    like = load_model(str(checkpoint))
    model = type(like)(get_default_hypers(conversion.KINDS[kind])["model"], like.dataset_info)
    for name in ("masses", "timestep"):
        setattr(model, name, getattr(like, name))
    model.scaler, model.additive_models = like.scaler, like.additive_models
    compiled = _compiled(model, torch.float32)
    step = FlashMDStep(compiled) if kind == "direct" else FlashMDStep(compiled, compiled, {"max_iter": 4})
    for _ in range(3):  # compiled on the way
        step(state)
    before, started = step.gradients + step.guesses, time.process_time()
    step(state)
    seconds = (time.process_time() - started) / (step.gradients + step.guesses - before)
    return seconds, sum(w.numel() for w in model.parameters())


class FlashMDStep:
    """One step of a direct model, or of a symplectic one that starts from the direct one's guess.

    `evaluations` counts the passes through the networks: with a gradient for those of the symplectic model, without
    for those of the direct one (`guesses`). `residual` is what its solver was left with in the last step, the norm
    of x − f(x) in Å and sqrt(u·eV), whether it had converged or not: the solver itself keeps silent about it.
    """

    def __init__(self, direct: Any, symplectic: Any = None, solver: dict[str, Any] | None = None) -> None:
        """Of exported models; `solver` is the configuration that FlashMD takes."""
        self.dtype = getattr(torch, direct.capabilities().dtype)
        self.stepper: Any = FlashMDStepper(direct, CPU)
        self.symplectic = symplectic is not None
        self.steps, self.gradients, self.guesses, self.residual = 0, 0, 0, 0.0
        if self.symplectic:
            self.stepper = SymplecticStepper(self.stepper, symplectic, solver)
            self._trial, self.stepper._midpoint_step = self.stepper._midpoint_step, self._counted

    def _counted(self, system: System, origin: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        value = self._trial(system, origin, at)
        self.gradients += 1
        self.residual = float((value - at).norm())
        return value

    def __call__(self, state: al.PhaseState) -> al.PhaseState:
        """The state a step later."""
        q, p, m = state.positions.detach(), state.momenta.detach(), state.masses.unsqueeze(1)
        q, p, m, cell = (x.to(self.dtype) for x in (q, p, m, state.cell[0]))
        empty = System(types=state.numbers.to(torch.int32), positions=q, cell=cell, pbc=state.pbc[0])
        end = self.stepper.step(_make_system(q, p, m, empty))
        self.steps, self.guesses = self.steps + 1, self.guesses + 1
        momenta = end.get_data("momenta").block().values.squeeze(-1)
        return state.moved(end.positions.detach().to(state.positions), momenta.detach().to(state.momenta))


class BaseCalculator(Calculator):
    """A potential of this package as a calculator of ASE, for FlashMD's rescaling of the energy."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, potential: Potential) -> None:
        """Of one potential."""
        super().__init__()
        self.potential = potential

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        """Energy and forces."""
        super().calculate(atoms, properties, system_changes)
        state = al.PhaseState.from_atoms(self.atoms)
        self.results = {"energy": float(self.potential.energy(state))}
        if "forces" in properties:
            self.results["forces"] = self.potential.forces(state).detach().numpy()


class RescaledStep:
    """A step as FlashMD's ASE dynamics takes it with its own settings: velocities scaled to keep the energy."""

    def __init__(self, direct: Any, symplectic: Any, base: Potential, state: al.PhaseState, step_fs: float) -> None:
        """For the atoms of `state`."""
        atoms = state.to_atoms()
        atoms.calc = BaseCalculator(base)
        model = direct if symplectic is None else (direct, symplectic)
        self._dynamics = VelocityVerlet(atoms, timestep=step_fs * ase.units.fs, model=model, device="cpu")
        self._inner = FlashMDStep(direct, symplectic)
        self._dynamics.stepper = self._inner.stepper
        self._step = al.as_step(self._dynamics)
        self.symplectic = symplectic is not None
        self.steps = 0

    def __call__(self, state: al.PhaseState) -> al.PhaseState:
        """The state a step later."""
        self.steps += 1
        return self._step(state)

    @property
    def gradients(self) -> int:
        """Passes with a gradient so far."""
        return self._inner.gradients

    @property
    def residual(self) -> float:
        """What the solver was left with."""
        return self._inner.residual
