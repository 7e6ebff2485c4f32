r"""Exact draws of the posterior of a Gaussian prior: what other samplers are measured against.

For ``x ~ N(m, C)`` and whitened data ``y = A x + n`` the posterior is ``N(\mu, P)`` with ``P = (C^{-1} + A^H A)^{-1}`` and
``\mu = m + P A^H (y - A m)``. A draw is made by perturbing and solving (Papandreou and Yuille, NIPS 2010): with ``x_0`` from the prior and
``n`` white noise, ``x = x_0 + C A^H (1 + A C A^H)^{-1} (y + n - A x_0)`` has exactly that law.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.gradients import Detach, Gradient
from sciml.core.inverse import Inverse
from sciml.core.problem import Problem
from sciml.core.solution import Answer
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.samplers._chains import Chains, Draws, conjugate_gradients, refusal

__all__ = ["GaussianPosterior", "example"]


@dataclass(frozen=True, eq=False)
class GaussianPosterior(Solver[Inverse[Any]]):
    """``samples`` independent, exact draws for a Gaussian prior, a linear forward model and Gaussian noise.

    ``inner`` bounds the conjugate gradient steps of a draw, in the space of the data, to the residual ``tolerance``. The value is the mean
    of the samples, not the posterior mean itself. *Fails when* ``inner`` steps do not solve the data's equations.
    """

    samples: int = 16
    seed: int = 0
    inner: int = 200
    tolerance: float = 1e-10

    gradient: ClassVar[Gradient] = Detach()
    citations: ClassVar[tuple[str, ...]] = (
        "@inproceedings{papandreou2010, author={Papandreou, G. and Yuille, A. L.}, title={Gaussian sampling by local perturbations}, booktitle={NIPS}, year={2010}}",
    )

    def __post_init__(self) -> None:
        if self.samples < 1 or self.inner < 1:
            raise InputError(f"GaussianPosterior(samples={self.samples}, inner={self.inner}): each is at least 1")

    def accepts(self, problem: Problem) -> str | None:
        """Linear Inverse problems with Gaussian noise and a Gaussian prior."""
        reason = refusal(problem, "GaussianPosterior")
        if reason is None and isinstance(problem, Inverse) and not hasattr(problem.prior, "covariant"):
            return f"its prior {type(problem.prior).__name__} is not Gaussian"
        return reason

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """Perturb and solve, all chains together."""
        assert isinstance(problem, Inverse)
        chains, prior = Chains(problem, self.samples, self.seed), problem.prior
        noise = Draws(self.seed + 1, self.samples, torch.zeros_like(chains.data[:1]))
        n = noise()
        if problem.noise.measured is not None:
            n = torch.where(problem.noise.measured, n, torch.zeros_like(n))
        x = prior.colour(chains.noise()).expand(chains.shape)

        def whole(q: Tensor) -> Tensor:
            return q + chains.ahead(prior.covariant(chains.back(q)))

        q = conjugate_gradients(whole, n + chains.rest(x), self.inner, self.tolerance)
        return chains.answer(x + prior.covariant(chains.back(q)), 1)


def example() -> tuple[GaussianPosterior, Inverse[Any]]:
    """Six numbers out of nine of a Gaussian signal."""
    from sciml.core.matrix import Matrix
    from sciml.core.noise import GaussianNoise
    from sciml.priors.gaussian import Gaussian

    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(9, 9, generator=generator, dtype=torch.float64)
    prior = Gaussian(Matrix(mixed @ mixed.T / 9 + 0.1 * torch.eye(9, dtype=torch.float64)), mean=0.5)
    forward = Matrix(torch.randn(6, 9, generator=generator, dtype=torch.float64) / 3)
    truth = prior.on(forward.space).sample(1, generator=generator)
    noise = GaussianNoise(0.1)
    data = noise.sample(forward(truth), generator=generator)
    return GaussianPosterior(samples=8), Inverse("a Gaussian signal", forward, data, noise, prior, truth=truth)
