"""Fourier neural operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from sciml.domains.errors import InputError
from sciml.networks.layers import (
    Pointwise,
    SpectralConvolution,
    activated,
    coordinate_channels,
    perceptron,
    space_first,
    space_last,
)

__all__ = ["FNO", "example"]


class FNO(nn.Module):
    r"""Fourier neural operator in one, two or three dimensions (Li et al., arXiv:2010.08895).

    .. math:: v_0 = P(a, x), \qquad v_{l+1} = \sigma(K_l v_l + W_l v_l + b_l), \qquad u = Q(v_L)

    ``K_l`` are spectral convolutions (see :class:`~sciml.networks.layers.SpectralConvolution`), ``W_l`` act on
    channels at each point, ``P`` and ``Q`` are small networks at each point (the last layer has no ``\sigma``, which is
    the exact GELU). Input (batch, in_channels, *space), output (batch, out_channels, *space), any grid size, odd or
    even, also smaller than the modes; the grid spacing is never used, only fractions of the extent.

    - ``modes``: frequencies |k| < modes are mixed, one number or one per axis (the textbook's ``modes``).
    - ``width``, ``layers``: channels inside, number of spectral layers.
    - ``padding``: zeros appended before the spectral layers and cut off after them, as a fraction of each extent:
      0 for periodic fields, 0.1 to 0.25 where opposite sides have nothing to do with each other.
    - ``coordinates``: append the position, scaled to (-1, 1), to the input. Without it (and without padding) the
      network commutes with translations of a periodic grid, which is then the better choice.
    - ``seed``: of the first weights; torch's global generator is not touched.

    ``settings`` holds these arguments, so that a checkpoint can rebuild the network. All parameters are real; a
    complex weight is a pair and counts as two.

    Raises InputError for impossible settings, or an input with other channels or dimension. *Fails when* the map has
    shocks or jumps in the output that neither the modes nor the pointwise path can express, and off the range of its
    training data.
    """

    def __init__(
        self,
        dim: int,
        modes: int | Sequence[int] = 12,
        width: int = 32,
        layers: int = 4,
        in_channels: int = 1,
        out_channels: int = 1,
        padding: float = 0.0,
        coordinates: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        per_axis = (modes,) * dim if isinstance(modes, int) else tuple(int(m) for m in modes)
        if dim not in (1, 2, 3) or len(per_axis) != dim or min(per_axis) < 1:
            raise InputError(f"FNO: dim is {dim} and modes {modes}; give dim 1, 2 or 3 and modes >= 1, one per axis.")
        if min(width, layers, in_channels, out_channels) < 1 or not 0 <= padding <= 1:
            raise InputError(
                f"FNO: width {width}, layers {layers}, channels {in_channels} -> {out_channels}, padding {padding}; "
                "the first four are at least 1 and padding is a fraction between 0 and 1."
            )
        self.settings: dict[str, Any] = {
            "dim": dim,
            "modes": list(per_axis),
            "width": width,
            "layers": layers,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "padding": padding,
            "coordinates": coordinates,
            "seed": seed,
        }
        self.dim, self.in_channels, self.padding, self.coordinates = dim, in_channels, padding, coordinates
        generator = torch.Generator().manual_seed(seed)
        self.lift = Pointwise(in_channels + dim * coordinates, 2 * width, generator=generator)
        self.lift_out = Pointwise(2 * width, width, generator=generator)
        self.spectral = nn.ModuleList(
            SpectralConvolution(per_axis, width, width, generator=generator) for _ in range(layers)
        )
        self.skip = nn.ModuleList(Pointwise(width, width, generator=generator) for _ in range(layers))
        self.project = Pointwise(width, 4 * width, generator=generator)
        self.project_out = Pointwise(4 * width, out_channels, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != self.dim + 2 or x.shape[1] != self.in_channels:
            raise InputError(
                f"FNO: input of shape {tuple(x.shape)}; it takes (batch, {self.in_channels}, *space) with "
                f"{self.dim} space axes."
            )
        shape = tuple(x.shape[2:])
        v = space_first(x)
        if self.coordinates:
            place = coordinate_channels(shape, v)
            v = torch.cat((v, place.expand(*shape, x.shape[0], self.dim)), dim=-1)
        v = perceptron(v, self.lift, self.lift_out)
        extra = [round(self.padding * n) for n in shape]
        if any(extra):
            v = pad(v, [0, 0, 0, 0, *(side for more in reversed(extra) for side in (0, more))])
        last = len(self.skip) - 1
        for layer, (spectral, skip) in enumerate(zip(self.spectral, self.skip, strict=True)):
            v = spectral(v, onto=skip(v))
            if layer < last:
                v = activated(v)
        if any(extra):
            for axis, n in enumerate(shape):
                v = v.narrow(axis, 0, n)
        return space_last(perceptron(v, self.project, self.project_out))


def example() -> tuple[nn.Module, Tensor]:
    """A small network and an input that it takes."""
    x = torch.randn(3, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    return FNO(dim=2, modes=(3, 2), width=6, layers=2, in_channels=2, out_channels=1, padding=0.2), x
