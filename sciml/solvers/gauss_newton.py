r"""The Gauss-Newton method for forward models that are not linear, with inexact inner solves and a line search.

For ``P(x) = F(x) + weight R(x)`` each step solves

    (J^H H J + weight C + mu) d = -grad P(x)

by conjugate gradients, with ``J`` the derivative of the forward model at ``x``, ``H`` the curvature of the noise's energy (its
expectation, so that it is positive) and ``C`` that of the prior, and takes ``x + t d`` with the first ``t = 1, 1/2, 1/4, ...``
that has ``P(x + t d) <= P(x) - 1e-4 t <-grad P, d>``. The inner residual is reduced to ``eta = 0.9 (|grad P_k| / |grad P_(k-1)|)^2``, at
most 0.5 (the second choice of Eisenstat and Walker), or until the quadratic model is solved to the problem's own target,
whichever comes first; for a problem that is quadratic only the latter counts, so that one step is enough. ``mu`` is zero until
a step had to be cut below a quarter (Levenberg's damping), and falls again after full steps.

Without a prior the inner iteration regularises: it stops where the linear model of chi-square has been halved or has come down
to the degrees of freedom, and the last step is cut where chi-square per degree of freedom is 1 (Hanke's rule for the
inner, Morozov's for the outer iteration).

References: Eisenstat and Walker, SIAM J. Sci. Comput. 17 (1996), doi 10.1137/0917003; Hanke, Inverse Problems 13, 79 (1997),
doi 10.1088/0266-5611/13/1/007; Nocedal and Wright, Numerical Optimization (2006), chapters 7 and 10.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.gradients import Gradient, Unroll
from sciml.core.inverse import Inverse
from sciml.core.linear import ForwardModel, LinearOperator
from sciml.core.noise import across
from sciml.core.prior import Smooth
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Iterative, running
from sciml.domains.errors import InputError
from sciml.domains.space import Space
from sciml.solvers._normal import (
    Fit,
    Krylov,
    conjugate_gradients,
    fit,
    inner,
    quadratic,
    ratio,
    spread,
    unposed,
    weights,
)
from sciml.solvers.gmres import settled

__all__ = ["GaussNewton"]

HALVINGS = 12
BISECTIONS = 20
GIVEN_UP = 6
FAR = 1e30  # before the first measurement


@dataclass(frozen=True)
class Setup:
    """The targets of the problem."""

    optimality: float
    misfit: float


@dataclass(frozen=True, eq=False)
class State:
    """Image, objective, gradient, damping, forcing and counters per member."""

    x: Tensor
    value: Tensor
    g: Tensor
    afar: Tensor
    damping: Tensor
    forcing: Tensor
    gap: Tensor
    failed: Tensor
    products: Tensor
    count: int


@dataclass(frozen=True, eq=False)
class GaussNewton(Iterative[Inverse[Smooth | None]]):
    """Gauss-Newton-Krylov for Inverse problems with a smooth prior at a posed weight, or without a prior.

    ``inner`` is the most conjugate gradient steps of one outer step. Stops at half the target of ``optimality``; without a prior
    where chi-square per degree of freedom is 1. Counted: the products with the Gauss-Newton matrix (``inner_steps``).

    *Fails when* the start lies in no basin of a good fit: the answer is then stationary (its chi-square, told beside, is
    large), or no step along the direction lowers the objective: STAGNATED, with the sentence that says so.
    """

    max_steps: int = 50
    inner: int = 500
    gradient: ClassVar[Gradient] = Unroll()
    citations: ClassVar[tuple[str, ...]] = (
        "@article{eisenstat1996, doi={10.1137/0917003}}",
        "@article{hanke1997, doi={10.1088/0266-5611/13/1/007}}",
    )

    def __post_init__(self) -> None:
        if self.max_steps < 0 or self.inner < 1:
            raise InputError(
                f"GaussNewton(max_steps={self.max_steps}, inner={self.inner}): give positive numbers of steps"
            )

    def accepts(self, problem: Problem) -> str | None:
        """Inverse problems without a prior, or with a smooth one at a weight."""
        if not isinstance(problem, Inverse):
            return "GaussNewton takes Inverse problems: data, noise and a forward model"
        if problem.prior is None:
            return None
        if not isinstance(problem.prior, Smooth):
            return f"its prior {type(problem.prior).__name__} has no gradient; use PrimalDual, ADMM or ProximalGradient, or a smooth prior such as Smoothness"
        return unposed(problem, "GaussNewton")

    def setup(self, problem: Problem) -> Setup:
        """The targets: the tangent changes with the image."""
        return Setup(problem.targets["optimality"], problem.targets["misfit"])

    def init(self, problem: Problem, setup: Setup, start: Tensor | None) -> State:
        """From ``start`` or zero."""
        assert isinstance(problem, Inverse)
        x = spread(problem, start)
        value, g = _objective(problem, x, fit(problem, x))
        one = torch.ones_like(value)
        afar = 0 * one if problem.prior is None else problem.radius(x) - inner(x, x).sqrt()
        state = State(x, value, g, afar, 0 * one, 0.5 * one, FAR * one, 0 * one, 0 * one, 0)
        return state if problem.prior is not None else _with_gap(problem, setup, state)

    def step(self, problem: Problem, setup: Setup, state: State) -> State:
        """One inner solve and the line search."""
        assert isinstance(problem, Inverse)
        here = fit(problem, state.x)
        solved = self._direction(problem, setup, state, here)
        d, descent = solved.d, inner(-state.g, solved.d).detach()
        length, found = _armijo(problem, state, d, descent)
        if problem.prior is None:
            length = _cut(problem, state, d, length, 0.04 * setup.misfit)
        x = state.x + across(length, d) * d
        value, g = _objective(problem, x, fit(problem, x))
        with torch.no_grad():
            mean = ratio(descent, inner(d, d))
            poor, full = ~found | (length < 0.25), length >= 1
            damping = torch.where(poor, torch.maximum(4 * state.damping, mean), state.damping)
            damping = torch.where(full, state.damping / 8, damping)
            damping = torch.where(damping < 1e-3 * mean, torch.zeros_like(damping), damping)
            fallen = ratio(inner(g, g), inner(state.g, state.g))
            forcing = (0.9 * fallen).clamp(1e-8, 0.5)
            failed = torch.where(found, torch.zeros_like(mean), state.failed + 1)
        products = state.products + solved.steps
        new = State(x, value, g, state.afar, damping, forcing, state.gap, failed, products, state.count + 1)
        return _with_gap(problem, setup, new, found)

    def _direction(self, problem: Inverse[Any], setup: Setup, state: State, here: Fit) -> Krylov:
        """The inner solve."""
        prior, mu = problem.prior, across(state.damping, state.x)
        bend = None if prior is None else prior.curvature(state.x)
        weight = None if prior is None else across(weights(problem), state.x)
        exact = quadratic(problem) and (prior is None or getattr(prior, "quadratic", False))
        begin = inner(state.g, state.g).detach().sqrt()
        target, dof = 0.25 * setup.optimality, problem.noise.dof(problem.data)

        def apply(d: Tensor) -> Tensor:
            image = here.curvature(d) + mu * d
            return image if bend is None or weight is None else image + weight * bend(d)

        def enough(d: Tensor, left: Tensor, drop: Tensor) -> Tensor:
            value = (state.value - drop).detach()
            if prior is None:
                return (value <= torch.maximum(dof / 2, state.value / 2)) | (left <= 1e-10 * begin)
            whole = state.x + d
            reach = inner(whole, whole).detach().sqrt() + state.afar
            solved = left * reach <= target * value
            coarse = left <= (1e-14 if exact else state.forcing) * begin
            return solved | coarse

        return conjugate_gradients(apply, -state.g, self.inner, enough)

    def measure(self, problem: Problem, setup: Setup, state: State) -> Tensor:
        """The certificate's number: ``|grad P| |x| / P``, or how far chi-square per degree of freedom is above 1."""
        return state.gap

    def done(self, problem: Problem, setup: Setup, state: State) -> Tensor:
        """CONVERGED at half the target, or at the noise level; STAGNATED when damped steps lower nothing either."""
        assert isinstance(problem, Inverse)
        codes = running(state.x.shape[0], state.x.device)
        codes = torch.where(state.failed >= GIVEN_UP, torch.full_like(codes, int(Code.STAGNATED)), codes)
        goal = 0.05 * setup.misfit if problem.prior is None else setup.optimality / 2
        good = (state.gap <= goal) & (state.count > 0 or problem.prior is None)
        return torch.where(good, torch.full_like(codes, int(Code.CONVERGED)), codes)

    def answer(self, problem: Problem, setup: Setup, state: State) -> Answer:
        """The image, and what stopped the line search."""
        sentence = ""
        if bool((state.failed >= GIVEN_UP).any()):
            i = int(torch.nonzero(state.failed >= GIVEN_UP)[0])
            sentence = f"no step along the Gauss-Newton direction lowers the objective {float(state.value[i]):.3e}; check the forward model with sciml.checks.derivative, or try another start"
        counts = {"inner_steps": float(state.products.max())}
        return Answer(state.x, running(state.x.shape[0], state.x.device), counts=counts, sentence=sentence)


def _objective(problem: Inverse[Any], x: Tensor, here: Fit) -> tuple[Tensor, Tensor]:
    """``P`` and its gradient."""
    if problem.prior is None:
        return here.value, here.gradient
    weight = weights(problem)
    value = here.value + weight.to(torch.float64) * problem.prior.energy(x)
    return value, here.gradient + across(weight, x) * problem.prior.gradient(x)


def _level(problem: Inverse[Any], x: Tensor) -> Tensor:
    value = problem.noise.energy(problem.forward(x), problem.data)
    if problem.prior is None:
        return value
    energy: Tensor = problem.prior.energy(x)
    return value + weights(problem).to(torch.float64) * energy


def _armijo(problem: Inverse[Any], state: State, d: Tensor, descent: Tensor) -> tuple[Tensor, Tensor]:
    """The first of 1, 1/2, 1/4, ... that lowers the objective enough, zero where none does; and where one does."""
    with torch.no_grad():
        slack = 0.01 * torch.finfo(d.dtype).eps ** 0.5 * state.value.abs()  # sums of large residuals are rounded
        length, found = torch.ones_like(descent), torch.zeros_like(descent, dtype=torch.bool)
        for _ in range(HALVINGS):
            value = _level(problem, state.x + across(length, d) * d)
            found = found | (torch.isfinite(value) & (value <= state.value - 1e-4 * length * descent + slack))
            if settled(found):
                break
            length = torch.where(found, length, length / 2)
        return torch.where(found, length, torch.zeros_like(length)), found


def _cut(problem: Inverse[Any], state: State, d: Tensor, length: Tensor, band: float) -> Tensor:
    """Where the step goes below the noise level, the length (by bisection) at which chi-square is the degrees of freedom."""
    dof = problem.noise.dof(problem.data)
    with torch.no_grad():

        def away(t: Tensor) -> Tensor:
            return problem.misfit(state.x + across(t, d) * d) - 1

        below = (2 * state.value > dof) & (away(length) < -band)
        low, high = torch.zeros_like(length), length
        for _ in range(BISECTIONS):
            if settled(~below):
                break
            middle = (low + high) / 2
            off = away(middle)
            low, high = torch.where(off > 0, middle, low), torch.where(off > 0, high, middle)
            length = torch.where(below, middle, length)
            below = below & (off.abs() > band)
        return length


def _with_gap(problem: Inverse[Any], setup: Setup, state: State, moved: Tensor | None = None) -> State:
    """The state with its number; where that is small, the problem's own."""
    with torch.no_grad():
        if problem.prior is None:
            return dataclasses.replace(state, gap=(problem.misfit(state.x) - 1).clamp_min(0.0))
        reach = problem.radius(state.x)
        state = dataclasses.replace(state, afar=reach - inner(state.x, state.x).sqrt())
        gap = torch.nan_to_num(ratio(inner(state.g, state.g).sqrt() * reach, state.value), nan=FAR, posinf=FAR)
        near = gap <= setup.optimality / 2
        if not settled(~near):
            gap = torch.where(near, problem.optimality(state.x.detach(), weights(problem)).to(gap), gap)
        return dataclasses.replace(state, gap=gap if moved is None else torch.where(moved, gap, state.gap))


@dataclass(frozen=True, eq=False)
class Exponential(ForwardModel):
    """``x -> A exp(x)``: a small forward model that is not linear."""

    linear: LinearOperator

    @property
    def space(self) -> Space:
        """The signals."""
        return self.linear.space

    @property
    def codomain(self) -> Space:
        """The data."""
        return self.linear.codomain

    def __call__(self, u: Tensor) -> Tensor:
        return self.linear(u.exp())

    def linearise(self, x: Tensor) -> LinearOperator:
        """``A diag(exp(x))``."""
        return self.linear @ Diagonal(self.space, x.exp())


@dataclass(frozen=True, eq=False)
class Diagonal(LinearOperator):
    """Entrywise product with real factors."""

    on: Space
    factors: Tensor

    @property
    def space(self) -> Space:
        """The signals."""
        return self.on

    def __call__(self, u: Tensor) -> Tensor:
        return self.factors * u

    def adjoint(self, v: Tensor) -> Tensor:
        """The same: the factors are real."""
        return self.factors * v


def example() -> tuple[GaussNewton, Any]:
    """A signal of which the logarithm is sought, seen through a matrix, without a prior."""
    from sciml.core.matrix import Matrix
    from sciml.core.noise import GaussianNoise

    generator = torch.Generator().manual_seed(0)
    matrix = Matrix(torch.rand(30, 12, generator=generator, dtype=torch.float64))
    forward = Exponential(matrix)
    truth = torch.linspace(-0.5, 0.5, 12, dtype=torch.float64).reshape(1, 1, 12)
    noise = GaussianNoise(0.2)
    return GaussNewton(), Inverse("small logarithm", forward, noise.sample(forward(truth), generator=generator), noise)
