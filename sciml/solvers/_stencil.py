"""The operator of the multigrid cycle as arrays on faces and nodes: product, diagonal, constant case, inverse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.solvers._transfer import Axis

__all__ = ["apply", "constant", "diagonal", "explicit", "inverse", "power_of_two"]


def apply(axes: Sequence[Axis], faces: Sequence[Tensor], mass: Tensor | None, u: Tensor) -> Tensor:
    """A u for ``u`` (..., *space); ``faces`` and ``mass`` broadcast over the leading dimensions."""
    out = torch.zeros_like(u) if mass is None else u * mass
    for k, (axis, conductance) in enumerate(zip(axes, faces, strict=True)):
        dim, n = k - len(axes), axis.n
        flow = u.narrow(dim, 1, n - 1) - u.narrow(dim, 0, n - 1)
        flow = flow * conductance.narrow(dim, 1, n - 1)
        out.narrow(dim, 1, n - 1).add_(flow)
        out.narrow(dim, 0, n - 1).sub_(flow)
        first, last = u.narrow(dim, 0, 1), u.narrow(dim, n - 1, 1)
        lower, upper = conductance.narrow(dim, 0, 1), conductance.narrow(dim, n, 1)
        if axis.periodic:
            wrap = lower * (first - last)
            out.narrow(dim, 0, 1).add_(wrap)
            out.narrow(dim, n - 1, 1).sub_(wrap)
            continue
        if not axis.lower_node:
            out.narrow(dim, 0, 1).add_(lower * first)
        if not axis.upper_node:
            out.narrow(dim, n - 1, 1).add_(upper * last)
    return out


def diagonal(axes: Sequence[Axis], faces: Sequence[Tensor], mass: Tensor | None) -> Tensor:
    pairs = []
    for k, axis in enumerate(axes):
        dim = k - len(axes)
        pairs.append(faces[k].narrow(dim, 0, axis.n) + faces[k].narrow(dim, 1, axis.n))
    total = sum(pairs[1:], start=pairs[0])
    return total if mass is None else total + mass


def power_of_two(size: Tensor) -> Tensor:
    """The power of two below a positive size, and one for zero: scaling by it is exact."""
    return torch.exp2(torch.floor(torch.log2(torch.where(size > 0, size, torch.ones_like(size)))))


def constant(
    axes: Sequence[Axis], faces: Sequence[Tensor], mass: Tensor | None
) -> tuple[list[float], float, Tensor] | None:
    """Conductances per axis and mass of an inner node as parts of its diagonal, and that diagonal per member.

    None unless they are the same at all nodes (half as large in half dual cells) and in the same proportion in all
    members.
    """
    if any(axis.n < 4 for axis in axes):
        return None
    close = 1e-12 if faces[0].dtype == torch.float64 else 1e-6
    arrays = [*faces, *([] if mass is None else [mass])]
    values: list[Tensor] = []
    for k, array in enumerate(arrays):
        inner = array
        for j, axis in enumerate(axes):
            if axis.periodic:
                continue
            dim, last = j - len(axes), inner.shape[j - len(axes)] - 1
            lower, upper = inner.select(dim, 0), inner.select(dim, last)
            if j == k:
                if any(bool(end.count_nonzero()) for end in (lower,) * axis.lower_node + (upper,) * axis.upper_node):
                    return None
            else:
                for end, full in ((lower, 1),) * axis.lower_node + ((upper, last - 1),) * axis.upper_node:
                    if not torch.allclose(2 * end, inner.select(dim, full), rtol=close, atol=0.0):
                        return None
            inner = inner.narrow(dim, int(axis.lower_node), last + 1 - axis.lower_node - axis.upper_node)
        flat = inner.reshape(inner.shape[0], -1)
        low, high = flat.amin(1), flat.amax(1)
        if not bool((high - low <= close * high.abs()).all()):
            return None
        values.append((low + high) / 2)
    table = torch.stack([value.expand(max(map(len, values))) for value in values])
    size = 2 * table[: len(axes)].sum(0) + (table[len(axes)] if mass is not None else 0)
    shares = table / size
    if not bool((size > 0).all()) or not bool(((shares - shares[:, :1]).abs() <= close).all()):
        return None
    parts = [float(share) for share in shares[:, 0]]
    return parts[: len(axes)], 0.0 if mass is None else parts[-1], size.double()


def explicit(axes: Sequence[Axis], conductances: Sequence[float], mass: float) -> tuple[list[Tensor], Tensor, Tensor]:
    """Faces, mass and sizes of the dual cells, each (1, *space) in float64, of constant coefficients."""
    cells = torch.ones([1] * (len(axes) + 1), dtype=torch.float64)
    faces = [cells * value for value in conductances]
    for k, axis in enumerate(axes):
        shape = [-1 if j == k + 1 else 1 for j in range(len(axes) + 1)]
        halves = torch.ones(axis.n, dtype=torch.float64)
        halves[0] *= axis.weight(0)
        halves[-1] *= axis.weight(1)
        cells = cells * halves.reshape(shape)
        line = torch.ones(axis.n + 1, dtype=torch.float64)
        if not axis.periodic:
            line[0], line[-1] = float(not axis.lower_node), float(not axis.upper_node)
        faces = [face * (line if j == k else halves).reshape(shape) for j, face in enumerate(faces)]
    return faces, cells * mass, cells


def inverse(axes: Sequence[Axis], faces: Sequence[Tensor], mass: Tensor | None, null: Tensor | None) -> Tensor:
    """The dense inverse (B or 1, n, n) in float64, zero on the constants of singular members."""
    size, sides = math.prod(axis.n for axis in axes), [axis.n for axis in axes]
    faces = [face.double() for face in faces]
    mass = None if mass is None else mass.double()
    members = max(len(face) for face in [*faces, *([] if mass is None else [mass])])
    eye = torch.eye(size, dtype=torch.float64, device=faces[0].device).reshape(size, 1, *sides)
    matrix = apply(axes, faces, mass, eye.expand(size, members, *sides).contiguous())
    matrix = matrix.reshape(size, members, size).transpose(0, 1)
    matrix = (matrix + matrix.mT) / 2
    trace = matrix.diagonal(dim1=-2, dim2=-1).mean(-1).reshape(-1, 1, 1).clamp(min=1e-300)
    shift = torch.zeros_like(trace) if null is None else null.double().reshape(-1, 1, 1) * trace
    factor, info = torch.linalg.cholesky_ex(matrix + shift / size)
    if bool((info == 0).all()):
        dense = torch.cholesky_inverse(factor)
        return dense - torch.where(shift > 0, 1 / (shift * size).clamp(min=1e-300), torch.zeros_like(shift))
    pseudo: Tensor = torch.linalg.pinv(matrix, hermitian=True, rtol=1e-12)
    return pseudo
