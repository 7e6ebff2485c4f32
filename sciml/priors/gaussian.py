r"""The Gaussian prior: images drawn from ``N(mean, C)``, ``R(x) = 1/2 <x - mean, C^-1 (x - mean)>``.

Everything about it is known in closed form in an eigenbasis of ``C``: with ``v`` the eigenvalues of ``C``, the proximal map is
``v / (v + step)``, the posterior mean of an image with white noise ``v / (v + sigma^2)`` (Wiener's filter), a draw ``sqrt(v) n``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator, SemiDefinite
from sciml.core.noise import total
from sciml.core.prior import Prior
from sciml.domains.errors import InputError
from sciml.domains.random_fields import GaussianField
from sciml.domains.space import Space
from sciml.priors._cosines import Cosines
from sciml.priors._shapes import broadcasts

__all__ = ["Covariance", "Gaussian"]

DENSE = 4096


@dataclass(frozen=True, eq=False)
class Covariance(SemiDefinite):
    """A function of a covariance, diagonal in its eigenbasis: ``Q diag(values) Q^T``, or cosines where ``vectors`` is None."""

    on: Space
    values: Tensor = field(metadata={"shared": True})
    vectors: Tensor | None = field(default=None, metadata={"shared": True})
    of: object = field(default=None, metadata={"opaque": True}, repr=False)

    @property
    def space(self) -> Space:
        """The images."""
        return self.on

    def __call__(self, u: Tensor) -> Tensor:
        return self.filter(u, self.values.to(u.device, u.real.dtype))

    def filter(self, x: Tensor, symbol: Tensor) -> Tensor:
        """``Q diag(symbol) Q^T x``."""
        if self.vectors is None:
            return Cosines(self.on).filter(x, symbol)
        lead = x.shape[: x.ndim - len(self.on.shape)]
        q = self.vectors.to(x.device, x.dtype)
        coefficients = torch.matmul(x.reshape(*lead, -1), q)
        return torch.matmul(coefficients * symbol, q.T).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class Gaussian(Prior):
    r"""``N(mean, C)`` with the covariance a ``GaussianField`` or a symmetric positive definite ``LinearOperator``.

    * A ``GaussianField`` has covariance ``(-laplacian + shift)^-power`` with its own amplitude, diagonal in cosines (Fourier
      modes on periodic axes), channels independent. It is a function of position, so its meaning does not depend on the
      grid. All modes that the image resolves are kept, whatever its ``modes``, and the constant one must have a variance
      (``mean_mode=True``).
    * A LinearOperator on images of at most 4096 numbers is decomposed densely, once, by ``on(space)``. With ``precision=True``
      it is ``C^-1`` that is given.

    ``mean`` is a number or a tensor that broadcasts against ``(channel, *space)``, the same for all members. Images are real. Keeps Energy,
    Smooth, Proximable (every step), Denoising (exact) and Generative. Must be bound by ``on(space)`` before use.

    Raises InputError for a covariance that is not positive definite, of the wrong shape, or too large.
    """

    covariance: GaussianField | LinearOperator = field(default_factory=lambda: GaussianField(mean_mode=True))
    mean: float | Tensor = field(default=0.0, metadata={"shared": True})
    precision: bool = False
    bound: Covariance | None = field(default=None, metadata={"told": True})

    only_step = None
    quadratic = True

    def fits(self, space: Space) -> str | None:
        """Real images of the covariance's shape."""
        if space.complex:
            return "complex images need a complex covariance, which this prior does not have"
        if isinstance(self.mean, Tensor) and not broadcasts(self.mean.shape, space.shape):
            return f"its mean has shape {tuple(self.mean.shape)}"
        if isinstance(self.covariance, GaussianField):
            if not self.covariance.mean_mode:
                return "its field has no variance in the constant mode; write GaussianField(..., mean_mode=True)"
            if self.precision:
                return "a GaussianField states a covariance; leave out precision=True"
            return None
        if torch.Size(self.covariance.space.shape) != torch.Size(space.shape):
            return f"its covariance acts on {tuple(self.covariance.space.shape)}"
        return (
            None
            if space.size <= DENSE
            else f"a covariance of {space.size} numbers is not decomposed; use a GaussianField"
        )

    def on(self, space: Space) -> Gaussian:
        """The same prior with the eigenvalues of its covariance on this space."""
        super().on(space)
        known = self.bound
        if known is not None and known.on is space and known.of is self.covariance:
            return self
        if isinstance(self.covariance, GaussianField):
            like = torch.zeros((), dtype=torch.float64, device=space.device)
            values = _variances(self.covariance, Cosines(space), like)
            return replace(self, bound=Covariance(space, values.to(space.dtype), None, self.covariance))
        matrix = self.covariance.dense()[0].to(torch.float64)
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        if not torch.allclose(matrix, matrix.T, rtol=0.0, atol=1e-10 * float(matrix.abs().max())) or values[0] <= 0:
            what = "precision" if self.precision else "covariance"
            raise InputError(
                f"the {what} of a Gaussian must be symmetric and positive definite; its smallest eigenvalue is {float(values[0]):.3g}"
            )
        values = 1 / values if self.precision else values
        bound = Covariance(space, values.to(space.dtype), vectors.to(space.dtype), self.covariance)
        return replace(self, bound=bound)

    def _at(self) -> Covariance:
        if self.bound is None:
            raise InputError("this Gaussian does not know its space; bind it with on(space)")
        return self.bound

    def _values(self, x: Tensor) -> Tensor:
        return self._at().values.to(x.device, x.dtype)

    def _mean(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.mean, dtype=x.dtype, device=x.device)

    @property
    def modulus(self) -> float:
        """One over the largest variance; 0 before it is known."""
        return 0.0 if self.bound is None else 1 / float(self.bound.values.max())

    def energy(self, x: Tensor) -> Tensor:
        """``1/2 <x - mean, C^-1 (x - mean)>``."""
        return total((x - self._mean(x)) * self.gradient(x)) / 2

    def gradient(self, x: Tensor) -> Tensor:
        """``C^-1 (x - mean)``."""
        return self._at().filter(x - self._mean(x), 1 / self._values(x))

    def curvature(self, x: Tensor) -> Covariance:
        """``C^-1``."""
        return replace(self._at(), values=1 / self._at().values)

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """``mean + C (C + step)^-1 (v - mean)``."""
        return self._shrink(v, torch.as_tensor(step, dtype=v.dtype, device=v.device))

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """``mean + C (C + sigma^2)^-1 (x - mean)``, the posterior mean."""
        return self._shrink(x, torch.as_tensor(sigma, dtype=x.dtype, device=x.device).square())

    @property
    def levels(self) -> tuple[float, float]:
        """Noise levels well below the least and above the greatest standard deviation that a pattern of it has."""
        values = self._at().values
        return 0.1 * float(values.min()) ** 0.5, 100 * float(values.max()) ** 0.5

    def remaining(self, sigma: float) -> float:
        """The root mean variance of a pixel given the image with noise ``sigma``."""
        values = self._at().values.to(torch.float64)
        return float((values * sigma**2 / (values + sigma**2)).mean().sqrt())

    def _shrink(self, v: Tensor, amount: Tensor) -> Tensor:
        values, mean = self._values(v), self._mean(v)
        more = amount.reshape(-1, *[1] * (v.ndim - 1 if self._at().vectors is None else 1))
        return mean + self._at().filter(v - mean, values / (values + more))

    def covariant(self, x: Tensor) -> Tensor:
        """``C x``, with any leading axes."""
        return self._at().filter(x, self._values(x))

    def colour(self, n: Tensor) -> Tensor:
        """``mean + C^(1/2) n``: white noise ``n``, with any leading axes, turned into draws."""
        return self._mean(n) + self._at().filter(n, self._values(n).sqrt())

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """``mean + C^(1/2) n``, ``(count, channel, *space)``; drawn on the generator's device in float64."""
        at = self._at()
        n = torch.randn((count, *at.on.shape), generator=generator, dtype=torch.float64, device=generator.device)
        drawn = at.filter(n.to(at.on.device, at.on.dtype), self._values(n.to(at.on.device, at.on.dtype)).sqrt())
        return self._mean(drawn) + drawn


def _variances(one: GaussianField, basis: Cosines, like: Tensor) -> Tensor:
    """Variances of the plain coefficients: those of the continuous modes over the volume of a cell."""
    variance = one.scale**2 * (basis.squares(like) + one.shift).clamp_min(1e-300).pow(-one.power)
    if one.deviation is not None:
        variance = variance * (one.deviation**2 * variance.numel() * basis.volume / variance.sum())
    return variance / basis.volume


def example() -> tuple[Gaussian, Space]:
    """A smooth Gaussian field around one, and a small uneven space of images that it fits."""
    from sciml.domains.pixels import Pixels

    field_ = GaussianField(power=2.0, shift=25.0, deviation=0.5, mean_mode=True)
    return Gaussian(field_, mean=1.0), Pixels((9, 7), extent=(1.0, 0.7)).space()
