"""The command that compares solvers on one problem: bench."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sciml.cli.terminal import CERTIFIED, emit, say, table, write
from sciml.cli.words import check_writable, problem_of, settings_of, solver_of, targets_of
from sciml.domains.errors import InputError

__all__ = ["bench"]

Pairs = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]
Flag = Annotated[bool, Parameter(negative="")]


def bench(
    name: str,
    /,
    *,
    set: Pairs = None,
    batch: int | None = None,
    target: Pairs = None,
    solver: Pairs = None,
    weights: Pairs = None,
    classical: Flag = False,
    repeats: int = 5,
    seconds: float = 60.0,
    threads: int | None = None,
    device: str | None = None,
    out: Path | None = None,
    json: Flag = False,
) -> int:
    """Compare every solver that accepts a problem on the same members: error, certificate, cost.

    Parameters
    ----------
    name
        A problem of the catalogue, or the path of a problem file.
    set
        Settings of the problem, as in `n=1024 viscosity=0.01 times=0,0.5,1`.
    batch
        Draw this many random members.
    target
        Targets of the gates, as in `discrete=1e-12`.
    solver
        Only these, by the names of their classes, as in `multigrid conjugate-gradient`; if left out, all that accept.
    weights
        Folders of runs, or pretrained weights by name; if left out (and no solver is named), all that are shipped.
    classical
        Leave shipped weights out.
    repeats
        Runs of each solver after the first.
    seconds
        Time limit of each solver.
    threads
        Of torch.
    device
        Where to compute, as in `cuda`.
    out
        Folder of the bench: bench.json (written after each solver; the same command goes on from there), bench.csv,
        bench.png, bench.html.
    json
        Print JSON only.
    """
    from sciml.solving import bench as compare

    check_writable(out, folder=True)
    if classical and weights:
        raise InputError("--classical leaves weights out, and --weights names some; give one of them.")
    posed = problem_of(name, settings_of(set), batch)
    if target:
        posed = posed.with_target(**targets_of(target))
    if device is not None:
        posed = posed.to(device=device)
    given = None if solver is None else [solver_of(word, {}, None, posed) for word in solver]
    found = compare(
        posed, given, weights=() if classical else weights, repeats=repeats, seconds=seconds, threads=threads, out=out,
        progress=None if json else True if sys.stdout.isatty() else _told,
    )  # fmt: skip
    if out is not None:
        found.save(out / "bench.csv")
        found.plot(out / "bench.png")
        found.report(out / "bench.html")
    if json:
        return emit(found.to_json())
    table(*found.table(), title=f"{found.facts['problem']}, {found.facts['members']} members")
    for note in found.notes():
        write(note)
    if found.refused:
        table(("not asked", "why"), [(one.name, one.reason) for one in found.refused])
    if out is not None:
        write(f"written to {out}: bench.json, bench.csv, bench.png, bench.html")
    return CERTIFIED


def _told(done: int, total: int, words: str) -> None:
    """One line per solver where there is no terminal for a bar."""
    if ": " in words:
        say(f"{done} of {total} {words}")
