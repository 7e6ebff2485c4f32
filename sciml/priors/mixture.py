r"""A mixture of Gaussians: images drawn from ``\sum_k w_k N(m_k, C_k)``, with everything about it in closed form.

With ``r_k(x, sigma)`` the probability of component ``k`` given the image with noise, ``r_k ~ w_k N(x; m_k, C_k + sigma^2)``, the posterior
mean is ``\sum_k r_k (m_k + C_k (C_k + sigma^2)^{-1} (x - m_k))``. It has several modes, so it is what a sampler that
works on Gaussians is tried on next: the posterior under a linear forward model and Gaussian noise is such a mixture again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sciml.core.prior import Prior
from sciml.domains.errors import InputError
from sciml.domains.space import Space

__all__ = ["Mixture", "example"]

DENSE = 4096


@dataclass(frozen=True, eq=False)
class Mixture(Prior):
    r"""``p(x) = \sum_k w_k N(x; m_k, C_k)`` on images of one shape.

    ``means`` are ``(K, channel, *space)``; ``covariance`` is one variance for all, one per component ``(K,)``, or ``(K, n, n)`` symmetric
    positive definite matrices on the ``n <= 4096`` numbers of an image; ``weights`` ``(K,)`` are positive and are scaled to
    sum to one (None: equal). Keeps Energy (``-log p``, all constants included), Denoising (exact) and Generative. Images are real.

    Raises InputError for shapes that disagree, and for weights or covariances that are not positive.
    """

    means: Tensor = field(metadata={"shared": True})
    covariance: Tensor | float = field(default=1.0, metadata={"shared": True})
    weights: Tensor | None = field(default=None, metadata={"shared": True})
    values: Tensor = field(init=False, repr=False, metadata={"told": True, "shared": True})
    vectors: Tensor | None = field(init=False, repr=False, metadata={"told": True, "shared": True})

    def __post_init__(self) -> None:
        if self.means.ndim < 2 or not bool(torch.isfinite(self.means).all()) or self.means.is_complex():
            raise InputError(
                f"Mixture: means are {self.means.dtype} of shape {tuple(self.means.shape)}; give finite real numbers (K, channel, *space)"
            )
        count, n = len(self.means), self.means[0].numel()
        given = torch.as_tensor(self.covariance, dtype=self.means.dtype, device=self.means.device)
        values, vectors = (
            given.reshape(-1, 1).expand(count, 1) if given.ndim < 2 and given.numel() in (1, count) else given,
            None,
        )
        if given.ndim == 3 and given.shape == (count, n, n) and n <= DENSE:
            if not torch.allclose(given, given.mT, rtol=0.0, atol=1e-10 * float(given.abs().max())):
                raise InputError("Mixture: a covariance is not symmetric")
            values, vectors = torch.linalg.eigh(given)
        elif values.shape != (count, 1):
            raise InputError(
                f"Mixture: covariance has shape {tuple(given.shape)}; give a variance, {count} of them, or matrices ({count}, {n}, {n}) with n at most {DENSE}"
            )
        if not bool((values > 0).all()):
            raise InputError(f"Mixture: the least variance is {float(values.min()):.3g}; all must be positive")
        if self.weights is not None and (self.weights.shape != (count,) or not bool((self.weights > 0).all())):
            raise InputError(f"Mixture: weights must be {count} positive numbers, one for each component")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "vectors", vectors)

    @property
    def range(self) -> tuple[float, float]:
        """Values within two deviations of the means."""
        wide = 2 * float(self.values.max()) ** 0.5
        return float(self.means.min()) - wide, float(self.means.max()) + wide

    @property
    def levels(self) -> tuple[float, float]:
        """Noise levels well below the least deviation within a component and above that of the whole."""
        wide = float(self.means.flatten(1).std(0, unbiased=False).max()) + float(self.values.max()) ** 0.5
        return 0.1 * float(self.values.min()) ** 0.5, 100 * wide

    def fits(self, space: Space) -> str | None:
        """Real images of the shape of the means."""
        if space.complex or space.dtype.is_complex:
            return "complex images need complex means; wrap it: MagnitudePhase(prior)"
        if torch.Size(space.shape) != self.means.shape[1:]:
            return f"its means have shape {tuple(self.means.shape[1:])}"
        return None

    def on(self, space: Space) -> Mixture:
        """The same prior, in the dtype and on the device of the images."""
        super().on(space)
        if self.means.dtype == space.dtype and self.means.device == space.device:
            return self
        covariance = (
            self.covariance.to(space.device, space.dtype) if isinstance(self.covariance, Tensor) else self.covariance
        )
        weights = None if self.weights is None else self.weights.to(space.device, space.dtype)
        return replace(self, means=self.means.to(space.device, space.dtype), covariance=covariance, weights=weights)

    def _parts(self, x: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``log w_k N(x; m_k, C_k + variance)`` ``(batch, K)``, and coordinates of ``x - m_k`` and eigenvalues, ``(batch, K, n)``."""
        means, values = self.means.to(x.device, x.dtype), self.values.to(x.device, x.dtype)
        away = (x.unsqueeze(1) - means).flatten(2)
        if self.vectors is not None:
            away = torch.einsum("bki,kij->bkj", away, self.vectors.to(x.device, x.dtype))
        wide = (values + variance.reshape(-1, 1, 1)).expand(len(x), len(means), values.shape[-1])
        n = away.shape[-1]
        size = (away.square() / wide).sum(-1) + wide.log().sum(-1) * (n / wide.shape[-1]) + n * math.log(2 * math.pi)
        w = (torch.ones(len(means)) if self.weights is None else self.weights).to(x.device, x.dtype)
        share = (w / w.sum()).log()
        return share - size / 2, away, wide

    def energy(self, x: Tensor) -> Tensor:
        """``-log p(x)`` per member."""
        logs, _, _ = self._parts(x, torch.zeros(len(x), dtype=x.dtype, device=x.device))
        return -torch.logsumexp(logs.to(torch.float64), 1)

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The posterior mean; ``sigma`` is a number or ``(batch,)``."""
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1).expand(len(x))
        logs, away, wide = self._parts(x, level.square())
        values = self.values.to(x.device, x.dtype)
        kept = away * (values / wide)
        if self.vectors is not None:
            kept = torch.einsum("bkj,kij->bki", kept, self.vectors.to(x.device, x.dtype))
        found = self.means.to(x.device, x.dtype).flatten(1) + kept
        return torch.einsum("bk,bkn->bn", torch.softmax(logs, 1), found).reshape(x.shape)

    def remaining(self, sigma: float) -> float:
        """The root mean square error of ``denoise`` at this level, over 512 draws from a seed of its own."""
        generator = torch.Generator().manual_seed(0)
        clean = self.sample(512, generator=generator)
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64).to(clean)
        return float((self.denoise(clean + sigma * noise, sigma) - clean).square().mean().sqrt())

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """``(count, channel, *space)``, drawn on the generator's device in float64."""
        w = torch.ones(len(self.means)) if self.weights is None else self.weights
        place, kind = generator.device, torch.float64
        which = torch.multinomial(w.to(place, kind), count, replacement=True, generator=generator)
        n = torch.randn(count, self.means[0].numel(), generator=generator, dtype=kind, device=place)
        away = n * self.values.to(place, kind).sqrt()[which]
        if self.vectors is not None:
            away = torch.einsum("bj,bij->bi", away, self.vectors.to(place, kind)[which])
        drawn = self.means.to(place, kind)[which] + away.reshape(count, *self.means.shape[1:])
        return drawn.to(self.means)


def example() -> tuple[Mixture, Space]:
    """Two bumps on a small uneven space of images, and the space."""
    from sciml.domains.pixels import Pixels

    pixels = Pixels((9, 7), extent=(1.0, 0.7))
    x, y = pixels.points()
    bumps = torch.stack([torch.exp(-20 * ((x - a).square() + y.square())) for a in (-0.25, 0.25)]).unsqueeze(1)
    return Mixture(bumps, torch.tensor([0.04, 0.09], dtype=torch.float64), torch.tensor([1.0, 2.0])), pixels.space()
