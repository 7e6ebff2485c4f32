r"""The proximal gradient method, accelerated: FISTA with backtracking and adaptive restart.

For ``P(x) = F(x) + weight R(x)`` with a smooth data term ``F`` and a prior that knows its proximal map,

    y = x_k + beta_k (x_k - x_(k-1)),    x_(k+1) = prox_(tau weight R)(y - tau grad F(y)),

with ``beta_k`` of Nesterov's sequence. Each member has its own step ``tau``, which starts a little below one over the
curvature of ``F`` and shrinks where ``F`` proves steeper; its momentum starts again when it points uphill,
``<y - x_(k+1), x_(k+1) - x_k> > 0``, and a step that would raise ``P`` is not taken, so that ``P`` never grows. One forward
model and one adjoint per step for Gaussian noise and a linear model, two of each otherwise. The vector
``(y - x_(k+1)) / tau + grad F(x_(k+1)) - grad F(y)`` is a subgradient of ``P`` at ``x_(k+1)``: it bounds what is left to
gain, and costs nothing.

References: Beck and Teboulle, SIAM J. Imaging Sci. 2, 183 (2009), doi 10.1137/080716542; O'Donoghue and Candes, Found.
Comput. Math. 15, 715 (2015), doi 10.1007/s10208-013-9150-3.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from sciml.core.gradients import Gradient, Unroll
from sciml.core.inverse import Inverse, curvature
from sciml.core.noise import across
from sciml.core.prior import Proximable
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Context, Iterative, running
from sciml.domains.errors import InputError
from sciml.solvers._normal import (
    Fit,
    fit,
    inner,
    known,
    linear,
    objective,
    quadratic,
    ratio,
    spread,
    unproximal,
    weights,
)
from sciml.solvers.admm import ADMM
from sciml.solvers.gmres import settled

__all__ = ["Nesterov", "NoMomentum", "ProximalGradient"]

MARGIN = 0.95  # norms from power iterations are a few percent low
TRIALS = 40
CHECK_EVERY = 4
FAR = 1e30  # before the first measurement
WAIT = 40  # steps without a smaller residual after which a learned map is iterated without momentum


class Momentum(Protocol):
    """How far the next point is extrapolated: from a sequence ``t`` to the next one and the factor ``beta``."""

    def advance(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``t`` of the next step (1 at a start) and ``beta``."""


@dataclass(frozen=True)
class Nesterov:
    """``t' = (1 + sqrt(1 + 4 t^2)) / 2``, ``beta = (t - 1) / t'``."""

    def advance(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The next ``t`` and ``beta``."""
        following = (1 + (1 + 4 * t.square()).sqrt()) / 2
        return following, (t - 1) / following


@dataclass(frozen=True)
class NoMomentum:
    """Plain proximal gradient steps, ``beta = 0``."""

    def advance(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``t`` and zero."""
        return t, torch.zeros_like(t)


@dataclass(frozen=True, eq=False)
class State:
    """The image and the one before, the gradients of the data term there, the objective, momentum, step, gap.

    ``steep`` is the curvature of the data term, ``best`` the least residual so far and ``wait`` the steps since,
    for priors that know their map but no energy.
    """

    x: Tensor
    before: Tensor
    g: Tensor
    g_before: Tensor
    value: Tensor
    t: Tensor
    beta: Tensor
    tau: Tensor
    steep: Tensor
    best: Tensor
    wait: Tensor
    gap: Tensor
    count: int


@dataclass(frozen=True, eq=False)
class ProximalGradient(Iterative[Inverse[Proximable]]):
    """FISTA for Inverse problems whose prior has a proximal map, at a posed weight.

    A prior that knows its map at one step only (``only_step = t``, a learned proximal network) fixes the step to
    ``tau = t / weight``. Where that is stable, ``tau L <= 1`` with ``L`` the curvature of the data term, plain steps are
    taken, with momentum as long as that makes the residual smaller (such a map need not be non-expansive). Where it is not, the data step is taken implicitly: that is ``ADMM``, whose fixed points
    ``x = prox(x - tau grad F(x))`` are the same, and this solver hands the member over to it.

    *Fails when* the data term is badly conditioned (many steps: take ``ADMM``), or when the proximal map is itself an
    iteration that is not run to the end. For a forward model that is not linear, ``P`` still never grows, and the answer is
    stationary, not optimal.
    """

    max_steps: int = 2000
    momentum: Momentum = dataclasses.field(default_factory=Nesterov)

    gradient: ClassVar[Gradient] = Unroll()
    citations: ClassVar[tuple[str, ...]] = (
        "@article{beck2009, doi={10.1137/080716542}}",
        "@article{odonoghue2015, doi={10.1007/s10208-013-9150-3}}",
    )

    def __post_init__(self) -> None:
        if self.max_steps < 0:
            raise InputError(f"max_steps is {self.max_steps}; it must not be negative")
        if not callable(getattr(self.momentum, "advance", None)) or isinstance(self.momentum, type):
            raise InputError(f"momentum is {self.momentum!r}; give Nesterov() or NoMomentum()")

    def accepts(self, problem: Problem) -> str | None:
        """Inverse problems with a proximal prior and a weight."""
        return unproximal(problem, "ProximalGradient", Proximable)

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """The loop; members for which the one step of a learned prior would not be stable are given to ``ADMM``."""
        assert isinstance(problem, Inverse)
        if problem.prior.only_step is None:
            return super().run(problem, start, context)
        stiff = self._stiff(problem, start).tolist()
        other = ADMM(max_steps=self.max_steps)
        if not any(stiff):
            return super().run(problem, start, context)
        if all(stiff):
            return other.run(problem, start, context)
        answers = []
        for i, hard in enumerate(stiff):
            own = start if start is None or start.shape[0] == 1 else start[i : i + 1]
            one = problem.member(i)
            answers.append(other.run(one, own, context) if hard else super().run(one, own, context))
        return _joined(answers)

    def _stiff(self, problem: Inverse[Any], start: Tensor | None) -> Tensor:
        """Whether an explicit step of the prior's size overshoots, per member."""
        x = spread(problem, start)
        with torch.no_grad():
            stiff: Tensor = curvature(problem, x) * problem.prior.only_step / weights(problem) > MARGIN
        return stiff

    def setup(self, problem: Problem) -> float:
        """Half of the target."""
        return problem.targets["optimality"] / 2

    def init(self, problem: Problem, setup: float, start: Tensor | None) -> State:
        """From ``start`` or zero, with the largest step that is safe by a power iteration."""
        assert isinstance(problem, Inverse)
        x = spread(problem, start)
        here = fit(problem, x)
        steep = curvature(problem, x)
        tau = MARGIN / steep
        if problem.prior.only_step is not None:
            tau = (problem.prior.only_step / weights(problem)).to(steep).detach()
        one = torch.ones_like(tau)
        value = objective(problem, x, here.value).detach()
        g = here.gradient
        return State(x, x, g, g, value, one, 0 * one, tau, steep, FAR * one, 0 * one, FAR * one, 0)

    def step(self, problem: Problem, setup: float, state: State) -> State:
        """One step, its length found by trial."""
        assert isinstance(problem, Inverse)
        beta = across(state.beta, state.x)
        y = state.x + beta * (state.x - state.before)
        if quadratic(problem):
            energy, slope = state.value, state.g + beta * (state.g - state.g_before)
        else:
            there = fit(problem, y)
            energy, slope = there.value, there.gradient
        x, here, tau = self._descend(problem, state, y, energy, slope)
        g = here.gradient
        move, advance = y - x, x - state.x
        total = objective(problem, x, here.value).detach()
        with torch.no_grad():
            t, following = self.momentum.advance(state.t)
            uphill = inner(move, advance) > 0
            rest = move / across(tau, x) + g - slope
            gap = ratio(inner(rest, rest).sqrt() * problem.radius(x), total)
            best, wait = state.best, state.wait
            if known(problem):
                slack = 8 * torch.finfo(x.dtype).eps * state.value.abs()
                kept = (total > state.value + slack) & (state.beta > 0)
            else:
                # A short step moves little wherever it is taken: the residual counts per step of the length 1 / L.
                pace = (tau * state.steep).clamp(max=1.0)
                gap = ratio(inner(move, move).sqrt(), pace * inner(x, x).sqrt())
                wait = torch.where((gap < best) & (wait < WAIT), 0 * wait, wait + 1)
                best, kept = torch.minimum(best, gap), uphill & False
            following = following * (wait < WAIT)
        one = torch.ones_like(t)
        stay = across(kept.to(x.real.dtype), x) > 0
        new = State(
            torch.where(stay, state.x, x),
            state.x,
            torch.where(stay, state.g, g),
            state.g,
            torch.where(kept, state.value, total),
            torch.where(uphill | kept, one, t),
            torch.where(uphill | kept, 0 * one, following),
            tau,
            state.steep,
            best,
            wait,
            torch.where(kept, state.gap, gap),
            state.count + 1,
        )
        return self._checked(problem, setup, new, kept)

    def _descend(
        self, problem: Inverse[Any], state: State, y: Tensor, energy: Tensor, slope: Tensor
    ) -> tuple[Tensor, Fit, Tensor]:
        """The proximal step from ``y`` and its length: halved, nearly, until the quadratic model lies above ``F``."""
        prior, weight, tau = problem.prior, weights(problem), state.tau
        eps = torch.finfo(y.dtype).eps
        for trial in range(TRIALS):
            x = prior.prox(y - across(tau, y) * slope, tau.to(weight) * weight)
            here = fit(problem, x)
            if prior.only_step is not None:
                break
            with torch.no_grad():
                d, turn = x - y, here.gradient - slope
                square = inner(d, d)
                noise = (
                    100
                    * eps
                    * square.sqrt()
                    * (inner(slope, slope).sqrt() + inner(here.gradient, here.gradient).sqrt())
                )
                if linear(problem):
                    # For quadratics twice the excess of F over its tangent; for other convex F a bound of the excess.
                    bend = inner(d, turn) * (1 if quadratic(problem) else 2)
                    good = bend <= square / tau + noise
                else:
                    excess = here.value - energy - inner(slope, d)
                    good = excess <= square / (2 * tau) + noise + 8 * eps * energy.abs()
            if trial == TRIALS - 1 or settled(good):
                break
            tau = torch.where(good, tau, 0.6 * tau)
        return x, here, tau

    def _checked(self, problem: Inverse[Any], goal: float, state: State, kept: Tensor) -> State:
        """Where the running number is small, the problem's own, now and then: the claim is then the certificate's."""
        near = (state.gap <= goal) & ~kept
        if settled(~near):
            return state
        if state.count % CHECK_EVERY:
            return dataclasses.replace(state, gap=torch.where(near, 1.001 * goal, state.gap))
        with torch.no_grad():
            exact = problem.optimality(state.x.detach(), weights(problem))
        return dataclasses.replace(state, gap=torch.where(near, exact.to(state.gap), state.gap))

    def measure(self, problem: Problem, setup: float, state: State) -> Tensor:
        """A bound of the certificate's number; the number itself where that is small."""
        return state.gap

    def done(self, problem: Problem, setup: float, state: State) -> Tensor:
        """CONVERGED at half the target, not before the first step."""
        codes = running(state.x.shape[0], state.x.device)
        good = (state.gap <= setup) & (state.count > 0)
        return torch.where(good, torch.full_like(codes, int(Code.CONVERGED)), codes)

    def answer(self, problem: Problem, setup: float, state: State) -> Answer:
        """The image."""
        return Answer(state.x, running(state.x.shape[0], state.x.device))


def _joined(answers: list[Answer]) -> Answer:
    """Members solved one by one, as one answer."""
    longest = max(one.steps for one in answers)
    rows = [one.history for one in answers if one.history is not None]
    long = max(len(row) for row in rows)
    rows = [torch.cat([row, row[-1:].expand(long - len(row), -1)]) for row in rows]
    return dataclasses.replace(
        answers[0],
        value=torch.cat([one.value for one in answers]),
        claim=torch.cat([one.claim for one in answers]),
        steps=longest,
        history=torch.cat(rows, 1),
        counts={},
        sentence=next((one.sentence for one in answers if one.sentence), ""),
    )


def example() -> tuple[ProximalGradient, Any]:
    """A blocky signal with few Haar wavelets, seen through a random matrix."""
    from sciml.core.matrix import Matrix
    from sciml.core.noise import GaussianNoise
    from sciml.priors.wavelet import Haar, Wavelet

    generator = torch.Generator().manual_seed(0)
    matrix = Matrix(torch.randn(20, 12, generator=generator, dtype=torch.float64))
    truth = torch.tensor([[[1.0] * 5 + [3.0] * 4 + [2.0] * 3]], dtype=torch.float64)
    noise = GaussianNoise(0.3)
    data = noise.sample(matrix(truth), generator=generator)
    return ProximalGradient(), Inverse("few wavelets", matrix, data, noise, Wavelet(family=Haar()), weight=5.0)
