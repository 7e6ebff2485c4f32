"""One solver after another: the first answer is the second's start.

``Chained(Trained(fit), ConjugateGradient())`` makes a network's guess into a certified answer. The second solver's gradient
and batch rules hold. A start that is not finite is dropped for those members. *Fails when* the second does.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.core.problem import Problem
from sciml.core.solution import Answer
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError

__all__ = ["Chained"]


@dataclass(frozen=True, eq=False)
class Chained(Solver):
    """Run ``first``, then ``second`` from its value."""

    first: Solver
    second: Solver

    def __post_init__(self) -> None:
        for one in (self.first, self.second):
            if not isinstance(one, Solver):
                raise InputError(f"Chained takes two solvers such as ConjugateGradient(), not {one!r}")
        # Instance attributes, so that the class facts are those of the second solver.
        object.__setattr__(self, "gradient", self.second.gradient)
        object.__setattr__(self, "batched", self.first.batched and self.second.batched)
        object.__setattr__(self, "citations", (*self.first.citations, *self.second.citations))

    def accepts(self, problem: Problem) -> str | None:
        """What both accept."""
        return self.first.accepts(problem) or self.second.accepts(problem)

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """The second solver's answer; counts of the first are kept under ``first_...``."""
        before = self.first.run(problem, start, context)
        guess = before.value
        finite = torch.isfinite(guess).flatten(1).all(1).reshape(-1, *[1] * (guess.ndim - 1))
        answer = self.second.run(problem, torch.where(finite, guess, torch.zeros_like(guess)), context)
        counts = {**{f"first_{key}": value for key, value in before.counts.items()}, **answer.counts}
        return dataclasses.replace(answer, counts={**counts, "first_steps": float(before.steps)})

    def transposed(self) -> Solver:
        """The second solver's: the first has nothing to say about a transposed problem."""
        return self.second.transposed()


def example() -> tuple[Chained, Any]:
    """A few CG steps, then a factorisation."""
    from sciml.solvers.conjugate_gradient import ConjugateGradient
    from sciml.solvers.conjugate_gradient import example as small

    return Chained(ConjugateGradient(max_steps=3), ConjugateGradient()), small()[1]
