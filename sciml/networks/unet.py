"""A small residual U-Net, plain or told a noise level: a neural operator, and what a diffusion prior learns with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.domains.errors import InputError

__all__ = ["UNet", "example"]

_CONVOLUTION = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_MEMORY = {2: torch.channels_last, 3: torch.channels_last_3d}


class UNet(nn.Module):
    r"""``F(x, noise)``: residual blocks on ever coarser pixels and back, after Ronneberger, Fischer and Brox (arXiv:1505.04597).

    The pixels of each block of ``fold`` per axis become channels; scale ``k`` works on pixels ``2^k`` times as large (strided
    and nearest-neighbour, learned 3-wide filters after), with ``widths[k]`` channels and ``blocks`` residual blocks on the way down and
    as many on the way up, where the fine features are added. A block is ``v + conv(silu(a . conv(silu(v)) + b))`` without any
    normalisation, so that what happens at a pixel does not depend on the size of the image; ``a`` and ``b`` per channel are
    affine in a small network's view of ``noise``. The last filter of each block and of the whole starts at zero.

    Input ``(batch, channels, *space)``, output the same, or ``in_channels`` and ``out_channels`` where these are given; any image size (sides are
    filled up by repetition and cut off again). Without ``noise`` it is a plain U-Net operator from fields to fields, as it stands in
    :func:`sciml.fit`: ``noise`` is then zero, and ``a`` and ``b`` are constants that are learned. Filters are 3 points wide, so another spacing is another map.
    ``noise`` is a dimensionless number or ``(batch,)``, such as the logarithm of a noise level: how it is made, and what is
    done to the output, is the business of the prior (``sciml.priors.Diffusion``). ``settings`` holds all arguments.

    Raises InputError for impossible settings and for an input with other channels or dimension. *Fails when* objects are
    wider than what the coarsest scale sees, about ``fold 2^k (4 blocks + 2)`` pixels.
    """

    wave: Tensor

    def __init__(
        self,
        dim: int,
        channels: int = 1,
        widths: Sequence[int] = (32, 64, 64),
        blocks: int = 2,
        fold: int = 2,
        features: int = 32,
        seed: int = 0,
        in_channels: int | None = None,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        widths = tuple(int(width) for width in widths)
        ends = (channels if in_channels is None else in_channels, channels if out_channels is None else out_channels)
        if dim not in (1, 2, 3) or min(ends) < 1 or not widths or min(*widths, blocks, fold, features // 2, 1) < 1:
            raise InputError(
                f"UNet: dim {dim}, channels {ends[0]} -> {ends[1]}, widths {widths}, blocks {blocks}, fold {fold}, features {features}; dim is 1, 2 or 3, "
                "features at least 2, and the rest at least 1."
            )
        self.settings: dict[str, Any] = {
            "dim": dim, "channels": channels, "widths": list(widths), "blocks": blocks, "fold": fold,
            "features": features, "seed": seed,
        }  # fmt: skip
        for name, count in (("in_channels", in_channels), ("out_channels", out_channels)):
            if count is not None:
                self.settings[name] = count
        self.dim, self.channels, self.out_channels, self.fold = dim, *ends, fold
        generator = torch.Generator().manual_seed(seed)
        folded, unfolded = (count * fold**dim for count in ends)
        self.register_buffer("wave", math.pi * torch.randn(features // 2, generator=generator))
        self.view = _linear(2 * (features // 2), features, generator)
        self.first = _filter(dim, folded, widths[0], generator)
        self.down = nn.ModuleList(
            nn.ModuleList(_Block(dim, width, features, generator) for _ in range(blocks)) for width in widths
        )
        self.up = nn.ModuleList(
            nn.ModuleList(_Block(dim, width, features, generator) for _ in range(blocks)) for width in widths[:-1]
        )
        self.coarser = nn.ModuleList(_filter(dim, a, b, generator) for a, b in itertools.pairwise(widths))
        self.finer = nn.ModuleList(_filter(dim, b, a, generator) for a, b in itertools.pairwise(widths))
        self.last = _filter(dim, widths[0], unfolded, generator, zero=True)

    def forward(self, x: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        """``F``, on the pixels of ``x``."""
        if x.ndim != self.dim + 2 or x.shape[1] != self.channels:
            raise InputError(
                f"UNet: input of shape {tuple(x.shape)}; it takes (batch, {self.channels}, *space) with {self.dim} space axes."
            )
        space = x.shape[2:]
        v = self._folded(x)
        level = torch.as_tensor(noise, dtype=x.dtype, device=x.device).reshape(-1, 1).expand(len(x), 1)
        turns = level * self.wave.to(x)
        told = functional.silu(self.view(torch.cat((turns.cos(), turns.sin()), 1)))
        kept = []
        v = self.first(v)
        for scale, stage in enumerate(self.down):
            if scale:
                kept.append(v)
                v = self.coarser[scale - 1](v, stride=2)
            for block in stage:  # type: ignore[attr-defined]
                v = block(v, told)
        for scale in reversed(range(len(self.up))):
            v = self.finer[scale](functional.interpolate(v, scale_factor=2.0, mode="nearest")) + kept.pop()
            for block in self.up[scale]:  # type: ignore[attr-defined]
                v = block(v, told)
        return self._unfolded(self.last(functional.silu(v)), space).to(x.dtype)

    def _folded(self, x: Tensor) -> Tensor:
        """Filled up to whole coarsest pixels, and blocks of ``fold`` per axis turned into channels."""
        size = self.fold * 2 ** (len(self.down) - 1)
        missing = [-n % size for n in x.shape[2:]]
        if any(missing):
            x = functional.pad(
                x, [side for more in reversed(missing) for side in (more // 2, more - more // 2)], mode="replicate"
            )
        parts = [n // self.fold for n in x.shape[2:]]
        x = x.reshape(*x.shape[:2], *(n for part in parts for n in (part, self.fold)))
        order = [0, 1, *range(3, 2 * self.dim + 2, 2), *range(2, 2 * self.dim + 2, 2)]
        x = x.permute(order).reshape(len(x), -1, *parts)
        return x.contiguous(memory_format=_MEMORY[self.dim]) if self.dim in _MEMORY and not x.is_meta else x

    def _unfolded(self, v: Tensor, space: tuple[int, ...]) -> Tensor:
        """Back to pixels, without what was filled up."""
        parts = v.shape[2:]
        v = v.reshape(len(v), self.out_channels, *(self.fold,) * self.dim, *parts)
        back = [0, 1, *(axis for i in range(self.dim) for axis in (2 + self.dim + i, 2 + i))]
        v = v.permute(back).reshape(len(v), self.out_channels, *(self.fold * part for part in parts))
        for axis, n in enumerate(space):
            v = v.narrow(2 + axis, (v.shape[2 + axis] - n) // 2, n)
        return v


class _Filter(nn.Module):
    """A filter of width 3 with bias, in the dtype of its input."""

    def __init__(self, dim: int, weight: Tensor) -> None:
        super().__init__()
        self.dim = dim
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(weight)))

    def forward(self, v: Tensor, stride: int = 1) -> Tensor:
        weight, bias = self.weight.to(v.dtype), self.bias.to(v.dtype)
        found: Tensor = _CONVOLUTION[self.dim](v, weight, bias, stride=stride, padding=1)
        return found


class _Block(nn.Module):
    """``v + conv(silu((1 + a) conv(silu(v)) + b))``."""

    def __init__(self, dim: int, width: int, features: int, generator: torch.Generator) -> None:
        super().__init__()
        self.one = _filter(dim, width, width, generator)
        self.two = _filter(dim, width, width, generator, zero=True)
        self.told = _linear(features, 2 * width, generator, zero=True)

    def forward(self, v: Tensor, told: Tensor) -> Tensor:
        h = self.one(functional.silu(v))
        gain, more = (
            part.to(h.dtype).reshape(*part.shape, *(1,) * (v.ndim - 2)) for part in self.told(told).chunk(2, 1)
        )
        h = torch.addcmul(more, h, 1 + gain)
        found: Tensor = v + self.two(functional.silu(h))
        return found


class _Affine(nn.Module):
    """An affine map of features, in the dtype of its input."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(weight)))

    def forward(self, v: Tensor) -> Tensor:
        return functional.linear(v, self.weight.to(v.dtype), self.bias.to(v.dtype))


def _filter(dim: int, inputs: int, outputs: int, generator: torch.Generator, zero: bool = False) -> _Filter:
    weight = torch.randn(outputs, inputs, *(3,) * dim, generator=generator) / math.sqrt(inputs * 3**dim)
    return _Filter(dim, weight * (0.0 if zero else 1.0))


def _linear(inputs: int, outputs: int, generator: torch.Generator, zero: bool = False) -> _Affine:
    weight = torch.randn(outputs, inputs, generator=generator) / math.sqrt(inputs)
    return _Affine(weight * (0.0 if zero else 1.0))


def example() -> tuple[nn.Module, Tensor]:
    """A small network and an input that it takes, its last filters no longer zero."""
    network = UNet(dim=2, channels=2, widths=(6, 8), blocks=1, features=4)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return network, torch.randn(3, 2, 9, 8, generator=torch.Generator().manual_seed(0))
