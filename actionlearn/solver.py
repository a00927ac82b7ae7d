"""A fixed-point solver for implicit steps: Anderson acceleration that remembers, Newton-Krylov when that stalls.

The equation is y = g(z + y), solved again and again for a z that moves on from step to step while g stays the
same function. Where g is nearly linear, what was learned about its Jacobian in earlier steps is still true, and the
secant pairs of earlier evaluations can be kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from actionlearn.errors import InvalidInput, NonFinite, NotConverged
from actionlearn.krylov import newton_krylov


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """What a solve gave, per system.

    `values` is g at the last point looked at, (systems, dofs); `points` are those points; `residual` is
    rms(g − y)/rms(y); `evaluations` counts the values of g each system needed.
    """

    values: Tensor
    points: Tensor
    residual: Tensor
    evaluations: Tensor
    newton: Tensor


@dataclasses.dataclass
class SolverStatistics:
    """What the solver has spent since it was made (or since `reset`), summed over systems."""

    solves: int = 0
    evaluations: int = 0
    most_evaluations: int = 0
    worst_residual: float = 0.0
    newton_solves: int = 0
    failures: int = 0
    last_evaluations: tuple[int, ...] = ()

    @property
    def evaluations_per_solve(self) -> float:
        """Gradient evaluations per system and step, those of failed attempts included."""
        return self.evaluations / max(self.solves, 1)

    def add(self, solution: Solution) -> None:
        """Count one batch."""
        counts = tuple(int(n) for n in solution.evaluations)
        self.solves += len(counts)
        self.evaluations += sum(counts)
        self.most_evaluations = max(self.most_evaluations, *counts)
        self.worst_residual = max(self.worst_residual, float(solution.residual.max()))
        self.newton_solves += int(solution.newton.sum())
        self.last_evaluations = counts

    def reset(self) -> None:
        """Start counting anew."""
        self.__init__()  # type: ignore[misc]


class FixedPointSolver:
    """Solves y = g(z + y) for a batch of systems, each at its own pace.

    Anderson acceleration: with the differences δx_j of points x = z + y and δf_j of residuals f = y − g between
    successive evaluations, the next point is

        x ← x − Σ_j c_j δx_j − (f − Σ_j c_j δf_j),      c = argmin |f − Σ_j c_j δf_j|

    The columns are scaled to unit length, factorised by QR, and singular values below `truncation` times the
    largest are left out. Pairs of this solve (up to `memory`) can be joined by the `recycle` youngest of the solves
    before: with these the formula also yields a first guess for a new z without evaluating g (`predict`).
    In nearly harmonic motion that saves a third of the evaluations and more; where g is curved, stale pairs cost
    more than they bring, so the default keeps none.

    When the residual has not halved in `patience` evaluations the recycled pairs are dropped, and when that
    happens again Newton-Krylov takes over. References: Walker and Ni 2011, eq. 2.2; Knoll and Keyes 2004.

    | symbol | variable    | shape                   |
    |--------|-------------|-------------------------|
    | z      | `origin`    | (systems, dofs)         |
    | y      | `y`         | (systems, dofs)         |
    | g      | `g`         | (systems, dofs)         |
    | δx, δf | `_dx`, `_df`| (systems, dofs, pairs)  |
    """

    def __init__(
        self,
        *,
        tolerance: float = 1e-10,
        memory: int = 60,
        recycle: int = 0,
        truncation: float = 1e-8,
        max_evaluations: int = 300,
        patience: int = 30,
    ) -> None:
        """Residuals are relative to the step, rms over degrees of freedom, in the units the caller scales to."""
        if not 0.0 < tolerance < 1.0:
            raise InvalidInput(f"the solver's tolerance must lie between 0 and 1, not {tolerance}: 1e-10 is usual")
        if memory < 0 or recycle < 0 or max_evaluations < 1:
            raise InvalidInput(
                f"memory and recycle must not be negative and max_evaluations positive, "
                f"got {memory}, {recycle} and {max_evaluations}"
            )
        self.tolerance = tolerance
        self.memory = memory
        self.recycle = recycle
        self.truncation = truncation
        self.max_evaluations = max_evaluations
        self.patience = patience
        self.statistics = SolverStatistics()
        self.forget()

    def forget(self) -> None:
        """Drop all recycled pairs, as for another system."""
        self._dx: Tensor | None = None
        self._df: Tensor | None = None
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def predict(self, origin: Tensor) -> Tensor | None:
        """The first guess that the pairs of earlier solves give for a new z; None when there are none."""
        if not self._fits(origin) or self._last is None:
            return None
        z, y, g = self._last
        f = (y - g) - (origin - z)  # the equation at the last point, for the new z
        return y - (origin - z) - self._update(f, self._dx, self._df)

    def solve(
        self,
        function: Callable[[Tensor], Tensor],
        origin: Tensor,
        start: Tensor,
        *,
        floor: Tensor | float = 0.0,
        iterations: int | None = None,
        advice: Callable[[], str] | None = None,
    ) -> Solution:
        """Solve y = g(z + y), `function(y)` being g, from the guess `start`.

        `floor` (systems,) is the length of y below which the residual is no longer taken relative to it. With
        `iterations` that many evaluations are made, converged or not; without, a system that does not reach the
        tolerance raises `NotConverged`, whose message ends with `advice()`.
        """
        if self.tolerance < 20 * torch.finfo(start.dtype).eps and iterations is None:
            raise InvalidInput(
                f"a tolerance of {self.tolerance:.1e} cannot be reached in {start.dtype}: "
                f"use float64, or a tolerance above {20 * torch.finfo(start.dtype).eps:.0e}"
            )

        def relative(r: Tensor, y: Tensor) -> Tensor:
            return r.norm(dim=1) / torch.maximum(y.norm(dim=1), torch.as_tensor(floor).to(y)).clamp_min(tiny)

        tiny = torch.finfo(start.dtype).tiny ** 0.5
        if not self._fits(origin):
            self.forget()
        systems = start.shape[0]
        y, last = start, self._last
        active = torch.ones(systems, dtype=torch.bool, device=start.device)
        counts = torch.zeros(systems, dtype=torch.int64, device=start.device)
        stalls, since = counts.clone(), counts.clone()
        best = start.new_full((systems,), torch.inf)
        values, points, residual = torch.zeros_like(start), start, best.clone()
        lowest, lowest_at = best.clone(), start
        dx, df = self._dx, self._df
        limit = self.max_evaluations if iterations is None else iterations
        for k in range(limit):
            g = function(y)
            counts += active
            left = relative(g - y, y)
            if not bool(torch.isfinite(left).all()):
                raise NonFinite(
                    f"the action's derivatives are not finite after {k + 1} evaluations "
                    f"(system {int((~torch.isfinite(left)).nonzero()[0])}): check the first guess and the structure"
                )
            values = torch.where(active.unsqueeze(1), g, values)
            points = torch.where(active.unsqueeze(1), y, points)
            residual = torch.where(active, left, residual)
            if last is not None:
                z_old, y_old, g_old = last
                step = (origin - z_old) + (y - y_old)
                change = step - (g - g_old)
                most = self.memory + self.recycle
                dx, df = _newest(step, dx, most), _newest(change, df, most)
            last = (origin, y, g)
            active = active & (left > self.tolerance) if iterations is None else active
            lower = left < lowest
            lowest, lowest_at = torch.where(lower, left, lowest), torch.where(lower.unsqueeze(1), y, lowest_at)
            improved = left < 0.5 * best
            best = torch.where(improved, left, best)
            since = torch.where(improved | ~active, 0, since + 1)
            stalled = since >= self.patience
            if bool(stalled.any()) and iterations is None:
                stalls, since = stalls + stalled, torch.where(stalled, 0, since)
                if dx is not None and df is not None:
                    keep = (~stalled).to(y.dtype)[:, None, None]
                    dx, df = dx * keep, df * keep
            if not bool((active & (stalls < 2)).any()) or k + 1 == limit:
                break
            y = torch.where((active & (stalls < 2)).unsqueeze(1), y - self._update(y - g, dx, df), y)
        newton = active & (iterations is None)
        if bool(newton.any()) and int(counts.max()) < self.max_evaluations:
            at, g, left, spent = newton_krylov(
                function,
                lowest_at,
                relative,
                newton,
                tolerance=self.tolerance,
                max_evaluations=self.max_evaluations - int(counts.max()),
            )
            counts = counts + spent * newton
            values = torch.where(newton.unsqueeze(1), g, values)
            points = torch.where(newton.unsqueeze(1), at, points)
            residual = torch.where(newton, left, residual)
            active = newton & (left > self.tolerance)
        solution = Solution(values, points, residual, counts, newton)
        if iterations is None and bool(active.any()):
            self.statistics.failures += int(active.sum())
            self.statistics.evaluations += int(counts.sum())
            self.forget()
            self._raise(solution, active, advice)
        self.statistics.add(solution)
        self._keep(origin, solution, dx, df)
        return solution

    # --- the least squares and its memory ---------------------------------------------------------

    def _update(self, f: Tensor, dx: Tensor | None, df: Tensor | None) -> Tensor:
        """Σ c δx + (f − Σ c δf), with c the truncated least-squares fit of f."""
        if dx is None or df is None or dx.shape[2] == 0:
            return f
        length = df.norm(dim=1, keepdim=True)
        inverse = torch.where(length > 0, 1.0 / length, 0.0)
        Q, R = torch.linalg.qr(df * inverse)
        U, sigma, Vh = torch.linalg.svd(R, full_matrices=False)
        used = sigma > self.truncation * sigma[:, :1]
        along = torch.where(used, 1.0 / sigma, 0.0) * torch.einsum("bki,bdk,bd->bi", U, Q, f)
        c = torch.einsum("bij,bi->bj", Vh, along) * inverse.squeeze(1)
        return f + torch.einsum("bdk,bk->bd", dx - df, c)

    def _fits(self, origin: Tensor) -> bool:
        return self._last is not None and self._last[0].shape == origin.shape and self._last[0].dtype == origin.dtype

    def _keep(self, origin: Tensor, solution: Solution, dx: Tensor | None, df: Tensor | None) -> None:
        if self.recycle == 0:
            return
        self._last = (origin, solution.points, solution.values)
        if dx is not None and df is not None:
            self._dx, self._df = dx[:, :, : self.recycle], df[:, :, : self.recycle]

    def _raise(self, solution: Solution, failed: Tensor, advice: Callable[[], str] | None) -> None:
        worst = int(torch.where(failed, solution.residual, -1.0).argmax())
        residual, spent = float(solution.residual[worst]), int(solution.evaluations[worst])
        raise NotConverged(
            f"the implicit step of {int(failed.sum())} of {len(failed)} systems did not converge: system {worst} has "
            f"a residual of {residual:.1e}, {self.tolerance:.1e} was asked for, after {spent} evaluations"
            + (f"; {advice()}" if advice else ""),
            residual=residual,
            tolerance=self.tolerance,
            iterations=spent,
        )


def _newest(column: Tensor, columns: Tensor | None, most: int) -> Tensor:
    """Put a column in front of the others and let the oldest go."""
    column = column.unsqueeze(2)
    return column if columns is None else torch.cat([column, columns[:, :, : most - 1]], dim=2)
