"""Generators of triangle meshes: points spread by a size function, pushed to equilibrium, joined by Delaunay's triangulation.

The outline is cut where sides begin and end, so that electrodes end at nodes, and sampled more densely there: at the ends of an
electrode the spacing is ``edge`` times the length of an electrode or gap, because the current density has a singularity there. Into the domain the size
grows by ``growth`` per unit of distance up to one that gives about ``nodes`` nodes; where the ends of electrodes alone
would take more, they are graded less. Points start at the centres of squares, halved where
triangles are to be small, and are moved by repulsive springs between neighbours (Persson and Strang, SIAM Rev. 46, 2004,
doi 10.1137/S0036144503429121, with all points of the outline held fixed). The same arguments give the same mesh.

*Fails when* parts of the outline come closer to each other than the size of triangles: InputError asks for more nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.domains._outlines import Circle, Corners, Outline
from sciml.domains.errors import InputError
from sciml.domains.mesh import Mesh

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, Any]

__all__ = ["disc", "polygon", "rectangle"]

ROUNDS = 40
SLOPE = 0.3  # growth of the spacing along the outline, from the ends of electrodes
LIKE_HEXAGONS = math.sqrt(3) / 2  # area per point of a hexagonal lattice over its spacing squared


def disc(
    radius: float = 1.0,
    *,
    nodes: int = 2000,
    electrodes: int = 0,
    coverage: float = 0.5,
    first: float = 0.0,
    edge: float = 0.05,
    growth: float = 0.25,
    through: Tensor | None = None,
) -> Mesh:
    """A disc around the origin with about ``nodes`` nodes; more, where electrodes and gaps alone take more.

    ``electrodes`` equal sides ``electrode_0``, ... are evenly spaced counterclockwise and cover that part of the circumference, the first one
    centred at the angle ``first`` (radians from the x axis); the rest is the side ``wall``. ``through`` are points ``(k, 2)`` inside that become
    nodes, such as those of an interface: neighbours among them closer than the triangles are joined by edges.

    Raises InputError for a radius or coverage out of range, and for more electrodes than the nodes allow.
    """
    if not 0 < radius < math.inf:
        raise InputError(f"the radius is {radius}; it must be positive and finite")
    return _mesh(Circle(float(radius)), nodes, electrodes, coverage, first * radius, edge, growth, through)


def polygon(
    corners: Sequence[Sequence[float]] | Tensor,
    *,
    names: Sequence[str] = (),
    nodes: int = 2000,
    electrodes: int = 0,
    coverage: float = 0.5,
    first: float = 0.0,
    edge: float = 0.05,
    growth: float = 0.25,
    through: Tensor | None = None,
) -> Mesh:
    """The inside of a polygon with these corners ``(k, 2)``, in either sense of rotation; not necessarily convex.

    Its sides are called ``side_0``, ... or by ``names``. ``electrodes`` are evenly spaced along the outline, the first centred at the arc length ``first``
    from corner 0, counterclockwise; what is left of a side keeps its name. Raises InputError for fewer than three corners, two that coincide,
    and for no area.
    """
    import numpy as np

    places = np.asarray(corners, dtype=float)
    if places.ndim != 2 or places.shape[1] != 2 or len(places) < 3 or not np.isfinite(places).all():
        raise InputError(f"a polygon has at least three corners (k, 2), all finite; these have shape {places.shape}")
    found = tuple(names) or tuple(f"side_{i}" for i in range(len(places)))
    if len(found) != len(places):
        raise InputError(f"there are {len(places)} sides and {len(found)} names; give one per side")
    outline = Corners(places, found)
    if outline.area < 0:
        outline = Corners(np.roll(places[::-1], 1, 0), found[::-1])  # corner 0 stays the first
    same = np.hypot(*(np.roll(places, -1, 0) - places).T) <= 1e-12 * outline.length
    if same.any():
        raise InputError(f"corner {int(same.argmax())} of the polygon is the same point as the next one; leave it out")
    if outline.area <= 1e-12 * outline.length**2:
        raise InputError("the polygon has no area; give its corners in order around it")
    return _mesh(outline, nodes, electrodes, coverage, first, edge, growth, through)


def rectangle(
    extent: tuple[float, float] = (1.0, 1.0),
    *,
    origin: tuple[float, float] = (0.0, 0.0),
    nodes: int = 2000,
    electrodes: int = 0,
    coverage: float = 0.5,
    first: float = 0.0,
    edge: float = 0.05,
    growth: float = 0.25,
    through: Tensor | None = None,
) -> Mesh:
    """A box from ``origin`` with the sides ``y_lower``, ``x_upper``, ``y_upper`` and ``x_lower`` (see ``polygon``)."""
    (x, y), (a, b) = origin, extent
    if not (a > 0 and b > 0):
        raise InputError(f"the extent is {extent}; both lengths must be positive")
    return polygon(
        [(x, y), (x + a, y), (x + a, y + b), (x, y + b)], names=("y_lower", "x_upper", "y_upper", "x_lower"), nodes=nodes,
        electrodes=electrodes, coverage=coverage, first=first, edge=edge, growth=growth, through=through,
    )  # fmt: skip


def _mesh(
    outline: Outline,
    nodes: int,
    electrodes: int,
    coverage: float,
    first: float,
    edge: float,
    growth: float,
    through: Tensor | None,
) -> Mesh:
    import numpy as np

    if nodes < 8 or electrodes < 0 or not 0 < coverage < 1 or not 0 < edge <= 1 or not 0 < growth <= 1:
        raise InputError(
            f"nodes is {nodes}, electrodes {electrodes}, coverage {coverage}, edge {edge}, growth {growth}; give at least 8 nodes, and coverage below 1, edge and growth at most 1, all positive"
        )
    if 4 * electrodes > nodes or not math.isfinite(first):
        raise InputError(
            f"{electrodes} electrodes from {first} on need a finite place for the first one and more than {nodes} nodes; ask for at least {4 * electrodes}"
        )
    inner = (
        np.zeros((0, 2))
        if through is None
        else _within(outline, np.asarray(torch.as_tensor(through).cpu(), dtype=float))
    )
    pieces = _pieces(outline, electrodes, coverage, first)
    size, edge = _size_for(outline, pieces, nodes, edge, growth, inner)
    points, labels = _sampled(outline, pieces, size, edge)
    count = len(points)
    law = _Sizes(np.concatenate((points, inner)), _spacings(points, inner, size), size, growth)
    spread = _relaxed(_started(outline, law), np.concatenate((points, inner)), outline, law, count)
    triangles = _joined(spread, outline)
    present = {
        tuple(sorted(pair)) for pair in Mesh(torch.from_numpy(spread), torch.from_numpy(triangles)).boundary().tolist()
    }
    follower = np.roll(np.arange(count), -1)
    missing = [i for i in range(count) if (min(i, int(follower[i])), max(i, int(follower[i]))) not in present]
    if missing:
        x, y = points[missing[0]]
        raise InputError(
            f"the outline could not be kept near ({x:.3g}, {y:.3g}), where it comes close to itself; ask for more than {nodes} nodes"
        )
    sides: dict[str, list[tuple[int, int]]] = {}
    for i in range(count):
        sides.setdefault(labels[i], []).append((i, int(follower[i])))
    plates = [f"electrode_{i}" for i in range(electrodes)]
    order = [*plates, *(name for name in sides if name not in plates)]
    return Mesh(
        torch.from_numpy(spread), torch.from_numpy(triangles), {name: torch.tensor(sides[name]) for name in order}
    )


def _within(outline: Outline, points: Array) -> Array:
    """Points that may become nodes; InputError for others."""
    import numpy as np
    from scipy.spatial import cKDTree

    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise InputError(
            f"through are finite points (k, 2) inside of the outline, not a tensor of shape {points.shape}"
        )
    near = 1e-6 * outline.length
    ring = outline.at(np.linspace(0, outline.length, 4000, endpoint=False))
    bad = ~outline.inside(points) | (_clearance(points, ring) < near)
    if len(points) > 1:
        bad |= cKDTree(points).query(points, 2)[0][:, 1] < near
    if bad.any():
        x, y = points[bad][0]
        raise InputError(
            f"the point ({x:.3g}, {y:.3g}) of through is not inside of the outline, or coincides with another one; leave it out"
        )
    return points


def _pieces(outline: Outline, electrodes: int, coverage: float, first: float) -> list[tuple[str, float, float]]:
    """The outline cut into named pieces ``(name, begin, end)`` in order: electrodes, and what they leave of the sides."""
    whole, plain = outline.length, outline.stretches()
    if not electrodes:
        return plain
    width = coverage * whole / electrodes
    starts = [(first + i * whole / electrodes - width / 2) % whole for i in range(electrodes)]
    plates = [(f"electrode_{i}", s, s + width) for i, s in enumerate(starts)]
    places = sorted(a for _, a, _ in plain)
    gone = 1e-5 * whole / electrodes  # an electrode that ends so near to a corner ends there
    for end in (place % whole for _, a, b in plates for place in (a, b)):
        if min(abs(end - place) for place in (*places, whole)) > gone:
            places = sorted((*places, end))
    found = []
    for a, b in zip(places, [*places[1:], whole], strict=True):
        middle = 0.5 * (a + b)
        name = next((n for n, s, e in plates if (middle - s) % whole < e - s), None)
        name = next(n for n, s, e in plain if s <= middle <= e) if name is None else name
        found.append((name, a, b))
    return found


def _sampled(
    outline: Outline, pieces: list[tuple[str, float, float]], size: float, edge: float
) -> tuple[Array, list[str]]:
    """Points of the outline, and for each the name of the piece that begins there."""
    import numpy as np

    lengths = np.array([b - a for _, a, b in pieces])
    plates = {name for name, _, _ in pieces if name.startswith("electrode_")}
    small = size
    if plates:
        width = sum(b - a for name, a, b in pieces if name == "electrode_0")
        # What lies between the end of an electrode and a corner beside it is fine for itself and does not make all fine.
        short = max(float(lengths.min()), 0.4 * min(width, outline.length / len(plates) - width))
        small = min(size, edge * short)
    places, labels = [], []
    for i, (name, a, b) in enumerate(pieces):
        around = [min(lengths[i], lengths[(i + step) % len(pieces)]) if plates else size for step in (-1, 1)]
        before, after = (min(small, length) for length in around)
        least = 2 if plates else 1
        fine = _fine(b - a, min(before, after))
        wanted = np.minimum(size, np.minimum(before + SLOPE * fine, after + SLOPE * (b - a - fine)))
        count = np.concatenate(([0.0], np.cumsum(0.5 * (1 / wanted[1:] + 1 / wanted[:-1]) * np.diff(fine))))
        steps = max(least, round(float(count[-1])))
        inside = np.interp(np.arange(steps) / steps * count[-1], count, fine)
        places.append(a + inside)
        labels += [name] * steps
    return outline.at(np.concatenate(places)), labels


def _fine(length: float, least: float) -> Array:
    """Places along a piece that resolve a spacing that grows from ``least`` at its ends."""
    import numpy as np

    if least > length / 500:
        return np.linspace(0.0, length, 2001)
    half = np.expm1(np.linspace(0.0, math.log1p(SLOPE * length / 2 / least), 1001)) * least / SLOPE
    return np.concatenate((half, length - half[-2::-1]))


def _spacings(points: Array, inner: Array, size: float) -> Array:
    """The local spacing of the fixed points."""
    import numpy as np

    ahead = np.hypot(*(np.roll(points, -1, 0) - points).T)
    around: Array = 0.5 * (ahead + np.roll(ahead, 1))
    if not len(inner):
        return around
    from scipy.spatial import cKDTree

    near: Array = cKDTree(inner).query(inner, 2)[0][:, 1] if len(inner) > 1 else np.full(1, size)
    found: Array = np.concatenate((around, np.minimum(near, size)))
    return found


@dataclass(frozen=True, eq=False)
class _Sizes:
    """The size of triangles: that of the fixed points around (the nearest 16), growing with the distance, at most ``most``."""

    fixed: Array
    spacing: Array
    most: float
    growth: float

    def __call__(self, points: Array) -> Array:
        import numpy as np
        from scipy.spatial import cKDTree

        count = min(16, len(self.fixed))
        away, near = cKDTree(self.fixed).query(points, count)
        away, near = away.reshape(-1, count), near.reshape(-1, count)
        found: Array = np.minimum(self.most, (self.spacing[near] + self.growth * away).min(1))
        return found


def _size_for(
    outline: Outline, pieces: list[tuple[str, float, float]], nodes: int, edge: float, growth: float, inner: Array
) -> tuple[float, float]:
    """The largest size of triangles at which there are as many points as wanted, and the grading at which that is possible: coarser than asked for,
    where the ends of electrodes alone would take more."""
    import numpy as np

    def count(size: float, edge: float) -> int:
        points, _ = _sampled(outline, pieces, size, edge)
        law = _Sizes(np.concatenate((points, inner)), _spacings(points, inner, size), size, growth)
        return len(_started(outline, law)) + len(points) + len(inner)

    most = 0.25 * math.sqrt(outline.area)
    while edge < 1 and count(most, edge) > nodes:
        edge = min(1.0, 2 * edge)
    size = min(most, math.sqrt(outline.area / nodes / LIKE_HEXAGONS))
    for _ in range(12):
        found = count(size, edge)
        if abs(found - nodes) <= 0.02 * nodes:
            break
        size = min(most, size * min(max((found / nodes) ** 0.7, 0.5), 2.0))
    return size, edge


def _started(outline: Outline, law: _Sizes) -> Array:
    """Points inside at about the density that is wanted: centres of squares that are halved until they are small enough, thinned by a fixed sequence."""
    import numpy as np
    from scipy.spatial import cKDTree

    box = outline.at(np.linspace(0, outline.length, 400, endpoint=False))
    low, high = box.min(0), box.max(0)
    step = law.most
    x, y = (np.arange(a + step / 2, b + step / 2, step) for a, b in zip(low, high, strict=True))
    cells = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    leaves, sizes = [], []
    while len(cells):
        wanted = law(cells)
        fine = step <= 0.95 * wanted
        leaves.append(cells[fine])
        sizes.append((step / wanted[fine]) ** 2 / LIKE_HEXAGONS)
        quarters = step / 4 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        cells = (cells[~fine][:, None] + quarters).reshape(-1, 2)
        step /= 2
    points, keep = np.concatenate(leaves), np.concatenate(sizes)
    spread = np.arange(len(points)) * 0.6180339887498949 % 1.0
    points = points[(spread < keep) & outline.inside(points)]
    found: Array = points[cKDTree(law.fixed).query(points)[0] > 0.6 * law(points)]
    return found


def _relaxed(moving: Array, fixed: Array, outline: Outline, law: _Sizes, ring: int) -> Array:
    """All points, the fixed ones first, after rounds of repulsion between Delaunay neighbours; ``ring`` of them are the outline."""
    import numpy as np

    wanted_at = np.concatenate((law.spacing, law(moving)))
    a = b = np.zeros(0, dtype=np.int64)
    for turn in range(ROUNDS):
        points = np.concatenate((fixed, moving))
        if turn % 4 == 0:
            wanted_at = np.concatenate((law.spacing, law(moving)))
            triangles = _joined(points, outline, sort=False)
            pairs = np.sort(np.concatenate((triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]])), 1)
            pairs = np.unique(pairs[:, 0] * len(points) + pairs[:, 1])
            a, b = pairs // len(points), pairs % len(points)
        apart = points[a] - points[b]
        length = np.hypot(*apart.T)
        wanted = 0.5 * (wanted_at[a] + wanted_at[b])
        wanted = 1.2 * wanted * math.sqrt((length**2).sum() / (wanted**2).sum())
        push = (np.maximum(wanted - length, 0.0) / np.maximum(length, 1e-300))[:, None] * apart
        force = [np.bincount(a, push[:, k], len(points)) - np.bincount(b, push[:, k], len(points)) for k in (0, 1)]
        moved = moving + 0.2 * np.stack(force, 1)[len(fixed) :]
        moving = np.where(outline.inside(moved)[:, None], moved, moving)
        if turn % 8 == 7:  # points that were pressed against the outline are too many
            moving = moving[_clearance(moving, fixed[:ring]) > 0.45 * law(moving)]
    return np.concatenate((fixed, moving))


def _clearance(points: Array, ring: Array) -> Array:
    """Distances to the closed line through the points of the ring, near which they are."""
    import numpy as np
    from scipy.spatial import cKDTree

    nearest = cKDTree(ring).query(points)[1]
    found = np.full(len(points), math.inf)
    for step in (-1, 1):
        a, b = ring[nearest], ring[(nearest + step) % len(ring)]
        along = b - a
        t = np.clip(((points - a) * along).sum(1) / (along**2).sum(1), 0.0, 1.0)
        found = np.minimum(found, np.hypot(*(points - a - t[:, None] * along).T))
    return found


def _joined(points: Array, outline: Outline, sort: bool = True) -> Array:
    """Delaunay's triangles whose centre is inside, counterclockwise and not flat."""
    import numpy as np
    from scipy.spatial import Delaunay

    triangles = Delaunay(points).simplices.astype(np.int64)
    a, b, c = points[triangles].transpose(1, 0, 2)
    twice = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    square = ((b - a) ** 2).sum(1) + ((c - b) ** 2).sum(1) + ((a - c) ** 2).sum(1)
    triangles[twice < 0] = triangles[twice < 0][:, [0, 2, 1]]
    keep = (np.abs(twice) > 1e-6 * square) & outline.inside((a + b + c) / 3)
    triangles = triangles[keep]
    found: Array = triangles[np.lexsort(triangles.T[::-1])] if sort else triangles
    return found
