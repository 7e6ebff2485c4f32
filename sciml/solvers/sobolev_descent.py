r"""Descent in a Sobolev space: the gradient of an energy, taken in H1 by the inverse Laplacian, and a line search.

Where the law ``F`` is the gradient of an energy in the sense of the dual cells, ``g = A^{-1} V F(u)`` is its gradient in the inner
product of ``A``, the discrete Laplacian with the sides at zero (plus ``pi^2 / extent^2`` where no side is held) and dual cells ``V``. Steps along ``-g`` reduce the energy by a
factor that does not depend on the grid, while those along ``-F`` (which is what the L2 inner product gives) shrink with its
square. The line search needs no energy, only its slope along the step, ``phi'(t) = <F(u + t d), d>``: it brackets a change of sign
and halves it by secants until ``|phi'(t)| <= 0.1 |phi'(0)|``. A bracket from falling to rising holds a minimum along the line. The
direction is ``-g``, or by default ``-g`` plus a part of the last one (Polak and Ribiere, never negative).

*Fails when* the energy has no minimum, as beyond the fold of Bratu's equation, and is slow where the tangent is far from a multiple of the
Laplacian. Near a solution Newton's method needs fewer steps; far from one, descent goes on where Newton's line search
stagnates. References: Neuberger, Sobolev Gradients and Differential Equations, 2010, doi
10.1007/978-3-642-04041-2; Huang, Li and Liu, J. Sci. Comput. 32, 2007, doi 10.1007/s10915-007-9134-z (p-Laplace).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor

from sciml.core.equation import Equation
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Iterative
from sciml.domains.boundary import Dirichlet, Robin
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.solvers.conjugate_gradient import Preconditioner
from sciml.solvers.gmres import settled
from sciml.solvers.newton import _norm, _scale

if TYPE_CHECKING:
    from sciml.discretise import Transform

__all__ = ["PolakRibiere", "SobolevDescent", "Steepest"]

TRIALS = 24
FLAT = 0.1  # of the slope at the beginning that the line search may leave
FAR = 4.0  # a step without a bracket grows by this


class Direction(Protocol):
    """How much of the last direction is added, per member, from ``<g, F>``, ``<g, F_last>`` and the last ``<g, F>``."""

    def share(self, now: Tensor, mixed: Tensor, last: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Steepest:
    """The gradient alone."""

    def share(self, now: Tensor, mixed: Tensor, last: Tensor) -> Tensor:
        """Nothing of the last direction."""
        return torch.zeros_like(now)


@dataclass(frozen=True)
class PolakRibiere:
    """Nonlinear conjugate gradients with restarts: ``max(0, <g, F - F_last> / <g_last, F_last>)``."""

    def share(self, now: Tensor, mixed: Tensor, last: Tensor) -> Tensor:
        """Polak and Ribiere's share, zero where it would be negative."""
        return ((now - mixed) / torch.where(last > 0, last, torch.ones_like(last))).clamp_min(0)


@dataclass(frozen=True, eq=False)
class State:
    """Iterate, law, direction, ``<g, F>``, last step length, what the certificate divides by, and whether no step was found."""

    u: Tensor
    f: Tensor
    direction: Tensor
    power: Tensor
    length: Tensor
    size: Tensor
    rest: Tensor
    stuck: Tensor
    laws: Tensor


@dataclass(frozen=True, eq=False)
class InverseLaplacian:
    """The law per volume to its gradient in H1, by sines and cosines; ``symbol`` holds the eigenvalues."""

    transform: Transform
    symbol: Tensor

    def __call__(self, f: Tensor) -> Tensor:
        return self.transform.inverse(self.transform.forward(f) / self.symbol)


@dataclass(frozen=True)
class SobolevDescent(Iterative):
    """Descent for equations whose law is the gradient of an energy, which a symmetric tangent says.

    ``preconditioner`` is the inverse of the inner product; None takes the Laplacian of the grid, by transforms (`Nearby(Multigrid(), ...)`
    for sides or media that they do not take). ``direction``: `PolakRibiere` or `Steepest`.
    """

    direction: Direction = PolakRibiere()
    preconditioner: Preconditioner | None = None
    max_steps: int = 2000
    patience: ClassVar[int] = 200
    citations: ClassVar[tuple[str, ...]] = ("@book{neuberger2010, doi={10.1007/978-3-642-04041-2}}",)

    def __post_init__(self) -> None:
        if self.max_steps < 0:
            raise InputError(f"max_steps is {self.max_steps}; it must not be negative")

    def accepts(self, problem: Problem) -> str | None:
        """Real equations of one state that say that their tangent is symmetric."""
        if not isinstance(problem, Equation):
            return "descent lowers the energy of a nonlinear Equation; a Linear problem is better given to ConjugateGradient"
        if not problem.symmetric:
            return "the law is not said to be the gradient of an energy, so there is nothing to descend; state it with symmetric=True if its tangent is"
        if problem.space.complex or problem.space.dtype.is_complex:
            return "the energy of a complex state is not supported; state it for two real channels"
        if self.preconditioner is not None:
            return self.preconditioner.accepts(problem)
        grid = problem.space.domain
        if not isinstance(grid, Grid):
            return (
                "the gradient is taken by the Laplacian of a grid, and the problem lives on none; give preconditioner="
            )
        if any(isinstance(condition, Robin) for pair in grid.conditions for condition in pair):
            return "a Robin side is not diagonal in any transform; give preconditioner=Nearby(Multigrid(), problem)"
        return None

    def setup(self, problem: Problem) -> Callable[[Tensor], Tensor]:
        """``F -> g``."""
        if self.preconditioner is not None:
            return self.preconditioner.preconditioner(problem)
        from sciml.discretise import Transform, eigenvalues

        space, grid = problem.space, problem.space.grid
        symbol = eigenvalues(grid, space.dtype, space.device)
        if not any(isinstance(condition, Dirichlet) for pair in grid.conditions for condition in pair):
            symbol = symbol + (math.pi / max(grid.extent)) ** 2  # the constant is a direction like any other
        return InverseLaplacian(Transform(grid), symbol)

    def init(self, problem: Problem, setup: Any, start: Tensor | None) -> State:
        """Start from ``start``, the problem's guess, or zero."""
        batch, space = problem.batch, problem.space
        guess = getattr(problem, "guess", None) if start is None else start
        u = space.zeros(batch) if guess is None else guess.to(space.dtype).expand(batch, *space.shape).clone()
        f = _law(problem, u)
        g = setup(f)
        size, rest = _scale(problem, u)
        one = torch.ones_like(size, dtype=u.dtype)
        return State(u, f, -g, _dot(g, f), one, size, rest, one < 0, torch.zeros_like(one))

    def step(self, problem: Problem, setup: Any, state: State) -> State:
        """Line search, then the next direction."""
        slope = _dot(state.f, state.direction)
        length, f, found, taken = _search(problem, state, slope)
        pick = _wide(found, state.u)
        u = torch.where(pick, state.u + _wide(length, state.u) * state.direction, state.u)
        f = torch.where(pick, f, state.f)
        g = setup(f)
        power = _dot(g, f)
        share = self.direction.share(power, _dot(g, state.f), state.power)
        direction = -g + _wide(torch.where(found, share, torch.zeros_like(share)), g) * state.direction
        uphill = _dot(f, direction) >= 0
        direction = torch.where(_wide(uphill, g), -g, direction)
        # The size of the tangent costs two dozen products: it is taken anew where the certificate is about to be met.
        size, rest = state.size, state.rest
        if not settled(_norm(f) > 4 * problem.targets["discrete"] * (size * _norm(u) + rest)):
            size, rest = _scale(problem, u)
        # A failed search is tried once more along the gradient alone.
        steep = (state.direction + setup(state.f)).flatten(1).abs().amax(1) == 0 if not settled(found) else found
        stuck = ~found & steep
        length = torch.where(found, length, torch.ones_like(length))
        return State(u, f, direction, power, length, size, rest, stuck, state.laws + taken)

    def measure(self, problem: Problem, setup: Any, state: State) -> Tensor:
        """The backward error with the tangent at the iterate, as the certificate measures it."""
        norm = _norm(state.f)
        return torch.where(norm == 0, torch.zeros_like(norm), norm / (state.size * _norm(state.u) + state.rest))

    def done(self, problem: Problem, setup: Any, state: State) -> Tensor:
        """CONVERGED at half the target; STAGNATED when no step along the gradient levels the energy."""
        reached = self.measure(problem, setup, state) <= 0.5 * problem.targets["discrete"]
        codes = torch.where(state.stuck, int(Code.STAGNATED), int(Code.RUNNING))
        return torch.where(reached, int(Code.CONVERGED), codes)

    def answer(self, problem: Problem, setup: Any, state: State) -> Answer:
        """The iterate, and how often the law was evaluated."""
        sentence = ""
        if bool(state.stuck.any()):
            sentence = "no step along the gradient levels the energy; it may have no minimum, or rounding is reached: loosen with_target or take Newton"
        claim = torch.zeros_like(state.stuck, dtype=torch.int64)
        return Answer(state.u, claim, counts={"laws": float(state.laws.max())}, sentence=sentence)


def _search(problem: Problem, state: State, slope: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """Per member a step length with a slope of at most ``FLAT`` of that at the beginning; the law there; whether it was found."""
    low, high = torch.zeros_like(slope), torch.full_like(slope, torch.inf)
    low_slope, high_slope = slope, torch.full_like(slope, torch.inf)
    trial, best, kept = state.length, torch.zeros_like(slope), state.f
    found, taken = torch.zeros_like(state.stuck), 0
    for _ in range(TRIALS):
        f = _law(problem, state.u + _wide(trial, state.u) * state.direction)
        taken += 1
        here = _dot(f, state.direction)
        finite = torch.isfinite(f).flatten(1).all(1) & torch.isfinite(here)
        good = ~found & finite & (here.abs() <= FLAT * slope.abs())
        best, kept = torch.where(good, trial, best), torch.where(_wide(good, f), f, kept)
        found = found | good
        if settled(found):
            break
        falling = finite & (here < 0)
        earlier, before = low, low_slope
        low, low_slope = torch.where(falling, trial, low), torch.where(falling, here, low_slope)
        high, high_slope = torch.where(falling, high, trial), torch.where(falling, high_slope, here)
        bracket = torch.isfinite(high) & torch.isfinite(high_slope)
        inside = low - low_slope * (high - low) / (high_slope - low_slope)
        margin = 0.05 * (high - low)
        inside = torch.maximum(torch.minimum(inside, high - margin), low + margin)
        inside = torch.where(bracket, inside, (low + high) / 2)
        ahead = low - low_slope * (low - earlier) / (low_slope - before)  # the secant, where it points ahead
        ahead = torch.where((ahead > low) & torch.isfinite(ahead), ahead, FAR * low)
        trial = torch.where(torch.isfinite(high), inside, torch.minimum(ahead, FAR * FAR * low))
    return best, kept, found, taken


def _law(problem: Problem, u: Tensor) -> Tensor:
    value: Tensor = problem.residual(u)  # type: ignore[attr-defined]
    return value.expand_as(u)


def _wide(a: Tensor, like: Tensor) -> Tensor:
    return a.reshape(-1, *[1] * (like.ndim - 1))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def example() -> tuple[SobolevDescent, Any]:
    """A small minimal surface under pressure."""
    from sciml.core.law import Law
    from sciml.discretise import corner_divergence

    def law(u: Tensor, *, curvature: Tensor, space: Any) -> Tensor:
        return corner_divergence(u, space, lambda s: (1 + s).rsqrt()) - curvature

    grid = Grid((9, 14), (1.0, 2.0))
    posed = Law(law, curvature=torch.tensor(1.0, dtype=torch.float64))
    return SobolevDescent(), Equation("small film", posed, grid.space(), symmetric=True)
