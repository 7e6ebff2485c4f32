r"""Which points of Cartesian k-space a scan samples: ``Uniform``, ``VariableDensity``, ``PoissonDisc`` and ``Equispaced`` masks.

Each is a rule; ``rule.mask(shape)`` is a boolean tensor of that shape, True where k-space is sampled, the same for the same seed.
Frequency zero stands at index ``n // 2`` of every axis. ``acceleration`` is the number of points over the number of samples, the
calibration block in the middle included; the first two and the equispaced rule meet it to one sample (line), Poisson discs to
2 % where the block leaves room. ``axes`` are the phase-encoded ones, along which samples are left out (None: all; negative numbers
count from the last); along the others, the read-out, everything is sampled. In a slice only one axis can be phase-encoded; two
are in a volume, of which the slices across the read-out are reconstructed one by one.

*Fails when* the calibration block alone has more samples than the acceleration allows (InputError says so).

Poisson discs: Bridson, SIGGRAPH sketches 2007, doi 10.1145/1278780.1278807, for their definition; here points are taken in random order and
kept if no earlier one is nearer than their distance, which is the rule of dart throwing. Variable density: Lustig, Donoho and
Pauly, Magn. Reson. Med. 58, 2007, doi 10.1002/mrm.21391.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["Equispaced", "PoissonDisc", "Sampling", "Uniform", "VariableDensity"]

ROUNDS = 24  # of bisection for the distance between Poisson discs


class Sampling(Protocol):
    """A rule for masks."""

    def mask(self, shape: tuple[int, ...]) -> Tensor:
        """A boolean tensor of this shape."""


@dataclass(frozen=True)
class Uniform:
    """Points (or lines) drawn with the same probability everywhere outside the calibration block."""

    acceleration: float = 4.0
    calibration: int = 16
    axes: tuple[int, ...] | None = None
    seed: int = 0

    def mask(self, shape: tuple[int, ...]) -> Tensor:
        """A boolean tensor of this shape."""
        return _drawn(self, shape, lambda radius: torch.zeros_like(radius))


@dataclass(frozen=True)
class VariableDensity:
    """Points (or lines) drawn with a probability that falls like ``(1 - r)^power`` towards the rim of k-space, ``r = 1``.

    A floor of a hundredth keeps the rim from being empty.
    """

    acceleration: float = 4.0
    power: float = 3.0
    calibration: int = 16
    axes: tuple[int, ...] | None = None
    seed: int = 0

    def mask(self, shape: tuple[int, ...]) -> Tensor:
        """A boolean tensor of this shape."""
        if not 0 <= self.power < math.inf:
            raise InputError(f"power is {self.power}; the density falls with a power of at least zero")
        return _drawn(self, shape, lambda radius: (0.01 + (1 - radius).clamp_min(0.0) ** self.power).log())


@dataclass(frozen=True)
class Equispaced:
    """Every so many-th line along one axis, and the calibration lines in the middle: what parallel imaging scanners do.

    The spacing is chosen so that the whole, calibration included, has the acceleration asked for; lines lie at the nearest
    whole places. ``offset`` shifts them by so many lines.
    """

    acceleration: float = 4.0
    calibration: int = 16
    axis: int = -1
    offset: int = 0

    def mask(self, shape: tuple[int, ...]) -> Tensor:
        """A boolean tensor of this shape."""
        axes = _phase(shape, (self.axis,))
        block, wanted = _block(self, shape, axes)
        (n,) = block.shape
        low, high = _span(n, self.calibration)
        outside, left = n - (high - low), wanted - (high - low)
        line = block.clone()
        if left:
            # Of the lines outside the block, in their order, the nearest to even steps.
            rest = torch.cat([torch.arange(low), torch.arange(high, n)])
            places = ((torch.arange(left, dtype=torch.float64) + 0.5) * outside / left).floor().long()
            line[rest[(places + self.offset) % outside]] = True
        return _whole(line, shape, axes)


@dataclass(frozen=True)
class PoissonDisc:
    """Points (or lines) at random, none nearer to another than a distance that grows linearly towards the rim of k-space.

    The distance at the rim is ``1 + slope`` times that in the middle; its size is found by bisection, so that the acceleration
    is met. ``ellipse`` leaves out the corners of k-space.
    """

    acceleration: float = 4.0
    calibration: int = 16
    slope: float = 2.0
    ellipse: bool = False
    axes: tuple[int, ...] | None = None
    seed: int = 0

    def mask(self, shape: tuple[int, ...]) -> Tensor:
        """A boolean tensor of this shape."""
        if not 0 <= self.slope < math.inf:
            raise InputError(f"slope is {self.slope}; the distance grows towards the rim by a factor of at least one")
        axes = _phase(shape, self.axes)
        block, wanted = _block(self, shape, axes)
        radius = _radius(tuple(block.shape))
        allowed = (radius <= 1) | block if self.ellipse else torch.ones_like(block)
        order = torch.randperm(block.numel(), generator=torch.Generator().manual_seed(self.seed))
        scale = 1 + self.slope * radius
        low, high, best = 0.0, float(max(block.shape)), block
        for _ in range(ROUNDS):
            middle = (low + high) / 2
            found = _discs(order, (middle * scale), allowed) | block
            if abs(int(found.sum()) - wanted) <= abs(int(best.sum()) - wanted):
                best = found
            if abs(int(found.sum()) - wanted) <= 0.01 * wanted:
                break
            low, high = (middle, high) if int(found.sum()) > wanted else (low, middle)
        return _whole(best, shape, axes)


def _drawn(rule: Uniform | VariableDensity, shape: tuple[int, ...], logs: Callable[[Tensor], Tensor]) -> Tensor:
    """Exactly as many points as asked for, without replacement: those with the largest log-weight plus Gumbel noise."""
    axes = _phase(shape, rule.axes)
    block, wanted = _block(rule, shape, axes)
    generator = torch.Generator().manual_seed(rule.seed)
    uniform = torch.rand(tuple(block.shape), generator=generator, dtype=torch.float64)
    keys = -(-uniform.clamp_min(1e-300).log()).log() + logs(_radius(tuple(block.shape)))
    keys = keys.masked_fill(block, math.inf)
    mask = torch.zeros_like(block)
    mask.view(-1)[keys.flatten().topk(wanted).indices] = True
    return _whole(mask, shape, axes)


def _phase(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> tuple[int, ...]:
    """The phase-encoded axes, counted from zero."""
    dim = len(shape)
    if not 1 <= dim <= 3 or min(shape) < 1:
        raise InputError(f"k-space has 1, 2 or 3 axes of at least one point, not shape {tuple(shape)}")
    if axes is None:
        return tuple(range(dim))
    found = {axis % dim if -dim <= axis < dim else -1 for axis in axes}
    if -1 in found or not found or len(found) != len(axes):
        raise InputError(f"axes is {axes}; k-space of shape {tuple(shape)} has the axes 0 to {dim - 1}, each once")
    return tuple(sorted(found))


def _block(
    rule: Uniform | VariableDensity | Equispaced | PoissonDisc, shape: tuple[int, ...], axes: tuple[int, ...]
) -> tuple[Tensor, int]:
    """The calibration block over the phase-encoded axes, and how many samples are wanted there in all."""
    sizes = tuple(shape[axis] for axis in axes)
    if not 1 <= rule.acceleration < math.inf or rule.calibration < 0:
        raise InputError(
            f"{type(rule).__name__}: acceleration {rule.acceleration} is at least 1, calibration {rule.calibration} at least 0"
        )
    block = torch.zeros(sizes, dtype=torch.bool)
    block[tuple(slice(*_span(n, rule.calibration)) for n in sizes)] = True
    wanted = round(block.numel() / rule.acceleration)
    if int(block.sum()) > wanted or wanted == 0:
        raise InputError(
            f"{type(rule).__name__}: the calibration block of {rule.calibration} has {int(block.sum())} of {block.numel()} samples, and acceleration {rule.acceleration:g} allows {wanted}; lower one of the two"
        )
    return block, wanted


def _span(n: int, width: int) -> tuple[int, int]:
    """First and behind the last of ``width`` indices around ``n // 2``."""
    width = min(width, n)
    low = n // 2 - width // 2
    return low, low + width


def _radius(sizes: tuple[int, ...]) -> Tensor:
    """The distance from frequency zero, 1 at the rim of every axis."""
    square = torch.zeros((), dtype=torch.float64)
    for n in sizes:
        line = (torch.arange(n, dtype=torch.float64) - n // 2) / max(n / 2, 1)
        square = square.unsqueeze(-1) + line.square()
    return square.sqrt()


def _discs(order: Tensor, distance: Tensor, allowed: Tensor) -> Tensor:
    """Points in their order; each that is kept blocks what is nearer to it than its distance."""
    sizes = tuple(allowed.shape)
    free, kept = allowed.numpy().copy(), np.zeros(sizes, dtype=bool)
    far = distance.numpy()
    for place in zip(*(axis.tolist() for axis in np.unravel_index(order.numpy(), sizes)), strict=True):
        if not free[place]:
            continue
        kept[place] = True
        reach = float(far[place])
        ends = [
            (max(0, math.ceil(p - reach)), min(n, math.floor(p + reach) + 1)) for p, n in zip(place, sizes, strict=True)
        ]
        square = np.zeros(())
        for p, (low, high) in zip(place, ends, strict=True):
            square = square[..., None] + np.square(np.arange(low, high) - p)
        free[tuple(slice(*end) for end in ends)] &= square >= reach * reach
        free[place] = False
    return torch.from_numpy(kept)


def _whole(mask: Tensor, shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """The mask of the phase-encoded axes, repeated along the read-out."""
    view = [shape[axis] if axis in axes else 1 for axis in range(len(shape))]
    return mask.reshape(view).expand(shape).contiguous()


def example() -> PoissonDisc:
    """A fourfold undersampled plane of k-space."""
    return PoissonDisc(4.0, calibration=6)
