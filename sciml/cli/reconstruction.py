"""The command about measured data: reconstruct."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from sciml.cli.terminal import CERTIFIED, UNCERTIFIED, emit, say, show
from sciml.cli.words import (
    build,
    check_ending,
    check_writable,
    opened,
    pick,
    problem_of,
    settings_of,
    solver_of,
    targets_of,
)
from sciml.domains.errors import InputError

__all__ = ["reconstruct"]

Pairs = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]
Flag = Annotated[bool, Parameter(negative="")]


def reconstruct(
    name: str,
    /,
    *,
    data: Path | None = None,
    reference: Path | None = None,
    names: Pairs = None,
    dims: Pairs = None,
    set: Pairs = None,
    prior: str | None = None,
    prior_set: Pairs = None,
    weight: float | None = None,
    solver: str | None = None,
    solver_set: Pairs = None,
    target: Pairs = None,
    device: str | None = None,
    out: Path | None = None,
    plot: Path | None = None,
    report: Path | None = None,
    member: int = 0,
    json: Flag = False,
) -> int:
    """Reconstruct an image or parameter from measured data and print its certificate.

    Parameters
    ----------
    name
        An inverse problem of the catalogue, or the path of a problem file; without data it simulates its own.
    data
        The measured data, in any layout that `sciml data` reads.
    reference
        Data of a reference measurement, for problems that take one.
    names
        Names in the file and here, as in `sino=sinogram`.
    dims
        Names of the axes, as in `view bin`.
    set
        Settings of the problem, as in `n=256 every=6`.
    prior
        Class of the prior, as in `total-variation`, pretrained weights, as in `lpn-ellipses`, or the folder of your own;
        `none` for no prior; if left out, what the problem brings.
    prior_set
        Settings of the prior, as in `lower=0`.
    weight
        Weight of the prior; if left out, the one at which the misfit is what the noise says.
    solver
        Class of the solver, as in `primaldual`; if left out, what the problem recommends.
    solver_set
        Settings of the solver, as in `max_steps=500`.
    target
        Targets of the gates, as in `optimality=1e-4`.
    device
        Where to compute, as in `cuda`.
    out
        Write the reconstruction, its data and its certificate as netCDF.
    plot
        Write a picture (.png, .pdf, .svg, ...).
    report
        Write one self-contained HTML page.
    member
        The member to draw.
    json
        Print JSON only.
    """
    from sciml.core.solution import SolveError
    from sciml.show import reconstructions
    from sciml.show import report as make_page
    from sciml.show.canvas import check_format
    from sciml.show.comparison import quality_facts
    from sciml.show.summary import solution_facts
    from sciml.solving import solve as solve_problem

    for path in (out, plot, report):
        check_writable(path)
    check_ending(out, (".nc", ".h5", ".hdf5"), "--out")
    check_ending(report, (".html", ".htm"), "--report")
    if plot is not None:
        check_format(plot)
    settings = settings_of(set)
    for key, file in (("data", data), ("reference", reference)):
        if file is not None:
            settings[key] = measured(file, names if key == "data" else None, dims if key == "data" else None)
    if data is None and (names or dims):
        raise InputError("--names and --dims say how a file is read; give the file as --data.")
    posed = inverse_of(problem_of(name, settings, None), name)
    posed = with_prior(posed, prior, settings_of(prior_set), weight)
    if target:
        posed = posed.with_target(**targets_of(target))
    if not -posed.batch <= member < posed.batch:
        raise InputError(f"there is no member {member}; this problem has {posed.batch}, counted from 0.")
    if device is not None:
        posed = posed.to(device=device)
    chosen = weighed(posed, solver_of(solver, settings_of(solver_set), None, posed))
    failure = None
    try:
        solution = solve_problem(posed, chosen, progress=(sys.stdout.isatty() and not json) or None)
    except SolveError as error:
        solution, failure = error.solution, error
    written: dict[str, str] = {}
    if failure is None:
        if plot is not None:
            solution.plot(plot, member)
            written["plot"] = str(plot)
        if out is not None:
            solution.save(out)
            written["out"] = str(out)
        if report is not None:
            make_page([reconstructions([solution], heading=posed.name)], report, title=posed.name)
            written["report"] = str(report)
    facts = quality_facts(solution)
    if json:
        emit({**solution_facts(solution), **facts, "written": written})
    else:
        show(solution, {**{key: told(value) for key, value in facts.items()}, **written})
    if failure is not None:
        say(str(failure))
    return CERTIFIED if solution.ok else UNCERTIFIED


def told(values: Any) -> str:
    """Text, or the numbers of some members."""
    if not isinstance(values, list):
        return str(values)
    return ", ".join("infinite" if v is None else f"{v:.4g}" for v in values[:6]) + (", ..." if len(values) > 6 else "")


def measured(file: Path, names: list[str] | None, dims: list[str] | None) -> Any:
    """The path, so that the recipe is complete; a data set where names or axes are given.

    Raises:
        InputError: there is no such file.
    """
    if not file.exists():
        raise InputError(f"there is no file '{file}'; check the path.")
    return opened(file, names, dims) if names or dims else str(file)


def inverse_of(posed: Any, name: str) -> Any:
    """The problem, if it is an inverse one.

    Raises:
        InputError: it is not.
    """
    from sciml.core.inverse import Inverse

    if not isinstance(posed, Inverse):
        raise InputError(
            f"'{name}' is no inverse problem but a {type(posed).__name__}; use `sciml solve {name}` (`sciml problems` tells the kinds)."
        )
    return posed


def with_prior(posed: Any, name: str | None, settings: Mapping[str, Any], weight: float | None) -> Any:
    """The problem under the prior of that name and weight.

    Raises:
        InputError: no prior of that name, settings without a prior, a weight without a prior to weigh.
    """
    if name is None:
        if settings:
            raise InputError("--prior-set goes with --prior; name the prior.")
        if weight is not None and posed.prior is None:
            raise InputError(f"--weight weighs a prior, and {posed.name!r} brings none; name one with --prior.")
        return posed if weight is None else posed.with_weight(weight)
    if name.lower() == "none":
        if weight is not None or settings:
            raise InputError("--prior none leaves nothing to weigh or set; drop --weight and --prior-set.")
        return posed.with_prior(None)
    return posed.with_prior(prior_of(name, settings), weight)


def prior_of(name: str, settings: Mapping[str, Any]) -> Any:
    """A prior by the name of its class, by that of pretrained weights, or by the folder of one.

    Raises:
        InputError: no such prior, or a setting that it does not have.
    """
    import inspect

    from sciml import priors
    from sciml.catalogue import folder, pretrained
    from sciml.core.prior import Denoising, Energy, Prior, Proximable
    from sciml.priors._stored import holds_prior

    known = {
        key: thing for key, thing in vars(priors).items()
        if inspect.isclass(thing) and issubclass(thing, Prior) and needs_nothing(thing)
    }  # fmt: skip
    weights = {path.parent.name for path in (folder("data") / "pretrained").glob("*/checkpoint.safetensors")}
    if name in weights or (Path(name) / "checkpoint.safetensors").is_file():
        if settings:
            raise InputError(f"'{name}' is trained and has no settings; drop --prior-set.")
        found = pretrained(name)
        if not isinstance(found, Energy | Proximable | Denoising):
            raise InputError(f"'{name}' is a {type(found).__name__}, no prior; use it as a solver, `--guess {name}`.")
        return found
    shipped = {key: key for key in weights if holds_prior(folder("data") / "pretrained" / key)}
    kind = pick("prior", name, {**known, **shipped})
    return prior_of(kind, settings) if isinstance(kind, str) else build("prior", kind, settings)


def needs_nothing(kind: Any) -> bool:
    """Whether every setting of a class has a default."""
    import inspect

    return all(
        entry.default is not entry.empty or entry.kind in (entry.VAR_POSITIONAL, entry.VAR_KEYWORD)
        for entry in inspect.signature(kind).parameters.values()
    )


def weighed(posed: Any, solver: Any) -> Any:
    """The solver as the weight asks: behind Discrepancy where it needs one and none is posed, without it where one is.

    None stays None, which is what the problem recommends; a problem that recommends nothing, or what does not take this
    prior, gets the first solver that does.
    """
    from sciml.solvers import Discrepancy, PrimalDual, ProximalGradient

    if solver is None:
        recommended = None if posed.recommend is None else posed.recommend(posed)
        candidates = [recommended, PrimalDual(), ProximalGradient()]
        if posed.weight is not None and isinstance(recommended, Discrepancy):
            candidates[0] = recommended.inner
        for candidate in candidates:
            found = None if candidate is None else weighed(posed, candidate)
            if found is not None and found.accepts(posed) is None:
                return found
        return None  # `solve` says what there is
    if posed.weight is None and solver.accepts(posed) is not None and Discrepancy(solver).accepts(posed) is None:
        return Discrepancy(solver)
    return solver
