"""Several reconstructions of one problem beside each other: pictures on one scale, and a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sciml.core.inverse import Inverse
from sciml.core.solution import Code, Solution
from sciml.domains.errors import InputError
from sciml.domains.mesh import Elements, Mesh
from sciml.show.canvas import Panel, panels, save
from sciml.show.reconstruction import Pictures, data_panel, largest, quality, residual_of, sigmas, truth_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Reconstructions", "compare", "quality_facts", "reconstructions", "short_name"]

MOST_COLUMNS = 4


def compare(
    solutions: Sequence[Solution],
    path: str | os.PathLike[str] | None = None,
    names: Sequence[str] | None = None,
    member: int = 0,
) -> Figure:
    """Several reconstructions of one problem side by side on one scale, each above its error (or its whitened residual).

    Every picture is titled by its name, how the solve ended, chi-square per degree of freedom, and, if the problem keeps its
    truth, the peak signal-to-noise ratio. All errors share one scale, too. The scale is that of the truth (without one, of all
    reconstructions together), between the percentiles 0.5 and 99.5.

    Args:
        solutions: what ``solve`` returned for inverse problems with unknowns of one shape.
        path: where to write the figure.
        names: one for each; the solver and the prior, if left out.
        member: which member of the batch.

    Raises:
        InputError: no solutions, other problems, unknowns of several shapes, names of another number, no such member.
    """
    shown = _checked(solutions, names, member)
    first: Inverse[Any] = shown[0].problem  # type: ignore[assignment]
    truth = next((t for s in shown if (t := truth_of(s.problem, member)) is not None), None)
    values = [solution.value[member] for solution in shown]
    pictures = Pictures(first, values if truth is None else [truth])
    titles = [short_name(solution) for solution in shown] if names is None else list(map(str, names))
    most = 0.0 if truth is None else largest([value - truth for value in values])
    above = [] if truth is None else [pictures.panel("truth", truth)]
    below = [] if truth is None else [Panel(_nothing)]
    for solution, value, title in zip(shown, values, titles, strict=True):
        code = Code(int(solution.codes[member])).name
        told = ", ".join(quality(solution, member, ("chi^2/dof", "PSNR")))
        above.append(pictures.panel(f"{title}\n{code}\n{told}", value, truth))
        if truth is not None:
            below.append(pictures.error("error", value - truth, most))
        else:
            below.append(data_panel(solution.problem, sigmas("residual / sigma", residual_of(solution, member))))
    columns = min(len(above), MOST_COLUMNS)
    drawn: list[Panel] = []
    for start in range(0, len(above), columns):
        for row in (above[start : start + columns], below[start : start + columns]):
            drawn += [*row, *[Panel(_nothing)] * (columns - len(row))]
    figure = panels(drawn, first.name, "", columns, (3.7, 3.3))
    if path is not None:
        save(figure, path)
    return figure


def short_name(solution: Solution) -> str:
    """The solver, with the one that it wraps, and the prior, as in ``Discrepancy(PrimalDual), TotalVariation``."""
    inner = getattr(solution.solver, "inner", None)
    name = type(solution.solver).__name__ + (f"({type(inner).__name__})" if inner is not None else "")
    prior = getattr(solution.problem, "prior", None)
    uses = solution.weight is not None or prior is not None and not getattr(solution.problem, "energetic", True)
    return name if prior is None or not uses else f"{name}, {type(prior).__name__}"


class Reconstructions(NamedTuple):
    """What a report shows of several solutions of inverse problems: a heading, one comparing figure, a table, all pages."""

    solutions: tuple[Solution, ...]
    names: tuple[str, ...]
    heading: str

    def figure(self) -> Figure:
        """The first members side by side."""
        return compare(self.solutions, names=self.names)

    def rows(self) -> list[dict[str, Any]]:
        """One row per solution: code, gates, chi-square per degree of freedom, weight, cost, and the quality if the truth is
        known; of several members the worst (and the mean of the quality)."""
        return [_row(name, solution) for name, solution in zip(self.names, self.solutions, strict=True)]


def reconstructions(
    solutions: Sequence[Solution], names: Sequence[str] | None = None, heading: str = "Reconstructions"
) -> Reconstructions:
    """A section for ``report``: ``report([..., reconstructions([fbp, tv]), ...])``.

    Args:
        solutions: of inverse problems with unknowns of one shape.
        names: one for each; the solver and the prior, if left out.
        heading: of the section.

    Raises:
        InputError: as ``compare``.
    """
    shown = _checked(solutions, names, 0)
    titles = [short_name(solution) for solution in shown] if names is None else list(map(str, names))
    return Reconstructions(tuple(shown), tuple(titles), heading)


def quality_facts(solution: Solution) -> dict[str, Any]:
    """As plain data: the prior, its weight, and PSNR (dB) and SSIM if the truth is known, per member; infinite is null.

    Fields on a mesh have no windows of neighbouring pixels, and so no SSIM.
    """
    from sciml.metrics import psnr, ssim
    from sciml.show.summary import plain

    problem: Any = solution.problem
    facts: dict[str, Any] = {"prior": "none" if problem.prior is None else type(problem.prior).__name__}
    if solution.weight is not None:
        facts["weight"] = solution.weight.detach()
    if problem.truth is not None:
        truth = problem.truth.detach().expand(solution.value.shape)
        value = solution.value.detach().to(truth.device)
        meshed = isinstance(problem.space.domain, Mesh | Elements)
        for name, metric in (("PSNR", psnr),) if meshed else (("PSNR", psnr), ("SSIM", ssim)):
            try:
                facts[name] = metric(value, truth)
            except InputError:  # a constant truth has no range, a small or complex image no windows
                continue
    return dict(plain(facts))


def _row(name: str, solution: Solution) -> dict[str, Any]:
    row: dict[str, Any] = {"reconstruction": name, "code": solution.code.name}
    for check in solution.checks:
        told = f"{float(check.value.max()):.1e} (target {check.target:.0e})" if check.target is not None else ""
        row[check.name.replace("chi-square per degree of freedom", "chi^2/dof")] = told or ", ".join(
            f"{float(v):.3g}" for v in check.value[:4]
        )
    facts = quality_facts(solution)
    if "weight" in facts:
        row["weight"] = ", ".join(f"{weight:.3g}" for weight in facts["weight"][:4])
    row |= {"steps": int(solution.stats.get("steps", 0)), "seconds": f"{solution.stats.get('seconds', 0.0):.2f}"}
    for key, unit in (("PSNR", " (dB)"), ("SSIM", "")):
        if key in facts:
            finite = [value for value in facts[key] if value is not None]
            row[key + unit] = f"{sum(finite) / len(finite):.3f}" if len(finite) == len(facts[key]) else "infinite"
    return row


def _nothing(axes: Axes) -> None:
    axes.set_axis_off()


def _checked(solutions: Sequence[Solution], names: Sequence[str] | None, member: int) -> list[Solution]:
    given: Any = solutions
    shown: list[Any] = [given] if isinstance(given, Solution) else list(given)
    for solution in shown:
        if not isinstance(solution, Solution) or not isinstance(solution.problem, Inverse):
            what = f"one of {solution.problem.name!r}" if isinstance(solution, Solution) else repr(solution)
            raise InputError(f"compare shows solutions of inverse problems, not {what}; draw that with plot.")
    if not shown:
        raise InputError("compare got no solutions; give at least one.")
    shapes = {tuple(solution.value.shape[1:]) for solution in shown}
    if len(shapes) > 1:
        raise InputError(
            f"the reconstructions have the shapes {', '.join(map(str, sorted(shapes)))}; compare those of one problem."
        )
    if names is not None and (isinstance(names, str) or len(names) != len(shown)):
        count = 1 if isinstance(names, str) else len(names)
        raise InputError(f"there are {len(shown)} solutions and {count} names; give one name for each.")
    members = min(len(solution.value) for solution in shown)
    if not -members <= member < members:
        raise InputError(f"{shown[0].problem.name!r} has {members} members; there is no member {member}.")
    return shown
