"""A problem's tensors as functions of position: what a method without a grid sees of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.core import strong
from sciml.core.evolution import Evolution
from sciml.core.problem import Problem
from sciml.discretise import Spectrum
from sciml.domains.boundary import Periodic
from sciml.domains.grid import Grid
from sciml.learned._jets import Streams, jets_of

__all__ = ["Evolved", "known_tensors"]

SMALL = 1e-15  # modes below this share of the largest are left out


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
    """The tensors of a problem with one member: numbers, and functions of position; the start with what diffusion makes of it."""
    found = strong.known_tensors(problem)
    if isinstance(problem, Evolution):
        found["start"] = Evolved.of(problem) or found["start"]
    return found
