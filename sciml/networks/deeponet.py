"""DeepONet: a function of the position times coefficients that depend on the whole input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sciml.domains.errors import InputError
from sciml.networks._positions import kinds, position_features, resampling, width_of_features
from sciml.networks.mlp import Affine, activation_of

__all__ = ["DeepONet", "example"]


class DeepONet(nn.Module):
    r"""Deep operator network (Lu, Jin, Pang, Zhang and Karniadakis, arXiv:1910.03193).

    .. math:: u_c(x) = \beta_c + \sum_{k=1}^{p} w_{ck}\, b_k(a)\, t_k(x)

    The trunk ``t`` is a perceptron of the position, the branch ``b`` one of the input's values at fixed sensors; both have ``layers`` hidden layers of
    ``width`` = p, and the last layer of the trunk and all hidden layers end in the activation. The trunk is evaluated once for a whole batch. Input (batch,
    in_channels, \*space), output (batch, out_channels, \*space), any grid size: values at the sensors come by linear interpolation, and the
    trunk is evaluated at the points of the input's own grid.

    - ``sensors``: points per axis, one number or one per axis, placed like a grid of that size; equal to the grid of the training data, nothing is interpolated.
    - ``grid``: kind of every axis as in the signature of a fit: periodic, closed, interior (see `Grid.kinds`); "unknown" places points in the
      middle of equal cells.
    - ``harmonics``: the trunk is told cosines (and sines, on periodic axes) of so many waves besides the position.
    - ``activation``: as in `MLP`. ``seed``: of the first weights; torch's global generator is not touched. ``settings`` holds all arguments.

    Raises InputError for impossible settings, or an input with other channels or dimension. *Fails when* the answers move with the input (fronts): sums
    of fixed functions then need many terms, however good the coefficients.
    """

    def __init__(
        self,
        dim: int,
        width: int = 128,
        layers: int = 4,
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
        self.places = Places("DeepONet", *known)
        self.settings: dict[str, Any] = {**self.places.settings, "seed": seed}
        self.function = activation_of(activation, "DeepONet")[0]
        generator = torch.Generator().manual_seed(seed)
        self.trunk = stack(self.places.trunk_inputs, width, layers, generator)
        self.branch = stack(self.places.branch_inputs, width, layers, generator)
        self.weight = nn.Parameter(first_weights(out_channels, 1, width, generator)[:, 0])
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        branch, trunk = self.places.measured(x), self.places.features(x)
        for layer in self.trunk:
            trunk = self.function(layer(trunk))
        for depth, layer in enumerate(self.branch):
            branch = layer(branch) if depth == len(self.branch) - 1 else self.function(layer(branch))
        weighted = branch[:, None] * self.weight  # (batch, out_channels, width)
        u = torch.nn.functional.linear(weighted, trunk) + self.bias[:, None]
        return u.reshape(len(x), -1, *x.shape[2:])


class Places:
    """Where inputs are measured and outputs wanted: what the networks of branch and trunk have in common."""

    def __init__(
        self, name: str, dim: int, width: int, layers: int, sensors: int | Sequence[int], in_channels: int, out_channels: int,
        grid: str | Sequence[str], harmonics: int, activation: str,
    ) -> None:  # fmt: skip
        per_axis = (sensors,) * dim if isinstance(sensors, int) else tuple(int(m) for m in sensors)
        if dim not in (1, 2, 3) or len(per_axis) != dim or min(per_axis) < 1:
            raise InputError(
                f"{name}: dim {dim} and sensors {sensors}; give dim 1, 2 or 3 and sensors >= 1, one per axis."
            )
        if min(width, layers, in_channels, out_channels, harmonics) < 1:
            raise InputError(
                f"{name}: width {width}, layers {layers}, channels {in_channels} -> {out_channels}, harmonics {harmonics}; all are at least 1."
            )
        self.name, self.dim, self.in_channels, self.sensors = name, dim, in_channels, per_axis
        self.grid, self.harmonics = kinds(name, grid, dim), harmonics
        self.branch_inputs = in_channels * math.prod(per_axis)
        self.trunk_inputs = width_of_features(self.grid, harmonics)
        self.settings: dict[str, Any] = {
            "dim": dim, "width": width, "layers": layers, "sensors": list(per_axis), "in_channels": in_channels,
            "out_channels": out_channels, "grid": list(self.grid), "harmonics": harmonics, "activation": activation,
        }  # fmt: skip

    def measured(self, x: Tensor) -> Tensor:
        """The input at the sensors, (batch, in_channels times sensors)."""
        if x.ndim != self.dim + 2 or x.shape[1] != self.in_channels:
            raise InputError(
                f"{self.name}: input of shape {tuple(x.shape)}; it takes (batch, {self.in_channels}, *space) with {self.dim} space axes."
            )
        for axis, (kind, m) in enumerate(zip(self.grid, self.sensors, strict=True)):
            if x.shape[2 + axis] != m:
                matrix = resampling(kind, x.shape[2 + axis], m, x)
                x = (x.movedim(2 + axis, -1) @ matrix.mT).movedim(-1, 2 + axis)
        return x.flatten(1)

    def features(self, x: Tensor) -> Tensor:
        """What the trunk is told about each point of the grid of ``x``, (points, features)."""
        return position_features(self.grid, x.shape[2:], x, self.harmonics).flatten(0, -2)


def stack(inputs: int, width: int, layers: int, generator: torch.Generator) -> nn.ModuleList:
    """Affine maps inputs -> width -> ... -> width, ``layers`` of them."""
    sizes = [inputs, *[width] * layers]
    return nn.ModuleList(
        Affine(a, b, math.sqrt(6 / a), generator) for a, b in zip(sizes, sizes[1:], strict=False)
    )  # variance 2 / inputs, after He et al., arXiv:1502.01852: half of what an activation of the kind of relu lets through


def first_weights(outputs: int, pairs: int, width: int, generator: torch.Generator) -> Tensor:
    """Normal numbers that make the sum over pairs and width about one in size; none is zero, so every weight has a gradient."""
    return torch.randn(outputs, pairs, width, generator=generator) / math.sqrt(width * pairs)


def example() -> tuple[nn.Module, Tensor]:
    """A small network and an input that it takes."""
    x = torch.randn(3, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    grid = ("closed", "periodic")
    return DeepONet(2, width=6, layers=2, sensors=(5, 8), in_channels=2, out_channels=2, grid=grid, harmonics=2), x
