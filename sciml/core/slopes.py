"""Differences of fields on a mesh: the gradient of nodal fields, the jumps of fields that are constant on triangles.

Both are plain linear maps; what they measure is weighted by ``volumes``: areas of triangles for gradients, lengths of edges for jumps.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator
from sciml.domains.errors import InputError
from sciml.domains.mesh import Elements, Mesh
from sciml.domains.space import Space

__all__ = ["Differences", "Jumps", "Slopes", "gathering"]


def gathering(targets: Tensor, count: int) -> Tensor:
    """For every one of ``count`` targets the places in ``targets`` that hold its number, ``(count, most)``, filled up with ``len(targets)``.

    Sums over these places are a transpose that gives the same bits every time, on any device.
    """
    order = targets.argsort(stable=True)
    sizes = torch.bincount(targets, minlength=count)
    first = sizes.cumsum(0) - sizes
    rank = torch.arange(len(targets)) - first[targets[order]]
    table = torch.full((count, int(sizes.max())), len(targets), dtype=torch.int64)
    table[targets[order], rank] = order
    return table


class Differences(LinearOperator):
    """Abstract: differences on a mesh, ``components`` per channel at every place; ``space`` is that of the fields."""

    on: Space
    components: int

    @property
    def space(self) -> Space:
        """The fields."""
        return self.on

    @property
    def batch(self) -> int:
        """One operator for all members."""
        return 1

    @abstractmethod
    def volumes(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The measure of every place."""

    @property
    @abstractmethod
    def square_bound(self) -> float:
        """A bound of the square of the norm."""

    def _kept(self) -> dict[str, Any]:
        held = self.__dict__.get("_held")
        if held is None:
            held = self.__dict__["_held"] = {k: t.to(self.on.device) for k, t in self._tables().items()}
        found: dict[str, Any] = held
        return found

    @abstractmethod
    def _tables(self) -> dict[str, Tensor]:
        """What depends on the mesh alone."""

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_held"}


@dataclass(frozen=True, eq=False)
class Slopes(Differences):
    """The gradient on every triangle, ``(..., channel, n)`` to ``(..., channel * 2, m)``: channel ``2 c + a`` is the derivative of ``c`` along axis ``a``."""

    on: Space

    components = 2

    def __post_init__(self) -> None:
        _mesh(self.on)

    @property
    def codomain(self) -> Space:
        """Two channels per channel, on the triangles."""
        mesh = _mesh(self.on)
        shape = (2 * self.on.shape[0], len(mesh.triangles))
        return Space(mesh.elements, shape, complex=self.on.complex, dtype=self.on.dtype, device=self.on.device)

    def _tables(self) -> dict[str, Tensor]:
        mesh = _mesh(self.on)
        back = gathering(mesh.triangles.reshape(-1), len(mesh.nodes))
        return {"corners": mesh.triangles, "slopes": mesh.gradients().to(self.on.dtype.to_real()), "back": back}

    def volumes(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Areas."""
        return _mesh(self.on).areas().to(self.on.device, dtype)

    @property
    def square_bound(self) -> float:
        """The largest absolute row sum of ``K^T K``."""
        mesh = _mesh(self.on)
        slopes = mesh.gradients()
        rows = torch.einsum("mid,mjd->mij", slopes, slopes).abs().sum(2).reshape(-1)
        return float(
            torch.zeros(len(mesh.nodes), dtype=torch.float64).index_add_(0, mesh.triangles.reshape(-1), rows).max()
        )

    def __call__(self, u: Tensor) -> Tensor:
        tables = self._kept()
        slopes = tables["slopes"].to(u.real.dtype)
        at = u[..., tables["corners"]]
        parts = [sum(at[..., k] * slopes[:, k, axis] for k in range(3)) for axis in (0, 1)]
        return torch.stack([torch.as_tensor(part) for part in parts], -2).flatten(-3, -2)

    def adjoint(self, v: Tensor) -> Tensor:
        """Every node gathers from the triangles around."""
        tables = self._kept()
        slopes = tables["slopes"].to(v.real.dtype)
        x, y = v[..., 0::2, :], v[..., 1::2, :]
        each = x.unsqueeze(-1) * slopes[..., 0] + y.unsqueeze(-1) * slopes[..., 1]
        return torch.nn.functional.pad(each.flatten(-2), (0, 1))[..., tables["back"]].sum(-1)


@dataclass(frozen=True, eq=False)
class Jumps(Differences):
    """Differences across the edges between triangles, ``(..., channel, m)`` to ``(..., channel, edges)``."""

    on: Space

    components = 1

    def __post_init__(self) -> None:
        _elements(self.on)

    @property
    def codomain(self) -> Space:
        """Plain numbers, one per inner edge."""
        edges = len(_elements(self.on).mesh.inner_edges()[0])
        return Space(
            None, (self.on.shape[0], edges), complex=self.on.complex, dtype=self.on.dtype, device=self.on.device
        )

    def _tables(self) -> dict[str, Tensor]:
        pairs = _elements(self.on).mesh.inner_edges()[1]
        return {"pairs": pairs, "back": gathering(pairs.T.reshape(-1), self.on.shape[1])}

    def volumes(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Lengths of the edges."""
        mesh = _elements(self.on).mesh
        return mesh.lengths(mesh.inner_edges()[0]).to(self.on.device, dtype)

    def apart(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Distances of the centres of the two triangles."""
        mesh = _elements(self.on).mesh
        centres = mesh.corners().mean(1)[mesh.inner_edges()[1]]
        return (centres[:, 0] - centres[:, 1]).square().sum(1).sqrt().to(self.on.device, dtype)

    @property
    def square_bound(self) -> float:
        """Three neighbours at most: the largest eigenvalue of the graph's Laplacian is at most six."""
        return 6.0

    def __call__(self, u: Tensor) -> Tensor:
        pairs = self._kept()["pairs"]
        return u[..., pairs[:, 0]] - u[..., pairs[:, 1]]

    def adjoint(self, v: Tensor) -> Tensor:
        """Every triangle gathers from its edges, with signs."""
        each = torch.nn.functional.pad(torch.cat((v, -v), -1), (0, 1))
        return each[..., self._kept()["back"]].sum(-1)


def _mesh(space: Space) -> Mesh:
    if not isinstance(space.domain, Mesh):
        raise InputError(
            f"gradients on triangles need a field on the nodes of a Mesh, not on {type(space.domain).__name__}"
        )
    return space.domain


def _elements(space: Space) -> Elements:
    if not isinstance(space.domain, Elements):
        raise InputError(f"jumps need a field on the Elements of a Mesh, not on {type(space.domain).__name__}")
    return space.domain
