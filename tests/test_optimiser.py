"""Preconditioned Adam: correlated directions, resuming, plain Adam on vectors."""

import copy

import pytest
import torch

from actionlearn.optimiser import Preconditioned


def turned_valley(seed=0, n=12):
    """A quadratic valley whose axes are no weights' axes: |A W B − C|², condition numbers of a hundred each."""
    generator = torch.Generator().manual_seed(seed)

    def stretched():
        basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
        return basis * torch.logspace(0, -2, n, dtype=torch.float64) @ basis.T

    A, B, wanted = stretched(), stretched(), torch.randn(n, n, generator=generator, dtype=torch.float64)
    return lambda W: (A @ (W - wanted) @ B).square().sum()


def least(optimiser_of, loss, updates=300):
    weight = torch.zeros(12, 12, dtype=torch.float64, requires_grad=True)
    optimiser = optimiser_of([weight])
    for k in range(updates):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - k / updates)
        optimiser.zero_grad()
        loss(weight).backward()
        optimiser.step()
    return float(loss(weight).detach())


def test_descends_further_than_adam_where_the_weights_axes_are_not_the_valleys():
    loss = turned_valley()
    ours = least(lambda weights: Preconditioned(weights, weight_decay=0.0), loss)
    adams = least(lambda weights: torch.optim.Adam(weights, betas=(0.95, 0.95)), loss)
    assert ours < 0.3 * adams


def test_a_vector_gets_plain_adam():
    target = torch.linspace(-1, 1, 5)
    ours, theirs = torch.zeros(5, requires_grad=True), torch.zeros(5, requires_grad=True)
    preconditioned = Preconditioned([ours], lr=0.1)
    adam = torch.optim.Adam([theirs], lr=0.1, betas=(0.95, 0.95))
    for _ in range(11):
        preconditioned.zero_grad()
        (ours - target).square().sum().backward()
        preconditioned.step()
    for _ in range(10):  # ours only looks at the first gradient
        adam.zero_grad()
        (theirs - target).square().sum().backward()
        adam.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_goes_on_from_its_state_as_if_never_stopped():
    loss = turned_valley()
    weight = torch.zeros(12, 12, dtype=torch.float64, requires_grad=True)
    optimiser = Preconditioned([weight])

    def update(weight, optimiser):
        optimiser.zero_grad()
        loss(weight).backward()
        optimiser.step()

    for _ in range(7):
        update(weight, optimiser)
    twin = weight.detach().clone().requires_grad_()
    resumed = Preconditioned([twin])
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for _ in range(7):
        update(weight, optimiser)
        update(twin, resumed)
    assert torch.equal(weight, twin)


def test_a_closure_is_refused():
    with pytest.raises(NotImplementedError, match="without a closure"):
        Preconditioned([torch.zeros(2, requires_grad=True)]).step(lambda: 0.0)
