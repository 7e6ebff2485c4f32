"""Noise: what the data say of the prediction, in the units of the data.

``sigma`` is the standard deviation of each *real* measured component (a complex number has two). An energy is a negative
log-likelihood whose minimum over the prediction is zero; values are per member, ``(batch,)``. Components that were not
measured (``measured`` False) carry no information: they count in no energy and in no degree of freedom.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["GaussianNoise", "Noise", "Whitened", "across", "inner", "total"]

TINY = 1e-11  # a sigma below which products of forward model and gradient overflow in single precision


def total(t: Tensor) -> Tensor:
    """Sum over all axes but the first, in double precision."""
    return t.flatten(1).sum(1, dtype=torch.float64)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The real inner product per member; products as well as sums in double precision.

    Gradients of a misfit are of the size ``1 / sigma^2``, products of two of them leave single precision for small units.
    """
    if a.is_complex():
        return total((a.to(torch.complex128).conj() * b.to(torch.complex128)).real)
    return total(a.to(torch.float64) * b.to(torch.float64))


def across(step: Tensor | float, like: Tensor) -> Tensor:
    """A number or ``(batch,)`` tensor with axes added so that it broadcasts against the field ``like``."""
    one = torch.as_tensor(step, dtype=None if isinstance(step, Tensor) else torch.float64, device=like.device)
    one = one.to(like.real.dtype if like.is_complex() else like.dtype)
    return one.reshape(-1, *[1] * (like.ndim - 1)) if one.ndim else one


def _spread(what: str, name: str, t: Tensor, y: Tensor) -> Tensor:
    """``t`` with as many axes as the data, which it must broadcast against."""
    full = t.reshape((1,) * (y.ndim - t.ndim) + t.shape) if t.ndim < y.ndim else t
    if full.ndim != y.ndim or any(m not in (1, n) for m, n in zip(full.shape, y.shape, strict=True)):
        raise InputError(
            f"{name!r}: {what} has shape {tuple(t.shape)}, the data {tuple(y.shape)}; give a number, one per member, or one per datum"
        )
    return full


def _mask(what: str, name: str, mask: Tensor, y: Tensor) -> Tensor:
    """A boolean mask with the axes of the data."""
    mask = torch.as_tensor(mask)
    if mask.dtype != torch.bool:
        raise InputError(f"{name!r}: {what} is {mask.dtype}; it must be boolean, True where data exist")
    full = _spread(what, name, mask, y)
    return full if full.shape[1:] == y.shape[1:] else full.expand(-1, *y.shape[1:])


class Noise(ABC):
    """Abstract: a likelihood of the data ``y`` given the noiseless prediction ``z``.

    ``whiten`` is a linear map ``W`` (its adjoint ``unwhiten``) after which one unit is one standard deviation, exactly for
    Gaussian noise and at the data for other noise. Dual variables of splitting methods live in whitened units.
    """

    measured: Tensor | None
    quadratic: ClassVar[bool] = False  # whether the energy is a quadratic function of the prediction

    def shaped(self, name: str, y: Tensor) -> Self:
        """The same noise with the axes of the data ``y``; InputError for parts that do not fit them."""
        return self

    @abstractmethod
    def energy(self, z: Tensor, y: Tensor) -> Tensor:
        """Negative log-likelihood per member, zero at its minimum over ``z``."""

    @abstractmethod
    def slope(self, z: Tensor, y: Tensor) -> Tensor:
        """Gradient of the energy in ``z``."""

    @abstractmethod
    def bend(self, r: Tensor, z: Tensor, y: Tensor) -> Tensor:
        """Second derivative of the energy at ``z``, or its expectation (Fisher's information), applied to ``r``."""

    @abstractmethod
    def chi_square(self, z: Tensor, y: Tensor) -> Tensor:
        """A number per member whose expectation is ``dof`` when ``z`` is the truth."""

    @abstractmethod
    def whiten(self, r: Tensor, y: Tensor) -> Tensor:
        """``W r``."""

    @abstractmethod
    def unwhiten(self, q: Tensor, y: Tensor) -> Tensor:
        """``W^H q``."""

    @abstractmethod
    def whitened_slope(self, z: Tensor, y: Tensor) -> Tensor:
        """The gradient of ``F`` at ``W z``: ``unwhiten`` of it is ``slope``."""

    @abstractmethod
    def conjugate(self, q: Tensor, y: Tensor) -> Tensor:
        """``F^*(q)`` per member, where ``F(W z) = energy(z, y)``; infinite outside its domain."""

    @abstractmethod
    def dual_prox(self, q: Tensor, step: Tensor, y: Tensor) -> Tensor:
        """Prox of ``step F^*`` at ``q``, where ``F(W z) = energy(z, y)``; ``step`` is ``(batch,)``."""

    @abstractmethod
    def sample(self, z: Tensor, *, generator: torch.Generator) -> Tensor:
        """Data drawn around the noiseless ``z``."""

    @abstractmethod
    def log_likelihood(self, z: Tensor, y: Tensor) -> Tensor:
        """The full log-density of ``y``, constants included."""

    def dof(self, y: Tensor) -> Tensor:
        """Number of real components that were measured, per member."""
        per = 2.0 if y.is_complex() else 1.0
        if self.measured is None:
            return torch.full((y.shape[0],), per * y[0].numel(), dtype=torch.float64, device=y.device)
        return per * total(self.measured.expand(y.shape))

    def validate(self, name: str, y: Tensor) -> None:
        """Raise InputError for parameters that make no likelihood; ``name`` is the problem's."""
        if self.measured is not None and self.measured.dtype != torch.bool:
            raise InputError(f"{name!r}: measured is {self.measured.dtype}; it must be boolean, True where data exist")
        if (self.dof(y) == 0).any():
            raise InputError(f"{name!r}: a member has no measured data at all; look at `measured`")


class Whitened(Noise):
    """Abstract: Gaussian noise, with ``W`` such that ``W (y - z)`` is white of variance one; all follows from ``W``."""

    quadratic: ClassVar[bool] = True

    def energy(self, z: Tensor, y: Tensor) -> Tensor:
        """``|W (z - y)|^2 / 2``."""
        return self.chi_square(z, y) / 2

    def slope(self, z: Tensor, y: Tensor) -> Tensor:
        """``W^H W (z - y)``."""
        return self.unwhiten(self.whiten(z - y, y), y)

    def bend(self, r: Tensor, z: Tensor, y: Tensor) -> Tensor:
        """``W^H W r``."""
        return self.unwhiten(self.whiten(r, y), y)

    def chi_square(self, z: Tensor, y: Tensor) -> Tensor:
        """``|W (z - y)|^2``."""
        r = self.whiten(z - y, y)
        return inner(r, r)

    def whitened_slope(self, z: Tensor, y: Tensor) -> Tensor:
        """``W (z - y)``."""
        return self.whiten(z - y, y)

    def conjugate(self, q: Tensor, y: Tensor) -> Tensor:
        """``|q|^2 / 2 + <q, W y>``."""
        return inner(q, q) / 2 + inner(q, self.whiten(y, y))

    def dual_prox(self, q: Tensor, step: Tensor, y: Tensor) -> Tensor:
        """``(q - step W y) / (1 + step)``."""
        s = across(step, y)
        return (q - s * self.whiten(y, y)) / (1 + s)


@dataclass(frozen=True, eq=False)
class GaussianNoise(Whitened):
    """Independent Gaussian noise: ``y = z + sigma n``.

    ``sigma`` is a number or a tensor that broadcasts against the data ``(batch, channel, ...)``; ``(batch,)`` gives one per
    member. ``measured`` is a boolean tensor of the data's shape; None: all of it.
    """

    sigma: float | Tensor
    measured: Tensor | None = field(default=None, metadata={"told": True})

    def shaped(self, name: str, y: Tensor) -> Self:
        """Sigma and mask with the data's axes in front; a number or one number per member stays."""
        changes: dict[str, Tensor] = {}
        sigma = self.sigma
        if sigma is not None and not isinstance(sigma, int | float | Tensor):
            try:
                sigma = changes["sigma"] = torch.as_tensor(sigma, dtype=y.real.dtype)
            except (TypeError, ValueError):
                raise InputError(f"{name!r}: sigma is {self.sigma!r}; give a number or a tensor") from None
        if isinstance(sigma, Tensor) and sigma.ndim > 1:
            changes["sigma"] = _spread("sigma", name, sigma, y)
        if self.measured is not None:
            changes["measured"] = _mask("measured", name, self.measured, y)
        same = all(value is getattr(self, key) for key, value in changes.items())
        return self if same else replace(self, **changes)

    def _sigma(self, like: Tensor) -> Tensor:
        sigma = torch.as_tensor(self.sigma, dtype=like.real.dtype, device=like.device)
        return sigma.reshape(-1, *[1] * (like.ndim - 1)) if sigma.ndim == 1 else sigma

    def _mask(self, r: Tensor) -> Tensor:
        return r if self.measured is None else torch.where(self.measured, r, torch.zeros_like(r))

    def whiten(self, r: Tensor, y: Tensor) -> Tensor:
        """``r / sigma``, zero where nothing was measured."""
        return self._mask(r) / self._sigma(y)

    def unwhiten(self, q: Tensor, y: Tensor) -> Tensor:
        """The same: the map is real and diagonal."""
        return self._mask(q) / self._sigma(y)

    def dual_prox(self, q: Tensor, step: Tensor, y: Tensor) -> Tensor:
        """``(q - step W y) / (1 + step)``; zero where nothing was measured."""
        return self._mask(super().dual_prox(q, step, y))

    def sample(self, z: Tensor, *, generator: torch.Generator) -> Tensor:
        """``z + sigma n``; unmeasured components are zero."""
        n = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=generator.device).to(z.device)
        n = n * math.sqrt(2) if z.is_complex() else n  # torch draws complex numbers of variance 1, halves per component
        return self._mask(z + self._sigma(z) * n)

    def log_likelihood(self, z: Tensor, y: Tensor) -> Tensor:
        """``-|W (z - y)|^2 / 2 - sum log(sigma sqrt(2 pi))``."""
        logs = self._mask((self._sigma(y) * math.sqrt(2 * math.pi)).log().expand(y.shape))
        return -self.energy(z, y) - (2 if y.is_complex() else 1) * total(logs)

    def validate(self, name: str, y: Tensor) -> None:
        """``sigma`` must be known, finite, positive and of a shape that broadcasts."""
        super().validate(name, y)
        if self.sigma is None:
            raise InputError(f"{name!r}: sigma is not known; pass a number, or GaussianNoise.estimate(data)")
        sigma = self._sigma(y)
        try:
            sigma.expand(y.shape)
        except RuntimeError:
            raise InputError(
                f"{name!r}: sigma has shape {tuple(sigma.shape)}, the data {tuple(y.shape)}; give a number, one per member, or one per datum"
            ) from None
        if not bool((sigma > 0).all()) or not bool(torch.isfinite(sigma).all()):
            raise InputError(
                f"{name!r}: sigma is {float(sigma.min()):.3g} at its least; the noise must be positive and finite (exclude data with measured=, or use GaussianNoise.estimate(data))"
            )

        if torch.finfo(y.dtype).eps > 1e-10:
            self._check_single(name, y, sigma)

    def _check_single(self, name: str, y: Tensor, sigma: Tensor) -> None:
        """Noise that single precision cannot hold: below its rounding of the data, or with an inverse that leaves its range."""
        eps, least = torch.finfo(y.dtype).eps, float(sigma.min())
        if least < TINY:
            raise InputError(
                f"{name!r}: sigma is {least:.3g} at its least, and in single precision 1 / sigma^3 leaves the numbers there are; multiply data and sigma by a number that brings them nearer to one, or work in float64"
            )
        seen = torch.ones_like(y, dtype=torch.bool) if self.measured is None else self.measured.expand(y.shape)
        rounded = (sigma.expand(y.shape) < eps / 2 * y.abs()) & seen
        if 2 * int(rounded.sum()) > int(seen.sum()):
            raise InputError(
                f"{name!r}: sigma is {least:.3g}, less than what single precision rounds off data of size {float(y.abs().max()):.3g}; no image explains them so well: work in float64, or give a sigma that includes the rounding"
            )

    @classmethod
    def estimate(cls, y: Tensor, measured: Tensor | None = None) -> GaussianNoise:
        """Sigma per member from the data alone: the median of absolute third differences along the last axis.

        Third differences of smooth data are small, those of white noise have variance ``20 sigma^2``; the median ignores
        edges (Donoho and Johnstone, Biometrika 81, 1994, use the finest wavelet coefficients in the same way). It fails,
        upwards, for data that are rough at the scale of single detector bins. Data need at least 8 bins on the last axis.
        """
        if y.shape[-1] < 8:
            raise InputError(f"the data have {y.shape[-1]} bins on their last axis; an estimate of sigma needs 8")
        parts = torch.view_as_real(y).movedim(-1, 1) if y.is_complex() else y
        d = parts.diff(n=3, dim=-1).abs() / math.sqrt(20.0)
        if measured is not None:
            ok = measured.expand(y.shape).unfold(-1, 4, 1).all(-1)
            ok = ok.unsqueeze(1).expand(d.shape) if y.is_complex() else ok
            d = torch.where(ok, d, torch.full_like(d, math.nan))
        sigma = d.flatten(1).nanmedian(1).values / 0.6744897501960817
        return cls(sigma, measured)
