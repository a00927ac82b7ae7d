"""Flexible water: the SPC/Fw model with damped, shifted and smoothly ended electrostatics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from actionlearn.errors import InvalidInput
from actionlearn.neighbours import Edges, NeighbourList
from actionlearn.potentials.protocol import Potential
from actionlearn.potentials.water_molecules import OXYGEN, WaterMolecules, find_water
from actionlearn.state import PhaseState
from actionlearn.units import COULOMB, KCAL_PER_MOL

BOND, BOND_STIFFNESS = 1.012, 1059.162 * KCAL_PER_MOL
ANGLE, ANGLE_STIFFNESS = math.radians(113.24), 75.90 * KCAL_PER_MOL
OXYGEN_CHARGE, HYDROGEN_CHARGE = -0.82, 0.41
SIGMA, EPSILON = 3.165492, 0.1554253 * KCAL_PER_MOL

BLOCK = 8192
"""Pairs that are worked on at once: large boxes are faster in pieces that stay in the cache."""


class SPCFw:
    """Three point charges per molecule on harmonic bonds and a harmonic angle.

        V = Σ_mol [½k_b(r₁ − b)² + ½k_b(r₂ − b)² + ½k_a(θ − θ₀)²] + Σ_OO V_LJ(r)·s(r) + Σ_ij C·q_i·q_j·u(r)·s(r)
        V_LJ = 4ε[(σ/r)¹² − (σ/r)⁶]
        u = v(r) − v(R) − v'(R)·(r − R),      v(r) = erfc(αr)/r

    The sums over pairs run over different molecules, images of an atom's own molecule included, as many as lie
    within R: the box may be of any size. The charges are damped and shifted in energy and force; as that leaves a
    jump in the second derivative at R, the switch s falls from one to zero with two continuous derivatives between
    `cutoff[0]` and R = `cutoff[1]` and makes V twice continuously differentiable. Excluded pairs are left out
    altogether: an isolated molecule feels its bonds and angle alone.

    | symbol  | value                      | symbol | value                 |
    |---------|----------------------------|--------|-----------------------|
    | b, k_b  | 1.012 Å, 1059.162 kcal/mol/Å² | q_O, q_H | −0.82, +0.41     |
    | θ₀, k_a | 113.24°, 75.90 kcal/mol/rad² | σ, ε | 3.165492 Å, 0.1554253 kcal/mol |

    Model: Y. Wu, H. L. Tepper, G. A. Voth, J. Chem. Phys. 124, 024503 (2006). Electrostatics: C. J. Fennell,
    J. D. Gezelter, J. Chem. Phys. 124, 234104 (2006), eqs. 18 and 19; α and R must go together, αR ≈ 1.8.
    """

    def __init__(self, cutoff: tuple[float, float] = (8.0, 9.0), damping_per_A: float = 0.2, skin: float = 0.5) -> None:
        """The switch acts between the two radii of `cutoff`, Å; α is `damping_per_A`."""
        inner, outer = cutoff
        if not (0.0 < inner < outer < math.inf and damping_per_A >= 0.0):
            raise InvalidInput(
                f"cutoff must be (start, end) with 0 < start < end, and the damping not negative; "
                f"got {cutoff} Å and {damping_per_A} 1/Å"
            )
        self.cutoff = cutoff
        self.damping_per_A = damping_per_A
        self._neighbours = NeighbourList(outer, skin, half=True)
        self._edges: Edges | None = None
        self._numbers = torch.empty(0, dtype=torch.int64)
        self._water: _Water | None = None
        alpha = damping_per_A
        self._gauss = 2.0 * alpha / math.sqrt(math.pi)
        at_end = math.erfc(alpha * outer) / outer
        self._end_slope = -(at_end + self._gauss * math.exp(-((alpha * outer) ** 2))) / outer
        self._end_value = at_end - self._end_slope * outer

    def energy(self, state: PhaseState) -> Tensor:
        """Potential energy per system, (systems,), eV."""
        return self._energy_inside(state) + self._energy_between(state)

    def forces(self, state: PhaseState) -> Tensor:
        """−∂V/∂q, (atoms, 3), eV/Å."""
        return self._forces_between(state, onto=self._forces_inside(state))

    def parts(self) -> tuple[Potential, Potential]:
        """What acts inside molecules, stiff and cheap, and what acts between them: the fast and slow of r-RESPA."""
        return _Part(self._energy_inside, self._forces_inside), _Part(self._energy_between, self._forces_between)

    def _energy_inside(self, state: PhaseState) -> Tensor:
        water = self._look_up(state)
        return state.sum_by_system(water.per_molecule(_internal_energy(water.molecules.bonds(state.positions))))

    def _energy_between(self, state: PhaseState) -> Tensor:
        total = state.positions.new_zeros(state.n_systems)
        for pairs in self._look_up(state).blocks:
            r = pairs.edges.vectors(state.positions).norm(dim=1)
            V = self._pair_energy(pairs, r)[0] * self._switch(r)[0]
            if state.n_systems == 1:
                total = total + V.sum()
            else:
                total = total.index_add(0, state.system[pairs.edges.centre], V)
        return total

    def _forces_inside(self, state: PhaseState) -> Tensor:
        water = self._look_up(state)
        on_hydrogens = _internal_forces(water.molecules.bonds(state.positions))
        F = water.per_molecule(-on_hydrogens.sum(1))
        return F.index_add(0, water.molecules.hydrogens.reshape(-1), on_hydrogens.reshape(-1, 3))

    def _forces_between(self, state: PhaseState, onto: Tensor | None = None) -> Tensor:
        F = torch.zeros_like(state.positions) if onto is None else onto
        for pairs in self._look_up(state).blocks:
            D = pairs.edges.vectors(state.positions)
            r = D.norm(dim=1)
            (V, dV), (s, ds) = self._pair_energy(pairs, r), self._switch(r)
            pull = ((dV * s + V * ds) / r).unsqueeze(1) * D
            F = F.index_add(0, pairs.edges.centre, pull).index_add(0, pairs.edges.other, -pull)
        return F

    def dipole(self, state: PhaseState) -> Tensor:
        """Dipole moment of the point charges with every molecule made whole, (systems, 3), e·Å."""
        water = self._look_up(state)
        moments = HYDROGEN_CHARGE * water.molecules.bonds(state.positions).sum(1)
        return state.sum_by_system(water.per_molecule(moments))

    def molecules(self, state: PhaseState) -> WaterMolecules:
        """Which atoms form molecules."""
        return self._look_up(state).molecules

    def _switch(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """The switch s and ds/dr."""
        inner, outer = self.cutoff
        slope = 1.0 / (outer - inner)
        t = (outer * slope - slope * r).clamp(0.0, 1.0)
        square = t * t
        return square * t * (10.0 + t * (6.0 * t - 15.0)), (-30.0 * slope) * (t - square) ** 2

    def _coulomb(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Damped shifted u and du/dr, for unit charges and without the switch."""
        x = self.damping_per_A * r
        v = torch.erfc(x) / r
        u = v - (self._end_value + self._end_slope * r)
        return u, -(v + self._gauss * torch.exp(-x * x)) / r - self._end_slope

    def _pair_energy(self, pairs: _Pairs, r: Tensor) -> tuple[Tensor, Tensor]:
        """Everything between two atoms but the switch, and its derivative."""
        u, du = self._coulomb(r)
        V, dV = pairs.charges * u, pairs.charges * du
        if pairs.oxygens:
            lj, dlj = _lennard_jones(r)
            V, dV = V + lj, dV + dlj
        return V, dV

    def _look_up(self, state: PhaseState) -> _Water:
        """Molecules and pairs; searched anew with the neighbours only."""
        edges = self._neighbours(state)
        if self._water is None or edges is not self._edges or not torch.equal(self._numbers, state.numbers):
            self._water = _Water(edges, state)
            self._edges, self._numbers = edges, state.numbers.clone()
        return self._water


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """One of two sums that make a potential."""

    energy: Callable[[PhaseState], Tensor]
    forces: Callable[[PhaseState], Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class _Pairs:
    """Some pairs of different molecules, with C·q_i·q_j; either all or none join two oxygens."""

    edges: Edges
    charges: Tensor
    oxygens: bool


class _Water:
    """The molecules of a state and the pairs between them, in blocks that fit into a processor's cache."""

    def __init__(self, edges: Edges, state: PhaseState) -> None:
        self.molecules = find_water(state)
        self._n_atoms = state.n_atoms
        is_oxygen = state.numbers == OXYGEN
        q = torch.where(is_oxygen, OXYGEN_CHARGE, HYDROGEN_CHARGE).to(state.positions)
        between = ~self.molecules.holds(edges)
        both = is_oxygen[edges.centre] & is_oxygen[edges.other]
        self.blocks = []
        for oxygens, chosen in ((True, between & both), (False, between & ~both)):
            for block in chosen.nonzero().flatten().split(BLOCK):
                part = Edges(edges.centre[block], edges.other[block], edges.shifts[block], edges.offsets[block])
                self.blocks.append(_Pairs(part, COULOMB * q[part.centre] * q[part.other], oxygens))

    def per_molecule(self, values: Tensor) -> Tensor:
        """A quantity per molecule, written to its oxygen."""
        return values.new_zeros((self._n_atoms, *values.shape[1:])).index_add(0, self.molecules.oxygen, values)


def _lennard_jones(r: Tensor) -> tuple[Tensor, Tensor]:
    """4ε[(σ/r)¹² − (σ/r)⁶] and its derivative."""
    x6 = (SIGMA * SIGMA / (r * r)) ** 3
    return 4.0 * EPSILON * x6 * (x6 - 1.0), -24.0 * EPSILON * x6 * (2.0 * x6 - 1.0) / r


def _internal_energy(bonds: Tensor) -> Tensor:
    """Bonds and angle, (molecules,)."""
    r = bonds.norm(dim=2)
    cos, sin, _ = _angle(bonds, r)
    bend = torch.atan2(sin, cos) - ANGLE
    return 0.5 * BOND_STIFFNESS * (r - BOND).square().sum(1) + 0.5 * ANGLE_STIFFNESS * bend.square()


def _internal_forces(bonds: Tensor) -> Tensor:
    """Forces on the hydrogens, −k_b(r − b)·e_r − k_a(θ − θ₀)·∂θ/∂q, with ∂θ/∂q₁ = (cos θ·e₁ − e₂)/(r₁·sin θ)."""
    r = bonds.norm(dim=2)
    cos, sin, e = _angle(bonds, r)
    bend = torch.atan2(sin, cos) - ANGLE
    dtheta = (cos[:, None, None] * e - e.flip(1)) / (r * sin.unsqueeze(1)).unsqueeze(2)
    return -BOND_STIFFNESS * (r - BOND).unsqueeze(2) * e - ANGLE_STIFFNESS * bend[:, None, None] * dtheta


def _angle(bonds: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosine and sine of the angle, and the unit vectors that span it."""
    e = bonds / r.unsqueeze(2)
    return (e[:, 0] * e[:, 1]).sum(1), torch.linalg.cross(e[:, 0], e[:, 1]).norm(dim=1), e
