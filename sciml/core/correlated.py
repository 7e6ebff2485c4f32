r"""Correlated Gaussian noise: detectors whose readings move together (crosstalk, scintillator blur, slow drift).

``y = z + C^(1/2) n``; whitening is ``C^(-1/2)``, by FFT for stationary noise and by Cholesky's factor for a matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from sciml.core.noise import Whitened
from sciml.domains.errors import InputError

__all__ = ["CorrelatedNoise", "Correlation", "CovarianceMatrix", "PowerSpectrum"]


class Correlation(Protocol):
    """A covariance ``C = L L^H`` of the trailing axes of the data, by what can be done with its factor."""

    def refuses(self, y: Tensor) -> str | None:
        """None, or why it cannot be the covariance of these data."""

    def whiten(self, r: Tensor) -> Tensor:
        """``L^-1 r``."""

    def unwhiten(self, q: Tensor) -> Tensor:
        """``L^-H q``."""

    def colour(self, n: Tensor) -> Tensor:
        """``L n``."""

    def log_size(self, y: Tensor) -> Tensor:
        """``log det L`` of all real components of one member's data (of each of the two parts of complex ones)."""


@dataclass(frozen=True, eq=False)
class PowerSpectrum:
    """Stationary noise on a periodic grid of detectors: ``C = F^H diag(density) F`` with ``F`` the orthonormal FFT.

    ``density`` has the shape of the last one to three axes of the data, in the order of ``torch.fft.fftn``: the variance of
    each Fourier coefficient, the same at opposite frequencies. White noise of deviation ``sigma`` has ``sigma^2`` everywhere.
    The noise is taken to wrap around its axes; near the ends of an axis that does not, it is approximate.
    """

    density: Tensor = field(metadata={"shared": True})

    def refuses(self, y: Tensor) -> str | None:
        """Positive, even in frequency, of the data's trailing shape."""
        d = self.density
        if not 1 <= d.ndim <= min(3, y.ndim - 1) or d.shape != y.shape[y.ndim - d.ndim :]:
            return f"the power spectrum has shape {tuple(d.shape)}, which is not that of the last axes of the data {tuple(y.shape)}"
        if not bool((d > 0).all()) or not bool(torch.isfinite(d).all()):
            return f"the power spectrum is {float(d.min()):.3g} at its least; it must be positive and finite"
        axes = tuple(range(d.ndim))
        opposite = d.flip(axes).roll((1,) * d.ndim, axes)
        if not torch.allclose(d, opposite, rtol=1e-4, atol=0.0):
            return "the power spectrum differs at opposite frequencies; a real covariance is even (order it as torch.fft.fftn does)"
        return None

    def _filter(self, r: Tensor, power: float) -> Tensor:
        axes = tuple(range(-self.density.ndim, 0))
        symbol = self.density.to(r.device, r.real.dtype).pow(power)
        v = torch.fft.ifftn(torch.fft.fftn(r, dim=axes) * symbol, dim=axes)
        result: Tensor = v if r.is_complex() else v.real
        return result

    def whiten(self, r: Tensor) -> Tensor:
        """``F^H diag(density^(-1/2)) F r``."""
        return self._filter(r, -0.5)

    def unwhiten(self, q: Tensor) -> Tensor:
        """The same: the map is symmetric."""
        return self._filter(q, -0.5)

    def colour(self, n: Tensor) -> Tensor:
        """``F^H diag(density^(1/2)) F n``."""
        return self._filter(n, 0.5)

    def log_size(self, y: Tensor) -> Tensor:
        """Half the sum of the logarithms, once for every repetition over the leading axes."""
        return self.density.to(torch.float64).log().sum() / 2 * (y[0].numel() // self.density.numel())


@dataclass(frozen=True, eq=False)
class CovarianceMatrix:
    """A dense real covariance ``(n, n)`` of the ``n`` values that the last axes of the data hold, flattened; others repeat.

    ``n`` may be the last axis alone (every view has the same correlation between its bins) or the whole of one member's data.
    """

    entries: Tensor = field(metadata={"shared": True})

    def refuses(self, y: Tensor) -> str | None:
        """Square, symmetric, positive definite, and as many values as trailing axes hold."""
        c = self.entries
        if c.ndim != 2 or c.shape[0] != c.shape[1] or c.is_complex():
            return f"a covariance matrix is real, (n, n), not {tuple(c.shape)} {c.dtype}"
        if c.shape[0] not in {math.prod(y.shape[i:]) for i in range(1, y.ndim)}:
            return f"the covariance is of {c.shape[0]} values, the last axes of the data {tuple(y.shape)} do not hold so many"
        if not torch.allclose(c, c.T, rtol=0.0, atol=1e-6 * float(c.abs().max())):
            return "the covariance matrix is not symmetric"
        if int(torch.linalg.cholesky_ex(c).info) != 0:
            return "the covariance matrix is not positive definite; add a little variance to its diagonal"
        return None

    def _factor(self, like: Tensor) -> Tensor:
        factor: Tensor = torch.linalg.cholesky(self.entries.to(like.device, torch.float64))
        return factor.to(like.dtype)

    def _columns(self, r: Tensor) -> Tensor:
        return r.reshape(-1, self.entries.shape[0]).T

    def whiten(self, r: Tensor) -> Tensor:
        """``L^-1 r`` with Cholesky's ``L``."""
        solved: Tensor = torch.linalg.solve_triangular(self._factor(r), self._columns(r), upper=False)
        return solved.T.reshape(r.shape)

    def unwhiten(self, q: Tensor) -> Tensor:
        """``L^-T q``."""
        solved: Tensor = torch.linalg.solve_triangular(self._factor(q).T, self._columns(q), upper=True)
        return solved.T.reshape(q.shape)

    def colour(self, n: Tensor) -> Tensor:
        """``L n``."""
        return (self._factor(n) @ self._columns(n)).T.reshape(n.shape)

    def log_size(self, y: Tensor) -> Tensor:
        """The sum of the logarithms of the diagonal of ``L``, once for every repetition."""
        factor = torch.linalg.cholesky(self.entries.to(torch.float64))
        size: Tensor = factor.diagonal().log().sum()
        return size * (y[0].numel() // self.entries.shape[0])


@dataclass(frozen=True, eq=False)
class CorrelatedNoise(Whitened):
    """Gaussian noise ``y = z + L n`` with covariance ``L L^H``: a ``PowerSpectrum`` or a ``CovarianceMatrix``.

    Of complex data each part, real and imaginary, has that covariance, independent of the other. All data must be measured:
    whitening mixes them. ``measured`` is there to be refused in a sentence.
    """

    covariance: Correlation
    measured: Tensor | None = field(default=None, metadata={"told": True})

    def whiten(self, r: Tensor, y: Tensor) -> Tensor:
        """``L^-1 r``."""
        return self.covariance.whiten(r)

    def unwhiten(self, q: Tensor, y: Tensor) -> Tensor:
        """``L^-H q``."""
        return self.covariance.unwhiten(q)

    def sample(self, z: Tensor, *, generator: torch.Generator) -> Tensor:
        """``z + L n``."""
        n = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=generator.device).to(z.device)
        n = n * math.sqrt(2) if z.is_complex() else n  # torch draws complex numbers of variance 1, halves per component
        return z + self.covariance.colour(n)

    def log_likelihood(self, z: Tensor, y: Tensor) -> Tensor:
        """``-|L^-1 (z - y)|^2 / 2 - log det L - dof / 2 log(2 pi)``."""
        parts = 2 if y.is_complex() else 1
        return -self.energy(z, y) - parts * self.covariance.log_size(y) - self.dof(y) / 2 * math.log(2 * math.pi)

    def validate(self, name: str, y: Tensor) -> None:
        """A covariance of the data's shape, all data measured."""
        super().validate(name, y)
        if self.measured is not None and not bool(self.measured.all()):
            raise InputError(
                f"{name!r}: some data were not measured, and correlated noise mixes all of them; cut the data, or use GaussianNoise(sigma, measured=...)"
            )
        reason = self.covariance.refuses(y)
        if reason is not None:
            raise InputError(f"{name!r}: {reason}")
