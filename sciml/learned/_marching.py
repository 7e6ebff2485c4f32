"""An evolution cut into windows of time, one network after the other, each starting where the last one ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.core.solution import Answer

__all__ = ["Successive", "marched"]


@dataclass(frozen=True, eq=False)
class Successive:
    """The functions of successive windows as one: every point goes to the window that its time (column ``dim``) falls in."""

    parts: tuple[Any, ...]
    ends: tuple[float, ...]
    dim: int

    def member(self, index: int) -> Successive:
        """The function of one member."""
        return Successive(tuple(part.member(index) for part in self.parts), self.ends, self.dim)

    def __call__(self, points: Tensor) -> Tensor:
        if points.ndim != 2 or points.shape[1] <= self.dim:
            self.parts[0](points)  # refuses them, and says why
        inner = torch.tensor(self.ends[:-1], dtype=torch.float64, device=points.device)
        window = torch.bucketize(points[:, self.dim].to(torch.float64).contiguous(), inner)
        result = torch.zeros((1, 1, len(points)), dtype=torch.float64, device=points.device)
        for k, part in enumerate(self.parts):
            own = window == k
            if bool(own.any()):
                result[..., own] = part(points[own])
        return result


def marched(problem: Evolution, windows: int, solve: Callable[[Evolution], Answer]) -> Answer:
    """``solve`` for every window of a problem with one member; the start of each is what the last one has at its end."""
    span = problem.times[-1] - problem.begin
    ends = [problem.begin + span * (k + 1) / windows for k in range(windows - 1)] + [problem.times[-1]]
    start, begin, values, answers = problem.start, problem.begin, list[Tensor](), list[Answer]()
    for k, end in enumerate(ends):
        inside = [t for t in problem.times if (t > begin or k == 0) and t < end - 1e-9 * span]
        wanted = end == ends[-1] or any(abs(t - end) <= 1e-9 * span for t in problem.times)
        window = dataclasses.replace(
            problem, start=start, begin=begin, times=(*inside, end), recipe=None, exact=None, recommend=None
        )
        answer = solve(window)
        start, begin = answer.value[:, -1], end
        values.append(answer.value if wanted else answer.value[:, :-1])
        answers.append(answer)
    histories = [a.history for a in answers if a.history is not None]
    return dataclasses.replace(
        answers[-1],
        value=torch.cat(values, 1),
        steps=sum(a.steps for a in answers),
        history=torch.cat(histories),
        counts={key: sum(a.counts[key] for a in answers) for key in answers[-1].counts},
        field=Successive(tuple(a.field for a in answers), tuple(ends), problem.space.dim),
    )
