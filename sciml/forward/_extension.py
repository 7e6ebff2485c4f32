"""What lies beyond the sides of an image: extensions of an axis, and their transposes."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sciml.domains.boundary import Periodic

__all__ = ["Boundary", "Extension", "Nearest", "Reflect", "Run", "Valid", "Zero", "extended", "folded", "positions"]


class Extension(ABC):
    """Abstract: which pixel stands in for one beyond the sides."""

    @abstractmethod
    def source(self, i: int, n: int) -> int | None:
        """The pixel in ``0 .. n - 1`` whose value position ``i`` takes; None for zero."""


@dataclass(frozen=True)
class Reflect(Extension):
    """``(c b a | a b c | c b a)``: mirrored at the outer faces; constants stay constant, no jump at the sides."""

    def source(self, i: int, n: int) -> int:
        """Even about ``-1/2`` and ``n - 1/2``."""
        i %= 2 * n
        return i if i < n else 2 * n - 1 - i


@dataclass(frozen=True)
class Nearest(Extension):
    """``(a a a | a b c | c c c)``: the outermost pixel goes on."""

    def source(self, i: int, n: int) -> int:
        """Clamped."""
        return min(max(i, 0), n - 1)


@dataclass(frozen=True)
class Zero(Extension):
    """``(0 0 0 | a b c | 0 0 0)``: nothing beyond the sides."""

    def source(self, i: int, n: int) -> int | None:
        """None outside."""
        return i if 0 <= i < n else None


@dataclass(frozen=True)
class Valid:
    """No assumption: the result has ``size - 1`` pixels less than the image along every axis."""


Boundary = Periodic | Extension | Valid


class Run(NamedTuple):
    """Neighbouring positions of an extended axis that come from pixels ``first, first + step, ...`` (first -1: zeros)."""

    first: int
    step: int
    length: int


@functools.lru_cache(maxsize=256)
def positions(boundary: Extension | None, n: int, before: int, after: int) -> tuple[Run, ...]:
    """The runs of an axis with so many pixels more at its ends; None repeats the image."""
    where = range(-before, n + after)
    return grouped([i % n if boundary is None else boundary.source(i, n) for i in where])


def grouped(sources: Sequence[int | None]) -> tuple[Run, ...]:
    """Neighbours that go up, go down, stay or are zero, as few runs as possible."""
    runs: list[Run] = []
    for source in sources:
        if runs:
            first, step, length = runs[-1]
            last = first + step * (length - 1)
            if source is None and first < 0:
                runs[-1] = Run(-1, 0, length + 1)
                continue
            if source is not None and first >= 0 and abs(source - last) <= 1:
                if length == 1 or source - last == step:
                    runs[-1] = Run(first, source - last, length + 1)
                    continue
        runs.append(Run(-1, 0, 1) if source is None else Run(source, 1, 1))
    return tuple(runs)


def extended(u: Tensor, at: int, runs: tuple[Run, ...]) -> Tensor:
    """The axis ``at`` with the pixels beyond its sides."""
    if len(runs) == 1 and runs[0] == Run(0, 1, u.shape[at]):
        return u
    pieces = []
    for first, step, length in runs:
        if first < 0:
            pieces.append(torch.zeros_like(u.narrow(at, 0, 1)).expand(sized(u, at, length)))
        elif step == 0:
            pieces.append(u.narrow(at, first, 1).expand(sized(u, at, length)))
        elif step > 0:
            pieces.append(u.narrow(at, first, length))
        else:
            pieces.append(u.narrow(at, first - length + 1, length).flip(at))
    return torch.cat(pieces, at)


def folded(v: Tensor, at: int, runs: tuple[Run, ...], n: int) -> Tensor:
    """The transpose of ``extended``: every pixel collects what was taken from it, always in the same order."""
    if len(runs) == 1 and runs[0] == Run(0, 1, n):
        return v
    total, begin = v.new_zeros(sized(v, at, n)), 0
    for first, step, length in runs:
        piece = v.narrow(at, begin, length)
        begin += length
        if first < 0:
            continue
        if step == 0:
            total.narrow(at, first, 1).add_(piece.sum(at, keepdim=True))
        elif step > 0:
            total.narrow(at, first, length).add_(piece)
        else:
            total.narrow(at, first - length + 1, length).add_(piece.flip(at))
    return total


def sized(u: Tensor, at: int, length: int) -> tuple[int, ...]:
    return (*u.shape[:at], length, *u.shape[at + 1 :])
