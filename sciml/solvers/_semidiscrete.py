"""The system of ordinary differential equations that time steppers of an Evolution integrate, in the diagonal basis.

With ``F`` the transform that makes the stiff part diagonal, ``D`` the two-thirds rule and ``v = F u``,

    dv/dt = symbol * v + D F rest(t, F^-1 D v).

Modes beyond two thirds are kept in the state (a start is not changed), damped by the stiff part, and do not feed back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.core.evolution import Diagonal, Evolution
from sciml.core.law import no_law

__all__ = ["Semidiscrete"]


@dataclass(frozen=True)
class _Identity:
    """No stiff part: the basis of the field itself, every eigenvalue zero."""

    symbol: Tensor

    def forward(self, u: Tensor) -> Tensor:
        return u

    def inverse(self, v: Tensor) -> Tensor:
        return v

    def dealias(self, v: Tensor) -> Tensor:
        return v


class Semidiscrete:
    """``symbol`` ``(batch or 1, channel, *modes)``, ``rest(t, v)``, ``begin`` (coefficients of the start, whole batch).

    ``fast`` False ignores the problem's ``rest_modes`` and evaluates ``rest`` on the grid, as a judge should.
    """

    def __init__(self, problem: Evolution, *, fast: bool = True) -> None:
        space = problem.space
        zero = torch.zeros((1,) * (space.dim + 2), dtype=space.dtype, device=space.device)
        self.problem = problem
        self.stiff: Diagonal = _Identity(zero) if problem.stiff is None else problem.stiff
        self.symbol = self.stiff.symbol
        self.linear = problem.rest.function is no_law
        self.law = problem.rest_modes if fast else None
        with torch.no_grad():
            ones = torch.ones_like(self.stiff.forward(space.zeros()).real)
            self.keep: Tensor | None = self.stiff.dealias(ones)
            if bool((self.keep == 1).all()):
                self.keep = None

    @property
    def begin(self) -> Tensor:
        """Coefficients of the start."""
        start = self.problem.start
        return self.stiff.forward(start.expand(self.problem.batch, *start.shape[1:]))

    def rest(self, t: float, v: Tensor) -> Tensor:
        """The rest on coefficients, dealiased on the way in and on the way out."""
        if self.keep is None:
            return self.bare(t, v)
        return self.bare(t, v * self.keep) * self.keep

    def bare(self, t: float, v: Tensor) -> Tensor:
        """The rest on coefficients as they are."""
        if self.linear:
            return torch.zeros_like(v)
        space = self.problem.space
        if self.law is not None:
            return self.law(t, v, space=space)
        return self.stiff.forward(self.problem.rest(t, self.stiff.inverse(v), space=space))
