"""From the unknown image to the conductivity of every element of a mesh: where the image lives, and what its values mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator
from sciml.domains.errors import InputError
from sciml.domains.mesh import Elements, Mesh
from sciml.domains.space import Space
from sciml.forward._potentials import Rows
from sciml.forward.point_values import PointValues

__all__ = ["Chart", "Logarithm", "Plain", "Spread"]


class Chart(ABC):
    """Abstract: a conductivity as an increasing function of the image, point by point."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """The conductivity."""

    @abstractmethod
    def slope(self, x: Tensor) -> Tensor:
        """Its derivative."""

    @abstractmethod
    def inverse(self, sigma: Tensor) -> Tensor:
        """The image of a conductivity."""


@dataclass(frozen=True, eq=False)
class Plain(Chart):
    """The image is the conductivity; nothing keeps it positive."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def slope(self, x: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(x)

    def inverse(self, sigma: Tensor) -> Tensor:
        """The same."""
        return sigma


@dataclass(frozen=True, eq=False)
class Logarithm(Chart):
    """``sigma = reference exp(x)``: positive whatever ``x``, and zero means the reference."""

    reference: Tensor | float = field(default=1.0, metadata={"shared": True})

    def __post_init__(self) -> None:
        value = torch.as_tensor(self.reference).detach()
        if not bool((value > 0).all()) or not bool(torch.isfinite(value).all()):
            raise InputError(f"the reference conductivity is {float(value.min()):.3g}; it must be positive and finite")

    def __call__(self, x: Tensor) -> Tensor:
        return self.reference * x.exp()

    slope = __call__

    def inverse(self, sigma: Tensor) -> Tensor:
        """``log(sigma / reference)``."""
        return (sigma / self.reference).log()


@dataclass(frozen=True, eq=False)
class Spread(LinearOperator):
    """The mean over every element of ``mesh`` of an image on ``where``, ``(..., 1, *image)`` to ``(..., 1, elements)``.

    ``where`` is a space of one channel on the mesh itself (nodes or elements), on another mesh, or on Pixels or a Grid that cover it. Between nodes and pixels the image is
    interpolated linearly; the mean is taken over three points of an element, which is exact for the mesh's own nodes. None: the mesh's nodes.
    """

    mesh: Mesh = field(metadata={"opaque": True})
    where: Space | None = None

    def __post_init__(self) -> None:
        if self.where is None:
            object.__setattr__(self, "where", self.mesh.space())
        if self.space.domain is None or self.space.shape[0] != 1 or self.space.complex:
            raise InputError(
                f"a conductivity is a real image of one channel on a mesh or on pixels, not on {type(self.space.domain).__name__} with shape {self.space.shape}"
            )

    @property
    def space(self) -> Space:
        """The images."""
        assert self.where is not None
        return self.where

    @property
    def codomain(self) -> Space:
        """One number per element."""
        return self.mesh.elements.space(1, self.space.dtype, self.space.device)

    @property
    def batch(self) -> int:
        """One operator for all."""
        return 1

    @property
    def same(self) -> bool:
        """Whether the image lives on the elements themselves."""
        return isinstance(self.space.domain, Elements) and self.space.domain.mesh is self.mesh

    def _tables(self) -> tuple[Any, Any]:
        held = self.__dict__.get("_held")
        if held is None:
            held = self.__dict__["_held"] = _made(self.mesh, self.space)
        tables: tuple[Any, Any] = held
        return tables

    def _through(self, u: Tensor, tables: tuple[Any, Any]) -> Tensor:
        rows = u.reshape(-1, tables[0].shape[1])
        found: Tensor = Rows.apply(rows.to(torch.float64), *tables)  # type: ignore[no-untyped-call]
        return found.to(u.dtype)

    def __call__(self, u: Tensor) -> Tensor:
        if self.same:
            return u
        lead = u.shape[: u.ndim - len(self.space.shape)]
        return self._through(u, self._tables()).reshape(*lead, *self.codomain.shape)

    def adjoint(self, v: Tensor) -> Tensor:
        """The transpose: every element gives its value back to the nodes or pixels around."""
        if self.same:
            return v
        table, turned = self._tables()
        return self._through(v, (turned, table)).reshape(*v.shape[:-2], *self.space.shape)

    def touched(self) -> tuple[Tensor, Tensor]:
        """The elements that every value of the image touches, ``(image, most)``, and their weights, filled up with zeros."""
        held = self.__dict__.get("_touched")
        if held is None:
            held = self.__dict__["_touched"] = self._filled()
        found: tuple[Tensor, Tensor] = held
        return found

    def _filled(self) -> tuple[Tensor, Tensor]:
        turned = self._tables()[1]
        counts = torch.from_numpy(turned.indptr).diff()
        here = torch.arange(max(1, int(counts.max()))) < counts.unsqueeze(1)
        index = torch.zeros(here.shape, dtype=torch.int64)
        weight = torch.zeros(here.shape, dtype=torch.float64)
        index[here] = torch.from_numpy(turned.indices).to(torch.int64)
        weight[here] = torch.from_numpy(turned.data)
        return index, weight

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_held", "_touched")}


def _made(mesh: Mesh, where: Space) -> tuple[Any, Any]:
    """The sparse table and its transpose, as scipy arrays."""
    import numpy as np
    from scipy.sparse import csr_array

    places, _ = mesh.quadrature(2)
    count, each = places.shape[:2]
    domain = where.domain
    if isinstance(domain, Mesh):
        entries = domain.interpolation(places.reshape(-1, 2)).tocoo()
        (rows, columns), values = entries.coords, entries.data
    elif isinstance(domain, Elements):
        found, _ = domain.mesh.locate(places.reshape(-1, 2))
        if bool((found < 0).any()):  # beyond a coarser outline: the nearest
            from scipy.spatial import cKDTree

            out = found < 0
            centres = torch.stack(domain.points(), 1).numpy()
            found[out] = torch.from_numpy(cKDTree(centres).query(places.reshape(-1, 2)[out].numpy())[1])
        rows, columns = np.arange(len(found)), found.numpy()
        values = np.ones(len(found))
    else:
        index, weight = PointValues(where, places.reshape(-1, 2))._table()
        rows = np.repeat(np.arange(len(index)), index.shape[1])
        columns, values = index.reshape(-1).numpy(), weight.reshape(-1).to(torch.float64).numpy()
    made = csr_array((values / each, (rows // each, columns)), shape=(count, where.size))
    made.sum_duplicates()
    made.eliminate_zeros()
    return made, csr_array(made.T)


def example() -> Spread:
    """Pixels that cover a small disc."""
    from sciml.domains.meshing import disc
    from sciml.domains.pixels import Pixels

    return Spread(disc(nodes=20), Pixels((5, 4), (2.2, 2.1)).space())
