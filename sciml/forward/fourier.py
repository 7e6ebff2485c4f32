r"""Magnetic resonance on a Cartesian grid: several coils see the image, and some of k-space is sampled.

    y_c(k) = m(k) \frac{1}{\sqrt N} \sum_i s_c(i) x(i) \exp\Bigl(-2 \pi \mathrm{i} \sum_a \frac{(i_a - c_a)(k_a - c_a)}{n_a}\Bigr), \qquad c_a = \lfloor n_a / 2 \rfloor,

with the image ``x``, the sensitivity ``s_c`` of coil ``c`` and the mask ``m``. The transform is centred (frequency zero stands
at index ``n // 2`` of every axis, as does the middle of the image) and orthonormal: white noise of standard deviation
``sigma`` per real component of k-space is white noise of ``sigma`` in the image of a fully sampled coil. All is complex;
the unit of the image is that of the data over that of the maps. What was not sampled is zero and stays zero; tell the noise
of it, ``GaussianNoise(sigma, measured=mask)``, so that it counts in no degree of freedom.

*Fails when* the object moves or is larger than the field of view (it folds over), when the field is not homogeneous over the
read-out, and, silently, when k-space was stored with frequency zero at index 0 (apply ``torch.fft.fftshift`` first: the image
is otherwise multiplied by a chequerboard of signs).

Pruessmann, Weiger, Scheidegger and Boesiger, SENSE, Magn. Reson. Med. 42, 1999, doi 10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator
from sciml.domains.errors import InputError
from sciml.domains.pixels import Pixels
from sciml.domains.space import Space
from sciml.forward._coils import (
    canonical_maps,
    canonical_mask,
    check_image,
    check_maps,
    combined,
    of_pixels,
    spread,
)

__all__ = ["Fourier"]


@dataclass(frozen=True, eq=False)
class Fourier(LinearOperator):
    """Sampled k-space ``(..., batch, coil, *k)`` of complex images ``(..., batch, 1, *pixels.shape)``, in one to three dimensions.

    ``maps`` are complex, ``(coil, *shape)`` or ``(batch, coil, *shape)``; None is one coil that sees all alike. ``mask`` is
    boolean, of the image's shape (one for all coils), or ``(batch, 1 or coil, *shape)``; None samples everything. Raises
    InputError for real images, data or maps, for shapes that do not fit, and, when a problem is solved, for a mask that samples
    nothing and for maps that vanish.
    """

    pixels: Pixels
    maps: Tensor | None = None
    mask: Tensor | None = field(default=None, metadata={"told": True})

    def __post_init__(self) -> None:
        of_pixels("Fourier", self.pixels)
        maps = canonical_maps("Fourier", self.maps, self.pixels)
        object.__setattr__(self, "maps", maps)
        mask = canonical_mask("Fourier", self.mask, self.pixels, maps.shape[1])
        if mask is not None and len({1, mask.shape[0], maps.shape[0]}) > 2:
            raise InputError(
                f"Fourier: the mask has {mask.shape[0]} members and the maps {maps.shape[0]}; batches must agree"
            )
        object.__setattr__(self, "mask", mask)

    @property
    def sensitivities(self) -> Tensor:
        """The maps, ``(1 or batch, coil, *shape)``."""
        assert self.maps is not None
        return self.maps

    @property
    def batch(self) -> int:
        """Number of different coil maps or masks held."""
        return max(len(self.sensitivities), 1 if self.mask is None else len(self.mask))

    @property
    def space(self) -> Space:
        """Complex images of one channel."""
        s = self.sensitivities
        return Space(self.pixels, (1, *self.pixels.shape), complex=True, dtype=s.dtype, device=s.device)

    @property
    def codomain(self) -> Space:
        """k-space, one channel per coil; no domain."""
        return replace(self.space, domain=None, shape=tuple(self.sensitivities.shape[1:]))

    def validate(self, name: str) -> None:
        """Maps must see something, and the mask must sample something, for every member."""
        check_maps(name, self.sensitivities)
        if self.mask is not None:
            empty = ~self.mask.flatten(1).any(1)
            if bool(empty.any()):
                raise InputError(
                    f"{name!r}: the mask of member {int(empty.nonzero()[0])} samples nothing; it must be True where k-space was measured"
                )

    def __call__(self, u: Tensor) -> Tensor:
        check_image("Fourier", "image", u, self.space.shape)
        maps, _, sampled, _ = self._factors()
        return torch.fft.fftn(maps * u, dim=self._axes, norm="ortho") * sampled

    def adjoint(self, v: Tensor) -> Tensor:
        """``sum_c conj(s_c) F^H (m v_c)``."""
        check_image("Fourier", "k-space", v, self.codomain.shape)
        _, conjugate, _, back = self._factors()
        return combined(conjugate, torch.fft.ifftn(v * back, dim=self._axes, norm="ortho"), self.pixels.dim)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-self.pixels.dim, 0))

    def _factors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Maps and mask with the phases of the centred transform, and their conjugates; kept."""
        maps = self.sensitivities
        free = torch.is_grad_enabled() and maps.requires_grad
        stamp = None if maps.is_inference() else maps._version
        kept = self.__dict__.get("_held")
        if not free and kept is not None and kept[0] == stamp:
            found: tuple[Tensor, Tensor, Tensor, Tensor] = kept[1]
            return found
        p, q = spread(self.pixels, maps.dtype, maps.device)
        sampled = q if self.mask is None else torch.where(self.mask, q, torch.zeros_like(q))
        turned = maps * p
        found = (turned, turned.conj().resolve_conj(), sampled, sampled.conj().resolve_conj())
        if not free:
            found = (found[0].detach(), found[1].detach(), found[2], found[3])
            self.__dict__["_held"] = (stamp, found)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_held"}


def example() -> Fourier:
    """Three coils over a small uneven image, half of k-space."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 9, 14, generator=generator, dtype=torch.complex128)
    mask = torch.rand(9, 14, generator=generator) < 0.5
    return Fourier(Pixels((9, 14), (1.0, 2.0)), maps, mask)
