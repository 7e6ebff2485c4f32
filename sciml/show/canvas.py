"""Figures without global state in one tidy, colour-blind friendly style, and image files that are whole or absent."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sciml.domains.errors import InputError
from sciml.files.checkpoint import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "FORMATS", "Panel", "blank", "check_format", "encode", "legend", "panels", "save", "tidy"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette: told apart by all common kinds of colour vision."""

FORMATS = ("png", "pdf", "svg", "jpg", "jpeg", "webp")
DPI = 144


class Panel(NamedTuple):
    """One set of axes of a figure: a function that draws on it."""

    draw: Callable[[Axes], None]


def blank(width: float, height: float) -> Figure:
    """An empty figure (inches) with its own Agg canvas; no window system and no pyplot are involved."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def panels(
    drawn: Sequence[Panel],
    title: str = "",
    subtitle: str = "",
    columns: int = 4,
    size: tuple[float, float] = (3.7, 3.1),
) -> Figure:
    """Panels in rows of ``columns``, below a title and a smaller, wrapped subtitle."""
    import textwrap

    wide = max(1, min(columns, len(drawn)))
    rows = math.ceil(len(drawn) / wide)
    width = max(size[0] * wide, 5.0)
    lines = textwrap.wrap(subtitle, max(40, int(width * 15)))
    figure = blank(width, size[1] * rows + 0.25 * (len(lines) + bool(title)))
    for index, panel in enumerate(drawn):
        panel.draw(figure.add_subplot(rows, wide, index + 1))
    if title or lines:
        head = figure.suptitle(
            "\n".join((*([title] if title else []), *lines)), fontsize=9, x=0.01, ha="left", linespacing=1.4
        )
        head.set_parse_math(False)
    return figure


def tidy(axes: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Small type, two spines, a faint grid."""
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.set_title(title, fontsize=9, loc="left", parse_math=False)
    axes.tick_params(which="both", labelsize=7, length=3, colors="#444444")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color("#888888")
    axes.grid(visible=True, color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)


def legend(axes: Axes) -> None:
    """A small legend without a frame, where there is something to tell apart."""
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(fontsize=7, frameon=False)


def check_format(path: str | os.PathLike[str], also: Sequence[str] = ()) -> str:
    """The format that the ending of ``path`` asks for.

    Raises:
        InputError: the ending names no image format, or the folder does not exist.
    """
    target = Path(path)
    kind = target.suffix.lower().lstrip(".")
    known = (*FORMATS, *also)
    if kind not in known:
        raise InputError(
            f"cannot draw to '{target}': its ending must be one of {', '.join('.' + name for name in known)}."
        )
    if not target.absolute().parent.is_dir():
        raise InputError(
            f"cannot write '{target}': the folder {target.absolute().parent} does not exist; create it first."
        )
    return kind


def encode(figure: Figure, kind: str = "png", dpi: int = DPI) -> bytes:
    """The figure as the bytes of an image file."""
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi)
    return buffer.getvalue()


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure in the format of the ending of ``path``, whole or not at all."""
    kind = check_format(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=DPI)
