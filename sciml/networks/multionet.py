"""MultiONet: a DeepONet whose branch and trunk meet in several layers, not only in the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sciml.domains.errors import InputError
from sciml.networks.deeponet import Places, first_weights, stack
from sciml.networks.mlp import activation_of

__all__ = ["MultiONet", "example"]


class MultiONet(nn.Module):
    r"""Multi-layer operator network (Zang and Koutsourelakis, DGenNO, J. Comput. Phys. 538, 2025, arXiv:2502.06250).

    .. math:: u_c(x) = \beta_c + \sum_{l = L - m + 1}^{L} \sum_{k=1}^{p} w_{clk}\, b^{(l)}_k(a)\, t^{(l)}_k(x)

    ``t^{(l)}`` and ``b^{(l)}`` are the values after the l-th hidden layer of two perceptrons of equal size, of the position and of the input at fixed
    sensors, and the last ``pairs`` = m of the L layers are paired. Where the source has one number per layer, here ``w`` is a vector, which
    costs ``out_channels pairs width`` weights and serves any number of output channels; it starts at random and not at zero, so that the first
    step has a gradient in every weight. With ``pairs=1`` this is a DeepONet with an activation at the end of its branch.

    Input (batch, in_channels, \*space), output (batch, out_channels, \*space), any grid size; ``sensors``, ``grid``, ``harmonics``,
    ``activation`` and ``seed`` are those of `DeepONet`. ``settings`` holds all arguments.

    Raises InputError for impossible settings, or an input with other channels or dimension. *Fails when* the answers move with the input (fronts), later than
    a DeepONet does where many products are needed. Where few are, it gains little: the answers of Burgers' equation (viscosity 0.01, time 1) lie in 32 fixed functions
    to 3e-4, any width has more, and what is left to learn, the coefficients, both networks learn with branches of the same size (`tests/benchmark/networks.md`).
    """

    def __init__(
        self,
        dim: int,
        width: int = 128,
        layers: int = 4,
        pairs: int | None = None,
        sensors: int | Sequence[int] = 64,
        in_channels: int = 1,
        out_channels: int = 1,
        grid: str | Sequence[str] = "unknown",
        harmonics: int = 8,
        activation: str = "gelu",
        seed: int = 0,
    ) -> None:
        super().__init__()
        known = (dim, width, layers, sensors, in_channels, out_channels, grid, harmonics, activation)
        self.places = Places("MultiONet", *known)
        self.pairs = max(1, layers - 1) if pairs is None else pairs
        if not 1 <= self.pairs <= layers:
            raise InputError(f"MultiONet: pairs {pairs} of {layers} layers; give 1 to {layers}.")
        self.settings: dict[str, Any] = {**self.places.settings, "pairs": self.pairs, "seed": seed}
        self.function = activation_of(activation, "MultiONet")[0]
        generator = torch.Generator().manual_seed(seed)
        self.trunk = stack(self.places.trunk_inputs, width, layers, generator)
        self.branch = stack(self.places.branch_inputs, width, layers, generator)
        self.weight = nn.Parameter(first_weights(out_channels, self.pairs, width, generator))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        branch, trunk = self.places.measured(x), self.places.features(x)
        coefficients, functions = [], []
        first = len(self.trunk) - self.pairs
        for depth, (outer, inner) in enumerate(zip(self.trunk, self.branch, strict=True)):
            trunk, branch = self.function(outer(trunk)), self.function(inner(branch))
            if depth >= first:
                functions.append(trunk)
                coefficients.append(branch[:, None] * self.weight[:, depth - first])
        u = torch.nn.functional.linear(torch.cat(coefficients, -1), torch.cat(functions, -1)) + self.bias[:, None]
        return u.reshape(len(x), -1, *x.shape[2:])


def example() -> tuple[nn.Module, Tensor]:
    """A small network and an input that it takes."""
    x = torch.randn(3, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    grid = ("closed", "periodic")
    network = MultiONet(2, width=6, layers=3, sensors=(5, 8), in_channels=2, out_channels=2, grid=grid, harmonics=2)
    return network, x
