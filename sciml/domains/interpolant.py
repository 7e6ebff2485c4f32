"""Nodal values of a grid as a function of position."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

from sciml.domains.grid import Grid

__all__ = ["Interpolant"]

WIDTH = 10  # nodes per axis of the interpolating polynomial


@cache
def lagrange(width: int) -> Tensor:
    """Coefficients ``(node, power)`` of the Lagrange polynomials of equally spaced nodes, in a variable that runs from -1 to 1."""
    half = Fraction(max(width - 1, 1), 2)
    nodes = [(Fraction(j) - Fraction(width - 1, 2)) / half for j in range(width)]
    rows = []
    for j, own in enumerate(nodes):
        row = [Fraction(1)]
        for i, other in enumerate(nodes):
            if i != j:
                row = [
                    (a - other * b) / (own - other)
                    for a, b in zip([Fraction(0), *row], [*row, Fraction(0)], strict=True)
                ]
        rows.append([float(c) for c in row])
    return torch.tensor(rows, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Interpolant:
    """Nodal values (or values along a side, with an axis of length one) as a function of the coordinates.

    A polynomial of degree 9 through the ten nearest nodes along every axis (fewer on small grids), differentiable any number
    of times; between the last node and a side it is continued. *Fails when* the field jumps: polynomials swing there.
    """

    values: Tensor
    grid: Grid

    def __call__(self, *x: Tensor) -> Tensor:
        index: list[Tensor] = []
        weight: list[Tensor] = []
        for axis, (line, point) in enumerate(zip(self.grid.axes(), x, strict=True)):
            n = self.values.shape[axis]
            if n == 1:
                continue
            width = min(WIDTH, n)
            first = self.grid.origin[axis] + (0.0 if line.lower_node or line.periodic else line.spacing)
            s = (point - first) / line.spacing
            low = torch.floor(s.detach()) - (width // 2 - 1)
            low = low if line.periodic else low.clamp(0, n - width)
            half = max(width - 1, 1) / 2
            y = (s - low - half) / half
            powers = torch.stack([y**k for k in range(width)], -1)
            nodes = low.to(torch.int64).unsqueeze(-1) + torch.arange(width, device=point.device)
            index.append(nodes % n if line.periodic else nodes)
            weight.append(powers @ lagrange(width).to(powers).T)
        flat = self.values.reshape([n for n in self.values.shape if n > 1] or [1])
        if not index:
            return flat.reshape(()).expand(x[0].shape)
        dims = len(index)
        picked = flat[
            tuple(i.reshape(*i.shape[:-1], *[-1 if a == k else 1 for a in range(dims)]) for k, i in enumerate(index))
        ]
        for w in reversed(weight):
            picked = (picked * w.reshape(*w.shape[:-1], *[1] * (picked.ndim - w.ndim), w.shape[-1])).sum(-1)
        return picked
