"""Symmetries of a grid as augmentation: each member of a batch is moved by an element drawn at random.

``apply(fields, generator)`` moves all fields of a member alike: {name: (batch, channels, *space)} in and out. All
fields are scalars: the components of a vector would also have to be mixed. A symmetry is a property of the problem and
of the grid: use one only if moved inputs have moved targets.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["NodeReflection", "Reflection", "Translation", "Transposition"]

Fields = Mapping[str, Tensor]


def reflect(field: Tensor, axis: int, node: bool) -> Tensor:
    """Mirror along a trailing axis: point i goes to n-1-i, or with `node` to -i mod n."""
    mirrored = field.flip(axis)
    return mirrored.roll(1, axis) if node else mirrored


def mirrored(fields: Fields, generator: torch.Generator, node: bool) -> Fields:
    some = next(iter(fields.values()))
    for axis in range(2 - some.ndim, 0):
        chosen = torch.rand(some.shape[0], generator=generator) < 0.5
        mask = chosen.to(some.device).reshape(-1, *(1,) * (some.ndim - 1))
        fields = {name: torch.where(mask, reflect(f, axis, node), f) for name, f in fields.items()}
    return fields


@dataclass(frozen=True)
class Reflection:
    """Mirror along each axis with probability one half: point i goes to n-1-i.

    For grids that lie symmetrically in the domain: both boundary points, neither, or cell centres.
    """

    def apply(self, fields: Fields, generator: torch.Generator) -> Fields:
        return mirrored(fields, generator, node=False)


@dataclass(frozen=True)
class NodeReflection:
    """Mirror along each axis with probability one half about point 0: point i goes to -i mod n.

    For periodic grids, and for grids that keep the lower boundary and drop the upper one (x = i/n) if both
    boundaries carry the same values, as zero Dirichlet data does for the state.
    """

    def apply(self, fields: Fields, generator: torch.Generator) -> Fields:
        return mirrored(fields, generator, node=True)


@dataclass(frozen=True)
class Transposition:
    """A random permutation of the axes of space; they must have the same number of points.

    Raises:
        InputError: the axes have different sizes.
    """

    def apply(self, fields: Fields, generator: torch.Generator) -> Fields:
        some = next(iter(fields.values()))
        if len(set(some.shape[2:])) > 1:
            raise InputError(f"Transposition: the axes have {tuple(some.shape[2:])} points; it needs equal ones.")
        orders = list(itertools.permutations(range(2, some.ndim)))
        which = torch.randint(len(orders), (some.shape[0],), generator=generator)
        out = {name: torch.empty_like(field) for name, field in fields.items()}
        for number, order in enumerate(orders):
            rows = (which == number).nonzero()[:, 0].to(some.device)
            for name, field in fields.items():
                out[name][rows] = field[rows].permute(0, 1, *order)
        return out


@dataclass(frozen=True)
class Translation:
    """A random shift by whole points along each axis, for problems that are periodic along all axes."""

    def apply(self, fields: Fields, generator: torch.Generator) -> Fields:
        some = next(iter(fields.values()))
        rows = torch.arange(some.shape[0], device=some.device)
        index: list[Tensor] = [rows.reshape(-1, *(1,) * (some.ndim - 2))]
        for axis, n in enumerate(some.shape[2:]):
            shift = torch.randint(n, (some.shape[0], 1), generator=generator).to(some.device)
            moved = (torch.arange(n, device=some.device) - shift) % n
            index.append(moved.reshape(-1, *(1,) * axis, n, *(1,) * (some.ndim - 3 - axis)))
        # the channels go last, so that all indexed axes come first
        return {name: field.movedim(1, -1)[tuple(index)].movedim(-1, 1) for name, field in fields.items()}
