r"""Energies of the gradient on a grid, averaged over the corners of its cells, and the laws that are their gradients.

On every cell each of the ``2^d`` corners has the one-sided differences along the edges that meet there, a gradient of ``u``.
With the density ``W`` of ``s = |gradient|^2``,

.. math:: E(u) = \sum_{cells} \frac{V}{2^d} \sum_{corners} W(|D_{corner} u|^2),

which is the mean of the energies of piecewise linear functions over the triangulations that cut off one corner per cell.
Its gradient per volume is ``-div(k(s) grad u)`` with ``k = 2 W'``: second order, with a symmetric tangent, and without
the modes that a gradient at the middle of the cell does not see. For ``k = 1`` it is the usual Laplacian.

Reference: Ciarlet, The Finite Element Method for Elliptic Problems, 1978, section 5.3, doi 10.1137/1.9780898719208.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, permutations, product

import torch
from torch import Tensor
from torch.nn import functional

from sciml.core.continuous import At
from sciml.domains.boundary import Dirichlet
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.domains.space import Space

__all__ = ["Lift", "corner_divergence", "corner_energy", "on_sides"]

Scalar = Callable[[Tensor], Tensor]


def corner_energy(u: Tensor, space: Space, density: Scalar) -> Tensor:
    """``E(u)`` per member, ``(...,)``, for ``(..., 1, *space)`` fields; ``density`` maps ``|gradient|^2`` to ``W``.

    Raises InputError for a side that is not Dirichlet.
    """
    grid = space.grid
    slopes = _slopes(u, grid)
    axes = tuple(range(-1 - grid.dim, 0))
    total = torch.zeros((), dtype=u.dtype, device=u.device)
    for corner in _corners(grid):
        total = total + density(_square(_at_corner(slopes, corner, grid))).sum(axes)
    share: float = math.prod(grid.spacing) / 2**grid.dim
    return total * share


def corner_divergence(u: Tensor, space: Space, conductance: Scalar) -> Tensor:
    """``-div(k grad u)`` at the nodes per volume: the gradient of `corner_energy` with ``k(s) = 2 W'(s)``, written out.

    ``u`` is ``(..., 1, *space)``; leading axes broadcast. Raises InputError for a side that is not Dirichlet.
    """
    grid, dim = space.grid, space.grid.dim
    slopes = _slopes(u, grid)
    fluxes: list[Tensor | None] = [None] * dim
    for corner in _corners(grid):
        parts = _at_corner(slopes, corner, grid)
        k = conductance(_square(parts)) / 2**dim
        for axis in range(dim):
            flux = k * parts[axis]
            for other in range(dim):
                if other != axis:  # what lands on nodes inside
                    flux = flux.narrow(other - dim, 1 - corner[other], grid.shape[other])
            before = fluxes[axis]
            fluxes[axis] = flux if before is None else before + flux
    result: Tensor | None = None
    for axis, whole in enumerate(fluxes):
        assert whole is not None
        term = torch.diff(whole, dim=axis - dim) / grid.spacing[axis]
        result = -term if result is None else result - term
    assert result is not None
    return result


def _corners(grid: Grid) -> product[tuple[int, ...]]:
    return product((0, 1), repeat=grid.dim)


def _slopes(u: Tensor, grid: Grid) -> list[Tensor]:
    """Differences along every axis of ``u`` with its sides around it."""
    framed = functional.pad(u, [1, 1] * grid.dim) + _frame(grid, u)
    return [torch.diff(framed, dim=axis - grid.dim) / h for axis, h in enumerate(grid.spacing)]


def _at_corner(slopes: list[Tensor], corner: tuple[int, ...], grid: Grid) -> list[Tensor]:
    """The gradient at one corner of every cell."""
    parts = []
    for axis, slope in enumerate(slopes):
        for other, where in enumerate(corner):
            if other != axis:
                slope = slope.narrow(other - grid.dim, where, grid.shape[other] + 1)
        parts.append(slope)
    return parts


def _square(parts: list[Tensor]) -> Tensor:
    total = parts[0].square()
    for part in parts[1:]:
        total = total + part.square()
    return total


def _frame(grid: Grid, like: Tensor) -> Tensor:
    """The side values around zeros, ``(batch or 1, 1, n + 2, ...)``.

    Edges and corners of the box, which belong to no side, are continued from the sides by quadratic polynomials and
    averaged over the sides that meet there.
    """
    orders = list(permutations(range(grid.dim)))
    total = _wrapped(grid, like, orders[0])
    for order in orders[1:]:
        total = total + _wrapped(grid, like, order)
    return total / len(orders)


def _wrapped(grid: Grid, like: Tensor, order: tuple[int, ...]) -> Tensor:
    field = torch.zeros((1, 1, *grid.shape), dtype=like.dtype, device=like.device)
    for done, axis in enumerate(order):
        ends = []
        for condition in grid.conditions[axis]:
            if not isinstance(condition, Dirichlet):
                raise InputError(
                    f"energies averaged over corners take Dirichlet sides, and axis {'xyz'[axis]} has {type(condition).__name__}; give Dirichlet(value)"
                )
            value = torch.as_tensor(condition.value, dtype=like.dtype, device=like.device)
            value = value if value.ndim else value.reshape((1,) * (grid.dim + 2))
            layer = value.expand(*value.shape[:2], *[1 if a == axis else n for a, n in enumerate(grid.shape)])
            for other in order[:done]:
                layer = _continued(layer, 2 + other)
            ends.append(layer)
        batch = max(field.shape[0], ends[0].shape[0], ends[1].shape[0])
        field = torch.cat([part.expand(batch, *part.shape[1:]) for part in (ends[0], field, ends[1])], 2 + axis)
    return field


def _continued(layer: Tensor, at: int) -> Tensor:
    n = layer.shape[at]

    def beyond(i: int, step: int) -> Tensor:
        one, two, three = (layer.narrow(at, i + step * min(k, n - 1), 1) for k in range(3))
        return one + 2 * (one - two) + (three - two) if n > 2 else 2 * one - two

    return torch.cat((beyond(0, 1), layer, beyond(n - 1, -1)), at)


def on_sides(grid: Grid, function: Callable[..., Tensor], dtype: torch.dtype = torch.float64) -> Grid:
    """The grid with ``Dirichlet(function)`` on every side; ``function(*x)`` takes one tensor per axis.

    It returns values of the side's shape, or ``(batch, 1, *side)`` for members of their own.
    """
    named: dict[str, tuple[Dirichlet, Dirichlet]] = {}
    for name in "xyz"[: grid.dim]:
        values = []
        for word in ("lower", "upper"):
            points = grid.side_points(f"{name}_{word}", torch.float64)
            value = function(*points)
            if not isinstance(value, Tensor) or not bool(torch.isfinite(value).all()):
                raise InputError(
                    f"the side values on {name}_{word} are not finite numbers; give a torch function of the coordinates that is"
                )
            shape = points[0].shape if value.ndim <= points[0].ndim else (len(value), 1, *points[0].shape)
            values.append(Dirichlet(value.to(dtype).expand(shape).clone()))
        named[name] = (values[0], values[1])
    return Grid(grid.shape, grid.extent, named, grid.origin)


@dataclass(frozen=True, eq=False)
class Lift:
    """``lift(at) = base + factor u``: whatever ``u`` is, the result has the values of ``function`` on the sides of the box.

    ``factor`` is the product of ``4 xi (1 - xi)``, and ``base`` the transfinite interpolation of the side values alone, the Boolean
    sum of linear interpolations along every axis (Gordon and Hall, Numer. Math. 21, 1973, doi 10.1007/BF01436298). Without a
    ``function`` the side values are the problem's own, functions of position in ``at.parameters`` (``x_lower``, ...).
    """

    function: Callable[..., Tensor] | None
    origin: tuple[float, ...]
    extent: tuple[float, ...]

    def __call__(self, at: At) -> Tensor:
        xi = [(x - a) / length for x, a, length in zip(at.x, self.origin, self.extent, strict=True)]
        base = torch.zeros_like(xi[0])
        for size in range(1, len(xi) + 1):
            for axes in combinations(range(len(xi)), size):
                for ends in product((0, 1), repeat=size):
                    point, weight = list(at.x), torch.ones_like(xi[0])
                    for axis, end in zip(axes, ends, strict=True):
                        point[axis] = torch.full_like(xi[axis], self.origin[axis] + end * self.extent[axis])
                        weight = weight * (xi[axis] if end else 1 - xi[axis])
                    base = base - (-1) ** size * weight * self._value(at, axes[0], ends[0], point)
        factor = torch.ones_like(xi[0])
        for one in xi:
            factor = factor * (4 * one * (1 - one))
        return base + factor * at.u

    def _value(self, at: At, axis: int, end: int, point: list[Tensor]) -> Tensor:
        if self.function is not None:
            return self.function(*point)
        name = f"{'xyz'[axis]}_{('lower', 'upper')[end]}"
        known = at.parameters.get(name)
        return known(*point) if known is not None and not isinstance(known, Tensor) else at[name]
