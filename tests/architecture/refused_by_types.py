"""What the type checker must refuse; `make check` runs it here, and an `ignore` that has become idle is an error."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml import Denoiser, GaussianNoise, Inverse, solve
from sciml.core import Matrix
from sciml.priors import Smoothness, TotalVariation
from sciml.solvers import ADMM, Discrepancy, GaussNewton, PrimalDual, ProximalGradient


def average(x: Tensor, sigma: Tensor | float) -> Tensor:
    return x.mean(-1, keepdim=True).expand_as(x)


forward = Matrix(torch.eye(5, dtype=torch.float64))
data = torch.zeros(1, 1, 5, dtype=torch.float64)
noise = GaussianNoise(0.1)
rough = Inverse("a nonsmooth prior", forward, data, noise, TotalVariation(), weight=1.0)
smooth = Inverse("a smooth prior", forward, data, noise, Smoothness(), weight=1.0)
denoised = Inverse("a prior that only denoises", forward, data, noise, Denoiser(average), weight=1.0)

solve(rough, PrimalDual())
solve(rough, ProximalGradient())
solve(rough, ADMM())
solve(smooth, GaussNewton())
solve(rough, Discrepancy(PrimalDual()))

solve(rough, GaussNewton())  # type: ignore[misc]
solve(denoised, PrimalDual())  # type: ignore[misc]
solve(denoised, ProximalGradient())  # type: ignore[misc]
solve(denoised, ADMM())  # type: ignore[misc]
