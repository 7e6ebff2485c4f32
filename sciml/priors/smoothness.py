r"""Smoothness: images without fast variation, by a Sobolev seminorm (Tikhonov regularisation).

``R(x) = 1/2 integral |(-laplacian)^(s/2) x|^2 = V/2 <x, A^s x>`` with ``A`` minus the second difference (natural condition
at the sides, periodic where a Grid is) and ``V`` the volume of a cell; ``s = 1`` is ``1/2 integral |grad x|^2``. Everything
is diagonal in cosines, so that gradient, curvature and proximal map are closed forms. On a mesh, ``s`` is 0 or 1 and the
integral that of finite elements (for fields on triangles: of the jumps across edges). In the units of the image squared
times length^(dim - 2 s).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator, SemiDefinite
from sciml.core.noise import across, total
from sciml.core.prior import Prior
from sciml.domains.errors import InputError
from sciml.domains.space import Space
from sciml.priors._cosines import Cosines
from sciml.priors._mesh import MeshForm, meshed

__all__ = ["Filter", "Smoothness"]


@dataclass(frozen=True, eq=False)
class Filter(SemiDefinite):
    """``B^H diag(symbol) B`` in the basis of cosines: symmetric, positive semi-definite for a symbol that is not negative."""

    basis: Cosines
    symbol: Tensor

    @property
    def space(self) -> Space:
        """The images."""
        return self.basis.on

    def __call__(self, u: Tensor) -> Tensor:
        return self.basis.filter(u, self.symbol.to(u.device, u.real.dtype))


@dataclass(frozen=True, eq=False)
class Smoothness(Prior):
    """``V/2 <x, A^order x>``, the squared Sobolev seminorm of that order; ``order`` is any number from 0 on, also fractional.

    Images are ``(batch, channel, *space)``, each channel on its own, real or complex. Bound to a space by ``on(space)``;
    unbound it counts in pixels. The half cells that a Grid has at Neumann and Robin sides are counted whole. Keeps Energy,
    Smooth and Proximable (exact at every step).

    *Fails when* the image has edges, which come out blurred; constants (for order > 0) cost nothing.
    Raises InputError for a negative order.
    """

    order: float = 1.0
    space: Space | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.order, int | float) or not 0 <= self.order < math.inf:
            raise InputError(f"the order of Smoothness is {self.order!r}; it must be a number from 0 on, such as 1")

    only_step = None
    quadratic = True
    meshes = True

    def fits(self, space: Space) -> str | None:
        """On a mesh of order 0 or 1: fractional ones need a box."""
        if meshed(space) and self.order not in (0, 1):
            return f"its order is {self.order}; on a mesh it is 0 or 1"
        return None

    def on(self, space: Space) -> Smoothness:
        """The same prior with the spacing of the space."""
        super().on(space)
        return replace(self, space=space)

    def _form(self, x: Tensor) -> MeshForm | None:
        """``V A^order`` on a mesh, which has no cosines."""
        if self.space is None or not meshed(self.space):
            return None
        self._basis(x)
        held: MeshForm | None = self.__dict__.get("_held")
        if held is None or held.on is not self.space:
            held = self.__dict__["_held"] = MeshForm(self.space, self.order)
        return held

    def _basis(self, x: Tensor) -> Cosines:
        if self.space is None:
            return Cosines(Space(None, tuple(x.shape[1:]), (), x.is_complex(), x.real.dtype, x.device))
        if x.shape[1:] != torch.Size(self.space.shape):
            raise InputError(
                f"the image has shape {tuple(x.shape)}; this Smoothness is bound to (batch, {', '.join(map(str, self.space.shape))})"
            )
        return Cosines(self.space)

    def _symbol(self, basis: Cosines, x: Tensor) -> Tensor:
        if self.order == 0:
            return torch.full((), basis.volume, dtype=x.real.dtype, device=x.device)
        return basis.volume * basis.differences(x).pow(self.order)

    @property
    def modulus(self) -> float:
        """The volume of a pixel for order 0, of which every image is a part; 0 for the others, to which constants cost nothing, and on meshes."""
        if self.order != 0 or (self.space is not None and meshed(self.space)):
            return 0.0
        return 1.0 if self.space is None else float(Cosines(self.space).volume)

    def energy(self, x: Tensor) -> Tensor:
        """``<x, grad R(x)> / 2``."""
        return total((x.conj() * self.gradient(x)).real) / 2

    def gradient(self, x: Tensor) -> Tensor:
        """``V A^order x``."""
        if (form := self._form(x)) is not None:
            return form(x)
        basis = self._basis(x)
        return basis.filter(x, self._symbol(basis, x))

    def curvature(self, x: Tensor) -> LinearOperator:
        """``V A^order``, whatever ``x``."""
        if (form := self._form(x)) is not None:
            return form
        basis = self._basis(x)
        return Filter(basis, self._symbol(basis, x))

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """``(1 + step V A^order)^-1 v``."""
        if (form := self._form(v)) is not None:
            return form.prox(v, step)
        basis = self._basis(v)
        return basis.filter(v, 1 / (1 + across(step, v) * self._symbol(basis, v)))


def example() -> tuple[Smoothness, Space]:
    """The integral of the squared gradient, and a small uneven space of images that it fits."""
    from sciml.domains.pixels import Pixels

    return Smoothness(), Pixels((9, 7), extent=(1.0, 0.7)).space()
