"""The fixed-point solver: linear and curved equations, batches, what it keeps, and how it gives up."""

import pytest
import torch

from actionlearn.errors import InvalidInput, NonFinite, NotConverged
from actionlearn.krylov import gmres, newton_krylov
from actionlearn.solver import FixedPointSolver


def skew(n, radius, seed=0):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(n, n, generator=generator, dtype=torch.float64)
    A = A - A.T
    return A * radius / torch.linalg.matrix_norm(A, 2)


def curved(K):
    return lambda x: x @ K.T + 0.05 * torch.sin(3.0 * x)


def rows(*vectors):
    width = max(len(v) for v in vectors)
    return torch.stack([torch.nn.functional.pad(v, (0, width - len(v))) for v in vectors])


def relative(r, y):
    return r.norm(dim=1) / y.norm(dim=1)


def test_gmres_solves_each_system_of_a_batch():
    A = torch.stack([torch.eye(12) + skew(12, 3.0, seed=k) for k in range(3)]).double()
    b = torch.randn(3, 12, dtype=torch.float64)
    b[1] = 0.0
    x, residual, spent = gmres(lambda v: torch.einsum("bij,bj->bi", A, v), b, tolerance=1e-12, max_dimensions=12)
    assert (torch.einsum("bij,bj->bi", A, x) - b).abs().max() < 1e-11
    assert (residual < 1e-11).all() and spent <= 12 and (x[1] == 0).all()


@pytest.mark.parametrize("radius", [0.5, 2.0, 8.0])
def test_anderson_reaches_where_plain_iteration_diverges(radius):
    K, z = skew(20, radius), torch.randn(1, 20, dtype=torch.float64)
    solver = FixedPointSolver(tolerance=1e-12)
    solution = solver.solve(lambda y: (z + y) @ K.T, z, torch.zeros_like(z))
    exact = torch.linalg.solve(torch.eye(20).double() - K, K @ z[0])
    assert (solution.values[0] - exact).norm() < 1e-10 * exact.norm()
    assert solver.statistics.evaluations == int(solution.evaluations[0]) <= 24


def test_a_batch_gives_what_its_systems_give_alone():
    big, small = skew(16, 2.0), skew(6, 0.3, seed=1)
    z1, z2 = torch.randn(16, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    g1, g2 = curved(big), curved(small)
    z = rows(z1, z2)

    def both(y):
        x = z + y
        return rows(g1(x[0]), g2(x[1, :6]))

    together = FixedPointSolver(tolerance=1e-12).solve(both, z, torch.zeros_like(z))
    for k, (g, start) in enumerate([(g1, z1), (g2, z2)]):
        one = start.unsqueeze(0)
        alone = FixedPointSolver(tolerance=1e-12).solve(lambda y, g=g, one=one: g(one + y), one, torch.zeros_like(one))
        assert (together.values[k, : len(start)] - alone.values[0]).abs().max() < 1e-11
        assert together.evaluations[k] == alone.evaluations[0]
    assert together.evaluations[0] > together.evaluations[1]


def test_recycled_pairs_save_evaluations_and_leave_the_result():
    K, z = skew(30, 1.5), torch.randn(1, 30, dtype=torch.float64)
    fresh, keeps = FixedPointSolver(tolerance=1e-11), FixedPointSolver(tolerance=1e-11, recycle=40)
    for _ in range(6):
        start = keeps.predict(z)
        function = lambda y, z=z: (z + y) @ K.T  # noqa: E731
        a = fresh.solve(function, z, torch.zeros_like(z))
        b = keeps.solve(function, z, torch.zeros_like(z) if start is None else start)
        assert (a.values - b.values).norm() < 1e-9 * a.values.norm()
        z = z + 2 * a.values
    assert b.evaluations[0] < 0.5 * a.evaluations[0]
    keeps.forget()
    assert keeps.predict(z) is None


def test_newton_krylov_on_a_curved_equation():
    g = curved(skew(12, 4.0))
    z = torch.randn(2, 12, dtype=torch.float64)
    active = torch.tensor([True, True])
    y, value, left, spent = newton_krylov(
        lambda y: g(z + y), torch.zeros_like(z), relative, active, tolerance=1e-11, max_evaluations=400
    )
    assert (left < 1e-11).all() and (g(z + y) - value).abs().max() == 0 and spent < 200


def test_newton_krylov_takes_over_when_anderson_stalls():
    K, z = skew(40, 6.0), torch.randn(1, 40, dtype=torch.float64)
    solver = FixedPointSolver(tolerance=1e-10, memory=2, patience=8, max_evaluations=600)
    solution = solver.solve(lambda y: curved(K)(z + y), z, torch.zeros_like(z))
    assert solution.newton.item() and solution.residual.item() < 1e-10
    assert solver.statistics.newton_solves == 1


def test_failure_carries_numbers_and_advice():
    z = torch.ones(2, 3, dtype=torch.float64)
    solver = FixedPointSolver(max_evaluations=40)
    with pytest.raises(NotConverged, match="1 of 2 systems did not converge: system 1 .* asked for.*; shorten") as info:
        solver.solve(
            lambda y: torch.stack([0.1 * y[0], y[1] + 1.0]), z, torch.zeros_like(z), advice=lambda: "shorten it"
        )
    assert info.value.tolerance == 1e-10 and info.value.residual > 1e-10 and info.value.iterations <= 40
    assert solver.statistics.failures == 1


def test_bad_input_is_refused():
    with pytest.raises(InvalidInput, match="tolerance must lie between"):
        FixedPointSolver(tolerance=0.0)
    with pytest.raises(InvalidInput, match="must not be negative"):
        FixedPointSolver(recycle=-1)
    z = torch.ones(1, 3)
    with pytest.raises(InvalidInput, match="cannot be reached in torch.float32"):
        FixedPointSolver().solve(lambda y: 0.1 * y, z, z)
    with pytest.raises(NonFinite, match="not finite after 1 evaluations"):
        FixedPointSolver(tolerance=1e-4).solve(lambda y: y / 0.0, z, z)
