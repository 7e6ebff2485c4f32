r"""Some pixels of an image: what inpainting, dead detectors and random sampling see.

    (M u)_i = u_i where pixel i is seen, and 0 elsewhere,

the orthogonal projection onto the images that vanish where nothing is seen; ``M = M^H = M^2``. The hidden entries of the
data are zeros that were not measured: the noise must say so (``GaussianNoise(sigma, measured=mask.seen)``), or they count
as measurements of zero. *Fails when* a prior says nothing of pixels far from any that is seen (a wavelet or a pixelwise
prior in a large hole): what stands there is then the prior's mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciml.core.linear import SemiDefinite
from sciml.domains.errors import InputError
from sciml.domains.space import Space

__all__ = ["Mask"]


@dataclass(frozen=True, eq=False)
class Mask(SemiDefinite):
    """``u -> u`` where ``seen``, zero elsewhere: ``(..., channel, *space)`` to the same.

    ``seen`` is boolean, of the shape of the grid ``(*space)``, of an image ``(channel, *space)``, or with a batch axis in front.
    Raises InputError for another dtype or shape and for a mask that sees nothing, in all or in a member.
    """

    where: Space
    seen: Tensor = field(metadata={"told": True})

    def __post_init__(self) -> None:
        seen, shape = self.seen, self.where.shape
        if not isinstance(seen, Tensor) or seen.dtype != torch.bool:
            kind = seen.dtype if isinstance(seen, Tensor) else type(seen).__name__
            raise InputError(
                f"seen is {kind}; it must be a boolean tensor, True where pixels are seen (write mask > 0)"
            )
        full = seen.reshape((1,) * (len(shape) + 1 - seen.ndim) + seen.shape)
        if full.ndim != len(shape) + 1 or full.shape[2:] != shape[1:] or full.shape[1] not in (1, shape[0]):
            raise InputError(
                f"seen has shape {tuple(seen.shape)}, the images {tuple(shape)}; give one entry per pixel, {tuple(shape[1:])}"
            )
        if full.device.type != "meta" and not bool(full.flatten(1).any(1).all()):
            raise InputError("the mask sees no pixel at all (in some member); an image cannot be found from nothing")
        object.__setattr__(self, "seen", full)

    @property
    def space(self) -> Space:
        """Where the images live, and the data."""
        return self.where

    @property
    def batch(self) -> int:
        """One mask for all members, or one each."""
        return self.seen.shape[0]

    def __call__(self, u: Tensor) -> Tensor:
        return torch.where(self.seen, u, torch.zeros_like(u))

    def diagonal(self) -> Tensor:
        """One where seen, zero elsewhere."""
        shape = (self.batch, *self.where.shape)
        return self.seen.to(self.where.zeros().dtype).expand(shape)


def example() -> Mask:
    """A third of the pixels of a small image of two channels."""
    from sciml.domains import Pixels

    pixels = Pixels((9, 14), (1.0, 2.0))
    return Mask(pixels.space(2), torch.rand(9, 14, generator=torch.Generator().manual_seed(0)) < 0.33)
