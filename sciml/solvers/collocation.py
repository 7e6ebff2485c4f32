r"""Implicit collocation at Radau points, exact linear algebra per mode: the referee of evolutions with a diagonal part.

In the basis in which the stiff part is diagonal, the ``s`` stages of the Radau IIA method (order ``2s - 1``, L-stable) with
nodes ``c`` and matrix ``A`` satisfy

    V_i = v + h sum_j A_ij (symbol V_j + N(t + c_j h, V_j)),     v(t + h) = V_s.

For every mode the ``s x s`` matrix ``I - h symbol A`` is inverted; ``N`` enters by fixed-point sweeps, each stage using the
newest values of the others, until nothing changes. Sweeps that do not contract halve the step. Nothing is shared with the
exponential methods but the statement of the problem, and ``rest_modes`` is held against ``rest`` before it is used.

*Fails when* ``h N'`` is large on modes that the stiff part does not damp: very many short steps are then needed.
Reference: Hairer and Wanner, Solving Ordinary Differential Equations II, 1996, sec. IV.5 and IV.8, doi 10.1007/978-3-642-05221-7.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.core.gradients import Gradient, Unroll
from sciml.core.loop import march
from sciml.core.problem import Problem
from sciml.core.solution import Answer
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.solvers._semidiscrete import Semidiscrete

__all__ = ["Collocation"]

SWEEPS = 72  # at a contraction of 0.6 per sweep, the worst that is accepted, these reach rounding


@cache
def radau(stages: int) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
    """Nodes and matrix of the Radau IIA method."""
    import numpy as np
    from numpy.polynomial import legendre

    # The nodes are the zeros of P_(s-1) - P_s; 1 is one of them.
    x = np.sort(legendre.legroots([0.0] * (stages - 1) + [1.0, -1.0]).real)
    c = (1 + x) / 2
    c[-1] = 1.0
    powers = np.arange(stages)
    matrix = (c[:, None] ** (powers + 1) / (powers + 1)) @ np.linalg.inv(c[:, None] ** powers)
    return tuple(c.tolist()), tuple(tuple(row) for row in matrix.tolist())


@dataclass(frozen=True)
class Collocation(Solver):
    """Radau IIA with ``stages`` stages, as a solver of steps of at most ``step`` and as a referee.

    ``step`` None: every interval between wanted times is cut until halving the steps changes the state by less than a
    tenth of the target. A member on which the sweeps do not contract at the smallest step (``limit`` per interval) is
    returned as it stands; the certificate then shows it.
    """

    gradient: ClassVar[Gradient] = Unroll()
    citations: ClassVar[tuple[str, ...]] = ("@book{hairer1996, doi={10.1007/978-3-642-05221-7}}",)
    step: float | None = None
    stages: int = 4
    limit: int = 4096

    def __post_init__(self) -> None:
        if self.step is not None and not self.step > 0:
            raise InputError(f"Collocation(step={self.step}): the step must be positive, or None")
        if not 2 <= self.stages <= 7:
            raise InputError(f"Collocation(stages={self.stages}): use 2 to 7 stages")

    def accepts(self, problem: Problem) -> str | None:
        """Evolutions, with or without a stiff part."""
        return None if isinstance(problem, Evolution) else "collocation in time solves Evolution problems"

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """Step through the wanted times."""
        problem = cast(Evolution, problem)
        system = Semidiscrete(problem, fast=False)
        tolerance = 0.1 * problem.targets["steps"] / len(problem.times)

        def leap(t: float, h: float, v: Tensor) -> Tensor:
            if self.step is None:
                return self._settled(system, t, h, v, tolerance)
            many, whole = 1, self._steps(system, t, h, v, 1, tolerance)
            while not bool(whole[1].all()) and many < self.limit:
                many *= 2
                whole = self._steps(system, t, h, v, many, tolerance)
            return whole[0]

        span = problem.times[-1] - problem.begin
        return march(
            problem, span or 1.0 if self.step is None else self.step, leap, system.begin, system.stiff.inverse, context
        )

    def advance(self, problem: Evolution, begin: float, before: Tensor, end: float, tolerance: float) -> Tensor:
        """The state at ``end``: steps are halved until two answers in a row differ by less than ``tolerance``, relatively."""
        system, quick = Semidiscrete(problem, fast=False), Semidiscrete(problem)
        v = system.stiff.forward(before.expand(problem.batch, *before.shape[1:]))
        if quick.law is not None:
            # The problem's other statement of its rest is used only where it says the same of this very state.
            said, meant = quick.rest(begin, v), system.rest(begin, v)
            if bool((_size(said - meant) <= 1e-10 * _size(meant)).all()):
                system = quick
        return system.stiff.inverse(self._settled(system, begin, end - begin, v, tolerance))

    def _settled(self, system: Semidiscrete, t: float, h: float, v: Tensor, tolerance: float) -> Tensor:
        many, best, last = 1, v, None
        settled = torch.zeros(v.shape[0], dtype=torch.bool, device=v.device)
        before = torch.full((v.shape[0],), float("inf"), dtype=v.real.dtype, device=v.device)
        while True:
            value, good = self._steps(system, t, h, v, many, tolerance, settled)
            rows = (-1, *[1] * (v.ndim - 1))
            best = torch.where(settled.reshape(rows), best, value)
            if last is not None:
                change = _size(value - last[0]) / _size(value).clamp_min(1e-300)
                # Where halving has stopped helping far below any target, rounding has the word.
                stalled = (change < 1e-9) & (change > 0.5 * before)
                # The order is at least s + 1, also on stiff modes: the finer answer is 16 times closer than the change.
                settled = settled | ((change <= 16 * tolerance) | stalled) & good & last[1]
                before = change
            if many >= self.limit or bool(settled.all()):
                return best
            last, many = (value, good), 2 * many

    def _steps(
        self,
        system: Semidiscrete,
        t: float,
        h: float,
        v: Tensor,
        many: int,
        tolerance: float,
        idle: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``many`` equal steps over ``h``, and which members' sweeps converged in all of them.

        Ends early when no member that still matters (not ``idle``) can succeed.
        """
        start, propagate = self._matrices(system.symbol, h / many, v.dtype)
        fine = torch.ones(v.shape[0], dtype=torch.bool, device=v.device)
        # A fifth of what is allowed, and no less than rounding leaves.
        allowed = max(0.2 * tolerance / many, 8 * torch.finfo(v.real.dtype).eps)
        for i in range(many):
            v, good = self._step(system, start, propagate, t + i * h / many, h / many, v, allowed)
            fine = fine & good
            if not bool((fine if idle is None else fine & ~idle).any()):
                break
        return v, fine

    def _matrices(
        self, symbol: Tensor, h: float, dtype: torch.dtype
    ) -> tuple[tuple[Tensor, ...], tuple[tuple[Tensor, ...], ...]]:
        """``(I - h symbol A)^-1 1`` and ``(I - h symbol A)^-1 h A`` per mode."""
        _, rows = radau(self.stages)
        a = torch.tensor(rows, dtype=symbol.dtype, device=symbol.device)
        eye = torch.eye(self.stages, dtype=symbol.dtype, device=symbol.device)
        inverse = torch.linalg.inv(eye - h * symbol[..., None, None] * a)
        full = (inverse @ (h * a)).to(dtype)
        each = range(self.stages)
        return tuple(inverse[..., i, :].sum(-1) for i in each), tuple(
            tuple(full[..., i, j].contiguous() for j in each) for i in each
        )

    def _step(
        self,
        system: Semidiscrete,
        start: tuple[Tensor, ...],
        propagate: tuple[tuple[Tensor, ...], ...],
        t: float,
        h: float,
        v: Tensor,
        allowed: float,
    ) -> tuple[Tensor, Tensor]:
        nodes, _ = radau(self.stages)
        if system.linear:
            return start[-1] * v, torch.ones(v.shape[0], dtype=torch.bool, device=v.device)
        free = [p * v for p in start]
        times = [t + c * h for c in nodes]
        n = [system.rest(times[0], v)] * self.stages
        state, fewest = v, torch.full((v.shape[0],), float("inf"), dtype=v.real.dtype, device=v.device)
        good = torch.zeros(v.shape[0], dtype=torch.bool, device=v.device)
        for sweep in range(SWEEPS):
            old = state
            for i in range(self.stages):
                state = free[i]
                for j in range(self.stages):
                    state = torch.addcmul(state, propagate[i][j], n[j])
                n[i] = system.rest(times[i], state)
            change = _size(state - old) / _size(state).clamp_min(1e-300)
            # At rounding the change stops falling; sweeps that hardly contract are worse than shorter steps.
            eps = torch.finfo(change.dtype).eps
            good = (change <= allowed) | ((change < 1e4 * eps) & (change > 0.5 * fewest))
            lost = ~torch.isfinite(change) | ((change > 0.6 * fewest) & (sweep > 2))
            if bool((good | lost).all()):
                break
            fewest = torch.minimum(fewest, change)
        return state, good


def _size(v: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(v.detach().flatten(1), dim=1)
    return size


def example() -> tuple[Collocation, Any]:
    """Reaction and diffusion on a small periodic grid."""
    from sciml.core.law import Law
    from sciml.discretise import Spectrum
    from sciml.domains import Grid, Periodic

    grid = Grid((9, 14), (1.0, 2.0), sides=Periodic())
    x, y = grid.points()
    wave = torch.cos(2 * torch.pi * x) * torch.sin(torch.pi * y)
    problem = Evolution(
        "a small front",
        space=grid.space(),
        start=0.8 * wave,
        times=(0.25, 0.5),
        rest=Law(_bistable),
        stiff=Spectrum(grid, diffusivity=torch.tensor(0.02, dtype=torch.float64)),
        referee=Collocation(stages=5),
    )
    return Collocation(step=0.05), problem


def _bistable(t: float, u: Tensor) -> Tensor:
    return u - u * u * u
