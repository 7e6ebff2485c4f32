"""The one loop: budget, finiteness, history, stagnation, progress, and the freezing of finished members."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code, Segment

if TYPE_CHECKING:
    from sciml.core.evolution import Evolution
    from sciml.core.solver import Context, Iterative

__all__ = ["cuts", "freeze", "march", "run"]

STRETCHES = 128  # of a march: the referee does 8 of them again, a sixteenth of the whole


def freeze(old: Any, new: Any, active: Tensor) -> Any:
    """``new`` for active members, ``old`` for the others, in every tensor of a state whose first axis is the batch."""
    batch, changes = active.shape[0], {}
    for field in dataclasses.fields(new):
        a, b = getattr(old, field.name), getattr(new, field.name)
        if isinstance(b, Tensor) and b.ndim >= 1 and b.shape[0] == batch and isinstance(a, Tensor):
            changes[field.name] = torch.where(active.reshape(-1, *[1] * (b.ndim - 1)), b, a)
    return dataclasses.replace(new, **changes)


def run(solver: Iterative, problem: Problem, start: Tensor | None, context: Context) -> Answer:
    """Step ``solver`` until every member is done or the budget is spent; the claim is the solver's, not the verdict."""
    setup = solver.setup_for(problem)
    state = solver.init(problem, setup, start)
    history = [solver.measure(problem, setup, state).detach()]
    codes = _update(solver.done(problem, setup, state), history)
    every = 1 if codes.device.type == "cpu" else 8
    steps, finished = 0, bool((codes != Code.RUNNING).all())
    mixed = not finished and bool((codes != Code.RUNNING).any())
    before = torch.full_like(history[0], float("inf"))  # the best value more than `patience` steps ago
    while steps < solver.max_steps and not finished:
        new = _step(solver, problem, setup, state, context)
        if mixed or every > 1:
            new = freeze(state, new, codes == Code.RUNNING)
        state = new
        steps += 1
        history.append(solver.measure(problem, setup, state).detach())
        if len(history) > solver.patience:
            before = torch.minimum(before, history[-solver.patience - 1])
        codes = torch.where(codes == Code.RUNNING, _update(solver.done(problem, setup, state), history), codes)
        if steps % every == 0 or steps == solver.max_steps:
            if steps >= solver.patience:
                codes = torch.where(
                    (codes == Code.RUNNING) & _stagnant(history[-solver.patience :], before),
                    torch.full_like(codes, Code.STAGNATED),
                    codes,
                )
            finished = bool((codes != Code.RUNNING).all())
            mixed = not finished and bool((codes != Code.RUNNING).any())
            if context.progress is not None:
                context.progress(steps, solver.max_steps, float(history[-1].max()))
    codes = torch.where(codes == Code.RUNNING, torch.full_like(codes, Code.BUDGET), codes)
    answer = solver.answer(problem, setup, state)
    return dataclasses.replace(answer, claim=codes, steps=steps, history=torch.stack(history))


def _step(solver: Iterative, problem: Problem, setup: Any, state: Any, context: Context) -> Any:
    if context.checkpoint is None or not torch.is_grad_enabled():
        return solver.step(problem, setup, state)
    from torch.utils.checkpoint import checkpoint

    names = [f.name for f in dataclasses.fields(state) if isinstance(getattr(state, f.name), Tensor)]

    def advance(*tensors: Tensor) -> Any:
        current = dataclasses.replace(state, **dict(zip(names, tensors, strict=True)))
        return solver.step(problem, setup, current)

    return checkpoint(advance, *(getattr(state, name) for name in names), use_reentrant=False)


def _update(codes: Tensor, history: list[Tensor]) -> Tensor:
    """A monitored number that is not finite means DIVERGED, whatever the solver says."""
    return torch.where(torch.isfinite(history[-1]), codes, torch.full_like(codes, Code.DIVERGED))


def _stagnant(recent: list[Tensor], before: Tensor) -> Tensor:
    """No member-wise improvement on the best value ``before`` by at least one part in a thousand in the recent steps."""
    return torch.stack(recent).amin(0) > 0.999 * before


def cuts(problem: Evolution, step: float) -> list[tuple[float, float, int]]:
    """The intervals between wanted times ``(begin, length of a step, number of steps)``, cut to equal steps of at most ``step``."""
    nodes = (problem.begin, *problem.times)
    counts = [max(1, math.ceil((b - a) / step * (1 - 1e-12))) if b > a else 0 for a, b in pairwise(nodes)]
    return [
        (a, (b - a) / count if count else 0.0, count) for (a, b), count in zip(pairwise(nodes), counts, strict=True)
    ]


def march(
    problem: Evolution,
    step: float,
    advance: Callable[[float, float, Tensor], Tensor],
    begin: Tensor,
    physical: Callable[[Tensor], Tensor],
    context: Context,
) -> Answer:
    """Fixed time steps from ``problem.begin`` through ``problem.times``, keeping the stretches that the referee wants to see.

    Each interval between wanted times is cut into equal steps of at most ``step``. ``advance(t, dt, state)`` returns the
    next state; ``physical`` turns a state into a field. A member that is no longer finite is DIVERGED.

    All steps make up at most ``STRETCHES`` stretches of equally many steps, some of which are kept: the errors of single
    steps in fast modes die out within a stretch, as they do in the answer, or grow, as they do there.
    """
    intervals = cuts(problem, step)
    total = sum(count for _, _, count in intervals)
    length = max(1, math.ceil(total / STRETCHES))
    stretches = math.ceil(total / length)
    ends = [(i * length, min((i + 1) * length, total)) for i in sorted(context.kept(stretches))]
    at = 0
    for (_, _, count), time in zip(intervals, problem.times, strict=True):
        at += count
        if at and time in problem.watched:  # kept so that the answer at this time is tied to judged steps
            ends.append(((at - 1) // length * length, at))
    ends = sorted(set(ends))
    watched, seen = sorted({i for pair in ends for i in pair}), {}
    every = context.checkpoint if torch.is_grad_enabled() else None
    state, index, outputs = begin, 0, []
    if 0 in watched:
        seen[0] = (problem.begin, physical(state).detach())
    for a, dt, count in intervals:
        done = 0
        while done < count:
            following = next((i for i in watched if i > index), total)
            chunk = min(count - done, every or 1, following - index)

            def leap(current: Tensor, first: int = done, many: int = chunk, dt: float = dt, a: float = a) -> Tensor:
                for j in range(first, first + many):
                    current = advance(a + j * dt, dt, current)
                return current

            if every:
                from torch.utils.checkpoint import checkpoint

                state = checkpoint(leap, state, use_reentrant=False)
            else:
                state = leap(state)
            index, done = index + chunk, done + chunk
            if index == following and index in watched:
                seen[index] = (a + done * dt, physical(state).detach())
            if context.progress is not None and index % 50 == 0:
                context.progress(index, total, a + done * dt)
        outputs.append(physical(state))
    segments = tuple(Segment(seen[i][0], seen[j][0], seen[i][1], seen[j][1]) for i, j in ends)
    value = torch.stack(outputs, 1)
    value = value.expand(problem.batch, *value.shape[1:])
    finite = torch.isfinite(value.detach()).flatten(1).all(1)
    codes = torch.where(finite, int(Code.CONVERGED), int(Code.DIVERGED))
    return Answer(value, codes, steps=total, segments=segments, step_count=stretches)
