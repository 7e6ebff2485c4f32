"""Fields as real arrays with coordinates, and how one is drawn: line, image, three mid-plane slices."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sciml.domains.mesh import Elements, Mesh
from sciml.show.canvas import COLOURS, Panel, tidy

if TYPE_CHECKING:
    import numpy
    from matplotlib.axes import Axes

    from sciml.domains.space import Space

__all__ = [
    "Part",
    "colour_bar",
    "field_panels",
    "image",
    "in_unit",
    "limits_of",
    "line",
    "parts_of",
    "place",
    "scale",
    "slices",
    "written",
]

MOST_POINTS = 1024
MOST_CHANNELS = 4


@dataclass(frozen=True, eq=False)
class Part:
    """One real array on a grid. ``values`` has the axes ``names``, ``lines`` their coordinates; ``cyclic`` is an angle.

    ``limits`` fixes the colours (so that several parts can share a scale); ``error`` asks for the colours of errors,
    ``colours`` for a map by name, between the limits; ``unit`` is that of the values.
    """

    label: str
    values: numpy.ndarray[Any, Any]
    lines: tuple[numpy.ndarray[Any, Any], ...]
    names: tuple[str, ...]
    cyclic: bool = False
    limits: tuple[float, float] | None = None
    error: bool = False
    colours: str = ""
    unit: str = "1"

    @property
    def constant(self) -> bool:
        """Whether all values are the same."""
        return bool((self.values == self.values.flat[0]).all())

    def at(self, axis: int, index: int) -> Part:
        """The slice at one node of one axis, named with the coordinate."""
        where = float(self.lines[axis][index])
        return dataclasses.replace(
            self,
            label=f"{self.label}, {place(self.names[axis], where)}",
            values=self.values.take(index, axis),
            lines=(*self.lines[:axis], *self.lines[axis + 1 :]),
            names=(*self.names[:axis], *self.names[axis + 1 :]),
        )


def in_unit(name: str, unit: str) -> str:
    """A label with its unit, ``x (mm)``, if it has one."""
    return name if unit in ("", "1") else f"{name} ({unit})"


def written(unit: str) -> str:
    """A unit as people write it: ``1/mm`` for the ``mm-1`` of files."""
    return f"1/{unit[:-2]}" if unit.endswith("-1") else unit


def place(name: str, where: float) -> str:
    """``x (mm)`` at a place in words: ``x = 3.2 mm``."""
    name, _, unit = name.partition(" (")
    return f"{name} = {where:.3g} {unit.rstrip(')')}".rstrip()


def parts_of(name: str, value: Tensor, space: Space) -> list[Part]:
    """The channels of one field ``(channel, *space)`` as real arrays; complex ones as magnitude and phase."""
    import numpy as np

    lines, names, array = _laid(value, space)
    labels = [name] if len(array) == 1 else [f"{name}[{i}]" for i in range(len(array))]
    if space.parts and len(array) == space.shape[0] > 1:
        labels = [part if count == 1 else f"{part}[{i}]" for part, count in space.parts for i in range(count)]
    found = []
    for label, channel in list(zip(labels, array, strict=True))[:MOST_CHANNELS]:
        if np.iscomplexobj(channel):
            found.append(Part(f"|{label}|", np.abs(channel), lines, names))
            found.append(Part(f"phase of {label}", np.angle(channel), lines, names, cyclic=True))
        else:
            found.append(Part(label, channel.astype(float), lines, names))
    return found


def _laid(value: Tensor, space: Space) -> tuple[tuple[Any, ...], tuple[str, ...], Any]:
    """Coordinates and names of the axes, and the values: fields on a mesh as a picture, NaN outside."""
    import numpy as np

    domain = space.domain
    if isinstance(domain, Mesh | Elements) and tuple(value.shape[1:]) == domain.shape:
        picture, places = domain.picture(value)
        return tuple(line.numpy() for line in places), ("x", "y"), picture.numpy()
    array = value.detach().cpu().numpy()
    if domain is not None and tuple(array.shape[1:]) == tuple(domain.shape):
        lines = tuple(points.cpu().numpy() for points in domain.coordinates())
        return lines, tuple(in_unit(axis, getattr(domain, "unit", "1")) for axis in "xyz"[: len(lines)]), array
    lines = tuple(np.arange(n) for n in array.shape[1:])
    return lines, tuple(f"index {i}" for i in range(len(lines))), array


def limits_of(parts: Sequence[Part]) -> tuple[float, float]:
    """Smallest and largest finite value of several parts."""
    import numpy as np

    finite = [part.values[np.isfinite(part.values)] for part in parts]
    low = min((float(one.min()) for one in finite if one.size), default=0.0)
    high = max((float(one.max()) for one in finite if one.size), default=1.0)
    return low, high


def scale(part: Part) -> tuple[str, float, float]:
    """Colour map and limits: sequential for one sign, symmetric about zero where both signs weigh, cyclic for angles."""
    import math

    low, high = limits_of([part]) if part.limits is None else part.limits
    if part.colours:
        return part.colours, low, high
    if part.cyclic:
        return "twilight", -math.pi, math.pi
    if part.error:
        return "magma", 0.0, max(high, 1e-300)
    if low < 0 < high and min(-low, high) > 0.1 * max(-low, high):
        most = max(-low, high)
        return "RdBu_r", -most, most
    if high <= low:
        pad = 0.5 * abs(low) or 0.5
        low, high = low - pad, high + pad
    return "viridis", low, high


def line(axes: Axes, part: Part) -> None:
    """A curve over one axis."""
    axes.plot(part.lines[0], part.values, color=COLOURS[0], linewidth=1.5)
    tidy(axes, part.names[0], "", part.label)
    axes.margins(x=0)


def edges(points: numpy.ndarray[Any, Any]) -> tuple[float, float]:
    """Outer edges of the cells around evenly spaced points."""
    half = 0.5 * float(points[1] - points[0]) if len(points) > 1 else 0.5
    return float(points[0]) - half, float(points[-1]) + half


def image(axes: Axes, part: Part) -> Any:
    """Two axes as an image, first axis to the right, with a colour bar; returns the image."""
    import matplotlib

    steps = tuple(slice(None, None, max(1, -(-n // MOST_POINTS))) for n in part.values.shape)
    map_name, low, high = scale(part)
    colours = matplotlib.colormaps[map_name].with_extremes(bad="#bbbbbb")
    box = (*edges(part.lines[0]), *edges(part.lines[1]))
    shown = axes.imshow(
        part.values[steps].T, origin="lower", extent=box, cmap=colours, vmin=low, vmax=high, interpolation="nearest"
    )
    width, height = box[1] - box[0], box[3] - box[2]
    same_kind = not {"time"} & set(part.names)
    axes.set_aspect("equal" if same_kind and 0.2 < width / height < 5 else "auto")
    tidy(axes, part.names[0], part.names[1], part.label)
    axes.grid(visible=False)
    axes.locator_params(nbins=6)
    colour_bar(axes, shown, part.unit)
    return shown


def colour_bar(axes: Axes, shown: Any, unit: str = "1") -> None:
    """A colour bar with small type beside the axes, with the unit above it if there is one."""
    bar = axes.figure.colorbar(shown, cax=axes.inset_axes((1.03, 0.0, 0.04, 1.0)))  # as high as the image
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
    if unit != "1":
        bar.ax.set_xlabel(written(unit), fontsize=7, labelpad=3)
    if hasattr(bar.formatter, "set_powerlimits"):
        bar.formatter.set_powerlimits((-2, 3))
        bar.ax.yaxis.get_offset_text().set_fontsize(7)


def slices(part: Part) -> list[Part]:
    """The three orthogonal mid-planes of a part over three axes, on one scale."""
    shared = dataclasses.replace(part, limits=limits_of([part])) if part.limits is None else part
    return [shared.at(axis, part.values.shape[axis] // 2) for axis in (2, 1, 0)]


def field_panels(part: Part) -> list[Panel]:
    """One panel for a part over one or two axes, three for one over three."""
    if part.values.ndim == 1:
        return [Panel(partial(line, part=part))]
    return [Panel(partial(image, part=cut)) for cut in (slices(part) if part.values.ndim == 3 else [part])]
