r"""The learned parts of a primal-dual method whose every step ends in a denoiser: a U-Net, its noise levels, and filters.

Source: Venkatakrishnan, Bouman and Wohlberg, GlobalSIP (2013), doi 10.1109/GlobalSIP.2013.6737048, for a denoiser in the place
of a proximal map; Aggarwal, Mani and Jacob, IEEE Trans. Med. Imaging 38, 394 (2019), arXiv:1712.02862, for training one through
the steps in which it is used.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sciml.domains.errors import InputError
from sciml.networks.unet import UNet
from sciml.networks.unfolded import KNOTS, filtered

__all__ = ["DenoisingSteps", "example"]

RAMP = (1 / 256, *KNOTS[1:-2], 0.35, 0.2)  # cycles per point, bent down where there is mostly noise
HIGHEST, LOWEST = 0.7, 0.15  # where the noise levels start, in units of the root mean square of an image
GAIN = 0.34  # logarithm of the first steps' length, in steps that are safe without a denoiser


class DenoisingSteps(nn.Module):
    r"""Weights of ``stages`` steps ``x - M_k g``, each followed by one denoiser ``D(., sigma_k)`` with a level of its own.

    .. math:: D(x, \sigma) = r \Bigl( \frac{u}{1 + \sigma^2} + \frac{\sigma}{\sqrt{1 + \sigma^2}}
              F\Bigl(\frac{u}{\sqrt{1 + \sigma^2}}, \frac{\log \sigma}{4}\Bigr) \Bigr), \qquad u = x / r,

    with ``r`` the root mean square of the image, so that an image in other units gives the same answer in those units. ``F``
    is ``unet``, a ``sciml.networks.UNet`` shared by all steps: that of a trained ``sciml.priors.Diffusion`` may be loaded into it,
    and is a good start. ``M_k`` multiplies each frequency by a positive number that depends on its length alone.

    ``widths``, ``blocks`` and ``features`` are those of the U-Net. ``rounded``: the U-Net runs in bfloat16 while training
    (rounded to three digits; several times as fast on processors that have units for it); evaluation is in the precision of
    the weights. ``forward`` removes noise from an image; solvers use ``inside`` and ``sharpen``. Any size of
    image is taken. *Fails when* images are unlike those of the training.
    """

    ramp: Tensor

    def __init__(
        self,
        dim: int = 2,
        stages: int = 8,
        channels: int = 1,
        widths: Sequence[int] = (64, 96, 96),
        blocks: int = 2,
        features: int = 64,
        rounded: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if stages < 1:
            raise InputError(f"DenoisingSteps(stages={stages}): at least one step is needed")
        self.unet = UNet(dim, channels, widths, blocks, features=features, seed=seed)
        self.settings: dict[str, Any] = {
            "dim": dim, "stages": stages, "channels": channels, "widths": [int(width) for width in widths], "blocks": blocks,
            "features": features, "rounded": rounded, "seed": seed,
        }  # fmt: skip
        self.dim, self.stages, self.rounded = dim, stages, rounded
        self.levels = nn.Parameter(torch.linspace(math.log(HIGHEST), math.log(LOWEST), stages))
        self.filters = nn.Parameter(torch.full((stages, len(KNOTS)), GAIN))
        self.register_buffer("ramp", 2 * torch.tensor(RAMP), persistent=False)

    def forward(self, y: Tensor) -> Tensor:
        """All steps where the image itself was measured: ``D(x - M_k (x - y), sigma_k)``, from ``x = y``."""
        x = y
        for stage in range(self.stages):
            x = self.inside(x - self.sharpen(x - y, stage), stage)
        return x

    def inside(self, x: Tensor, stage: int) -> Tensor:
        """``D(x, sigma_k)``."""
        axes = tuple(range(1, x.ndim))
        size = x.square().mean(axes, keepdim=True).sqrt().clamp_min(torch.finfo(x.dtype).tiny ** 0.5)
        sigma = self.levels[stage].exp()
        root = (1 + sigma.square()).sqrt()
        u = x / size
        fast = (
            torch.autocast(x.device.type, torch.bfloat16)
            if self.rounded and self.training
            else contextlib.nullcontext()
        )
        with fast:
            found = self.unet((u / root).to(x.dtype), (self.levels[stage] / 4).reshape(1))
        clean: Tensor = size * (u / root.square() + sigma / root * found.to(x.dtype))
        return clean

    def sharpen(self, g: Tensor, stage: int | None) -> Tensor:
        """``M_k g`` for images ``(batch, channels, *space)``, which wrap around; None: the ramp, of which nothing is learned."""
        return filtered(g, self.ramp if stage is None else self.ramp * self.filters[stage].exp())


def example() -> tuple[nn.Module, Tensor]:
    """Two steps with few channels, its last filters no longer zero, and two uneven images."""
    generator = torch.Generator().manual_seed(0)
    network = DenoisingSteps(stages=2, widths=(6, 8), blocks=1, features=4)
    with torch.no_grad():
        for weight in network.unet.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return network, torch.randn(2, 1, 9, 14, generator=generator)
