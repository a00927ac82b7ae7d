"""Toy potentials: small systems whose motion is known exactly or studied to death.

Every one gives an energy per system, takes a batch at once and is differentiable to any order; the forces are
written out, so that long trajectories are cheap and forward-mode derivatives pass through.
"""

from __future__ import annotations

import torch
from torch import Tensor

from actionlearn.errors import InvalidInput, UnsupportedSystem
from actionlearn.state import PhaseState


class Harmonic:
    """Coupled harmonic modes about a centre: V = ½ (q − c)ᵀ K (q − c).

    | symbol | argument | shape                      | unit |
    |--------|----------|----------------------------|------|
    | K      | `matrix` | (coordinates, coordinates) | eV/Å²|
    | c      | `centre` | (atoms, dims)              | Å    |

    The coordinates are those of one system, flattened; every system of a batch has this many. The masses are the
    state's, so the frequencies are the square roots of the eigenvalues of M^(−1/2) K M^(−1/2).
    """

    def __init__(self, matrix: Tensor, centre: Tensor | None = None) -> None:
        """Take the Hessian, symmetric, and optionally where it is centred (the origin otherwise)."""
        matrix = torch.as_tensor(matrix)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InvalidInput(f"the harmonic matrix must be square, not {tuple(matrix.shape)}")
        if not torch.allclose(matrix, matrix.T, rtol=1e-10, atol=1e-12):
            raise InvalidInput("the harmonic matrix is not symmetric: give the Hessian, e.g. (K + K.T)/2")
        if centre is not None and centre.numel() != matrix.shape[0]:
            raise InvalidInput(f"the centre has {centre.numel()} coordinates, the matrix {matrix.shape[0]}")
        self.matrix = matrix
        self.centre = None if centre is None else torch.as_tensor(centre).reshape(-1)

    @classmethod
    def from_frequencies(cls, frequencies: Tensor, masses: Tensor | float = 1.0) -> Harmonic:
        """Independent modes, one per coordinate, K = diag(m·ω²)."""
        omega = torch.atleast_1d(torch.as_tensor(frequencies))
        return cls(torch.diag(masses * omega**2))

    def displacements(self, state: PhaseState) -> Tensor:
        """Displacements q − c of every system, (systems, coordinates)."""
        wanted = self.matrix.shape[0]
        q = state.positions
        if q.numel() != wanted * state.n_systems or (state.atoms_per_system * q.shape[1] != wanted).any():
            raise UnsupportedSystem(
                f"this harmonic potential is for systems of {wanted} coordinates each, "
                f"the state holds {(state.atoms_per_system * q.shape[1]).tolist()}"
            )
        u = q.reshape(state.n_systems, wanted)
        return u if self.centre is None else u - self.centre.to(q)

    def energy(self, state: PhaseState) -> Tensor:
        """½ uᵀKu, (systems,)."""
        u = self.displacements(state)
        return 0.5 * ((u @ self.matrix.to(u)) * u).sum(1)

    def forces(self, state: PhaseState) -> Tensor:
        """−Ku, (atoms, dims)."""
        u = self.displacements(state)
        return -(u @ self.matrix.to(u)).reshape(state.positions.shape)


class Morse:
    """A bond that can break: V = D (1 − exp(−a(r − r₀)))².

    | symbol | argument      | unit |
    |--------|---------------|------|
    | D      | `depth`       | eV   |
    | a      | `width`       | 1/Å  |
    | r₀     | `equilibrium` | Å    |

    One atom in one dimension moves along r itself; two atoms, in any dimension, are bound by their distance r.
    """

    def __init__(self, depth: float = 1.0, width: float = 1.0, equilibrium: float = 0.0) -> None:
        """Take the well's depth, its inverse width and where its minimum lies."""
        if not (depth > 0 and width > 0):
            raise InvalidInput(f"a Morse well needs positive depth and width, got {depth} eV and {width} 1/Å")
        self.depth = depth
        self.width = width
        self.equilibrium = equilibrium

    def _distances(self, state: PhaseState) -> tuple[Tensor, Tensor]:
        """The coordinate r of every system and its gradient in the positions of one system."""
        q, n = state.positions, state.n_systems
        if q.shape == (n, 1):
            return q[:, 0], torch.ones_like(q).unsqueeze(1)
        if (state.atoms_per_system != 2).any():
            raise UnsupportedSystem(
                "a Morse bond is one atom in one dimension or two atoms, this state has "
                f"{state.atoms_per_system.tolist()} atoms per system in {q.shape[1]} dimensions"
            )
        pair = q.reshape(n, 2, -1)
        d = pair[:, 1] - pair[:, 0]
        r = d.square().sum(1).sqrt()
        e = d / r.unsqueeze(1)
        return r, torch.stack([-e, e], 1)

    def energy(self, state: PhaseState) -> Tensor:
        """D (1 − exp(−a(r − r₀)))², (systems,)."""
        r, _ = self._distances(state)
        return self.depth * (1.0 - torch.exp(-self.width * (r - self.equilibrium))) ** 2

    def forces(self, state: PhaseState) -> Tensor:
        """−2aD (1 − x) x ∂r/∂q with x = exp(−a(r − r₀))."""
        r, dr_dq = self._distances(state)
        x = torch.exp(-self.width * (r - self.equilibrium))
        f = -2.0 * self.width * self.depth * (1.0 - x) * x
        return (f[:, None, None] * dr_dq).reshape(state.positions.shape)


class DoubleWell:
    """Two wells at ±x₀ with a barrier B between them, along every coordinate: V = Σ B ((x/x₀)² − 1)²."""

    def __init__(self, barrier: float = 1.0, distance: float = 1.0) -> None:
        """Take the barrier B in eV and the distance x₀ of the wells from its top in Å."""
        if not (barrier > 0 and distance > 0):
            raise InvalidInput(f"a double well needs positive barrier and distance, got {barrier} eV and {distance} Å")
        self.barrier = barrier
        self.distance = distance

    def energy(self, state: PhaseState) -> Tensor:
        """Σ B ((x/x₀)² − 1)², (systems,)."""
        y = state.positions / self.distance
        return state.sum_by_system((self.barrier * (y**2 - 1.0) ** 2).sum(1))

    def forces(self, state: PhaseState) -> Tensor:
        """−4B/x₀ · y (y² − 1) with y = x/x₀."""
        y = state.positions / self.distance
        return (-4.0 * self.barrier / self.distance) * y * (y**2 - 1.0)


class HenonHeiles:
    """The Hénon-Heiles system, regular at low energy, chaotic near escape: V = ½k(x² + y²) + λ(x²y − y³/3).

    | symbol | argument    | unit  |
    |--------|-------------|-------|
    | k      | `stiffness` | eV/Å² |
    | λ      | `coupling`  | eV/Å³ |

    Escape is possible above E = k³/(6λ²); with k = λ = 1 that is 1/6, chaos is widespread from about 1/8.
    """

    def __init__(self, stiffness: float = 1.0, coupling: float = 1.0) -> None:
        """Take the harmonic stiffness and the cubic coupling."""
        self.stiffness = stiffness
        self.coupling = coupling

    def _coordinates(self, state: PhaseState) -> tuple[Tensor, Tensor]:
        if state.positions.shape[1] != 2:
            raise UnsupportedSystem(f"Hénon-Heiles lives in 2 dimensions, this state in {state.positions.shape[1]}")
        x, y = state.positions.unbind(1)
        return x, y

    def energy(self, state: PhaseState) -> Tensor:
        """½k(x² + y²) + λ(x²y − y³/3), summed over the atoms of a system."""
        x, y = self._coordinates(state)
        return state.sum_by_system(0.5 * self.stiffness * (x**2 + y**2) + self.coupling * (x**2 * y - y**3 / 3.0))

    def forces(self, state: PhaseState) -> Tensor:
        """−kx − 2λxy and −ky − λ(x² − y²)."""
        x, y = self._coordinates(state)
        k, c = self.stiffness, self.coupling
        return torch.stack([-k * x - 2.0 * c * x * y, -k * y - c * (x**2 - y**2)], 1)


class Kepler:
    """Independent bodies around a fixed centre at the origin, in two or three dimensions: V = −k/r.

    `strength` is k in eV·Å. A body of mass m on an orbit of semi-major axis a has energy −k/2a and
    period 2π sqrt(m a³/k).
    """

    def __init__(self, strength: float = 1.0) -> None:
        """Take the strength k of the attraction."""
        if strength <= 0:
            raise InvalidInput(f"the Kepler strength must be positive (attraction), got {strength} eV·Å")
        self.strength = strength

    def _radii(self, state: PhaseState) -> Tensor:
        if state.positions.shape[1] not in (2, 3):
            raise UnsupportedSystem(f"Kepler orbits need 2 or 3 dimensions, this state has {state.positions.shape[1]}")
        return state.positions.square().sum(1).sqrt()

    def energy(self, state: PhaseState) -> Tensor:
        """−k/r, summed over the bodies of a system."""
        return state.sum_by_system(-self.strength / self._radii(state))

    def forces(self, state: PhaseState) -> Tensor:
        """−k q/r³."""
        return -self.strength * state.positions / self._radii(state).unsqueeze(1) ** 3


class GravitationalThreeBody:
    """Three bodies that attract each other: V = −Σ_{i<j} G m_i m_j / r_ij, masses from the state.

    `gravity` is G in eV·Å/u².
    """

    def __init__(self, gravity: float = 1.0) -> None:
        """Take the gravitational constant."""
        self.gravity = gravity

    def _pairs(self, state: PhaseState) -> tuple[Tensor, Tensor]:
        """r_j − r_i for the pairs 01, 12, 20 and G m_i m_j."""
        if (state.atoms_per_system != 3).any():
            raise UnsupportedSystem(
                f"the three-body problem has 3 bodies per system, this state {state.atoms_per_system.tolist()}"
            )
        q = state.positions.reshape(state.n_systems, 3, -1)
        m = state.masses.reshape(-1, 3)
        return q.roll(-1, 1) - q, self.gravity * m * m.roll(-1, 1)

    def energy(self, state: PhaseState) -> Tensor:
        """−Σ G m_i m_j / r_ij, (systems,)."""
        d, gmm = self._pairs(state)
        return -(gmm / d.square().sum(2).sqrt()).sum(1)

    def forces(self, state: PhaseState) -> Tensor:
        """Σ_j G m_i m_j (q_j − q_i)/r_ij³."""
        d, gmm = self._pairs(state)
        pull = (gmm * d.square().sum(2) ** -1.5).unsqueeze(2) * d
        return (pull - pull.roll(1, 1)).reshape(state.positions.shape)
