"""Pictures of training: curves of a run, and what a network predicts beside the truth."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError
from sciml.show.canvas import COLOURS, Panel, legend, panels, save, tidy
from sciml.show.fields import Part, field_panels, limits_of, line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sciml.training.fitted import Fit

__all__ = ["history_of", "samples", "training_curves"]


def history_of(run: Fit | str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows (one per epoch) of a fit, or of a folder that ``fit`` writes or wrote to.

    Raises:
        InputError: the folder holds no history.
    """
    if not isinstance(run, str | os.PathLike):
        return list(run.history)
    log = Path(run) / "log.jsonl"
    rows: list[dict[str, Any]] = []
    if log.is_file():
        for text in log.read_text().splitlines():
            try:
                rows.append(json.loads(text))
            except ValueError:  # the last line of a run that is being written or was killed
                break
    elif (Path(run) / "checkpoint.safetensors").is_file():
        from sciml.files import load_tensors

        _, words = load_tensors(Path(run) / "checkpoint.safetensors")
        try:
            rows = json.loads(words.get("sciml", "{}")).get("history", [])
        except ValueError:
            rows = []
    if not rows:
        raise InputError(
            f"'{os.fspath(run)}' holds no history of a training run; give the folder passed to `fit` as out=."
        )
    return rows


def training_curves(run: Fit | str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> Figure:
    """Training loss and validation error by epoch (logarithmic), the epoch that was kept, and the learning rate.

    Args:
        run: a fit, or the folder of a run, finished or under way.
        path: where to write the figure.

    Raises:
        InputError: there is no history yet.
    """
    rows = history_of(run)
    if not rows:
        raise InputError("this fit has no history of training to draw; it was built by hand.")
    epochs = _column(rows, "epoch")

    def errors(axes: Axes) -> None:
        axes.semilogy(epochs, _column(rows, "loss"), color=COLOURS[0], linewidth=1.5, label="training loss")
        validation = _column(rows, "validation")
        axes.semilogy(epochs, validation, color=COLOURS[1], linewidth=1.5, label="validation, relative L2")
        finite = [(value, epoch) for value, epoch in zip(validation, epochs, strict=True) if value == value]
        if finite:
            best, epoch = min(finite)
            axes.plot(
                [epoch], [best], "o", color=COLOURS[1], markersize=5, label=f"kept: {best:.3g} at epoch {epoch:.0f}"
            )
        tidy(axes, "epoch", "", "errors")
        legend(axes)

    def rate(axes: Axes) -> None:
        axes.plot(epochs, _column(rows, "learning_rate"), color=COLOURS[2], linewidth=1.5)
        tidy(axes, "epoch", "", "learning rate")
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes.yaxis.get_offset_text().set_fontsize(7)

    title = str(run) if not isinstance(run, os.PathLike) else os.fspath(run)
    figure = panels([Panel(errors), Panel(rate)], "", title, 2, (4.6, 3.1))
    if path is not None:
        save(figure, path)
    return figure


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [float("nan") if row.get(name) is None else float(row[name]) for row in rows]


def samples(fit: Fit, data: Any, count: int = 3, path: str | os.PathLike[str] | None = None, seed: int = 0) -> Figure:
    """Randomly chosen members, one row each: inputs, target, prediction, and their difference.

    Target and prediction share one scale, all errors share another. In one dimension target and prediction are drawn on
    the same axes; three dimensions show the mid-plane of the last axis.

    Args:
        fit: a trained network.
        data: members with known targets: a Dataset with the fit's variables, or Samples.
        count: number of members to draw.
        path: where to write the figure.
        seed: which members.

    Raises:
        InputError: variables are missing or the data is of another kind than the training data.
    """
    import torch

    from sciml.metrics import relative_l2
    from sciml.training.fitted import as_samples
    from sciml.training.samples import Samples

    named = not isinstance(data, Samples)
    given = as_samples(
        data, fit.signature.inputs if named else None, fit.signature.targets if named else None, fit.dtype
    )
    fit.refuse(given.signature)
    if count < 1:
        raise InputError(f"samples: count is {count}; draw at least one member.")
    order = torch.randperm(len(given), generator=torch.Generator().manual_seed(seed))
    chosen = sorted(order[: min(count, len(given))].tolist())
    a, u = given.batch(chosen)
    prediction = fit.evaluate(a).to(u.device, u.dtype)
    scores = relative_l2(prediction, u)
    names = given.channels
    rows: list[list[Part]] = []
    for row in range(len(chosen)):
        inputs = [_part(name, a[row, i], given) for i, name in enumerate(names[0])]
        inputs = [part for part in inputs if not part.constant][:3]
        for i, name in enumerate(names[1][:2]):
            target, guess = _part(name, u[row, i], given), _part(name, prediction[row, i], given)
            shared = limits_of([target, guess])
            target = dataclasses.replace(target, label=f"{name}, target", limits=shared)
            guess = dataclasses.replace(guess, label=f"{name}, predicted ({float(scores[row]):.2g} off)", limits=shared)
            miss = dataclasses.replace(
                guess, label=f"|error| of {name}", values=abs(guess.values - target.values), error=True
            )
            rows.append([*inputs, target, guess, miss])
    worst = limits_of([row[-1] for row in rows])
    drawn: list[Panel] = []
    width = max(len(row) for row in rows)
    for row_of in rows:
        row_of[-1] = dataclasses.replace(row_of[-1], limits=(0.0, worst[1]))
        pads = [Panel(_nothing)] * (width - len(row_of))
        drawn += pads
        if row_of[0].values.ndim == 1:
            drawn += [field_panels(part)[0] for part in row_of[:-3]]
            drawn += [_both(row_of[-3], row_of[-2]), *field_panels(row_of[-1])]
        else:
            drawn += [field_panels(_flat(part))[0] for part in row_of]
    columns = width - (rows[0][0].values.ndim == 1)
    figure = panels(drawn, f"members {', '.join(map(str, chosen))}", str(fit), columns, (3.3, 2.7))
    if path is not None:
        save(figure, path)
    return figure


def _nothing(axes: Axes) -> None:
    axes.set_axis_off()


def _part(name: str, field: Any, given: Any) -> Part:
    import numpy as np

    values = field.detach().cpu().numpy().astype(float)
    first = [1 if kind == "interior" else 0 for kind in given.signature.grid]  # boundary nodes are no unknowns there
    lines = tuple((np.arange(n) + i) * h for n, i, h in zip(values.shape, first, given.spacing, strict=True))
    return Part(name, values, lines, tuple(given.signature.dims))


def _flat(part: Part) -> Part:
    return part.at(2, part.values.shape[2] // 2) if part.values.ndim == 3 else part


def _both(target: Part, guess: Part) -> Panel:
    def draw(axes: Axes) -> None:
        line(axes, target)
        axes.lines[0].set_label("target")
        axes.plot(guess.lines[0], guess.values, color=COLOURS[1], linewidth=1.3, linestyle="--", label="predicted")
        tidy(axes, target.names[0], "", guess.label)
        legend(axes)

    return Panel(draw)
