"""Exact flows of the test problems: what a perfect step of any length would do.

A flow is a callable state → state over a fixed time (ASE units), like any step. Three are closed forms; the
reference flow integrates any smooth torch potential with an eighth-order method to near machine precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchdiffeq import odeint

from actionlearn.errors import InvalidInput, NotConverged, UnsupportedSystem
from actionlearn.potentials.protocol import Potential
from actionlearn.potentials.toys import Harmonic, Kepler, Morse
from actionlearn.state import PhaseState

Flow = Callable[[PhaseState], PhaseState]


def harmonic_flow(potential: Harmonic, time: float) -> Flow:
    """Rotation of every mode: y(t) = cos(ωt)·y + sin(ωt)/ω·ẏ in mass-weighted modes, y = Uᵀ M^½ (q − c).

    U and ω² are the eigenvectors and eigenvalues of M^(−½) K M^(−½). Modes with ω² = 0 fly freely, modes with
    ω² < 0 fall off exponentially.
    """

    def flow(state: PhaseState) -> PhaseState:
        _refuse_fixed(state)
        n, dims = state.n_systems, state.positions.shape[1]
        u = potential.displacements(state)
        root_m = state.masses.sqrt().repeat_interleave(dims).reshape(n, -1)
        K = potential.matrix.to(u) / (root_m.unsqueeze(2) * root_m.unsqueeze(1))
        squares, U = torch.linalg.eigh(K)
        cos, sinc, slope = _oscillation(squares, time)
        y = torch.einsum("sck,sc->sk", U, u * root_m)
        v = torch.einsum("sck,sc->sk", U, state.momenta.reshape(n, -1) / root_m)
        y, v = cos * y + sinc * v, slope * y + cos * v
        q_shift = torch.einsum("sck,sk->sc", U, y) / root_m - u
        p = torch.einsum("sck,sk->sc", U, v) * root_m
        return state.moved(state.positions + q_shift.reshape(state.positions.shape), p.reshape(state.momenta.shape))

    return flow


def _oscillation(squares: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """Give cos ωt, sin(ωt)/ω and −ω sin ωt for ω² of any sign; a mode slower than roundoff counts as free."""
    free = squares.abs() <= 1e-14 * squares.abs().amax(1, keepdim=True)
    omega = torch.where(free, 1.0, squares.abs()).sqrt()
    falls = squares < 0
    cos = torch.where(falls, torch.cosh(omega * t), torch.cos(omega * t))
    sin = torch.where(falls, torch.sinh(omega * t), torch.sin(omega * t))
    cos = torch.where(free, 1.0, cos)
    slope = torch.where(free, 0.0, torch.where(falls, 1.0, -1.0) * omega * sin)
    return cos, torch.where(free, t, sin / omega), slope


def morse_flow(potential: Morse, time: float) -> Flow:
    """Bound motion in a Morse well, for one atom in one dimension.

    In u = exp(a(r − r₀)), energy conservation u̇² = (2a²/m)·(−(D − E)u² + 2Du − D) is that of an oscillator:
    u(t) = c + (u − c)·cos ωt + u̇/ω·sin ωt with c = D/(D − E), ω² = 2a²(D − E)/m.
    """

    def flow(state: PhaseState) -> PhaseState:
        _refuse_fixed(state)
        if state.positions.shape != (state.n_systems, 1):
            raise UnsupportedSystem("the Morse flow is for one atom per system in one dimension: use reference_flow")
        a, D = potential.width, potential.depth
        m, q, p = state.masses, state.positions[:, 0], state.momenta[:, 0]
        E = potential.energy(state) + state.kinetic_energy()
        if (E >= D).any():
            raise UnsupportedSystem(
                f"the Morse flow is for bound states, E < D = {D:g} eV, this one has E = {E.max():g} eV: "
                "use reference_flow"
            )
        omega = a * (2.0 * (D - E) / m).sqrt()
        c = D / (D - E)
        u = torch.exp(a * (q - potential.equilibrium))
        du = a * u * p / m
        cos, sin = torch.cos(omega * time), torch.sin(omega * time)
        u, du = c + (u - c) * cos + du / omega * sin, du * cos - omega * (u - c) * sin
        return state.moved((potential.equilibrium + u.log() / a).unsqueeze(1), (m * du / (a * u)).unsqueeze(1))

    return flow


def kepler_flow(potential: Kepler, time: float) -> Flow:
    """Elliptic motion by Kepler's equation, solved for the change x of the eccentric anomaly.

        nt = x − (1 − r/a)·sin x + (q·v/√(μa))·(1 − cos x),      μ = k/m, n = √(μ/a³)
        q(t) = f·q + g·v,      v(t) = ḟ·q + ġ·v

    with the Lagrange coefficients f = 1 − a/r·(1 − cos x), g = t − (x − sin x)/n, ḟ = −√(μa)/(r r')·sin x,
    ġ = 1 − a/r'·(1 − cos x). The orbit must be bound (E < 0).
    """

    def flow(state: PhaseState) -> PhaseState:
        _refuse_fixed(state)
        q, m = state.positions, state.masses.unsqueeze(1)
        v = state.momenta / m
        mu = potential.strength / m
        r = q.square().sum(1, keepdim=True).sqrt()
        binding = 2.0 * mu / r - v.square().sum(1, keepdim=True)
        if (binding <= 0).any():
            raise UnsupportedSystem("the Kepler flow is for bound orbits, E < 0: use reference_flow for the others")
        a = mu / binding
        n = (mu / a**3).sqrt()
        ec, es = 1.0 - r / a, (q * v).sum(1, keepdim=True) / (mu * a).sqrt()
        x = _solve_kepler(n * time, ec, es)
        f = 1.0 - a / r * (1.0 - torch.cos(x))
        g = time - (x - torch.sin(x)) / n
        q_new = f * q + g * v
        r_new = q_new.square().sum(1, keepdim=True).sqrt()
        df = -(mu * a).sqrt() / (r * r_new) * torch.sin(x)
        dg = 1.0 - a / r_new * (1.0 - torch.cos(x))
        return state.moved(q_new, m * (df * q + dg * v))

    return flow


def _solve_kepler(M: Tensor, ec: Tensor, es: Tensor) -> Tensor:
    """The root x of x − ec·sin x + es·(1 − cos x) = M: bisection to be safe, then Newton.

    The last two Newton steps carry gradients, which makes derivatives up to the third exact.
    """

    def newton(x: Tensor) -> Tensor:
        value = x - ec * torch.sin(x) + es * (1.0 - torch.cos(x)) - M
        return x - value / (1.0 - ec * torch.cos(x) + es * torch.sin(x))

    with torch.no_grad():
        low, high = M - es - 1.0, M - es + 1.0  # |ec·sin x + es·cos x| is the eccentricity, below one
        for _ in range(30):
            x = 0.5 * (low + high)
            below = x - ec * torch.sin(x) + es * (1.0 - torch.cos(x)) < M
            low, high = torch.where(below, x, low), torch.where(below, high, x)
        for _ in range(3):
            x = newton(x)
        change = float((newton(x) - x).abs().max())
        tolerance = 1e4 * torch.finfo(M.dtype).eps * max(1.0, float(M.abs().max()))
        if not change <= tolerance:
            raise NotConverged(
                f"Kepler's equation: the anomaly still changes by {change:.1e} after 33 iterations, wanted "
                f"{tolerance:.1e}: the orbit is too close to a straight line, use reference_flow",
                residual=change,
                tolerance=tolerance,
                iterations=33,
            )
    return newton(newton(x))


def reference_flow(potential: Potential, time: float, tolerance: float = 1e-12) -> Flow:
    """The flow of any smooth torch potential by the Dormand-Prince method of order 8 with tight error control.

    Not symplectic, merely accurate: `tolerance` is relative and absolute, per step of the method. A batch shares
    its steps. Differentiable in the state.
    """
    return lambda state: _integrate(potential, time, tolerance, state)[0]


def reference_flow_with_action(
    potential: Potential, time: float, tolerance: float = 1e-12
) -> Callable[[PhaseState], tuple[PhaseState, Tensor]]:
    """Like `reference_flow`, and the action integral ∫(T − V)dt along the path, (systems,), eV·time."""
    return lambda state: _integrate(potential, time, tolerance, state)


def _integrate(potential: Potential, time: float, tolerance: float, state: PhaseState) -> tuple[PhaseState, Tensor]:
    """Solve q̇ = p/m, ṗ = F, Ȧ = T − V together."""
    if state.positions.dtype != torch.float64:
        raise InvalidInput(f"a reference flow needs float64, the state is {state.positions.dtype}: state.to(…) first")
    if not (math.isfinite(time) and tolerance > 0):
        raise InvalidInput(f"a reference flow needs a finite time and a positive tolerance, got {time}, {tolerance}")
    action = state.positions.new_zeros(state.n_systems)
    if time == 0.0:
        return state, action

    def rates(_: Tensor, y: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        at = state.moved(y[0], y[1])
        push = state.moved(y[0], torch.zeros_like(y[1])).kick(potential.forces(at)).momenta
        return at.velocities, push, at.kinetic_energy() - potential.energy(at)

    start = (state.positions, state.momenta, action)
    times = state.positions.new_tensor([0.0, time])
    # the last step must end at the end: in between, the method only interpolates, at fourth order
    options = {"step_t": times[1:]}
    q, p, A = odeint(rates, start, times, rtol=tolerance, atol=tolerance, method="dopri8", options=options)
    return state.moved(q[-1], p[-1]), A[-1]


def _refuse_fixed(state: PhaseState) -> None:
    if state.has_fixed:
        raise UnsupportedSystem("the closed-form flows know no fixed atoms: use reference_flow")
