"""Which solvers could be asked: computed from ``accepts`` of every solver with usable defaults."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from sciml.core.inverse import Inverse
from sciml.core.problem import Problem
from sciml.core.solver import Solver

__all__ = ["solvers", "who_accepts"]


def solvers() -> list[type[Solver]]:
    """Every final solver class of ``sciml.solvers``, ``sciml.samplers`` and ``sciml.learned``."""
    found: dict[str, type[Solver]] = {}
    for folder in ("sciml.solvers", "sciml.samplers", "sciml.learned"):
        module = importlib.import_module(folder)
        for name, thing in vars(module).items():
            if inspect.isclass(thing) and issubclass(thing, Solver) and not inspect.isabstract(thing):
                found[name] = thing
    return [found[name] for name in sorted(found)]


def who_accepts(problem: Problem, but: Solver | None = None) -> str:
    """The solvers that accept ``problem`` with their default settings, as they are written; or ``none``.

    Where only the weight of a prior is missing, those that take it from ``Discrepancy`` come first.
    """
    names, weighed = [], []
    known: list[Any] = solvers()
    rule: Any = next((kind for kind in known if kind.__name__ == "Discrepancy"), None)
    for kind in known:
        if but is not None and isinstance(but, kind):
            continue
        try:
            candidate = kind()
        except TypeError:
            continue
        if candidate.accepts(problem) is None:
            names.append(f"{kind.__name__}()")
        elif isinstance(problem, Inverse) and problem.prior is not None and problem.weight is None:
            if rule is not None and kind is not rule and rule(candidate).accepts(problem) is None:
                weighed.append(f"Discrepancy({kind.__name__}())")
    return ", ".join(weighed + names) or "none"
