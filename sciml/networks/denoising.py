"""Bias-free residual denoiser for a range of noise levels."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.domains.errors import InputError

__all__ = ["BiasFreeDenoiser", "example"]

_CONVOLUTION = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


class BiasFreeDenoiser(nn.Module):
    r"""``f(x, sigma) = x - N(x, sigma)``: convolutions and rectifiers without any bias, told the noise level.

    The pixels of each block of two per axis become channels and the noise level one more (FFDNet: Zhang, Zuo and Zhang,
    arXiv:1710.04026), ``layers`` convolutions of width 3 follow, and the blocks are put back; the output is subtracted from
    the input (DnCNN: arXiv:1608.03981). Without biases (Mohan, Kadkhodaie, Simoncelli and Fernandez-Granda, arXiv:1906.05478)
    the map is homogeneous, ``f(c x, c sigma) = c f(x, sigma)`` for ``c > 0``, and meets levels off those of its training with grace.

    Input (batch, channels, *space), output the same; any image size, odd or even. ``sigma`` is a number or a tensor that
    broadcasts against the input, such as ``(batch, 1, ...)``, in the units of ``x``. The weights follow the dtype and device
    of the image. ``seed`` is of the first weights; ``settings`` holds all arguments.

    Raises InputError for impossible settings and for an input with other channels or dimension. *Fails when* the noise is
    not white (demosaicked, compressed, reconstructed): such noise looks like detail.
    """

    def __init__(self, dim: int, channels: int = 1, width: int = 36, layers: int = 8, seed: int = 0) -> None:
        super().__init__()
        if dim not in (1, 2, 3) or min(channels, width) < 1 or layers < 2:
            raise InputError(
                f"BiasFreeDenoiser: dim {dim}, channels {channels}, width {width}, layers {layers}; dim is 1, 2 or 3, the next "
                "two are at least 1, and there are at least 2 layers."
            )
        self.settings: dict[str, Any] = {
            "dim": dim, "channels": channels, "width": width, "layers": layers, "seed": seed
        }  # fmt: skip
        self.dim, self.channels = dim, channels
        generator = torch.Generator().manual_seed(seed)
        folded = channels * 2**dim
        sizes = [folded + 1, *[width] * (layers - 1), folded]
        self.weights = nn.ParameterList(
            torch.randn(b, a, *(3,) * dim, generator=generator) * math.sqrt(2 / (a * 3**dim))
            for a, b in itertools.pairwise(sizes)
        )

    def forward(self, x: Tensor, sigma: Tensor | float = 0.1) -> Tensor:
        """The clean image on average."""
        if x.ndim != self.dim + 2 or x.shape[1] != self.channels:
            raise InputError(
                f"BiasFreeDenoiser: input of shape {tuple(x.shape)}; it takes (batch, {self.channels}, *space) with "
                f"{self.dim} space axes."
            )
        space = x.shape[2:]
        odd = [n % 2 for n in space]
        v = (
            functional.pad(x, [side for more in reversed(odd) for side in (0, more)], mode="replicate")
            if any(odd)
            else x
        )
        halves = [n // 2 for n in v.shape[2:]]
        v = v.reshape(*v.shape[:2], *(size for half in halves for size in (half, 2)))
        order = [0, 1, *range(3, 2 * self.dim + 2, 2), *range(2, 2 * self.dim + 2, 2)]
        v = v.permute(order).reshape(len(x), -1, *halves)
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        level = level.reshape(*level.shape[:1], *(1,) * (self.dim + 1)).expand(len(x), 1, *halves)
        v = torch.cat((v, level), 1)
        if self.dim == 2:
            v = v.contiguous(memory_format=torch.channels_last)
        for at, weight in enumerate(self.weights):
            v = _CONVOLUTION[self.dim](functional.relu(v) if at else v, weight.to(x), padding=1)
        v = v.to(x.dtype).reshape(len(x), self.channels, *(2,) * self.dim, *halves)
        back = [0, 1, *(axis for i in range(self.dim) for axis in (2 + self.dim + i, 2 + i))]
        v = v.permute(back).reshape(len(x), self.channels, *(2 * half for half in halves))
        for axis, n in enumerate(space):
            v = v.narrow(2 + axis, 0, n)
        return x - v


def example() -> tuple[nn.Module, Tensor]:
    """A small network and an input that it takes."""
    x = torch.randn(3, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    return BiasFreeDenoiser(dim=2, channels=2, width=6, layers=3), x
