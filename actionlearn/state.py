"""The phase-space state: where the atoms are and how they move, for one system or a flat batch of systems."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import ase
import numpy as np
import torch
from ase.constraints import FixAtoms
from torch import Tensor

from actionlearn.errors import InvalidState, UnsupportedSystem
from actionlearn.units import BOLTZMANN


@dataclasses.dataclass(frozen=True, eq=False)
class PhaseState:
    """Positions, momenta and everything that stays put while they change.

    Several systems share one state: their atoms lie one after the other, `system` says which atom belongs
    to which. Toy systems may live in one or two dimensions; only three-dimensional ones can be periodic.

    | symbol | field       | shape            | unit           |
    |--------|-------------|------------------|----------------|
    | q      | `positions` | (atoms, dims)    | Å              |
    | p      | `momenta`   | (atoms, dims)    | sqrt(u·eV)     |
    | m      | `masses`    | (atoms,)         | u              |
    | Z      | `numbers`   | (atoms,)         |                |
    |        | `cell`      | (systems, 3, 3)  | Å, rows        |
    |        | `pbc`       | (systems, 3)     |                |
    |        | `fixed`     | (atoms,)         |                |
    |        | `system`    | (atoms,)         |                |

    Arrays given as numpy keep their dtype; momenta, masses and cell given as plain lists take that of the positions.
    Everything is validated once, here; `drift`, `kick` and `moved` make new states without looking again.
    """

    positions: Tensor
    momenta: Tensor
    masses: Tensor
    numbers: Tensor = None  # type: ignore[assignment]  # filled in __post_init__
    cell: Tensor = None  # type: ignore[assignment]
    pbc: Tensor = None  # type: ignore[assignment]
    fixed: Tensor = None  # type: ignore[assignment]
    system: Tensor = None  # type: ignore[assignment]
    inverse_masses: Tensor = dataclasses.field(init=False, repr=False)
    has_fixed: bool = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Fill what was left out, then validate."""
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        put("positions", torch.as_tensor(self.positions))
        q, device = self.positions, self.positions.device
        put("momenta", _real(self.momenta, q))
        put("masses", _real(self.masses, q))
        n = q.shape[0] if q.ndim == 2 else 0

        def default(value: Tensor | None, fill: Tensor, dtype: torch.dtype) -> Tensor:
            return fill if value is None else torch.as_tensor(value, device=device).to(dtype)

        put("system", default(self.system, torch.zeros(n, dtype=torch.int64, device=device), torch.int64))
        n_systems = int(self.system.max()) + 1 if self.system.numel() else 1
        if self.cell is not None:
            cell = _real(self.cell, q)
            if cell.shape[-2:] != (3, 3):
                raise InvalidState(
                    f"cell must have shape (3, 3) or (systems, 3, 3), rows in Å, not {tuple(cell.shape)}"
                )
            put("cell", cell.expand(n_systems, 3, 3) if cell.ndim == 2 else cell)
        else:
            put("cell", torch.zeros(n_systems, 3, 3, dtype=q.dtype, device=device))
        if self.pbc is not None:
            pbc = torch.as_tensor(self.pbc, device=device).bool()
            put("pbc", pbc.expand(n_systems, 3) if pbc.ndim <= 1 else pbc)
        else:
            put("pbc", torch.zeros(n_systems, 3, dtype=torch.bool, device=device))
        put("numbers", default(self.numbers, torch.zeros(n, dtype=torch.int64, device=device), torch.int64))
        put("fixed", default(self.fixed, torch.zeros(n, dtype=torch.bool, device=device), torch.bool))
        _validate(self)
        put("has_fixed", bool(self.fixed.any()))
        put("inverse_masses", torch.where(self.fixed, 0.0, 1.0 / self.masses).unsqueeze(1))

    # --- what a step does -------------------------------------------------------------------------

    def moved(self, positions: Tensor, momenta: Tensor) -> PhaseState:
        """The same systems at other positions and momenta, without validating again."""
        new = object.__new__(PhaseState)
        new.__dict__.update(self.__dict__)
        new.__dict__["positions"] = positions
        new.__dict__["momenta"] = momenta
        return new

    def in_cell(self, cell: Tensor, positions: Tensor) -> PhaseState:
        """The same systems in other cells, (systems, 3, 3), without validating again."""
        new = self.moved(positions, self.momenta)
        new.__dict__["cell"] = cell
        return new

    def drift(self, time: float) -> PhaseState:
        """Free flight, q + t·p/m; fixed atoms stay."""
        return self.moved(self.positions + (time * self.inverse_masses) * self.momenta, self.momenta)

    def kick(self, impulse: Tensor) -> PhaseState:
        """A change of momenta, p + Δp; fixed atoms take none."""
        if self.has_fixed:
            impulse = impulse.masked_fill(self.fixed.unsqueeze(1), 0.0)
        return self.moved(self.positions, self.momenta + impulse)

    def flip(self) -> PhaseState:
        """The momenta reversed: q, −p."""
        return self.moved(self.positions, -self.momenta)

    def detach(self) -> PhaseState:
        """Positions and momenta cut off from any gradient."""
        return self.moved(self.positions.detach(), self.momenta.detach())

    def ordinary(self) -> PhaseState:
        """This state, or a copy where tensors were made under `torch.inference_mode()`: those record no gradients."""
        names = ("positions", "momenta", "masses", "numbers", "cell", "pbc", "fixed", "system", "inverse_masses")
        mine = [name for name in names if getattr(self, name).is_inference()]
        if not mine:
            return self
        with torch.inference_mode(False):
            new = self.moved(self.positions, self.momenta)
            new.__dict__.update({name: getattr(self, name).clone() for name in mine})
        return new

    # --- sizes and sums ---------------------------------------------------------------------------

    @property
    def n_atoms(self) -> int:
        """Atoms in all systems together."""
        return self.positions.shape[0]

    @property
    def n_systems(self) -> int:
        """Systems in the batch."""
        return self.cell.shape[0]

    @property
    def atoms_per_system(self) -> Tensor:
        """Atoms in each system, (systems,)."""
        return torch.bincount(self.system, minlength=self.n_systems)

    @property
    def velocities(self) -> Tensor:
        """p/m, zero for fixed atoms."""
        return self.momenta * self.inverse_masses

    def sum_by_system(self, values: Tensor) -> Tensor:
        """Sum a quantity per atom (atoms, …) to one per system (systems, …)."""
        if self.n_systems == 1:
            return values.sum(0, keepdim=True)
        out = values.new_zeros((self.n_systems, *values.shape[1:]))
        return out.index_add(0, self.system, values)

    def kinetic_energy(self) -> Tensor:
        """Σ p²/2m of the atoms that move, one number per system, eV."""
        return self.sum_by_system((0.5 * self.inverse_masses * self.momenta**2).sum(1))

    def temperature_K(self, removed: int = 0) -> Tensor:
        """Kinetic temperature per system; `removed` counts the momenta that are held at zero."""
        dims = self.positions.shape[1]
        free = self.sum_by_system((~self.fixed).to(self.positions.dtype) * dims) - removed
        return 2.0 * self.kinetic_energy() / (free * BOLTZMANN)

    # --- batches ----------------------------------------------------------------------------------

    @classmethod
    def batch(cls, states: Sequence[PhaseState]) -> PhaseState:
        """Put several states, of any sizes, into one."""
        if not states:
            raise InvalidState("cannot batch an empty list of states: give at least one")
        counts = torch.tensor([s.n_systems for s in states])
        first = torch.cumsum(counts, 0) - counts
        cat = lambda name: torch.cat([getattr(s, name) for s in states])  # noqa: E731
        kinds = {(s.positions.dtype, s.positions.device, s.positions.shape[1]) for s in states}
        if len(kinds) > 1:
            raise InvalidState(
                f"cannot batch states of different dtype, device or dimension: {sorted(map(str, kinds))}"
            )
        return cls(
            **{name: cat(name) for name in ("positions", "momenta", "masses", "numbers", "cell", "pbc", "fixed")},
            system=torch.cat([s.system + int(k) for s, k in zip(states, first, strict=True)]),
        )

    def unbatch(self) -> list[PhaseState]:
        """The single systems of a batch, in order."""
        return [self.select(k) for k in range(self.n_systems)]

    def select(self, index: int) -> PhaseState:
        """One system of a batch."""
        mine = self.system == index
        return PhaseState(
            positions=self.positions[mine],
            momenta=self.momenta[mine],
            masses=self.masses[mine],
            numbers=self.numbers[mine],
            cell=self.cell[index : index + 1],
            pbc=self.pbc[index : index + 1],
            fixed=self.fixed[mine],
        )

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> PhaseState:
        """The same state in another precision or on another device; the only way either changes."""
        dtype = dtype or self.positions.dtype
        device = device or self.positions.device
        real = {name: getattr(self, name).to(device, dtype) for name in ("positions", "momenta", "masses", "cell")}
        other = {name: getattr(self, name).to(device) for name in ("numbers", "pbc", "fixed", "system")}
        return PhaseState(**real, **other)

    # --- ASE --------------------------------------------------------------------------------------

    @classmethod
    def from_atoms(
        cls, atoms: ase.Atoms, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> PhaseState:
        """The state of an `ase.Atoms`; `FixAtoms` becomes the fixed mask, other constraints are refused."""
        fixed = np.zeros(len(atoms), dtype=bool)
        for constraint in atoms.constraints:
            if not isinstance(constraint, FixAtoms):
                name = type(constraint).__name__
                raise UnsupportedSystem(
                    f"constraint {name} is not supported, only FixAtoms is: remove it from the atoms"
                )
            fixed[constraint.get_indices()] = True

        def real(array: np.ndarray) -> Tensor:
            return torch.tensor(np.asarray(array), dtype=dtype, device=device)

        return cls(
            positions=real(atoms.get_positions()),
            momenta=real(atoms.get_momenta()),
            masses=real(atoms.get_masses()),
            numbers=torch.tensor(atoms.numbers, dtype=torch.int64, device=device),
            cell=real(atoms.cell.array).unsqueeze(0),
            pbc=torch.tensor(np.asarray(atoms.pbc), device=device).unsqueeze(0),
            fixed=torch.tensor(fixed, device=device),
        )

    def to_atoms(self, like: ase.Atoms | None = None) -> ase.Atoms:
        """This state (one system) as `ase.Atoms`; `like` supplies what a state does not hold, such as tags and info."""
        if self.n_systems != 1:
            raise InvalidState(f"to_atoms takes one system, this state holds {self.n_systems}: use unbatch() first")
        if like is not None and not np.array_equal(like.numbers, self.numbers.cpu().numpy()):
            raise InvalidState("to_atoms(like=…): the template holds other atomic numbers than this state")

        def array(tensor: Tensor) -> np.ndarray:
            return tensor.detach().cpu().numpy()

        if like is None:
            atoms = ase.Atoms(
                numbers=array(self.numbers), cell=array(self.cell[0]), pbc=array(self.pbc[0]), masses=array(self.masses)
            )
            if self.has_fixed:
                atoms.set_constraint(FixAtoms(mask=array(self.fixed)))
        else:
            atoms = like.copy()
            atoms.set_cell(array(self.cell[0]))
            atoms.set_masses(array(self.masses))
        atoms.set_positions(array(self.positions), apply_constraint=False)
        atoms.set_momenta(array(self.momenta), apply_constraint=False)
        return atoms


def _real(values: Any, like: Tensor) -> Tensor:
    """Tensors and arrays as they are; plain numbers, which have no precision of their own, in that of `like`."""
    if isinstance(values, Tensor | np.ndarray):
        return torch.as_tensor(values)
    if hasattr(values, "__array__"):  # such as the cell of ase.Atoms
        return torch.as_tensor(np.asarray(values))
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)


def _validate(state: PhaseState) -> None:
    """Raise `InvalidState` on the first thing that cannot be simulated."""
    q, m = state.positions, state.masses
    if q.ndim != 2 or q.shape[0] == 0 or q.shape[1] not in (1, 2, 3):
        raise InvalidState(f"positions must have shape (atoms, 1 to 3) with at least one atom, not {tuple(q.shape)}")
    n = q.shape[0]
    expected = {
        "momenta": tuple(q.shape),
        "masses": (n,),
        "numbers": (n,),
        "fixed": (n,),
        "system": (n,),
        "pbc": (state.cell.shape[0], 3),
    }
    for name, shape in expected.items():
        came = tuple(getattr(state, name).shape)
        if came != shape:
            raise InvalidState(f"{name} must have shape {shape} to match the positions, not {came}")
    if not q.dtype.is_floating_point:
        raise InvalidState(f"positions must be floating point, not {q.dtype}: convert them, e.g. to float64")
    for name in ("momenta", "masses", "cell"):
        tensor = getattr(state, name)
        if tensor.dtype != q.dtype or tensor.device != q.device:
            raise InvalidState(
                f"{name} are {tensor.dtype} on {tensor.device}, positions {q.dtype} on {q.device}: "
                "use one dtype and device, PhaseState.to(dtype, device) converts a whole state"
            )
    for name in ("positions", "momenta", "masses", "cell"):
        bad = ~torch.isfinite(getattr(state, name).detach())
        if bad.any():
            where = bad.nonzero()[0].tolist()[0]
            what = "system" if name == "cell" else "atom"
            raise InvalidState(f"{name} are not finite, first at {what} {where}: check the structure that was read")
    if (m <= 0).any():
        k = int((m <= 0).nonzero()[0])
        raise InvalidState(
            f"mass of atom {k} is {float(m[k])} u: masses must be positive, set them before making a state"
        )
    if state.cell.shape[0] != int(state.system.max()) + 1 or (state.system.diff() < 0).any() or state.system[0] != 0:
        raise InvalidState("system must number the systems 0, 1, 2 … in order, with one cell each")
    if (state.system.diff() > 1).any():
        raise InvalidState("system skips a number: every system of a batch needs at least one atom")
    if q.shape[1] != 3 and state.pbc.any():
        raise InvalidState(f"only three-dimensional systems can be periodic, these have {q.shape[1]} dimensions")
    for k in torch.nonzero(state.pbc.any(1)).flatten().tolist():
        rows = state.cell[k][state.pbc[k]]
        volume = float(torch.linalg.det(rows @ rows.T).clamp_min(0).sqrt())
        if volume < 1e-6:
            raise InvalidState(
                f"the periodic cell vectors of system {k} span no volume ({volume:.1e}): set a cell, or pbc=False"
            )
