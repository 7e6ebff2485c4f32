"""Multilayer perceptron: the plain network of coordinates, or of the values at one point."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.domains.errors import InputError

__all__ = ["ACTIVATIONS", "MLP", "activation_of", "example"]

Function = Callable[[Tensor], Tensor]

# By their names in torch, and how many continuous derivatives they have.
ACTIVATIONS: dict[str, tuple[Function, float]] = {
    "tanh": (torch.tanh, math.inf),
    "sin": (torch.sin, math.inf),
    "gelu": (functional.gelu, math.inf),
    "silu": (functional.silu, math.inf),
    "softplus": (functional.softplus, math.inf),
    "elu": (functional.elu, 1),
    "relu": (torch.relu, 0),
}


def activation_of(name: str, network: str) -> tuple[Function, float]:
    """The function of that name and how many continuous derivatives it has.

    Raises:
        InputError: there is none of that name.
    """
    if name not in ACTIVATIONS:
        raise InputError(f"{network}: there is no activation {name!r}; take one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


class MLP(nn.Module):
    r"""Multilayer perceptron (Rumelhart, Hinton and Williams, 1986, doi:10.1038/323533a0).

    .. math:: v_0 = x, \qquad v_{l+1} = \sigma(W_l v_l + b_l), \qquad u = W_L v_L + b_L

    The channels at one point go in and those of the same point come out: (batch, in_channels, \*space) to (batch, out_channels,
    \*space). With coordinates as channels and no axes of space, (points, dim) to (points, out_channels), it is a function of
    position. Weights start uniform with variance 2 / (in + out) (Glorot and Bengio, 2010), biases at zero.

    - ``width``, ``layers``: size and number of hidden layers. ``activation``: a function of torch by its name (tanh, sin, gelu, silu,
      softplus; elu and relu too); ``smoothness`` counts the continuous derivatives of the network: an equation of second order needs 2.
    - ``seed``: of the first weights; torch's global generator is not touched. ``settings`` holds all arguments.

    Raises InputError for impossible settings or an input with other channels. *Fails when* the function oscillates: low frequencies are
    learned long before high ones (`SIREN`, or periodic features before it, see `sciml.networks.output_maps`).
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 64,
        layers: int = 4,
        activation: str = "tanh",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, width, layers) < 1:
            raise InputError(
                f"MLP: channels {in_channels} -> {out_channels}, width {width}, layers {layers}; all are at least 1."
            )
        self.settings: dict[str, Any] = {
            "in_channels": in_channels, "out_channels": out_channels, "width": width, "layers": layers,
            "activation": activation, "seed": seed,
        }  # fmt: skip
        self.in_channels = in_channels
        self.function, self.smoothness = activation_of(activation, "MLP")
        generator = torch.Generator().manual_seed(seed)
        sizes = [in_channels, *[width] * layers, out_channels]
        self.layers = nn.ModuleList(
            Affine(a, b, math.sqrt(6 / (a + b)), generator) for a, b in zip(sizes, sizes[1:], strict=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.in_channels:
            raise InputError(f"MLP: input of shape {tuple(x.shape)}; it takes (batch, {self.in_channels}, *space).")
        v = x.movedim(1, -1)
        for layer in self.layers[:-1]:
            v = self.function(layer(v))
        u: Tensor = self.layers[-1](v)
        return u.movedim(-1, 1)


class Affine(nn.Module):
    """``W v + b`` on the last axis; W from U(-bound, bound), b too if ``spread`` is given, otherwise zero."""

    def __init__(
        self, inputs: int, outputs: int, bound: float, generator: torch.Generator, spread: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator))
        bias = torch.empty(outputs).uniform_(-spread, spread, generator=generator) if spread else torch.zeros(outputs)
        self.bias = nn.Parameter(bias)

    def forward(self, v: Tensor) -> Tensor:
        return functional.linear(v, self.weight, self.bias)


def example() -> tuple[nn.Module, Tensor]:
    """A small network and points that it takes."""
    return MLP(2, 3, width=8, layers=2), torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
