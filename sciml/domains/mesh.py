"""Triangle meshes of plane domains, with fields at the nodes (`Mesh`) or constant on the triangles (`Elements`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.domains.space import Space

__all__ = ["Elements", "Mesh"]

# Points and weights on the reference triangle, in barycentric coordinates: exact for polynomials of this degree
# (Strang and Fix 1973; Dunavant, Int. J. Numer. Meth. Eng. 21, 1985, doi 10.1002/nme.1620210612).
_A, _B = 0.445948490915965, 0.091576213509771
RULES: dict[int, tuple[tuple[tuple[float, float, float], ...], tuple[float, ...]]] = {
    1: (((1 / 3, 1 / 3, 1 / 3),), (1.0,)),
    2: (((2 / 3, 1 / 6, 1 / 6), (1 / 6, 2 / 3, 1 / 6), (1 / 6, 1 / 6, 2 / 3)), (1 / 3,) * 3),
    4: (
        (
            (1 - 2 * _A, _A, _A), (_A, 1 - 2 * _A, _A), (_A, _A, 1 - 2 * _A),
            (1 - 2 * _B, _B, _B), (_B, 1 - 2 * _B, _B), (_B, _B, 1 - 2 * _B),
        ),
        (0.223381589678011,) * 3 + (0.109951743655322,) * 3,
    ),
}  # fmt: skip
AT_ONCE = 1 << 19  # pairs of points and triangles that are looked at together
FLAT = 1e-12  # quality below which a triangle has no area worth the name


@dataclass(frozen=True, eq=False)
class Mesh:
    """``n`` nodes ``(n, 2)`` in the user's unit of length and ``m`` triangles ``(m, 3)`` of node numbers, counterclockwise.

    ``sides`` names parts of the boundary: each a tensor ``(k, 2)`` of edges, as node numbers. Fields are ``(batch, channel, n)``, linear on
    every triangle; those that are constant on triangles live on ``elements``. The mesh is geometry: it stays in float64 on the CPU, its
    tables go to the dtype and device that are asked for.

    Raises InputError for a triangle that is inverted, degenerate, or names a node that does not exist; for two on the same side of an edge; for a node that belongs to no
    triangle or is not finite; and for a side without an edge, or with one that is not on the boundary.
    """

    nodes: Tensor = field(metadata={"opaque": True})
    triangles: Tensor = field(metadata={"opaque": True})
    sides: Mapping[str, Tensor] = field(default_factory=dict, metadata={"opaque": True})

    def __post_init__(self) -> None:
        nodes = torch.as_tensor(self.nodes).detach().to("cpu", torch.float64)
        triangles = torch.as_tensor(self.triangles).detach().to("cpu", torch.int64)
        if nodes.ndim != 2 or nodes.shape[1] != 2 or triangles.ndim != 2 or triangles.shape[1] != 3:
            raise InputError(
                f"a mesh has nodes (n, 2) and triangles (m, 3), not {tuple(nodes.shape)} and {tuple(triangles.shape)}"
            )
        object.__setattr__(self, "nodes", nodes)
        object.__setattr__(self, "triangles", triangles)
        self._check()
        sides = {name: torch.as_tensor(edges).detach().to("cpu", torch.int64) for name, edges in self.sides.items()}
        object.__setattr__(self, "sides", sides)
        self._check_sides()

    def _check(self) -> None:
        nodes, triangles = self.nodes, self.triangles
        if not len(triangles):
            raise InputError("the mesh has no triangle; give node numbers (m, 3)")
        bad = ~torch.isfinite(nodes).all(1)
        if bool(bad.any()):
            raise InputError(f"node {int(bad.nonzero()[0])} of the mesh is not finite; mend its coordinates")
        wrong = ((triangles < 0) | (triangles >= len(nodes))).any(1)
        if bool(wrong.any()):
            i = int(wrong.nonzero()[0])
            raise InputError(
                f"triangle {i} of the mesh has corners {triangles[i].tolist()}, but there are {len(nodes)} nodes, counted from 0"
            )
        alone = torch.ones(len(nodes), dtype=torch.bool)
        alone[triangles.reshape(-1)] = False
        if bool(alone.any()):
            raise InputError(
                f"node {int(alone.nonzero()[0])} of the mesh belongs to no triangle; remove it, with the numbers after it shifted"
            )
        quality = self.quality()
        worst = int(quality.argmin())
        if float(quality[worst]) < FLAT:
            flat = abs(float(quality[worst])) < FLAT
            x, y = nodes[triangles[worst]].mean(0).tolist()
            raise InputError(
                f"triangle {worst} of the mesh, near ({x:.3g}, {y:.3g}), is {'degenerate: it has no area; remove it or move a corner' if flat else 'inverted: list its corners counterclockwise'} ({int((quality < FLAT).sum())} such)"
            )

        edges, count = self._edges(), len(nodes)
        keys, times = torch.unique(edges[:, 0] * count + edges[:, 1], return_counts=True)
        if int(times.max()) > 1:
            edge = int(keys[times.argmax()])
            raise InputError(
                f"two triangles of the mesh lie on the same side of the edge {[edge // count, edge % count]}; they overlap, or one is listed twice: remove it"
            )

    def _check_sides(self) -> None:
        outside = {tuple(edge) for edge in self.boundary().sort(1).values.tolist()}
        for name, edges in self.sides.items():
            if edges.ndim != 2 or edges.shape[1] != 2 or not len(edges):
                raise InputError(
                    f"side {name!r} of the mesh has no edge (shape {tuple(edges.shape)}); give node numbers (k, 2), or a finer mesh"
                )
            for edge in edges.sort(1).values.tolist():
                if tuple(edge) not in outside:
                    raise InputError(
                        f"side {name!r} of the mesh has the edge {edge}, which is not on the boundary; list edges of one triangle only"
                    )

    @property
    def dim(self) -> int:
        """Two: the plane."""
        return 2

    @property
    def shape(self) -> tuple[int]:
        """The number of nodes."""
        return (len(self.nodes),)

    @property
    def elements(self) -> Elements:
        """The triangles as a domain of piecewise constant fields."""
        return Elements(self)

    def corners(self) -> Tensor:
        """Coordinates of the corners, ``(m, 3, 2)``."""
        return self.nodes[self.triangles]

    def areas(self) -> Tensor:
        """Areas of the triangles, ``(m,)``; negative for inverted ones."""
        a, b, c = self.corners().unbind(1)
        return 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])

    def quality(self) -> Tensor:
        """``4 sqrt(3) area / (sum of squared lengths)``: 1 for an equilateral triangle, 0 for a flat one, ``(m,)``."""
        a, b, c = self.corners().unbind(1)
        square = (b - a).square().sum(1) + (c - b).square().sum(1) + (a - c).square().sum(1)
        return 4 * 3**0.5 * self.areas() / square.clamp_min(1e-300)

    def gradients(self) -> Tensor:
        """Gradients of the three barycentric coordinates of every triangle, ``(m, 3, 2)``."""
        a, b, c = self.corners().unbind(1)
        opposite = torch.stack((c - b, a - c, b - a), 1)
        turned = torch.stack((-opposite[..., 1], opposite[..., 0]), -1)
        return turned / (2 * self.areas()).reshape(-1, 1, 1)

    def _edges(self) -> Tensor:
        """Those of every triangle with it to their left, ``(3 m, 2)``: all first ones, all second ones, all third ones."""
        t = self.triangles
        return torch.cat((t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]))

    def boundary(self) -> Tensor:
        """Edges that belong to one triangle only, ``(k, 2)``, the domain to their left."""
        edges = self._edges()
        _, place, count = torch.unique(edges.sort(1).values, dim=0, return_inverse=True, return_counts=True)
        return edges[count[place] == 1]

    def inner_edges(self) -> tuple[Tensor, Tensor]:
        """Edges between two triangles, ``(k, 2)`` node numbers, and the two triangles, ``(k, 2)``."""
        edges = self._edges().sort(1).values
        owner = torch.arange(len(self.triangles)).repeat(3)
        order = (edges[:, 0] * len(self.nodes) + edges[:, 1]).argsort(stable=True)
        edges, owner = edges[order], owner[order]
        pair = (edges[1:] == edges[:-1]).all(1).nonzero().reshape(-1)
        return edges[pair], torch.stack((owner[pair], owner[pair + 1]), 1)

    def side(self, name: str) -> Tensor:
        """The edges of a side, ``(k, 2)``; InputError where the mesh has none of that name."""
        if name not in self.sides:
            raise InputError(f"the mesh has no side {name!r}; its sides are {', '.join(self.sides) or 'not named'}")
        return self.sides[name]

    def lengths(self, edges: Tensor) -> Tensor:
        """Lengths of edges given by node numbers."""
        return (self.nodes[edges[:, 1]] - self.nodes[edges[:, 0]]).square().sum(1).sqrt()

    def volumes(self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Tensor:
        """A third of the area of the triangles around every node, ``(n,)``: the integrals of the basis functions."""
        third = (self.areas() / 3).repeat_interleave(3)
        found = torch.zeros(len(self.nodes), dtype=torch.float64).index_add_(0, self.triangles.reshape(-1), third)
        return found.to(device=device, dtype=dtype)

    def points(
        self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> tuple[Tensor, Tensor]:
        """The coordinates of the nodes, one tensor ``(n,)`` per axis."""
        x, y = self.nodes.to(device=device, dtype=dtype).unbind(1)
        return x, y

    coordinates = points

    def space(self, channels: int = 1, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Space:
        """The space of fields ``(batch, channels, n)``."""
        return Space(domain=self, shape=(channels, *self.shape), dtype=dtype, device=torch.device(device))

    def quadrature(self, degree: int = 2) -> tuple[Tensor, Tensor]:
        """Points ``(m, q, 2)`` and weights ``(m, q)`` that integrate polynomials of this degree (1, 2 or 4) exactly."""
        if degree not in RULES:
            raise InputError(f"there are rules of degree {', '.join(map(str, RULES))}, not {degree}; take the next one")
        places, weights = (torch.tensor(rows, dtype=torch.float64) for rows in RULES[degree])
        return torch.einsum("qc,mcd->mqd", places, self.corners()), self.areas().unsqueeze(1) * weights

    def locate(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The triangle around every point, ``(k,)``, -1 outside, and the barycentric coordinates in it, ``(k, 3)``."""
        import numpy as np
        from scipy.spatial import cKDTree

        where = torch.as_tensor(points).detach().to("cpu", torch.float64).reshape(-1, 2)
        corners, slopes = self.corners(), self.gradients()
        tree = cKDTree(corners.mean(1).numpy())
        reach = float((corners - corners.mean(1, keepdim=True)).square().sum(2).max().sqrt())
        found = torch.full((len(where),), -1, dtype=torch.int64)
        shares = torch.zeros((len(where), 3), dtype=torch.float64)
        left = torch.arange(len(where))
        for many in (8, 48, 400, len(corners)):  # graded meshes have near centroids of small triangles
            count, still = min(many, len(corners)), []
            for some in torch.split(left, max(1, AT_ONCE // count)):
                apart, index = (np.asarray(t).reshape(len(some), count) for t in tree.query(where[some].numpy(), count))
                near = torch.from_numpy(index)
                away = where[some].unsqueeze(1) - corners[near].mean(2)
                inside = 1 / 3 + torch.einsum("kjd,kjcd->kjc", away, slopes[near])
                best = inside.amin(2).argmax(1)
                rows = torch.arange(len(some))
                good = inside[rows, best].amin(1) >= -1e-10
                found[some[good]] = near[rows, best][good]
                shares[some[good]] = inside[rows, best][good]
                # Beyond the reach of the largest triangle there is no other candidate.
                still.append(some[~good & torch.from_numpy(apart[:, -1] <= reach)])
            left = torch.cat(still)
            if not len(left) or count == len(corners):
                break
        return found, shares

    def interpolation(self, points: Tensor) -> Any:
        """A scipy matrix ``(k, n)`` that takes nodal values to values at points; outside, to the value of the nearest node."""
        from scipy.sparse import csr_array
        from scipy.spatial import cKDTree

        where = torch.as_tensor(points).detach().to("cpu", torch.float64).reshape(-1, 2)
        found, shares = self.locate(where)
        columns = self.triangles[found.clamp_min(0)].clone()
        out = found < 0
        if bool(out.any()):
            nearest = torch.from_numpy(cKDTree(self.nodes.numpy()).query(where[out].numpy())[1])
            columns[out] = nearest.unsqueeze(1)
            shares[out] = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        ends = torch.arange(0, columns.numel() + 1, 3)
        size = (len(where), len(self.nodes))
        return csr_array((shares.reshape(-1).numpy(), columns.reshape(-1).numpy(), ends.numpy()), shape=size)

    def picture(self, values: Tensor, n: int = 256) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Nodal values ``(..., nodes)`` at the centres of ``n`` by ``n`` pixels over the smallest box around the mesh, ``(..., x, y)``, NaN outside of
        it, and the coordinates of the pixels along both axes."""
        lines, points = _pixels(self, n)
        place, shares = self.locate(points)
        given = values.detach().cpu()
        given = given if given.is_floating_point() or given.is_complex() else given.to(torch.float64)
        corners = given[..., self.triangles[place.clamp_min(0)]]
        found = (corners * shares.to(given.real.dtype)).sum(-1)
        found[..., place < 0] = torch.nan
        return found.reshape(*values.shape[:-1], n, n), lines

    def homogeneous(self) -> Mesh:
        """The same: a mesh holds no side values."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """What a file needs to know: sizes and names of the sides."""
        return {"nodes": len(self.nodes), "triangles": len(self.triangles), "sides": tuple(self.sides), "mesh": True}


@dataclass(frozen=True, eq=False)
class Elements:
    """The triangles of a mesh as a domain: fields ``(batch, channel, m)``, constant on every triangle."""

    mesh: Mesh = field(metadata={"opaque": True})

    @property
    def dim(self) -> int:
        """Two: the plane."""
        return 2

    @property
    def shape(self) -> tuple[int]:
        """The number of triangles."""
        return (len(self.mesh.triangles),)

    def volumes(self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Tensor:
        """Areas."""
        return self.mesh.areas().to(device=device, dtype=dtype)

    def points(
        self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> tuple[Tensor, Tensor]:
        """The centres of the triangles, one tensor ``(m,)`` per axis."""
        x, y = self.mesh.corners().mean(1).to(device=device, dtype=dtype).unbind(1)
        return x, y

    coordinates = points

    def space(self, channels: int = 1, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Space:
        """The space of fields ``(batch, channels, m)``."""
        return Space(domain=self, shape=(channels, *self.shape), dtype=dtype, device=torch.device(device))

    def picture(self, values: Tensor, n: int = 256) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The value of the triangle around every pixel; see ``Mesh.picture``."""
        lines, points = _pixels(self.mesh, n)
        place = self.mesh.locate(points)[0]
        found = values.detach().cpu()[..., place.clamp_min(0)]
        found = found.clone() if found.is_floating_point() or found.is_complex() else found.to(torch.float64)
        found[..., place < 0] = torch.nan
        return found.reshape(*values.shape[:-1], n, n), lines

    def homogeneous(self) -> Elements:
        """The same."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """That of the mesh."""
        return {**self.mesh.to_dict(), "elements": True}


def _pixels(mesh: Mesh, n: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Coordinates of pixels along both axes, and of all of them ``(n * n, 2)``, x first."""
    low, high = mesh.nodes.amin(0), mesh.nodes.amax(0)
    places = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    x, y = (low[axis] + (high[axis] - low[axis]) * places for axis in (0, 1))
    return (x, y), torch.stack(torch.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
