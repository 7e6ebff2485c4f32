"""The verb: ask a solver, let the problem judge, attach the gradient."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from typing_extensions import TypeVar

from sciml.core.gradients import Checkpoint, Detach, Gradient, Implicit, Unroll, implicit_value
from sciml.core.inverse import Inverse
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code, Solution, SolveError, decide
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.solving.advise import who_accepts

__all__ = ["solve"]

K = TypeVar("K", bound=Problem)
Progress = Callable[[int, int, float], None]


def solve(
    problem: K,
    solver: Solver[K] | None = None,
    *,
    start: Tensor | None = None,
    gradient: Gradient | None = None,
    strict: bool = False,
    progress: Progress | bool | None = None,
) -> Solution:
    """Solve ``problem`` with ``solver`` (None: the one its catalogue file recommends) and let the problem judge.

    ``start`` is a first guess of the answer's shape. ``gradient`` says how derivatives pass (None: the solver's own way);
    they are attached when a tensor of the problem requires them. ``progress`` is True for a bar, or a function of
    (step, steps in all, monitored number).

    Returns a Solution whose codes are decided by the problem's certificate alone. Warns once when some member is not
    CONVERGED. Raises InputError for a problem or solver that cannot be used, SolveError (carrying the Solution) when no
    member survived (all broke down, diverged or were bad input), or for any miss under ``strict=True``.
    """
    if not isinstance(problem, Problem):
        raise InputError(
            f"solve takes a problem, not {type(problem).__name__}; load one with sciml.problem(...) or build a Linear, Equation, Evolution or Inverse"
        )
    solver = _choose(problem, solver)
    problem.validate()
    reason = solver.accepts(problem)
    if reason is not None:
        raise InputError(
            f"{type(solver).__name__} cannot be asked to solve {problem.name!r}: {reason}. Solvers that accept it: {who_accepts(problem, but=solver)}."
        )
    if start is not None:
        start = _checked_start(problem, start)
    way = solver.gradient if gradient is None else gradient
    names = tuple(name for name, tensor in problem.parameters().items() if tensor.requires_grad)
    tracked = torch.is_grad_enabled() and bool(names)
    if tracked and isinstance(way, Implicit) and not hasattr(problem, "residual"):
        raise InputError(
            f"{problem.name!r} states no residual, so a gradient cannot be implicit; use Unroll() or Checkpoint(every)"
        )
    clock = time.perf_counter()
    with _bar(progress, type(solver).__name__) as report:
        context = Context(
            solve=solve,
            progress=report,
            checkpoint=way.every if isinstance(way, Checkpoint) else None,
            seed=_seed(problem),
        )
        if tracked and isinstance(way, Unroll | Checkpoint):
            answer = _run(problem, solver, start, context)
        else:
            with torch.no_grad():
                answer = _run(problem, solver, start, context)
    value = problem.gauge(answer.value)
    answer = dataclasses.replace(answer, value=value)
    seconds = time.perf_counter() - clock
    with torch.no_grad():
        checks = problem.certify(answer)
        codes = decide(answer.claim, checks)
    record: list[Solution] = []
    if tracked and isinstance(way, Implicit):
        if (codes != Code.CONVERGED).any():
            warnings.warn(
                f"the gradient of {problem.name!r} is taken at an answer that is not certified ({Code(int(codes.max())).name})",
                stacklevel=2,
            )
        value = _attach(problem, solver, way, answer, codes, names, record)
    elif not tracked or isinstance(way, Detach):
        value = value.detach()
    solution = Solution(
        value=value,
        codes=codes,
        checks=checks,
        problem=problem,
        solver=solver,
        stats={"seconds": seconds, "steps": answer.steps, **answer.counts},
        history=answer.history,
        samples=answer.samples,
        field=answer.field,
        sentence=answer.sentence,
        citations=solver.citations,
        backward=record,
        weight=problem.weights(answer) if isinstance(problem, Inverse) else None,
        dual=None if answer.dual is None else {name: part.detach() for name, part in answer.dual.items()},
    )
    _speak(solution, answer, strict)
    return solution


def _choose(problem: Problem, solver: Solver | None) -> Solver:
    if solver is None:
        if problem.recommend is None:
            raise InputError(
                f"{problem.name!r} was built by hand and recommends no solver; pass one. Solvers that accept it: {who_accepts(problem)}."
            )
        solver = problem.recommend(problem)
    if not isinstance(solver, Solver):
        hint = f"; write {solver.__name__}()" if isinstance(solver, type) else ""
        raise InputError(f"a solver is an object such as ConjugateGradient(), not {solver!r}{hint}")
    return solver


def _checked_start(problem: Problem, start: Tensor) -> Tensor:
    shape = problem.space.shape
    if start.shape[-len(shape) :] != torch.Size(shape):
        raise InputError(
            f"{problem.name!r}: start has shape {tuple(start.shape)}; the answer has (batch, {', '.join(map(str, shape))})"
        )
    if start.ndim > len(shape) and start.shape[0] not in (1, problem.batch):
        raise InputError(f"{problem.name!r}: start has {start.shape[0]} members, the problem {problem.batch}")
    if not torch.isfinite(start).all():
        raise InputError(f"{problem.name!r}: start has values that are not finite")
    return (
        start.to(problem.space.device, problem.space.dtype).expand(problem.batch, *start.shape[-len(shape) :])
        if start.ndim <= len(shape) + 1
        else start
    )


def _seed(problem: Problem) -> int:
    seed = (problem.recipe.settings.get("seed", 0) if problem.recipe is not None else 0) or 0
    return int(seed) if isinstance(seed, int | float) else 0


def _run(problem: Problem, solver: Solver, start: Tensor | None, context: Context) -> Answer:
    if isinstance(problem, Inverse):
        problem = problem.blind()
    if solver.batched or problem.batch == 1:
        return solver.run(problem, start, context)
    answers = [
        solver.run(problem.member(i), None if start is None else start[i : i + 1], context)
        for i in range(problem.batch)
    ]
    longest = max(a.steps for a in answers)
    return dataclasses.replace(
        answers[0],
        value=torch.cat([a.value for a in answers]),
        claim=torch.cat([a.claim for a in answers]),
        steps=longest,
        history=None,
        sentence=next((a.sentence for a in answers if a.sentence), ""),
        counts={key: sum(a.counts.get(key, 0.0) for a in answers) for key in answers[0].counts},
        segments=(),
        posed=_joined([a.posed for a in answers]),
        dual=None
        if answers[0].dual is None
        else {k: torch.cat([(a.dual or {})[k] for a in answers]) for k in answers[0].dual},
        samples=None
        if answers[0].samples is None
        else torch.cat([a.samples for a in answers if a.samples is not None], 1),
    )


def _joined(weights: list[Any]) -> Tensor | None:
    """The weights that were chosen member by member, ``(batch,)``."""
    if any(weight is None for weight in weights):
        return None
    return torch.cat([torch.as_tensor(weight).reshape(-1) for weight in weights])


def _attach(
    problem: Problem,
    solver: Solver,
    way: Implicit,
    answer: Answer,
    codes: Tensor,
    names: tuple[str, ...],
    record: list[Solution],
) -> Tensor:
    known = problem.parameters()
    backward = way.solver or solver.transposed()

    def transposed(adjoint: Any) -> Solution:
        reason = backward.accepts(adjoint)
        if reason is not None:
            raise InputError(
                f"the gradient needs the transposed problem of {problem.name!r}, which {type(backward).__name__} does not take: {reason}; pass gradient=Implicit(another solver)"
            )
        return solve(adjoint, backward, gradient=Implicit(backward))

    bare: Problem = dataclasses.replace(problem, recipe=None)  # type: ignore[type-var]
    fixed = bare.replace(**{name: known[name].detach() for name in names})
    parameters = tuple(known[name] for name in names)
    return implicit_value(answer.value.detach(), codes < Code.BREAKDOWN, fixed, names, parameters, transposed, record)


def _speak(solution: Solution, answer: Answer, strict: bool) -> None:
    codes, problem = solution.codes, solution.problem
    if solution.ok:
        return
    worst = solution.code
    sentence = problem.explain(worst, answer)
    head = f"{type(solution.solver).__name__} on {problem.name!r}: {sentence}"
    if bool((codes >= Code.BREAKDOWN).all()) or strict:
        raise SolveError(f"{head}.\n  Solvers that accept it: {who_accepts(problem, but=solution.solver)}.", solution)
    missed = int((codes != Code.CONVERGED).sum())
    warnings.warn(
        f"{worst.name}: {head}; {missed} of {len(codes)} members are not certified ({', '.join(map(str, solution.checks))})",
        stacklevel=3,
    )


class _bar:
    """A rich progress bar for ``progress=True``; passes a function through; nothing for None or False."""

    def __init__(self, progress: Progress | bool | None, name: str) -> None:
        self.progress, self.name = progress, name
        self.display: Any = None

    def __enter__(self) -> Progress | None:
        if not isinstance(self.progress, bool) or not self.progress:
            return self.progress or None
        from rich.progress import Progress as Display

        self.display = Display(transient=True)
        self.display.start()
        task = self.display.add_task(self.name, total=None)

        def report(step: int, total: int, value: float) -> None:
            self.display.update(task, completed=step, total=total, description=f"{self.name} {value:.1e}")

        return report

    def __exit__(self, *_: object) -> None:
        if self.display is not None:
            self.display.stop()
