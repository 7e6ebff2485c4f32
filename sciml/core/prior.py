"""What a prior can do: one small protocol for each ability; a solver asks for the abilities it needs.

A prior is unweighted: ``Inverse.weight`` is the one place where its strength stands. All values are per member, ``(batch,)``;
fields are ``(batch, channel, *space)``. A prior that depends on the geometry (spacing, volumes) is bound to a space by
``on(space)``, which Inverse calls; unbound it counts in pixels.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator
from sciml.domains.errors import InputError
from sciml.domains.mesh import Elements, Mesh
from sciml.domains.space import Space

__all__ = ["Composite", "Denoising", "Energy", "Generative", "Prior", "Proximable", "Reweighted", "Smooth"]


class Prior:
    """Abstract by what it leaves out: a prior adds the methods of the protocols that it can keep.

    ``meshes`` says whether it understands fields on a Mesh, whose values are a list and no image.
    """

    meshes: ClassVar[bool] = False

    def on(self, space: Space) -> Self:
        """The prior for images of this space; raises InputError where ``fits`` has an objection."""
        reason = self.fits(space)
        if reason is None and isinstance(space.domain, Mesh | Elements) and not self.meshes:
            reason = "they live on a mesh, and it needs an image of pixels; spread pixels over the mesh with image=Spread(mesh, Pixels(...).space())"
        if reason is not None:
            raise InputError(f"{type(self).__name__} does not fit images of shape {space.shape}: {reason}")
        return self

    def fits(self, space: Space) -> str | None:
        """None, or one sentence on why images of this space cannot be judged (channels, range, size)."""
        return None


@runtime_checkable
class Energy(Protocol):
    """``energy(x)`` is ``R(x)``, such as a negative log-density up to a constant."""

    def energy(self, x: Tensor) -> Tensor:
        """``R(x)`` per member."""


@runtime_checkable
class Proximable(Protocol):
    """``prox(v, step) = argmin_x |x - v|^2 / 2 + step R(x)`` in the plain 2-norm.

    ``only_step`` is None when every positive step is supported, else the one step at which the map is exact: a learned
    proximal network has one strength, and the weight of the data does the rest.
    """

    @property
    def only_step(self) -> float | None:
        """The one supported step, or None for any."""

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """The proximal map; ``step`` is a number or ``(batch,)``."""


@runtime_checkable
class Composite(Protocol):
    """``R(x) = g(K x)`` on the set where ``inside(x) = x``, with ``K`` linear and ``g`` convex and simple."""

    @property
    def operator(self) -> LinearOperator:
        """``K``."""

    def outer(self, z: Tensor) -> Tensor:
        """``g(z)`` per member."""

    def conjugate(self, p: Tensor, weight: Tensor) -> Tensor:
        """``(weight g)^*(p)`` per member; infinite outside its domain."""

    def dual_prox(self, p: Tensor, step: Tensor, weight: Tensor) -> Tensor:
        """``argmin_q |q - p|^2 / 2 + step (weight g)^*(q)``; ``step`` and ``weight`` are ``(batch,)``."""

    def inside(self, x: Tensor) -> Tensor:
        """The nearest image within the bounds; ``x`` itself where there are none."""

    def descent(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The part of a gradient along which an image within the bounds can still move down."""


@runtime_checkable
class Reweighted(Protocol):
    """``R(x) = g(K x)`` with ``g`` a sum of lengths, ``sum_i V_i |z_i|``: quadratic once the lengths in ``V_i |z_i|^2 / |z_i|`` are held."""

    @property
    def operator(self) -> LinearOperator:
        """``K``."""

    @property
    def unbounded(self) -> bool:
        """Whether any image is allowed."""

    def outer(self, z: Tensor) -> Tensor:
        """``g(z)`` per member."""

    def smoothed(self, z: Tensor, smoothing: Tensor) -> tuple[Tensor, Tensor]:
        """``sum_i V_i sqrt(|z_i|^2 + s^2)`` per member, and ``V_i / sqrt(|z_i|^2 + s^2)`` in the shape of ``z``; ``s`` is ``(batch,)``."""

    def paired(self, a: Tensor, b: Tensor) -> Tensor:
        """The inner products ``<a_i, b_i>`` of real ``a``, ``b`` like ``z``, in the shape of ``z``."""


@runtime_checkable
class Smooth(Protocol):
    """A differentiable energy."""

    def energy(self, x: Tensor) -> Tensor:
        """``R(x)`` per member."""

    def gradient(self, x: Tensor) -> Tensor:
        """The plain gradient of ``R``, an image."""

    def curvature(self, x: Tensor) -> LinearOperator:
        """The Hessian of ``R`` at ``x``, or a positive semi-definite part of it."""


@runtime_checkable
class Denoising(Protocol):
    """``denoise(x, sigma) = E[x0 | x0 + sigma n = x]`` with ``n`` white: the mean, not the most probable image."""

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The posterior mean; ``sigma`` is a number or ``(batch,)``, in the units of ``x``."""


@runtime_checkable
class Generative(Protocol):
    """Draws images."""

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """``(count, channel, *space)``."""
