r"""Diffusion posterior sampling: the data pull at the denoised image, through the derivative of the denoiser.

With ``D(x, sigma)`` the prior's denoiser the score of the data given the noisy image is taken for that at ``D(x)``,

.. math:: D_y(x) = D(x) + \sigma^2 \nabla_x \log p(y | D(x)), \qquad
          \nabla_x \log p(y | D(x)) = (dD/dx)^T \nabla \log p(y | D) / (1 + c),

and ``D_y`` takes the place of ``D`` in a walk from noise to an image. As published (Chung, Kim, Mccann, Klasky and Ye,
arXiv:2209.14687) the pull is ``\zeta / |y - A D|`` times the gradient of ``|y - A D|^2``, with a number ``\zeta`` for each task and no
noise level of the data. Here the likelihood is the problem's own, so that units do not matter, and ``c = r^2 L / damping`` keeps the step
stable: ``r`` is what the denoiser leaves of a pixel, ``L`` the largest curvature of the likelihood. ``c`` stands for the spread of
``A x0`` about ``A D``, which the method otherwise ignores, and vanishes with the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.gradients import Detach, Gradient
from sciml.core.inverse import Inverse, curvature
from sciml.core.linear import LinearOperator
from sciml.core.noise import across
from sciml.core.probability_flow import Ancestral, Walk, remaining
from sciml.core.problem import Problem
from sciml.core.solution import Answer
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.samplers._chains import Chains, refusal

__all__ = ["DiffusionPosteriorSampling", "example"]


@dataclass(frozen=True, eq=False)
class DiffusionPosteriorSampling(Solver[Inverse[Any]]):
    """``samples`` draws for any forward model and noise whose energy can be differentiated, also nonlinear ones.

    ``walk`` goes from noise to images; one backward pass of the denoiser per evaluation. ``damping`` below 2 is stable for a linear
    forward model. Chain ``s`` depends on ``(seed, s)`` alone and uses the same noise for all members. The value is the mean of the
    samples; weight and start play no part.

    *Fails when* the data determine some directions much better than others: those are pulled too slowly until the noise is low.
    It is no consistent sampler; the calibration record tells how far off it is.
    """

    samples: int = 16
    seed: int = 0
    walk: Walk = Ancestral(300)
    damping: float = 1.0

    gradient: ClassVar[Gradient] = Detach()
    citations: ClassVar[tuple[str, ...]] = (
        "@inproceedings{chung2023, author={Chung, H. and Kim, J. and Mccann, M. T. and Klasky, M. L. and Ye, J. C.}, title={Diffusion posterior sampling for general noisy inverse problems}, booktitle={ICLR}, year={2023}, eprint={2209.14687}, archivePrefix={arXiv}}",
    )

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.damping > 0:
            raise InputError(
                f"DiffusionPosteriorSampling(samples={self.samples}, damping={self.damping}): draw at least one, and damping is positive"
            )

    def accepts(self, problem: Problem) -> str | None:
        """Inverse problems with a prior that denoises."""
        return refusal(problem, "DiffusionPosteriorSampling", linear=False)

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """The walk along the flow of the pulled denoiser."""
        assert isinstance(problem, Inverse)
        chains = Chains(problem, self.samples, self.seed)
        done = 0
        steep: Tensor | None = None

        def pulled(x: Tensor, sigma: float) -> Tensor:
            nonlocal done, steep
            with torch.enable_grad():
                at = x.detach().requires_grad_()
                clean = chains.denoise(at, sigma)
            mean = clean.detach()
            slope, steep = self._slope(chains, mean, steep)
            excess = 1 + remaining(problem.prior, sigma) ** 2 * steep / self.damping
            (pull,) = torch.autograd.grad(clean, at, slope / excess)
            done += 1
            if context.progress is not None:
                context.progress(done, 0, sigma)
            return mean - sigma**2 * pull

        with torch.no_grad():
            drawn = self.walk(
                pulled, chains.first(), chains.highest, chains.lowest, lambda: chains.noise().expand(chains.shape)
            )
        return chains.answer(drawn, done)

    @staticmethod
    def _slope(chains: Chains, x: Tensor, steep: Tensor | None) -> tuple[Tensor, Tensor]:
        """The gradient of the energy at every chain, and the largest curvature, with the axes of a member."""
        problem = chains.problem
        chains.products += 1
        fixed = isinstance(problem.forward, LinearOperator) and problem.noise.quadratic
        if fixed:
            slope = -chains.back(chains.rest(x))
        else:
            slope = torch.stack([problem.fidelity(one)[1] for one in x])
        if steep is None or not fixed:
            steep = across(1.05 * curvature(problem, x.mean(0)), x[0])
        return slope, steep


def example() -> tuple[DiffusionPosteriorSampling, Inverse[Any]]:
    """Six numbers out of nine of a Gaussian signal."""
    from sciml.samplers.gaussian_posterior import example as exact

    return DiffusionPosteriorSampling(samples=8, walk=Ancestral(30)), exact()[1]
