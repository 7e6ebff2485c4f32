"""Galerkin and Fourier transformers: attention without softmax as a quadrature over the points of a grid."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.domains.errors import InputError
from sciml.networks._positions import kinds, position_features, width_of_features
from sciml.networks.layers import Pointwise, SpectralConvolution, space_last

__all__ = ["FourierTransformer", "GalerkinTransformer", "example"]

_POOL: dict[int, Any] = {
    1: functional.adaptive_avg_pool1d, 2: functional.adaptive_avg_pool2d, 3: functional.adaptive_avg_pool3d
}  # fmt: skip
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


class _Attention(nn.Module, ABC):
    """What the two kinds share: per head, features and position give Q, K and V; what comes out returns to the width.

    ``normalised`` names the two that are brought to mean 0 and variance 1 over the features of each head at each point (with a
    gain and a shift of their own); ``gain`` is that of the first weights around ``diagonal`` times the identity.
    """

    normalised: ClassVar[tuple[int, int]]
    gain: ClassVar[float]
    diagonal: ClassVar[float] = 1e-2

    def __init__(self, width: int, heads: int, positions: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads, self.each = heads, width // heads
        bound = self.gain * math.sqrt(6 / (width + self.each))
        weight = torch.empty(3, width, width).uniform_(-bound, bound, generator=generator)
        self.weight = nn.Parameter(weight + self.diagonal * torch.eye(width))
        self.bias = nn.Parameter(torch.zeros(3, width))
        self.scale = nn.Parameter(torch.ones(2, heads, self.each))
        self.shift = nn.Parameter(torch.zeros(2, heads, self.each))
        self.out = Pointwise(heads * (self.each + positions), width, generator=generator)

    def forward(self, v: Tensor, position: Tensor) -> Tensor:
        """(batch, points, width) and (points, positions) to (batch, points, width)."""
        batch, points = v.shape[:2]
        stacked = _affine(v, self.weight.flatten(0, 1), self.bias.flatten())
        parts = [part.reshape(batch, points, self.heads, self.each) for part in stacked.chunk(3, -1)]
        for which, place in enumerate(self.normalised):
            part = functional.layer_norm(parts[place], (self.each,), eps=1e-7)
            parts[place] = part * self.scale[which] + self.shift[which]
        beside = position.to(v.dtype)[None, :, None].expand(batch, points, self.heads, position.shape[-1])
        q, k, w = (torch.cat((beside, part), -1).transpose(1, 2) for part in parts)
        mixed: Tensor = self.mix(q, k, w).transpose(1, 2).reshape(batch, points, -1)
        found: Tensor = self.out(mixed)
        return found

    @abstractmethod
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The values ``v``, weighed by queries and keys."""


class _Galerkin(_Attention):
    normalised, gain = (1, 2), 1e-2

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return q @ (k.mT @ v / k.shape[-2])


class _Fourier(_Attention):
    normalised, gain = (0, 1), 1e-3

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.mT) @ v / (k.shape[-2] * math.sqrt(k.shape[-1]))


class _Encoder(nn.Module):
    """``v + attention(v)``, then ``v + feedforward(v)``."""

    def __init__(self, attention: _Attention, width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.attention = attention
        self.one = Pointwise(width, hidden, generator=generator)
        self.two = Pointwise(hidden, width, generator=generator)

    def forward(self, v: Tensor, position: Tensor) -> Tensor:
        v = v + self.attention(v, position)
        found: Tensor = v + self.two(functional.silu(self.one(v)))
        return found


class _Transformer(nn.Module):
    """The network of which the two public classes differ in their attention alone."""

    attention: ClassVar[type[_Attention]]

    def __init__(
        self,
        dim: int,
        width: int = 64,
        layers: int = 4,
        heads: int = 4,
        hidden: int | None = None,
        coarsen: int = 1,
        modes: int | Sequence[int] = 12,
        smooth: int = 2,
        smooth_width: int | None = None,
        in_channels: int = 1,
        out_channels: int = 1,
        grid: str | Sequence[str] = "unknown",
        padding: float = 0.0,
        coordinates: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        per_axis = (modes,) * dim if isinstance(modes, int) else tuple(int(m) for m in modes)
        hidden = 2 * width if hidden is None else hidden
        inner = width if smooth_width is None or not smooth else smooth_width
        if dim not in (1, 2, 3) or len(per_axis) != dim or min(per_axis, default=0) < 1:
            raise InputError(f"{name}: dim {dim} and modes {modes}; give dim 1, 2 or 3 and modes >= 1, one per axis.")
        if (
            min(width, layers, heads, hidden, inner, coarsen, in_channels, out_channels) < 1
            or smooth < 0
            or not 0 <= padding <= 1
        ):
            raise InputError(
                f"{name}: width {width}, layers {layers}, heads {heads}, hidden {hidden}, smooth_width {inner}, coarsen {coarsen}, channels "
                f"{in_channels} -> {out_channels}, smooth {smooth}, padding {padding}; the first eight are at least 1, padding is between 0 and 1."
            )
        if width % heads:
            raise InputError(f"{name}: {heads} heads do not divide the width {width}; take heads that do.")
        axes = kinds(name, grid, dim)
        self.settings: dict[str, Any] = {
            "dim": dim, "width": width, "layers": layers, "heads": heads, "hidden": hidden, "coarsen": coarsen,
            "modes": list(per_axis), "smooth": smooth, "smooth_width": inner, "in_channels": in_channels,
            "out_channels": out_channels, "grid": list(axes), "padding": padding,
            "coordinates": coordinates, "seed": seed,
        }  # fmt: skip
        self.dim, self.in_channels, self.coarsen, self.padding, self.grid = dim, in_channels, coarsen, padding, axes
        self.coordinates = coordinates
        positions = width_of_features(axes, 1) if coordinates else 0
        generator = torch.Generator().manual_seed(seed)
        self.lift = Pointwise(in_channels + positions, 2 * width, generator=generator)
        self.lift_out = Pointwise(2 * width, width, generator=generator)
        self.encoders = nn.ModuleList(
            _Encoder(self.attention(width, heads, positions, generator), width, hidden, generator)
            for _ in range(layers)
        )
        self.narrow = Pointwise(width, inner, generator=generator) if inner != width else nn.Identity()
        self.spectral = nn.ModuleList(
            SpectralConvolution(per_axis, inner, inner, generator=generator) for _ in range(smooth)
        )
        self.skip = nn.ModuleList(Pointwise(inner, inner, generator=generator) for _ in range(smooth))
        self.project = Pointwise(inner, 2 * width, generator=generator)
        self.project_out = Pointwise(2 * width, out_channels, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != self.dim + 2 or x.shape[1] != self.in_channels:
            raise InputError(
                f"{type(self).__name__}: input of shape {tuple(x.shape)}; it takes (batch, {self.in_channels}, *space) with "
                f"{self.dim} space axes."
            )
        shape, batch = tuple(x.shape[2:]), len(x)
        position = position_features(self.grid, shape, x)[..., : None if self.coordinates else 0]
        v = torch.cat((x.movedim(1, -1), position.expand(batch, *position.shape)), -1)
        v = self.lift_out(functional.silu(self.lift(v)))  # (batch, *space, width)
        v = self.narrow(self.encoded(v, position, shape))
        v = v.movedim(0, -2).contiguous()
        extra = [round(self.padding * n) for n in shape]
        if any(extra):
            v = functional.pad(v, [0, 0, 0, 0, *(side for more in reversed(extra) for side in (0, more))])
        for spectral, skip in zip(self.spectral, self.skip, strict=True):
            v = functional.silu(spectral(v) + skip(v))
        if any(extra):
            for axis, n in enumerate(shape):
                v = v.narrow(axis, 0, n)
        return space_last(self.project_out(functional.silu(self.project(v))))

    def encoded(self, v: Tensor, position: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The encoders on means over blocks of ``coarsen`` points per axis; what they change goes back by interpolation."""
        coarse = tuple(-(-n // self.coarsen) for n in shape)
        w = v
        if coarse != shape:
            w = _pooled(v, coarse, self.dim)
            position = (
                _pooled(position[None], coarse, self.dim)[0] if self.coordinates else position.new_empty(*coarse, 0)
            )
        tokens = first = w.flatten(1, -2)
        position = position.flatten(0, -2)
        for encoder in self.encoders:
            tokens = encoder(tokens, position)
        if coarse == shape:
            return tokens.reshape(v.shape)
        change = (tokens - first).reshape(w.shape).movedim(-1, 1)
        fine = functional.interpolate(change, size=shape, mode=_LINEAR[self.dim], align_corners=False)
        return v + fine.movedim(1, -1)


class GalerkinTransformer(_Transformer):
    r"""Transformer with Galerkin attention (Cao, Choose a Transformer: Fourier or Galerkin, arXiv:2105.14995).

    .. math:: z = Q\, \frac{\tilde K^\top \tilde V}{n}, \qquad v \leftarrow v + W z, \qquad v \leftarrow v + W_2 \sigma(W_1 v)

    The sum over the n points is a quadrature of ``\int k(x') v(x') dx'``, so ``z`` is a Petrov-Galerkin projection with learned bases, at a cost linear in n and without softmax.
    The tilde: mean 0 and variance 1 over the features of each head, at each point. The position (on periodic axes its cosine and sine) is appended to Q, K and V in every
    head of every layer. The weights of Q, K and V start at 0.01 times the identity plus as little at random. Then ``smooth`` spectral
    convolutions with pointwise skips (none for rough answers, such as a coefficient) and a small network at each point. There is no dropout.

    Input (batch, in_channels, \*space), output (batch, out_channels, \*space), any grid size.

    - ``width``, ``layers``, ``heads``, ``hidden``: features, encoders, heads (they divide the width), size of the pointwise networks (None: twice the width).
    - ``coarsen``: the encoders work on means over blocks of so many points per axis, and what they change is interpolated back.
    - ``modes``, ``padding``, ``smooth``, ``smooth_width``: of the spectral convolutions, as in `FNO`; how many, and how many features they act on (None: all). ``grid``: kind of every axis as in the signature of a fit
      (periodic, closed, interior); "unknown" places points in the middle of equal cells.
    - ``coordinates``: append the position to the input and in every head, as the source does. Without it (and without coarsening and padding) the network commutes
      with translations of a periodic grid, which is then the better choice, as for `FNO`; what depends on distance comes from the spectral convolutions.
    - ``seed``: of the first weights; torch's global generator is not touched. ``settings`` holds all arguments.

    Raises InputError for impossible settings, or an input with other channels or dimension. *Fails when* the kernel sought has more than width / heads
    significant terms (fronts anywhere), and where noise in the data was not in the training.
    """

    attention = _Galerkin


class FourierTransformer(_Transformer):
    r"""Transformer with Fourier attention (Cao, arXiv:2105.14995): a learned kernel, integrated over the grid.

    .. math:: z = \frac{(\tilde Q \tilde K^\top)\, V}{n \sqrt{d}}

    Everything else is as in `GalerkinTransformer`, but Q and K are normalised, the first random weights are ten times smaller, and the cost is quadratic
    in the number of points: take ``coarsen`` in two and three dimensions. *Fails when* a grid has more than some thousand points after coarsening.
    """

    attention = _Fourier


def _pooled(v: Tensor, coarse: tuple[int, ...], dim: int) -> Tensor:
    """Means over blocks, (batch, \\*space, features) to (batch, \\*coarse, features)."""
    found: Tensor = _POOL[dim](v.movedim(-1, 1), coarse)
    return found.movedim(1, -1)


def _affine(v: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`functional.linear`, as the faster convolution where `Pointwise` takes it."""
    if v.device.type != "cpu" or v.dtype != torch.float32:
        return functional.linear(v, weight, bias)
    rows = v.reshape(len(v), 1, -1, v.shape[-1]).permute(0, 3, 1, 2)  # at least 16 rows, or two threads: oneDNN
    out = functional.conv2d(rows, weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(*v.shape[:-1], len(weight))


def example() -> tuple[nn.Module, Tensor]:
    """A small network and an input that it takes."""
    x = torch.randn(3, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {"in_channels": 2, "out_channels": 1, "grid": ("closed", "periodic"), "padding": 0.2}
    return GalerkinTransformer(2, width=6, layers=2, heads=2, coarsen=2, modes=3, smooth=1, **settings), x
