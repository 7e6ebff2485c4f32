"""Where a PINN asks for its equation: points of the box, drawn by an object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.learned._ansatz import Box

__all__ = ["Given", "ResidualAdaptive", "Sampling", "Sobol", "Staged", "Uniform"]

Residual = Callable[[Tensor], Tensor]


class Sampling(Protocol):
    """``draw(box, seed, residual)`` gives points ``(points, coordinates)``; ``every`` so many steps they are drawn anew (0: never)."""

    @property
    def points(self) -> int: ...

    @property
    def every(self) -> int: ...

    def draw(self, box: Box, seed: int, residual: Residual | None = None) -> Tensor: ...


def _checked(name: str, points: int, every: int) -> None:
    if points < 1 or every < 0:
        raise InputError(
            f"{name}: {points} points, drawn anew every {every} steps; give at least 1 point, and 0 for never"
        )


@dataclass(frozen=True)
class Uniform:
    """Independent, uniformly distributed points."""

    points: int = 2000
    every: int = 0

    def __post_init__(self) -> None:
        _checked("Uniform", self.points, self.every)

    def draw(self, box: Box, seed: int, residual: Residual | None = None) -> Tensor:
        """The points."""
        generator = torch.Generator().manual_seed(seed)
        return box.place(torch.rand((self.points, len(box.lower)), generator=generator, dtype=torch.float64))


@dataclass(frozen=True)
class Sobol:
    """Scrambled Sobol points, more even than random ones (Sobol, 1967, doi 10.1016/0041-5553(67)90144-9; Owen's scrambling)."""

    points: int = 2000
    every: int = 0

    def __post_init__(self) -> None:
        _checked("Sobol", self.points, self.every)

    def draw(self, box: Box, seed: int, residual: Residual | None = None) -> Tensor:
        """The points."""
        engine = torch.quasirandom.SobolEngine(len(box.lower), scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        return box.place(engine.draw(self.points, dtype=torch.float64))


@dataclass(frozen=True)
class ResidualAdaptive:
    """From a pool ``pool`` times as large, points with probability ``|r|^power / mean + floor`` (Wu and others, arXiv 2207.10289).

    The first points are those of the pool's own rule; every ``every`` steps they are drawn anew.
    """

    points: int = 2000
    every: int = 10
    pool: int = 6
    power: float = 1.0
    floor: float = 1.0

    def __post_init__(self) -> None:
        _checked("ResidualAdaptive", self.points, self.every)

    def draw(self, box: Box, seed: int, residual: Residual | None = None) -> Tensor:
        """The points."""
        pool = Sobol(self.points * self.pool).draw(box, seed)
        if residual is None:
            return pool[: self.points]
        size = residual(pool).abs() ** self.power
        chance = size / size.mean().clamp_min(1e-300) + self.floor
        generator = torch.Generator().manual_seed(seed)
        return pool[torch.multinomial(chance, self.points, replacement=False, generator=generator)]


@dataclass(frozen=True, eq=False)
class Given:
    """Your own points ``(points, coordinates)``; InputError for points outside of the domain."""

    at: Tensor
    every: int = 0

    @property
    def points(self) -> int:
        """How many."""
        return len(self.at)

    def draw(self, box: Box, seed: int, residual: Residual | None = None) -> Tensor:
        """The points, those outside refused by name."""
        box.refuse(self.at)
        return self.at.to(torch.float64)


@dataclass(frozen=True)
class Staged:
    """``first`` for ``until`` steps, ``then`` another rule: few points until the solution has its shape, many to refine it.

    Far from the solution a few hundred points tell Gauss-Newton as much as thousands (the same number of steps is needed, each
    some five times cheaper); they must be drawn anew often, or the network fits them alone.
    """

    first: Sampling = ResidualAdaptive(600)
    then: Sampling = ResidualAdaptive()
    until: int = 80

    def __post_init__(self) -> None:
        if self.until < 1:
            raise InputError(f"Staged: until is {self.until}; give at least 1 step, or the second rule alone")

    def stage(self, count: int) -> Sampling:
        """The rule in use after ``count`` steps."""
        return self.first if count < self.until else self.then

    @property
    def points(self) -> int:
        """How many in the end."""
        return self.then.points

    @property
    def every(self) -> int:
        """How often in the end."""
        return self.then.every

    def draw(self, box: Box, seed: int, residual: Residual | None = None) -> Tensor:
        """The points of the second stage."""
        return self.then.draw(box, seed, residual)
