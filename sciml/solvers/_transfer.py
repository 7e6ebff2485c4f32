"""Passing between a uniform axis and a coarser one: interpolation, its transpose, and averages of conductances.

Both grids are uniform on the same interval. Where the coarse nodes are every second fine node the maps are strided
slices; otherwise they are short tables of indices and weights (two entries for linear interpolation).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Axis", "Tape", "Transfer", "coarser"]

Tape = list[Callable[[], object]]  # a fixed sequence of in-place operations on kept arrays


class Axis(NamedTuple):
    """One axis of a vertex-centred grid: ``n`` unknowns, ``spacing`` apart.

    ``lower_node``, ``upper_node``: the boundary node is an unknown (Neumann, Robin) and not a given value (Dirichlet).
    """

    n: int
    spacing: float
    periodic: bool
    lower_node: bool
    upper_node: bool

    @property
    def intervals(self) -> int:
        """How many spacings the axis is long."""
        return self.n if self.periodic else self.n + 1 - int(self.lower_node) - int(self.upper_node)

    @property
    def first(self) -> int:
        """Index of the first unknown when positions are counted in spacings from the lower end."""
        return 0 if self.periodic or self.lower_node else 1

    @property
    def closed(self) -> bool:
        """Both boundary nodes are unknowns: constants along the axis meet no resistance."""
        return not self.periodic and self.lower_node and self.upper_node

    @property
    def lowest(self) -> float:
        """1 - cos(theta) of the smoothest function that the ends allow."""
        if self.periodic or self.closed:
            return 0.0
        quarter = self.lower_node or self.upper_node
        return 1.0 - math.cos(math.pi / (self.intervals * (2 if quarter else 1)))

    def weight(self, side: int) -> float:
        """Size of the dual cell at an end, in spacings: a half where the boundary node is an unknown."""
        if self.periodic or (self.closed and self.n == 1):
            return 1.0
        return 0.5 if (self.upper_node if side else self.lower_node) else 1.0


def coarser(axis: Axis) -> Axis | None:
    """The axis with about half the intervals, or None where nothing coarser exists.

    Even counts are halved. Of odd ones the number nearest to a half that can be halved often is taken, so that at
    most one pass per axis needs tables.
    """
    count = axis.intervals
    if axis.n <= 1:
        return None
    least = 1 if axis.periodic or axis.lower_node or axis.upper_node else 2
    if axis.closed and count == 1:
        return axis._replace(n=1)
    if count % 2 == 0:
        chosen = count // 2
    else:
        middle = (count + 1) // 2
        choices = range(middle, max(middle + 1, int(count / 1.75) + 1))
        chosen = max(choices, key=lambda c: (min(c & -c, 16), -c))
    if chosen < least or chosen >= count:
        return None
    nodes = chosen if axis.periodic else chosen - 1 + int(axis.lower_node) + int(axis.upper_node)
    return axis._replace(n=nodes, spacing=axis.spacing * count / chosen)


class _Piece(NamedTuple):
    """fine[start::2] (``length`` entries) meets coarse[first:first+length] with this weight."""

    start: int
    first: int
    length: int
    weight: float


class Transfer:
    """The maps between ``fine`` and ``coarse`` along dimension ``dim`` (negative)."""

    def __init__(self, fine: Axis, coarse: Axis, dim: int, device: torch.device, dtype: torch.dtype) -> None:
        self.fine, self.coarse, self.dim = fine, coarse, dim
        self.device, self.dtype = device, dtype
        self.collapsed = coarse.n == 1 and fine.closed
        self.ratio = 1.0 if self.collapsed else fine.intervals / coarse.intervals
        self.nested = not self.collapsed and fine.intervals == 2 * coarse.intervals
        self._pieces = self._slices() if self.nested else []
        self._up: tuple[Tensor, Tensor] | None = None
        self._down: dict[bool, tuple[Tensor, Tensor]] = {}

    # -- nested: strided slices ------------------------------------------------------------------------------------
    def _slices(self) -> list[_Piece]:
        n, count, at = self.fine.n, self.coarse.n, 1 - self.fine.lower_node
        if self.fine.periodic:
            at = 0
        pieces = [_Piece(at, 0, count, 1.0), _Piece(at + 1, 0, (n - at) // 2, 0.5)]
        left = 0 if at else 1
        if count > left:
            pieces.append(_Piece(at - 1 + 2 * left, left, count - left, 0.5))
        if self.fine.periodic:
            pieces.append(_Piece(n - 1, 0, 1, 0.5))
        return [piece for piece in pieces if piece.length > 0]

    def _mirrored(self) -> list[_Piece]:
        """What half dual cells at the ends add to the restriction of a residual per unit of dual cell."""
        if self.fine.periodic:
            return []
        pieces = [_Piece(1, 0, 1, 0.5)] if self.fine.lower_node else []
        if self.fine.upper_node:
            pieces.append(_Piece(self.fine.n - 2, self.coarse.n - 1, 1, 0.5))
        return pieces

    def _views(self, fine: Tensor, coarse: Tensor, piece: _Piece) -> tuple[Tensor, Tensor]:
        index: list[slice] = [slice(None)] * fine.dim()
        index[self.dim] = slice(piece.start, piece.start + 2 * piece.length - 1, 2)
        return fine[tuple(index)], coarse.narrow(self.dim, piece.first, piece.length)

    # -- otherwise: tables -----------------------------------------------------------------------------------------
    def _reduce(self, start: Tensor, width: int, weigh: Callable[[Tensor], Tensor], size: int) -> tuple[Tensor, Tensor]:
        """Indices and weights, both (width, coarse): entry k of coarse node j is fine index start_j + k."""
        index = start.long().unsqueeze(0) + torch.arange(width).unsqueeze(1)
        weight = weigh(index.double())
        if self.fine.periodic:
            index = index % size
        else:
            weight = torch.where((index >= 0) & (index < size), weight, torch.zeros_like(weight))
            index = index.clamp(0, size - 1)
        return index.to(self.device), weight.to(self.device, self.dtype)

    def _nodes(self) -> Tensor:
        """Positions of the coarse nodes in fine spacings from the lower end."""
        return (torch.arange(self.coarse.n).double() + self.coarse.first) * self.ratio

    def _halves(self, axis: Axis) -> Tensor:
        halves = torch.ones(axis.n, dtype=torch.float64)
        halves[0] *= axis.weight(0)
        halves[-1] *= axis.weight(1)
        return halves

    def _restriction(self, per_cell: bool) -> tuple[Tensor, Tensor]:
        if per_cell not in self._down:
            if self.collapsed:
                index = torch.arange(self.fine.n).unsqueeze(1).to(self.device)
                weight = torch.ones(self.fine.n, 1, dtype=self.dtype, device=self.device)
            else:
                at = self._nodes()
                index, weight = self._reduce(
                    torch.ceil(at - self.ratio) - self.fine.first,
                    math.floor(2 * self.ratio) + 1,
                    lambda i: (1 - (i + self.fine.first - at).abs() / self.ratio).clamp(min=0),
                    self.fine.n,
                )
            if per_cell:
                fine, coarse = self._halves(self.fine), self._halves(self.coarse)
                weight = weight * (fine.to(weight)[index] / coarse.to(weight))
            self._down[per_cell] = index, weight
        return self._down[per_cell]

    def _interpolation(self) -> tuple[Tensor, Tensor]:
        if self._up is None:
            if self.collapsed:
                index = torch.zeros(2, self.fine.n, dtype=torch.long)
                weight = torch.tensor([[1.0], [0.0]], dtype=torch.float64).expand(2, self.fine.n)
            else:
                at = (torch.arange(self.fine.n).double() + self.fine.first) / self.ratio
                low = torch.floor(at)
                index = torch.stack([low, low + 1]).long() - self.coarse.first
                weight = torch.stack([1 - (at - low), at - low])
                if self.fine.periodic:
                    index = index % self.coarse.n
                else:
                    weight = torch.where((index >= 0) & (index < self.coarse.n), weight, torch.zeros_like(weight))
                    index = index.clamp(0, self.coarse.n - 1)
            self._up = index.to(self.device), weight.to(self.device, self.dtype)
        return self._up

    def _column(self, weight: Tensor) -> Tensor:
        return weight.reshape([-1] + [1] * (-self.dim - 1))

    def _gathered(self, values: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        total = values.index_select(self.dim, index[0]) * self._column(weight[0])
        for i, w in zip(index[1:], weight[1:], strict=True):
            total.addcmul_(values.index_select(self.dim, i), self._column(w))
        return total

    # -- residuals down, corrections up: written to a tape ---------------------------------------------------------
    def restrict(self, tape: Tape, fine: Tensor, coarse: Tensor, *, per_cell: bool, scale: float = 1.0) -> None:
        """coarse = scale P^T fine; ``per_cell`` for residuals divided by the size of their dual cell."""
        if not self.nested:
            index, weight = self._restriction(per_cell)
            kept = torch.empty_like(coarse, memory_format=torch.contiguous_format)
            tape.append(coarse.zero_)
            for i, w in zip(index, weight, strict=True):
                tape.append(partial(torch.index_select, fine, self.dim, i, out=kept))
                tape.append(partial(coarse.addcmul_, kept, self._column(w), value=scale))
            return
        pieces = self._pieces + (self._mirrored() if per_cell else [])
        views = [(*self._views(fine, coarse, piece), piece) for piece in pieces]
        middle, whole = views[0][0], coarse.shape[self.dim]
        beside = next((k for k in (1, 2) if k < len(views) and views[k][2].length == whole), None)
        if scale != 1.0 or beside is None:
            tape.append(partial(torch.mul, middle, scale, out=coarse))
            beside = None
        else:
            tape.append(partial(torch.add, middle, views[beside][0], alpha=views[beside][2].weight, out=coarse))
        for k, (source, target, piece) in enumerate(views):
            if k not in (0, beside):
                tape.append(partial(target.add_, source, alpha=scale * piece.weight))

    def interpolate(self, tape: Tape, coarse: Tensor, fine: Tensor) -> None:
        """fine = P coarse."""
        if not self.nested:
            tape.append(fine.zero_)
            self.add(tape, coarse, fine, None)
            return
        if not self.fine.periodic and not self.fine.lower_node:
            tape.append(fine.narrow(self.dim, 0, 1).zero_)
        written = {0, 1} if self._pieces[1].weight == 0.5 and self._pieces[1].start > self._pieces[0].start else {0}
        for k, piece in enumerate(self._pieces):
            target, source = self._views(fine, coarse, piece)
            if k in written:
                tape.append(partial(torch.mul, source, piece.weight, out=target))
            else:
                tape.append(partial(target.add_, source, alpha=piece.weight))

    def add(self, tape: Tape, coarse: Tensor, fine: Tensor, scale: Tensor | None) -> None:
        """fine += scale P coarse."""
        if self.nested:
            for piece in self._pieces:
                target, source = self._views(fine, coarse, piece)
                if scale is None:
                    tape.append(partial(target.add_, source, alpha=piece.weight))
                else:
                    tape.append(
                        partial(target.addcmul_, self._views(scale, coarse, piece)[0], source, value=piece.weight)
                    )
            return
        index, weight = self._interpolation()
        kept = torch.empty_like(fine, memory_format=torch.contiguous_format)
        for i, w in zip(index, weight, strict=True):
            tape.append(partial(torch.index_select, coarse, self.dim, i, out=kept))
            factor = self._column(w)
            tape.append(partial(fine.addcmul_, kept, factor if scale is None else scale * factor))

    # -- coefficients down -----------------------------------------------------------------------------------------
    def overlap(self, values: Tensor) -> Tensor:
        """Sum what belongs to fine dual cells by the share of each that lies in a coarse dual cell."""
        if self.nested:
            shape = list(values.shape)
            shape[self.dim] = self.coarse.n
            total = values.new_empty(shape)
            tape: Tape = []
            self.restrict(tape, values, total, per_cell=False)
            for step in tape:
                step()
            return total
        if self.collapsed:
            return values.sum(self.dim, keepdim=True)
        at, count = self._nodes(), float(self.fine.intervals)
        lower, upper = at - self.ratio / 2, at + self.ratio / 2
        if not self.fine.periodic:
            lower, upper = lower.clamp(0, count), upper.clamp(0, count)

        def share(i: Tensor) -> Tensor:
            below, above = i + self.fine.first - 0.5, i + self.fine.first + 0.5
            if not self.fine.periodic:
                below, above = below.clamp(0, count), above.clamp(0, count)
            return (torch.minimum(upper, above) - torch.maximum(lower, below)).clamp(min=0) / (above - below).clamp(
                min=0.5
            )

        start = torch.floor(lower + 0.5) - self.fine.first
        index, weight = self._reduce(start, math.ceil(self.ratio) + 1, share, self.fine.n)
        return self._gathered(values, index, weight.to(values.dtype))

    def series(self, faces: Tensor) -> Tensor:
        """Conductances in line: resistances add up by the share of each fine interval in a coarse one."""
        if self.collapsed:
            return faces.new_zeros([2 if k == faces.dim() + self.dim else s for k, s in enumerate(faces.shape)])
        lower = 1 if self.fine.periodic or self.fine.lower_node else 0
        between = faces.narrow(self.dim, lower, self.fine.intervals)
        resistance = between.clamp(min=1e-30).reciprocal()
        if self.nested:
            index: list[slice] = [slice(None)] * faces.dim()
            index[self.dim] = slice(0, None, 2)
            even = resistance[tuple(index)]
            index[self.dim] = slice(1, None, 2)
            joined = even + resistance[tuple(index)]
        else:
            edge = torch.arange(self.coarse.intervals).double() * self.ratio
            table = self._reduce(
                torch.floor(edge),
                math.ceil(self.ratio) + 1,
                lambda i: (torch.minimum(edge + self.ratio, i + 1) - torch.maximum(edge, i)).clamp(min=0),
                self.fine.intervals,
            )
            joined = self._gathered(resistance, table[0], table[1].to(resistance.dtype))
        joined = joined.reciprocal_()
        if self.fine.periodic:
            return torch.cat([joined.narrow(self.dim, joined.shape[self.dim] - 1, 1), joined], self.dim)
        end = torch.zeros_like(joined.narrow(self.dim, 0, 1))
        return torch.cat([end] * self.fine.lower_node + [joined] + [end] * self.fine.upper_node, self.dim)
