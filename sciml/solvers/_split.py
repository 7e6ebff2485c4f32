"""Splittings ``z = B x`` of the priors of inverse problems, for ADMM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sciml.core.inverse import Inverse
from sciml.core.noise import across
from sciml.core.prior import Composite
from sciml.solvers._normal import weights

__all__ = ["Analysis", "Identity", "Split", "bounds", "split_of"]


class Split(Protocol):
    """``z = B x`` as one flat vector per member, and the proximal map of ``h``."""

    def forward(self, x: Tensor) -> Tensor:
        """``B x``, ``(batch, n)``."""

    def adjoint(self, z: Tensor) -> Tensor:
        """``B^H z``, an image."""

    def update(self, v: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
        """``z = prox_(h / rho)(v)`` and ``m = rho (v - z)``."""

    def image(self, x: Tensor, z: Tensor) -> Tensor:
        """The image to hand over: the one that the prior made, where it made one."""


@dataclass(frozen=True, eq=False)
class Identity:
    """``B = 1``, ``h = weight R``."""

    prior: Any
    weight: Tensor
    shape: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        """``x``, flat."""
        return x.flatten(1)

    def adjoint(self, z: Tensor) -> Tensor:
        """An image again."""
        return z.reshape(-1, *self.shape)

    def update(self, v: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
        """The proximal map of the prior."""
        step = (self.weight.to(torch.float64) / rho).to(self.weight)
        z = self.prior.prox(self.adjoint(v), step).flatten(1)
        return z, across(rho, v) * (v - z)

    def image(self, x: Tensor, z: Tensor) -> Tensor:
        """What the proximal map gave."""
        return self.adjoint(z)


@dataclass(frozen=True, eq=False)
class Analysis:
    """``B = K``, ``h = weight g``; where there are bounds, a second block ``scale x`` that keeps them."""

    prior: Any
    weight: Tensor
    shape: tuple[int, ...]
    scale: float
    inner: int
    bounded: bool

    def forward(self, x: Tensor) -> Tensor:
        """``K x``, and ``scale x``."""
        first = self.prior.operator(x).flatten(1)
        return torch.cat([first, self.scale * x.flatten(1)], 1) if self.bounded else first

    def field(self, z: Tensor) -> Tensor:
        """The first block, in the shape that ``K`` makes."""
        return z[:, : self.inner].reshape(-1, *self.prior.operator.codomain.shape)

    def adjoint(self, z: Tensor) -> Tensor:
        """``K^H z``, plus ``scale z`` of the second block."""
        first: Tensor = self.prior.operator.adjoint(self.field(z))
        if not self.bounded:
            return first
        return first + self.scale * z[:, self.inner :].reshape(-1, *self.shape)

    def update(self, v: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
        """By Moreau's identity, so that the multiplier is a dual variable of ``weight g``."""
        field = self.field(v)
        m = self.prior.dual_prox(across(rho, field) * field, rho.to(self.weight), self.weight).flatten(1)
        z = v[:, : self.inner] - m / across(rho, m)
        if not self.bounded:
            return z, m
        rest = v[:, self.inner :]
        box = self.scale * self.prior.inside((rest / self.scale).reshape(-1, *self.shape)).flatten(1)
        return torch.cat([z, box], 1), torch.cat([m, across(rho, rest) * (rest - box)], 1)

    def image(self, x: Tensor, z: Tensor) -> Tensor:
        """Where there are bounds, the second block: it lies on them exactly where their multipliers are at work."""
        return self.prior.inside(z[:, self.inner :].reshape(x.shape) / self.scale) if self.bounded else x


def split_of(problem: Inverse[Any], scale: float, bounded: bool) -> Split:
    """``B`` and ``h`` of a problem; a prior that knows its proximal map at one step only is split at the image itself."""
    prior, weight, shape = problem.prior, weights(problem), problem.space.shape
    if not isinstance(prior, Composite) or getattr(prior, "only_step", None) is not None:
        return Identity(prior, weight, shape)
    return Analysis(prior, weight, shape, scale, prior.operator.codomain.size, bounded)


def bounds(problem: Inverse[Any]) -> tuple[float, bool]:
    """The weight of a second block beside ``K``, a third of its size, and whether the prior has bounds.

    Where it leaves very large images as they are, it has none.
    """
    prior = problem.prior
    if not isinstance(prior, Composite):
        return 1.0, False
    # Which images are bounded cannot be asked of a prior; very large ones tell.
    far = torch.full_like(problem.space.zeros(), 1e30)
    bounded = not bool((prior.inside(far) == far).all() and (prior.inside(-far) == -far).all())
    return 0.3 * float(prior.operator.size_bound().max()), bounded
