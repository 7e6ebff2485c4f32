"""What the Fourier operators share: images that must be complex, receive coils as channels of the data, points of k-space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator
from sciml.domains.errors import InputError
from sciml.domains.pixels import Pixels
from sciml.domains.space import Space

__all__ = ["Coils", "canonical_maps", "canonical_mask", "check_image", "check_maps", "combined", "of_pixels", "spread"]


class Coils(LinearOperator):
    """Abstract: a linear map of complex images on ``pixels``, each coil of which sees the image times its own map."""

    pixels: Pixels
    maps: Tensor | None

    @property
    def sensitivities(self) -> Tensor:
        """The maps, ``(1 or batch, coil, *shape)``."""
        assert self.maps is not None
        return self.maps

    @property
    def space(self) -> Space:
        """Complex images of one channel."""
        s = self.sensitivities
        return Space(self.pixels, (1, *self.pixels.shape), complex=True, dtype=s.dtype, device=s.device)


def of_pixels(who: str, pixels: Pixels) -> None:
    """InputError unless images live on pixels."""
    if not isinstance(pixels, Pixels):
        raise InputError(f"{who} images Pixels, not {type(pixels).__name__}; write Pixels((nx, ny))")


def canonical_maps(who: str, maps: Tensor | None, pixels: Pixels) -> Tensor:
    """Sensitivities as ``(batch, coil, *pixels.shape)``; one coil of ones where there are none."""
    shape, dim = pixels.shape, pixels.dim
    if maps is None:
        return torch.ones((1, 1, *shape), dtype=torch.complex128)
    if not isinstance(maps, Tensor) or not (maps.is_complex() or maps.is_floating_point()):
        raise InputError(f"{who}: the coil maps are a tensor (coil, {', '.join(map(str, shape))}) of complex numbers")
    if not maps.is_complex():
        raise InputError(
            f"{who}: the coil maps are real ({maps.dtype}); make them complex with maps.to(torch.complex128)"
        )
    full = maps.unsqueeze(0) if maps.ndim == dim + 1 else maps
    if full.ndim != dim + 2 or tuple(full.shape[2:]) != shape or 0 in full.shape:
        raise InputError(
            f"{who}: the coil maps have shape {tuple(maps.shape)}; for images of shape {shape} give (coil, {', '.join(map(str, shape))})"
        )
    return full.contiguous()  # transforms of strided images are half as fast


def canonical_mask(who: str, mask: Tensor | None, pixels: Pixels) -> Tensor | None:
    """A boolean mask of the image's shape that samples something; zeros and ones, and axes of length one, will do."""
    if mask is None:
        return None
    mask = torch.as_tensor(mask)
    shape, dim = pixels.shape, pixels.dim
    if mask.is_complex() or mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError(f"{who}: the mask has values other than 0 and 1; it is True where k-space was sampled")
    full = mask.to(torch.bool)
    while full.ndim > dim and full.shape[0] == 1:
        full = full[0]
    full = full.reshape((1,) * (dim - full.ndim) + full.shape) if full.ndim < dim else full
    if full.ndim != dim or any(m not in (1, n) for m, n in zip(full.shape, shape, strict=True)):
        raise InputError(
            f"{who}: the mask has shape {tuple(mask.shape)}; give {shape}, one for all coils and members (solve members sampled otherwise one by one)"
        )
    if not bool(full.any()):
        raise InputError(f"{who}: the mask samples nothing; it must be True where k-space was measured")
    return full.expand(shape).contiguous()


def check_maps(name: str, maps: Tensor) -> None:
    """Coil maps must be finite and see something, for every member."""
    if not bool(torch.isfinite(maps).all()):
        raise InputError(f"{name!r}: the coil maps are not finite everywhere; set them to zero where nothing is known")
    blind = ~(maps != 0).flatten(1).any(1)
    if bool(blind.any()):
        raise InputError(
            f"{name!r}: the coil maps of member {int(blind.nonzero()[0])} vanish everywhere, so that nothing is measured; estimate them with espirit(kspace)"
        )


def check_image(who: str, what: str, given: Tensor, shape: tuple[int, ...]) -> None:
    """A complex tensor ``(..., *shape)``."""
    if not given.is_complex():
        raise InputError(f"{who}: the {what} is real ({given.dtype}); make it complex with .to(torch.complex128)")
    if tuple(given.shape[-len(shape) :]) != shape:
        raise InputError(
            f"{who}: the {what} has shape {tuple(given.shape)}; it must end in {', '.join(map(str, shape))}"
        )


def combined(conjugate: Tensor, images: Tensor, dim: int) -> Tensor:
    """``sum_c conj(maps_c) images_c``, one channel."""
    return (conjugate * images).sum(-dim - 1, keepdim=True)


def spread(pixels: Pixels, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    r"""The diagonals ``p, q`` with which the centred transform is a plain one: ``q_k FFT(p_i x_i)``.

    With ``c = n // 2``, ``exp(-2 pi i (i - c)(k - c) / n) = exp(-2 pi i k i / n) p_i q_k``, ``p_i = exp(2 pi i c i / n)`` and
    ``q_k = exp(2 pi i c (k - c) / n)``: signs for even ``n``. Multiplying costs less than moving halves of the array.
    """
    p = torch.ones((), dtype=torch.complex128)
    q = torch.ones((), dtype=torch.complex128)
    for n in pixels.shape:
        at, c = torch.arange(n, dtype=torch.int64), n // 2
        p = p.unsqueeze(-1) * _roots((c * at) % n, n)
        q = q.unsqueeze(-1) * _roots((c * (at - c)) % n, n)
    return p.to(device, dtype), q.to(device, dtype)


def _roots(power: Tensor, n: int) -> Tensor:
    """``exp(2 pi i power / n)``, exact at quarters of a turn."""
    angle = power.to(torch.float64) * (2 * math.pi / n)
    found = torch.complex(angle.cos(), angle.sin())
    quarter = (4 * power) % n == 0
    exact = torch.tensor([1, 1j, -1, -1j], dtype=torch.complex128)[(4 * power) // n % 4]
    return torch.where(quarter, exact, found)
