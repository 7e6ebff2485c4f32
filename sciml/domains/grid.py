"""Uniform grids on boxes in one to three dimensions.

Nodes are vertices. Along an axis of length ``L`` with ``n`` unknowns,

* Dirichlet at both ends: ``h = L / (n + 1)``, the first node lies at ``h`` (boundary nodes are known, not unknown);
* Neumann or Robin at both ends: ``h = L / (n - 1)``, the first and last nodes lie on the boundary, with half a cell;
* one of each: ``h = L / n``;
* periodic: ``h = L / n``, the first node lies at 0, the last at ``L - h``.

``volumes`` are the dual cells of the nodes: the trapezoidal rule, exact to order ``h^2``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sciml.domains.boundary import Condition, Dirichlet, Neumann, Periodic, Robin
from sciml.domains.errors import InputError
from sciml.domains.space import Space

__all__ = ["Axis", "Grid"]

NAMES = "xyz"
Sides = tuple[Condition, Condition]


class Axis(NamedTuple):
    """One axis of a grid: number of unknowns, spacing, and whether the boundary nodes are unknowns."""

    n: int
    spacing: float
    periodic: bool
    lower_node: bool
    upper_node: bool


@dataclass(frozen=True, eq=False)
class Grid:
    """A box ``[0, extent_0] x ...`` (shifted by ``origin``) with ``shape`` unknowns and a condition on each side.

    ``sides`` is one condition for all sides, or a mapping from axis name (``x``, ``y``, ``z``) to one condition or a
    (lower, upper) pair; axes that are left out have ``Dirichlet(0)``.

    Raises InputError for a dimension outside 1-3, a size too small for its conditions, an extent that is not positive,
    an axis that is periodic on one side only, a negative Robin rate, and a side value of the wrong shape.
    """

    shape: tuple[int, ...]
    extent: tuple[float, ...] = ()
    sides: tuple[Sides, ...] | Mapping[str, Condition | Sides] | Condition = Dirichlet(0.0)
    origin: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        shape = (self.shape,) if isinstance(self.shape, int) else tuple(int(n) for n in self.shape)
        dim = len(shape)
        if not 1 <= dim <= 3:
            raise InputError(
                f"a grid has 1, 2 or 3 axes, shape {shape} has {dim}; pass shape=(n,), (nx, ny) or (nx, ny, nz)"
            )
        extent = _numbers("extent", self.extent, dim, 1.0)
        origin = _numbers("origin", self.origin, dim, 0.0)
        if not all(math.isfinite(length) and length > 0 for length in extent):
            raise InputError(f"extent {extent} must be positive and finite along every axis")
        sides = tuple(
            tuple(_canonical(c, shape, axis, side) for side, c in enumerate(pair))
            for axis, pair in enumerate(_pairs(self.sides, dim))
        )
        for name, value in (("shape", shape), ("extent", extent), ("origin", origin), ("sides", sides)):
            object.__setattr__(self, name, value)
        for axis, (n, pair) in enumerate(zip(shape, self.conditions, strict=True)):
            periodic = [isinstance(c, Periodic) for c in pair]
            if any(periodic) and not all(periodic):
                raise InputError(f"axis {NAMES[axis]} is periodic on one side only; give Periodic() for the whole axis")
            least = 3 if periodic[0] else 2 if all(_has_node(c) for c in pair) else 1
            if n < least:
                raise InputError(
                    f"axis {NAMES[axis]} has {n} unknowns; with its side conditions it needs at least {least}"
                )

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def conditions(self) -> tuple[Sides, ...]:
        """The (lower, upper) conditions of every axis."""
        return self.sides  # type: ignore[return-value]

    def side(self, name: str) -> Condition:
        """The condition on a side by name: ``x_lower``, ``x_upper``, ``y_lower``, ..."""
        for axis in range(self.dim):
            for which, word in enumerate(("lower", "upper")):
                if name == f"{NAMES[axis]}_{word}":
                    return self.conditions[axis][which]
        known = ", ".join(f"{NAMES[a]}_{w}" for a in range(self.dim) for w in ("lower", "upper"))
        raise InputError(f"the grid has no side {name!r}; its sides are {known}")

    def axes(self) -> tuple[Axis, ...]:
        """Size, spacing and node placement of every axis."""
        result = []
        for n, length, (lower, upper) in zip(self.shape, self.extent, self.conditions, strict=True):
            if isinstance(lower, Periodic):
                result.append(Axis(n, length / n, True, True, False))
            else:
                a, b = _has_node(lower), _has_node(upper)
                result.append(Axis(n, length / (n + 1 - a - b), False, a, b))
        return tuple(result)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring nodes along every axis, in units of the extent."""
        return tuple(axis.spacing for axis in self.axes())

    def coordinates(
        self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """Node coordinates along every axis, each of shape ``(n_axis,)``."""
        return tuple(
            start
            + axis.spacing * (torch.arange(axis.n, dtype=dtype, device=device) + (0.0 if axis.lower_node else 1.0))
            for start, axis in zip(self.origin, self.axes(), strict=True)
        )

    def points(
        self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """Coordinates of all nodes: one tensor of the grid's shape per axis."""
        return tuple(torch.meshgrid(*self.coordinates(dtype, device), indexing="ij"))

    def side_points(
        self, name: str, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """Coordinates of the points of one side: one tensor of the side's shape per axis, the normal axis included."""
        self.side(name)
        axis, upper = NAMES.index(name[0]), name.endswith("upper")
        lines = list(self.coordinates(dtype, device))
        at = self.origin[axis] + (self.extent[axis] if upper else 0.0)
        lines[axis] = torch.full((1,), at, dtype=dtype, device=device)
        return tuple(p.squeeze(axis) for p in torch.meshgrid(*lines, indexing="ij"))

    def widths(
        self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """Widths of the dual cells along every axis: the spacing, halved at boundary nodes."""
        result = []
        for axis in self.axes():
            width = torch.full((axis.n,), axis.spacing, dtype=dtype, device=device)
            if not axis.periodic:
                width[0] *= 0.5 if axis.lower_node else 1.0
                width[-1] *= 0.5 if axis.upper_node else 1.0
            result.append(width)
        return tuple(result)

    def volumes(self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Tensor:
        """Volumes of the dual cells, of the grid's shape: the weights of the trapezoidal rule."""
        result = torch.ones((), dtype=dtype, device=device)
        for axis, width in enumerate(self.widths(dtype, device)):
            result = result * width.reshape([-1 if a == axis else 1 for a in range(self.dim)])
        return result

    def space(self, channels: int = 1, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Space:
        """The space of fields ``(batch, channels, *shape)`` on this grid."""
        return Space(domain=self, shape=(channels, *self.shape), dtype=dtype, device=torch.device(device))

    def homogeneous(self) -> Grid:
        """The same grid with all side values zero (Robin rates kept)."""
        zero = tuple((_zero(lower), _zero(upper)) for lower, upper in self.conditions)
        return replace(self, sides=zero)

    def kinds(self) -> tuple[tuple[str, str], ...]:
        """Names of the conditions, ``dirichlet`` | ``neumann`` | ``robin`` | ``periodic``, per axis and side."""
        return tuple((type(a).__name__.lower(), type(b).__name__.lower()) for a, b in self.conditions)

    def to_dict(self) -> dict[str, object]:
        """What a file needs to know of the grid: shape, extent, origin, kinds of the sides."""
        return {"shape": self.shape, "extent": self.extent, "origin": self.origin, "sides": self.kinds()}


def _has_node(condition: Condition) -> bool:
    return isinstance(condition, Neumann | Robin)


def _zero(condition: Condition) -> Condition:
    return condition if isinstance(condition, Periodic) else replace(condition, value=0.0)


def _numbers(name: str, values: float | Sequence[float], dim: int, default: float) -> tuple[float, ...]:
    if isinstance(values, int | float):
        return (float(values),) * dim
    numbers = tuple(float(v) for v in values) or (default,) * dim
    if len(numbers) != dim:
        raise InputError(f"{name} has {len(numbers)} entries, the grid has {dim} axes; give one number per axis")
    return numbers


def _pairs(sides: object, dim: int) -> list[Sides]:
    def pair(given: object) -> Sides:
        if isinstance(given, Condition):
            return (given, given)
        if isinstance(given, tuple | list) and len(given) == 2 and all(isinstance(c, Condition) for c in given):
            return (given[0], given[1])
        raise InputError(
            f"a side condition is Dirichlet, Neumann, Robin or Periodic, or a (lower, upper) pair of them, not {given!r}"
        )

    if isinstance(sides, Condition):
        return [pair(sides)] * dim
    if isinstance(sides, Mapping):
        unknown = sorted(set(sides) - set(NAMES[:dim]))
        if unknown:
            raise InputError(f"sides names the axis {unknown[0]!r}; this grid has {', '.join(NAMES[:dim])}")
        return [pair(sides.get(NAMES[axis], Dirichlet(0.0))) for axis in range(dim)]
    if isinstance(sides, tuple | list) and len(sides) == dim:
        return [pair(given) for given in sides]
    raise InputError(
        "sides is one condition for all sides, or a mapping such as {'x': Dirichlet(0.0), 'y': (Neumann(0.0), Dirichlet(1.0))}"
    )


def _canonical(condition: Condition, shape: tuple[int, ...], axis: int, side: int) -> Condition:
    """Give tensor values their full ``(batch, channel, *side)`` shape, with the normal axis of length one."""
    changes: dict[str, Tensor] = {}
    name = f"{NAMES[axis]}_{('lower', 'upper')[side]}"
    for part in ("value", "rate"):
        value = getattr(condition, part, None)
        if isinstance(value, Tensor) and value.ndim != len(shape) + 2:
            across = tuple(n for a, n in enumerate(shape) if a != axis)
            full = value
            if full.ndim < len(across) + 2:
                full = full.reshape((1,) * (len(across) + 2 - full.ndim) + full.shape)
            if full.ndim != len(across) + 2 or any(
                m not in (1, n) for m, n in zip(full.shape[2:], across, strict=True)
            ):
                raise InputError(
                    f"the {part} on side {name} has shape {tuple(value.shape)}; the side has shape {across} (a leading (batch, channel) is allowed)"
                )
            changes[part] = full.unsqueeze(2 + axis)
        elif isinstance(value, int | float) and part == "rate" and value < 0:
            raise InputError(f"the Robin rate on side {name} is {value}; it must not be negative")
    return replace(condition, **changes) if changes else condition  # type: ignore[arg-type]
