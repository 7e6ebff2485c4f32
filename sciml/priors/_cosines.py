"""The orthonormal basis in which stationary priors are diagonal: cosines at cell centres, Fourier modes on periodic axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.domains.space import Space

__all__ = ["Cosines"]


@dataclass(frozen=True, eq=False)
class Cosines:
    """Filters ``B^H diag(symbol) B`` on the trailing axes of images, ``B`` orthonormal in the plain inner product.

    Along an axis that is not periodic the basis is ``cos(pi k (j + 1/2) / n)`` (DCT-II), the eigenvectors of forward
    differences that vanish at the last index; the condition at the sides is the natural one, whatever a Grid says of its
    own sides. Along a periodic axis of a Grid it is Fourier's.
    Martucci, IEEE Trans. Signal Process. 42, 1994, doi 10.1109/78.295213.
    """

    on: Space

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbours; one without a domain."""
        return (1.0,) * self.on.dim if self.on.domain is None else self.on.box.spacing

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether an axis wraps around."""
        axes = getattr(self.on.domain, "axes", None)
        return (False,) * self.on.dim if axes is None else tuple(axis.periodic for axis in axes())

    @property
    def volume(self) -> float:
        """The volume of a cell, the same everywhere (the half cells at the sides of a Grid are counted whole)."""
        return math.prod(self.spacing)

    def waves(self, like: Tensor) -> list[Tensor]:
        """Angular wave numbers along every axis, shaped to broadcast."""
        result = []
        rows = zip(self.on.shape[1:], self.spacing, self.periodic, strict=True)
        for axis, (n, h, wraps) in enumerate(rows):
            k = torch.arange(n, dtype=like.real.dtype, device=like.device)
            k = torch.minimum(k, n - k) * 2 if wraps else k
            result.append((k * (math.pi / (n * h))).reshape([-1 if a == axis else 1 for a in range(self.on.dim)]))
        return result

    def differences(self, like: Tensor) -> Tensor:
        """Eigenvalues ``sum_a (2 / h sin(k h / 2))^2`` of minus the second difference, ``(*space)``."""
        total = torch.zeros((), dtype=like.real.dtype, device=like.device)
        for k, h in zip(self.waves(like), self.spacing, strict=True):
            total = total + ((k * (h / 2)).sin() * (2 / h)).square()
        return total

    def squares(self, like: Tensor) -> Tensor:
        """``|k|^2``, ``(*space)``."""
        total = torch.zeros((), dtype=like.real.dtype, device=like.device)
        for k in self.waves(like):
            total = total + k.square()
        return total

    def filter(self, x: Tensor, symbol: Tensor) -> Tensor:
        """``B^H diag(symbol) B x``; the symbol is real, broadcasts, and is even along periodic axes."""
        if symbol.ndim == 0:  # a multiple of the identity
            return symbol * x
        if x.is_complex():
            return torch.complex(self.filter(x.real, symbol), self.filter(x.imag, symbol))
        first = x.ndim - self.on.dim
        wraps = [first + axis for axis, yes in enumerate(self.periodic) if yes]
        cosines = [first + axis for axis, yes in enumerate(self.periodic) if not yes]
        for axis in cosines:
            x = _cosine(x, axis)
        v = torch.fft.fftn(x, dim=wraps) if wraps else x
        v = v * symbol
        x = torch.fft.ifftn(v, dim=wraps).real if wraps else v
        for axis in cosines:
            x = _inverse(x, axis)
        return x


def _twist(n: int, like: Tensor) -> Tensor:
    angle = torch.arange(n, dtype=like.dtype, device=like.device) * (math.pi / (2 * n))
    scale = torch.full((n,), math.sqrt(2 / n), dtype=like.dtype, device=like.device)
    scale[0] = math.sqrt(1 / n)
    return torch.polar(scale, -angle)


def _cosine(x: Tensor, axis: int) -> Tensor:
    """The orthonormal DCT-II by one FFT of the length of the axis (Makhoul, IEEE Trans. ASSP 28, 1980)."""
    x = x.movedim(axis, -1)
    mixed = torch.cat((x[..., ::2], x[..., 1::2].flip(-1)), -1)
    result: Tensor = (torch.fft.fft(mixed) * _twist(x.shape[-1], x)).real
    return result.movedim(-1, axis)


def _inverse(v: Tensor, axis: int) -> Tensor:
    """The transpose of ``_cosine``: its inverse."""
    v = v.movedim(axis, -1)
    n = v.shape[-1]
    mixed = torch.fft.fft(v * _twist(n, v)).real
    half = (n + 1) // 2
    x = torch.empty_like(mixed)
    x[..., ::2] = mixed[..., :half]
    x[..., 1::2] = mixed[..., half:].flip(-1)
    return x.movedim(-1, axis)
