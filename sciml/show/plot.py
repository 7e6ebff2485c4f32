"""Pictures of solutions: lines, images, mid-plane slices, space-time images, snapshots and movies."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from sciml.core.inverse import Inverse
from sciml.domains.errors import InputError
from sciml.files.checkpoint import write_atomic
from sciml.show.canvas import COLOURS, Panel, blank, check_format, legend, panels, save, tidy
from sciml.show.fields import Part, field_panels, image, limits_of, parts_of
from sciml.show.reconstruction import pages
from sciml.show.summary import certificate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sciml.core.solution import Solution

__all__ = ["movie", "plot"]

MOST_INPUTS = 3
MOST_SNAPSHOTS = 5
MOST_FRAMES = 120
FAR = 1e29


def plot(solution: Solution, path: str | os.PathLike[str] | None = None, member: int = 0) -> Figure:
    """One member of a solution on one page, and the certificate above it.

    Inputs that vary in space, the answer, and the monitored history. One dimension is drawn as a line, two as an image
    with a colour bar, three as the mid-planes of each axis on one scale. An evolution in one dimension is drawn as a
    space-time image and snapshots, in more dimensions as snapshots. Complex fields show magnitude and phase; posterior
    samples add their standard deviation. Values that are not finite are grey.

    Of an inverse problem: the truth if it is kept, the reconstruction and its error on scales of their own, the data, and what
    the reconstruction leaves of them in standard deviations of the noise; of three axes the middle of the last. Images run
    from the percentile 0.5 to 99.5 of the truth, or of the reconstruction.

    Args:
        solution: what ``solve`` returned.
        path: where to write it, by ending: ``.png``, ``.pdf``, ``.svg``, ``.jpg``, ``.webp``, or ``.gif`` for a movie of an
            evolution (the figure returned is then still the page).
        member: which member of the batch.

    Raises:
        InputError: no such member, a missing folder, an ending that names no image format, a movie of one frame.
    """
    members = int(solution.value.shape[0])
    if not -members <= member < members:
        raise InputError(f"{solution.problem.name!r} has {members} members; there is no member {member}.")
    member %= members
    if path is not None and check_format(path, ("gif",)) == "gif":
        movie(solution, path, member)
        path = None
    inverse = isinstance(solution.problem, Inverse)
    if inverse:
        drawn = pages(solution, member)
    else:
        evolves = hasattr(solution.problem, "times")
        drawn = _inputs(solution, member)
        drawn += _evolution(solution, member) if evolves else _state(solution, member)
    drawn += _history(solution, member)
    label = f"{solution.problem.name}" + (f", member {member} of {members}" if members > 1 else "")
    columns = (
        3
        if solution.problem.space.dim == 3 or inverse and len(drawn) > 4
        else min(4, max(2, -(-len(drawn) // 2)) if len(drawn) > 4 else 4)
    )
    figure = panels(drawn, label, certificate(solution, member), columns)
    if path is not None:
        save(figure, path)
    return figure


def _inputs(solution: Solution, member: int) -> list[Panel]:
    problem = solution.problem
    found: list[Panel] = []
    for name, value in problem.fields.items():
        if name in (problem.unknown, "start") or len(found) >= MOST_INPUTS * (3 if problem.space.dim == 3 else 1):
            continue
        for part in parts_of(name, value[member % len(value)], problem.space):
            if not part.constant:
                found += field_panels(part)
    return found


def _state(solution: Solution, member: int) -> list[Panel]:
    space = solution.problem.space
    found = [
        panel
        for part in parts_of(solution.problem.unknown, solution.value[member], space)
        for panel in field_panels(part)
    ]
    if solution.samples is not None and len(solution.samples) > 1:
        spread = solution.samples[:, member].std(0)
        for part in parts_of(f"standard deviation of {solution.problem.unknown}", spread, space):
            found += field_panels(dataclasses.replace(part, error=True))
    return found


def _frames(solution: Solution, member: int) -> tuple[list[float], list[list[Part]]]:
    """Times and the parts of each frame, the start first where it is not among the wanted times; one scale per part."""
    problem: Any = solution.problem
    times = list(problem.times)
    states = list(solution.value[member])
    if times[0] > problem.begin and problem.start.shape[1:] == solution.value.shape[2:]:
        times.insert(0, float(problem.begin))
        states.insert(0, problem.start[member % len(problem.start)])
    frames = [parts_of(problem.unknown, state, problem.space) for state in states]
    shared = [limits_of(column) for column in zip(*frames, strict=True)]
    return times, [
        [dataclasses.replace(part, limits=limits) for part, limits in zip(frame, shared, strict=True)]
        for frame in frames
    ]


def _chosen(count: int, most: int) -> list[int]:
    """At most ``most`` evenly chosen indices, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _evolution(solution: Solution, member: int) -> list[Panel]:
    import numpy as np

    times, frames = _frames(solution, member)
    found: list[Panel] = []
    if solution.problem.space.dim == 1:
        for channel, first in enumerate(frames[0]):
            column = [frame[channel] for frame in frames]
            if len(times) > 2:
                stack = np.stack([part.values for part in column], 1)
                whole = Part(
                    first.label,
                    stack,
                    (first.lines[0], np.asarray(times)),
                    (first.names[0], "time"),
                    first.cyclic,
                    first.limits,
                )
                found.append(Panel(lambda axes, whole=whole: _space_time(axes, whole)))  # type: ignore[misc]
            found.append(Panel(lambda axes, column=column: _lines(axes, column, times)))  # type: ignore[misc]
        return found
    dim = solution.problem.space.dim
    for channel in range(len(frames[0])):
        for index in _chosen(len(times), MOST_SNAPSHOTS - (dim == 3)):
            part = frames[index][channel]
            named = dataclasses.replace(part, label=f"{part.label}, t = {times[index]:.3g}")
            last = index == len(times) - 1
            found += field_panels(named) if dim == 2 or last else field_panels(named)[:1]
    return found


def _space_time(axes: Axes, part: Part) -> None:
    """Space to the right, time upwards; times need not be evenly spaced."""
    import matplotlib
    import numpy as np

    from sciml.show.fields import colour_bar, scale

    map_name, low, high = scale(part)
    colours = matplotlib.colormaps[map_name].with_extremes(bad="#bbbbbb")
    step = max(1, part.values.shape[0] // 1024)
    values = part.values[::step].T
    smooth = len(part.lines[1]) < 64 and bool(np.isfinite(values).all())
    shown = axes.pcolormesh(
        part.lines[0][::step], part.lines[1], np.ma.masked_invalid(values), cmap=colours, vmin=low, vmax=high,
        shading="gouraud" if smooth else "nearest", rasterized=True,
    )  # fmt: skip
    tidy(axes, part.names[0], part.names[1], part.label)
    axes.grid(visible=False)
    colour_bar(axes, shown)


def _lines(axes: Axes, column: list[Part], times: list[float]) -> None:
    chosen = _chosen(len(times), MOST_SNAPSHOTS)
    for place, index in enumerate(chosen):
        axes.plot(
            column[index].lines[0],
            column[index].values,
            color=COLOURS[place],
            linewidth=1.4,
            label=f"t = {times[index]:.3g}",
        )
    tidy(axes, column[0].names[0], "", f"{column[0].label}, snapshots")
    axes.margins(x=0)
    legend(axes)


def _history(solution: Solution, member: int) -> list[Panel]:
    import numpy as np

    history = solution.history
    if history is None or history.ndim != 2 or len(history) < 2:
        return []
    values = history[:, member % history.shape[1]].detach().cpu().numpy().astype(float)
    values = np.where(
        (values > 0) & (values < FAR), values, np.nan
    )  # solvers begin far away, before the first measurement
    if np.isfinite(values).sum() < 2:
        return []
    gates = [check for check in solution.checks if check.target is not None]
    gates = [
        gate for gate in gates if gate.name == "optimality"
    ] or gates  # the misfit of a chosen weight comes after it

    def draw(axes: Axes) -> None:
        axes.semilogy(
            np.arange(len(values)),
            values,
            color=COLOURS[0],
            linewidth=1.4,
            marker="o" if len(values) < 40 else "",
            markersize=3,
            label="monitored",
        )
        if len(gates) == 1 and gates[0].target is not None:
            axes.axhline(
                gates[0].target, color=COLOURS[1], linewidth=1.0, linestyle="--", label=f"target {gates[0].target:.0e}"
            )
        tidy(axes, "step", "", "history of " + (gates[0].name if len(gates) == 1 else "the monitored number"))
        legend(axes)

    return [Panel(draw)]


def movie(solution: Solution, path: str | os.PathLike[str], member: int = 0, seconds: float = 5.0) -> None:
    """Write an animated GIF of an evolution, about ``seconds`` long, whole or not at all.

    Lines in one dimension, images in two, the mid-plane of the last axis in three; at most 120 frames on one scale.

    Raises:
        InputError: the problem does not evolve, or there are fewer than two frames.
    """
    import io

    import numpy as np
    from PIL import Image

    if not hasattr(solution.problem, "times"):
        raise InputError(f"{solution.problem.name!r} does not evolve, so there is no movie of it; use .png.")
    times, frames = _frames(solution, member)
    if len(times) < 2:
        raise InputError(
            f"{solution.problem.name!r} was solved for one time; ask for several, as in times=[0.0, 0.1, 0.2]."
        )
    chosen = _chosen(len(times), MOST_FRAMES)
    shown: list[Image.Image] = []
    if frames[0][0].values.ndim == 3:
        frames = [[part.at(2, part.values.shape[2] // 2) for part in frame] for frame in frames]
    count = len(frames[0])
    figure = blank(4.6 * count, 3.8)
    artists: list[Any] = []
    for place, part in enumerate(frames[0]):
        axes = figure.add_subplot(1, count, place + 1)
        if part.values.ndim == 1:
            tidy(axes, part.names[0], "", part.label)
            low, high = part.limits or (0.0, 1.0)
            pad = 0.05 * (high - low) or 0.5
            axes.set(xlim=(part.lines[0][0], part.lines[0][-1]), ylim=(low - pad, high + pad))
            artists.append(axes.plot(part.lines[0], part.values, color=COLOURS[0], linewidth=1.6)[0])
        else:
            artists.append(image(axes, part))
    head = figure.suptitle("", fontsize=9, x=0.01, ha="left", parse_math=False)
    for index in chosen:
        head.set_text(f"t = {times[index]:.3f}   {solution.problem.name.partition(',')[0]}")
        for artist, part in zip(artists, frames[index], strict=True):
            if part.values.ndim == 1:
                artist.set_ydata(part.values)
            else:
                steps = tuple(slice(None, None, max(1, -(-n // 1024))) for n in part.values.shape)
                artist.set_data(part.values[steps].T)
        canvas: Any = figure.canvas
        canvas.draw()
        rgb = np.asarray(canvas.buffer_rgba())[..., :3]
        shown.append(Image.fromarray(rgb.copy()).quantize(128, dither=Image.Dither.NONE))
    buffer = io.BytesIO()
    pause = max(20, round(1000 * seconds / len(shown)))
    pauses = [pause] * (len(shown) - 1) + [pause + 800]
    shown[0].save(buffer, format="GIF", save_all=True, append_images=shown[1:], duration=pauses, loop=0, disposal=1)
    write_atomic(path, buffer.getvalue())
