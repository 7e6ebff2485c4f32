"""What a bench hands over: one row per solver, the solvers that were refused, and what all rows have in common."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sciml.domains.errors import InputError
from sciml.files.checkpoint import load_json, save_json, write_atomic

__all__ = ["Bench", "Refusal", "Row"]

FORMAT = "sciml bench 1"
COLUMNS = (
    "solver",
    "outcome",
    "error",
    "certificate",
    "cold (s)",
    "warm (s)",
    "processor (s)",
    "work",
    "memory",
    "training",
)


@dataclass(frozen=True)
class Row:
    """One solver on all members.

    ``outcome`` is the worst code of the members, or ``RAISED``, or ``TIME LIMIT``; ``sentence`` says more. ``error`` is the relative L2
    distance to the reference per member (None: not finite, or there is no reference), ``checks`` the certificate. ``cold``
    and ``warm`` are pairs (wall, processor) in seconds: of the first run of this solver in its process, and of the runs after it; the
    processor's are the sum over threads. ``met`` are the parts of this solver that rows above, or the reference, had
    already run: what is cold about it is only the rest. ``counts`` is what the solver tells of its work, ``calls`` what was counted from
    outside in a run that was not timed. ``memory`` is how much the resident set grew at its highest (on CUDA, allocated bytes), in bytes.
    ``training`` says what is known of the cost of its weights; ``session`` is the process, counted from 1, that measured the row.
    """

    name: str
    settings: str
    outcome: str
    sentence: str = ""
    codes: tuple[str, ...] = ()
    error: tuple[float | None, ...] = ()
    checks: tuple[Mapping[str, Any], ...] = ()
    cold: tuple[float, float] | None = None
    warm: tuple[tuple[float, float], ...] = ()
    met: tuple[str, ...] = ()
    steps: int = 0
    counts: Mapping[str, float] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)
    memory: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    session: int = 1

    @property
    def mean_error(self) -> float | None:
        """The mean over the members; None where one is missing."""
        if not self.error or any(value is None for value in self.error):
            return None
        return math.fsum(value for value in self.error if value is not None) / len(self.error)

    @property
    def seconds(self) -> float | None:
        """The median of the warm runs, the cold one where there was time for no other."""
        if self.warm:
            return statistics.median(wall for wall, _ in self.warm)
        return None if self.cold is None else self.cold[0]

    @property
    def busy(self) -> float | None:
        """Seconds of the processor, as ``seconds``."""
        if self.warm:
            return statistics.median(busy for _, busy in self.warm)
        return None if self.cold is None else self.cold[1]

    @property
    def passed(self) -> bool:
        """Whether every member was certified."""
        return self.outcome == "CONVERGED"

    def gate(self) -> str:
        """The worst gate of the certificate: value and target."""
        gates = [check for check in self.checks if check["target"] is not None]
        if not gates:
            return "no gate" if self.checks else ""
        worst = max(gates, key=lambda check: _largest(check["value"]) / check["target"])
        value = _largest(worst["value"])
        return f"{worst['name']} {_number(value)} (target {worst['target']:.0e})"

    def work(self) -> str:
        """Steps, and calls of operator, law and network."""
        parts = [f"{self.steps} step{'s' * (self.steps != 1)}"] if self.steps else []
        parts += [f"{count} {name}" for name, count in self.calls.items() if count]
        return ", ".join(parts)

    def cells(self) -> tuple[str, ...]:
        """The row as text, one entry per column."""
        walls = [wall for wall, _ in self.warm]
        spread = f" ({_seconds(min(walls))} to {_seconds(max(walls))})" if len(walls) > 1 else ""
        cold = "" if self.cold is None else _seconds(self.cold[0]) + ("*" if self.met else "")
        error = self.mean_error
        trained = self.training.get("seconds")
        return (
            self.name,
            self.outcome,
            ("not finite" if self.error else "") if error is None else _number(error),
            self.gate(),
            cold,
            "" if not walls else f"{_seconds(statistics.median(walls))}{spread}",
            "" if self.busy is None else _seconds(self.busy),
            self.work(),
            "" if self.memory is None else f"{self.memory / 1e6:.{0 if self.memory > 1e7 else 1}f} MB",
            "" if trained is None else f"{trained:.0f} s",
        )


@dataclass(frozen=True)
class Refusal:
    """A solver that was not run, and why, in one sentence."""

    name: str
    reason: str


@dataclass(frozen=True)
class Bench:
    """Rows in the order in which they were run, refusals, and ``facts``: problem, members, reference, threads, machine, date.

    Prints as a table. ``plot()`` draws accuracy against cost, ``report()`` writes a page; ``save(path)`` writes ``.json`` (all of it;
    ``Bench.load`` reads it back) or ``.csv`` (one line per solver).
    """

    rows: tuple[Row, ...]
    refused: tuple[Refusal, ...]
    facts: Mapping[str, Any]

    def row(self, name: str) -> Row:
        """The row of a solver by its name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise InputError(f"the bench has no row {name!r}; it has {', '.join(row.name for row in self.rows) or 'none'}")

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Names of the columns that say something, and the rows as text."""
        rows = [row.cells() for row in self.rows]
        kept = [i for i in range(len(COLUMNS)) if i < 2 or any(row[i] for row in rows)]
        return tuple(COLUMNS[i] for i in kept), [tuple(row[i] for i in kept) for row in rows]

    def notes(self) -> list[str]:
        """What the table leaves out: what the error is against, marks, sentences of the rows that ended badly."""
        told = [f"error: mean relative L2 against {self.facts.get('reference', 'nothing')}"]
        told.append(
            f"cold: the first run in its process, in the order of the table; warm: median of up to {self.facts.get('repeats')} more (smallest to largest); {self.facts.get('threads')} torch threads"
        )
        if any(row.met for row in self.rows):
            told.append("*: parts of it had run before, so that its cold run was partly warm")
        slow = [row.seconds / row.busy for row in self.rows if row.seconds and row.busy and row.seconds > 1e-2]
        if self.facts.get("threads") == 1 and slow and statistics.median(slow) > 1.3:
            told.append(
                f"the machine was busy with other work: the wall's seconds are {statistics.median(slow):.1f} times those of the processor"
            )
        sentences: dict[str, list[str]] = {}
        for row in self.rows:
            for words in ([row.sentence] if row.sentence and not row.passed else []) + list(row.warnings):
                sentences.setdefault(words, []).append(row.name)
        told += [f"{', '.join(names)}: {words}" for words, names in sentences.items()]
        return told

    def markdown(self) -> str:
        """The table in Markdown."""
        columns, rows = self.table()
        lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        return "\n".join(lines + ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows])

    def __str__(self) -> str:
        columns, rows = self.table()
        wide = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
        lines = [
            "  ".join(cell.ljust(n) for cell, n in zip(row, wide, strict=True)).rstrip() for row in [columns, *rows]
        ]
        head = f"{self.facts.get('problem')}, {self.facts.get('members')} members"
        return "\n".join([head, *lines, *self.notes(), f"refused: {len(self.refused)} (in .refused)"])

    __repr__ = __str__

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Accuracy against cost: a matplotlib figure (and a file, when ``path`` is given)."""
        return importlib.import_module("sciml.show.bench").accuracy_against_cost(self, path)

    def report(self, path: str | os.PathLike[str] = "bench.html") -> Path:
        """One HTML page with the picture, the table, the refusals and the machine; returns its path."""
        page: Path = importlib.import_module("sciml.show.bench").page(self, path)
        return page

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``.json`` or ``.csv``, whole or not at all."""
        target = Path(path)
        if target.suffix.lower() == ".json":
            save_json(target, self.to_json())
        elif target.suffix.lower() == ".csv":
            write_atomic(target, self.to_csv().encode())
        else:
            raise InputError(f"a bench is saved as .json or .csv, not '{target}'")
        return target

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Bench:
        """The bench that ``save`` wrote as JSON, or that ``bench(..., out=folder)`` left in ``folder/bench.json``."""
        return Bench.from_json(load_json(path), str(path))

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it; numbers that are not finite are null."""
        return {
            "format": FORMAT,
            "facts": _plain(dict(self.facts)),
            "rows": [_plain(dataclasses.asdict(row)) for row in self.rows],
            "refused": [dataclasses.asdict(one) for one in self.refused],
        }

    @staticmethod
    def from_json(data: Any, source: str = "this") -> Bench:
        """The inverse of ``to_json``."""
        try:
            if data["format"] != FORMAT:
                raise KeyError(data["format"])
            rows = tuple(Row(**{key: _tuples(key, value) for key, value in row.items()}) for row in data["rows"])
            return Bench(rows, tuple(Refusal(**one) for one in data["refused"]), data["facts"])
        except (KeyError, TypeError) as error:
            raise InputError(f"'{source}' holds no bench ({error}); make it again with sciml.bench") from None

    def to_csv(self) -> str:
        """One line per solver, numbers as they were measured; refused solvers at the end."""
        buffer = io.StringIO()
        names = ("solver", "outcome", "mean error", "largest error", "worst gate", "cold wall (s)", "cold processor (s)", "warm wall (s)",
                 "warm smallest (s)", "warm largest (s)", "warm processor (s)", "warm runs", "steps", "calls", "memory (bytes)",
                 "training (s)", "session", "met before", "sentence")  # fmt: skip
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(names)
        for row in self.rows:
            walls, busy = [w for w, _ in row.warm], [c for _, c in row.warm]
            worst = None if row.mean_error is None else max(value for value in row.error if value is not None)
            writer.writerow(
                [row.name, row.outcome, row.mean_error, worst, row.gate(), *(row.cold or (None, None))]
                + ([statistics.median(walls), min(walls), max(walls), statistics.median(busy)] if walls else [None] * 4)
                + [
                    len(walls),
                    row.steps,
                    "; ".join(f"{n} {k}" for k, n in row.calls.items()),
                    row.memory,
                    row.training.get("seconds"),
                    row.session,
                    "; ".join(row.met),
                    row.sentence,
                ]  # fmt: skip
            )
        for one in self.refused:
            writer.writerow([one.name, "REFUSED", *[None] * (len(names) - 3), one.reason])
        return buffer.getvalue()


def _largest(values: Sequence[float | None]) -> float:
    """Not finite counts as infinite."""
    return max((math.inf if value is None else value for value in values), default=math.nan)


def _number(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "not finite"


def _seconds(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}" if value >= 1e-3 or value == 0 else f"{value:.1e}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _tuples(key: str, value: Any) -> Any:
    if key == "warm":
        return tuple(tuple(pair) for pair in value)
    return tuple(value) if isinstance(value, list) else value
