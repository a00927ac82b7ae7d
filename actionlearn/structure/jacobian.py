"""The Jacobian of a step, and how far it is from symplectic.

    M = ∂z'/∂z,   z = (q, p),        symplectic  ⇔  D = MᵀΩM − Ω = 0,   Ω = (0 1; −1 0)

| symbol | here                 | shape        |
|--------|----------------------|--------------|
| M      | `step_jacobian`      | (2f, 2f)     |
| Ω      | `symplectic_form`    | (2f, 2f)     |
| f      | coordinates of the atoms that are not fixed   | |

**Coordinates.** `step_jacobian` is in plain q and p. The defects are taken in mass-weighted ones, √m·q and p/√m: a
canonical change, so D vanishes in one exactly where it does in the other, and the only one in which the entries of
light and heavy atoms, and of both halves of phase space, can be compared (the unit of time is Å·sqrt(u/eV), about
10 fs, near the inverse of a molecular frequency). For unit masses the two are the same.

**Derivatives.** By reverse mode where the step is differentiable, else by central differences of fourth order. A step
whose graph is cut somewhere, such as Verlet on forces without derivatives, would give a wrong Jacobian in silence, so
one random direction of the reverse-mode Jacobian is always compared with differences. Differences are good to about
1e-10; positions that a step wraps into the cell spoil them.
"""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import torch
from ase.md.md import MolecularDynamics
from torch import Tensor

from actionlearn.errors import InvalidInput
from actionlearn.state import PhaseState
from actionlearn.structure.foreign import Step, as_callable

Method = Literal["auto", "reverse", "differences"]

ROWS_AT_ONCE = 64


def symplectic_defect(
    step: Step | MolecularDynamics, state: PhaseState, *, method: Method = "auto", displacement: float | None = None
) -> float:
    """Largest entry of |MᵀΩM − Ω| in mass-weighted coordinates; 0 for a symplectic step, to rounding.

    Needs the whole Jacobian: meant for up to a few hundred coordinates, see `estimate_symplectic_defect` for more.
    """
    M = step_jacobian(step, state, method=method, displacement=displacement)
    s = _canonical_scale(state)
    M = s[:, None] * M / s[None, :]
    return float((symplectic_product(M, M) - symplectic_form(M)).abs().max())


def estimate_symplectic_defect(
    step: Step | MolecularDynamics,
    state: PhaseState,
    *,
    directions: int = 16,
    seed: int = 0,
    method: Method = "auto",
    displacement: float | None = None,
) -> float:
    """Root-mean-square row length of MᵀΩM − Ω from random directions, without the Jacobian; any number of atoms.

    For normal random u and v, uᵀDv = ω(Mu, Mv) − ω(u, v) has the variance ‖D‖², so k directions give k(k − 1)/2
    samples of it; returned is ‖D‖/√(2f), known to about 1/k. It equals the largest entry when every canonical pair is
    scaled alike, and never exceeds √(2f) times the largest entry.
    """
    if directions < 2:
        raise InvalidInput(f"the estimate compares pairs of directions: give at least 2, not {directions}")
    s = _canonical_scale(state)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    U = torch.randn(directions, len(s), generator=generator, dtype=torch.float64).to(s)
    MU = jacobian_products(step, state, U / s, method=method, displacement=displacement) * s
    D = symplectic_product(MU.T, MU.T) - symplectic_product(U.T, U.T)
    i, j = torch.triu_indices(directions, directions, 1)
    return float((D[i, j] ** 2).mean().sqrt() / len(s) ** 0.5)


def symplectic_form(like: Tensor) -> Tensor:
    """Ω in the size, dtype and place of a Jacobian."""
    f = like.shape[-1] // 2
    one = torch.eye(f, dtype=like.dtype, device=like.device)
    zero = torch.zeros_like(one)
    return torch.cat([torch.cat([zero, one], 1), torch.cat([-one, zero], 1)])


def symplectic_product(A: Tensor, B: Tensor) -> Tensor:
    """AᵀΩB for matrices whose columns are phase-space vectors (q above p)."""
    f = A.shape[0] // 2
    return A[:f].T @ B[f:] - A[f:].T @ B[:f]


def step_jacobian(
    step: Step | MolecularDynamics, state: PhaseState, *, method: Method = "auto", displacement: float | None = None
) -> Tensor:
    """M = ∂(q', p')/∂(q, p) of the atoms that are not fixed, (2f, 2f), all q before all p.

    `method` "auto" takes reverse mode and falls back to differences. `displacement` is the one of the differences in
    Å, 1e-3 in double precision; momenta are displaced by as much times √m.
    """
    step = _checked(step, state, method)
    if _free_size(state) == 0:
        raise InvalidInput("all atoms are fixed: a step has no Jacobian where nothing moves")
    graph = None if method == "differences" else _Graph.record(step, state)
    if graph is not None:
        M = graph.rows(torch.eye(graph.size, dtype=graph.out.dtype, device=graph.out.device))
        probe = _probe(state)
        if _agrees(M @ probe, step, state, probe, displacement):
            return M
    _refuse_differences(method)
    return _difference(step, state, torch.eye(2 * _free_size(state)).to(state.positions), displacement).T


def jacobian_products(
    step: Step | MolecularDynamics,
    state: PhaseState,
    vectors: Tensor,
    *,
    method: Method = "auto",
    displacement: float | None = None,
) -> Tensor:
    """M·v for each row v of `vectors` (k, 2f), without the Jacobian: reverse mode twice, or differences."""
    step = _checked(step, state, method)
    graph = None if method == "differences" else _Graph.record(step, state)
    if graph is not None:
        try:
            products = graph.columns(vectors)
        except RuntimeError:  # some part of the step has no second derivative
            products = None
        if products is not None and _agrees(products[0], step, state, vectors[0], displacement):
            return products
    _refuse_differences(method)
    return _difference(step, state, vectors, displacement)


def _checked(step: Step | MolecularDynamics, state: PhaseState, method: str) -> Step:
    if method not in get_args(Method):
        raise InvalidInput(f"method must be one of {', '.join(get_args(Method))}, not {method!r}")
    if not isinstance(state, PhaseState):
        raise InvalidInput(f"the step comes first, a PhaseState second, not {type(state).__name__}")
    return as_callable(step)


def _refuse_differences(method: Method) -> None:
    if method == "reverse":
        raise InvalidInput(
            "reverse mode gives another Jacobian than differences do, or none: the step detaches or leaves torch "
            'somewhere; use method="differences"'
        )


class _Graph:
    """One recorded step, and products with its Jacobian in both directions."""

    def __init__(self, inputs: tuple[Tensor, Tensor], out: Tensor, free: Tensor) -> None:
        self.inputs, self.out, self.free, self.size = inputs, out, free, out.numel()

    @classmethod
    def record(cls, step: Step, state: PhaseState) -> _Graph | None:
        with torch.enable_grad():
            q = state.positions.detach().clone().requires_grad_()
            p = state.momenta.detach().clone().requires_grad_()
            try:
                out = _flat(step(state.moved(q, p)))
            except RuntimeError:  # such as numpy refusing tensors with a graph; differences meet any other cause again
                return None
        return cls((q, p), out, ~state.fixed) if out.requires_grad else None

    def pull(self, weights: Tensor, *, create_graph: bool = False, batched: bool = False) -> Tensor:
        """Mᵀw, of one w or of a batch of them."""
        parts = torch.autograd.grad(
            self.out,
            self.inputs,
            weights,
            retain_graph=True,
            create_graph=create_graph,
            is_grads_batched=batched,
            allow_unused=True,
            materialize_grads=True,
        )
        return torch.cat([part[..., self.free, :].flatten(-2) for part in parts], -1)

    def rows(self, weights: Tensor) -> Tensor:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # parts without a batching rule are slow, not wrong
                return torch.cat([self.pull(w, batched=True) for w in weights.split(ROWS_AT_ONCE)])
        except RuntimeError:  # parts that cannot be batched at all
            return torch.stack([self.pull(w) for w in weights])

    def columns(self, vectors: Tensor) -> Tensor:
        """M·v = ∂/∂w (vᵀMᵀw)."""
        w = torch.zeros_like(self.out, requires_grad=True)
        pulled = self.pull(w, create_graph=True)
        products = [torch.autograd.grad(pulled, w, v, retain_graph=True, materialize_grads=True)[0] for v in vectors]
        return torch.stack(products)


def _flat(state: PhaseState) -> Tensor:
    """(q, p) of the atoms that are not fixed as one vector."""
    free = ~state.fixed
    return torch.cat([state.positions[free].flatten(), state.momenta[free].flatten()])


def _free_size(state: PhaseState) -> int:
    return int((~state.fixed).sum()) * state.positions.shape[1]


def _canonical_scale(state: PhaseState) -> Tensor:
    """√m for the positions and 1/√m for the momenta, as one vector."""
    root = state.masses[~state.fixed].sqrt().repeat_interleave(state.positions.shape[1])
    return torch.cat([root, 1.0 / root])


def _probe(state: PhaseState) -> Tensor:
    """A fixed random direction, in plain coordinates, that displaces light and heavy atoms alike."""
    s = _canonical_scale(state)
    generator = torch.Generator(device="cpu").manual_seed(0)
    return torch.randn(len(s), generator=generator, dtype=torch.float64).to(s) / s


def _difference(step: Step, state: PhaseState, vectors: Tensor, displacement: float | None) -> Tensor:
    """M·v for each row v by central differences of fourth order."""
    return torch.stack([_slopes(step, state, v, displacement)[1] for v in vectors])


def _slopes(step: Step, state: PhaseState, v: Tensor, displacement: float | None) -> tuple[Tensor, Tensor]:
    """Second- and fourth-order central differences along v, whose largest displacement is that asked for."""
    double = state.positions.dtype == torch.float64
    d = displacement if displacement is not None else (1e-3 if double else 3e-2)
    f = _free_size(state)
    root = _canonical_scale(state)[:f]
    reach = torch.maximum(v[:f].abs().max(), (v[f:] / root).abs().max())
    eps = d / float(reach)
    ahead = [_flat(step(_displaced(state, k * eps * v))).detach() for k in (1, -1, 2, -2)]
    near, far = (ahead[0] - ahead[1]) / (2 * eps), (ahead[2] - ahead[3]) / (4 * eps)
    return near, (4 * near - far) / 3


def _displaced(state: PhaseState, change: Tensor) -> PhaseState:
    f, free = _free_size(state), ~state.fixed
    q, p = state.positions.detach().clone(), state.momenta.detach().clone()
    q[free] += change[:f].view(-1, q.shape[1])
    p[free] += change[f:].view(-1, q.shape[1])
    return state.moved(q, p)


def _agrees(product: Tensor, step: Step, state: PhaseState, v: Tensor, displacement: float | None) -> bool:
    """Whether M·v from the graph is what differences say, within what they can say."""
    coarse, fine = _slopes(step, state, v, displacement)
    s = _canonical_scale(state)
    size, error, doubt = ((x * s).norm() for x in (fine, product - fine, coarse - fine))
    floor = 1e-7 if product.dtype == torch.float64 else 3e-3
    return bool(error <= floor * size + 0.1 * doubt)
