r"""Newton's method for ``F(u) = 0`` with inexact inner solves and a line search.

Each step solves ``J(u) s = -F(u)`` to a relative residual ``eta`` and takes ``u + t s`` with the first ``t = 1, 1/2, 1/4, ...`` that
has ``|F(u + t s)| <= (1 - 1e-4 t) |F(u)|``. The forcing is the second choice of Eisenstat and Walker,
``eta = 0.9 (|F_k| / |F_(k-1)|)^2``, at most 0.1: convergence stays quadratic and early steps are cheap. The tangent is applied
without a matrix, by conjugate gradients where the problem says that it is symmetric (GMRES takes over when it proves
indefinite), by GMRES otherwise.

*Fails when* the start lies in no basin of a solution or there is none (the line search finds no descent: STAGNATED, with the
sentence that says so), or near a fold, where the tangent is singular. References: Dembo, Eisenstat and Steihaug, SIAM J.
Numer. Anal. 19, 1982, doi 10.1137/0719025; Eisenstat and Walker, SIAM J. Sci. Comput. 17, 1996, doi 10.1137/0917003.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.equation import Equation
from sciml.core.linear import LinearOperator
from sciml.core.problem import Linear, Problem, project_out
from sciml.core.solution import Answer, Code
from sciml.core.solver import Context, Iterative, Solver
from sciml.domains.errors import InputError
from sciml.solvers.conjugate_gradient import Preconditioner
from sciml.solvers.gmres import cycle, settled

__all__ = ["Nearby", "Newton"]

Map = Callable[[Tensor], Tensor]

HALVINGS = 12
INNER = 5000
CYCLE = 40


@dataclass(frozen=True, eq=False)
class State:
    """Iterate, residual and its norm, forcing, what the certificate divides by, and whether the line search failed."""

    u: Tensor
    f: Tensor
    norm: Tensor
    forcing: Tensor
    size: Tensor
    rest: Tensor
    stuck: Tensor
    inner: Tensor


@dataclass(frozen=True, eq=False)
class Nearby:
    """A preconditioner for tangents, taken from a ``problem`` nearby, such as the diffusion in the law: ``M = A^-1 V``.

    ``inner`` gives the approximate inverse of ``problem.operator`` (``Multigrid()``); ``V`` are the dual cells, since laws are
    stated per volume. Symmetric where all cells are of one size (no Neumann or Robin side), as the tangents of such laws.
    """

    inner: Preconditioner
    problem: Linear

    def accepts(self, problem: Problem) -> str | None:
        """Problems on the same space."""
        here, there = self.problem.space, problem.space
        if here.shape != there.shape or here.dtype != there.dtype:
            return (
                f"its nearby problem lives on {here.shape} in {here.dtype}, this one on {there.shape} in {there.dtype}"
            )
        return self.inner.accepts(self.problem)

    def preconditioner(self, problem: Problem) -> Map:
        """``r -> A^-1 V r``, approximately."""
        inner, operator = self.inner.preconditioner(self.problem), self.problem.operator.homogeneous()
        return lambda r: inner(operator.load(r))


@dataclass(frozen=True, eq=False)
class Setup:
    """The null space of a linear operator, and the preconditioner."""

    null: tuple[Tensor, ...]
    apply: Map | None


@dataclass(frozen=True)
class Newton(Iterative):
    """Newton-Krylov. ``linear`` solves the tangent problem instead (a solver of Linear problems, such as ``Direct()``).

    ``preconditioner`` serves the built-in inner solves, such as ``Nearby(Multigrid(), poisson)``.
    """

    linear: Solver | None = None
    preconditioner: Preconditioner | None = None
    max_steps: int = 30
    patience: ClassVar[int] = 15
    citations: ClassVar[tuple[str, ...]] = ("@article{eisenstat1996, doi={10.1137/0917003}}",)

    def __post_init__(self) -> None:
        if self.max_steps < 0:
            raise InputError(f"max_steps is {self.max_steps}; it must not be negative")
        if self.linear is not None and self.preconditioner is not None:
            raise InputError(
                "Newton takes linear= or preconditioner=, not both; give the preconditioner to the linear solver"
            )

    def accepts(self, problem: Problem) -> str | None:
        """Equations and Linear problems of one real state."""
        if not isinstance(problem, Equation | Linear):
            return "Newton's method solves equations of one state, Equation and Linear problems"
        if isinstance(problem, Equation) and problem.space.complex:
            return (
                "the tangent of a complex equation is linear over the real numbers only; state it for two real channels"
            )
        if self.linear is not None and isinstance(problem, Linear):
            return self.linear.accepts(problem)
        return None if self.preconditioner is None else self.preconditioner.accepts(problem)

    def transposed(self) -> Newton:
        """The same, with the transposed linear solver."""
        return self if self.linear is None else dataclasses.replace(self, linear=self.linear.transposed())

    def setup(self, problem: Problem) -> Setup:
        """The null space of a linear operator (of an equation nothing is known beforehand) and the preconditioner."""
        null = problem.operator.null_space() if isinstance(problem, Linear) else ()
        return Setup(null, None if self.preconditioner is None else self.preconditioner.preconditioner(problem))

    def init(self, problem: Problem, setup: Setup, start: Tensor | None) -> State:
        """Start from ``start``, the problem's guess, or zero."""
        batch, space = problem.batch, problem.space
        guess = getattr(problem, "guess", None) if start is None else start
        u = space.zeros(batch) if guess is None else guess.to(space.dtype).expand(batch, *space.shape).clone()
        f = _residual(problem, u)
        norm = _norm(f)
        forcing = torch.full_like(norm, 0.1)
        if isinstance(problem, Linear):
            forcing = torch.full_like(norm, 0.25 * problem.targets["discrete"])
        size, rest = _scale(problem, u)
        return State(u, f, norm, forcing, size, rest, norm < 0, torch.zeros_like(norm))

    def step(self, problem: Problem, setup: Setup, state: State) -> State:
        """One inner solve and the line search."""
        tangent = _tangent(problem, state.u)
        right = project_out(-state.f, setup.null)
        direction, inner = self._inner(problem, tangent, right, state, setup.apply)
        direction = project_out(direction, setup.null)
        direction = torch.where(torch.isfinite(direction), direction, torch.zeros_like(direction))
        u, f, norm, found = state.u, state.f, state.norm, torch.zeros_like(state.stuck)
        length = 1.0
        for _ in range(HALVINGS):
            trial = state.u + length * direction
            value = _residual(problem, trial)
            size = _norm(value)
            better = ~found & torch.isfinite(size) & (size <= (1 - 1e-4 * length) * state.norm)
            pick = better.reshape(-1, *[1] * (u.ndim - 1))
            u, f = torch.where(pick, trial, u), torch.where(pick, value, f)
            norm, found = torch.where(better, size, norm), found | better
            if settled(found | (state.norm == 0)):
                break
            length = length / 2
        # The size of the tangent costs two dozen products: it is taken anew where the certificate is about to be met.
        scale, rest = state.size, state.rest
        if not settled(norm > 4 * problem.targets["discrete"] * (scale * _norm(u) + rest)):
            scale, rest = _scale(problem, u)
        ratio = norm / torch.where(state.norm > 0, state.norm, torch.ones_like(norm))
        floor = (
            0.1
            * problem.targets["discrete"]
            * (scale * _norm(u) + rest)
            / torch.where(norm > 0, norm, torch.ones_like(norm))
        )
        forcing = torch.maximum(torch.clamp(0.9 * ratio.square(), max=0.1), floor.clamp(max=0.1))
        if isinstance(problem, Linear):
            forcing = state.forcing
        return State(u, f, norm, forcing, scale, rest, ~found, state.inner + inner)

    def _inner(
        self, problem: Problem, tangent: LinearOperator, right: Tensor, state: State, apply: Map | None
    ) -> tuple[Tensor, int]:
        if self.linear is None:
            return solve_tangent(tangent, right, state.forcing * _norm(right), apply)
        goals = {"discrete": problem.targets["discrete"]}
        posed = Linear(
            f"{problem.name}, tangent", tangent.homogeneous(), tangent.homogeneous().source_of(right), goals=goals
        )
        reason = self.linear.accepts(posed)
        if reason is not None:
            raise InputError(
                f"Newton's tangent problem of {problem.name!r} cannot be given to {type(self.linear).__name__}: {reason}"
            )
        if self.linear.batched or posed.batch == 1:
            answer = self.linear.run(posed, None, Context())
            return answer.value, answer.steps
        answers = [self.linear.run(posed.member(i), None, Context()) for i in range(posed.batch)]
        return torch.cat([one.value for one in answers]), max(one.steps for one in answers)

    def measure(self, problem: Problem, setup: Setup, state: State) -> Tensor:
        """The backward error with the tangent at the iterate, as the certificate measures it."""
        bottom = state.size * _norm(state.u) + state.rest
        return torch.where(state.norm == 0, torch.zeros_like(state.norm), state.norm / bottom)

    def done(self, problem: Problem, setup: Setup, state: State) -> Tensor:
        """CONVERGED at half the target; STAGNATED when no step length reduces the residual."""
        reached = self.measure(problem, setup, state) <= 0.5 * problem.targets["discrete"]
        codes = torch.where(state.stuck, int(Code.STAGNATED), int(Code.RUNNING))
        return torch.where(reached, int(Code.CONVERGED), codes)

    def answer(self, problem: Problem, setup: Setup, state: State) -> Answer:
        """The iterate, the number of inner steps, and what stopped the line search."""
        sentence = ""
        if bool(state.stuck.any()):
            i = int(torch.nonzero(state.stuck)[0])
            sentence = f"no step along Newton's direction reduces |F| = {float(state.norm[i]):.1e}; there may be no solution nearby, try another start"
        claim = torch.zeros_like(state.stuck, dtype=torch.int64)
        return Answer(state.u, claim, counts={"inner_steps": float(state.inner.max())}, sentence=sentence)


def solve_tangent(
    operator: LinearOperator, right: Tensor, goal: Tensor, apply: Map | None = None
) -> tuple[Tensor, int]:
    """``operator(s) = right`` up to a residual of norm ``goal`` (per member), by CG or GMRES; and the steps taken."""
    s, steps = torch.zeros_like(right), 0
    if operator.symmetric and operator.definite is not False:
        s, steps, sound = _conjugate_gradients(operator, right, goal, apply)
        if sound:
            return s, steps
    r, length = right - operator(s), min(CYCLE, operator.space.size)
    for _ in range(max(1, INNER // length)):
        change, _, taken = cycle(operator, r, length, apply, goal)
        s = s + change
        steps += taken
        r = right - operator(s)
        if settled(_norm(r) <= goal):
            break
    return s, steps


def _conjugate_gradients(
    operator: LinearOperator, b: Tensor, goal: Tensor, apply: Map | None
) -> tuple[Tensor, int, bool]:
    """CG per member, each frozen when it is done; False when the curvature is not positive somewhere."""
    shape = (-1, *[1] * (b.ndim - 1))
    u, r = torch.zeros_like(b), b
    z = r if apply is None else apply(r)
    p, rho = z, _dot(r, z)
    every = 1 if b.device.type == "cpu" else 8
    for step in range(1, INNER + 1):
        image = operator(p)
        curvature = _dot(p, image)
        active = _norm(r) > goal
        if not settled(~active | ((curvature > 0) & (rho > 0))):
            return torch.zeros_like(b), step, False
        alpha = torch.where(active, rho / curvature, torch.zeros_like(rho)).reshape(shape)
        u, r = u + alpha * p, r - alpha * image
        if step % every == 0 and settled(_norm(r) <= goal):
            return u, step, True
        z = r if apply is None else apply(r)
        new = _dot(r, z)
        p = z + torch.where(active, new / rho, torch.zeros_like(rho)).reshape(shape) * p
        rho = new
    return u, INNER, True


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _residual(problem: Problem, u: Tensor) -> Tensor:
    value: Tensor = problem.residual(u)  # type: ignore[attr-defined]
    return value.expand_as(u)


def _tangent(problem: Problem, u: Tensor) -> LinearOperator:
    operator: LinearOperator = problem.tangent(u)  # type: ignore[attr-defined]
    return operator.homogeneous()


def _scale(problem: Problem, u: Tensor) -> tuple[Tensor, Tensor]:
    """``|J(u)|`` and the norm of the rest, as the certificate takes them."""
    if isinstance(problem, Linear):
        return problem.operator.size_bound().expand(u.shape[0]), _norm(problem.rhs).expand(u.shape[0])
    size, rest = problem.scale(u)  # type: ignore[attr-defined]
    return size.expand(u.shape[0]), _norm(rest).expand(u.shape[0])


def _norm(a: Tensor) -> Tensor:
    result: Tensor = torch.linalg.vector_norm(a.flatten(1), dim=1)
    return result


def example() -> tuple[Newton, Any]:
    """A small Bratu problem."""
    from sciml.core.law import Law
    from sciml.discretise import laplacian
    from sciml.domains import Grid

    def law(u: Tensor, *, lam: Tensor, space: Any) -> Tensor:
        return -laplacian(u, space) - lam * u.exp()

    grid = Grid((9, 14), (1.0, 2.0))
    posed = Law(law, lam=torch.tensor(0.5, dtype=torch.float64))
    return Newton(), Equation("small bratu", posed, grid.space(), symmetric=True)
