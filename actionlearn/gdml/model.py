"""The trained model as a potential, and its file."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from actionlearn import systems
from actionlearn.errors import DataError, InvalidInput, OutsideTraining, UnsupportedSystem
from actionlearn.files import write_atomically
from actionlearn.gdml.descriptor import PairDescriptor
from actionlearn.gdml.kernel import Expansion
from actionlearn.potentials.protocol import refuse_forward_mode
from actionlearn.state import PhaseState

FORMAT, VERSION = "actionlearn gdml", 1
UNITS = {"length": "angstrom", "energy": "eV"}

FURTHEST = 4.0
"""How far from the nearest training geometry a structure may be, in distances of the loneliest one to its nearest."""


class GDML:
    """Symmetric gradient-domain machine learning: a force field from a few hundred labelled geometries of one system.

        E(q) = c + Σ_n (1 + s_n) exp(−s_n) (z − z_n)·b_n,      F = −∂E/∂q

    a Gaussian process for the energy that has seen forces only: a Matérn kernel of inverse distances, summed over
    the symmetries of the system (`Expansion`). c puts its mean on that of the energy labels. It knows the atoms it was
    trained for, in their order, and nothing else: other numbers, orders or cells are refused. It is a potential like
    any other, batched and differentiable, made by `fit`, and given by the name of its file wherever a potential is.

    Far from all training geometries energies level off and forces vanish, whatever the atoms do there. So `forces` and
    `energy` raise `OutsideTraining` where a structure is further from the nearest of them than `FURTHEST` times what
    the loneliest training geometry is from its nearest neighbour.

    Use it in double precision: the terms of the sum are large and cancel, the more so the smaller the regularisation.
    At 1e-10 forces in single precision are off by tens of per cent, at 1e-6 by less than one.

    S. Chmiela et al., Science Advances 3, e1603015 (2017), arXiv:1611.04678; Nature Communications 9, 3887 (2018),
    arXiv:1802.09238; of crystals, H. Sauceda et al., Nature Communications 13, 3733 (2022), arXiv:2106.04229.
    """

    def __init__(
        self,
        system: PhaseState,
        positions: Tensor,
        coefficients: Tensor,
        *,
        permutations: Tensor,
        sigma: float,
        constant: float,
        report: dict[str, Any],
    ) -> None:
        """From what `fit` found: training `positions` and `coefficients` α, both (geometries, atoms, 3)."""
        self.numbers, self.cell, self.pbc = system.numbers, system.cell[0], system.pbc[0]
        self.positions, self.coefficients = positions, coefficients
        self.permutations, self.sigma, self.constant, self.report = permutations, sigma, constant, report
        self.descriptor = PairDescriptor(len(self.numbers), self.cell[self.pbc])
        x, slopes = self.descriptor(positions)
        pairs = self.descriptor.pair_permutations(permutations)
        self.expansion = Expansion.of(x, self.descriptor.push_forward(coefficients, slopes), sigma, pairs)
        self.reach = FURTHEST * self.expansion.loneliest(x) if len(x) > 1 else torch.inf
        self._parts = {(torch.float64, torch.device("cpu")): (self.descriptor, self.expansion)}

    # --- as a potential ---------------------------------------------------------------------------

    def energy(self, state: PhaseState) -> Tensor:
        """Potential energy per system, (systems,), eV."""
        descriptor, expansion = self._prepared(state)
        x, _ = descriptor(self._geometries(state))
        terms = expansion.terms(x)
        self._refuse_strangers(terms.s)
        return expansion.energies(terms) + self.constant

    def forces(self, state: PhaseState) -> Tensor:
        """−∂E/∂q, (atoms, 3), eV/Å, from the formula; differentiable."""
        refuse_forward_mode(state)
        descriptor, expansion = self._prepared(state)
        x, slopes = descriptor(self._geometries(state))
        terms = expansion.terms(x)
        self._refuse_strangers(terms.s)
        return -descriptor.pull_back(expansion.slopes(terms), slopes).reshape(state.positions.shape)

    def strangeness(self, state: PhaseState) -> Tensor:
        """Distance to the nearest training geometry, (systems,), as a part of what is refused."""
        descriptor, expansion = self._prepared(state)
        x, _ = descriptor(self._geometries(state))
        return expansion.terms(x).s.amin((-2, -1)) / self.reach

    def _prepared(self, state: PhaseState) -> tuple[PairDescriptor, Expansion]:
        """The tables in the precision of a state, once it is seen that they are for it."""
        self._check(state)
        q = state.positions
        key = q.dtype, q.device
        if key not in self._parts:
            self._parts[key] = self.descriptor.to(q), self.expansion.to(q)
        return self._parts[key]

    def _geometries(self, state: PhaseState) -> Tensor:
        return state.positions.view(state.n_systems, len(self.numbers), 3)

    def _check(self, state: PhaseState) -> None:
        n, systems = len(self.numbers), state.n_systems
        numbers = state.numbers.cpu()
        if numbers.numel() != n * systems or not torch.equal(numbers, self.numbers.repeat(systems)):
            raise UnsupportedSystem(
                f"this GDML was trained for {_formula(self.numbers)}, atoms in this order, the state holds "
                f"{_formula(numbers)} in {systems} system(s): order the atoms likewise, or train a model for them"
            )
        if state.positions.shape[1] != 3:
            raise UnsupportedSystem(f"a GDML is for three dimensions, the state has {state.positions.shape[1]}")
        if not bool((state.pbc.cpu() == self.pbc).all()):
            raise UnsupportedSystem(
                f"this GDML was trained with pbc={self.pbc.tolist()}, the state has {state.pbc.tolist()}: "
                "set pbc likewise"
            )
        if bool(self.pbc.any()):
            off = (state.cell.detach().cpu().to(torch.float64) - self.cell)[:, self.pbc].abs().max()
            if not off < 1e-6 * self.cell.abs().max():
                raise UnsupportedSystem(
                    f"this GDML was trained in the cell {self.cell.tolist()} Å, one of the state "
                    f"differs by {off:.2g} Å: it knows no other, train a model in this one"
                )

    def _refuse_strangers(self, s: Tensor) -> None:
        nearest = s.detach().amin((-2, -1))
        if not bool((nearest <= self.reach).all()):
            k = int((~(nearest <= self.reach)).nonzero()[0])
            raise OutsideTraining(
                f"system {k} is {FURTHEST * float(nearest[k]) / self.reach:.3g} times as far from the nearest training "
                f"geometry as these are from each other at most, expected up to {FURTHEST:g}: forces mean nothing "
                "there, shorten the step, lower the temperature, or train on such geometries too"
            )

    # --- as a file --------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the model to one file, whose name is then that of a potential."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "package_version": metadata.version("actionlearn"),
            "units": UNITS,
            **{name: getattr(self, name) for name in _CONTENT},
        }
        write_atomically(Path(path), lambda file: torch.save(content, file))

    @classmethod
    def load(cls, path: str | Path) -> GDML:
        """The model in a file."""
        path = Path(path)
        if not path.is_file():
            raise InvalidInput(f"there is no file {path}: give one that GDML.save wrote")
        try:
            content = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as problem:
            reason = (str(problem).splitlines() or [""])[0]
            raise DataError(f"{path} is no GDML, or damaged: {type(problem).__name__}: {reason}") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            came = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise DataError(f"{path} holds {came!r}, expected '{FORMAT}': give a file that GDML.save wrote")
        if content.get("version") != VERSION or content.get("units") != UNITS:
            raise DataError(
                f"{path} has version {content.get('version')} and units {content.get('units')}, this package reads "
                f"version {VERSION} in {UNITS}: train the model anew"
            )
        return cls._of(content)

    @classmethod
    def _of(cls, content: dict[str, Any]) -> GDML:
        q = content["positions"][0]
        system = PhaseState(
            q,
            torch.zeros_like(q),
            torch.ones(len(q), dtype=q.dtype),
            content["numbers"],
            content["cell"],
            content["pbc"],
        )
        given = {name: content[name] for name in ("permutations", "sigma", "constant", "report")}
        return cls(system, content["positions"], content["coefficients"], **given)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what it is made from, not with its tables."""
        return GDML._of, ({name: getattr(self, name) for name in _CONTENT},)


_CONTENT = (
    "numbers", "cell", "pbc", "positions", "coefficients", "permutations", "sigma", "constant", "report",
)  # fmt: skip


systems.FILE_FORMATS[FORMAT] = lambda path, atoms: GDML.load(path)


def _formula(numbers: Tensor) -> str:
    symbols = [chemical_symbols[z] for z in numbers[:40].tolist()]
    return " ".join(symbols) + (" …" if len(numbers) > 40 else "")
