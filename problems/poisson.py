"""Poisson's equation ``-laplacian u = source`` on a box, with any mix of side conditions.

Without a ``source`` the problem is manufactured: source and side values are computed from a known smooth solution, which
is kept as ``exact``; ``sides`` then says which kind of condition stands where (and Robin's rate). With zero Dirichlet data
all around, the solution is a product of sines; otherwise it is not zero anywhere on the sides. With a ``source``, the side
values hold as they are given. Lengths are in units of the extent.

*Fails when* only Neumann and periodic sides are given with a source whose integral does not balance the flux: the problem
is then singular and is refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sciml.core import Continuous, Linear
from sciml.core.continuous import At
from sciml.discretise import Diffusion, SideLaw
from sciml.domains import Condition, Dirichlet, GaussianField, Grid, InputError, Neumann, Periodic, Robin
from sciml.solvers import Multigrid
from sciml.training import Reflection, Translation, Transposition

Sides = Mapping[str, Any] | Condition


def interior(at: At) -> Tensor:
    """``-laplacian u - f``."""
    total = -at["source"]
    for axis in range(len(at.x)):
        total = total - at.d(axis, axis)
    return total


def problem(
    *,
    dim: int | None = None,
    n: int | Sequence[int] = 255,
    extent: float | Sequence[float] = 1.0,
    sides: Sides = Dirichlet(0.0),  # noqa: B008  (frozen)
    source: float | Tensor | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Linear:
    """The manufactured problem, or the one with the given ``source`` (a number or a field). ``seed`` is for ``draw``."""
    grid = _grid(dim, n, extent, sides)
    if source is not None:
        field = (
            source.to(dtype)
            if isinstance(source, Tensor)
            else torch.full((1, 1, *grid.shape), float(source), dtype=dtype)
        )
        return Linear(
            "poisson",
            Diffusion(grid, 1.0, dtype=dtype),
            field,
            continuous=Continuous(interior, SideLaw.of(grid)),
            symmetries=_symmetries(grid, sides),
        )
    grid, exact, field = _manufactured(grid, sides, dtype)
    operator = Diffusion(grid, 1.0, dtype=dtype)
    if operator.null_space():
        # The continuous data balance; their samples do so up to the discretisation error, which is taken out here.
        # Any constant may be added to the solution: the one that solvers give has a plain sum of zero.
        field = field - operator.load(field).sum() / grid.volumes(dtype).sum()
        exact = exact - exact.mean()
    return Linear(
        "poisson, manufactured", operator, field, exact=exact, continuous=Continuous(interior, SideLaw.of(grid))
    )


def draw(
    count: int,
    *,
    seed: int = 0,
    dim: int | None = None,
    n: int | Sequence[int] = 255,
    extent: float | Sequence[float] = 1.0,
    sides: Sides = Dirichlet(0.0),  # noqa: B008  (frozen)
    dtype: torch.dtype = torch.float64,
) -> Linear:
    """``count`` random sources, centred Gaussian fields with covariance (-laplacian + 9)^-2 and deviation one.

    Member ``i`` depends on ``seed`` and ``i`` alone, and is the same function on every grid.
    """
    if count < 1:
        raise InputError(f"count is {count}; draw at least one member")
    grid = _grid(dim, n, extent, sides)
    field = GaussianField(deviation=1.0)
    source = torch.cat([field.sample(grid, 1, _generator(seed, i), dtype) for i in range(count)])
    operator = Diffusion(grid, 1.0, dtype=dtype)
    if operator.null_space():
        axes = tuple(range(1, source.ndim))
        source = source - operator.load(source).sum(axes, keepdim=True) / grid.volumes(dtype).sum()
    return Linear(
        "poisson, random source",
        operator,
        source,
        continuous=Continuous(interior, SideLaw.of(grid)),
        symmetries=_symmetries(grid, sides),
    )


def solver(problem: Any) -> Multigrid:
    """Multigrid takes every case here; DirectTransform is faster where no side is Robin."""
    return Multigrid()


def _grid(dim: int | None, n: int | Sequence[int], extent: float | Sequence[float], sides: Sides) -> Grid:
    shape = (n,) * (dim or 2) if isinstance(n, int) else tuple(n)
    if not all(isinstance(m, int) for m in shape) or (dim is not None and len(shape) != dim):
        raise InputError(f"n is {n}; give an integer, or {dim or 'one to three'} of them")
    return Grid(shape, extent, sides)  # type: ignore[arg-type]


def _symmetries(grid: Grid, sides: Sides) -> tuple[Any, ...]:
    if isinstance(sides, Periodic):
        return (Translation(),)
    square = len(set(grid.shape)) == 1 and len(set(grid.extent)) == 1
    plain = isinstance(sides, Dirichlet | Neumann) and not isinstance(sides.value, Tensor)
    return (Reflection(), Transposition()) if square and plain else ()


def _solution(x: Sequence[Tensor], grid: Grid, vanishing: bool) -> Tensor:
    """The manufactured solution at points."""
    u = torch.ones_like(x[0])
    for axis, (p, length, pair) in enumerate(zip(x, grid.extent, grid.conditions, strict=True)):
        if vanishing:
            u = u * torch.sin(math.pi * p / length) * torch.exp(0.5 * p)
        elif isinstance(pair[0], Periodic):
            u = u * (1.2 + torch.sin(2 * math.pi * p / length + 0.3 + axis))
        else:
            u = u * (1.5 + torch.cos(2.1 * p / length + 0.4 * (axis + 1)))
    return u


def _derivative(u: Tensor, along: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(u.sum(), along, create_graph=True)
    return slope


def _manufactured(grid: Grid, sides: Sides, dtype: torch.dtype) -> tuple[Grid, Tensor, Tensor]:
    """The grid with side values of the known solution, the solution, and its source."""
    vanishing = isinstance(sides, Dirichlet) and not isinstance(sides.value, Tensor) and sides.value == 0
    x = tuple(p.requires_grad_() for p in grid.points(torch.float64))
    u = _solution(x, grid, vanishing)
    source = torch.zeros_like(x[0])
    for p in x:
        source = source - _derivative(_derivative(u, p), p).detach()
    named: dict[str, Any] = {}
    for axis, pair in enumerate(grid.conditions):
        name = "xyz"[axis]
        row = []
        for condition, word, sign in zip(pair, ("lower", "upper"), (-1.0, 1.0), strict=True):
            if isinstance(condition, Periodic) or vanishing:
                row.append(condition)
                continue
            points = tuple(p.requires_grad_() for p in grid.side_points(f"{name}_{word}", torch.float64))
            value = _solution(points, grid, vanishing)
            slope = sign * _derivative(value, points[axis]).detach()
            value = value.detach()
            if isinstance(condition, Dirichlet):
                row.append(Dirichlet(value.to(dtype)))
            elif isinstance(condition, Neumann):
                row.append(Neumann(slope.to(dtype)))
            else:
                rate = condition.rate if isinstance(condition, Robin) else 0.0
                row.append(Robin(rate, (slope + rate * value).to(dtype)))
        named[name] = tuple(row)
    return Grid(grid.shape, grid.extent, named), u.detach()[None, None].to(dtype), source[None, None].to(dtype)


def _generator(seed: int, index: int) -> torch.Generator:
    """Independent of the other members: both numbers go through a hash."""
    word = hashlib.sha256(f"{seed} {index}".encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(word, "little") >> 1)
