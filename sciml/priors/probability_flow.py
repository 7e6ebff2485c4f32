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
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from sciml.core.levels import Karras, Levels
from sciml.domains.errors import InputError

if TYPE_CHECKING:
    from sciml.domains.space import Space
    from sciml.priors.mixture import Mixture

__all__ = ["Ancestral", "Euler", "Heun", "Walk", "example"]

Denoise = Callable[[Tensor, float], Tensor]


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


def example() -> tuple[Mixture, Space]:
    """A prior that could be drawn from in closed form too, and its space."""
    from sciml.priors.mixture import example as mixture

    return mixture()
