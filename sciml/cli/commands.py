"""Commands about problems and data: problems, solve, certify, data, generate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sciml.cli.terminal import CERTIFIED, UNCERTIFIED, emit, say, show, table, write
from sciml.cli.words import (
    answer_shape,
    check_ending,
    check_writable,
    contents,
    kinds,
    opened,
    problem_of,
    settings_of,
    solver_of,
    targets_of,
)
from sciml.domains.errors import InputError

if TYPE_CHECKING:
    import xarray
    from torch import Tensor

__all__ = ["certify", "data", "generate", "problems", "solve"]

Pairs = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]
Flag = Annotated[bool, Parameter(negative="")]


def problems(*, json: Flag = False) -> int:
    """List the problems of the catalogue and their kinds.

    Parameters
    ----------
    json
        Print JSON only.
    """
    from sciml.catalogue import problems as listed

    found = listed()
    kind = kinds(found)
    if json:
        return emit({name: {"kind": kind[name], "what": what} for name, what in found.items()})
    table(("problem", "kind", "what it is"), [(name, kind[name], what) for name, what in found.items()])
    return CERTIFIED


def solve(
    name: str,
    /,
    *,
    set: Pairs = None,
    solver: str | None = None,
    solver_set: Pairs = None,
    guess: str | None = None,
    target: Pairs = None,
    batch: int | None = None,
    device: str | None = None,
    plot: Path | None = None,
    member: int = 0,
    save: Path | None = None,
    json: Flag = False,
) -> int:
    """Solve a problem and print its certificate.

    Parameters
    ----------
    name
        A problem of the catalogue, or the path of a problem file.
    set
        Settings of the problem, as in `n=1024 viscosity=0.01 times=0,0.5,1`.
    solver
        Class of the solver, as in `conjugate-gradient`; if left out, what the problem recommends.
    solver_set
        Settings of the solver, as in `preconditioner=multigrid max_steps=40`.
    guess
        Folder of a run, or pretrained weights: the solver starts from its answer (`--solver trained`: only that).
    target
        Targets of the gates, as in `discrete=1e-12`.
    batch
        Draw this many random members.
    device
        Where to compute, as in `cuda`.
    plot
        Write a picture (.png, .pdf, .svg, ...), or a movie of an evolution (.gif).
    member
        The member to draw.
    save
        Write the solution as netCDF.
    json
        Print JSON only.
    """
    from sciml.core.solution import SolveError
    from sciml.show.canvas import check_format
    from sciml.show.summary import solution_facts
    from sciml.solving import solve as solve_problem

    for path in (plot, save):
        check_writable(path)
    check_ending(save, (".nc", ".h5", ".hdf5"), "--save")
    if plot is not None:
        check_format(plot, ("gif",))
    posed = problem_of(name, settings_of(set), batch)
    if target:
        posed = posed.with_target(**targets_of(target))
    if device is not None:
        posed = posed.to(device=device)
    chosen = solver_of(solver, settings_of(solver_set), guess, posed)
    failure = None
    try:
        solution = solve_problem(posed, chosen, progress=(sys.stdout.isatty() and not json) or None)
    except SolveError as error:
        solution, failure = error.solution, error
    written = {}
    if failure is None:
        if plot is not None:
            solution.plot(plot, member)
            written["plot"] = str(plot)
        if save is not None:
            solution.save(save)
            written["save"] = str(save)
    if json:
        emit({**solution_facts(solution), "written": written})
    else:
        show(solution, written)
    if failure is not None:
        say(str(failure))
    return CERTIFIED if solution.ok else UNCERTIFIED


def certify(file: Path, /, *, json: Flag = False) -> int:
    """Check a solution that `sciml solve --save` wrote: build its problem again and measure.

    Parameters
    ----------
    file
        A netCDF file with a recipe.
    json
        Print JSON only.
    """
    import torch

    from sciml.core.export import unknown_name
    from sciml.core.inverse import Inverse
    from sciml.core.recipe import Recipe
    from sciml.core.solution import Answer, Code, decide
    from sciml.files import open_dataset
    from sciml.show.summary import check_text, plain

    data = open_dataset(file)
    text = data.attrs.get("recipe")
    if not isinstance(text, str) or not text:
        raise InputError(f"'{file}' carries no recipe, so its problem cannot be built; certify it in Python.")
    recipe = Recipe.from_json(text)
    try:
        posed = recipe.build()
    except KeyError as error:
        raise InputError(
            f"the recipe of '{file}' refers to arrays beside it ({error}); certify it in Python."
        ) from error
    name = unknown_name(posed)
    found = stored(data, name)
    if found is None:
        raise InputError(f"'{file}' has no variable '{name}'; it has {', '.join(map(str, data.data_vars))}.")
    value = found.reshape(-1, *answer_shape(posed))
    claim = torch.full((len(value),), int(Code.CONVERGED))
    weight, dual = None, None
    if isinstance(posed, Inverse):
        if posed.weight is None and "weight" in data:  # chosen by the solver
            weight = torch.tensor(data["weight"].values)
        duals = {key: found for key in ("data", "prior") if (found := stored(data, f"dual_{key}")) is not None}
        if "prior" in duals:
            shapes = {"data": posed.data.shape[1:], "prior": posed.prior.operator.codomain.shape}
            dual = {key: found.reshape(-1, *shapes[key]) for key, found in duals.items()}
    checks = posed.certify(Answer(value, claim, posed=weight, dual=dual))
    codes = decide(claim, checks)
    code = Code(int(codes.max()))
    if json:
        rows = [{"name": c.name, "value": c.value.tolist(), "target": c.target} for c in checks]
        emit({"problem": posed.name, "code": code.name, "checks": plain(rows)})
    else:
        write(f"{posed.name}: {code.name}  {'  '.join(map(check_text, checks))}")
    return CERTIFIED if code is Code.CONVERGED else UNCERTIFIED


def stored(data: xarray.Dataset, name: str) -> Tensor | None:
    """A variable as it was saved: complex ones lie in the file as real and imaginary part."""
    import torch

    if name in data:
        return torch.tensor(data[name].values)
    parts = [f"{name}_{part}" for part in ("real", "imaginary")]
    return torch.complex(*(torch.tensor(data[part].values) for part in parts)) if set(parts) <= set(data) else None


def data(file: Path, /, *, names: Pairs = None, dims: Pairs = None, json: Flag = False) -> int:
    """Say what a data file holds: variables, axes, units, ranges, attributes.

    Parameters
    ----------
    file
        Our own layout, PDEBench, measured CT, MRI or impedance tomography, MATLAB, NumPy, torch or HDF5.
    names
        Names in the file and here, as in `nu=coefficient tensor=u`.
    dims
        Names of the axes, as in `sample x y`.
    json
        Print JSON only.
    """

    found = contents(opened(file, names, dims))
    if json:
        return emit(found)
    columns = ("variable", "axes", "type", "unit", "smallest", "largest", "not finite")
    table(columns, ([row[column] for column in columns] for row in found["variables"]), title=str(file))
    if found["coordinates"]:
        lines = ("coordinate", "length", "unit", "first", "last")
        table(lines, ([row[column] for column in lines] for row in found["coordinates"]))
    if found["attributes"]:
        table(("attribute", "value"), ((key, str(value)[:300]) for key, value in found["attributes"].items()))
    return CERTIFIED


def generate(
    name: str,
    /,
    *,
    count: int,
    out: Path,
    seed: int = 0,
    set: Pairs = None,
    solver: str | None = None,
    solver_set: Pairs = None,
    block: int | None = None,
    dtype: str = "float32",
    json: Flag = False,
) -> int:
    """Draw random members of a problem, solve them, and write those that are certified to an HDF5 file.

    Parameters
    ----------
    name
        A problem of the catalogue, or the path of a problem file.
    count
        Members to write.
    out
        The file; the same command after an interruption goes on where it stopped.
    seed
        Of the random members.
    set
        Settings of the problem, as in `n=85`.
    solver
        Class of the solver; what the problem recommends if left out.
    solver_set
        Settings of the solver.
    block
        Members solved at once.
    dtype
        On disk: float32 or float64.
    json
        Print JSON only.
    """
    import torch

    from sciml.files import open_dataset
    from sciml.training import generate as make

    check_writable(out)
    if dtype not in ("float32", "float64"):
        raise InputError(f"--dtype is {dtype!r}; use float32 or float64.")
    kind = solver_of(solver, settings_of(solver_set), None, None)
    settings = settings_of(set)
    path = make(
        name, count=count, out=out, seed=seed, solver=kind, block=block, dtype=getattr(torch, dtype), **settings
    )
    with open_dataset(path) as found:
        facts = {
            "file": str(path), "members": count, "bytes": path.stat().st_size,
            "variables": {str(key): dict(value.sizes) for key, value in found.data_vars.items()},
            "certificate": found.attrs.get("certificate", ""), "redrawn": found.attrs.get("redrawn", 0),
        }  # fmt: skip
    from sciml.show.summary import plain

    if json:
        return emit(plain(facts))
    table(("", ""), facts.items())
    return CERTIFIED
