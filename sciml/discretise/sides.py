"""The side conditions of a grid as a function of ``At``: what ``Continuous(interior, sides)`` needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.core.continuous import At
from sciml.domains.boundary import Condition, Dirichlet, Neumann, Periodic, Robin
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid

__all__ = ["SideLaw"]


@dataclass(frozen=True, eq=False)
class SideLaw:
    """``sides(at, name)`` vanishes on the side where ``u - g``, ``k du/dn - h`` or ``k du/dn + a u - g`` does.

    Numbers are kept here; values that are tensors are the problem's and are read from ``at`` by their names
    (``x_lower``, ``x_lower_rate``). ``coefficient`` is ``k``: a number, or the name of the problem's tensor. Periodic
    sides have nothing to meet: the law is zero there. Build it with ``SideLaw.of(grid, coefficient)``.
    """

    conditions: Mapping[str, tuple[type[Condition], float | None, float | None]]
    coefficient: float | str = 1.0

    @staticmethod
    def of(grid: Grid, coefficient: float | str = 1.0) -> SideLaw:
        """The law of a grid's conditions."""
        found = {}
        for axis, pair in enumerate(grid.conditions):
            for condition, word in zip(pair, ("lower", "upper"), strict=True):
                numbers = [getattr(condition, part, 0.0) for part in ("value", "rate")]
                value, rate = (None if isinstance(number, Tensor) else float(number) for number in numbers)
                found["xyz"[axis] + "_" + word] = (type(condition), value, rate)
        return SideLaw(found, coefficient)

    def __call__(self, at: At, name: str) -> Tensor:
        if name not in self.conditions:
            raise InputError(f"there is no side {name!r}; the sides are {', '.join(self.conditions)}")
        kind, value, rate = self.conditions[name]
        if kind is Periodic:
            return torch.zeros_like(at.x[0])
        data = at[name] if value is None else value
        if kind is Dirichlet:
            return at.u - data
        k = at[self.coefficient] if isinstance(self.coefficient, str) else self.coefficient
        sign = 1.0 if name.endswith("upper") else -1.0
        flux = sign * k * at.d("xyz".index(name[0]))
        if kind is Neumann:
            return flux - data
        if kind is Robin:
            return flux + (at[f"{name}_rate"] if rate is None else rate) * at.u - data
        raise InputError(f"side {name} has the unknown condition {kind.__name__}")
