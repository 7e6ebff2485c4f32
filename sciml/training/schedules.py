"""How the learning rate moves during a run, as a function of the step alone (so that a resumed run needs no state)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from sciml.domains.errors import InputError

__all__ = ["Constant", "Cosine", "OneCycle", "Schedule"]


class Schedule(Protocol):
    """``factor(step, total)``: multiplies the peak learning rate at step 0 .. total-1."""

    def factor(self, step: int, total: int) -> float: ...


def bend(first: float, last: float, fraction: float) -> float:
    """Half a cosine from `first` at fraction 0 to `last` at fraction 1."""
    return last + (first - last) * (1 + math.cos(math.pi * fraction)) / 2


@dataclass(frozen=True)
class OneCycle:
    """Up from ``start`` to 1 over the share ``warmup`` of all steps, then down to ``end``, both along half a cosine.

    Reference: Smith and Topin, arXiv:1708.07120.
    """

    warmup: float = 0.3
    start: float = 0.04
    end: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise InputError(f"OneCycle: warmup is {self.warmup}; give a share of the steps, at least 0 and below 1.")

    def factor(self, step: int, total: int) -> float:
        peak = max(self.warmup * total - 1, 0.0)
        if step <= peak:
            return bend(self.start, 1.0, step / peak if peak > 0 else 1.0)
        return bend(1.0, self.end, min(1.0, (step - peak) / max(total - 1 - peak, 1.0)))


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 to ``end`` (Loshchilov and Hutter, arXiv:1608.03983, without restarts)."""

    end: float = 0.0

    def factor(self, step: int, total: int) -> float:
        return bend(1.0, self.end, step / max(total - 1, 1))


@dataclass(frozen=True)
class Constant:
    """The same learning rate throughout."""

    def factor(self, step: int, total: int) -> float:
        return 1.0
