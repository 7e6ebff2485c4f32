"""Boxes of pixels (or voxels): what images and reconstructions live on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.domains.numbers import numbers
from sciml.domains.space import Space

__all__ = ["Pixels", "images"]


@dataclass(frozen=True, eq=False)
class Pixels:
    """A box of ``shape`` equal cells over ``extent`` (in the user's unit of length), values at the centres of the cells.

    ``origin`` is the lower corner; None centres the box at zero, which is where the rotation axis of a scanner stands.
    The first axis is x, the second y, the third z. A value is the mean over its cell, and no condition is implied at the
    sides: what happens there is the business of the operator or the prior. ``unit`` names the unit of length for files and
    pictures, as in "mm"; nothing is computed with it.

    Raises InputError for a number of axes outside 1-3, an empty axis, an extent that is not positive, or a unit that is no word.
    """

    shape: tuple[int, ...]
    extent: tuple[float, ...] = ()
    origin: tuple[float, ...] | None = None
    unit: str = "1"

    def __post_init__(self) -> None:
        shape = (self.shape,) if isinstance(self.shape, int) else tuple(int(n) for n in self.shape)
        if not 1 <= len(shape) <= 3 or min(shape) < 1:
            raise InputError(f"an image has 1, 2 or 3 axes of at least one pixel, not shape {shape}")
        extent = _numbers("extent", self.extent, len(shape), 1.0)
        if not all(0 < length < float("inf") for length in extent):
            raise InputError(f"extent {extent} must be positive and finite along every axis")
        if not isinstance(self.unit, str) or not self.unit.strip():
            raise InputError(f"unit is {self.unit!r}; give the unit of length as a word, as in 'mm', or '1' for none")
        centred = tuple(-length / 2 for length in extent)
        origin = centred if self.origin is None else _numbers("origin", self.origin, len(shape), 0.0)
        for name, value in (("shape", shape), ("extent", extent), ("origin", origin)):
            object.__setattr__(self, name, value)

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a pixel along every axis."""
        return tuple(length / n for length, n in zip(self.extent, self.shape, strict=True))

    @property
    def corner(self) -> tuple[float, ...]:
        """The lower corner of the box."""
        return self.origin or (0.0,) * self.dim

    def coordinates(
        self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """Coordinates of the centres along every axis, each of shape ``(n_axis,)``."""
        return tuple(
            start + h * (torch.arange(n, dtype=dtype, device=device) + 0.5)
            for n, h, start in zip(self.shape, self.spacing, self.corner, strict=True)
        )

    def points(
        self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """Coordinates of all centres: one tensor of the image's shape per axis."""
        return tuple(torch.meshgrid(*self.coordinates(dtype, device), indexing="ij"))

    def volumes(self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Tensor:
        """The volume of a pixel, of the image's shape: the weights of the midpoint rule."""
        size = 1.0
        for h in self.spacing:
            size *= h
        return torch.full(self.shape, size, dtype=dtype, device=device)

    def space(self, channels: int = 1, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Space:
        """The space of images ``(batch, channels, *shape)``."""
        return Space(domain=self, shape=(channels, *self.shape), dtype=dtype, device=torch.device(device))

    def homogeneous(self) -> Pixels:
        """The same: pixels hold no side values."""
        return self

    def to_dict(self) -> dict[str, object]:
        """What a file needs to know: shape, extent, origin, and the unit where it is known."""
        known = {} if self.unit == "1" else {"unit": self.unit}
        return {"shape": self.shape, "extent": self.extent, "origin": self.corner, "pixels": True, **known}


def _numbers(name: str, values: float | Sequence[float], dim: int, default: float) -> tuple[float, ...]:
    if isinstance(values, int | float):
        return (float(values),) * dim
    numbers = tuple(float(v) for v in values) or (default,) * dim
    if len(numbers) != dim:
        raise InputError(f"{name} has {len(numbers)} entries, the image has {dim} axes; give one number per axis")
    return numbers


def images(name: str, given: Any) -> Tensor:
    """``(batch, 1, *space)`` of one real image ``(x, y)``, in one to three axes, or of several ``(batch, 1, *space)``.

    Also of arrays and lists; integers become float64. Raises InputError, which calls it ``name``, for anything else.
    """
    found = numbers(name, given)
    if found.ndim < 1 or found.is_complex():
        raise InputError(f"{name} is a real tensor of shape (x, y), or (batch, 1, x, y); take torch.as_tensor(image)")
    found = found[None, None] if found.ndim <= 3 else found
    if found.shape[1] != 1:
        raise InputError(
            f"{name} has shape {tuple(found.shape)}; give (x, y), or (batch, 1, x, y) with colours as members"
        )
    return found if found.is_floating_point() else found.to(torch.float64)
