"""Where is the sand: the permeability of a medium from the pressure at a few wells.

Darcy flow ``-div(exp(x) grad u) = source`` with ``u`` given on the sides of a box; wanted is ``x``, the logarithm of the coefficient, from
noisy values of ``u`` at ``sensors`` points. The true ``x`` is a centred Gaussian field with covariance proportional to
``(-laplacian + 9)^-2`` and standard deviation ``deviation``. The data are simulated on a grid of half the spacing, so that the
inversion does not get its own discretisation back, with white noise of ``noise`` times the largest pressure at the wells.
``batch=B`` draws media, all seen by the same wells; member ``i`` depends on ``seed`` and ``i`` alone.

With ``points`` ``(m, dim)`` and ``data`` ``(m,)`` or ``(batch, 1, m)`` you measured, and the standard deviation ``sigma`` of their noise,
nothing is simulated. The prior is the integral of ``|grad x|^2 / 2``; others by ``with_prior``.
Units: pressure in units of source times length squared over coefficient.

*Fails when* the coefficient jumps (the reconstruction is smooth), and where the pressure is flat: what does not change the flow
is not seen. Reference: Dashti and Stuart, The Bayesian approach to inverse problems, arXiv 1302.6989.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import sciml
from sciml.core import GaussianNoise, Inverse, Linear
from sciml.discretise import Diffusion
from sciml.domains import Condition, Dirichlet, GaussianField, Grid, InputError, member_generator
from sciml.domains.numbers import numbers
from sciml.forward import ParameterToState, PointValues
from sciml.priors import Smoothness
from sciml.solvers import ConjugateGradient, Direct, Discrepancy, GaussNewton, Multigrid

Sides = Mapping[str, Any] | Condition
FEW = 5000  # unknowns of a flow up to which a factorisation is quicker than iterations


def problem(
    *,
    data: Tensor | None = None,
    points: Tensor | None = None,
    sigma: float | None = None,
    dim: int | None = None,
    n: int | Sequence[int] = 63,
    extent: float | Sequence[float] = 1.0,
    sensors: int = 64,
    noise: float = 0.01,
    deviation: float = 1.0,
    source: float = 1.0,
    sides: Sides = Dirichlet(0.0),  # noqa: B008  (frozen)
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Inverse:
    """The measured values ``data`` at ``points``, or one simulated member: the first that ``draw`` gives for this seed."""
    if data is None and sigma is not None:
        raise InputError(
            "sigma= is the noise of measured data=; that of simulated ones is noise=, a share of the largest"
        )
    if data is None:
        settings = dict(locals())
        settings.pop("data")
        settings.pop("sigma")
        return draw(1, **settings)
    if points is None or sigma is None:
        raise InputError("measured data need points=, where they were taken, and sigma=, the deviation of their noise")
    grid = box(dim, n, extent, sides)
    data, points = real("data", data), real("points", points)
    forward = model(grid, points.to(dtype), source, dtype)
    return Inverse("inverse darcy", forward, data.to(dtype), GaussianNoise(float(sigma)), Smoothness())


def draw(
    count: int,
    *,
    seed: int = 0,
    points: Tensor | None = None,
    dim: int | None = None,
    n: int | Sequence[int] = 63,
    extent: float | Sequence[float] = 1.0,
    sensors: int = 64,
    noise: float = 0.01,
    deviation: float = 1.0,
    source: float = 1.0,
    sides: Sides = Dirichlet(0.0),  # noqa: B008  (frozen)
    dtype: torch.dtype = torch.float64,
) -> Inverse:
    """``count`` random media and what the wells see of them."""
    if count < 1 or sensors < 1 or not 0 < noise < math.inf or not deviation >= 0:
        raise InputError(
            f"count is {count}, sensors {sensors}, noise {noise}, deviation {deviation}; give positive numbers"
        )
    grid = box(dim, n, extent, sides)
    if points is None:
        # Away from the sides, where the pressure is known anyway.
        unit = torch.rand(sensors, grid.dim, generator=member_generator(seed, 0, "sensors"), dtype=torch.float64)
        points = (0.05 + 0.9 * unit) * torch.tensor(grid.extent, dtype=torch.float64)
    points = real("points", points).to(torch.float64)
    fine = box(grid.dim, [2 * m + 1 for m in grid.shape], grid.extent, sides)
    law = GaussianField(power=2.0, shift=9.0, deviation=deviation)
    truth, clean = [], []
    for i in range(count):
        truth.append(law.sample(grid, 1, member_generator(seed, i, "medium")))
        medium = law.sample(fine, 1, member_generator(seed, i, "medium")).exp()
        flow = Linear("the flow behind the data", Diffusion(fine, medium), full(fine, source))
        clean.append(PointValues(fine.space(), points).values(sciml.solve(flow, flow_solver(fine)).value))
    y = torch.cat(clean)
    sigma = noise * y.abs().flatten(1).amax(1)
    noisy = [
        GaussianNoise(float(sigma[i])).sample(y[i : i + 1], generator=member_generator(seed, i, "noise"))
        for i in range(count)
    ]
    forward = model(grid, points.to(dtype), source, dtype)
    return Inverse(
        "inverse darcy",
        forward,
        torch.cat(noisy).to(dtype),
        GaussianNoise(sigma.to(dtype) if count > 1 else float(sigma)),
        Smoothness(),
        truth=torch.cat(truth).to(dtype),
    )


def real(name: str, given: Any) -> Tensor:
    """A tensor of real numbers."""
    found = numbers(name, given)
    if found.is_complex():
        raise InputError(f"{name} is complex; pressures and places are real, take their real part")
    return found


def model(grid: Grid, points: Tensor, source: float, dtype: torch.dtype) -> ParameterToState:
    """The logarithm of the coefficient to the pressure at the wells."""
    flow = Linear("darcy", Diffusion(grid, torch.ones(1, 1, *grid.shape, dtype=dtype)), full(grid, source).to(dtype))
    return ParameterToState(flow, "coefficient", solver=flow_solver(grid), observe=points, log=True)


def flow_solver(grid: Grid) -> Any:
    """What solves the flow: a factorisation for small plane grids, conjugate gradients with multigrid otherwise."""
    if grid.dim <= 2 and math.prod(grid.shape) <= FEW:
        return Direct()
    return ConjugateGradient(preconditioner=Multigrid(), max_steps=200)


def box(dim: int | None, n: int | Sequence[int], extent: float | Sequence[float], sides: Sides) -> Grid:
    """The grid of ``n`` unknowns per axis."""
    shape = (n,) * (dim or 2) if isinstance(n, int) else tuple(int(m) for m in n)
    if dim is not None and len(shape) != dim:
        raise InputError(f"n is {n}; give an integer, or {dim} of them")
    return Grid(shape, extent, sides)  # type: ignore[arg-type]


def full(grid: Grid, value: float) -> Tensor:
    """A constant field."""
    return torch.full((1, 1, *grid.shape), float(value), dtype=torch.float64)


def solver(problem: Inverse) -> Any:
    """Gauss-Newton from zero; the weight by the discrepancy."""
    return Discrepancy(GaussNewton()) if problem.weight is None else GaussNewton()
