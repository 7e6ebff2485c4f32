r"""Drawing images from a denoiser: noise of falling level, from pure noise to an image.

With ``D(x, sigma) = E[x0 | x0 + sigma n = x]`` the images ``x0 + sigma n`` of all levels are joined by the ordinary
differential equation ``dx / d sigma = (x - D(x, sigma)) / sigma`` (the probability flow; Karras, Aittala, Aila and Laine,
arXiv:2206.00364), started from ``mean + sigma n`` at the highest level. Any function of that kind may stand for ``D``, also the
denoiser of a posterior.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["Ancestral", "Euler", "Heun", "Karras", "Levels", "Walk", "remaining", "span"]

Denoise = Callable[[Tensor, float], Tensor]


class Levels(Protocol):
    """``levels(highest, lowest, steps)``: ``steps`` standard deviations of noise, falling, the ends included."""

    def __call__(self, highest: float, lowest: float, steps: int) -> list[float]: ...


@dataclass(frozen=True)
class Karras:
    r"""``\sigma_i^{1/\rho}`` evenly spaced (Karras, Aittala, Aila and Laine, arXiv:2206.00364, equation 5).

    ``rho`` 1 is even spacing in ``sigma``; a large one even spacing in its logarithm, with more of the steps at low noise.
    """

    rho: float = 7.0

    def __post_init__(self) -> None:
        if not self.rho > 0:
            raise InputError(f"Karras: rho is {self.rho}; it must be positive")

    def __call__(self, highest: float, lowest: float, steps: int) -> list[float]:
        if steps < 1 or not 0 < lowest < highest:
            raise InputError(
                f"Karras: {steps} levels from {highest:.3g} to {lowest:.3g}; give at least one, falling, above zero"
            )
        a, b = highest ** (1 / self.rho), lowest ** (1 / self.rho)
        inner = ((a + i / (steps - 1) * (b - a)) ** self.rho for i in range(1, steps - 1))
        return [highest, *inner, lowest] if steps > 1 else [highest]


def remaining(prior: object, sigma: float) -> float:
    r"""The root mean variance of a pixel given the image with noise ``sigma``: the prior's ``remaining(sigma)``, if it has one.

    Otherwise that of independent Gaussian pixels of a quarter of the prior's ``range`` (0 to 1 if it declares none), which
    is more than any prior with structure leaves.
    """
    own = getattr(prior, "remaining", None)
    if own is not None:
        return float(own(sigma))
    low, high = getattr(prior, "range", None) or (0.0, 1.0)
    deviation = (high - low) / 4
    return float(sigma * deviation / (sigma * sigma + deviation * deviation) ** 0.5)


def span(prior: object) -> tuple[float, float] | None:
    """The lowest and the highest level at which a prior is used: its ``levels``, or a thousandth and 25 times its ``range``."""
    own = getattr(prior, "levels", None)
    if own is not None:
        return float(own[0]), float(own[1])
    reach = getattr(prior, "range", None)
    return None if reach is None else (1e-3 * (reach[1] - reach[0]), 25 * (reach[1] - reach[0]))


class Walk(Protocol):
    """``walk(denoise, x, highest, lowest, noise)``: from ``x`` at the highest level to an image; ``noise()`` draws white noise."""

    def __call__(
        self, denoise: Denoise, x: Tensor, highest: float, lowest: float, noise: Callable[[], Tensor]
    ) -> Tensor: ...


def _pairs(levels: Levels, highest: float, lowest: float, steps: int) -> list[tuple[float, float]]:
    if steps < 1:
        raise InputError(f"steps is {steps}; a walk takes at least one")
    return list(itertools.pairwise([*levels(highest, lowest, steps), 0.0]))


@dataclass(frozen=True)
class Euler:
    """``x <- D + (sigma' / sigma) (x - D)``: first order, one evaluation per step; the deterministic DDIM (arXiv:2010.02502)."""

    steps: int = 100
    levels: Levels = Karras()

    def __call__(
        self, denoise: Denoise, x: Tensor, highest: float, lowest: float, noise: Callable[[], Tensor]
    ) -> Tensor:
        for sigma, after in _pairs(self.levels, highest, lowest, self.steps):
            clean = denoise(x, sigma)
            x = clean + (after / sigma) * (x - clean)
        return x


@dataclass(frozen=True)
class Heun:
    """The trapezoidal rule with an Euler step to predict: second order, two evaluations per step but one in the last."""

    steps: int = 32
    levels: Levels = Karras()

    def __call__(
        self, denoise: Denoise, x: Tensor, highest: float, lowest: float, noise: Callable[[], Tensor]
    ) -> Tensor:
        for sigma, after in _pairs(self.levels, highest, lowest, self.steps):
            slope = (x - denoise(x, sigma)) / sigma
            ahead = x + (after - sigma) * slope
            if after > 0:
                slope = (slope + (ahead - denoise(ahead, after)) / after) / 2
                ahead = x + (after - sigma) * slope
            x = ahead
        return x


@dataclass(frozen=True)
class Ancestral:
    r"""``x <- D + (sigma'/sigma)^2 (x - D) + sigma' \sqrt{1 - (sigma'/sigma)^2} n``: fresh noise in each step.

    That is the exact law of the next level if ``D`` were the image itself (arXiv:2006.11239, section 3.2, in another scale). Errors of
    earlier steps fade, for more steps than the flow needs.
    """

    steps: int = 200
    levels: Levels = Karras()

    def __call__(
        self, denoise: Denoise, x: Tensor, highest: float, lowest: float, noise: Callable[[], Tensor]
    ) -> Tensor:
        for sigma, after in _pairs(self.levels, highest, lowest, self.steps):
            clean, share = denoise(x, sigma), (after / sigma) ** 2
            x = clean + share * (x - clean)
            if after > 0:
                x = x + after * math.sqrt(1 - share) * noise()
        return x
