r"""Least squares for linear forward models and Gaussian noise: conjugate gradients on the normal equations.

With the whitened model ``A = W forward``, whitened data ``b`` and a quadratic prior of curvature ``C`` (or none),

    (A^H A + weight C) x = A^H b + weight (C x - grad R(x)),

solved in the form that keeps the whitened residual ``r = b - A x``: the gradient ``A^H r - weight grad R(x)`` is made anew in
each step, so that the squared condition number enters the recursion of directions only (CGLS).

Without a prior the iteration itself regularises: components of the image that the data determine badly come last. It stops
where chi-square per degree of freedom reaches 1 (Nemirovskii's rule, of optimal order), and the last step is cut so that it is
1, not less.

References: Hestenes and Stiefel, J. Res. NBS 49 (1952), doi 10.6028/jres.049.044; Nemirovskii, USSR Comput. Math. Math. Phys.
26 (1986), doi 10.1016/0041-5553(86)90002-9; Bjorck, Numerical Methods for Least Squares Problems (1996), section 7.4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.bounds import slack
from sciml.core.gradients import Gradient, Unroll
from sciml.core.inverse import Inverse
from sciml.core.noise import across
from sciml.core.prior import Smooth
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Iterative, running
from sciml.domains.errors import InputError
from sciml.solvers._normal import inner, objective, quadratic, ratio, spread, unposed, weights
from sciml.solvers.conjugate_gradient import Preconditioner

__all__ = ["LeastSquares"]

REFRESH = 50
FAR = 1e30  # before the first measurement
FLAT = 1e-6  # relative decrease of the misfit that is still possible when an unregularised fit is given up


@dataclass(frozen=True, eq=False)
class State:
    """Image, whitened residual, negative gradient, direction, and the scalars per member; ``steep`` bounds ``|J|^2`` from below."""

    x: Tensor
    r: Tensor
    s: Tensor
    p: Tensor
    rho: Tensor
    steep: Tensor
    gap: Tensor
    rest: Tensor
    count: int


@dataclass(frozen=True, eq=False)
class LeastSquares(Iterative[Inverse[Smooth | None]]):
    """Conjugate gradients for Inverse problems that are quadratic: linear model, Gaussian noise, no prior or a quadratic one.

    With a prior (Smoothness, Gaussian) at a posed weight it stops at half the target of ``optimality``; without one, where
    chi-square per degree of freedom is 1. ``preconditioner`` is an object whose ``preconditioner(problem)`` gives one Hermitian
    positive map of images. One forward model and one adjoint per step. Derivatives pass through every step.

    *Fails when* there is no prior and no image fits the data to within their noise: sigma is too small or the forward model
    wrong; STAGNATED, and the sentence tells the chi-square that was reached.
    """

    preconditioner: Preconditioner | None = None
    max_steps: int = 1000

    gradient: ClassVar[Gradient] = Unroll()
    citations: ClassVar[tuple[str, ...]] = (
        "@article{hestenes1952, doi={10.6028/jres.049.044}}",
        "@article{nemirovskii1986, doi={10.1016/0041-5553(86)90002-9}}",
    )

    def __post_init__(self) -> None:
        if self.max_steps < 0:
            raise InputError(f"max_steps is {self.max_steps}; it must not be negative")

    def accepts(self, problem: Problem) -> str | None:
        """Quadratic Inverse problems: without a prior, or with a quadratic one at a weight."""
        if not isinstance(problem, Inverse):
            return "LeastSquares takes Inverse problems: data, noise and a linear forward model"
        if not quadratic(problem):
            return "least squares need a linear forward model and Gaussian noise; use GaussNewton"
        if problem.prior is not None:
            if not isinstance(problem.prior, Smooth) or not getattr(problem.prior, "quadratic", False):
                return f"its prior {type(problem.prior).__name__} is not quadratic; use GaussNewton for smooth priors, PrimalDual, ADMM or ProximalGradient for others"
            if (reason := unposed(problem, "LeastSquares")) is not None:
                return reason
        if self.preconditioner is None:
            return None
        if isinstance(self.preconditioner, type) or not callable(getattr(self.preconditioner, "preconditioner", None)):
            return f"{self.preconditioner!r} is no preconditioner; pass an object that has preconditioner(problem)"
        return self.preconditioner.accepts(problem)

    def setup(self, problem: Problem) -> Callable[[Tensor], Tensor] | None:
        """The preconditioner's map."""
        return None if self.preconditioner is None else self.preconditioner.preconditioner(problem)

    def init(self, problem: Problem, setup: Any, start: Tensor | None) -> State:
        """From ``start`` or zero."""
        assert isinstance(problem, Inverse)
        x = spread(problem, start)
        r = _residual(problem, x)
        s = _descent(problem, x, r)
        zero = torch.zeros(problem.batch, dtype=torch.float64, device=x.device)
        state = State(x, r, s, torch.zeros_like(s), zero, zero, zero + FAR, zero + 1, 0)
        return state if problem.prior is not None else _fill(problem, state)

    def step(self, problem: Problem, setup: Any, state: State) -> State:
        """One step; without a prior cut where chi-square reaches the degrees of freedom."""
        assert isinstance(problem, Inverse)
        z = state.s if setup is None else setup(state.s)
        rho = inner(state.s, z)
        p = z + across(ratio(rho, state.rho), z) * state.p
        q = problem.noise.whiten(problem.forward(p), problem.data)
        steep = inner(q, q)
        largest = torch.maximum(state.steep, ratio(steep, inner(p, p)).detach())
        if problem.prior is not None:
            steep = steep + weights(problem) * inner(p, problem.prior.curvature(state.x)(p))
        alpha = ratio(rho, steep)
        if problem.prior is None:
            alpha = _cut(alpha, steep, inner(state.r, q), inner(state.r, state.r) - problem.noise.dof(problem.data))
        x = state.x + across(alpha, p) * p
        count = state.count + 1
        r = _residual(problem, x) if count % REFRESH == 0 else state.r - across(alpha, q) * q
        new = State(x, r, _descent(problem, x, r), p, rho, largest, state.gap, state.rest, count)
        return _fill(problem, new)

    def measure(self, problem: Problem, setup: Any, state: State) -> Tensor:
        """The certificate's number: ``|grad P| |x| / P``, or how far chi-square per degree of freedom is above 1."""
        return state.gap

    def done(self, problem: Problem, setup: Any, state: State) -> Tensor:
        """CONVERGED at half the target of optimality, or at the noise level; STAGNATED at a least misfit above it."""
        assert isinstance(problem, Inverse)
        codes = running(state.x.shape[0], state.x.device)
        if problem.prior is not None:
            good = (state.gap <= problem.targets["optimality"] / 2) & (state.count > 0)
            return torch.where(good, torch.full_like(codes, int(Code.CONVERGED)), codes)
        codes = torch.where(state.rest <= FLAT, torch.full_like(codes, int(Code.STAGNATED)), codes)
        return torch.where(state.gap <= 1e-6, torch.full_like(codes, int(Code.CONVERGED)), codes)

    def answer(self, problem: Problem, setup: Any, state: State) -> Answer:
        """The image; without a prior, what chi-square was reached where that is not the noise level."""
        sentence = ""
        bad = (state.rest <= FLAT) & (state.gap > problem.targets["misfit"])
        if isinstance(problem, Inverse) and problem.prior is None and bool(bad.any()):
            least = 1 + float(state.gap[bad].max())
            sentence = f"no image fits the data better than chi-square per degree of freedom {least:.3g}; sigma is too small, or the forward model does not describe the data"
        return Answer(state.x, running(state.x.shape[0], state.x.device), sentence=sentence)


def _residual(problem: Inverse[Any], x: Tensor) -> Tensor:
    return problem.noise.whiten(problem.data - problem.forward(x), problem.data)


def _descent(problem: Inverse[Any], x: Tensor, r: Tensor) -> Tensor:
    """Minus the gradient of the objective."""
    s = problem.forward.linearise(x).adjoint(problem.noise.unwhiten(r, problem.data))
    return s if problem.prior is None else s - across(weights(problem), x) * problem.prior.gradient(x)


def _fill(problem: Inverse[Any], state: State) -> State:
    """The state with its numbers: the gap, and what an unregularised fit could still gain."""
    with torch.no_grad():
        value = objective(problem, state.x, inner(state.r, state.r) / 2)
        if problem.prior is None:  # how far the residual is from where no image could lower it
            reach = inner(state.x, state.x).sqrt() + ratio(inner(state.r, state.r), state.steep).sqrt()
            most = inner(state.s, state.s).sqrt() * reach
        else:
            most = slack(problem, inner(state.s, state.s).sqrt(), state.x, weights(problem), problem.radius)
        rest = ratio(most, value)
        gap = rest
        if problem.prior is None:
            gap = (2 * value / problem.noise.dof(problem.data) - 1).clamp_min(0.0)
            rest = rest if state.count else torch.ones_like(rest)
    return dataclasses.replace(state, gap=gap, rest=rest)


def _cut(alpha: Tensor, square: Tensor, slope: Tensor, above: Tensor) -> Tensor:
    """The first root ``t`` in (0, alpha] of ``|r - t q|^2 = dof``, if there is one; ``above = |r|^2 - dof``."""
    inside = slope.square() - square * above
    root = ratio(above, slope + inside.clamp_min(0.0).sqrt())
    return torch.where((above > 0) & (inside > 0) & (root < alpha), root, alpha)


def example() -> tuple[LeastSquares, Any]:
    """A signal seen through a matrix with more rows, without a prior."""
    from sciml.core.matrix import Matrix
    from sciml.core.noise import GaussianNoise

    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(30, 12, generator=generator, dtype=torch.float64)
    truth = torch.linspace(1.0, 2.0, 12, dtype=torch.float64).reshape(1, 1, 12)
    noise = GaussianNoise(0.5)
    data = noise.sample(Matrix(matrix)(truth), generator=generator)
    return LeastSquares(), Inverse("small least squares", Matrix(matrix), data, noise)
