r"""Values of a field at points: what a handful of sensors sees.

Multilinear interpolation between the nodes of a grid (or the centres of pixels),

    (P u)_i = sum over the 2^dim corners c of the cell of point i of w_ic u_c,

second-order accurate for smooth fields. The nodes on a Dirichlet side are not unknowns: their known values enter ``offset``, so
``values(u) = P u + offset``. Values on such a side are continued linearly to the corners of the box. Beyond the outermost
centres of pixels (half a pixel) the value of the nearest centre is taken. *Fails when* the field has a kink or a singularity
within the cell of a sensor (a well, a jump of the coefficient): the interpolation is then of first order or worse there.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator
from sciml.domains.boundary import Dirichlet
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.domains.pixels import Pixels
from sciml.domains.space import Space

__all__ = ["PointValues"]


@dataclass(frozen=True, eq=False)
class PointValues(LinearOperator):
    """``u -> u(points)``: ``(..., channel, *space)`` to ``(..., channel, m)``, ``points`` being ``(m, dim)`` (in 1-D also ``(m,)``).

    ``where`` is the space of the fields, on a Grid or on Pixels. Raises InputError for points outside the box, which are named.
    """

    where: Space
    points: Tensor = field(metadata={"shared": True})

    def __post_init__(self) -> None:
        if not isinstance(self.where.domain, Grid | Pixels):
            raise InputError(
                "PointValues interpolates fields on a Grid or on Pixels; this space has no such domain (a Mesh has interpolation(points))"
            )
        domain, points = self.where.box, self.points
        if not isinstance(points, Tensor) or not points.is_floating_point():
            raise InputError(f"points is a floating-point tensor of shape (m, {domain.dim}), not {points!r}")
        if points.ndim == 1 and domain.dim == 1:
            points = points.unsqueeze(1)
        if points.ndim != 2 or points.shape[1] != domain.dim or points.shape[0] == 0:
            raise InputError(f"points has shape {tuple(points.shape)}; give (m, {domain.dim}), one row per point")
        origin = domain.corner if isinstance(domain, Pixels) else domain.origin
        # A point on a side may have been rounded to single precision.
        slack = [1e-6 * length for length in domain.extent]
        inside = torch.ones(len(points), dtype=torch.bool, device=points.device)
        for axis, (low, length, more) in enumerate(zip(origin, domain.extent, slack, strict=True)):
            inside &= (points[:, axis] >= low - more) & (points[:, axis] <= low + length + more)
        if not bool(inside.all()):
            i = int((~inside).nonzero()[0, 0])
            at = ", ".join(f"{axis}={float(p):.3g}" for axis, p in zip("xyz", points[i], strict=False))
            box = " x ".join(f"[{o:.3g}, {o + e:.3g}]" for o, e in zip(origin, domain.extent, strict=True))
            raise InputError(
                f"{int((~inside).sum())} of {len(points)} points lie outside the box {box}, the first is point {i} at {at}; leave them out"
            )
        object.__setattr__(self, "points", points)

    @property
    def space(self) -> Space:
        """Where the fields live."""
        return self.where

    @property
    def codomain(self) -> Space:
        """``(channel, m)`` plain numbers."""
        w = self.where
        return Space(None, (w.shape[0], len(self.points)), complex=w.complex, dtype=w.dtype, device=w.device)

    def __call__(self, u: Tensor) -> Tensor:
        index, weight = self._table()
        flat = self._widened(u, None).flatten(-self.where.dim)
        return (flat[..., index] * weight.to(flat.real.dtype)).sum(-1)

    def adjoint(self, v: Tensor) -> Tensor:
        """Every value goes back to the corners of its cell; those on Dirichlet sides receive nothing."""
        index, weight = self._table()
        lead = v.shape[:-1]
        share = (v.unsqueeze(-1) * weight.to(v.real.dtype)).reshape(-1, index.numel()).mT
        sizes = [n + low + up for n, (low, up) in zip(self.where.shape[1:], self._added(), strict=True)]
        wide = torch.zeros((math.prod(sizes), share.shape[1]), dtype=v.dtype, device=v.device)
        wide = wide.index_put((index.reshape(-1),), share, accumulate=True)
        result = wide.mT.reshape(*lead, *sizes)
        for axis, (n, (low, _)) in enumerate(zip(self.where.shape[1:], self._added(), strict=True)):
            at, again = len(lead) + axis, None
            if self._periodic(axis):  # the repeated node belongs to the first one
                again = torch.nn.functional.pad(result.narrow(at, n, 1).movedim(at, -1), (0, n - 1)).movedim(-1, at)
            result = result.narrow(at, low, n)
            result = result if again is None else result + again
        return result

    def offset(self, domain: Any = None) -> Tensor | None:
        """What the known values on Dirichlet sides (of ``domain``, if given) contribute: ``(batch or 1, channel, m)``; None for nothing."""
        grid = self.where.domain if domain is None else domain
        if not isinstance(grid, Grid) or not any(
            isinstance(c, Dirichlet) and (isinstance(c.value, Tensor) or c.value != 0)
            for pair in grid.conditions
            for c in pair
        ):
            return None
        index, weight = self._table()
        flat = self._widened(self.where.zeros(), grid).flatten(-self.where.dim)
        return (flat[..., index] * weight.to(flat.real.dtype)).sum(-1)

    def values(self, u: Tensor) -> Tensor:
        """The interpolated field, known values on the sides included."""
        known = self.offset()
        return self(u) if known is None else self(u) + known

    def _added(self) -> list[tuple[int, int]]:
        """Per axis, whether a layer of known nodes is added below and above (periodic axes repeat their first node)."""
        domain = self.where.domain
        if not isinstance(domain, Grid):
            return [(0, 0)] * self.where.dim
        return [
            (0, 1) if axis.periodic else (int(not axis.lower_node), int(not axis.upper_node)) for axis in domain.axes()
        ]

    def _periodic(self, axis: int) -> bool:
        domain = self.where.domain
        return isinstance(domain, Grid) and domain.axes()[axis].periodic

    def _widened(self, u: Tensor, grid: Grid | None) -> Tensor:
        """The field with its known layers: zeros, or the values on the sides of ``grid``."""
        for axis, (low, up) in enumerate(self._added()):
            at = u.ndim - self.where.dim + axis
            if self._periodic(axis):
                u = torch.cat((u, u.narrow(at, 0, 1)), at)
                continue
            below = [_layer(u, at, self._known(grid, axis, 0, u))] if low else []
            above = [_layer(u, at, self._known(grid, axis, 1, u))] if up else []
            if low or up:
                batch = max(piece.shape[0] for piece in (u, *below, *above))
                pieces = [p.expand(batch, *p.shape[1:]) if p.shape[0] != batch else p for p in (*below, u, *above)]
                u = torch.cat(pieces, at)
        return u

    def _known(self, grid: Grid | None, axis: int, side: int, u: Tensor) -> Tensor | float:
        """The value on a side, for the layer of ``u`` as widened along the axes before."""
        if grid is None:
            return 0.0
        condition = grid.conditions[axis][side]
        value = condition.value if isinstance(condition, Dirichlet) else 0.0
        if isinstance(value, Tensor) and value.ndim:
            for other, (low, up) in enumerate(self._added()[:axis]):
                at = 2 + other
                n = value.shape[at]
                if n == 1:
                    continue
                first, last = value.narrow(at, 0, 1), value.narrow(at, n - 1, 1)
                below = [2 * first - value.narrow(at, 1, 1)] if low else []
                above = [2 * last - value.narrow(at, n - 2, 1)] if up else []
                if grid.axes()[other].periodic:
                    above = [first]
                value = torch.cat((*below, value, *above), at)
        return value

    def _table(self) -> tuple[Tensor, Tensor]:
        """Flat numbers of the corners in the widened field and their weights, each ``(m, 2^dim)``; kept."""
        points, domain = self.points, self.where.box
        stamp = None if points.is_inference() else points._version
        held = self.__dict__.get("_held")
        if held is not None and held[0] == stamp:
            kept: tuple[Tensor, Tensor] = held[1]
            return kept
        with torch.no_grad():
            sides = []
            for axis, ((low, up), h, n) in enumerate(zip(self._added(), domain.spacing, domain.shape, strict=True)):
                corner = domain.corner if isinstance(domain, Pixels) else domain.origin
                shift = 0.5 if isinstance(domain, Pixels) else 0.0
                position = (points[:, axis].to(torch.float64) - corner[axis]) / h - shift
                last = n + low + up - 1
                position = position.clamp(0, last)
                cell = position.floor().clamp(max=max(last - 1, 0)).to(torch.int64)
                share = position - cell
                sides.append(((cell, 1 - share), ((cell + 1).clamp(max=last), share)))
            index, weight = [], []
            for choice in itertools.product((0, 1), repeat=len(sides)):
                number = torch.zeros_like(sides[0][0][0])
                product = torch.ones_like(sides[0][0][1])
                for (low, up), n, pair, which in zip(self._added(), domain.shape, sides, choice, strict=True):
                    number = number * (n + low + up) + pair[which][0]
                    product = product * pair[which][1]
                index.append(number)
                weight.append(product)
            table = torch.stack(index, 1), torch.stack(weight, 1)
        self.__dict__["_held"] = (stamp, table)
        return table

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_held"}


def _layer(u: Tensor, at: int, value: Tensor | float) -> Tensor:
    """One layer of nodes with these values, shaped like ``u``."""
    layer = torch.zeros_like(u.narrow(at, 0, 1))
    return layer + value


def example() -> PointValues:
    """Nine points in a box with every kind of side that changes the nodes."""
    from sciml.domains.boundary import Neumann, Periodic

    grid = Grid((5, 4, 3), (1.0, 2.0, 0.7), {"x": (Dirichlet(1.0), Neumann(0.0)), "y": Periodic(), "z": Dirichlet(2.0)})
    points = torch.rand(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return PointValues(grid.space(), points * torch.tensor([1.0, 2.0, 0.7], dtype=torch.float64))
