"""Falling noise levels: the grids on which diffusion priors are sampled, and solvers use denoisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sciml.domains.errors import InputError

__all__ = ["Karras", "Levels", "remaining"]


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
    return sigma * deviation / (sigma * sigma + deviation * deviation) ** 0.5
