"""Who takes part in a bench: solvers given by hand, every classical one that accepts, shipped weights as solvers or priors."""

from __future__ import annotations

import dataclasses
import inspect
import tomllib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sciml.core.bench import Refusal
from sciml.core.inverse import Inverse
from sciml.core.prior import Prior
from sciml.core.problem import Problem
from sciml.core.solver import Solver
from sciml.domains.errors import InputError
from sciml.solving.advise import solvers

__all__ = ["Contender", "Given", "contenders", "label", "parts"]

Given = Solver[Any] | tuple[Solver[Any], Any]


@dataclass(frozen=True)
class Contender:
    """A solver, the problem as it is posed for it (with the prior that belongs to it), and what its weights cost."""

    name: str
    solver: Solver[Any]
    problem: Problem
    training: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def contenders(
    problem: Problem, given: Sequence[Given] | Mapping[str, Given] | None, weights: Sequence[str] | None
) -> tuple[list[Contender], list[Refusal]]:
    """Those who are asked, in their order, and those who are not, with the reason.

    ``given`` None: the recommended solver, and every other that accepts with default settings. For an inverse problem
    whose weight is open, solvers that need one are put inside ``Discrepancy``. ``weights`` None: all that are shipped if ``given`` is None, otherwise none.
    """
    field_: list[Contender] = []
    refused: list[Refusal] = []
    if given is None:
        _classical(problem, None, field_, refused)
    else:
        named = given.items() if isinstance(given, Mapping) else [(None, one) for one in given]
        for name, one in named:
            _by_hand(problem, name, one, field_, refused)
    for name in _shipped() if weights is None and given is None else weights or ():
        _learned(problem, str(name), field_, refused)
    return _distinct(field_), refused


def _by_hand(problem: Problem, name: str | None, one: Any, field_: list[Contender], refused: list[Refusal]) -> None:
    """A solver, or one with the prior (or name of weights, or None for no prior) that it is to have."""
    paired = isinstance(one, tuple) and len(one) == 2
    solver, prior = one if paired else (one, None)
    if not isinstance(solver, Solver):
        hint = f"; write {solver.__name__}()" if isinstance(solver, type) else ""
        raise InputError(f"bench takes solvers such as ConjugateGradient(), not {solver!r}{hint}")
    posed: Problem | str = problem
    told: tuple[str, ...] = ()
    if not paired:
        title, training = name or label(solver), _history(solver)
    else:
        called = "no prior" if prior is None else type(prior).__name__
        held, training, called = _weights(prior) if isinstance(prior, str) else (prior, _history(prior), called)
        title = name or f"{label(solver)}, {called}"
        posed, told = _posed(problem, held)
    if isinstance(posed, str):
        refused.append(Refusal(title, posed))
        return
    reason = _asked(solver, posed)
    if reason is not None and (weighed := _weighed(solver, posed)) is not None:
        title = title if name else title.replace(label(solver), label(weighed), 1)
        reason, solver = None, weighed
    if reason is None:
        field_.append(Contender(title, solver, posed, training, told))
    else:
        refused.append(Refusal(title, reason))


def _weighed(solver: Solver[Any], problem: Problem) -> Solver[Any] | None:
    """The solver inside ``Discrepancy``, where that is all that it lacks: a weight of the prior."""
    if not isinstance(problem, Inverse) or problem.prior is None or problem.weight is not None:
        return None
    wrapped: Any = {kind.__name__: kind for kind in solvers()}.get("Discrepancy")
    if wrapped is None or isinstance(solver, wrapped):
        return None
    found: Solver[Any] = wrapped(solver)
    return found if _asked(found, problem) is None else None


def _posed(problem: Problem, prior: Any) -> tuple[Problem | str, tuple[str, ...]]:
    """The problem with that prior, or the reason why not; and what was warned of."""
    if not isinstance(problem, Inverse):
        return f"it is a prior, and {problem.name!r} is no inverse problem", ()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            posed = problem.with_prior(prior)
        except InputError as error:
            return _line(error), ()
    return posed, tuple(dict.fromkeys(_line(Warning(str(one.message))) for one in heard))


def _weights(name: str) -> tuple[Any, dict[str, Any], str]:
    """Weights by name or folder, what they cost, and what to call them."""
    from sciml.catalogue import pretrained

    held = pretrained(name)
    return held, _manifest(name) or _history(held), Path(name).name


def label(solver: Any, names: Mapping[int, str] | None = None) -> str:
    """The solver with those inside it, its weights, and what was set by hand: ``ConjugateGradient(Multigrid, max_steps=40)``."""
    kind = type(solver).__name__
    if not dataclasses.is_dataclass(solver):
        return kind
    inside, set_ = [], []
    for part in dataclasses.fields(solver):
        value = getattr(solver, part.name)
        if names and id(value) in names:
            inside.append(names[id(value)])
        elif hasattr(value, "signature") and hasattr(value, "network"):
            inside.append(type(value.network).__name__)
        elif isinstance(value, Problem):
            continue
        elif isinstance(value, Solver) or dataclasses.is_dataclass(value) and _holds_solver(value):
            inside.append(label(value, names))
        elif isinstance(value, int | float | str | bool | tuple) and value != part.default:
            if part.default_factory is dataclasses.MISSING or value != part.default_factory():
                set_.append(f"{part.name}={value}")
    words = ", ".join([*inside, *set_])
    return f"{kind}({words})" if words else kind


def parts(solver: Any) -> Iterator[str]:
    """Names of the class of a solver and of those inside it."""
    yield type(solver).__name__
    if dataclasses.is_dataclass(solver):
        for part in dataclasses.fields(solver):
            value = getattr(solver, part.name)
            if isinstance(value, Solver) or dataclasses.is_dataclass(value) and _holds_solver(value):
                yield from parts(value)


def _holds_solver(value: Any) -> bool:
    return not isinstance(value, type | Problem) and any(
        isinstance(getattr(value, part.name), Solver) for part in dataclasses.fields(value)
    )


def _asked(solver: Any, problem: Problem) -> str | None:
    """The reason of ``accepts``, as a sentence whatever happens."""
    try:
        reason: str | None = solver.accepts(problem)
    except Exception as error:  # one solver's fault is not the end of the bench
        return f"accepts() raised {type(error).__name__}: {_line(error)}"
    return reason


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no words")


def _needed(kind: Any) -> list[str]:
    """Arguments without a default."""
    found = inspect.signature(kind).parameters.values()
    return [p.name for p in found if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _classical(
    problem: Problem,
    prior: str | None,
    field_: list[Contender],
    refused: list[Refusal],
    **also: Any,
) -> None:
    """The recommended solver and every class with default settings; with the name of a prior, only those who need one."""
    kinds = {kind.__name__: kind for kind in solvers()}
    tail = "" if prior is None else f", {prior}"
    seen = set()
    if problem.recommend is not None:
        try:
            best = problem.recommend(problem)
        except InputError as error:
            refused.append(Refusal(f"the recommended solver{tail}", _line(error)))
        else:
            reason = _asked(best, problem)
            seen.add(label(best))
            if reason is None:
                field_.append(Contender(label(best) + tail, best, problem, **also))
            else:
                refused.append(Refusal(label(best) + tail, reason))
    for name, kind in kinds.items():
        needed = _needed(kind)
        if needed:
            if prior is None and needed not in (["fit"], ["inner"], ["first", "second"]):
                refused.append(Refusal(name, f"it needs {' and '.join(needed)}; give it by hand"))
            continue
        plain = kind()
        if prior is not None and _asked(plain, problem.with_prior(None)) is None:  # type: ignore[attr-defined]
            continue  # it does without a prior
        reason, solver = _asked(plain, problem), plain
        if reason is not None and (weighed := _weighed(plain, problem)) is not None:
            reason, solver = None, weighed
        if label(solver) in seen:
            continue
        seen.add(label(solver))
        if reason is None:
            field_.append(Contender(label(solver) + tail, solver, problem, **also))
        elif prior is None:
            refused.append(Refusal(label(solver), reason))


def _shipped() -> list[str]:
    from sciml.catalogue import folder

    return sorted(path.parent.name for path in (folder("data") / "pretrained").glob("*/checkpoint.safetensors"))


def _learned(problem: Problem, name: str, field_: list[Contender], refused: list[Refusal]) -> None:
    """Weights by name or folder: a fit as a solver and as the start of the recommended one, or a prior under every solver."""
    held, training, name = _weights(name)
    if isinstance(held, Prior):
        _with_prior(problem, name, held, training, field_, refused)
        return
    kinds = {kind.__name__: kind for kind in solvers()}
    kind = kinds["Rollout" if held.signature.history else "Trained"]
    network = kind(held)  # type: ignore[call-arg]
    names = {id(held): name}
    reason = _asked(network, problem)
    if reason is not None:
        refused.append(Refusal(label(network, names), reason))
        return
    field_.append(Contender(label(network, names), network, problem, training))
    if problem.recommend is not None and not hasattr(problem, "times"):  # integrators do not start from a guess
        chain = kinds["Chained"](network, problem.recommend(problem))  # type: ignore[call-arg]
        if _asked(chain, problem) is None:
            field_.append(Contender(label(chain, names), chain, problem, training))


def _with_prior(
    problem: Problem,
    name: str,
    prior: Any,
    training: Mapping[str, Any],
    field_: list[Contender],
    refused: list[Refusal],
) -> None:
    posed, told = _posed(problem, prior)
    if isinstance(posed, str):
        refused.append(Refusal(name, posed))
        return
    own = getattr(prior, "solver", None)
    if callable(own):  # weights that belong to one solver
        solver = own()
        reason = _asked(solver, posed)
        if reason is None:
            field_.append(Contender(name, solver, posed, training, told))
        else:
            refused.append(Refusal(name, reason))
        return
    before, missed = len(field_), len(refused)
    _classical(posed, name, field_, refused, training=training, warnings=told)
    if len(field_) == before and len(refused) == missed:
        refused.append(Refusal(name, "no solver takes this prior on this problem"))


def _manifest(name: str) -> dict[str, Any]:
    """What the manifest of shipped weights tells of their cost."""
    from sciml.catalogue import folder

    for home in (folder("data") / "pretrained" / name, Path(name)):
        if (home / "manifest.toml").is_file():
            told = tomllib.loads((home / "manifest.toml").read_text())
            kept = ("seconds", "threads", "steps", "real parameters", "command", "test members", "test trajectories")
            return {"weights": home.name, **{key: told[key] for key in kept if key in told}}
    return {}


def _history(thing: Any) -> dict[str, Any]:
    """Seconds of training, from the history of a fit or of one inside a solver."""
    rows = getattr(thing, "history", None)
    if isinstance(rows, list) and hasattr(thing, "network"):
        seconds = sum(float(row.get("seconds") or 0.0) for row in rows if isinstance(row, Mapping))
        size = sum(p.numel() * (2 if p.is_complex() else 1) for p in thing.network.parameters())
        return {
            "weights": type(thing.network).__name__,
            "seconds": seconds,
            "epochs": len(rows),
            "real parameters": size,
        }
    if dataclasses.is_dataclass(thing):
        for part in dataclasses.fields(thing):
            found = _history(getattr(thing, part.name, None))
            if found:
                return found
    return {}


def _distinct(field_: list[Contender]) -> list[Contender]:
    """Names that occur twice get a number."""
    seen: dict[str, int] = {}
    found = []
    for one in field_:
        seen[one.name] = seen.get(one.name, 0) + 1
        found.append(one if seen[one.name] == 1 else dataclasses.replace(one, name=f"{one.name} {seen[one.name]}"))
    return found
