"""What a solver hands over (Answer), how a problem judges it (Check, Code), and what the user gets (Solution)."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.domains.errors import InputError

if TYPE_CHECKING:
    import xarray

    from sciml.core.problem import Problem
    from sciml.core.recipe import Recipe

__all__ = ["Answer", "Check", "Code", "Segment", "Solution", "SolveError", "decide"]


class Code(IntEnum):
    """How one member ended, from no verdict to worst; ``sentence`` says it in words."""

    RUNNING = 0
    CONVERGED = 1
    UNCERTIFIED = 2
    BUDGET = 3
    STAGNATED = 4
    BREAKDOWN = 5
    DIVERGED = 6
    BAD_INPUT = 7

    @property
    def sentence(self) -> str:
        """What the code means, in words."""
        return SENTENCES[self.value]


SENTENCES = (
    "still running",
    "every gate of the problem passed",
    "the solver is done, but the problem's gates did not all pass",
    "the step budget ran out before the target was met",
    "no further progress: the accuracy asked for is out of reach in this precision or for this problem",
    "the method does not apply to this operator",
    "the iterates grew without bound or became non-finite",
    "the input was not finite or not consistent",
)


@dataclass(frozen=True, eq=False)
class Check:
    """A number per member that the problem computed, and the target it must not exceed (None: told, not judged)."""

    name: str
    value: Tensor
    target: float | None = None

    @property
    def passed(self) -> Tensor:
        """Per member: no target, or a finite value at most the target."""
        if self.target is None:
            return torch.ones_like(self.value, dtype=torch.bool)
        return torch.isfinite(self.value) & (self.value <= self.target)

    def __str__(self) -> str:
        worst = float(self.value.detach().max()) if self.value.numel() else float("nan")
        if self.target is None:
            return f"{self.name} {worst:.3g}"
        return f"{self.name} {worst:.1e} (target {self.target:.0e})"


@dataclass(frozen=True, eq=False)
class Segment:
    """A kept time step, or a stretch of them: the state at its start and at its end, ``(batch, channel, *space)``."""

    begin: float
    end: float
    before: Tensor
    after: Tensor


@dataclass(frozen=True, eq=False)
class Answer:
    """What a solver found and what it claims: codes per member, steps, counts of work, the monitored history.

    ``history`` is ``(steps + 1, batch)``. ``sentence`` may say why a member failed. ``dual`` are dual variables by name (``prior``, ``data``), ``posed`` the weight that a wrapper chose. ``segments`` are stretches of time
    steps kept for the referee, ``step_count`` the number of such stretches in all; ``field`` is a function of points where the method has one.
    """

    value: Tensor
    claim: Tensor
    steps: int = 0
    counts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    history: Tensor | None = None
    sentence: str = ""
    segments: tuple[Segment, ...] = ()
    step_count: int = 0
    field: Callable[[Tensor], Tensor] | None = None
    samples: Tensor | None = None
    dual: Mapping[str, Tensor] | None = None
    posed: Any = None
    record: Any = None


def decide(claim: Tensor, checks: tuple[Check, ...]) -> Tensor:
    """Codes per member. The certificate decides: CONVERGED needs a gate, all gates passed, and no claim of failure."""
    gates = [check for check in checks if check.target is not None]
    passed = torch.full_like(claim, bool(gates), dtype=torch.bool)
    for gate in gates:
        passed = passed & gate.passed.to(claim.device)
    failed = claim >= Code.BREAKDOWN
    stands = torch.where(claim <= Code.CONVERGED, torch.full_like(claim, Code.UNCERTIFIED), claim)
    return torch.where(passed & ~failed, torch.full_like(claim, Code.CONVERGED), stands)


@dataclass(eq=False)
class Solution:
    """A judged answer. ``value`` carries the gradient; ``codes`` are per member, ``code`` is the worst of them.

    ``checks`` are the problem's own, ``stats`` what it cost (seconds, steps, counts), ``backward`` collects the solutions
    of transposed solves that gradients needed. ``weight`` is that of the prior, per member, for inverse problems that have one
    (posed by the problem, or chosen by the solver), ``dual`` the answer's dual variables, with which a gap can be certified again.
    """

    value: Tensor
    codes: Tensor
    checks: tuple[Check, ...]
    problem: Problem
    solver: Any
    stats: dict[str, float]
    history: Tensor | None = None
    samples: Tensor | None = None
    field: Callable[[Tensor], Tensor] | None = None
    sentence: str = ""
    citations: tuple[str, ...] = ()
    backward: list[Solution] = dataclasses.field(default_factory=list)
    weight: Tensor | None = None
    dual: Mapping[str, Tensor] | None = None

    @property
    def code(self) -> Code:
        """The worst code among the members."""
        return Code(int(self.codes.max()))

    @property
    def ok(self) -> bool:
        """Whether every member is CONVERGED."""
        return bool((self.codes == Code.CONVERGED).all())

    @property
    def recipe(self) -> Recipe | None:
        """Where the problem came from, or None for a problem built by hand."""
        return self.problem.recipe

    def check(self, name: str) -> Check:
        """A check by name."""
        for check in self.checks:
            if check.name == name:
                return check
        raise InputError(f"the solution has no check {name!r}; it has {', '.join(c.name for c in self.checks)}")

    def __str__(self) -> str:
        solver = type(self.solver).__name__
        parts = [self.code.name, *(str(check) for check in self.checks), solver]
        if self.stats.get("steps"):
            parts.append(f"{int(self.stats['steps'])} steps")
        parts.append(f"{self.stats.get('seconds', 0.0):.2f} s")
        if len(self.codes) > 1:
            parts.append(f"{int((self.codes == Code.CONVERGED).sum())} of {len(self.codes)} members certified")
        if self.code is Code.UNCERTIFIED:
            parts.append("(to go on: Chained(this solver, an iterative one), or loosen with_target)")
        return "  ".join(parts)

    __repr__ = __str__

    def to_xarray(self) -> xarray.Dataset:
        """The solution as a Dataset: named dims, coordinates, units, certificate and recipe in the attributes."""
        from sciml.core.export import to_xarray

        return to_xarray(self)

    def save(self, path: str | pathlib.Path) -> pathlib.Path:
        """Write ``to_xarray()`` as netCDF-4 (through h5netcdf), whole or not at all."""
        from sciml.core.export import save

        return save(self, pathlib.Path(path))

    def plot(self, path: str | pathlib.Path | None = None, member: int = 0) -> Any:
        """A matplotlib figure of one member (and a file, when ``path`` is given; ``.gif`` for a movie)."""
        import importlib

        return importlib.import_module("sciml.show.plot").plot(self, path=path, member=member)


class SolveError(RuntimeError):
    """No member survived, or ``strict=True`` and one missed its certificate; ``solution`` is what there is."""

    def __init__(self, message: str, solution: Solution) -> None:
        super().__init__(message)
        self.solution = solution
