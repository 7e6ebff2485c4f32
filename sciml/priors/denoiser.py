"""Any function that removes white noise, as a prior: plug and play (Venkatakrishnan, Bouman and Wohlberg, GlobalSIP 2013, doi 10.1109/GlobalSIP.2013.6737048)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciml.core.prior import Prior
from sciml.domains.errors import InputError
from sciml.domains.space import Space

__all__ = ["Denoiser"]


@dataclass(frozen=True, eq=False)
class Denoiser(Prior):
    """``denoise(x, sigma) = lo + (hi - lo) f((x - lo) / (hi - lo), sigma / (hi - lo))`` with ``(lo, hi) = range``.

    ``f(x, sigma)`` gets images ``(batch, channel, *space)`` and a tensor ``sigma`` ``(batch, 1, ...)`` that broadcasts against
    them, and returns the mean of the clean image given the noisy one, of the same shape and dtype. It thinks in images
    from 0 to 1; ``range`` are the values, in the units of your image, that it sees as 0 and 1. Nothing is clipped. Keeps
    Denoising only: such a prior has no energy, so that an answer made with it is judged by its misfit.

    Raises InputError where ``f`` changes the shape, the dtype or the device or returns values that are not finite, and for
    a range that is empty or a noise level that is negative.
    """

    f: Callable[[Tensor, Tensor], Tensor] = field(metadata={"opaque": True})
    range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not callable(self.f):
            raise InputError(f"a Denoiser is made of a function f(x, sigma), not of {type(self.f).__name__}")
        try:
            inspect.signature(self.f).bind(None, None)
        except TypeError as error:
            raise InputError(
                f"a Denoiser calls its function as f(x, sigma), and {self.f!r} does not take that: {error}"
            ) from None
        except ValueError:
            pass  # a function that does not tell
        if len(self.range) != 2 or not self.range[0] < self.range[1]:
            raise InputError(f"range is {self.range}; give the two values that f sees as 0 and 1, the lower first")

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The clean image on average; ``sigma`` is a number or ``(batch,)``, in the units of ``x``."""
        lo, hi = self.range
        level = torch.as_tensor(sigma, dtype=x.real.dtype, device=x.device).reshape(-1).expand(x.shape[0])
        if not level.is_meta and not bool((level >= 0).all()):
            raise InputError(
                f"the noise level given to a Denoiser is {float(level.min()):.3g}; it must not be negative"
            )
        clean = self.f((x - lo) / (hi - lo), (level / (hi - lo)).reshape(-1, *[1] * (x.ndim - 1)))
        if (
            not isinstance(clean, Tensor)
            or clean.shape != x.shape
            or clean.dtype != x.dtype
            or clean.device != x.device
        ):
            got = (
                f"{tuple(clean.shape)} {clean.dtype} on {clean.device}"
                if isinstance(clean, Tensor)
                else type(clean).__name__
            )
            raise InputError(
                f"the function of a Denoiser returned {got} for images {tuple(x.shape)} {x.dtype} on {x.device}; it must keep all three"
            )
        if not clean.is_meta and not bool(torch.isfinite(clean).all()):
            raise InputError(
                f"the function of a Denoiser returned values that are not finite at sigma {float(level.min()):.3g} to {float(level.max()):.3g}; look at the levels it was made for"
            )
        return lo + (hi - lo) * clean


def _average(x: Tensor, sigma: Tensor) -> Tensor:
    """A blend with the mean of the image: the exact posterior mean for images that are constant up to unit noise."""
    mean = x.flatten(2).mean(2).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
    return mean + (x - mean) / (1 + sigma.square())


def example() -> tuple[Denoiser, Space]:
    """A denoiser that draws an image towards its mean, and a small uneven space of images."""
    from sciml.domains.pixels import Pixels

    return Denoiser(_average, range=(-1.0, 3.0)), Pixels((9, 7), extent=(1.0, 0.7)).space()
