"""Pictures of inverse problems: truth, reconstruction and error on common scales, the data, what they leave unexplained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.core.export import Axis, data_axes, unknown_name
from sciml.core.inverse import Inverse
from sciml.core.solution import Solution
from sciml.domains.errors import InputError
from sciml.domains.pixels import Pixels
from sciml.show.canvas import COLOURS, Panel, legend, tidy
from sciml.show.fields import Part, colour_bar, image, in_unit, parts_of, place, written

if TYPE_CHECKING:
    import numpy
    from matplotlib.axes import Axes

__all__ = ["Pictures", "data_panel", "largest", "pages", "quality", "residual_of", "sigmas", "truth_of"]

SIGMAS = 4.0
"""Residuals are shown between minus and plus so many standard deviations of the noise."""
MOST_BINS = 1024


def pages(solution: Solution, member: int) -> list[Panel]:
    """What is drawn of one member of an inverse problem: truth, reconstruction, error; data, residual (history follows)."""
    problem: Inverse[Any] = solution.problem  # type: ignore[assignment]
    value, truth = solution.value[member], truth_of(problem, member)
    pictures = Pictures(problem, [value] if truth is None else [truth])
    found = [] if truth is None else [pictures.panel("truth", truth)]
    name = unknown_name(problem)
    found.append(pictures.panel(", ".join([name, *quality(solution, member, ("PSNR",))]), value, truth))
    if truth is not None:
        found.append(pictures.error("error", value - truth, largest([value - truth])))
    if solution.samples is not None and len(solution.samples) > 1:
        spread = solution.samples[:, member].std(0)
        found.append(pictures.error(f"standard deviation of {name}", spread, largest([spread]), signed=False))
    residual = residual_of(solution, member)
    told = ", ".join(["residual / sigma", *quality(solution, member, ("chi^2/dof",))])
    found += _kinds(problem, value)
    data = _data(problem, member)
    found.append(data_panel(problem, Part("data", data, (), ()), pictures))
    found.append(data_panel(problem, sigmas(told, residual)))
    return found


def _kinds(problem: Inverse[Any], value: Tensor) -> list[Panel]:
    """The kinds of material that the forward model can tell apart, where it can."""
    import numpy as np

    tell = getattr(problem.forward, "kinds", None)
    if tell is None:
        return []
    try:
        labels = tell(value)[0]
    except InputError:  # an image of fewer kinds
        return []
    n = len(labels)
    part = Part(
        "0 background, 1 resistive, 2 conductive",
        labels.flip(0).T.numpy().astype(float),
        (np.arange(n), np.arange(n)),
        ("pixel", "pixel"),
    )
    return [Panel(partial(image, part=dataclasses.replace(part, limits=(0.0, 2.0))))]


def quality(solution: Solution, member: int, which: Sequence[str]) -> list[str]:
    """The numbers of one member in words: ``chi^2/dof 1.02``, ``PSNR 28.1 dB``; those that there are."""
    from sciml.metrics import psnr

    found = []
    for name in which:
        if name == "PSNR":
            truth = truth_of(solution.problem, member)
            if truth is not None and bool((truth != truth.reshape(-1)[0]).any()):
                value = solution.value[member].detach().to(truth.device)
                found.append(f"PSNR {float(psnr(value[None], truth[None])):.1f} dB")
        else:
            values = [c.value for c in solution.checks if c.name == "chi-square per degree of freedom"]
            found += [f"{name} {float(value[member % len(value)]):.3g}" for value in values]
    return found


class Pictures:
    """How images of one problem are drawn: on one scale, with the coordinates of its domain."""

    def __init__(self, problem: Any, scale: Sequence[Tensor]) -> None:
        self.problem = problem
        self.grey = isinstance(problem.space.domain, Pixels)
        self.limits = _robust([self._part("", x).values for x in scale])

    def panel(self, label: str, x: Tensor, truth: Tensor | None = None) -> Panel:
        """An image; over one axis a line, with the truth beside it."""
        part = self._part(label, x)
        if part.values.ndim == 1:
            beside = None if truth is None else self._part("truth", truth)
            return Panel(partial(_line, part=part, beside=beside))
        colours = "gray" if self.grey else ""
        return Panel(partial(image, part=dataclasses.replace(part, limits=self.limits, colours=colours)))

    def error(self, label: str, e: Tensor, most: float, signed: bool = True) -> Panel:
        """A difference, in colours that are symmetric about zero; of complex images its size."""
        signed = signed and not e.is_complex()
        part = self._part(label if signed or not e.is_complex() else f"|{label}|", e)
        if part.values.ndim == 1:
            return Panel(partial(_line, part=part, colour=COLOURS[1]))
        limits, colours = ((-most, most), "RdBu_r") if signed else ((0.0, most), "magma")
        return Panel(partial(image, part=dataclasses.replace(part, limits=limits, colours=colours)))

    def _part(self, label: str, x: Tensor) -> Part:
        """The first channel (the magnitude of complex ones), of three axes the middle of the last."""
        part = parts_of("", x, self.problem.space)[0]
        if len(x) > 1:
            label += f", channel 0 of {len(x)}"
        if x.is_complex():
            name, comma, told = label.partition(", ")
            label = f"|{name}|{comma}{told}" if not label.startswith("|") else label
        part = dataclasses.replace(part, label=label, unit=self.problem.forward.unit)
        return part.at(2, part.values.shape[2] // 2) if part.values.ndim == 3 else part


def sigmas(label: str, values: numpy.ndarray[Any, Any]) -> Part:
    return Part(label, values, (), (), limits=(-SIGMAS, SIGMAS), colours="RdBu_r")


def data_panel(problem: Any, part: Part, pictures: Pictures | None = None) -> Panel:
    """Data ``(channel, *axes)``, or a residual of their shape (which has limits and colours).

    Data that are images like the unknown, and of its size, share its scale.
    """
    import numpy as np

    axes, values, label = list(data_axes(problem)), part.values, part.label
    if hasattr(problem.forward, "zero_filled"):
        part, axes = _on_the_grid(problem, part)
        values, label = part.values, part.label
    if len(values) > 1:
        label += f", channel 0 of {len(values)}"
    values = values[0]
    if axes and axes[-1].name == "point":
        values = values.reshape(-1, values.shape[-1])[0]
        points = [line for _, line, _ in axes[-1].points]
        part = dataclasses.replace(part, label=label, values=values)
        return Panel(partial(_points, part=part, points=points, domain=problem.space.domain))
    while values.ndim > 2:  # the middle of the axes that a picture has no room for
        middle = values.shape[-1] // 2
        lines = axes[-1].points
        where = place(in_unit(lines[0][0], lines[0][2]), float(lines[0][1][middle])) if lines else ""
        label += f", {where or f'{axes[-1].name} {middle}'}"
        values, axes = values[..., middle], axes[:-1]
    told = [_ticks(axis, n) for axis, n in zip(axes, values.shape, strict=True)]
    names, places = tuple(name for name, _ in told), tuple(line for _, line in told)
    part = dataclasses.replace(part, label=label, values=values, lines=places, names=names)
    if values.ndim == 0:
        part = dataclasses.replace(part, values=values.reshape(1), lines=(np.zeros(1),), names=("",))
    if part.values.ndim == 1:
        return Panel(partial(_line, part=part, colour=COLOURS[2] if part.colours else COLOURS[0]))
    if part.limits is None:
        grey = "gray" if isinstance(problem.space.domain, Pixels) or axes[0].name == "view" else ""
        limits = _robust([values])
        if pictures is not None and axes[0].name == "x" and _alike(limits, pictures.limits):
            limits = pictures.limits
        part = dataclasses.replace(part, limits=limits, colours=grey)
    return Panel(partial(_sinogram if axes[0].name == "view" else image, part=part))


def _on_the_grid(problem: Any, part: Part) -> tuple[Part, list[Axis]]:
    """Samples of k-space as a whole array, grey where nothing was sampled; the sizes of data on a logarithmic scale."""
    import numpy as np

    values, label = torch.as_tensor(part.values), part.label
    if part.limits is None:
        values, label = values.clamp_min(1e-300).log10(), f"log10 |{label}|"
    whole = problem.forward.zero_filled(values).numpy()
    seen = problem.forward.zero_filled(torch.ones_like(values)).numpy() > 0
    sizes = whole.shape[1:]
    axes = [Axis(f"k_{a}", ((f"k_{a}", np.arange(n) - n // 2, "1"),)) for a, n in zip("xyz", sizes, strict=False)]
    return dataclasses.replace(part, label=label, values=np.where(seen, whole, np.nan)), axes


def _ticks(axis: Axis, count: int) -> tuple[str, numpy.ndarray[Any, Any]]:
    """The label of an axis and the coordinates along it; angles in degrees."""
    import numpy as np

    if not axis.points:
        return axis.name.replace("_", " "), np.arange(count)
    name, line, unit = axis.points[0]
    if unit == "rad":
        return f"{name} (degrees)", np.rad2deg(line)
    return in_unit("detector position" if name == "position" else name.replace("_", " "), unit), line


def _sinogram(axes: Axes, part: Part) -> None:
    """Angles to the right, the detector upwards; angles that are not evenly spaced as bars of their own width."""
    import matplotlib
    import numpy as np

    angles, places = part.lines
    steps = np.diff(angles)
    part = dataclasses.replace(part, names=(part.names[0], part.names[1]))
    if not len(steps) or steps[0] != 0 and np.allclose(steps, steps[0], rtol=1e-3):
        if len(steps) and steps[0] < 0:
            part = dataclasses.replace(part, values=part.values[::-1], lines=(angles[::-1], places))
        image(axes, part)
    elif len(angles) <= MOST_BINS and ((steps > 0).all() or (steps < 0).all()):
        low, high = part.limits or (0.0, 1.0)
        stride = max(1, -(-len(places) // MOST_BINS))
        colours = matplotlib.colormaps[part.colours or "viridis"].with_extremes(bad="#bbbbbb")
        shown = axes.pcolormesh(
            angles, places[::stride], np.ma.masked_invalid(part.values[:, ::stride].T), cmap=colours, vmin=low, vmax=high,
            shading="nearest", rasterized=True,
        )  # fmt: skip
        tidy(axes, part.names[0], part.names[1], part.label)
        axes.grid(visible=False)
        colour_bar(axes, shown)
    else:
        image(axes, dataclasses.replace(part, lines=(np.arange(len(angles)), places), names=("view", part.names[1])))
    axes.set_aspect("auto")


def _points(axes: Axes, part: Part, points: Sequence[Any], domain: Any) -> None:
    """Values at points: stems over one axis, coloured dots in the plane, stems by number otherwise."""
    import numpy as np

    if domain is not None and len(points) == domain.dim <= 2:  # all of the box, where the points lie in it
        corner = domain.corner if isinstance(domain, Pixels) else domain.origin
        box = [(low, low + length) for low, length in zip(corner, domain.extent, strict=True)]
        if all(low <= line.min() and line.max() <= high for (low, high), line in zip(box, points, strict=True)):
            axes.set(xlim=box[0], **({"ylim": box[1]} if len(box) > 1 else {}))
    if len(points) == 2:
        low, high = part.limits or _robust([part.values])
        shown = axes.scatter(
            points[0], points[1], c=part.values, vmin=low, vmax=high, cmap=part.colours or "viridis", s=22,
            edgecolors="#555555", linewidths=0.4,
        )  # fmt: skip
        tidy(axes, "x", "y", part.label)
        axes.set_aspect("equal")
        colour_bar(axes, shown)
        return
    where = points[0] if len(points) == 1 else np.arange(len(part.values))
    drawn = axes.stem(where, part.values, basefmt=" ")
    drawn.markerline.set(color=COLOURS[0], markersize=3)
    drawn.stemlines.set(color=COLOURS[0], linewidth=0.8)
    axes.axhline(0.0, color="#888888", linewidth=0.8)
    tidy(axes, "x" if len(points) == 1 else "point", "", part.label)


def _line(axes: Axes, part: Part, beside: Part | None = None, colour: str = COLOURS[0]) -> None:
    if beside is not None:
        axes.plot(beside.lines[0], beside.values, color="#999999", linewidth=2.2, label=beside.label)
    axes.plot(
        part.lines[0], part.values, color=colour, linewidth=1.3, label="reconstruction",
        marker="." if len(part.values) < 60 else "", markersize=4,
    )  # fmt: skip
    tidy(axes, part.names[0], "" if part.unit == "1" else written(part.unit), part.label)
    axes.margins(x=0)
    legend(axes)


def truth_of(problem: Any, member: int) -> Tensor | None:
    truth = problem.truth
    return None if truth is None else truth[member % len(truth)].detach()


def _plain(x: Tensor) -> numpy.ndarray[Any, Any]:
    """Real numbers: magnitudes of complex ones."""
    found: numpy.ndarray[Any, Any] = (x.abs() if x.is_complex() else x).detach().cpu().numpy().astype(float)
    return found


def _data(problem: Any, member: int) -> numpy.ndarray[Any, Any]:
    """The data of one member, ``(channel, *axes)``; NaN where nothing was measured."""
    import numpy as np

    found = _plain(problem.data[member % len(problem.data)])
    if problem.noise.measured is not None:
        mask = problem.noise.measured.expand(problem.data.shape)
        found = np.where(mask[member % len(mask)].cpu().numpy(), found, np.nan)
    return found


def residual_of(solution: Solution, member: int) -> numpy.ndarray[Any, Any]:
    """What the answer leaves of the data, in standard deviations of the noise; NaN where nothing was measured."""
    import numpy as np

    problem: Any = solution.problem
    alone = problem.member(member % problem.batch) if problem.batch > 1 else problem
    with torch.no_grad():
        x = solution.value[member : member + 1].to(problem.data.device)
        found = -alone.residual_dual(x.to(problem.space.zeros().dtype))[0]
    values = (found.real if found.is_complex() else found).detach().cpu().numpy().astype(float)
    return np.where(np.isnan(_data(problem, member)), np.nan, values)


def _robust(arrays: Sequence[Any]) -> tuple[float, float]:
    """The percentiles 0.5 and 99.5 of all finite values; smallest and largest, where those are the same."""
    import numpy as np

    finite = np.concatenate([array[np.isfinite(array)] for array in arrays])
    if not finite.size:
        return 0.0, 1.0
    low, high = map(float, np.percentile(finite, (0.5, 99.5)))
    if high <= low:
        low, high = float(finite.min()), float(finite.max())
    pad = 0.0 if high > low else 0.5 * abs(low) or 0.5
    return low - pad, high + pad


def _alike(one: tuple[float, float], two: tuple[float, float]) -> bool:
    """Whether two ranges overlap and are of the same size, within a factor of three."""
    spans = one[1] - one[0], two[1] - two[0]
    return max(one[0], two[0]) < min(one[1], two[1]) and max(spans) < 3 * min(spans)


def largest(errors: Sequence[Tensor]) -> float:
    """The 99.5th percentile of the size of the errors; never zero."""
    return max(_robust([abs(_plain(e)) for e in errors])[1], 1e-300)
