r"""Decomposed diffusion sampling: the denoised image is moved towards the data by a few conjugate gradient steps.

At each level ``sigma``, with ``x0 = D(x, sigma)``, whitened model ``A`` and data ``y``,

.. math:: x_0' = \arg\min_u |A u - y|^2 / 2 + |u - x_0|^2 / (2 r^2), \qquad
          x' = x_0' + \sigma' \bigl( \sqrt{1 - \eta^2}\, (x - x_0) / \sigma + \eta\, n \bigr),

the first by ``inner`` steps of conjugate gradients from ``x_0``. No derivative of the network is needed. ``r`` is how far ``x_0`` is off: as
the residual tells, in which an error of deviation ``r`` in each pixel adds ``r^2 |A|_F^2`` to the number of data, or what the prior's
denoiser leaves of a pixel at that level, if that is more,

.. math:: r^2 = \max\bigl( (|A x_0 - y|^2 - m) / |A|_F^2,\ r_D(\sigma)^2 \bigr),

per chain. So there is no weight to choose, and nothing depends on units.

Source: Chung, Lee and Ye, arXiv:2303.05754, where the weight of the data is a number to be tuned.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.gradients import Detach, Gradient
from sciml.core.inverse import Inverse
from sciml.core.probability_flow import Karras, Levels, remaining
from sciml.core.problem import Problem
from sciml.core.solution import Answer
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.samplers._chains import Chains, inner, refusal, spread

__all__ = ["DecomposedDiffusion", "example"]


@dataclass(frozen=True, eq=False)
class DecomposedDiffusion(Solver[Inverse[Any]]):
    """``samples`` draws for linear forward models and Gaussian noise, ``steps`` evaluations of the denoiser each.

    ``inner`` is the number of conjugate gradient steps per level, ``eta`` the share of fresh noise (0: none but the first),
    ``levels`` their spacing. Chain ``s`` depends on ``(seed, s)`` alone and uses the same noise for all members. The value is the mean
    of the samples; weight and start play no part.

    *Fails when* what is unknown is far from white: the posterior's spread is then wrong (too small with few steps and much fresh
    noise, which is best for the mean), as a calibration record shows.
    """

    steps: int = 49
    samples: int = 16
    seed: int = 0
    inner: int = 4
    eta: float = 0.85
    levels: Levels = Karras()

    gradient: ClassVar[Gradient] = Detach()
    citations: ClassVar[tuple[str, ...]] = (
        "@inproceedings{chung2024, author={Chung, H. and Lee, S. and Ye, J. C.}, title={Decomposed diffusion sampler for accelerating large-scale inverse problems}, booktitle={ICLR}, year={2024}, eprint={2303.05754}, archivePrefix={arXiv}}",
    )

    def __post_init__(self) -> None:
        if min(self.steps, self.samples, self.inner) < 1 or not 0 <= self.eta <= 1:
            raise InputError(
                f"DecomposedDiffusion(steps={self.steps}, samples={self.samples}, inner={self.inner}, eta={self.eta}): counts are at least 1, eta is from 0 to 1"
            )

    def accepts(self, problem: Problem) -> str | None:
        """Linear Inverse problems with Gaussian noise and a prior that denoises."""
        return refusal(problem, "DecomposedDiffusion")

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """From noise to images, level by level."""
        assert isinstance(problem, Inverse)
        chains = Chains(problem, self.samples, self.seed)
        keep = math.sqrt(1 - self.eta**2)
        with torch.no_grad():
            size, count = self._size(chains), problem.noise.dof(problem.data)
            x = chains.first()
            levels = [*self.levels(chains.highest, chains.lowest, self.steps), 0.0]
            for step, (sigma, after) in enumerate(itertools.pairwise(levels)):
                clean = chains.denoise(x, sigma)
                rest = chains.rest(clean)
                told = (inner(rest, rest) - count) / size
                square = told.clamp_min(remaining(problem.prior, sigma) ** 2)
                near = clean + self._pull(chains, rest, square)
                if after > 0:
                    near = near + after * (keep / sigma * (x - clean) + self.eta * chains.noise())
                x = near
                if context.progress is not None:
                    context.progress(step + 1, self.steps, sigma)
        return chains.answer(x, self.steps)

    @staticmethod
    def _size(chains: Chains) -> Tensor:
        """``|A|_F^2`` per member, ``(1, B)``, from the images of white noise: of 4096 numbers at least, or sixteen images."""
        space, real = chains.problem.space, not chains.problem.space.zeros().is_complex()
        probes = min(16, max(1, 4096 // space.size))
        generator = torch.Generator().manual_seed(0)
        kind = torch.float64 if real else torch.complex128
        z = torch.randn((probes, 1, *space.shape), generator=generator, dtype=kind).to(space.zeros())
        image = chains.ahead((z if real else z * math.sqrt(2)).expand(-1, chains.problem.batch, *space.shape))
        return inner(image, image).mean(0, keepdim=True).clamp_min(1e-300)

    def _pull(self, chains: Chains, rest: Tensor, square: Tensor) -> Tensor:
        """``A^H (1 + r^2 A A^H)^{-1} r^2 rest``, roughly: conjugate gradients among the data, which are fewer than the pixels.

        The images of the directions are summed along the way, and the last direction needs no image of its own.
        """
        wide = spread(square, rest)
        r = wide * rest
        p, rho, moved = r, inner(r, r), None
        for step in range(self.inner):
            image = chains.back(p)
            bend = inner(p, p) + square * inner(image, image)
            alpha = torch.where(rho > 0, rho / bend.clamp_min(1e-300), torch.zeros_like(rho))
            shift = spread(alpha, image) * image
            moved = shift if moved is None else moved.add_(shift)
            if step + 1 == self.inner:
                break
            r = r - spread(alpha, r) * (p + wide * chains.ahead(image))
            new = inner(r, r)
            p = r + spread(torch.where(rho > 0, new / rho.clamp_min(1e-300), torch.zeros_like(rho)), p) * p
            rho = new
        assert moved is not None
        return moved


def example() -> tuple[DecomposedDiffusion, Inverse[Any]]:
    """Six numbers out of nine of a Gaussian signal."""
    from sciml.samplers.gaussian_posterior import example as exact

    return DecomposedDiffusion(steps=20, samples=8), exact()[1]
