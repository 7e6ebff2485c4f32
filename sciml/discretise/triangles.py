"""Lagrange elements on triangles: which unknowns a triangle and a boundary edge have, and the slopes of their basis functions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.domains.mesh import Mesh

__all__ = ["LinearElements", "QuadraticElements", "TriangleElements"]


class TriangleElements(ABC):
    """Abstract: continuous piecewise polynomials. The first unknowns are the values at the nodes of the mesh, in their order."""

    @abstractmethod
    def count(self, mesh: Mesh) -> int:
        """Number of unknowns."""

    @abstractmethod
    def unknowns(self, mesh: Mesh) -> Tensor:
        """Those of every triangle, ``(m, k)``."""

    @abstractmethod
    def slopes(self, mesh: Mesh) -> tuple[Tensor, Tensor]:
        """Gradients of the basis at quadrature points, ``(m, q, k, 2)``, and weights ``(m, q)`` that integrate their products exactly."""

    @abstractmethod
    def along(self, mesh: Mesh, edges: Tensor) -> Tensor:
        """The unknowns on edges given by node numbers, ``(e, l)``."""

    @property
    @abstractmethod
    def mass(self) -> Tensor:
        """Integrals of products of the basis functions of an edge of length one, ``(l, l)``; its rows sum to those of the functions."""


@dataclass(frozen=True)
class LinearElements(TriangleElements):
    """Degree one: values at the corners. Energies converge with the square of the size of triangles."""

    def count(self, mesh: Mesh) -> int:
        """As many as nodes."""
        return len(mesh.nodes)

    def unknowns(self, mesh: Mesh) -> Tensor:
        """The corners."""
        return mesh.triangles

    def slopes(self, mesh: Mesh) -> tuple[Tensor, Tensor]:
        """One point: slopes are constant."""
        return mesh.gradients().unsqueeze(1), mesh.areas().unsqueeze(1)

    def along(self, mesh: Mesh, edges: Tensor) -> Tensor:
        """The two ends."""
        return edges

    @property
    def mass(self) -> Tensor:
        """Thirds and sixths."""
        return torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64) / 6


@dataclass(frozen=True)
class QuadraticElements(TriangleElements):
    """Degree two: values at the corners and at the middles of the edges, about four times as many. Energies converge with the fourth power of the size of
    triangles where the solution is smooth."""

    def count(self, mesh: Mesh) -> int:
        """Nodes and edges."""
        return len(mesh.nodes) + int(self._edges(mesh)[1].max()) + 1

    @staticmethod
    def _edges(mesh: Mesh) -> tuple[Tensor, Tensor]:
        """Sorted keys of all edges, and the number of the edge opposite to every corner, ``(m, 3)``."""
        t = mesh.triangles
        pairs = torch.stack((t[:, [1, 2]], t[:, [2, 0]], t[:, [0, 1]]), 1).sort(2).values
        keys, numbers = torch.unique(pairs[..., 0] * len(mesh.nodes) + pairs[..., 1], return_inverse=True)
        return keys, numbers

    def unknowns(self, mesh: Mesh) -> Tensor:
        """The corners, then the middles of the edges opposite to them."""
        return torch.cat((mesh.triangles, len(mesh.nodes) + self._edges(mesh)[1]), 1)

    def slopes(self, mesh: Mesh) -> tuple[Tensor, Tensor]:
        """Three points: ``grad(l_i (2 l_i - 1)) = (4 l_i - 1) grad l_i`` and ``4 grad(l_j l_k)``."""
        g = mesh.gradients()
        found = []
        for i in range(3):
            l = torch.full((3,), 1 / 6, dtype=torch.float64)
            l[i] = 2 / 3
            corners = (4 * l - 1).reshape(1, 3, 1) * g
            middles = 4 * torch.stack([l[j] * g[:, k] + l[k] * g[:, j] for j, k in ((1, 2), (2, 0), (0, 1))], 1)
            found.append(torch.cat((corners, middles), 1))
        return torch.stack(found, 1), (mesh.areas() / 3).unsqueeze(1).expand(-1, 3)

    def along(self, mesh: Mesh, edges: Tensor) -> Tensor:
        """The two ends and the middle."""
        pairs = edges.sort(1).values
        number = torch.searchsorted(self._edges(mesh)[0], pairs[:, 0] * len(mesh.nodes) + pairs[:, 1])
        return torch.cat((edges, len(mesh.nodes) + number.unsqueeze(1)), 1)

    @property
    def mass(self) -> Tensor:
        """Simpson's rule in its rows."""
        return torch.tensor([[4.0, -1.0, 2.0], [-1.0, 4.0, 2.0], [2.0, 2.0, 16.0]], dtype=torch.float64) / 30
