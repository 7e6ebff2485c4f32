"""Building blocks that several networks share.

Inside a network, fields are kept *space first*: ``(*space, batch, channel)``. In that layout a truncated Fourier
transform along one axis is a plain matrix product, and a map over channels touches contiguous memory.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from sciml.domains.errors import InputError

__all__ = [
    "Pointwise", "SpectralConvolution", "activated", "coordinate_channels", "example", "perceptron", "space_first", "space_last",
]  # fmt: skip


def space_first(x: Tensor) -> Tensor:
    """(batch, channel, *space) -> (*space, batch, channel), contiguous."""
    return x.movedim((0, 1), (-2, -1)).contiguous()


def space_last(x: Tensor) -> Tensor:
    """(*space, batch, channel) -> (batch, channel, *space), contiguous."""
    return x.movedim((-2, -1), (0, 1)).contiguous()


def coordinate_channels(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Coordinates scaled to (-1, 1), one channel per axis: (*space, 1, dim).

    Point i of n sits at (2 i + 1) / n - 1, the centre of its cell, so that a reflected grid has reflected coordinates
    and a finer grid samples the same functions.
    """
    lines = [(2 * torch.arange(n, device=like.device, dtype=torch.float64) + 1) / n - 1 for n in shape]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1).to(like.dtype).unsqueeze(-2)


class Pointwise(nn.Module):
    """Affine map over channels at every point: (..., in_channels) -> (..., out_channels).

    On a CPU in float32 it runs as a 1x1 convolution over channels-last memory, which is two to three times faster than
    the matrix product of the same numbers (oneDNN against MKL); elsewhere, and for few outputs, as that product.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_channels)
        self.weight = nn.Parameter(uniform((out_channels, in_channels), bound, generator))
        self.bias = nn.Parameter(uniform((out_channels,), bound, generator)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype != torch.float32 or self.weight.shape[0] < 8 or x.numel() <= SMALL:
            return nn.functional.linear(x, self.weight, self.bias)
        rows = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # channels-last (1, C, 1, rows) without a copy
        # A dilation is nothing to a 1x1 kernel, but on a single thread torch takes oneDNN only for those that have one.
        out = nn.functional.conv2d(rows, self.weight[:, :, None, None], self.bias, dilation=2)
        return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.weight.shape[0])


SMALL = 20480  # numbers up to which torch does not take oneDNN
CACHED = 2**18  # numbers of a hidden layer that stay in a core's cache


def activated(v: Tensor) -> Tensor:
    """The exact GELU; where no gradient is wanted it overwrites its argument, which must be the caller's own."""
    return gelu(v) if torch.is_grad_enabled() else torch.ops.aten.gelu_(v)


def perceptron(v: Tensor, first: Pointwise, second: Pointwise) -> Tensor:
    """``second(gelu(first(v)))``; on a CPU without gradients by parts whose hidden layer stays in the cache, three times as fast."""
    hidden = first.weight.shape[0] * (v[0].numel() // v.shape[-1])
    many = max(1, CACHED // max(1, hidden))
    if torch.is_grad_enabled() or v.device.type != "cpu" or many >= len(v):
        whole: Tensor = second(activated(first(v)))
        return whole
    return torch.cat([second(activated(first(part))) for part in torch.split(v, many)])


def uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    """Numbers from U(-bound, bound), float32."""
    return torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)


class SpectralConvolution(nn.Module):
    r"""Convolution with a band-limited kernel, written in Fourier space (Li et al., arXiv:2010.08895, section 4).

    .. math:: (K v)(x) = \mathrm{Re} \sum_{|k_a| < m_a} W_k \hat v_k\, e^{2\pi i k \cdot x},
              \qquad \hat v_k = \frac1N \sum_x v(x)\, e^{-2\pi i k \cdot x}

    with one complex matrix ``W_k`` (in_channels x out_channels) per frequency. The sum runs over half the frequencies
    of the last axis, as a real transform does, so it equals ``irfftn(W rfftn(v))`` with all other coefficients zero.
    The factor 1/N makes it *resolution-free*: a function without frequencies above the grid's gives the same result
    on every grid that resolves it. A grid of n points carries |k| <= (n - 1) // 2 (the Nyquist frequency of an even
    grid has no sign and is left out); frequencies that it does not carry are skipped.

    The transforms are products with truncated DFT matrices, built in float64, which for few modes costs less than a
    full FFT and needs no complex arithmetic. Complex weights are stored as real pairs:
    ``weight[k_1, ..., k_dim, in_channel, (re, im), out_channel]``, so a complex number counts as two parameters.

    Input and output are space first: (*space, batch, channel).

    Raises InputError for a number of modes below one. *Fails when* the kernel sought is not smooth on the grid:
    everything above ``modes`` must come from elsewhere (the pointwise path of the network).
    """

    weight: nn.Parameter

    def __init__(
        self, modes: tuple[int, ...], in_channels: int, out_channels: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        if not modes or min(modes) < 1:
            raise InputError(f"SpectralConvolution: modes is {modes}; give one number of at least 1 per axis.")
        self.modes = modes
        kept = (*(2 * m - 1 for m in modes[:-1]), modes[-1])
        scale = math.sqrt(2 / (in_channels + out_channels))
        shape = (*kept, in_channels, 2, out_channels)
        self.weight = nn.Parameter(scale * torch.empty(shape).normal_(generator=generator))

    def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """``K x``, plus ``onto`` where something of the output's shape is given."""
        *shape, batch, channels = x.shape
        dim = len(self.modes)
        if len(shape) != dim:
            raise InputError(
                f"SpectralConvolution: input has {len(shape)} space axes and modes {self.modes} ask for {dim}."
            )
        kept = [min(m, (n + 1) // 2) for m, n in zip(self.modes, shape, strict=True)]
        weight: Tensor = self.weight
        for axis, (m, k) in enumerate(zip(self.modes, kept, strict=True)):
            if k < m:
                weight = weight.narrow(axis, m - k, 2 * k - 1) if axis < dim - 1 else weight.narrow(axis, 0, k)

        # To frequencies, last axis first. After each axis the new frequencies are moved to the front, so that the
        # next axis again lies just before the pair (re, im): (k_a, ..., k_dim, n_1, ..., n_b, 2, batch * channel).
        half = transform(shape[-1], kept[-1], "analyse real", x)
        v = torch.matmul(half, x.reshape(-1, shape[-1], batch * channels))
        v = v.reshape(*shape[:-1], kept[-1], 2, batch * channels).movedim(dim - 1, 0)
        for axis in range(dim - 2, -1, -1):
            full = transform(shape[axis], kept[axis], "analyse", x)
            done = v.shape[: dim - 1 - axis]
            v = torch.matmul(full, v.reshape(-1, 2 * shape[axis], batch * channels))
            v = v.reshape(*done, *shape[:axis], 2 * kept[axis] - 1, 2, batch * channels).movedim(dim - 1, 0)

        # One real product per frequency: rows (re, im) of the values against columns (re, im) of the weights.
        size = weight.shape[:dim]
        outputs = weight.shape[-1]
        v = torch.bmm(v.reshape(-1, 2 * batch, channels), weight.reshape(-1, channels, 2 * outputs))
        v = v.reshape(-1, 2, batch, 2, outputs)
        v = torch.stack((v[:, 0, :, 0] - v[:, 1, :, 1], v[:, 0, :, 1] + v[:, 1, :, 0]), dim=1)

        # Back, first axis first: the frequency in front moves before the pair and becomes space.
        v = v.reshape(*size, 2, batch * outputs)
        for axis in range(dim - 1):
            full = transform(shape[axis], kept[axis], "compose", x)
            rest = size[axis + 1 :]
            v = v.movedim(0, dim - 1).reshape(-1, 2 * size[axis], batch * outputs)
            v = torch.matmul(full, v).reshape(*rest, *shape[: axis + 1], 2, batch * outputs)
        v = v.movedim(0, dim - 1).reshape(-1, 2 * kept[-1], batch * outputs)
        half = transform(shape[-1], kept[-1], "compose real", x)
        if onto is None:
            return torch.matmul(half, v).reshape(*shape, batch, outputs)
        below = onto.reshape(-1, shape[-1], batch * outputs)
        return torch.baddbmm(below, half.expand(len(v), -1, -1), v).reshape(*shape, batch, outputs)


def transform(points: int, modes: int, name: str, like: Tensor) -> Tensor:
    """The DFT matrix of one axis on the device and in the dtype of `like`; kept for plain tensors."""
    if type(like) is not Tensor:  # a tensor that only records shapes must meet its own kind, never a kept one
        return dft_matrix(points, modes, name, like.device, like.dtype)
    return kept_matrix(points, modes, name, like.device, like.dtype)


@functools.lru_cache(maxsize=128)
def kept_matrix(points: int, modes: int, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`dft_matrix`, built once; outside inference mode, so that it may serve a training step later."""
    with torch.inference_mode(False), torch.no_grad():
        return dft_matrix(points, modes, name, device, dtype)


def dft_matrix(points: int, modes: int, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A truncated DFT as a real matrix; complex rows and columns are interleaved (re, im).

    "analyse real": (2 modes) x points; "compose real": points x (2 modes), frequencies 0 .. modes-1.
    "analyse": 2 (2 modes - 1) x (2 points); "compose": its counterpart, frequencies -(modes-1) .. modes-1.
    Analysis carries the factor 1/points. Angles are reduced in whole numbers, so the entries are right to rounding.
    """
    real = name.endswith("real")
    k = torch.arange(0 if real else 1 - modes, modes, device=device)
    turns = torch.remainder(k[:, None] * torch.arange(points, device=device), points)
    angle = turns.to(torch.float64) * (2 * math.pi / points)
    cos, sin = angle.cos(), angle.sin()
    if name == "analyse real":
        matrix = torch.stack((cos, -sin), dim=1).reshape(-1, points) / points
    elif name == "compose real":
        twice = torch.where(k > 0, 2.0, 1.0)[:, None]  # the other half of the spectrum is the conjugate
        matrix = torch.stack((twice * cos, -twice * sin), dim=1).reshape(-1, points).T
    else:
        sign = 1 if name == "analyse" else -1
        rows = torch.stack((torch.stack((cos, sign * sin), dim=-1), torch.stack((-sign * sin, cos), dim=-1)), dim=1)
        matrix = rows.reshape(2 * len(k), 2 * points)  # (k, re/im, x, re/im)
        if name == "analyse":
            matrix = matrix / points
        else:  # (x, re/im, k, re/im)
            matrix = rows.permute(2, 1, 0, 3).reshape(2 * points, 2 * len(k))
    return matrix.to(dtype).contiguous()


def example() -> tuple[nn.Module, Tensor]:
    """A small spectral convolution and an input that it takes."""
    generator = torch.Generator().manual_seed(0)
    return SpectralConvolution((3, 2), 2, 3, generator=generator), torch.randn(9, 8, 4, 2, generator=generator)
