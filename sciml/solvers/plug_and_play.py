"""Plug and play: a denoiser in turn with the data, at falling noise levels.

For levels ``sigma_1 > ... > sigma_n``, evenly spaced in their logarithm,

    z = denoise(x, sigma_k),      x = the image nearest to z with chi^2(x) <= dof.

The second step is ``argmin_x F(x) + rho |x - z|^2 / 2`` with the multiplier ``rho`` found per member by a secant
iteration in its logarithm, conjugate gradients solving for each trial: no weight is left to choose, and neither the units
of the data nor their number matter. The first level should be that of the artefacts of the start, the last one that of
what the denoiser may still take for noise.

Sources: Venkatakrishnan, Bouman and Wohlberg, GlobalSIP 2013, doi:10.1109/GlobalSIP.2013.6737048; falling levels: Zhang, Li,
Zuo, Zhang, Van Gool and Timofte, arXiv:2008.13751; the constraint in place of a weight is Morozov's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.gradients import Gradient, Unroll
from sciml.core.inverse import Inverse, curvature
from sciml.core.linear import LinearOperator
from sciml.core.noise import across, inner
from sciml.core.prior import Denoising
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Iterative, running
from sciml.domains.errors import InputError
from sciml.solvers._normal import conjugate_gradients, fit, spread
from sciml.solvers.gmres import settled

__all__ = ["PlugAndPlay"]


@dataclass(frozen=True, eq=False)
class State:
    """The image, the logarithm of the multiplier, chi-square per degree of freedom, the number of levels done."""

    x: Tensor
    log_rho: Tensor
    chi: Tensor
    count: int


@dataclass(frozen=True, eq=False)
class PlugAndPlay(Iterative[Inverse[Denoising]]):
    """Reconstruction with any denoiser, for linear forward models; judged by the misfit band, since it minimises nothing.

    ``max_steps`` levels fall from ``first`` to ``last`` (standard deviations in the units of the image; None: a fifth and a
    hundredth of the prior's ``range``). ``inner`` bounds the conjugate gradient steps of one trial, ``trials`` the
    multipliers tried at one level (three times as many at the last). *Fails when* the denoiser meets images unlike those it was made for: it
    then invents what the data leave open.
    """

    max_steps: int = 24
    first: float | None = None
    last: float | None = None
    inner: int = 30
    trials: int = 3

    gradient: ClassVar[Gradient] = Unroll()
    patience: ClassVar[int] = 10**9  # the levels are a schedule: the monitored number says nothing about progress
    citations: ClassVar[tuple[str, ...]] = (
        "@inproceedings{venkatakrishnan2013, author={Venkatakrishnan, S. V. and Bouman, C. A. and Wohlberg, B.}, title={Plug-and-play priors for model based reconstruction}, booktitle={GlobalSIP}, year={2013}, doi={10.1109/GlobalSIP.2013.6737048}}",
    )

    def __post_init__(self) -> None:
        if min(self.max_steps, self.inner, self.trials) < 1:
            raise InputError(
                f"PlugAndPlay(max_steps={self.max_steps}, inner={self.inner}, trials={self.trials}): each is at least 1"
            )
        if any(level is not None and not level > 0 for level in (self.first, self.last)):
            raise InputError(f"PlugAndPlay(first={self.first}, last={self.last}): noise levels must be positive")

    def accepts(self, problem: Problem) -> str | None:
        """Inverse problems with a linear forward model and a prior that denoises."""
        if not isinstance(problem, Inverse):
            return "PlugAndPlay takes Inverse problems: data, noise and a prior"
        if not isinstance(problem.forward, LinearOperator):
            return f"its forward model {type(problem.forward).__name__} is not linear"
        if not isinstance(problem.prior, Denoising):
            return f"its prior {type(problem.prior).__name__} does not denoise; give one with problem.with_prior(sciml.Denoiser(f))"
        if getattr(problem.prior, "range", None) is None and (self.first is None or self.last is None):
            return (
                "its prior declares no range of values; give PlugAndPlay(first=..., last=...) in the units of the image"
            )
        return None

    def levels(self, prior: Any) -> list[float]:
        """The noise levels of all steps."""
        low, high = getattr(prior, "range", None) or (0.0, 1.0)
        first = 0.2 * (high - low) if self.first is None else self.first
        last = 0.01 * (high - low) if self.last is None else self.last
        count = self.max_steps
        return [first * (last / first) ** (k / max(count - 1, 1)) for k in range(count)]

    def setup(self, problem: Problem) -> Tensor:
        """The curvature of the data term."""
        assert isinstance(problem, Inverse)
        with torch.no_grad():
            return curvature(problem, problem.space.zeros())

    def init(self, problem: Problem, setup: Tensor, start: Tensor | None) -> State:
        """The image nearest to the start (or to the middle of the prior's range) that explains the data."""
        assert isinstance(problem, Inverse)
        x = spread(problem, start)
        if start is None:
            x = x + sum(getattr(problem.prior, "range", None) or (0.0, 0.0)) / 2
        return self._explain(problem, x, (setup * 1e-2).log(), 0, 2 * self.trials)

    def step(self, problem: Problem, setup: Tensor, state: State) -> State:
        """One level: denoise, then explain the data again."""
        assert isinstance(problem, Inverse)
        count = state.count + 1
        z = problem.prior.denoise(state.x, self.levels(problem.prior)[state.count])
        return self._explain(problem, z, state.log_rho, count, self.trials * (3 if count == self.max_steps else 1))

    def measure(self, problem: Problem, setup: Tensor, state: State) -> Tensor:
        """How far chi-square per degree of freedom is from one."""
        return (state.chi - 1).abs()

    def done(self, problem: Problem, setup: Tensor, state: State) -> Tensor:
        """CONVERGED after the last level."""
        codes = running(state.x.shape[0], state.x.device)
        return torch.full_like(codes, int(Code.CONVERGED)) if state.count == self.max_steps else codes

    def answer(self, problem: Problem, setup: Tensor, state: State) -> Answer:
        """The image that explains the data."""
        return Answer(state.x, running(state.x.shape[0], state.x.device))

    def _explain(self, problem: Inverse[Any], z: Tensor, log_rho: Tensor, count: int, trials: int) -> State:
        """The image nearest to ``z`` whose chi-square is ``dof``; ``z`` itself if its own is less."""
        data = fit(problem, z)
        dof = problem.noise.dof(problem.data)
        fine = (2 * data.value <= dof).detach()  # nothing to do
        best, at, chi = z, log_rho, problem.misfit(z)
        before: tuple[Tensor, Tensor] | None = None
        here = data.gradient.detach()
        trial, size = log_rho, inner(here, here).sqrt()

        def enough(d: Tensor, left: Tensor, drop: Tensor) -> Tensor:
            return left <= 1e-3 * size

        for _ in range(trials):
            rho = trial.exp()

            def bent(d: Tensor, rho: Tensor = rho) -> Tensor:
                return data.curvature(d) + across(rho, d) * d

            found = conjugate_gradients(bent, -data.gradient, self.inner, enough)
            x = z + found.d
            value = problem.misfit(x)
            miss = value.detach().clamp_min(1e-300).log()
            closer = ~fine & (miss.abs() < chi.detach().clamp_min(1e-300).log().abs())
            best = torch.where(across(closer.to(z.real.dtype), z) > 0, x, best)
            at, chi = torch.where(closer, trial, at), torch.where(closer, value, chi)
            slope = torch.full_like(trial, 0.5)
            if before is not None:
                run, rise = trial - before[0], miss - before[1]
                secant = rise / torch.where(run == 0, torch.ones_like(run), run)
                slope = torch.where((run != 0) & (secant > 0.05), secant, slope)
            before = (trial, miss)
            move = (miss / slope).clamp(-math.log(30.0), math.log(30.0))
            trial = torch.where(miss.abs() < 5e-3, trial, trial - move)
            if settled(fine | (miss.abs() < 5e-3)):
                break
        return State(best, at, chi, count)


def example() -> tuple[PlugAndPlay, Inverse[Any]]:
    """A blocky signal seen through a random matrix, with a filter for a denoiser."""
    from sciml.core.matrix import Matrix
    from sciml.core.noise import GaussianNoise
    from sciml.priors.denoiser import Denoiser

    generator = torch.Generator().manual_seed(0)
    truth = torch.cat([torch.zeros(7), torch.ones(6), 0.5 * torch.ones(5)]).to(torch.float64).reshape(1, 1, -1)
    matrix = Matrix(torch.randn(1, 24, 18, generator=generator, dtype=torch.float64))
    noise = GaussianNoise(0.1)
    data = noise.sample(matrix(truth), generator=generator)

    def smooth(x: Tensor, sigma: Tensor) -> Tensor:
        around = 0.5 * (x.roll(1, -1) + x.roll(-1, -1))
        return x + sigma / (1 + sigma) * (around - x)

    return PlugAndPlay(max_steps=8), Inverse("a blocky signal", matrix, data, noise, Denoiser(smooth), truth=truth)
