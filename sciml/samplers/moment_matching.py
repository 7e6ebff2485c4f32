r"""Posterior sampling by moment matching: the probability flow of the posterior, with Gaussians for what noise hides.

What is known of the image ``x0`` given ``x = x0 + sigma n`` is taken for ``N(D(x), C)``, with ``D`` the prior's denoiser. With data
``y = A x0 + noise`` the posterior mean is then, in whitened units (``A`` and ``y`` over the noise's standard deviation),

.. math:: D_y(x) = D(x) + C A^H (1 + A C A^H)^{-1} (y - A D(x)),

and ``D_y`` takes the place of ``D`` in the probability flow. ``C = sigma^2 dD/dx`` is exact to second order (Tweedie; Boys,
Girolami, Pidstrigach, Reich, Mosca and Akyildiz, arXiv:2310.06721), so the whole is exact for Gaussian priors. Keeping ``C`` in front but a
multiple of the identity inside the inverse is pseudoinverse guidance (Song, Vahdat, Mardani and Kautz, ICLR 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from sciml.core.gradients import Detach, Gradient
from sciml.core.inverse import Inverse
from sciml.core.probability_flow import Heun, Walk, remaining
from sciml.core.problem import Problem
from sciml.core.solution import Answer
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.samplers._chains import Chains, conjugate_gradients, refusal

__all__ = ["Isotropic", "MomentMatching", "Tweedie", "example"]


class Covariance(Protocol):
    """``solve(chains, sigma, tied, rest)``: the data-space vector that ``C A^H`` is applied to; ``tied`` applies ``C``."""

    def solve(self, chains: Chains, sigma: float, tied: Any, rest: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Tweedie:
    """``C = sigma^2 dD/dx`` throughout: ``steps`` conjugate gradient steps at most, each a backward pass of the denoiser."""

    steps: int = 12
    tolerance: float = 1e-6

    def solve(self, chains: Chains, sigma: float, tied: Any, rest: Tensor) -> Tensor:
        """``(1 + A C A^H)^{-1} rest``."""

        def whole(q: Tensor) -> Tensor:
            return q + chains.ahead(tied(chains.back(q)))

        return conjugate_gradients(whole, rest, self.steps, self.tolerance)


@dataclass(frozen=True)
class Isotropic:
    """``C = r^2`` inside the inverse, ``r`` what the prior says remains of a pixel: no further passes of the denoiser."""

    steps: int = 50
    tolerance: float = 1e-6

    def solve(self, chains: Chains, sigma: float, tied: Any, rest: Tensor) -> Tensor:
        """``(1 + r^2 A A^H)^{-1} rest``."""
        square = remaining(chains.problem.prior, sigma) ** 2

        def whole(q: Tensor) -> Tensor:
            return q + square * chains.ahead(chains.back(q))

        return conjugate_gradients(whole, rest, self.steps, self.tolerance)


@dataclass(frozen=True, eq=False)
class MomentMatching(Solver[Inverse[Any]]):
    """``samples`` independent draws of the posterior for linear forward models and Gaussian noise.

    ``walk`` integrates the flow (``Heun(steps)``, ``Euler``, ``Ancestral``); ``covariance`` is ``Tweedie()`` or ``Isotropic()``, which is
    pseudoinverse guidance. Chain ``s`` depends on ``(seed, s)`` alone and uses the same noise for all members. The value is the mean of
    the samples; weight and start play no part. Nothing depends on the units of data, image or model.

    *Fails when* the posterior has modes that the Gaussian at high noise joins: their weights come out wrong; and when a
    learned denoiser's derivative is far from symmetric and positive.
    """

    samples: int = 16
    seed: int = 0
    walk: Walk = Heun(32)
    covariance: Covariance = Tweedie()

    gradient: ClassVar[Gradient] = Detach()
    citations: ClassVar[tuple[str, ...]] = (
        "@article{boys2023, author={Boys, B. and Girolami, M. and Pidstrigach, J. and Reich, S. and Mosca, A. and Akyildiz, O. D.}, title={Tweedie moment projected diffusions for inverse problems}, eprint={2310.06721}, archivePrefix={arXiv}}",
        "@inproceedings{song2023, author={Song, J. and Vahdat, A. and Mardani, M. and Kautz, J.}, title={Pseudoinverse-guided diffusion models for inverse problems}, booktitle={ICLR}, year={2023}}",
    )

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"MomentMatching: samples is {self.samples}; draw at least one")

    def accepts(self, problem: Problem) -> str | None:
        """Linear Inverse problems with Gaussian noise and a prior that denoises."""
        return refusal(problem, "MomentMatching")

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """The walk along the posterior's flow."""
        assert isinstance(problem, Inverse)
        chains = Chains(problem, self.samples, self.seed)
        done = 0

        def posterior(x: Tensor, sigma: float) -> Tensor:
            nonlocal done
            with torch.enable_grad():
                at = x.detach().requires_grad_()
                clean = chains.denoise(at, sigma)

            def tied(v: Tensor) -> Tensor:
                (found,) = torch.autograd.grad(clean, at, v, retain_graph=True)
                return sigma**2 * found

            mean = clean.detach()
            found = mean + tied(chains.back(self.covariance.solve(chains, sigma, tied, chains.rest(mean))))
            done += 1
            if context.progress is not None:
                context.progress(done, 0, sigma)
            return found

        with torch.no_grad():
            drawn = self.walk(
                posterior, chains.first(), chains.highest, chains.lowest, lambda: chains.noise().expand(chains.shape)
            )
        return chains.answer(drawn, done)


def example() -> tuple[MomentMatching, Inverse[Any]]:
    """Six numbers out of nine of a Gaussian signal."""
    from sciml.samplers.gaussian_posterior import example as exact

    return MomentMatching(samples=8, walk=Heun(12)), exact()[1]
