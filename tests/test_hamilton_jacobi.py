"""The Hamilton-Jacobi residual vanishes on the exact action and on no other, and teaches a map without any motion."""

import itertools
import math

import pytest
import torch

import actionlearn as al
from actionlearn.flows import reference_flow
from actionlearn.hamilton_jacobi import NEARBY, hamilton_jacobi_residuals
from actionlearn.potentials import Harmonic, HenonHeiles
from actionlearn.units import FEMTOSECOND

LONGEST_FS = 10.0  # 0.98 in ASE units


def particles(n, width, dims=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q, p = (width * torch.randn(n, dims, generator=generator, dtype=torch.float64) for _ in range(2))
    return al.PhaseState(q, p, torch.ones(n, dtype=torch.float64), system=torch.arange(n))


def residuals(action_at, potential, start, step_fs):
    """Both, in units of rms F."""
    forces = potential.forces(start)
    scale = forces.square().mean().sqrt().expand(start.n_systems)
    return hamilton_jacobi_residuals(
        action_at, start, forces, step_fs=step_fs, longest_fs=LONGEST_FS, force_scale=scale
    )


@pytest.mark.parametrize("turn", [0.3, 1.2, 2.0])
def test_residual_of_the_exact_harmonic_action_vanishes(turn):
    """S = (2/ω) tan(ωh/2) H."""
    omega = turn / (LONGEST_FS * FEMTOSECOND)
    well = Harmonic.from_frequencies(torch.tensor([omega, 0.5 * omega], dtype=torch.float64))

    def action_at(step_fs):
        half = 0.5 * step_fs * FEMTOSECOND * torch.tensor([omega, 0.5 * omega], dtype=torch.float64)
        growth = torch.tan(half) / half

        def scalar(state):
            q, p = state.positions, state.momenta
            mine = growth * 0.5 * (p**2 + (2.0 * half / (step_fs * FEMTOSECOND)) ** 2 * q**2) - 0.5 * p**2
            return state.sum_by_system(mine.sum(1))

        return al.MidpointAction(scalar, step_fs=step_fs)

    def implicit_midpoint_rule(step_fs):
        return al.MidpointAction(well, step_fs=step_fs)

    start = particles(50, 0.1)
    for step_fs in (0.1 * LONGEST_FS, LONGEST_FS):
        for r in residuals(action_at, well, start, step_fs):
            assert r.square().mean().sqrt() < 10 * (NEARBY * turn) ** 2
    wrong = residuals(implicit_midpoint_rule, well, start, LONGEST_FS)
    assert max(float(r.detach().square().mean().sqrt()) for r in wrong) > 0.1 * turn**2 > 100 * (NEARBY * turn) ** 2


class Polynomial(torch.nn.Module):
    """G(q, p; h) = Σ_n x^n Σ_m c_nm · monomials of q and p up to fourth degree, even in p."""

    def __init__(self, orders=2):
        super().__init__()
        powers = [e for e in itertools.product(range(5), repeat=4) if 0 < sum(e) <= 4 and (e[2] + e[3]) % 2 == 0]
        self.powers = torch.tensor(powers)
        self.coefficients = torch.nn.Parameter(torch.zeros(orders, len(powers), dtype=torch.float64))

    def at(self, step_fs):
        x = (step_fs / LONGEST_FS) ** 2

        def scalar(state):
            z = torch.cat([state.positions, state.momenta], dim=1)
            table = torch.stack([torch.ones_like(z), z, z**2, z**3, z**4], dim=2)
            monomials = math.prod(table[:, k, self.powers[:, k]] for k in range(4))
            weights = sum(x**n * c for n, c in enumerate(self.coefficients))
            return state.sum_by_system(monomials @ weights)

        return al.MidpointAction(scalar, step_fs=step_fs)


def test_forces_alone_teach_the_flow_of_henon_and_heiles():
    potential, model = HenonHeiles(), Polynomial()
    starts = [particles(60, 0.15, seed=k) for k in range(3)]
    steps = [0.3 * LONGEST_FS, 0.7 * LONGEST_FS, LONGEST_FS]
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=80, history_size=80, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        pairs = [residuals(model.at, potential, s, h) for s, h in zip(starts, steps, strict=True)]
        loss = sum(r.square().mean() for pair in pairs for r in pair) / len(pairs)
        loss.backward()
        return loss

    optimiser.step(closure)
    state = particles(100, 0.12, seed=9)
    model.requires_grad_(False)
    for step_fs, limit in ((LONGEST_FS, 0.01), (0.4 * LONGEST_FS, 0.03)):
        exact = reference_flow(potential, step_fs * FEMTOSECOND)(state)
        kick = (exact.momenta - state.momenta).square().mean().sqrt()
        off = (model.at(step_fs).step(state).momenta - exact.momenta).square().mean().sqrt() / kick
        assert off < limit
    rule = al.MidpointAction(potential, step_fs=LONGEST_FS)
    exact = reference_flow(potential, LONGEST_FS * FEMTOSECOND)(state)
    assert (rule.step(state).momenta - exact.momenta).square().mean().sqrt() > 0.05 * kick
