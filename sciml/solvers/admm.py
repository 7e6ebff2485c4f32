r"""The alternating direction method of multipliers (Douglas and Rachford's method on the dual).

``P(x) = F(x) + h(B x)`` is split by ``z = B x``: for a composite prior ``weight g(K x)`` that is ``B = K`` (and, for an image
with bounds, a second block that holds ``x`` itself), for a proximal prior ``B = 1``. With multipliers ``m``,

    x = argmin F(x) + rho / 2 |B x - z + m / rho|^2,
    v = theta B x + (1 - theta) z + m / rho,    z = prox_(h / rho)(v),    m = rho (v - z).

The data step is solved by conjugate gradients on its normal equations, started from the last image, until its residual is a
tenth of what it was, so that it becomes exact as the iteration converges; for noise that is not Gaussian or a forward model
that is not linear, by Gauss-Newton steps with a line search. ``m`` is a subgradient of ``h`` at ``z``: a feasible dual variable
for the problem's gap. ``rho`` balances the two residuals, each relative to its own terms, per member.

A prior that knows its proximal map at one step ``t`` only (a learned one) fixes ``rho = weight / t``. The fixed points are then
``x = prox(x - grad F(x) / rho)``; as such a map need not be non-expansive, ``theta`` is halved where the residual stops falling.

References: Boyd et al., Found. Trends Mach. Learn. 3 (2011), doi 10.1561/2200000016; Eckstein and Bertsekas, Math. Program.
55 (1992), doi 10.1007/BF01581204 (inexact steps, relaxation); Wohlberg, arXiv:1704.06209 (relative residual balancing).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.gradients import Gradient, Unroll
from sciml.core.inverse import Inverse, curvature
from sciml.core.noise import across
from sciml.core.prior import Composite, Energy, Proximable
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Iterative, running
from sciml.domains.errors import InputError
from sciml.solvers._normal import (
    Fit,
    conjugate_gradients,
    fit,
    inner,
    objective,
    quadratic,
    ratio,
    spread,
    unproximal,
    weights,
)
from sciml.solvers._split import Analysis, Identity, Split, bounds, split_of
from sciml.solvers.gmres import settled

__all__ = ["ADMM"]

REDUCTION = 0.1  # of the residual of the data step, per pass
BALANCE_EVERY, BALANCE_UNTIL = 5, 200
CHECK_EVERY = 3
WAIT = 15
LEAST_DAMPING = 1 / 16
FAR = 1e30  # before the first measurement


@dataclass(frozen=True, eq=False)
class Setup:
    """What to reach, the scale of the second block and whether there is one."""

    goal: float
    scale: float
    bounded: bool


@dataclass(frozen=True, eq=False)
class State:
    """Image, split variable, multipliers, the gradient of the data term, and the scalars per member."""

    x: Tensor
    z: Tensor
    m: Tensor
    g: Tensor
    rho: Tensor
    steep: Tensor
    theta: Tensor
    best: Tensor
    wait: Tensor
    gap: Tensor
    products: Tensor
    left: Tensor
    count: int


@dataclass(frozen=True, eq=False)
class ADMM(Iterative[Inverse[Proximable]]):
    """ADMM for Inverse problems with a composite or a proximal prior at a posed weight.

    ``inner`` is the most conjugate gradient steps of one data step, ``relaxation`` the first ``theta``, in (0, 2). The answer
    of a composite prior carries the dual variable, so that the problem certifies a duality gap. Counted: the products with
    the normal operator (``inner_steps``) and the relative residual of the last data step (``inner_residual``).

    Bounds beside a composite prior cost many passes (their block shares ``rho``): take PrimalDual there. *Fails when* a learned proximal map is far from non-expansive: the iteration then settles on no fixed point, and says so
    (BUDGET or STAGNATED). For a forward model that is not linear the answer is stationary, not optimal.
    """

    max_steps: int = 500
    inner: int = 30
    relaxation: float = 1.0

    gradient: ClassVar[Gradient] = Unroll()
    patience: ClassVar[int] = 300  # the gap of an image within bounds moves late
    citations: ClassVar[tuple[str, ...]] = (
        "@article{boyd2011, doi={10.1561/2200000016}}",
        "@article{eckstein1992, doi={10.1007/BF01581204}}",
    )

    def __post_init__(self) -> None:
        if self.max_steps < 0 or self.inner < 1:
            raise InputError(f"ADMM(max_steps={self.max_steps}, inner={self.inner}): give positive numbers of steps")
        if not 0 < self.relaxation < 2:
            raise InputError(f"relaxation is {self.relaxation}; ADMM converges for numbers between 0 and 2")

    def accepts(self, problem: Problem) -> str | None:
        """Inverse problems with a composite or proximal prior and a weight."""
        return unproximal(problem, "ADMM", Proximable, Composite)

    def setup(self, problem: Problem) -> Setup:
        """What to reach (half of the target; nearly all of it where only the certificate's own number counts), and how the prior is split."""
        assert isinstance(problem, Inverse)
        share = 0.5 if _only(problem) is None else 0.95
        return Setup(share * problem.targets["optimality"], *bounds(problem))

    def init(self, problem: Problem, setup: Setup, start: Tensor | None) -> State:
        """From ``start`` or zero."""
        assert isinstance(problem, Inverse)
        x = spread(problem, start)
        split = split_of(problem, setup.scale, setup.bounded)
        g, z = fit(problem, x).gradient, split.forward(x)
        with torch.no_grad():
            steep = curvature(problem, x)
        rho = _penalty(problem, split, x, g, steep, start is not None)
        m = torch.zeros_like(z)
        if start is not None and isinstance(split, Identity):
            m = -split.forward(g)  # what it is at a solution
        one = torch.ones_like(rho)
        return State(x, z, m, g, rho, steep, self.relaxation * one, FAR * one, 0 * one, FAR * one, 0 * one, one, 0)

    def step(self, problem: Problem, setup: Setup, state: State) -> State:
        """One pass: the data step, the prior's step, the multipliers, then the penalty."""
        assert isinstance(problem, Inverse)
        split, rho = split_of(problem, setup.scale, setup.bounded), state.rho
        x, here, products, left = self._data_step(problem, split, state)
        image = split.forward(x)
        theta, push = across(state.theta, image), across(rho, image)
        v = theta * image + (1 - theta) * state.z + state.m / push
        z, m = split.update(v, rho)
        with torch.no_grad():
            apart, moved = _size(image - z), _size(z - state.z)
            primal = ratio(apart, torch.maximum(_size(image), _size(z)))
            dual = ratio(rho * _size(split.adjoint(z - state.z)), _size(split.adjoint(m)))
            total = torch.maximum(primal, ratio(moved, _size(z)))
            better = total < 0.9 * state.best
            best = torch.where(better, total, state.best)
            wait = torch.where(better, 0 * total, state.wait + 1)
            theta_next = state.theta
            if _only(problem) is None:
                if (state.count + 1) % BALANCE_EVERY == 0 and state.count < BALANCE_UNTIL:
                    lever = ratio(primal, dual).clamp(0.01, 100.0).sqrt()
                    rho = rho * torch.where((lever > 2) | (lever < 0.5), lever, torch.ones_like(lever))
            else:
                slow = wait >= WAIT
                theta_next = torch.where(slow, (theta_next / 2).clamp_min(LEAST_DAMPING), theta_next)
                wait = torch.where(slow, 0 * wait, wait)
        new = State(
            x,
            z,
            m,
            here.gradient,
            rho,
            state.steep,
            theta_next,
            best,
            wait,
            state.gap,
            state.products + products,
            left,
            state.count + 1,
        )
        return dataclasses.replace(new, gap=self._gap(problem, setup, split, new, total))

    def _data_step(self, problem: Inverse[Any], split: Split, state: State) -> tuple[Tensor, Fit, Tensor, Tensor]:
        """The image that nearly minimises the data step, the data term there, the products, the relative residual."""
        x, rho, goal, products = state.x, across(state.rho, state.z), None, torch.zeros_like(state.rho)
        here = Fit(products, state.g, problem.data, problem.forward.linearise(x), problem)  # quadratic: z never enters
        if not quadratic(problem):
            here = fit(problem, x)
        for _ in range(1 if quadratic(problem) else 3):
            b = -(here.gradient + split.adjoint(state.m + rho * (split.forward(x) - state.z)))
            begin = _size(b).detach()
            goal = REDUCTION * begin if goal is None else goal
            solved = conjugate_gradients(
                lambda d, here=here: here.curvature(d) + split.adjoint(rho * split.forward(d)),  # type: ignore[misc]
                b,
                self.inner,
                lambda d, size, drop, goal=goal: size <= goal,  # type: ignore[misc]
            )
            products = products + solved.steps
            length = torch.ones_like(state.rho)
            if not quadratic(problem):
                length = _armijo(problem, split, state, x, solved.d, here, inner(b, solved.d))
            x = x + across(length, x) * solved.d
            here = fit(problem, x)
            if quadratic(problem):
                break
        assert goal is not None
        return x, here, products, ratio(REDUCTION * solved.left, goal)

    def _gap(self, problem: Inverse[Any], setup: Setup, split: Split, state: State, total: Tensor) -> Tensor:
        """The duality gap of a composite prior; else a bound of the certificate's number, exact where that is small."""
        weight, goal = weights(problem), setup.goal
        with torch.no_grad():
            if isinstance(split, Analysis):
                x, y = split.image(state.x, state.z), problem.data
                z = problem.forward(x)
                dual = {"prior": split.field(state.m), "data": problem.noise.whitened_slope(z, y)}
                return problem.gap(x, dual, z=z, weight=weight).to(state.gap)
            z = split.image(state.x, state.z)
            gap, near = total, total <= 2 * goal
            if _only(problem) is None and isinstance(problem.prior, Energy):
                there = fit(problem, z)
                rest = there.gradient + split.adjoint(state.m)
                gap = ratio(_size(rest) * problem.radius(z), objective(problem, z, there.value))
                near = gap <= goal
            if settled(~near):
                return gap
            gap = torch.where(near, torch.maximum(gap, torch.full_like(gap, 1.001 * goal)), gap)
            if state.count % CHECK_EVERY:
                return gap
            return torch.where(near, problem.optimality(z, weight).to(gap), gap)

    def measure(self, problem: Problem, setup: Setup, state: State) -> Tensor:
        """The certificate's number, or a larger one where it is not near."""
        return state.gap

    def done(self, problem: Problem, setup: Setup, state: State) -> Tensor:
        """CONVERGED at the goal, not before the first step."""
        codes = running(state.x.shape[0], state.x.device)
        good = (state.gap <= setup.goal) & (state.count > 0)
        return torch.where(good, torch.full_like(codes, int(Code.CONVERGED)), codes)

    def answer(self, problem: Problem, setup: Setup, state: State) -> Answer:
        """The image within its bounds with the dual variable; for a proximal prior the image that its map made."""
        assert isinstance(problem, Inverse)
        split, claim = split_of(problem, setup.scale, setup.bounded), running(state.x.shape[0], state.x.device)
        counts = {"inner_steps": float(state.products.max()), "inner_residual": float(state.left.max())}
        dual = {"prior": split.field(state.m)} if isinstance(split, Analysis) else None
        return Answer(split.image(state.x, state.z), claim, counts=counts, dual=dual)


def _only(problem: Inverse[Any]) -> float | None:
    """The one step of the prior's proximal map, where it has only one."""
    step: float | None = getattr(problem.prior, "only_step", None)
    return step


def _penalty(problem: Inverse[Any], split: Split, x: Tensor, g: Tensor, steep: Tensor, started: bool) -> Tensor:
    """``h(z) / |z|^2`` at a crude image, at most the curvature of the data term and at least a ten-thousandth of it."""
    weight = weights(problem).to(torch.float64)
    only = _only(problem)
    if only is not None:
        return (weight / only).detach()
    with torch.no_grad():
        if not started:
            there = fit(problem, x)
            x = x - across(ratio(inner(g, g), inner(g, there.curvature(g))), x) * g
        size = steep
        z = split.forward(x)
        if isinstance(split, Analysis):
            size = size / (problem.prior.operator.size_bound().square().to(size)).clamp_min(1e-300)
            field = split.field(z)
            z, strength = field.flatten(1), weight * problem.prior.outer(field)
        elif isinstance(problem.prior, Energy):
            strength = weight * problem.prior.energy(x)
        else:
            strength = torch.zeros_like(size)
        rho = ratio(strength, inner(z, z))
        usable = torch.isfinite(rho) & (rho > 0)
        return torch.where(usable, torch.minimum(torch.maximum(rho, 1e-4 * size), size), 0.1 * size)


def _armijo(
    problem: Inverse[Any], split: Split, state: State, x: Tensor, d: Tensor, here: Fit, descent: Tensor
) -> Tensor:
    """The first of 1, 1/2, 1/4, ... that lowers the objective of the data step enough, per member; zero where none does."""
    with torch.no_grad():
        push = across(state.rho, state.z)

        def level(x: Tensor, value: Tensor) -> Tensor:
            away = split.forward(x) - state.z + state.m / push
            return value + state.rho * inner(away, away) / 2

        begin = level(x, here.value)
        slack = 0.01 * torch.finfo(x.dtype).eps ** 0.5 * begin.abs()  # sums of large residuals are rounded
        length, found = torch.ones_like(begin), torch.zeros_like(begin, dtype=torch.bool)
        for _ in range(12):
            trial = x + across(length, x) * d
            value = level(trial, problem.noise.energy(problem.forward(trial), problem.data))
            found = found | (value <= begin - 1e-4 * length * descent + slack)
            if settled(found):
                break
            length = torch.where(found, length, length / 2)
        return torch.where(found, length, torch.zeros_like(length))


def _size(r: Tensor) -> Tensor:
    return inner(r, r).detach().sqrt()


def example() -> tuple[ADMM, Any]:
    """Total variation of a blocky signal seen through a random matrix."""
    from sciml.core.matrix import Matrix
    from sciml.core.noise import GaussianNoise
    from sciml.priors.total_variation import TotalVariation

    generator = torch.Generator().manual_seed(0)
    matrix = Matrix(torch.randn(20, 12, generator=generator, dtype=torch.float64))
    truth = torch.tensor([[[1.0] * 5 + [3.0] * 4 + [2.0] * 3]], dtype=torch.float64)
    noise = GaussianNoise(0.3)
    data = noise.sample(matrix(truth), generator=generator)
    return ADMM(), Inverse("few jumps", matrix, data, noise, TotalVariation(lower=0.0), weight=5.0)
