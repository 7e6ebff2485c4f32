"""Where the points of a grid lie in its box, as fractions of the extent, by the kind of each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["KINDS", "kinds", "place", "position_features", "resampling", "width_of_features"]

KINDS = ("periodic", "closed", "interior", "mixed", "other", "unknown")


def kinds(name: str, grid: str | Sequence[str], dim: int) -> tuple[str, ...]:
    """One kind per axis, as in the signature of a fit; a single one is that of all axes.

    Raises:
        InputError: an unknown kind, or another number than ``dim``.
    """
    found = (grid,) * dim if isinstance(grid, str) else tuple(grid)
    wrong = [kind for kind in found if kind not in KINDS]
    if wrong or len(found) != dim:
        raise InputError(f"{name}: grid is {grid!r} in {dim} dimensions; give one of {', '.join(KINDS)} per axis.")
    return found


def place(kind: str, n: int, like: Tensor) -> Tensor:
    """Positions of ``n`` points in [0, 1], float64 on the device of ``like``.

    ``periodic``: i/n; ``closed``: i/(n-1), both ends included; ``interior``: (i+1)/(n+1), neither; any other kind: the
    middle of n equal cells.
    """
    i = torch.arange(n, device=like.device, dtype=torch.float64)
    if kind == "periodic":
        return i / n
    if kind == "closed" and n > 1:
        return i / (n - 1)
    if kind == "interior":
        return (i + 1) / (n + 1)
    return (i + 0.5) / n


def width_of_features(grid: Sequence[str], harmonics: int) -> int:
    """How many features `position_features` makes."""
    return sum(2 * harmonics if kind == "periodic" else 1 + harmonics for kind in grid)


def position_features(grid: Sequence[str], shape: Sequence[int], like: Tensor, harmonics: int = 1) -> Tensor:
    """Smooth functions of the position, (\\*space, features), in the dtype of ``like``.

    Periodic axes: cosines and sines of ``harmonics`` waves on the period, so that whatever is made of them is periodic. Other axes:
    the position scaled to (-1, 1), and ``harmonics`` cosines of half waves.
    """
    total: list[Tensor] = []
    for axis, (kind, n) in enumerate(zip(grid, shape, strict=True)):
        x = place(kind, n, like)
        k = torch.arange(1, harmonics + 1, device=like.device, dtype=torch.float64)
        angle = x[:, None] * k * math.pi
        if kind == "periodic":
            lines = torch.cat(((2 * angle).cos(), (2 * angle).sin()), 1)
        else:
            lines = torch.cat((2 * x[:, None] - 1, angle.cos()), 1)
        view = [1] * len(shape) + [lines.shape[1]]
        view[axis] = n
        total.append(lines.reshape(view).expand(*shape, lines.shape[1]))
    return torch.cat(total, -1).to(like.dtype)


def resampling(kind: str, n: int, m: int, like: Tensor) -> Tensor:
    """The matrix (m, n) of linear interpolation from n points of an axis to m; the identity for m = n.

    Beyond the outermost points of an axis that is not periodic the outermost value goes on.
    """
    if n == m:
        return torch.eye(n, device=like.device, dtype=like.dtype)
    source, target = place(kind, n, like), place(kind, m, like)
    gap = float(1 / n) if n == 1 or kind not in ("closed", "interior") else 1 / (n - 1 if kind == "closed" else n + 1)
    at = (target - source[:1]) / gap
    if kind != "periodic":
        at = at.clamp(0, n - 1)
    lower = at.floor()
    share = (at - lower)[:, None]
    nodes = torch.arange(n, device=like.device, dtype=torch.float64)
    one = (nodes == torch.remainder(lower, n)[:, None]).to(torch.float64)
    two = (nodes == torch.remainder(lower + 1, n)[:, None]).to(torch.float64)
    return ((1 - share) * one + share * two).to(like.dtype)
