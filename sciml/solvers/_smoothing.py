"""One grid of the multigrid cycle: its scaled operator, padded arrays, and the damping of the smoother."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sciml.solvers._stencil import diagonal
from sciml.solvers._transfer import Axis, Tape, Transfer, coarser

__all__ = ["Level", "Padded", "damping"]

_DENSE = 80  # unknowns below which a grid is solved by its inverse
_STRONG = 1.4  # axes with a spacing up to this factor above the smallest are coarsened together


def damping(lower: float, sweeps: int) -> list[float]:
    """1 / roots of the Chebyshev polynomial of that degree over [lower, 2]."""
    centre, half = (2 + lower) / 2, (2 - lower) / 2
    return [1 / (centre + half * math.cos(math.pi * (2 * i - 1) / (2 * sweeps))) for i in range(1, sweeps + 1)]


class Level:
    """One grid: its operator scaled to a unit diagonal, ``I - N``, and the way to the next coarser one.

    Constant coefficients: ``weights`` holds the entry of N per axis, the arrays are divided by the size of the dual
    cells, and mirrored or wrapped ghost nodes stand for the ends. Otherwise ``links`` holds N on the faces, scaled
    symmetrically by ``root``, the square root of the diagonal.
    """

    weights: list[float] | None = None
    links: list[Tensor]
    root: Tensor
    inverse_root: Tensor
    size_of_diagonal: float = 1.0
    inverse: Tensor | None = None

    def __init__(self, axes: Sequence[Axis]) -> None:
        self.axes = tuple(axes)
        self.transfers: list[Transfer] = []

    @property
    def size(self) -> int:
        return math.prod(axis.n for axis in self.axes)

    def coarsen(self, device: torch.device, dtype: torch.dtype) -> tuple[Axis, ...] | None:
        """Choose the axes to coarsen and the damping that this calls for."""
        options = [coarser(axis) for axis in self.axes]
        spacings = [axis.spacing for axis, option in zip(self.axes, options, strict=True) if option is not None]
        if not spacings or self.size <= _DENSE:
            return None
        chosen: list[Axis] = []
        for k, (axis, option) in enumerate(zip(self.axes, options, strict=True)):
            if option is not None and axis.spacing <= _STRONG * min(spacings):
                self.transfers.append(Transfer(axis, option, k - len(self.axes), device, dtype))
                chosen.append(option)
            else:
                chosen.append(axis)
        return tuple(chosen)

    def lowest(self) -> float:
        """The smallest eigenvalue of the scaled operator on what the coarser grid cannot represent."""
        strength = [axis.spacing**-2 if axis.n > 1 or not (axis.periodic or axis.closed) else 0.0 for axis in self.axes]
        floors = [s * axis.lowest for s, axis in zip(strength, self.axes, strict=True)]
        values = []
        for transfer in self.transfers:
            k = transfer.dim + len(self.axes)
            rough = strength[k] * (1.0 if transfer.collapsed else 1 - math.cos(math.pi / transfer.ratio))
            values.append((rough + sum(floors) - floors[k]) / sum(strength))
        return min(1.0, *values) if values else 1.0

    def use_constant(self, conductances: Sequence[float], mass: float) -> None:
        self.size_of_diagonal = 2 * sum(conductances) + mass
        self.weights = [value / self.size_of_diagonal for value in conductances]

    def use_faces(self, faces: Sequence[Tensor], mass: Tensor | None) -> None:
        centre = diagonal(self.axes, faces, mass)
        self.root = centre.sqrt()
        self.inverse_root = torch.where(centre > 0, self.root.reciprocal(), torch.zeros_like(centre))
        self.links = []
        for k, axis in enumerate(self.axes):
            dim, n = k - len(self.axes), axis.n
            link = torch.zeros_like(faces[k])
            inner = link.narrow(dim, 1, n - 1)
            torch.mul(self.inverse_root.narrow(dim, 0, n - 1), self.inverse_root.narrow(dim, 1, n - 1), out=inner)
            inner.mul_(faces[k].narrow(dim, 1, n - 1))
            if axis.periodic:
                wrap = self.inverse_root.narrow(dim, 0, 1) * self.inverse_root.narrow(dim, n - 1, 1)
                wrap = wrap * faces[k].narrow(dim, 0, 1)
                link.narrow(dim, 0, 1).copy_(wrap)
                link.narrow(dim, n, 1).copy_(wrap)
            self.links.append(link)

    # -- writing the cycle to a tape -------------------------------------------------------------------------------
    def add_neighbours(self, tape: Tape, out: Tensor, source: Padded, value: float) -> None:
        """out += value N source."""
        for k, axis in enumerate(self.axes):
            if self.weights is not None:
                if self.weights[k] != 0:
                    for view in source.beside[k]:
                        tape.append(partial(out.add_, view, alpha=value * self.weights[k]))
            else:
                for side, view in enumerate(source.beside[k]):
                    link = self.links[k].narrow(k - len(self.axes), side, axis.n)
                    tape.append(partial(out.addcmul_, link, view, value=value))

    def fill_ghosts(self, tape: Tape, source: Padded) -> None:
        for k, axis in enumerate(self.axes):
            if self.weights is not None and self.weights[k] == 0:
                continue
            dim, n, inside = k - len(self.axes), axis.n, source.along[k]
            if axis.periodic:
                tape.append(partial(inside.select(dim, 0).copy_, inside.select(dim, n)))
                tape.append(partial(inside.select(dim, n + 1).copy_, inside.select(dim, 1)))
            elif self.weights is not None:
                if axis.lower_node:
                    tape.append(partial(inside.select(dim, 0).copy_, inside.select(dim, 2)))
                if axis.upper_node:
                    tape.append(partial(inside.select(dim, n + 1).copy_, inside.select(dim, n - 1)))


class Padded:
    """An array with one ghost node at either end of every axis, and the views that the smoother reads."""

    def __init__(self, batch: int, axes: Sequence[Axis], device: torch.device, dtype: torch.dtype) -> None:
        full = torch.zeros([batch, *(axis.n + 2 for axis in axes)], device=device, dtype=dtype)
        self.inside = full
        for k, axis in enumerate(axes):
            self.inside = self.inside.narrow(k + 1, 1, axis.n)
        self.along: list[Tensor] = []  # with the ghosts of one axis
        self.beside: list[tuple[Tensor, Tensor]] = []  # the lower and the upper neighbours along one axis
        for k, axis in enumerate(axes):
            view = full
            for other in range(len(axes)):
                if other != k:
                    view = view.narrow(other + 1, 1, axes[other].n)
            self.along.append(view)
            self.beside.append((view.narrow(k + 1, 0, axis.n), view.narrow(k + 1, 2, axis.n)))
