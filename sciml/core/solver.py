"""What a solver is: an immutable record of its settings that turns a problem into an Answer."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self

import torch
from torch import Tensor
from typing_extensions import TypeVar

from sciml.core.gradients import Gradient, Implicit
from sciml.core.problem import Linear, Problem
from sciml.core.solution import Answer, Code
from sciml.core.tree import described
from sciml.domains.errors import InputError

if TYPE_CHECKING:
    from sciml.core.solution import Solution

__all__ = ["Context", "Iterative", "Solver"]

K = TypeVar("K", contravariant=True, default=Any)


@dataclass(frozen=True, eq=False)
class Context:
    """What ``solve`` passes down: the verb itself, a progress callback, checkpointing, the number of steps to keep."""

    solve: Callable[..., Solution] | None = None
    progress: Callable[[int, int, float], None] | None = None
    checkpoint: int | None = None
    kept_steps: int = 8
    seed: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def kept(self, count: int) -> frozenset[int]:
        """Which of ``count`` time steps the referee wants to see: the first, the last, others drawn from the seed."""
        generator = torch.Generator().manual_seed(self.seed + 7919)
        drawn = torch.randperm(count, generator=generator)[: max(self.kept_steps - 2, 0)].tolist()
        return frozenset({0, count - 1, *drawn}) if count else frozenset()


class Solver(ABC, Generic[K]):
    """Abstract, and generic in the kind of problem that it solves: ``accepts`` says in one sentence why not (None: yes), ``run`` computes an Answer.

    Class facts: ``gradient`` is how derivatives pass through by default; ``batched`` False makes ``solve`` loop over
    members; ``citations`` are BibTeX entries of the method.
    """

    gradient: ClassVar[Gradient] = Implicit()
    batched: ClassVar[bool] = True
    citations: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def accepts(self, problem: Problem) -> str | None:
        """None if the solver can be asked to solve the problem, else the reason in one sentence."""

    @abstractmethod
    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """Compute; never print, never read the clock, never judge."""

    def transposed(self) -> Solver:
        """The solver for the transposed problem of an implicit gradient: the same, with the same preconditioner."""
        return self


class Iterative(Solver[K]):
    """A solver with a state that the shared loop (``core/loop.py``) steps, stops, times and freezes per member."""

    max_steps: int
    patience: ClassVar[int] = 60

    @abstractmethod
    def setup(self, problem: Problem) -> Any:
        """What depends on the operator alone, computed once."""

    @abstractmethod
    def init(self, problem: Problem, setup: Any, start: Tensor | None) -> Any:
        """The first state: a frozen dataclass whose tensors have the batch as their first axis."""

    @abstractmethod
    def step(self, problem: Problem, setup: Any, state: Any) -> Any:
        """The next state."""

    @abstractmethod
    def measure(self, problem: Problem, setup: Any, state: Any) -> Tensor:
        """The monitored number per member, as the certificate would measure it as nearly as is cheap."""

    @abstractmethod
    def done(self, problem: Problem, setup: Any, state: Any) -> Tensor:
        """Codes per member: RUNNING to go on."""

    @abstractmethod
    def answer(self, problem: Problem, setup: Any, state: Any) -> Answer:
        """The Answer for a state; the loop fills in claim, steps and history."""

    def prepare(self, problem: Problem) -> Self:
        """A copy that keeps the set-up of this operator for many right-hand sides; it refuses another operator."""
        reason = self.accepts(problem)
        if reason is not None:
            raise InputError(reason)
        prepared = copy.copy(self)
        with torch.no_grad():
            object.__setattr__(prepared, "_prepared", (_parts(problem), self.setup(problem)))
        return prepared

    def setup_for(self, problem: Problem) -> Any:
        """The kept set-up if this solver was prepared, else a fresh one."""
        kept = getattr(self, "_prepared", None)
        if kept is None:
            return self.setup(problem)
        parts, setup = kept
        if not _same(parts, _parts(problem)):
            raise InputError(
                f"this {type(self).__name__} was prepared for another operator than that of {problem.name!r}; call prepare() again"
            )
        return setup

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """The shared loop."""
        from sciml.core.loop import run

        return run(self, problem, start, context)


def _parts(problem: Problem) -> dict[tuple[str | int, ...], Any]:
    """What a set-up may depend on: all of the operator but the values on its sides; all of any other problem."""
    whole = problem.operator.homogeneous() if isinstance(problem, Linear) else problem
    return {path: (part, part._version) if isinstance(part, Tensor) else part for path, part in described(whole)}


def _same(one: dict[tuple[str | int, ...], Any], two: dict[tuple[str | int, ...], Any]) -> bool:
    """The same numbers and functions, and tensors that are the same or equal."""
    if one.keys() != two.keys():
        return False
    for path, part in one.items():
        other = two[path]
        if isinstance(part, tuple) and isinstance(other, tuple) and isinstance(part[0], Tensor):
            (a, before), (b, now) = part, other
            if a is b:
                if before != now:  # changed in place since
                    return False
            elif a.shape != b.shape or a.dtype != b.dtype or a.device != b.device or not torch.equal(a, b):
                return False
        elif part is not other and part != other:
            return False
    return True


def running(batch: int, device: torch.device) -> Tensor:
    """A claim of RUNNING for every member."""
    return torch.full((batch,), int(Code.RUNNING), dtype=torch.int64, device=device)
