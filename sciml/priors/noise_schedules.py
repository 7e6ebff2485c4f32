r"""Networks that were trained in other conventions, as denoising priors: variance preserving, variance exploding, flows.

All of them add noise by ``x_t = \alpha(t) x_0 + \beta(t) n`` for a time ``t`` in (0, 1]. Divided by ``\alpha`` that is ``x_0 + \sigma n`` with ``\sigma = \beta/\alpha``,
so a network that sees ``x_t`` and ``t`` is asked at the ``t`` with that ``\sigma``, and what it predicts is turned into ``E[x_0 | x_t]``:

- the noise ``n``: ``x_0 = (x_t - \beta n) / \alpha`` (Ho, Jain and Abbeel, arXiv:2006.11239);
- the velocity ``v = \dot\alpha x_0 + \dot\beta n`` of a flow (Lipman, Chen, Ben-Hamu, Nickel and Le, arXiv:2210.02747): ``x_0 = (\beta v - \dot\beta x_t) / (\beta \dot\alpha - \dot\beta \alpha)``;
- the score ``s = -n / \beta`` (Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole, arXiv:2011.13456), or the image itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from sciml.core.prior import Prior
from sciml.domains.errors import InputError
from sciml.domains.space import Space

__all__ = [
    "Clean", "Flow", "Noise", "NoiseSchedule", "Scheduled", "Score", "VarianceExploding", "VariancePreserving", "Velocity", "example",
]  # fmt: skip


class NoiseSchedule(Protocol):
    """``x_t = alpha(t) x_0 + beta(t) n`` for ``t`` in (0, 1]; ``time(sigma)`` is the ``t`` with ``beta / alpha = sigma``."""

    def alpha(self, t: Tensor) -> Tensor: ...
    def beta(self, t: Tensor) -> Tensor: ...
    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]: ...
    def time(self, sigma: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class VariancePreserving:
    r"""``\alpha^2 = \exp(-\int_0^t b)`` with ``b`` linear from ``first`` to ``last``, ``\beta^2 = 1 - \alpha^2``: the published choice is 0.1 and 20.

    A discrete chain of ``N`` steps with variances from ``first / N`` to ``last / N`` has this limit, with ``t = (step + 1) / N``.
    """

    first: float = 0.1
    last: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.first < self.last:
            raise InputError(f"VariancePreserving(first={self.first}, last={self.last}): both positive, rising")

    def _log(self, t: Tensor) -> Tensor:
        """``\\int_0^t b``."""
        return self.first * t + (self.last - self.first) * t.square() / 2

    def alpha(self, t: Tensor) -> Tensor:
        """What is left of the image."""
        return (-self._log(t) / 2).exp()

    def beta(self, t: Tensor) -> Tensor:
        """The noise in it."""
        return (-torch.expm1(-self._log(t))).sqrt()

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives of both in ``t``."""
        b = self.first + (self.last - self.first) * t
        a = self.alpha(t)
        return -b * a / 2, b * a.square() / (2 * self.beta(t))

    def time(self, sigma: Tensor) -> Tensor:
        """``\\log(1 + \\sigma^2) = \\int_0^t b``, solved for ``t`` without cancellation."""
        whole, slope = torch.log1p(sigma.square()), self.last - self.first
        return 2 * whole / (self.first + (self.first**2 + 2 * slope * whole).sqrt())


@dataclass(frozen=True)
class VarianceExploding:
    r"""``\alpha = 1``, ``\beta = low (high / low)^t``: noise alone grows, as in the denoisers of this package."""

    low: float = 0.01
    high: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise InputError(f"VarianceExploding(low={self.low}, high={self.high}): both positive, rising")

    def alpha(self, t: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(t)

    def beta(self, t: Tensor) -> Tensor:
        """The noise."""
        return self.low * (t * math.log(self.high / self.low)).exp()

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives of both in ``t``."""
        return torch.zeros_like(t), self.beta(t) * math.log(self.high / self.low)

    def time(self, sigma: Tensor) -> Tensor:
        """The logarithm of ``sigma``, from 0 at ``low`` to 1 at ``high``."""
        return (sigma / self.low).log() / math.log(self.high / self.low)


@dataclass(frozen=True)
class Flow:
    r"""``\alpha = 1 - t``, ``\beta = t``: the straight lines of flow matching and rectified flows, image at 0 and noise at 1."""

    def alpha(self, t: Tensor) -> Tensor:
        """What is left of the image."""
        return 1 - t

    def beta(self, t: Tensor) -> Tensor:
        """The noise in it."""
        return t

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives of both in ``t``."""
        return -torch.ones_like(t), torch.ones_like(t)

    def time(self, sigma: Tensor) -> Tensor:
        """``sigma / (1 + sigma)``."""
        return sigma / (1 + sigma)


class Prediction(Protocol):
    """``clean(found, x, t, schedule)``: the image that belongs to what the network returned for ``x = x_t``; ``t`` broadcasts."""

    def clean(self, found: Tensor, x: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor: ...


@dataclass(frozen=True)
class Noise:
    """The network predicts ``n``."""

    def clean(self, found: Tensor, x: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
        """``(x_t - beta n) / alpha``."""
        return (x - schedule.beta(t) * found) / schedule.alpha(t)


@dataclass(frozen=True)
class Score:
    """The network predicts the gradient of the log-density of ``x_t``."""

    def clean(self, found: Tensor, x: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
        """``(x_t + beta^2 score) / alpha``."""
        return (x + schedule.beta(t).square() * found) / schedule.alpha(t)


@dataclass(frozen=True)
class Velocity:
    """The network predicts ``d x_t / d t``."""

    def clean(self, found: Tensor, x: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
        """The ``x_0`` of the two equations for ``x_t`` and ``v``."""
        a, b = schedule.rates(t)
        return (schedule.beta(t) * found - b * x) / (schedule.beta(t) * a - b * schedule.alpha(t))


@dataclass(frozen=True)
class Clean:
    """The network predicts the image."""

    def clean(self, found: Tensor, x: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
        """What it returned."""
        return found


@dataclass(frozen=True, eq=False)
class Scheduled(Prior):
    """A denoising prior made of ``f(x_t, t)``, trained with ``schedule`` to return ``prediction``.

    ``f`` gets images ``(batch, channel, *space)`` and times ``(batch,)`` and returns the like of the images. It thinks in images whose
    values -1 and 1 are the two numbers of ``range``, in the units of yours: the convention of most published diffusion models. ``earliest``
    and ``latest`` bound the times that it is asked at. Keeps Denoising.

    Raises InputError for a range that is empty. *Fails when* the convention is another one than that of the training: images come out
    with wrong noise levels, which ``sciml.calibrate`` or one look at ``denoise`` of a noisy image shows.
    """

    f: Callable[[Tensor, Tensor], Tensor] = field(metadata={"opaque": True})
    schedule: NoiseSchedule = field(default=VariancePreserving(), metadata={"opaque": True})
    prediction: Prediction = field(default=Noise(), metadata={"opaque": True})
    range: tuple[float, float] = (0.0, 1.0)
    earliest: float = 1e-3
    latest: float = 1.0 - 1e-6

    def __post_init__(self) -> None:
        if not callable(self.f):
            raise InputError(f"a Scheduled prior is made of a function f(x, t), not of {type(self.f).__name__}")
        if len(self.range) != 2 or not self.range[0] < self.range[1]:
            raise InputError(f"range is {self.range}; give the two values that f sees as -1 and 1, the lower first")
        if not 0 < self.earliest < self.latest <= 1:
            raise InputError(f"times run from {self.earliest} to {self.latest}; both are above 0 and at most 1, rising")

    @property
    def levels(self) -> tuple[float, float]:
        """``sigma`` at the earliest and the latest time, in the units of ``range``; at most a hundred times its width."""
        half = (self.range[1] - self.range[0]) / 2
        t = torch.tensor([self.earliest, self.latest], dtype=torch.float64)
        low, high = (self.schedule.beta(t) / self.schedule.alpha(t)).tolist()
        return half * low, half * min(high, 200.0)

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The clean image on average; ``sigma`` is a number or ``(batch,)``, in the units of ``x``."""
        low, high = self.range
        half, middle = (high - low) / 2, (high + low) / 2
        level = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).reshape(-1).expand(len(x)) / half
        t = self.schedule.time(level).clamp(self.earliest, self.latest)
        along = t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        v = self.schedule.alpha(along) * ((x - middle) / half)
        clean = self.prediction.clean(self.f(v, t.to(x.dtype)), v, along, self.schedule)
        return middle + half * clean


@dataclass(frozen=True)
class _Gaussian:
    """The exact noise of images that are independent Gaussian pixels of deviation 0.5, for the example."""

    schedule: NoiseSchedule

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.reshape(-1, *[1] * (x.ndim - 1))
        a, b = self.schedule.alpha(t), self.schedule.beta(t)
        return b * x / (0.25 * a.square() + b.square())


def example() -> tuple[Scheduled, Space]:
    """A noise predictor of the variance preserving kind, and a small uneven space of images."""
    from sciml.domains.pixels import Pixels

    schedule = VariancePreserving()
    return Scheduled(_Gaussian(schedule), schedule, range=(-1.0, 3.0)), Pixels((9, 7), extent=(1.0, 0.7)).space()
