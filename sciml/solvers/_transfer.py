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
    upward: bool = True  # the coarse node is the lower one


class Transfer:
    """The maps between ``fine`` and ``coarse`` along dimension ``dim`` (negative)."""

    def __init__(self, fine: Axis, coarse: Axis, dim: int, device: torch.device, dtype: torch.dtype) -> None:
        self.fine, self.coarse, self.dim = fine, coarse, dim
        self.device, self.dtype = device, dtype
        self.collapsed = coarse.n == 1 and fine.closed
        self.ratio = 1.0 if self.collapsed else fine.intervals / coarse.intervals
        self.nested = not self.collapsed and fine.intervals == 2 * coarse.intervals
        self._pieces = self._slices() if self.nested else []
        self._adapted: Tensor | None = None

    # -- nested: strided slices ------------------------------------------------------------------------------------
    def _slices(self) -> list[_Piece]:
        n, count, at = self.fine.n, self.coarse.n, 1 - self.fine.lower_node
        if self.fine.periodic:
            at = 0
        pieces = [_Piece(at, 0, count, 1.0), _Piece(at + 1, 0, (n - at) // 2, 0.5)]
        left = 0 if at else 1
        if count > left:
            pieces.append(_Piece(at - 1 + 2 * left, left, count - left, 0.5, False))
        if self.fine.periodic:
            pieces.append(_Piece(n - 1, 0, 1, 0.5, False))
        return [piece for piece in pieces if piece.length > 0]

    def _mirrored(self) -> list[_Piece]:
        """What half dual cells at the ends add to the restriction of a residual per unit of dual cell."""
        if self.fine.periodic:
            return []
        pieces = [_Piece(1, 0, 1, 0.5)] if self.fine.lower_node else []
        if self.fine.upper_node:
            pieces.append(_Piece(self.fine.n - 2, self.coarse.n - 1, 1, 0.5))
        return pieces

    def _strided(self, fine: Tensor, piece: _Piece) -> Tensor:
        index: list[slice] = [slice(None)] * fine.dim()
        index[self.dim] = slice(piece.start, piece.start + 2 * piece.length - 1, 2)
        return fine[tuple(index)]

    def _views(self, fine: Tensor, coarse: Tensor, piece: _Piece) -> tuple[Tensor, Tensor]:
        return self._strided(fine, piece), coarse.narrow(self.dim, piece.first, piece.length)

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

    def _place(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Of fine nodes (any integers): the coarse interval that each lies in, and how far along it, exact in integers."""
        count, total = self.coarse.intervals, self.fine.intervals
        steps = (index + self.fine.first) * count
        interval = torch.div(steps, total, rounding_mode="floor")
        if not self.fine.periodic:
            interval = interval.clamp(0, count - 1)
        return interval, (steps - interval * total).double() / total

    def _lower(self) -> Tensor:
        """Weight of the lower coarse neighbour of every fine node; the upper one has the rest."""
        if self._adapted is not None:
            return self._adapted
        along = self._place(torch.arange(self.fine.n))[1]
        return self._column((1 - along).to(self.device, self.dtype))

    def _restriction(self, per_cell: bool) -> list[tuple[Tensor, Tensor]]:
        """Entries of P^T: for each coarse node the index of a fine one, and the weight."""
        if self.collapsed:
            index = torch.arange(self.fine.n).unsqueeze(1)
            parts = [(i, self._column(torch.ones(1))) for i in index]
        else:
            nodes = torch.arange(self.coarse.n) + self.coarse.first
            start = torch.ceil(self._nodes() - self.ratio - 1e-9).long() - self.fine.first
            index = start + torch.arange(math.floor(2 * self.ratio) + 2).unsqueeze(1)
            interval = self._place(index)[0]
            below, above = interval == nodes, interval == nodes - 1
            inside = (index >= 0) & (index < self.fine.n) | self.fine.periodic
            index = index % self.fine.n if self.fine.periodic else index.clamp(0, self.fine.n - 1)
            lower, parts = self._lower(), []
            for i, b, a in zip(index, below & inside, above & inside, strict=True):
                share = lower.index_select(self.dim, i.to(lower.device))
                parts.append((i, share * self._column(b.to(share)) + (1 - share) * self._column(a.to(share))))
        fine, coarse = self._halves(self.fine), self._halves(self.coarse)
        cells = [fine[i] / coarse if per_cell else torch.ones(len(i)) for i, _ in parts]
        return [
            (i.to(self.device), weight.to(self.device, self.dtype) * self._column(cell.to(self.device, self.dtype)))
            for (i, weight), cell in zip(parts, cells, strict=True)
        ]

    def _interpolation(self) -> list[tuple[Tensor, Tensor]]:
        """Entries of P: for each fine node the index of a coarse one, and the weight."""
        if self.collapsed:
            index, weight = torch.zeros(self.fine.n, dtype=torch.long), torch.ones(self.fine.n)
            return [(index.to(self.device), self._column(weight.to(self.device, self.dtype)))]
        lower, entries = self._lower(), []
        for k, weight in enumerate((lower, 1 - lower)):
            index = self._place(torch.arange(self.fine.n))[0] + k - self.coarse.first
            inside = (index >= 0) & (index < self.coarse.n) | self.fine.periodic
            index = index % self.coarse.n if self.fine.periodic else index.clamp(0, self.coarse.n - 1)
            entries.append((index.to(self.device), weight * self._column(inside.to(self.device, self.dtype))))
        return entries

    def _column(self, weight: Tensor) -> Tensor:
        return weight.reshape([-1] + [1] * (-self.dim - 1))

    def _gathered(self, values: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        total = values.index_select(self.dim, index[0]) * self._column(weight[0])
        for i, w in zip(index[1:], weight[1:], strict=True):
            total.addcmul_(values.index_select(self.dim, i), self._column(w))
        return total

    def adapt(self, faces: Tensor) -> None:
        """Interpolate by constant flux and not linearly: a node follows the neighbour that it conducts to."""
        if self.collapsed:
            return
        if self.nested:
            low, high = faces.narrow(self.dim, 0, self.fine.n), faces.narrow(self.dim, 1, self.fine.n)
            self._adapted = torch.where(low + high > 0, low / (low + high), torch.full_like(low, 0.5))
            return
        resistance = self._resistance(faces)
        fine = torch.arange(self.fine.n)
        interval, along = self._place(fine)
        begin = interval.double() * self.ratio
        end = begin + along * self.ratio
        passed = self._within(resistance, begin, end)
        self._adapted = (1 - passed / self._within(resistance, begin, begin + self.ratio)).clamp_(0, 1)

    def _weight(self, piece: _Piece) -> float | Tensor:
        if self._adapted is None or piece.weight == 1.0:
            return piece.weight
        lower = self._strided(self._adapted, piece)
        return (lower if piece.upward else 1 - lower).contiguous()

    # -- residuals down, corrections up: written to a tape ---------------------------------------------------------
    def restrict(self, tape: Tape, fine: Tensor, coarse: Tensor, *, per_cell: bool, scale: float = 1.0) -> None:
        """coarse = scale P^T fine; ``per_cell`` for residuals divided by the size of their dual cell."""
        if not self.nested:
            kept = torch.empty_like(coarse, memory_format=torch.contiguous_format)
            tape.append(coarse.zero_)
            for index, weight in self._restriction(per_cell):
                tape.append(partial(torch.index_select, fine, self.dim, index, out=kept))
                tape.append(partial(coarse.addcmul_, kept, weight, value=scale))
            return
        pieces = self._pieces + (self._mirrored() if per_cell else [])
        views = [(*self._views(fine, coarse, piece), piece) for piece in pieces]
        middle, whole = views[0][0], coarse.shape[self.dim]
        beside = next((k for k in (1, 2) if k < len(views) and views[k][2].length == whole), None)
        if scale != 1.0 or beside is None:
            tape.append(partial(torch.mul, middle, scale, out=coarse))
            beside = None
        else:
            share = self._weight(views[beside][2])
            if isinstance(share, Tensor):
                tape.append(partial(torch.addcmul, middle, views[beside][0], share, out=coarse))
            else:
                tape.append(partial(torch.add, middle, views[beside][0], alpha=share, out=coarse))
        for k, (source, target, piece) in enumerate(views):
            if k not in (0, beside):
                _accumulate(tape, target, source, self._weight(piece), scale)

    def interpolate(self, tape: Tape, coarse: Tensor, fine: Tensor) -> None:
        """fine = P coarse."""
        if not self.nested:
            tape.append(fine.zero_)
            self.add(tape, coarse, fine, None)
            return
        if not self.fine.periodic and not self.fine.lower_node:
            tape.append(fine.narrow(self.dim, 0, 1).zero_)
        for k, piece in enumerate(self._pieces):
            target, source = self._views(fine, coarse, piece)
            if k == 0 or (k == 1 and piece.upward):
                tape.append(partial(torch.mul, source, self._weight(piece), out=target))
            else:
                _accumulate(tape, target, source, self._weight(piece))

    def add(self, tape: Tape, coarse: Tensor, fine: Tensor, scale: Tensor | None) -> None:
        """fine += scale P coarse."""
        if self.nested:
            for piece in self._pieces:
                target, source = self._views(fine, coarse, piece)
                weight = self._weight(piece)
                if scale is None:
                    _accumulate(tape, target, source, weight)
                elif isinstance(weight, Tensor):
                    _accumulate(tape, target, source, weight * self._strided(scale, piece))
                else:
                    _accumulate(tape, target, source, self._strided(scale, piece), weight)
            return
        kept = torch.empty_like(fine, memory_format=torch.contiguous_format)
        for index, weight in self._interpolation():
            tape.append(partial(torch.index_select, coarse, self.dim, index, out=kept))
            _accumulate(tape, fine, kept, weight if scale is None else scale * weight)

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

    def _resistance(self, faces: Tensor) -> Tensor:
        """Of the fine intervals between nodes, and between end nodes and given values."""
        lower = 1 if self.fine.periodic or self.fine.lower_node else 0
        return faces.narrow(self.dim, lower, self.fine.intervals).clamp(min=1e-30).reciprocal()

    def _within(self, resistance: Tensor, begin: Tensor, end: Tensor) -> Tensor:
        """Resistance between positions at most a coarse spacing apart, in fine spacings from the lower end."""
        index, weight = self._reduce(
            torch.floor(begin),
            math.ceil(self.ratio) + 1,
            lambda i: (torch.minimum(end, i + 1) - torch.maximum(begin, i)).clamp(min=0),
            self.fine.intervals,
        )
        return self._gathered(resistance, index, weight.to(resistance.dtype))

    def series(self, faces: Tensor) -> Tensor:
        """Conductances in line: resistances add up by the share of each fine interval in a coarse one."""
        if self.collapsed:
            return faces.new_zeros([2 if k == faces.dim() + self.dim else s for k, s in enumerate(faces.shape)])
        resistance = self._resistance(faces)
        if self.nested:
            index: list[slice] = [slice(None)] * faces.dim()
            index[self.dim] = slice(0, None, 2)
            even = resistance[tuple(index)]
            index[self.dim] = slice(1, None, 2)
            joined = even + resistance[tuple(index)]
        else:
            edge = torch.arange(self.coarse.intervals).double() * self.ratio
            joined = self._within(resistance, edge, edge + self.ratio)
        joined = joined.reciprocal_()
        if self.fine.periodic:
            return torch.cat([joined.narrow(self.dim, joined.shape[self.dim] - 1, 1), joined], self.dim)
        end = torch.zeros_like(joined.narrow(self.dim, 0, 1))
        return torch.cat([end] * self.fine.lower_node + [joined] + [end] * self.fine.upper_node, self.dim)


def _accumulate(tape: Tape, target: Tensor, source: Tensor, weight: float | Tensor, scale: float = 1.0) -> None:
    """target += scale weight source."""
    if isinstance(weight, Tensor):
        tape.append(partial(target.addcmul_, source, weight, value=scale))
    else:
        tape.append(partial(target.add_, source, alpha=scale * weight))
