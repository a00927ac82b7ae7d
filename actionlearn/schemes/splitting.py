"""The one stepper that runs every splitting scheme."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from actionlearn.errors import InvalidInput, NonFinite, UnsupportedSystem
from actionlearn.potentials.protocol import Potential, as_potentials, forces_of
from actionlearn.schemes.composition import Scheme
from actionlearn.schemes.published import VELOCITY_VERLET
from actionlearn.state import PhaseState
from actionlearn.stepping import guarded
from actionlearn.units import FEMTOSECOND


class Splitting:
    """A step of length h made of exact kicks and drifts, in the order a scheme gives.

    Symplectic for every scheme; reversible for every palindromic one. Results carry a gradient graph only where
    the positions or momenta that come in ask for gradients.

    | symbol | attribute            | unit |
    |--------|----------------------|------|
    | V      | `potentials`         | eV   |
    | h      | `step_fs`, `h`       | fs, Å·sqrt(u/eV) |
    |        | `stages`: forces per step of a long run |  |
    """

    species: tuple[int, ...] | None = None
    masses: tuple[float, ...] | None = None

    def __init__(self, potential: Potential | Mapping[str, Potential], scheme: Scheme, step_fs: float) -> None:
        """Give one potential, or one for each kicking letter of the scheme, such as {"S": slow, "F": fast}."""
        if not (step_fs > 0.0 and step_fs < float("inf")):
            raise InvalidInput(f"step_fs must be a positive number of femtoseconds, not {step_fs!r}")
        kicks = [letter for letter in scheme.letters if letter != "R"]
        self.potentials = dict(potential) if isinstance(potential, Mapping) else dict.fromkeys(kicks, potential)
        if sorted(self.potentials) != sorted(kicks) or (len(kicks) > 1 and not isinstance(potential, Mapping)):
            raise InvalidInput(
                f"scheme {scheme.name} kicks with {kicks}: give one potential for each, as a mapping from these letters"
            )
        as_potentials(self.potentials.values())
        self.scheme = scheme
        self.step_fs = float(step_fs)
        self.h = self.step_fs * FEMTOSECOND
        self.kind = scheme.name
        self.stages = sum(scheme.evaluations(letter) for letter in kicks)
        self._forces = {letter: ForceMemory(potential) for letter, potential in self.potentials.items()}

    def __call__(self, state: PhaseState) -> PhaseState:
        """One step."""
        return self.step(state)

    @guarded
    def step(self, state: PhaseState, n: int = 1) -> PhaseState:
        """`n` steps."""
        wanted = state.positions.requires_grad or state.momenta.requires_grad
        with torch.set_grad_enabled(wanted and torch.is_grad_enabled()):
            for _ in range(n):
                state = self._once(state)
        if not (torch.isfinite(state.momenta).all() and torch.isfinite(state.positions).all()):
            raise NonFinite(
                f"{self.kind} with step {self.step_fs:g} fs gave numbers that are not finite within {n} step(s): "
                "shorten the step or relax the starting structure"
            )
        return state

    def _once(self, state: PhaseState) -> PhaseState:
        h = self.h
        for letter, fraction, gradient in self.scheme.moves:
            if letter == "R":
                state = state.drift(fraction * h)
            elif gradient == 0.0:
                state = state.kick(fraction * h * self._forces[letter](state))
            else:
                F, G = force_and_gradient(self.potentials[letter], state)
                state = state.kick(fraction * h * F + gradient * h**3 * G)
        return state

    def __repr__(self) -> str:
        """The scheme in words and its step."""
        return f"{type(self).__name__}({self.scheme}, step_fs={self.step_fs:g})"


class Verlet(Splitting):
    """Velocity Verlet, "V R V": second order, symplectic, reversible, one force per step."""

    def __init__(self, potential: Potential, *, step_fs: float) -> None:
        """The integrator that every other one is compared with."""
        super().__init__(potential, VELOCITY_VERLET, step_fs)


class ForceMemory:
    """Forces of a potential, not computed again while the very same positions come in untouched.

    A step hands the positions tensor of one kick on to the next when nothing moved between them, so identity of the
    tensor (and its version counter, against writing in place) is the test. Forces that carry a graph are never kept.
    """

    def __init__(self, potential: Potential) -> None:
        """Remember nothing yet."""
        self.potential = potential
        self._key: tuple[object, ...] | None = None
        self._held: tuple[PhaseState, Tensor] | None = None

    def __call__(self, state: PhaseState) -> Tensor:
        """Forces at a state, remembered or computed."""
        key = self._fingerprint(state)
        if self._held is not None and key is not None and key == self._key and _same_surroundings(self._held[0], state):
            return self._held[1]
        forces = forces_of(self.potential, state)
        keep = key is not None and not forces.requires_grad
        self._key, self._held = (key, (state, forces)) if keep else (None, None)
        return forces

    def _fingerprint(self, state: PhaseState) -> tuple[object, ...] | None:
        """What must be unchanged for the forces to be; None where that cannot be known."""
        q = state.positions
        if q.requires_grad or q.is_inference():
            return None
        network = self.potential if isinstance(self.potential, torch.nn.Module) else None
        weights = () if network is None else tuple((w.data_ptr(), w._version) for w in network.parameters())
        return (q._version, *weights)


def _same_surroundings(one: PhaseState, other: PhaseState) -> bool:
    """Whether two states hold the same positions, species and cells as objects."""
    return (
        one.positions is other.positions
        and one.numbers is other.numbers
        and one.cell is other.cell
        and one.pbc is other.pbc
        and one.system is other.system
    )


def force_and_gradient(potential: Potential, state: PhaseState) -> tuple[Tensor, Tensor]:
    """F and G = ∂/∂q Σ F²/m over the atoms that move, by reverse mode."""
    outer = torch.is_grad_enabled() and state.positions.requires_grad
    with torch.enable_grad():
        q = state.positions if state.positions.requires_grad else state.positions.detach().requires_grad_()
        F = potential.forces(state.moved(q, state.momenta))
        if not F.requires_grad:
            raise UnsupportedSystem(
                f"{type(potential).__name__} gives forces without derivatives, which a force-gradient scheme needs: "
                "use a potential written in torch, or a scheme without G"
            )
        (G,) = torch.autograd.grad((F**2 * state.inverse_masses).sum(), q, create_graph=outer)
    return (F, G) if outer else (F.detach(), G.detach())
