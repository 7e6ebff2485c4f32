r"""Twisted diffusion sampling: guided chains that carry weights, so that what the guidance gets wrong is put right by numbers.

A chain moves from ``x`` at ``sigma`` to ``x'`` at ``sigma'`` by the ancestral step of the pulled denoiser ``D_y`` of moment matching,
where the prior alone would have taken that of ``D``; with ``h(x, sigma)`` a guess of ``p(y | x)`` its weight is multiplied by

.. math:: \frac{N(x'; m(D), v)}{N(x'; m(D_y), v)} \frac{h(x', \sigma')}{h(x, \sigma)}, \qquad
          m(D) = D + (\sigma' / \sigma)^2 (x - D), \quad v = \sigma'^2 (1 - (\sigma' / \sigma)^2),

and chains are drawn anew in proportion to their weights where those have become too uneven. The last ``h`` is the likelihood, so the
law of the chains tends to the posterior as their number and that of the steps grow, whatever ``h`` was before: here the Gaussian
``\log h = -\rho^H (1 + r^2 A A^H)^{-1} \rho / 2`` of the whitened residual ``\rho = y - A D(x)``, with ``r`` what the denoiser leaves of a pixel.

Source: Wu, Trippe, Naesseth, Blei and Cunningham, arXiv:2306.17775.
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
from sciml.samplers._chains import Chains, conjugate_gradients, inner, refusal

__all__ = ["TwistedDiffusion", "example"]


@dataclass(frozen=True, eq=False)
class TwistedDiffusion(Solver[Inverse[Any]]):
    """``samples`` chains that compete, for linear forward models and Gaussian noise; right also about the weights of modes.

    ``steps`` levels, one evaluation and one backward pass of the denoiser at each; chains of a member are drawn anew when the effective number
    of them falls below ``share`` of ``samples``. ``inner`` bounds the conjugate gradient steps of ``h``. The samples of one member are not
    independent, and chain ``s`` depends on all; the same noise is used for all members. The value is the mean of the samples.

    *Fails when* there are few chains for what the data say: all descend from one in the end. Dozens of chains serve for tens
    of unknowns, not for images.
    """

    steps: int = 200
    samples: int = 256
    seed: int = 0
    share: float = 0.5
    inner: int = 30
    levels: Levels = Karras()

    gradient: ClassVar[Gradient] = Detach()
    citations: ClassVar[tuple[str, ...]] = (
        "@inproceedings{wu2023, author={Wu, L. and Trippe, B. L. and Naesseth, C. A. and Blei, D. M. and Cunningham, J. P.}, title={Practical and asymptotically exact conditional sampling in diffusion models}, booktitle={NeurIPS}, year={2023}, eprint={2306.17775}, archivePrefix={arXiv}}",
    )

    def __post_init__(self) -> None:
        if min(self.steps, self.inner) < 1 or self.samples < 2 or not 0 < self.share <= 1:
            raise InputError(
                f"TwistedDiffusion(steps={self.steps}, samples={self.samples}, share={self.share}, inner={self.inner}): at least one step and two chains, share above 0 and at most 1"
            )

    def accepts(self, problem: Problem) -> str | None:
        """Linear Inverse problems with Gaussian noise and a prior that denoises."""
        return refusal(problem, "TwistedDiffusion")

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """From noise to images, level by level."""
        assert isinstance(problem, Inverse)
        chains = Chains(problem, self.samples, self.seed)
        dice = torch.Generator().manual_seed((self.seed * 1_000_003 + 999_983) % 2**62)
        with torch.no_grad():
            x = chains.first()
            clean, pulled, log = self._look(chains, x, chains.highest)
            weight = log
            levels = self.levels(chains.highest, chains.lowest, self.steps)
            for step, (sigma, after) in enumerate(itertools.pairwise(levels)):
                x, clean, pulled, weight, log = self._renew(dice, x, clean, pulled, weight, log)
                ratio = (after / sigma) ** 2
                spread = after * math.sqrt(1 - ratio)
                n = chains.noise()
                move = (1 - ratio) * (pulled - clean)  # between the means of the two steps
                x = pulled + ratio * (x - pulled) + spread * n
                # log N(x'; m(D), v) - log N(x'; m(D_y), v), with x' - m(D_y) = spread n
                odds = -inner(move, move) / (2 * spread**2) - inner(move, n.expand(x.shape)) / spread
                before = log
                clean, pulled, log = self._look(chains, x, after)
                weight = weight + odds + log - before
                if context.progress is not None:
                    context.progress(step + 1, self.steps, sigma)
            exact = -inner(rest := chains.rest(x), rest) / 2
            x = self._renew(dice, x, clean, pulled, weight + exact - log, log, always=True)[0]
        return chains.answer(x, self.steps)

    def _look(self, chains: Chains, x: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        """The denoised chains, the pulled ones, and ``log h``."""
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            clean = chains.denoise(at, sigma)
        mean = clean.detach()
        rest = chains.rest(mean)
        square = remaining(chains.problem.prior, sigma) ** 2

        def whole(q: Tensor) -> Tensor:
            return q + square * chains.ahead(chains.back(q))

        q = conjugate_gradients(whole, rest, self.inner)
        (pull,) = torch.autograd.grad(clean, at, chains.back(q))
        return mean, mean + sigma**2 * pull, -inner(rest, q) / 2

    def _renew(
        self, dice: torch.Generator, x: Tensor, clean: Tensor, pulled: Tensor, weight: Tensor, log: Tensor, always: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """Chains drawn anew, systematically, in members whose weights are too uneven; theirs are then equal."""
        count = len(x)
        share = torch.softmax(torch.nan_to_num(weight, nan=-math.inf), 0)
        few = 1 / share.square().sum(0) < self.share * count
        offset = float(torch.rand((), generator=dice, dtype=torch.float64))
        if always:
            few = torch.ones_like(few)
        if not bool(few.any()):
            return x, clean, pulled, weight, log
        marks = ((torch.arange(count, dtype=torch.float64, device=x.device) + offset) / count).unsqueeze(1)
        heap = share.cumsum(0)
        chosen = torch.searchsorted(heap.T.contiguous(), marks.T.expand(heap.shape[1], count).contiguous()).T
        chosen = chosen.clamp(max=count - 1)
        chosen = torch.where(few, chosen, torch.arange(count, device=x.device).unsqueeze(1))
        which = chosen.reshape(*chosen.shape, *[1] * (x.ndim - 2))
        taken = [torch.gather(t, 0, which.expand(t.shape)) for t in (x, clean, pulled)]
        return (
            *taken,  # type: ignore[return-value]
            torch.where(few, torch.zeros_like(weight), weight),
            torch.gather(log, 0, chosen),
        )


def example() -> tuple[TwistedDiffusion, Inverse[Any]]:
    """Six numbers out of nine of a Gaussian signal."""
    from sciml.samplers.gaussian_posterior import example as exact

    return TwistedDiffusion(steps=30, samples=32), exact()[1]
