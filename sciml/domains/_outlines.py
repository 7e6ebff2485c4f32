"""Closed curves around plane domains: circles and polygons."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, Any]

__all__ = ["Circle", "Corners", "Outline"]


class Outline(ABC):
    """Abstract: a closed curve by arc length, counterclockwise, and what lies inside."""

    @property
    @abstractmethod
    def length(self) -> float:
        """Of the whole curve."""

    @property
    @abstractmethod
    def area(self) -> float:
        """Inside."""

    @abstractmethod
    def at(self, s: Array) -> Array:
        """Points ``(k, 2)`` at arc lengths."""

    @abstractmethod
    def inside(self, points: Array) -> Array:
        """Whether points are inside."""

    @abstractmethod
    def stretches(self) -> list[tuple[str, float, float]]:
        """Names of the sides with where they begin and end, when no electrode is there."""


@dataclass(frozen=True)
class Circle(Outline):
    """Around the origin, from the positive x axis."""

    radius: float

    @property
    def length(self) -> float:
        """The circumference."""
        return 2 * math.pi * self.radius

    @property
    def area(self) -> float:
        """Of the disc."""
        return math.pi * self.radius**2

    def at(self, s: Array) -> Array:
        """At the angle ``s / radius``."""
        import numpy as np

        return self.radius * np.stack((np.cos(s / self.radius), np.sin(s / self.radius)), 1)

    def inside(self, points: Array) -> Array:
        """Within the radius."""
        found: Array = (points**2).sum(1) < self.radius**2
        return found

    def stretches(self) -> list[tuple[str, float, float]]:
        """One: the wall."""
        return [("wall", 0.0, self.length)]


@dataclass(frozen=True, eq=False)
class Corners(Outline):
    """A polygon; side ``i`` runs from corner ``i`` to the next."""

    corners: Array
    names: tuple[str, ...]

    @property
    def _sizes(self) -> Array:
        import numpy as np

        sizes: Array = np.hypot(*(np.roll(self.corners, -1, 0) - self.corners).T)
        return sizes

    @property
    def length(self) -> float:
        """The sum of the sides."""
        return float(self._sizes.sum())

    @property
    def area(self) -> float:
        """By the shoelace formula, positive counterclockwise."""
        import numpy as np

        x, y = self.corners.T
        return float(0.5 * (x * np.roll(y, -1) - np.roll(x, -1) * y).sum())

    def at(self, s: Array) -> Array:
        """Linear between the corners."""
        import numpy as np

        ends = np.concatenate(([0.0], np.cumsum(self._sizes)))
        closed = np.concatenate((self.corners, self.corners[:1]))
        return np.stack([np.interp(s % ends[-1], ends, closed[:, axis]) for axis in (0, 1)], 1)

    def inside(self, points: Array) -> Array:
        """By the parity of crossings to the right."""
        import numpy as np

        result = np.zeros(len(points), dtype=bool)
        for a, b in zip(self.corners, np.roll(self.corners, -1, 0), strict=True):
            if a[1] == b[1]:
                continue
            between = (a[1] > points[:, 1]) != (b[1] > points[:, 1])
            result ^= between & (points[:, 0] < a[0] + (points[:, 1] - a[1]) * (b[0] - a[0]) / (b[1] - a[1]))
        return result

    def stretches(self) -> list[tuple[str, float, float]]:
        """One per side."""
        import numpy as np

        ends = np.concatenate(([0.0], np.cumsum(self._sizes)))
        return list(zip(self.names, ends[:-1].tolist(), ends[1:].tolist(), strict=True))
