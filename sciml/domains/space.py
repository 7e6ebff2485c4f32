"""Spaces of fields: a domain, a shape, the norms that go with it, and named parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sciml.domains.errors import InputError

if TYPE_CHECKING:
    from sciml.domains.grid import Grid
    from sciml.domains.mesh import Elements, Mesh
    from sciml.domains.pixels import Pixels

__all__ = ["Space", "usable"]


@dataclass(frozen=True, eq=False)
class Space:
    """Fields of shape ``(..., channel, *space)`` on a domain (``domain`` None: plain vectors of coefficients).

    ``norm(u)`` is the L2 norm by the domain's quadrature, ``sqrt(sum_i V_i |u_i|^2)``; ``norm(r, dual=True)`` is the norm
    of an *integrated* residual, ``sqrt(sum_i |r_i|^2 / V_i)``. Weights live here and nowhere else: adjoints are plain.
    ``parts`` names groups of channels, such as (("velocity", 2), ("pressure", 1)).
    """

    domain: Grid | Pixels | Mesh | Elements | None
    shape: tuple[int, ...]
    parts: tuple[tuple[str, int], ...] = ()
    complex: bool = False
    dtype: torch.dtype = torch.float64
    device: torch.device = torch.device("cpu")

    def __post_init__(self) -> None:
        if self.parts and sum(count for _, count in self.parts) != self.shape[0]:
            raise InputError(f"the parts {self.parts} do not add up to the {self.shape[0]} channels of the space")

    @property
    def grid(self) -> Grid:
        """The grid of nodes that fields of this space live on; InputError where they live on pixels or on nothing."""
        from sciml.domains.grid import Grid

        if not isinstance(self.domain, Grid):
            raise InputError(
                f"this needs fields on the nodes of a Grid, with conditions at its sides, not on {type(self.domain).__name__}"
            )
        return self.domain

    @property
    def box(self) -> Grid | Pixels:
        """The grid or the pixels of this space; InputError on a mesh or on nothing, which have no axes and no spacing."""
        from sciml.domains.grid import Grid
        from sciml.domains.pixels import Pixels

        if not isinstance(self.domain, Grid | Pixels):
            raise InputError(
                f"this needs a Grid or Pixels, with a spacing along each axis, not {type(self.domain).__name__}"
            )
        return self.domain

    @property
    def dim(self) -> int:
        """Number of space axes of a field: one on a mesh, whose nodes are listed."""
        return len(self.shape) - 1

    @property
    def size(self) -> int:
        """Number of unknowns of one member."""
        return int(torch.Size(self.shape).numel())

    def weights(self, dtype: torch.dtype | None = None) -> Tensor:
        """Quadrature weights, broadcastable to a field."""
        dtype = self.dtype if dtype is None else dtype
        if self.domain is None:
            return torch.ones((), dtype=dtype, device=self.device)
        return self.domain.volumes(dtype, self.device)

    def norm(self, u: Tensor, *, dual: bool = False) -> Tensor:
        """Norm over the trailing ``1 + dim`` axes, in float64: one number per member (and time, and sample)."""
        axes = tuple(range(u.ndim - len(self.shape), u.ndim))
        square = u.to(torch.complex128 if u.is_complex() else torch.float64).abs().square()
        weights = self.weights(torch.float64).to(u.device)
        return (square / weights if dual else square * weights).sum(axes).sqrt()

    def zeros(self, batch: int = 1) -> Tensor:
        """A batch of zero fields."""
        return torch.zeros((batch, *self.shape), dtype=self.dtype, device=self.device)

    def split(self, u: Tensor) -> dict[str, Tensor]:
        """The named parts of a field; a space without named parts has one, ``u``."""
        parts = self.parts or (("u", self.shape[0]),)
        axis = u.ndim - len(self.shape)
        return dict(zip((name for name, _ in parts), torch.split(u, [count for _, count in parts], axis), strict=True))

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The field whose named parts are given; the inverse of ``split``."""
        names = [name for name, _ in self.parts or (("u", self.shape[0]),)]
        if set(names) != set(parts):
            raise InputError(f"the parts are {names}, not {sorted(parts)}")
        first = parts[names[0]]
        return torch.cat([parts[name] for name in names], first.ndim - len(self.shape))


def usable(device: torch.device | str) -> torch.device:
    """The device, if this machine has it; InputError otherwise."""
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the device {str(device)!r} cannot be used here ({reason}); use 'cpu'") from error
    return place
