"""Commands about networks: train, predict, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from sciml.cli.terminal import CERTIFIED, emit, table, write
from sciml.cli.words import check_writable, fit_of, names_of, opened, settings_of
from sciml.domains.errors import InputError

__all__ = ["predict", "report", "train"]

Pairs = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]
Flag = Annotated[bool, Parameter(negative="")]


def train(
    file: Path,
    /,
    *,
    targets: Annotated[list[str], Parameter(consume_multiple=True, negative="")],
    network: str,
    out: Path,
    inputs: Pairs = None,
    names: Pairs = None,
    dims: Pairs = None,
    set: Pairs = None,
    history: int = 0,
    horizon: int = 1,
    test: str = "0.1",
    validate: str = "0.1",
    epochs: int = 60,
    batch_size: int = 20,
    learning_rate: float = 1e-3,
    loss: str = "relative-l2",
    augment: Pairs = None,
    seed: int = 0,
    device: str | None = None,
    resume: bool = True,
    json: Flag = False,
) -> int:
    """Train a network on a data file; print its score on members it never saw.

    Parameters
    ----------
    file
        The data, in any layout that `sciml data` reads.
    targets
        Variables that come out.
    network
        Class of the network, as in `fno`.
    out
        Folder of the run: checkpoint, history, settings; the same command after an interruption goes on.
    inputs
        Variables that go in.
    names
        Names in the file and here, as in `nu=coefficient tensor=u`.
    dims
        Names of the axes, as in `sample x y`.
    set
        Settings of the network, as in `modes=12 width=32`.
    history
        Learn time steps instead: this many frames of the target go in ...
    horizon
        ... and this many come out.
    test
        Members that are only scored at the end: a fraction, or a file; 0 for none.
    validate
        Members that choose the best epoch: a fraction, or a file.
    epochs
        Passes over the data.
    batch_size
        Members per step.
    learning_rate
        The peak of the schedule.
    loss
        `relative-l2` or `h1`.
    augment
        Symmetries of the data: `declared` (those of the problem that the data were made from, checked first), or by name:
        `reflection`, `node-reflection`, `transposition`, `translation`.
    seed
        Of the split, the weights and the order of members.
    device
        Where to compute, as in `cuda`.
    resume
        Go on from the state in the folder, if it holds one of this run.
    json
        Print JSON only.
    """
    from sciml.cli import runs
    from sciml.show.summary import plain

    check_writable(out, folder=True)
    task = runs.Task(
        file=str(file), inputs=tuple(inputs or ()), targets=tuple(targets), names=names_of(names), dims=tuple(dims or ()),
        history=history, horizon=horizon, test=test, validate=validate, seed=seed,
    )  # fmt: skip
    facts = runs.train(
        task, network, settings_of(set), out, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, loss=loss,
        augment=tuple(augment or ()), device=device, resume=resume,
    )  # fmt: skip
    if json:
        return emit(plain(facts))
    table(("", ""), facts.items())
    return CERTIFIED


def predict(run: str, file: Path, /, *, out: Path, names: Pairs = None, dims: Pairs = None, json: Flag = False) -> int:
    """Let a trained network predict its targets for a data file.

    Parameters
    ----------
    run
        Folder of a training run, or name of pretrained weights.
    file
        The inputs; if the targets are there too, the prediction is scored.
    out
        The netCDF file to write.
    names
        Names in the file and here, as in `nu=coefficient`.
    dims
        Names of the axes, as in `sample x y`.
    json
        Print JSON only.
    """
    from sciml.files.checkpoint import replacing

    check_writable(out)
    fit = fit_of(run)
    given = opened(file, names, dims)
    found = fit.predict(given)
    with replacing(out) as temporary:
        found.to_netcdf(temporary, engine="h5netcdf")
    facts: dict[str, Any] = {"file": str(out), "members": int(found.sizes["sample"]), "network": str(fit)}
    if all(name in given for name in fit.signature.targets):
        score = fit.score(given)
        facts |= {"relative L2": score.relative_l2, "relative H1": score.relative_h1}
    if json:
        return emit(facts)
    table(("", ""), facts.items())
    return CERTIFIED


def report(run: Path, /, *, out: Path | None = None, json: Flag = False) -> int:
    """Write one self-contained HTML page about a training run.

    Parameters
    ----------
    run
        Folder of the run, finished or under way.
    out
        The page; `report.html` in the folder if left out.
    json
        Print JSON only.
    """
    from sciml.cli.runs import test_members
    from sciml.show import report as make_page

    if not run.is_dir():
        raise InputError(f"there is no folder '{run}'; give the folder passed to `sciml train` as --out.")
    page = run / "report.html" if out is None else out
    check_writable(page)
    path = make_page(run, page, data=test_members(run))
    if json:
        return emit({"file": str(path)})
    write(str(path))
    return CERTIFIED
