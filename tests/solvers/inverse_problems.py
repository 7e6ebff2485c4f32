"""Small inverse problems with dense answers, and priors made for the tests alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.core import GaussianNoise, Inverse, Matrix, Prior
from sciml.core.linear import LinearOperator
from sciml.core.noise import across, total

ROWS, COLUMNS, SIGMA = 25, 14, 0.3


@dataclass(frozen=True, eq=False)
class Absolute(Prior):
    """``sum |x_i|``, with its proximal map at every step; ``flaw`` multiplies the step."""

    flaw: float = 1.0
    only_step = None

    def energy(self, x: Tensor) -> Tensor:
        return total(x.abs())

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        t = across(step, v) * self.flaw
        size = v.abs()
        return v * ((size - t).clamp_min(0) / size.clamp_min(1e-300))


@dataclass(frozen=True, eq=False)
class OneStep(Prior):
    """The same map at one step only, and without an energy, as a learned one."""

    only_step: float
    inner: Any

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        assert torch.allclose(torch.as_tensor(step, dtype=torch.float64), torch.tensor(self.only_step).double())
        return self.inner.prox(v, self.only_step)


@dataclass(frozen=True, eq=False)
class Ridge(Prior):
    """``<x, C x> / 2`` for a symmetric matrix ``C``; proximal too."""

    matrix: Matrix
    quadratic = True
    only_step = None

    def energy(self, x: Tensor) -> Tensor:
        return total((x.conj() * self.matrix(x)).real) / 2

    def gradient(self, x: Tensor) -> Tensor:
        return self.matrix(x)

    def curvature(self, x: Tensor) -> LinearOperator:
        return self.matrix


@dataclass(frozen=True, eq=False)
class Huber(Prior):
    """``sum sqrt(1 + x_i^2) - 1``: smooth and not quadratic."""

    def energy(self, x: Tensor) -> Tensor:
        return total((1 + x.abs().square()).sqrt() - 1)

    def gradient(self, x: Tensor) -> Tensor:
        return x / (1 + x.abs().square()).sqrt()

    def curvature(self, x: Tensor) -> LinearOperator:
        bend = (1 + x.square()) ** -1.5
        return Matrix(torch.diag_embed(bend[:, 0]))


@dataclass(frozen=True, eq=False)
class OnlyDenoises(Prior):
    """A denoiser and nothing else."""

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return x


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matrix(batch: int = 1, complex_: bool = False, seed: int = 0) -> Matrix:
    kind = torch.complex128 if complex_ else torch.float64
    return Matrix(torch.randn(batch, ROWS, COLUMNS, generator=generator(seed), dtype=kind))


def posed(prior: Any, weight: Any = None, *, batch: int = 1, complex_: bool = False, seed: int = 0) -> Inverse[Any]:
    """Data of a sparse, blocky signal behind a random matrix; sigma 0.3 per component."""
    forward = matrix(1, complex_, seed)
    truth = torch.zeros(batch, 1, COLUMNS, dtype=forward.entries.dtype)
    truth[..., 3:7], truth[..., 9] = 2.0, -1.0
    truth = truth * torch.arange(1, batch + 1).reshape(-1, 1, 1)
    noise = GaussianNoise(SIGMA)
    data = noise.sample(forward(truth), generator=generator(seed + 1))
    return Inverse("a small signal", forward, data, noise, prior, weight=weight)


def ridge() -> Ridge:
    """Second differences, positive definite."""
    eye = torch.eye(COLUMNS, dtype=torch.float64)
    return Ridge(Matrix(2.1 * eye - eye.roll(1, 0) - eye.roll(-1, 0)))


def normal_solution(problem: Inverse[Any]) -> Tensor:
    """The dense solution of the normal equations with numpy."""
    a = problem.forward.entries[0].numpy() / SIGMA  # type: ignore[attr-defined]
    y = problem.data[:, 0].numpy().T / SIGMA
    c = problem.prior.matrix.entries[0].numpy()
    x = np.linalg.solve(a.conj().T @ a + float(problem.weight) * c, a.conj().T @ y)  # type: ignore[arg-type]
    return torch.from_numpy(x.T).unsqueeze(1)


def scaled(problem: Inverse[Any], data: float, model: float, degree: int) -> Inverse[Any]:
    """Data and sigma times ``data``, forward model times ``model``, and the weight that keeps the problem the same.

    The unknown is then times ``data / model``, and a prior of that ``degree`` of homogeneity times its power.
    """
    unit = data / model
    return Inverse(
        problem.name,
        Matrix(problem.forward.entries * model),  # type: ignore[attr-defined]
        problem.data * data,
        GaussianNoise(problem.noise.sigma * data),  # type: ignore[attr-defined]
        problem.prior,
        weight=None if problem.weight is None else problem.weight / unit**degree,
        goals=problem.goals,
    )


def soft_solution(problem: Inverse[Any], rounds: int = 200_000) -> np.ndarray[Any, Any]:
    """The minimiser of ``|a x - y|^2 / 2 + w |x|_1`` by cyclic coordinate descent in numpy, to the last digits."""
    a = problem.forward.entries[0].numpy() / SIGMA  # type: ignore[attr-defined]
    r = problem.data[0, 0].numpy() / SIGMA
    w, x, square = float(problem.weight), np.zeros(a.shape[1]), (a**2).sum(0)  # type: ignore[arg-type]
    for _ in range(rounds):
        before = x.copy()
        for j in range(len(x)):
            slope = a[:, j] @ r + square[j] * x[j]
            new = np.sign(slope) * max(abs(slope) - w, 0.0) / square[j]
            r, x[j] = r + a[:, j] * (x[j] - new), new
        if np.abs(x - before).max() < 1e-15:
            break
    return x
