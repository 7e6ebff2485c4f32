"""Ellipses: images by the share of every pixel that they cover, and their exact line integrals."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sciml.domains.pixels import Pixels


class Ellipse(NamedTuple):
    """Value, centre, half axes, and the angle of the first axis with x."""

    value: float
    x: float
    y: float
    a: float
    b: float
    turn: float = 0.0


# The head of Shepp and Logan, IEEE Trans. Nucl. Sci. 21, 1974, doi:10.1109/TNS.1974.6499235, with its own contrasts.
HEAD = (
    Ellipse(2.0, 0.0, 0.0, 0.69, 0.92),
    Ellipse(-0.98, 0.0, -0.0184, 0.6624, 0.874),
    Ellipse(-0.02, 0.22, 0.0, 0.11, 0.31, -math.pi / 10),
    Ellipse(-0.02, -0.22, 0.0, 0.16, 0.41, math.pi / 10),
    Ellipse(0.01, 0.0, 0.35, 0.21, 0.25),
    Ellipse(0.01, 0.06, -0.605, 0.046, 0.023),
)


def image(ellipses: tuple[Ellipse, ...], pixels: Pixels, fine: int = 8) -> Tensor:
    """``(1, 1, nx, ny)``: means over the pixels, from ``fine`` squared points in each."""
    shape = (pixels.shape[0] * fine, pixels.shape[1] * fine)
    total = torch.zeros(shape, dtype=torch.float64)
    x, y = Pixels(shape, pixels.extent, pixels.origin).points()
    for e in ellipses:
        u = (x - e.x) * math.cos(e.turn) + (y - e.y) * math.sin(e.turn)
        v = (y - e.y) * math.cos(e.turn) - (x - e.x) * math.sin(e.turn)
        total += e.value * ((u / e.a) ** 2 + (v / e.b) ** 2 < 1)
    return torch.nn.functional.avg_pool2d(total[None, None], fine)


def sinogram(ellipses: tuple[Ellipse, ...], angles: Tensor, s: Tensor) -> Tensor:
    """``(1, 1, views, bins)``: chord length times value."""
    theta, s = angles.double()[:, None], s.double()[None]
    total = torch.zeros(len(theta), s.shape[1], dtype=torch.float64)
    for e in ellipses:
        square = (e.a * torch.cos(theta - e.turn)) ** 2 + (e.b * torch.sin(theta - e.turn)) ** 2
        t = s - e.x * torch.cos(theta) - e.y * torch.sin(theta)
        total += 2 * e.value * e.a * e.b * (square - t**2).clamp_min(0).sqrt() / square
    return total[None, None]


def blobs(pixels: Pixels, angles: Tensor, s: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Four Gaussians of width ``sigma``: values at the centres, and exact line integrals."""
    x, y = pixels.points()
    reach = min(pixels.extent) / 2
    picture = torch.zeros(pixels.shape, dtype=torch.float64)
    data = torch.zeros(len(angles), len(s), dtype=torch.float64)
    theta = angles.double()[:, None]
    for value, px, py in ((1.0, 0.0, 0.1), (0.7, -0.4, 0.3), (-0.5, 0.35, -0.4), (0.3, 0.1, 0.5)):
        px, py = px * reach, py * reach
        picture += value * torch.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2))
        t = s[None] - px * torch.cos(theta) - py * torch.sin(theta)
        data += value * math.sqrt(2 * math.pi) * sigma * torch.exp(-(t**2) / (2 * sigma**2))
    return picture[None, None], data[None, None]
