"""Priors that were learned from images in units of their own."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from typing import Self

from torch import nn

from sciml.core.prior import Prior
from sciml.domains.space import Space

__all__ = ["Learned"]


class Learned(Prior, ABC):
    """Abstract: a ``network`` that was trained on images with values in ``range`` (None: not known), and ``scaled`` to other units."""

    network: nn.Module
    range: tuple[float, float] | None

    @abstractmethod
    def scaled(self, unit: float) -> Self:
        """The prior of images whose values are ``unit`` times those of the training set, such as attenuations per pixel."""

    @property
    def largest(self) -> float:
        """The largest magnitude in ``range``; 1 where that is unknown."""
        return 1.0 if self.range is None else max(abs(end) for end in self.range)

    def suits(self, size: float) -> bool:
        """Whether images with values of about ``size`` have the units of the training set, to within a factor of 8."""
        return self.range is None or self.largest / 8 <= size <= 8 * self.largest

    def suited(self, size: float) -> Self:
        """The prior itself if it suits, else in the units in which its training images have values up to ``size``."""
        if self.suits(size) or not math.isfinite(size) or size <= 0:
            return self
        unit = size / self.largest
        warnings.warn(
            f"the prior was learned from images with values up to {self.largest:.2g} and is used for values up to {size:.2g}; pass prior.scaled(unit) to choose the unit, here {unit:.2g}",
            stacklevel=3,
        )
        return self.scaled(unit)

    def fits(self, space: Space) -> str | None:
        """Channels and number of axes must be those of the network; complex images are refused."""
        if space.dtype.is_complex or space.complex:
            return "the images are complex and the network is real; wrap it: MagnitudePhase(prior)"
        settings = getattr(self.network, "settings", {})
        channels, dim = settings.get("channels", space.shape[0]), settings.get("dim", len(space.shape) - 1)
        if space.shape[0] != channels or len(space.shape) - 1 != dim:
            return f"the network takes {channels} channels on {dim} axes"
        return None
