"""Inverse problems of many shapes with quick answers, for pictures and files."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from sciml.core import GaussianNoise, Inverse, LinearOperator, Solution
from sciml.domains import Grid, Pixels
from sciml.domains.phantoms import Ellipses
from sciml.forward.convolution import Convolution, Reflect
from sciml.forward.point_values import PointValues
from sciml.forward.radon import Radon
from sciml.priors import TotalVariation
from sciml.solvers import Discrepancy, PrimalDual
from sciml.solvers.filtered_backprojection import FilteredBackprojection
from sciml.solving import solve


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def discs(pixels: Pixels, batch: int = 1) -> Tensor:
    """A large and a small ellipse, off the centre in x and y by different amounts; other values in every member."""

    def row(*values: Any) -> Tensor:
        return torch.tensor([values] * batch, dtype=torch.float64)

    size = (1 + torch.arange(batch, dtype=torch.float64)).reshape(-1, 1)
    image: Tensor = Ellipses(
        row((0.1, -0.1), (0.45, 0.2)), row((0.6, 0.8), (0.1, 0.15)), row(0.3, 0.0), size * row(1.0, 0.8)
    ).image(pixels)
    return image


def scan(batch: int = 1, sigma: float = 0.02, views: int = 15, truth: bool = True, **more: Any) -> Inverse[Any]:
    """A small scan of ellipses on uneven pixels."""
    pixels = Pixels((20, 26), (2.0, 2.6))
    angles = torch.arange(views, dtype=torch.float64) * (math.pi / views)
    radon = Radon(pixels, angles)
    image = discs(pixels, batch)
    noise = GaussianNoise(sigma)
    data = noise.sample(radon(image), generator=seeded())
    return Inverse("ellipses", radon, data, noise, truth=image if truth else None, **more)


def made(problem: Inverse[Any], x: Tensor | None = None) -> Solution:
    """A solution without a solve: the truth, blurred by random numbers, judged by the problem."""
    from sciml.core import Answer, Code
    from sciml.core.solution import decide

    if x is None:
        assert problem.truth is not None
        scale = 0.1 * problem.truth.abs().max()
        x = problem.truth + scale * torch.randn(problem.truth.shape, generator=seeded(1), dtype=problem.truth.dtype)
    claim = torch.full((len(x),), int(Code.CONVERGED))
    answer = Answer(x, claim)
    checks = problem.certify(answer)
    history = torch.logspace(0, -4, 60, dtype=torch.float64).reshape(-1, 1).expand(-1, len(x)).clone()
    history[0] = math.inf
    return Solution(
        x, decide(claim, checks), checks, problem, PrimalDual(), {"seconds": 0.1, "steps": 59}, history,
        weight=problem.weights(),
    )  # fmt: skip


def solved(problem: Inverse[Any], solver: Any = None) -> Solution:
    """A real solve, without the warning that some member is not certified."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return solve(problem, solver)


def total_variation(problem: Inverse[Any]) -> Solution:
    return solved(problem.with_prior(TotalVariation()), Discrepancy(PrimalDual(max_steps=200), rounds=3))


def backprojected(problem: Inverse[Any]) -> Solution:
    return solved(problem, FilteredBackprojection())


def blurred(dim: int) -> Inverse[Any]:
    """An image with one to three axes seen through a short kernel."""
    shape = {1: (31,), 2: (14, 19), 3: (9, 12, 10)}[dim]
    pixels = Pixels(shape, tuple(0.1 * n for n in shape), (0.0,) * dim)
    kernel = torch.ones((3,) * dim, dtype=torch.float64) / 3**dim
    operator = Convolution(pixels, kernel, Reflect())
    truth = (pixels.points()[0] > 0.4).double().expand(1, 1, *shape) * pixels.points()[-1]
    data = operator(truth) + 0.01 * torch.randn(truth.shape, generator=seeded(2), dtype=torch.float64)
    return Inverse("blur", operator, data, GaussianNoise(0.01), truth=truth)


def at_points(dim: int) -> Inverse[Any]:
    """A field on a grid, known at a few points."""
    grid = Grid((12, 9, 8)[:dim], (1.0, 2.0, 0.5)[:dim])
    points = 0.05 + 0.4 * torch.rand(15, dim, generator=seeded(3), dtype=torch.float64)
    operator = PointValues(grid.space(), points)
    truth = torch.sin(3 * sum(grid.points())).expand(1, 1, *grid.shape)  # type: ignore[arg-type]
    data = operator(truth) + 0.05
    return Inverse("wells", operator, data, GaussianNoise(0.05), truth=truth)


class Identity(LinearOperator):
    """The image itself, as data without a domain."""

    def __init__(self, space: Any, codomain: Any) -> None:
        self._spaces = space, codomain

    @property
    def space(self) -> Any:
        return self._spaces[0]

    @property
    def codomain(self) -> Any:
        return self._spaces[1]

    def __call__(self, u: Tensor) -> Tensor:
        return u

    def adjoint(self, v: Tensor) -> Tensor:
        return v
