r"""Regularisation by denoising diffusion: an image is fitted to the data and, at falling noise levels, to its own denoised self.

For falling levels ``sigma``, with fresh noise ``n`` at each, Adam follows

.. math:: g = \nabla F(\mu) + \lambda\, (\mu - D(\mu + \sigma n, \sigma)) / r^2,

with ``F`` the problem's negative log-likelihood and ``r`` what the denoiser leaves of a pixel at that level. No derivative of the
network. As published (Mardani, Song, Kautz and Vahdat, arXiv:2305.04391) the noise of the data does not appear and the weight
``\lambda \sigma (\epsilon_\theta - \epsilon)`` has a number for each task; with ``1/r^2`` both terms are log-densities, so nothing depends on units.

The method looks for a mode of a Gaussian fit with no width of its own: its samples differ by the noise of the search, not
by the spread of the posterior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.gradients import Detach, Gradient
from sciml.core.inverse import Inverse
from sciml.core.linear import LinearOperator
from sciml.core.probability_flow import Karras, Levels, remaining
from sciml.core.problem import Problem
from sciml.core.solution import Answer
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.samplers._chains import Chains, refusal

__all__ = ["RedDiff", "example"]


@dataclass(frozen=True, eq=False)
class RedDiff(Solver[Inverse[Any]]):
    """``samples`` searches of ``steps`` steps, for any forward model and noise that can be differentiated.

    ``rate`` is Adam's, in units of what the denoiser leaves of a pixel at the highest level (a standard deviation of the prior), and falls to
    a hundredth; ``betas`` are Adam's; ``regularisation`` is the factor ``lambda``. From ``start``, or the mean of the prior. Chain ``s``
    depends on ``(seed, s)`` alone and uses the same noise for all members.

    *Fails as a sampler*: the spread of its samples is far too small, and the calibration record says so.
    """

    steps: int = 500
    samples: int = 4
    seed: int = 0
    rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    regularisation: float = 1.0
    levels: Levels = Karras()

    gradient: ClassVar[Gradient] = Detach()
    citations: ClassVar[tuple[str, ...]] = (
        "@inproceedings{mardani2024, author={Mardani, M. and Song, J. and Kautz, J. and Vahdat, A.}, title={A variational perspective on solving inverse problems with diffusion models}, booktitle={ICLR}, year={2024}, eprint={2305.04391}, archivePrefix={arXiv}}",
    )

    def __post_init__(self) -> None:
        if min(self.steps, self.samples) < 1 or not min(self.rate, self.regularisation) > 0:
            raise InputError(
                f"RedDiff(steps={self.steps}, samples={self.samples}, rate={self.rate}, regularisation={self.regularisation}): all must be positive"
            )

    def accepts(self, problem: Problem) -> str | None:
        """Inverse problems with a prior that denoises."""
        return refusal(problem, "RedDiff", linear=False)

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """Adam, level by level."""
        assert isinstance(problem, Inverse)
        chains = Chains(problem, self.samples, self.seed)
        fixed = isinstance(problem.forward, LinearOperator) and problem.noise.quadratic
        with torch.no_grad():
            unit = remaining(problem.prior, chains.highest)
            zero = problem.space.zeros(1).unsqueeze(0)
            x = (chains.denoise(zero, chains.highest) if start is None else start).expand(chains.shape)
            mean, square = torch.zeros_like(x), torch.zeros_like(x.abs())
            one, two = self.betas
            for step, sigma in enumerate(self.levels(chains.highest, chains.lowest, self.steps)):
                clean = chains.denoise(x + sigma * chains.noise(), sigma)
                pull = self.regularisation / remaining(problem.prior, sigma) ** 2
                chains.products += 1
                data = (
                    -chains.back(chains.rest(x))
                    if fixed
                    else torch.stack([problem.fidelity(member)[1] for member in x])
                )
                slope = data + pull * (x - clean)
                mean = one * mean + (1 - one) * slope
                square = two * square + (1 - two) * slope.abs().square()
                size = (square / (1 - two ** (step + 1))).sqrt() + 1e-8 / unit
                rate = self.rate * unit * 0.01 ** (step / max(1, self.steps - 1))
                x = x - rate * (mean / (1 - one ** (step + 1))) / size
                if context.progress is not None:
                    context.progress(step + 1, self.steps, sigma)
        return chains.answer(x, self.steps)


def example() -> tuple[RedDiff, Inverse[Any]]:
    """Six numbers out of nine of a Gaussian signal."""
    from sciml.samplers.gaussian_posterior import example as exact

    return RedDiff(steps=60, samples=3), exact()[1]
