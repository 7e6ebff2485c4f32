"""Inverse problems whose forward model solves an equation: the unknown number beside the weights, sensors as one more term.

The forward model is recognised by what it has, not by its class: ``problem`` (with its strong form), ``name`` of the tensor
that is sought, ``observe`` (None: the whole state; else something with ``points`` ``(m, dim)``), ``log``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.core.continuous import At
from sciml.core.evolution import Evolution
from sciml.core.inverse import Inverse
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid

__all__ = ["Sensors", "refusal"]


def refusal(problem: Inverse[Any]) -> str | None:
    """Why a PINN cannot be asked for the unknown, in one sentence, or None."""
    forward: Any = problem.forward
    if not all(hasattr(forward, part) for part in ("problem", "name", "observe", "log")):
        return "a physics-informed network inverts for a number of an equation, and this forward model (not ParameterToState) solves none"
    state = forward.problem
    if state.continuous is None or not isinstance(state.space.domain, Grid) or state.space.shape[0] != 1:
        return f"the strong form of the equation {state.name!r} behind the data is not stated for one field on a grid"
    if forward.space.zeros().numel() != 1:
        return f"a physics-informed network inverts for a single number, and {forward.name!r} is a field of shape {forward.space.shape}"
    if forward.observe is not None and not hasattr(forward.observe, "points"):
        return "the sensors are not points; observe the state at points, ParameterToState(..., observe=points)"
    return None


@dataclass(frozen=True, eq=False)
class Sensors:
    """Where and when one member's state was seen, what was seen, and how sure that is."""

    state: Any
    name: str
    guess: float
    log: bool
    points: Tensor
    data: Tensor
    certainty: Tensor

    @staticmethod
    def of(problem: Inverse[Any]) -> Sensors:
        """Of a problem with one member; the first guess is what the equation's own tensor says."""
        forward: Any = problem.forward
        state = forward.problem.member(0)
        guess = float(state.parameters()[forward.name].reshape(-1)[0])
        grid = state.space.grid
        if forward.observe is None:
            where = torch.stack([p.reshape(-1) for p in grid.points(torch.float64)], 1)
        else:
            where = forward.observe.points.detach().to("cpu", torch.float64)
        if isinstance(state, Evolution):
            times = torch.tensor(state.times, dtype=torch.float64)
            where = torch.cat((where.repeat(len(times), 1), times.repeat_interleave(len(where)).unsqueeze(1)), 1)
        data = problem.data[:1].detach()
        certainty = problem.noise.whiten(torch.ones_like(data), data).to("cpu", torch.float64).reshape(-1)
        return Sensors(
            state, forward.name, guess, forward.log, where, data.to("cpu", torch.float64).reshape(-1), certainty
        )

    @property
    def of_number(self) -> Callable[[Tensor], Tensor]:
        """The unknown from the number that is trained, which begins at zero: a factor, so that its sign stays."""
        guess = self.guess
        return (lambda s: guess * torch.exp(s)) if guess else (lambda s: s)

    def number(self, start: Tensor) -> float:
        """The number that a first guess of the unknown belongs to."""
        wanted = float((start.exp() if self.log else start).reshape(-1)[0])
        if self.guess and not wanted / self.guess > 0:
            raise InputError(
                f"the start {wanted:g} of {self.name!r} has another sign than {self.guess:g}, which the equation was posed with"
            )
        return math.log(wanted / self.guess) if self.guess else wanted

    def value(self, number: Tensor) -> Tensor:
        """The unknown as the inverse problem states it."""
        found = self.of_number(number)
        return found.log() if self.log else found


def misfit(at: At) -> Tensor:
    """What the sensors saw, in units of their noise."""
    return (at.u - at["seen"]) * at["certainty"]
