"""A bench as a picture of accuracy against cost, and as a page."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.core.bench import Bench, Row
from sciml.domains.errors import InputError
from sciml.show.canvas import COLOURS, blank, save, tidy
from sciml.show.report import report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracy_against_cost", "page"]

CLASSICAL, LEARNED = COLOURS[0], COLOURS[1]


def accuracy_against_cost(bench: Bench, path: str | os.PathLike[str] | None = None) -> Figure:
    """Error over seconds, both logarithmic, one numbered point per solver; a key beside it.

    The point stands at the median of the warm runs, a line runs from the fastest to the slowest, a small cross marks the cold
    run. Filled points are certified, hollow ones are not; blue without weights, orange with. Where there is no reference the
    height is the worst gate of the certificate over its target. Solvers without both numbers are in the key only.

    Raises:
        InputError: the bench has no rows, or a file that cannot be written.
    """
    if not bench.rows:
        raise InputError("the bench has no rows to draw; run it with a solver that accepts the problem")
    judged = all(row.mean_error is None for row in bench.rows)
    figure = blank(9.6, max(3.8, 0.19 * len(bench.rows) + 1.6))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    drawn = [_point(left, number, row, judged) for number, row in enumerate(bench.rows, 1)]
    left.set(xscale="log", yscale="log")
    left.set(xlim=_decades(left.dataLim.intervalx), ylim=_decades(left.dataLim.intervaly))
    members = bench.facts.get("members", 1)
    cost = f"seconds for {members} member{'s' * (members != 1)}; cross: cold"
    height = "worst gate over its target" if judged else "mean relative L2 error"
    tidy(left, cost, height, str(bench.facts.get("problem", "")))
    right.set_axis_off()
    _key(right, bench.rows, drawn)
    head = figure.suptitle(f"error against {bench.facts.get('reference', 'nothing')}", fontsize=8, x=0.01, ha="left")
    head.set_parse_math(False)
    if path is not None:
        save(figure, path)
    return figure


def _decades(between: Sequence[float]) -> tuple[float, float]:
    """Whole powers of ten around an interval, so that equal values stand on a readable axis."""
    low, high = (float(value) for value in between)
    if not 0 < low <= high < math.inf:
        return 0.1, 10.0
    return 10.0 ** math.floor(math.log10(low / 1.3)), 10.0 ** math.ceil(math.log10(high * 1.3))


def _height(row: Row, judged: bool) -> float | None:
    if not judged:
        return row.mean_error
    ratios = [
        max((math.inf if v is None else v for v in check["value"]), default=math.inf) / check["target"]
        for check in row.checks
        if check["target"] is not None
    ]
    return max(ratios) if ratios and math.isfinite(max(ratios)) else None


def _point(axes: Axes, number: int, row: Row, judged: bool) -> bool:
    height, seconds = _height(row, judged), row.seconds
    if height is None or seconds is None or row.cold is None:
        return False
    height = max(height, 1e-17)  # an exact answer has a place on the axis, too
    colour = LEARNED if row.training else CLASSICAL
    walls = [wall for wall, _ in row.warm] or [seconds]
    axes.plot([min(walls), max(walls)], [height, height], color=colour, linewidth=1.2)
    axes.plot([row.cold[0]], [height], marker="x", color=colour, markersize=3.5, linestyle="", alpha=0.6)
    face = colour if row.passed else "white"
    axes.plot([seconds], [height], marker="o", color=colour, markerfacecolor=face, markersize=5, linestyle="")
    axes.annotate(
        str(number), (seconds, height), textcoords="offset points", xytext=(4, 4 + 5 * (number % 2)), fontsize=7
    )
    return True


def _key(axes: Axes, rows: tuple[Row, ...], drawn: list[bool]) -> None:
    for number, (row, shown) in enumerate(zip(rows, drawn, strict=True), 1):
        name = row.name if len(row.name) <= 58 else row.name[:55] + "..."
        tail = "" if shown else f" ({row.outcome if row.cold is None or row.mean_error is not None else 'no error'})"
        colour = (LEARNED if row.training else CLASSICAL) if shown else "#888888"
        text = axes.text(
            0.0,
            1.0 - (number - 0.5) / max(len(rows), 12),
            f"{number}  {name}{tail}",
            fontsize=6.5,
            color=colour,
            va="center",
        )
        text.set_parse_math(False)


def page(bench: Bench, out: str | os.PathLike[str]) -> Path:
    """One HTML page that needs no other file: picture, table, notes, every solver's certificate, refusals, machine.

    Raises:
        InputError: an unwritable place, or a bench without rows.
    """
    columns, rows = bench.table()
    things: list[Any] = ["Accuracy against cost", accuracy_against_cost(bench)]
    things.append([dict(zip(columns, row, strict=True)) for row in rows])
    things += [note if note.endswith(".") else f"{note}." for note in bench.notes()]
    things += ["Certificates", [_certificate(row) for row in bench.rows]]
    things += ["Settings", {row.name: row.settings for row in bench.rows}]
    if any(row.training for row in bench.rows):
        things += ["Weights", [{"solver": row.name, **dict(row.training)} for row in bench.rows if row.training]]
    if bench.refused:
        things += ["Not asked", [{"solver": one.name, "reason": one.reason} for one in bench.refused]]
    things += [
        "Conditions",
        {key: value for key, value in bench.facts.items() if key not in ("solvers", "settings", "recipe")},
    ]
    if bench.facts.get("recipe"):
        things += ["Recipe", {"recipe": bench.facts["recipe"]}]
    return report(things, out, title=f"Bench: {bench.facts.get('problem', '')}")


def _certificate(row: Row) -> dict[str, Any]:
    told: dict[str, Any] = {"solver": row.name, "members": _counted(row.codes) or row.outcome}
    for check in row.checks:
        values = [value for value in check["value"] if value is not None]
        worst = f"{max(values):.2e}" if len(values) == len(check["value"]) and values else "not finite"
        told[check["name"]] = worst if check["target"] is None else f"{worst} (target {check['target']:.0e})"
    return told


def _counted(codes: tuple[str, ...]) -> str:
    return ", ".join(f"{codes.count(code)} {code}" for code in dict.fromkeys(codes))
