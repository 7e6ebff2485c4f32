"""Every solver that accepts a problem, on the same members: accuracy against cost."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml.core.bench import Bench, Row
from sciml.core.evolution import Evolution
from sciml.core.problem import Problem
from sciml.core.recipe import digest
from sciml.core.solution import Answer, Code, decide
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.files.checkpoint import load_json, save_json
from sciml.metrics import relative_l2
from sciml.solving.bench_contenders import Contender, Given, contenders, label, parts
from sciml.solving.bench_measure import Calls, Late, Memory, Stopwatch, limited
from sciml.solving.solve import _run, _seed, solve

__all__ = ["bench"]

FILE = "bench.json"
Progress = Callable[[int, int, str], None]


def bench(
    problem: Problem,
    solvers: Sequence[Given] | Mapping[str, Given] | None = None,
    *,
    weights: Sequence[str] | None = None,
    reference: Tensor | None = None,
    repeats: int = 5,
    seconds: float = 60.0,
    threads: int | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | bool | None = None,
) -> Bench:
    r"""Run every solver that accepts ``problem`` on its members; return errors, certificates and costs side by side.

    ``solvers`` are given by hand (a sequence, or a mapping from names; for an inverse problem also pairs of a solver and a prior, None for no prior,
    or the name of weights), or None: the recommended one first, then all others that
    accept, with default settings, then shipped weights: networks alone and before the recommended solver, learned priors under every solver that takes them. ``weights`` names other
    weights (shipped, or folders of your own runs); ``()`` leaves them out. Where the weight of a prior is open, solvers that need one
    are put inside ``Discrepancy``.

    *Error*: relative L2 :math:`\|u_i - r_i\| / \|r_i\|` per member over all entries of the answer, against ``reference`` if it is given, else the
    problem's ``exact`` or ``truth``, else for an evolution its referee at a hundredth of the target, else the recommended solver in double
    precision at a hundredth of the target. ``facts["reference"]`` says which. A known exact solution of the differential equation
    also shows the error of the grid, which no solver of the discrete problem can go below.

    *Cost*: solvers run one after the other in this process, in the order of the rows, with one number of torch ``threads``. ``cold`` is the first run
    of a solver; what it shares with rows above (named in the row) was warm. Then up to ``repeats`` runs more, ``warm``. Neither includes
    the certificate. One more run, not timed, counts calls and memory. ``seconds`` limits each solver: its cold run, and then its certificate; repeats stop
    before they would exceed it. The limit is kept by a signal in the main thread, elsewhere where the solver reports progress.

    A solver that raises or runs out of time is a row with its sentence. With ``out``, a folder, ``bench.json`` in it is written after
    each row; the same call goes on from there, and reads a finished bench. ``progress`` is True for a bar, or a function of (done, all, words).

    Raises InputError for a problem that cannot be used, an empty list of solvers, solvers that all refuse, settings without
    sense, and an ``out`` that holds another bench.
    """
    _sensible(problem, solvers, repeats, seconds, threads)
    problem.validate()
    if reference is not None and reference.shape[1:] != _shape(problem):
        raise InputError(
            f"the reference has shape {tuple(reference.shape)}; answers of {problem.name!r} have (batch, {', '.join(map(str, _shape(problem)))})"
        )
    field, refused = contenders(problem, solvers, weights)
    if not field:
        why = "; ".join(f"{one.name}: {one.reason}" for one in refused[:4])
        raise InputError(f"no solver accepts {problem.name!r} ({why}); give one that does in solvers=[...]")
    head = _head(problem, field, reference, repeats, seconds, threads or torch.get_num_threads())
    path = None if out is None else Path(out) / FILE
    known = _resume(path, head)
    rows, session = list(known.rows), int(known.facts.get("sessions", 0)) + 1
    facts = {**head, **_machine(problem.space.device), "sessions": session, "date": known.facts.get("date", _today())}
    left = [one for one in field if one.name not in {row.name for row in rows}]
    if not left:
        return Bench(_ordered(rows, field), tuple(refused), {**known.facts})
    target = _Reference(problem, reference, seconds, field)
    met: set[str] = set()
    with _threads(threads), _bar(progress) as report:
        for one in left:
            report(len(rows), len(field), one.name)
            row, answer = _measure(one, repeats, seconds, session, met)
            met.update(parts(one.solver))
            if answer is not None:
                row = dataclasses.replace(row, error=target.error(answer))
                met.update(target.used)
            rows.append(row)
            facts["reference"] = target.sentence or known.facts.get("reference", "nothing yet")
            made = Bench(_ordered(rows, field), tuple(refused), facts)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                save_json(path, made.to_json())
            report(len(rows), len(field), f"{row.name}: {row.outcome}")
    return made


def _sensible(problem: Any, solvers: Any, repeats: int, seconds: float, threads: int | None) -> None:
    if not isinstance(problem, Problem):
        raise InputError(f"bench takes a problem, not {type(problem).__name__}; load one with sciml.problem(...)")
    if isinstance(solvers, Solver):
        raise InputError(f"bench takes a list of solvers; write [{type(solvers).__name__}(...)]")
    if solvers is not None and not len(solvers):
        raise InputError("the list of solvers is empty; give at least one, or None for every solver that accepts")
    if repeats < 0 or not seconds > 0 or (threads is not None and threads < 1):
        raise InputError(
            f"bench(repeats={repeats}, seconds={seconds}, threads={threads}): repeats may be zero, the others are positive"
        )


def _shape(problem: Problem) -> tuple[int, ...]:
    """Of one member's answer."""
    shape = tuple(int(m) for m in problem.space.shape)
    return (len(problem.times), *shape) if isinstance(problem, Evolution) else shape


def _measure(one: Contender, repeats: int, seconds: float, session: int, met: set[str]) -> tuple[Row, Answer | None]:
    """The row without its error, and the answer of the cold run."""
    device = one.problem.space.device
    row = Row(
        one.name, _settings(one.solver), "RAISED", met=tuple(dict.fromkeys(p for p in parts(one.solver) if p in met)),
        training=one.training, warnings=one.warnings, session=session,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as heard, torch.no_grad():
        warnings.simplefilter("always")
        memory = Memory(device)
        seen: list[str] = []
        try:
            with limited(seconds) as look:
                watch = Stopwatch(device)
                answer = _once(one, look, seen)
                cold = watch.read()
        except Late:
            words = f"not done after {seconds:g} s" + (f" ({seen[-1]})" if seen else "")
            return dataclasses.replace(row, outcome="TIME LIMIT", sentence=words), None
        except Exception as error:  # a row with its sentence, not the end of the bench
            return dataclasses.replace(row, sentence=_words(error)), None
        row = dataclasses.replace(row, cold=cold, memory=memory.peak(), steps=answer.steps, counts=dict(answer.counts))
        try:
            with limited(seconds):
                checks = one.problem.certify(answer)
        except Late:
            return dataclasses.replace(
                row, outcome="TIME LIMIT", sentence=f"the certificate was not done after {seconds:g} s"
            ), answer
        except Exception as error:
            return dataclasses.replace(row, sentence=f"the certificate: {_words(error)}"), None
        codes = decide(answer.claim, checks)
        worst = Code(int(codes.max()))
        sentence = "" if worst is Code.CONVERGED else one.problem.explain(worst, answer)
        row = dataclasses.replace(
            row, outcome=worst.name, codes=tuple(Code(int(code)).name for code in codes), sentence=sentence,
            checks=tuple({"name": c.name, "value": _finite(c.value), "target": c.target} for c in checks),
        )  # fmt: skip
        row = _again(one, row, repeats, seconds)
    told = tuple(dict.fromkeys((*row.warnings, *(_first(str(item.message)) for item in heard))))
    return dataclasses.replace(row, warnings=told), answer


def _again(one: Contender, row: Row, repeats: int, seconds: float) -> Row:
    """Warm runs, and one that is looked at from outside, as far as the time goes."""
    device = one.problem.space.device
    spent = last = row.cold[0] if row.cold else 0.0
    warm: list[tuple[float, float]] = []
    try:
        with limited(seconds) as look:
            for _ in range(repeats):
                if spent + last > seconds:
                    break
                watch = Stopwatch(device)
                _once(one, look)
                warm.append(watch.read())
                last = warm[-1][0]
                spent += last
            if spent + last <= seconds:
                memory = Memory(device)
                with Calls(one.problem) as calls:
                    _once(one, look)
                return dataclasses.replace(row, warm=tuple(warm), memory=memory.peak(), calls=calls.counts)
    except Late:
        pass
    except Exception as error:
        return dataclasses.replace(row, warm=tuple(warm), outcome="RAISED", sentence=f"in a later run: {_words(error)}")
    return dataclasses.replace(row, warm=tuple(warm))


def _once(one: Contender, look: Callable[[], None], seen: list[str] | None = None) -> Answer:
    """What ``solve`` does between asking the solver and judging the answer; ``seen`` is told how far it is."""

    def progress(step: int, total: int, value: float) -> None:
        look()
        if seen is not None:
            seen[:] = [f"step {step} of {total}, monitored {value:.1e}"]

    context = Context(solve=solve, progress=progress, seed=_seed(one.problem))
    answer = _run(one.problem, one.solver, None, context)
    return dataclasses.replace(answer, value=one.problem.gauge(answer.value))


class _Reference:
    """What errors are measured against; a reference that must be computed is computed when the first answer is there."""

    def __init__(self, problem: Problem, given: Tensor | None, seconds: float, field: list[Contender]) -> None:
        self.problem, self.seconds, self.field = problem, seconds, field
        self.used: set[str] = set()
        exact = getattr(problem, "exact", None)
        truth = getattr(problem, "truth", None)
        self.value: Tensor | None = next((value for value in (given, exact, truth) if value is not None), None)
        self.sentence = (
            "the reference given" if given is not None
            else "the exact solution" if exact is not None
            else "the truth" if truth is not None else ""
        )  # fmt: skip

    def error(self, answer: Answer) -> tuple[float | None, ...]:
        """Per member; empty where there is no reference."""
        if not self.sentence:
            self._compute()
        if self.value is None:
            return ()
        found = answer.value.detach()
        wanted = self.problem.gauge(self.value.detach().to(found.device))
        return tuple(_finite(relative_l2(found, wanted.expand(found.shape))))

    def _compute(self) -> None:
        try:
            with warnings.catch_warnings(), torch.no_grad(), limited(self.seconds):
                warnings.simplefilter("ignore")
                self.value, self.sentence = self._solved()
        except Late:
            self.sentence = f"nothing: a reference was not computed within {self.seconds:g} s"
        except Exception as error:
            self.sentence = f"nothing: a reference could not be computed ({_words(error)})"

    def _solved(self) -> tuple[Tensor | None, str]:
        high: Any = self.problem.to(torch.float64)
        if isinstance(high, Evolution) and high.referee is not None:
            self.used = {type(high.referee).__name__}
            state, at, states = high.start.expand(high.batch, *high.space.shape), high.begin, []
            for time in high.times:
                tolerance = 0.01 * high.targets["steps"] * (time - at) / (high.times[-1] - high.begin or 1.0)
                state = high.referee.advance(high, at, state, time, tolerance) if time > at else state
                states.append(state)
                at = time
            return torch.stack(states, 1), f"the problem's referee {type(high.referee).__name__} at 1e-2 of the target"
        if hasattr(high, "forward"):
            return None, "nothing: the truth is not known"
        best = high.recommend(high) if high.recommend is not None else None
        tried = ([] if best is None else [best]) + [one.solver for one in self.field if not one.training]
        for share in (1e-2, 1e-1, 1.0):
            goals = {name: max(share * target, 1e-14) for name, target in high.targets.items()}
            for solver in tried:
                solution = solve(high.with_target(**goals), solver)
                self.used.update(parts(solver))
                if solution.ok:
                    return solution.value, f"{label(solver)} in double precision at {share:.0e} of the target"
        return None, "nothing: no solver reached the target"


def _head(
    problem: Problem, field: list[Contender], reference: Tensor | None, repeats: int, seconds: float, threads: int
) -> dict[str, Any]:
    """What must be the same for a bench to go on."""
    posed = [_mark(one.problem.parameters()) for one in field if one.problem is not problem]
    goals = json.dumps([dict(problem.targets), posed], sort_keys=True)
    recipe = problem.recipe
    return {
        "problem": problem.name, "members": problem.batch, "shape": list(problem.space.shape),
        "dtype": str(problem.space.dtype).removeprefix("torch."), "device": str(problem.space.device),
        "digest": _mark(problem.parameters(), goals), "recipe": None if recipe is None else json.loads(recipe.to_json()),
        "solvers": [one.name for one in field], "settings": [_settings(one.solver) for one in field], "given": None if reference is None else digest(reference)[:16],
        "repeats": repeats, "seconds": float(seconds), "threads": threads,
    }  # fmt: skip


def _resume(path: Path | None, head: dict[str, Any]) -> Bench:
    if path is None or not path.exists():
        return Bench((), (), {})
    known = Bench.from_json(load_json(path), str(path))
    for name, value in head.items():
        before = known.facts.get(name)
        if name != "recipe" and before != value:
            if isinstance(value, list) and isinstance(before, list) and len(value) == len(before):
                before, value = next(pair for pair in zip(before, value, strict=True) if pair[0] != pair[1])
            raise InputError(f"'{path}' holds a bench with {name} {before}, and now it is {value}; give another folder")
    return known


def _ordered(rows: list[Row], field: list[Contender]) -> tuple[Row, ...]:
    place = {one.name: i for i, one in enumerate(field)}
    return tuple(sorted(rows, key=lambda row: place.get(row.name, len(place))))


def _machine(device: torch.device) -> dict[str, Any]:
    """Where it was measured, and how busy that was."""
    busy = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "processor": _processor(device), "cores": os.cpu_count(), "load before": busy, "python": platform.python_version(),
        "torch": torch.__version__,
    }  # fmt: skip


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}; {platform.machine()}"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")


def _settings(solver: Any) -> str:
    """The settings that are numbers, words, solvers or networks."""
    if not dataclasses.is_dataclass(solver):
        return type(solver).__name__
    told = []
    for part in dataclasses.fields(solver):
        value = getattr(solver, part.name)
        if value is None or isinstance(value, int | float | str | bool | tuple):
            told.append(f"{part.name}={value}")
        elif isinstance(value, Solver):
            told.append(f"{part.name}={_settings(value)}")
        else:
            module = value if isinstance(value, torch.nn.Module) else getattr(value, "network", None)
            if isinstance(module, torch.nn.Module):
                told.append(f"{part.name}={type(module).__name__} {_mark(module.state_dict())}")
    return f"{type(solver).__name__}({', '.join(told)})"


def _mark(tensors: Mapping[str, Tensor], words: str = "") -> str:
    """Sixteen digits that stand for named tensors."""
    mark = hashlib.sha256(words.encode())
    for name, tensor in sorted(tensors.items()):
        mark.update(f"{name} {digest(tensor)}".encode())
    return mark.hexdigest()[:16]


def _words(error: BaseException) -> str:
    words = _first(str(error)) or "no words"
    return words if isinstance(error, InputError) else f"{type(error).__name__}: {words}"


def _first(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _finite(values: Tensor) -> list[float | None]:
    return [value if abs(value) < float("inf") else None for value in values.detach().double().reshape(-1).tolist()]


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _bar(progress: Progress | bool | None) -> Iterator[Progress]:
    """A rich bar for True; a function passes through."""
    if progress is not True:
        yield progress or (lambda done, total, words: None)
        return
    from rich.progress import Progress as Display

    with Display(transient=True) as display:
        task = display.add_task("bench", total=None)
        yield lambda done, total, words: display.update(task, completed=done, total=total, description=words)
