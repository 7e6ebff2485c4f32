"""Evolutions ``du/dt = stiff(u) + rest(t, u)`` with a start and times at which the state is wanted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from sciml.core import strong
from sciml.core.continuous import Continuous
from sciml.core.law import Law, no_law
from sciml.core.problem import Problem, as_field, opaque, unpack
from sciml.core.recipe import Recipe
from sciml.core.solution import Answer, Check, Segment
from sciml.core.tree import unified
from sciml.domains.errors import InputError
from sciml.domains.space import Space

__all__ = ["Diagonal", "Evolution", "Referee"]


class Diagonal(Protocol):
    """A linear operator that a transform makes diagonal: ``A u = inverse(symbol * forward(u))``.

    ``symbol`` has shape ``(batch or 1, channel, *modes)``, real or complex, and carries the gradient of its tensors.
    """

    def forward(self, u: Tensor) -> Tensor:
        """Coefficients of a field."""

    def inverse(self, v: Tensor) -> Tensor:
        """The field of coefficients."""

    @property
    def symbol(self) -> Tensor:
        """Eigenvalues."""

    def dealias(self, v: Tensor) -> Tensor:
        """Coefficients without those that quadratic products would alias onto."""


class Referee(Protocol):
    """An integrator of another family than the solver's, accurate enough to judge one of its steps."""

    def advance(self, problem: Evolution, begin: float, before: Tensor, end: float, tolerance: float) -> Tensor:
        """The state at ``end`` from the state ``before`` at ``begin``, to a relative ``tolerance``."""


@dataclass(frozen=True, eq=False)
class Evolution(Problem):
    """``du/dt = stiff(u) + rest(t, u)``, ``u(begin) = start``, wanted at ``times`` (increasing, ``>= begin``).

    Answers have shape ``(batch, time, channel, *space)``. Gate: ``steps``. The solver's time steps make up at most 128
    stretches; the first, the last and up to 6 others, chosen at random, are done again by the problem's ``referee``. The
    defects of the first and last plus the root mean square of the others times their number estimate the accumulated
    time-integration error relative to the solution. Kept stretches must meet the start and the answer where they share a
    time. An answer without kept stretches is judged on the intervals between its times. ``invariants`` map a name to a
    function of a state whose drift is told, not judged; ``decreasing`` map a name to ``function(problem, state)``, ``(batch,)``,
    that never grows along a solution (a Lyapunov function, such as an energy), of which the largest rise from one wanted
    time to the next is told, relative to its value at the start.

    ``rest_modes`` may state the rest once more, on the coefficients of the stiff part (``function(t, v, *, ...)``), where
    that saves transforms; the referee goes by ``rest``. ``exact`` ``(batch, time, channel, *space)`` is a known solution, for
    comparison only.
    """

    name: str
    space: Space = field()
    start: Tensor = field()
    times: tuple[float, ...] = (1.0,)
    rest: Law = field(default_factory=lambda: Law(no_law))
    stiff: Diagonal | None = None
    begin: float = 0.0
    referee: Referee | None = opaque()
    invariants: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict, metadata={"opaque": True})
    continuous: Continuous | None = opaque()
    symmetries: tuple[Any, ...] = opaque(())
    goals: Mapping[str, float] = field(default_factory=dict, metadata={"opaque": True})
    recipe: Recipe | None = opaque()
    recommend: Callable[[Any], Any] | None = opaque()
    unknown: str = "u"
    rest_modes: Law | None = None
    exact: Tensor | None = field(default=None, metadata={"told": True})
    decreasing: Mapping[str, Callable[[Any, Tensor], Tensor]] = field(default_factory=dict, metadata={"opaque": True})

    def __post_init__(self) -> None:
        times = tuple(float(t) for t in self.times)
        if not all(math.isfinite(t) for t in times):
            raise InputError(f"{self.name!r}: times {times} must be finite")
        if not times or any(b <= a for a, b in zip(times, times[1:], strict=False)) or times[0] < self.begin:
            raise InputError(f"{self.name!r}: times {times} must increase and not precede the start time {self.begin}")
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "start", as_field("start", self.start, self.space))
        object.__setattr__(self, "rest", self.rest.shaped(self.space))
        if self.rest_modes is not None:
            object.__setattr__(self, "rest_modes", self.rest_modes.shaped(self.space))
        seen: dict[str, Tensor] = {}
        for part in ("stiff", "rest", "rest_modes"):
            object.__setattr__(self, part, unified(getattr(self, part), seen))

    def rate(self, t: float, u: Tensor) -> Tensor:
        """``du/dt`` at ``(t, u)``."""
        result = self.rest(t, u, space=self.space)
        if self.stiff is not None:
            result = result + self.stiff.inverse(self.stiff.symbol * self.stiff.forward(u))
        return result

    def gauge(self, u: Tensor) -> Tensor:
        """``u`` itself."""
        return u

    def default_targets(self) -> dict[str, float]:
        """1e-6 in double precision, 1e-3 in single; those of functions beside."""
        return {"steps": 1e-6 if self.space.dtype == torch.float64 else 1e-3, **strong.targets(self)}

    def certify(self, answer: Answer | Tensor) -> tuple[Check, ...]:
        """``steps`` (a gate, if the problem has a referee); told: the drift of the invariants, the rise of what decreases."""
        value = unpack(self, answer, (len(self.times), *self.space.shape))
        high = self.to(torch.float64).to(device=value.device)
        checks = []
        with torch.no_grad():
            if self.referee is not None:
                segments, count = (answer.segments, answer.step_count) if isinstance(answer, Answer) else ((), 0)
                if not all(
                    any(high._same_time(one.end, t) for one in segments) for t in self.watched if t > self.begin
                ):
                    # Nothing ties kept steps to the answer, or none were kept: its own intervals are judged.
                    segments = high._intervals(value)
                    count = len(segments)
                defect = high._defect(segments, count, value, self.targets["steps"]) + high._untied(segments, value)
                checks.append(Check("steps", defect, self.targets["steps"]))
            begin = high.start.expand(value.shape[0], *self.space.shape)
            for name, invariant in self.invariants.items():
                first, last = invariant(begin), invariant(value[:, -1])
                checks.append(Check(f"{name} drift", (last - first).abs() / first.abs().clamp_min(1e-300)))
            for name, lyapunov in self.decreasing.items():
                levels = torch.stack([lyapunov(high, u) for u in (begin, *value.unbind(1))], 1)
                rise = levels.diff(dim=1).amax(1).clamp_min(0.0)
                checks.append(Check(f"{name} rise", rise / levels[:, 0].abs().clamp_min(1e-300)))
        return strong.judged(self, answer, tuple(checks))

    @property
    def watched(self) -> tuple[float, ...]:
        """Wanted times at which the answer must be the end of a judged step: the last, and up to 6 drawn from the seed."""
        seed = int(self.recipe.settings.get("seed", 0) or 0) if self.recipe is not None else 0
        drawn = torch.randperm(len(self.times) - 1, generator=torch.Generator().manual_seed(seed + 104729))[:6].tolist()
        return tuple(self.times[i] for i in sorted({*drawn, len(self.times) - 1}))

    def _same_time(self, a: float, b: float) -> bool:
        return abs(a - b) <= 1e-9 * max(1.0, self.times[-1] - self.begin)

    def _untied(self, segments: tuple[Segment, ...], value: Tensor) -> Tensor:
        """How far kept steps are from the answer at the times they share, and both from the start, relative to the answer.

        Without it a solver could keep good steps and hand over another answer.
        """
        size = self.space.norm(value).amax(1).clamp_min(1e-300)
        worst = torch.zeros_like(size)
        known = [(self.begin, self.start.expand_as(value[:, 0]))]
        known += [(t, value[:, i]) for i, t in enumerate(self.times)]
        for time, state in known:
            pairs = [one.before for one in segments if self._same_time(one.begin, time)]
            pairs += [one.after for one in segments if self._same_time(one.end, time)]
            if self._same_time(time, self.begin):
                pairs.append(known[0][1])
            for other in pairs:
                worst = torch.maximum(worst, self.space.norm(other.detach().to(torch.float64) - state) / size)
        # States are stored in the working precision; what rounding to it explains is no gap.
        return torch.where(worst <= 64 * self._rounding, torch.zeros_like(worst), worst)

    @property
    def _rounding(self) -> float:
        return float(torch.finfo(torch.float32).eps if self.targets["steps"] > 1e-5 else torch.finfo(torch.float64).eps)

    def _intervals(self, value: Tensor) -> tuple[Segment, ...]:
        nodes = list(self.times)
        states = [value[:, i] for i in range(len(nodes))]
        if nodes[0] > self.begin:
            nodes.insert(0, self.begin)
            states.insert(0, self.start.expand_as(states[0]))
        else:
            first = self.start.expand_as(states[0])
            if not torch.allclose(states[0], first, rtol=1e-6, atol=1e-6 * float(first.abs().max())):
                # An answer that does not begin at the start is judged against the start.
                states[0] = first
        return tuple(Segment(a, b, u, v) for a, b, u, v in zip(nodes, nodes[1:], states, states[1:], strict=False))

    def _defect(self, segments: tuple[Segment, ...], count: int, value: Tensor, target: float) -> Tensor:
        if not segments or self.referee is None:
            drift = self.space.norm(value[:, 0] - self.start)
            return drift / self.space.norm(self.start).clamp_min(1e-300)
        size = self.space.norm(value).amax(1).clamp_min(1e-300)
        tolerance = 0.1 * target / max(count, 1)
        square, ends, drawn = torch.zeros_like(size), torch.zeros_like(size), 0
        for one in segments:
            before, after = one.before.detach().to(torch.float64), one.after.detach().to(torch.float64)
            if not (torch.isfinite(before).all() and torch.isfinite(after).all()):
                bad = ~(torch.isfinite(before).flatten(1).all(1) & torch.isfinite(after).flatten(1).all(1))
                square = torch.where(bad, torch.full_like(square, float("inf")), square)
                before, after = torch.nan_to_num(before, 0.0, 0.0, 0.0), torch.nan_to_num(after, 0.0, 0.0, 0.0)
            again = self.referee.advance(self, one.begin, before, one.end, tolerance)
            gap = self.space.norm(after - again) / size
            if self._same_time(one.begin, self.begin) or any(self._same_time(one.end, t) for t in self.watched):
                ends = ends + gap  # always looked at, so it stands for itself
            else:
                square, drawn = square + gap.square(), drawn + 1
        rest = count - (len(segments) - drawn)
        total = ends + (rest * (square / drawn).sqrt() if drawn else torch.sqrt(square))
        finite = torch.isfinite(value).flatten(1).all(1)
        return torch.where(finite, total, torch.full_like(total, float("inf")))
