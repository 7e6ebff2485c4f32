"""Fourier neural operator that respects the reflections and permutations of a box."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sciml.networks.fno import FNO

__all__ = ["SymmetricFNO", "example"]


class SymmetricFNO(nn.Module):
    r"""An FNO averaged over the symmetries of a box (Puny et al., arXiv:2110.03336, with the whole group as frame).

    .. math:: f(a) = \frac{1}{|G|} \sum_{g \in G} g^{-1} F(g\, a)

    ``F`` is an :class:`~sciml.networks.fno.FNO`, ``G`` all reflections of the axes and all permutations of axes with
    equally many points: 2 elements in one dimension, 8 on a square, 48 on a cube. In evaluation mode the average is
    taken, so that f(g a) = g f(a) exactly up to rounding, at the price of |G| evaluations of ``F``. In training mode
    one element g per batch member is drawn from torch's generator and the member is mapped by g^{-1} F(g a), whose
    expectation is the average, at the price of one.

    The arguments are those of FNO, and ``node``: False for grids that lie symmetrically in the box (point i goes to
    n-1-i), True for periodic grids and grids x = i/n (point i goes to -i mod n). All channels are scalars.

    *Fails when* the problem is not symmetric: a fixed wind, a side with its own condition, vector components.
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
        node: bool = False,
    ) -> None:
        super().__init__()
        self.inner = FNO(dim, modes, width, layers, in_channels, out_channels, padding, coordinates, seed)
        self.node = node
        self.settings: dict[str, Any] = {**self.inner.settings, "node": node}

    def forward(self, x: Tensor) -> Tensor:
        group = list(elements(tuple(x.shape[2:])))
        if not self.training:
            total = sum((self.move(self.inner(self.move(x, *g)), *g, back=True) for g in group), torch.zeros(()).to(x))
            return total / len(group)
        draw = torch.randint(len(group), (x.shape[0],))
        order = draw.argsort(stable=True)  # members of one element together
        sizes = draw.bincount(minlength=len(group)).tolist()
        order, rest = order.to(x.device), order.argsort().to(x.device)
        parts = [self.move(part, *g) for part, g in zip(x[order].split_with_sizes(sizes), group, strict=True)]
        parts = list(self.inner(torch.cat(parts)).split_with_sizes(sizes))
        return torch.cat([self.move(part, *g, back=True) for part, g in zip(parts, group, strict=True)])[rest]

    def move(self, x: Tensor, mirrored: tuple[int, ...], order: tuple[int, ...], *, back: bool = False) -> Tensor:
        """Mirror the axes in `mirrored`, then permute; `back` undoes it."""
        axes = [2 + axis for axis in mirrored]
        if back:
            x = x.permute(0, 1, *(2 + order.index(axis) for axis in range(len(order))))
        if axes:
            x = x.flip(axes)
            if self.node:
                x = x.roll([1] * len(axes), axes)
        return x if back else x.permute(0, 1, *(2 + axis for axis in order))


def elements(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All (mirrored axes, order of axes) that keep the shape."""
    axes = range(len(shape))
    for order in itertools.permutations(axes):
        if all(shape[order[a]] == shape[a] for a in axes):
            for count in range(len(shape) + 1):
                for mirrored in itertools.combinations(axes, count):
                    yield mirrored, order


def example() -> tuple[nn.Module, Tensor]:
    """A small network and an input that it takes."""
    x = torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return SymmetricFNO(dim=2, modes=3, width=5, layers=2).eval(), x
