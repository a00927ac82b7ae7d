"""Any ASE calculator as a potential."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import ase
import numpy as np
import torch
from torch import Tensor

from actionlearn.errors import CalculatorFailed, InvalidInput, NotDifferentiable, UnsupportedSystem
from actionlearn.state import PhaseState


@dataclasses.dataclass
class _Result:
    """What a calculator said about one configuration."""

    energy: float
    forces: np.ndarray
    dipole: np.ndarray | None


class ASEPotential:
    """Energy, forces and dipole of an ASE calculator, system by system.

    The last `remember` configurations of each system (numbers, positions, cell, pbc, compared bit by bit) are kept
    with their results: asking for the energy and then for the forces is one calculation, as is coming back to either
    end of a step. `calculations` counts how often the calculator ran.

    The energy is differentiable once, its gradient being minus the forces. Forces and dipole carry no derivative
    a calculator could give, so asking for one raises `NotDifferentiable` instead of passing zeros on.

    Given a factory (anything callable that returns a calculator), the calculator is made on first use and left out
    when the potential is pickled, so that each process makes its own.
    """

    def __init__(self, calculator: Any, remember: int = 8) -> None:
        """Wrap a calculator, or a factory of one, keeping the results of `remember` configurations per system."""
        is_factory = isinstance(calculator, type) or not hasattr(calculator, "get_potential_energy")
        if is_factory and not callable(calculator):
            raise InvalidInput(
                f"expected an ASE calculator or a function that makes one, got {type(calculator).__name__}"
            )
        if remember < 1:
            raise InvalidInput(f"remember must be at least one configuration, got {remember}")
        self.remember = remember
        self.calculations = 0
        self._factory: Callable[[], Any] | None = calculator if is_factory else None
        self._calculator: Any = None if is_factory else calculator
        self._results: OrderedDict[tuple[bytes, ...], _Result] = OrderedDict()

    def energy(self, state: PhaseState) -> Tensor:
        """Potential energy per system, (systems,), eV."""
        results = self._results_of(state)
        energies = state.positions.new_tensor([result.energy for result in results])
        return _Energy.apply(state.positions, energies, self._joined_forces(results, state), state.system, self.name)

    def forces(self, state: PhaseState) -> Tensor:
        """−∂V/∂q, (atoms, 3), eV/Å."""
        forces = self._joined_forces(self._results_of(state), state)
        return _WithoutDerivative.apply(state.positions, forces, self.name)

    def dipole(self, state: PhaseState) -> Tensor:
        """Electric dipole per system, (systems, 3), e·Å; `UnsupportedSystem` if the calculator has none."""
        results = self._results_of(state)
        for k, result in enumerate(results):
            if result.dipole is None:
                result.dipole = self._ask("get_dipole_moment", _atoms(state, k), k)
        dipoles = state.positions.new_tensor(np.array([result.dipole for result in results]))
        return _WithoutDerivative.apply(state.positions, dipoles, self.name)

    @property
    def calculator(self) -> Any:
        """The ASE calculator itself."""
        if self._calculator is None:
            assert self._factory is not None
            self._calculator = self._factory()
            if not hasattr(self._calculator, "get_potential_energy"):
                raise InvalidInput(
                    f"{self._factory!r} returned {type(self._calculator).__name__}, which is no ASE calculator"
                )
        return self._calculator

    @property
    def name(self) -> str:
        """The calculator's class, for messages."""
        return type(self.calculator).__name__

    def _results_of(self, state: PhaseState) -> list[_Result]:
        if state.positions.shape[1] != 3:
            raise UnsupportedSystem(
                f"ASE calculators take three dimensions, this system has {state.positions.shape[1]}"
            )
        results = [self._result_of(_atoms(state, k), k) for k in range(state.n_systems)]
        while len(self._results) > self.remember * state.n_systems:
            self._results.popitem(last=False)
        return results

    def _result_of(self, atoms: ase.Atoms, system: int) -> _Result:
        key = tuple(array.tobytes() for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc))
        if key in self._results:
            self._results.move_to_end(key)
            return self._results[key]
        self.calculations += 1
        # forces first: most calculators find the energy on the way, none the other way round
        forces = self._ask("get_forces", atoms, system)
        energy = self._ask("get_potential_energy", atoms, system)
        if forces.shape != atoms.positions.shape or energy.shape != ():
            raise CalculatorFailed(
                f"{self.name} returned forces of shape {forces.shape} and an energy of shape {energy.shape} for "
                f"{_describe(atoms, system)}: expected {atoms.positions.shape} and one number"
            )
        dipole = getattr(self.calculator, "results", {}).get("dipole")
        result = _Result(float(energy), forces.copy(), None if dipole is None else np.array(dipole, dtype=float))
        self._results[key] = result
        return result

    def _ask(self, getter: str, atoms: ase.Atoms, system: int) -> np.ndarray:
        """Run one query of the calculator; whatever goes wrong is named."""
        ask = getattr(self.calculator, getter)
        try:
            with torch.inference_mode(False), torch.enable_grad():  # many differentiate a network of their own
                answer = np.asarray(ask(atoms), dtype=float)
        except NotImplementedError as error:
            raise UnsupportedSystem(f"{self.name} cannot do this for {_describe(atoms, system)}: {error}") from error
        except Exception as error:
            elements = ", ".join(sorted(set(atoms.get_chemical_symbols())))
            advice = "" if self.calculations > 1 else f" (its first: check that its files and options fit {elements})"
            raise CalculatorFailed(
                f"{self.name} failed on {_describe(atoms, system)} in calculation {self.calculations}{advice}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not np.isfinite(answer).all():
            raise CalculatorFailed(
                f"{self.name} returned numbers that are not finite for {_describe(atoms, system)} in calculation "
                f"{self.calculations}: check the structure, atoms may be too close"
            )
        return answer

    def _joined_forces(self, results: list[_Result], state: PhaseState) -> Tensor:
        return torch.from_numpy(np.concatenate([result.forces for result in results])).to(state.positions)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what a factory can make again, and the remembered results."""
        kept = {**self.__dict__, "_results": OrderedDict()}
        if self._factory is not None:
            kept["_calculator"] = None
        return kept


class _Energy(torch.autograd.Function):
    """Energies that know their first derivative."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, energies: Tensor, forces: Tensor, system: Tensor, name: str) -> Tensor:
        ctx.save_for_backward(q, forces, system)
        ctx.name = name
        return energies

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        q, forces, system = ctx.saved_tensors
        forces = _WithoutDerivative.apply(q, forces, ctx.name)
        return -weight[system].unsqueeze(1) * forces, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        raise _no_forward_mode(ctx.name)


class _WithoutDerivative(torch.autograd.Function):
    """Values that depend on the positions in a way nobody can differentiate."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, values: Tensor, name: str) -> Tensor:
        ctx.name = name
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        raise NotDifferentiable(
            f"{ctx.name} is an ASE calculator: its forces and dipole have no derivatives. Detach the positions if "
            "none is needed, use finite differences, or differentiate through a potential fitted to its forces"
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        raise _no_forward_mode(ctx.name)


def _no_forward_mode(name: str) -> NotDifferentiable:
    return NotDifferentiable(
        f"{name} is an ASE calculator and takes no part in forward-mode differentiation: use finite differences"
    )


def _atoms(state: PhaseState, system: int) -> ase.Atoms:
    one = state.detach() if state.n_systems == 1 else state.detach().select(system)
    return one.to_atoms()


def _describe(atoms: ase.Atoms, system: int) -> str:
    return f"system {system} ({atoms.get_chemical_formula()}, {len(atoms)} atoms)"
