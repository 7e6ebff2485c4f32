"""SIREN: a multilayer perceptron whose activations are sines, for functions that oscillate and for their derivatives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sciml.domains.errors import InputError
from sciml.networks.mlp import Affine

__all__ = ["SIREN", "example"]


class SIREN(nn.Module):
    r"""Sinusoidal representation network (Sitzmann, Martel, Bergman, Lindell and Wetzstein, arXiv:2006.09661).

    .. math:: v_{l+1} = \sin\bigl(\omega (W_l v_l + b_l)\bigr), \qquad u = W_L v_L + b_L

    (batch, in_channels, \*space) to (batch, out_channels, \*space), point by point; (points, dim) to (points, out_channels) for a function
    of position. Weights of the first layer start in U(-1/in, 1/in), those of the others in U(-sqrt(6/in)/omega, sqrt(6/in)/omega), so that what
    enters every hidden sine has about unit variance (up to a constant phase) whatever the depth; all derivatives are again such networks.

    - ``omega``: about the highest angular frequency that the first weights contain, on coordinates in (-1, 1); 30 is the source's choice for
      images. It belongs to the problem: try the wave number of what is sought.
    - ``width``, ``layers``: size and number of hidden layers. ``seed``: of the first weights; torch's global generator is not touched.

    ``settings`` holds all arguments. Raises InputError for impossible settings or an input with other channels. *Fails when* omega does not suit: too
    small and it is slow, too large and it puts noise between the points.
    """

    smoothness = math.inf

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 64,
        layers: int = 3,
        omega: float = 30.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, width, layers) < 1 or not omega > 0:
            raise InputError(
                f"SIREN: channels {in_channels} -> {out_channels}, width {width}, layers {layers}, omega {omega}; counts are at least 1 "
                "and omega is positive."
            )
        self.settings: dict[str, Any] = {
            "in_channels": in_channels, "out_channels": out_channels, "width": width, "layers": layers, "omega": omega,
            "seed": seed,
        }  # fmt: skip
        self.in_channels, self.omega = in_channels, omega
        generator = torch.Generator().manual_seed(seed)
        sizes = [in_channels, *[width] * layers, out_channels]
        self.layers = nn.ModuleList(
            Affine(a, b, math.sqrt(6 / a) / omega if depth else 1 / a, generator, spread=1 / math.sqrt(a))
            for depth, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False))
        )

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.in_channels:
            raise InputError(f"SIREN: input of shape {tuple(x.shape)}; it takes (batch, {self.in_channels}, *space).")
        v = x.movedim(1, -1)
        for layer in self.layers[:-1]:
            v = torch.sin(self.omega * layer(v))
        u: Tensor = self.layers[-1](v)
        return u.movedim(-1, 1)


def example() -> tuple[nn.Module, Tensor]:
    """A small network and points that it takes."""
    x = 2 * torch.rand(5, 2, generator=torch.Generator().manual_seed(0)) - 1
    return SIREN(2, 3, width=8, layers=2, omega=5.0), x
