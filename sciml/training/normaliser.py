"""Shift and scale per channel, from one pass over the members in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["Moments", "Normaliser"]


class Moments:
    """Count, mean, squared deviation, smallest and largest value per channel of numbers that come in pieces.

    Pieces are merged by the update of Chan, Golub and LeVeque (1983, doi:10.1080/00031305.1983.10483115).
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.square = torch.zeros(0, dtype=torch.float64)
        self.low = torch.zeros(0, dtype=torch.float64)
        self.high = torch.zeros(0, dtype=torch.float64)

    def add(self, fields: Tensor) -> None:
        """Add fields (batch, channel, *space)."""
        flat = fields.detach().to("cpu", torch.float64).transpose(0, 1).flatten(1)
        count, mean = flat.shape[1], flat.mean(1)
        square = (flat - mean[:, None]).square().sum(1)
        low, high = flat.amin(1), flat.amax(1)
        if not self.count:
            self.count, self.mean, self.square, self.low, self.high = count, mean, square, low, high
            return
        total = self.count + count
        shift = mean - self.mean
        self.square = self.square + square + shift.square() * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.count = total


@dataclass(frozen=True, eq=False)
class Normaliser:
    """`encode(x) = (x - mean) / std` per channel, and back.

    Args:
        mean: (channel,), float64, in the units of the field.
        std: (channel,), float64; a channel that is constant has 1 here, so it becomes zero and comes back exactly.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of_moments(cls, moments: Moments) -> Normaliser:
        """Mean and standard deviation (over members and points) per channel.

        Raises:
            InputError: nothing was added, or a number was not finite.
        """
        if not moments.count:
            raise InputError("a normaliser needs at least one member; add members first.")
        if not bool(torch.isfinite(moments.mean).all() and torch.isfinite(moments.square).all()):
            raise InputError("a normaliser met numbers that are not finite; repair or drop those members.")
        std = (moments.square / moments.count).sqrt()
        constant = (moments.low == moments.high) | (std == 0)
        return cls(moments.mean.clone(), torch.where(constant, torch.ones_like(std), std))

    @classmethod
    def identity(cls, channels: int) -> Normaliser:
        """The normaliser that changes nothing."""
        return cls(torch.zeros(channels, dtype=torch.float64), torch.ones(channels, dtype=torch.float64))

    def encode(self, fields: Tensor) -> Tensor:
        """Fields (batch, channel, *space) to mean 0 and standard deviation 1; keeps dtype and device."""
        mean, std = self._beside(fields)
        return (fields - mean) / std

    def decode(self, fields: Tensor) -> Tensor:
        """The inverse of `encode`."""
        mean, std = self._beside(fields)
        return fields * std + mean

    def _beside(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        if fields.ndim < 2 or fields.shape[1] != self.mean.numel():
            raise InputError(
                f"a normaliser of {self.mean.numel()} channels got fields of shape {tuple(fields.shape)}; "
                "they are (batch, channel, *space)."
            )
        shape = (1, -1) + (1,) * (fields.ndim - 2)
        return self.mean.to(fields).reshape(shape), self.std.to(fields).reshape(shape)

    def state(self) -> dict[str, list[float]]:
        """The numbers, as JSON values."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Normaliser:
        """The normaliser back from `state`, to the same bits.

        Raises:
            InputError: a part is missing, has another length or a std that is not positive.
        """
        try:
            mean = torch.tensor(state["mean"], dtype=torch.float64)
            std = torch.tensor(state["std"], dtype=torch.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the state of a normaliser is damaged ({error}); train the network again.") from error
        if mean.ndim != 1 or mean.shape != std.shape or not bool((std > 0).all()):
            raise InputError("the state of a normaliser needs one mean and one positive std per channel; train again.")
        return cls(mean, std)
