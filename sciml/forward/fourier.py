r"""Magnetic resonance on a Cartesian grid: several coils see the image, and some of k-space is sampled.

    y_c(k) = \frac{1}{\sqrt N} \sum_i s_c(i) x(i) \exp\Bigl(-2 \pi \mathrm{i} \sum_a \frac{k_a (i_a - \lfloor n_a / 2 \rfloor)}{n_a}\Bigr),

with the image ``x``, the sensitivity ``s_c`` of coil ``c``, and whole ``k_a`` from ``-(n_a // 2)`` on, in cycles per field of view. The
transform is centred (in arrays of k-space, frequency zero stands at index ``n // 2`` of every axis) and orthonormal: white noise of
``sigma`` per real component of k-space is white noise of ``sigma`` in the image of a fully sampled coil. All is complex; the
unit of the image is that of the data over that of the maps. The data are the points that were sampled, ``(coil, points)`` in the
order of the mask, and nothing else: ``sample`` takes them from a whole k-space, ``zero_filled`` puts them back into one.

*Fails when* the object moves or is larger than the field of view (it folds over), when the field is not homogeneous over the
read-out, and, silently, when k-space was stored with frequency zero at index 0 (apply ``torch.fft.fftshift`` first: the image
is otherwise multiplied by a chequerboard of signs).

Pruessmann, Weiger, Scheidegger and Boesiger, SENSE, Magn. Reson. Med. 42, 1999, doi 10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.domains.pixels import Pixels
from sciml.domains.space import Space
from sciml.forward._coils import (
    Coils,
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
class Fourier(Coils):
    """Sampled k-space ``(..., batch, coil, points)`` of complex images ``(..., batch, 1, *pixels.shape)``, in one to three dimensions.

    ``maps`` are complex, ``(coil, *shape)`` or ``(batch, coil, *shape)``; None is one coil that sees all alike. ``mask`` is
    boolean, of the image's shape, one for all coils and members; None samples everything. Raises InputError for real images,
    data or maps, for shapes that do not fit, for a mask that samples nothing, and, when a problem is solved, for maps that vanish.
    """

    pixels: Pixels
    maps: Tensor | None = None
    mask: Tensor | None = field(default=None, metadata={"shared": True, "told": True})
    _places: ClassVar[Tensor | None]

    def __post_init__(self) -> None:
        of_pixels("Fourier", self.pixels)
        object.__setattr__(self, "maps", canonical_maps("Fourier", self.maps, self.pixels))
        object.__setattr__(self, "mask", canonical_mask("Fourier", self.mask, self.pixels))
        places = None if self.mask is None else self.mask.flatten().nonzero().flatten()
        object.__setattr__(self, "_places", places)  # indices of the sampled points in flattened k-space

    @property
    def codomain(self) -> Space:
        """One value per coil and sampled point; no domain."""
        count = math.prod(self.pixels.shape) if self._places is None else len(self._places)
        return replace(self.space, domain=None, shape=(self.sensitivities.shape[1], count))

    @property
    def points(self) -> Tensor:
        """Where k-space is sampled, ``(points, dim)`` in cycles per field of view: what ``NonuniformFourier`` calls so."""
        dtype, device = self.sensitivities.real.dtype, self.sensitivities.device
        lines = [torch.arange(n, dtype=dtype, device=device) - n // 2 for n in self.pixels.shape]
        whole = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).flatten(0, -2)
        return whole if self._places is None else whole[self._places]

    def sample(self, kspace: Tensor) -> Tensor:
        """The sampled points ``(..., coil, points)`` of a whole k-space ``(..., coil, *shape)``."""
        check_image("Fourier", "k-space", kspace, tuple(self.sensitivities.shape[1:]))
        flat = kspace.flatten(-self.pixels.dim)
        return flat if self._places is None else flat.index_select(-1, self._places)

    def zero_filled(self, y: Tensor) -> Tensor:
        """The whole k-space ``(..., coil, *shape)`` with zeros where it was not sampled."""
        if self._places is not None:
            whole = torch.zeros((*y.shape[:-1], math.prod(self.pixels.shape)), dtype=y.dtype, device=y.device)
            y = whole.index_copy_(-1, self._places, y)
        return y.reshape(*y.shape[:-1], *self.pixels.shape)

    def validate(self, name: str) -> None:
        """Maps must be finite and see something, for every member."""
        check_maps(name, self.sensitivities)

    def __call__(self, u: Tensor) -> Tensor:
        check_image("Fourier", "image", u, self.space.shape)
        maps, _, turn, _ = self._factors()
        whole = torch.fft.fftn(maps * u, dim=self._axes, norm="ortho").flatten(-self.pixels.dim)
        picked: Tensor = whole if self._places is None else whole.index_select(-1, self._places)
        return picked * turn

    def adjoint(self, v: Tensor) -> Tensor:
        """``sum_c conj(s_c) F^H v_c``."""
        check_image("Fourier", "k-space", v, self.codomain.shape)
        _, conjugate, _, back = self._factors()
        images = torch.fft.ifftn(self.zero_filled(v * back), dim=self._axes, norm="ortho")
        return combined(conjugate, images, self.pixels.dim)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-self.pixels.dim, 0))

    def _factors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Maps and sampled points with the phases of the centred transform, and their conjugates; kept."""
        maps = self.sensitivities
        free = torch.is_grad_enabled() and maps.requires_grad
        stamp = None if maps.is_inference() else maps._version
        kept = self.__dict__.get("_held")
        if not free and kept is not None and kept[0] == stamp:
            found: tuple[Tensor, Tensor, Tensor, Tensor] = kept[1]
            return found
        p, q = spread(self.pixels, maps.dtype, maps.device)
        turn = q.flatten() if self._places is None else q.flatten()[self._places]
        turned = maps * p
        found = (turned, turned.conj().resolve_conj(), turn, turn.conj().resolve_conj())
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
