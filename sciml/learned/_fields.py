"""A problem's tensors as functions of position: what a method without a grid sees of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.core.problem import Problem
from sciml.discretise import Spectrum
from sciml.domains.boundary import Periodic
from sciml.domains.grid import Grid
from sciml.learned._jets import Streams, jets_of

__all__ = ["Evolved", "Interpolant", "known_tensors"]

WIDTH = 10  # nodes per axis of the interpolating polynomial
SMALL = 1e-15  # modes below this share of the largest are left out


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


@dataclass(frozen=True, eq=False)
class Evolved:
    """``exp((t - begin) A) start`` of a periodic evolution, ``A`` its stiff linear part: a sum of waves, with all derivatives.

    It meets the start exactly, and near it leaves to the network only what the rest of the equation adds.
    """

    waves: Tensor  # (dim, modes)
    rates: Tensor  # (modes,)
    amplitudes: Tensor  # (modes,), complex
    origin: tuple[float, ...]
    begin: float

    @staticmethod
    def of(problem: Evolution) -> Evolved | None:
        """Of a problem with one member; None where a side is not periodic or the stiff part is of another kind."""
        stiff, grid = problem.stiff, problem.space.domain
        if not isinstance(stiff, Spectrum) or not isinstance(grid, Grid):
            return None
        if not all(isinstance(pair[0], Periodic) for pair in grid.conditions):
            return None
        with torch.no_grad():
            v = stiff.forward(problem.start[0, 0].to("cpu", torch.float64))
            symbol = stiff.symbol.detach()[0, 0].to(v).expand(v.shape)
        lines = []
        for axis, (n, length) in enumerate(zip(grid.shape, grid.extent, strict=True)):
            last = axis == grid.dim - 1
            number = (torch.fft.rfftfreq if last else torch.fft.fftfreq)(n, 1.0 / n, dtype=torch.float64)
            lines.append(number * (2 * math.pi / length))
        mesh = torch.stack([m.reshape(-1) for m in torch.meshgrid(*lines, indexing="ij")])
        double = torch.full(v.shape, 2.0, dtype=torch.float64)
        double[..., 0] = 1.0
        if grid.shape[-1] % 2 == 0:
            double[..., -1] = 1.0
        c = (v * double / math.prod(grid.shape)).reshape(-1)
        kept = c.abs() > SMALL * c.abs().max()
        return Evolved(mesh[:, kept], symbol.reshape(-1)[kept], c[kept], grid.origin, problem.begin)

    def __call__(self, *x: Tensor) -> Tensor:
        """The start itself as a function of position."""
        phase = (torch.stack(x, -1) - torch.tensor(self.origin, dtype=x[0].dtype)) @ self.waves
        return torch.cos(phase) @ self.amplitudes.real - torch.sin(phase) @ self.amplitudes.imag

    def jets(self, points: Tensor, streams: Streams) -> Tensor:
        """The streams ``(streams, points)`` at ``points`` with columns ``(*x, t, ...)``."""
        dim = len(self.waves)
        shift = torch.tensor(self.origin, dtype=points.dtype)
        phase = (points[:, :dim] - shift) @ self.waves
        decay = (points[:, dim : dim + 1] - self.begin) * self.rates
        e = torch.exp(decay + torch.complex(torch.zeros_like(phase), phase))
        factors = []
        for index in streams.indices:
            c = self.amplitudes
            for axis in index:
                if axis > dim:
                    c = torch.zeros_like(c)
                    break
                c = c * (self.rates if axis == dim else 1j * self.waves[axis])
            factors.append(c)
        return (e @ torch.stack(factors, 1)).real.T.contiguous()


@dataclass(frozen=True, eq=False)
class Held:
    """A field that does not depend on time, as streams of points ``(*x, t, ...)``."""

    function: Callable[..., Tensor]
    dim: int

    def jets(self, points: Tensor, streams: Streams) -> Tensor:
        """The streams ``(streams, points)``."""
        return jets_of(lambda q: self.function(*q[:, : self.dim].unbind(1)), points, streams)[..., 0]


def known_tensors(problem: Problem) -> dict[str, Any]:
    """The tensors of a problem with one member: numbers, and functions of position for fields and side values."""
    grid, found = problem.space.grid, dict[str, Any]()
    for name, tensor in problem.parameters().items():
        value = tensor.detach().to("cpu", torch.float64)
        if value.numel() == 1:
            found[name] = value.reshape(())
        elif value.ndim == grid.dim + 2 and all(n in (1, m) for n, m in zip(value.shape[2:], grid.shape, strict=True)):
            found[name] = Interpolant(value[0, 0], grid)
    if isinstance(problem, Evolution):
        found["start"] = Evolved.of(problem) or found["start"]
    return found
