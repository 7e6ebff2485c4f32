"""What the command line writes: tables and JSON to standard output, sentences to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from sciml.core.solution import Solution

__all__ = ["BAD_INPUT", "CERTIFIED", "FAULT", "UNCERTIFIED", "emit", "say", "show", "table", "warn", "write"]

CERTIFIED, FAULT, BAD_INPUT, UNCERTIFIED = 0, 1, 2, 3


def write(text: str) -> None:
    """One line to standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """One sentence to standard error."""
    sys.stderr.write("sciml: " + " ".join(text.split()) + "\n")
    sys.stderr.flush()


def warn(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
    line: str | None = None,
) -> None:  # fmt: skip
    """Python's warnings without file and line."""
    say(str(message))


def emit(value: Any) -> int:
    """JSON to standard output."""
    import json

    write(json.dumps(value, indent=2, allow_nan=False))
    return CERTIFIED


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """A table as wide as the terminal; on a pipe, as wide as it needs to be."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    named = any(columns)
    made = Table(
        *columns, title=Text(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD if named else None,
        pad_edge=False, show_header=named,
    )  # fmt: skip
    for row in rows:
        made.add_row(*(Text(entry_text(entry)) for entry in row))
    terminal = sys.stdout.isatty()
    Console(file=sys.stdout, width=None if terminal else 200, highlight=False).print(made)


def entry_text(entry: Any) -> str:
    """One entry of a table."""
    if isinstance(entry, float):
        return f"{entry:.6g}"
    if isinstance(entry, Mapping):
        return ", ".join(f"{key} {entry_text(value)}" for key, value in entry.items())
    if isinstance(entry, list | tuple):
        return ", ".join(map(entry_text, entry))
    return str(entry)


def show(solution: Solution, written: Mapping[str, str]) -> None:
    """The certificate of a solution as a table."""
    from rich.console import Console
    from rich.text import Text

    from sciml.show.summary import verdict

    colour = "bold green" if solution.ok else "bold yellow" if solution.code == 2 else "bold red"
    stats = solution.stats
    head = Text.assemble((solution.code.name, colour), f"  {solution.code.sentence}")
    Console(file=sys.stdout, highlight=False, soft_wrap=True).print(head)
    rows = []
    for check in solution.checks:
        worst = float(check.value.detach().max())
        told = "told, not judged" if check.target is None else f"{check.target:.0e}"
        passed = "" if check.target is None else f"{int(check.passed.sum())} of {len(check.passed)}"
        rows.append((check.name, f"{worst:.2e}", told, passed))
    table(("check", "worst", "target", "passed"), rows)
    facts: dict[str, Any] = {
        "problem": solution.problem.name,
        "solver": type(solution.solver).__name__,
        "steps": int(stats.get("steps", 0)),
        "seconds": f"{stats.get('seconds', 0.0):.3f}",
        "shape": " x ".join(map(str, solution.value.shape)),
    }
    if len(solution.codes) > 1:
        facts["members"] = ", ".join(f"{count} {name}" for name, count in verdict(solution).items())
    table(("", ""), [*facts.items(), *written.items()])
