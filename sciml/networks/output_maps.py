r"""Exact boundary conditions: maps around a network that hold whatever its weights are.

.. math:: u(x) = \ell(x) + \varphi(x)\, N(x), \qquad \varphi = 0 \text{ and } \ell = g \text{ on the sides held}

Each map is a small frozen object; `Mapped` puts them around any network, in order: ``Mapped(MLP(2), outputs=(Distance(at), Lift(at, ((0.0, 1.0), (None, None)))))``.
Where the points are is an object too: `Nodes` for fields on a grid, `Coordinates` for networks of the position.

The values held are those that leave the network. :func:`sciml.fit` with ``normalise=True`` shifts and scales them afterwards; with
``normalise=False`` they are in physical units, and `Scale`, as the first of the outputs, brings the network's numbers of order one to size.

I. Lagaris, A. Likas, D. Fotiadis, IEEE Trans. Neural Networks 9 (1998), doi:10.1109/72.712178; N. Sukumar, A. Srivastava, arXiv:2104.08426;
transfinite interpolation: W. Gordon, C. Hall, Numer. Math. 21 (1973), doi:10.1007/BF01436298.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sciml.domains.errors import InputError
from sciml.networks._positions import KINDS, place

__all__ = [
    "Coordinates", "Distance", "Extension", "Lift", "Mapped", "Nodes", "OutputMap", "Overwrite", "PeriodicFeatures", "Scale",
    "example",
]  # fmt: skip

Sides = tuple[tuple[bool, bool], ...]
Values = tuple[tuple[float | None, float | None], ...]


class OutputMap(Protocol):
    """``map(v, x)``: ``v`` (batch, channel, \\*space) is what the network made of ``x``; returns the same shape."""

    def __call__(self, v: Tensor, x: Tensor) -> Tensor: ...


class Places(Protocol):
    """``places(v, x)``: the position along each axis as a fraction of the extent, each broadcastable to ``v``."""

    def __call__(self, v: Tensor, x: Tensor) -> list[Tensor]: ...


@dataclass(frozen=True)
class Nodes:
    """The points of the grid that ``v`` lives on; ``grid`` says of every axis whether it is periodic, closed, interior or unknown."""

    grid: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", tuple(self.grid))
        if any(kind not in KINDS for kind in self.grid):
            raise InputError(f"Nodes: grid is {self.grid}; give one of {', '.join(KINDS)} per axis.")

    def __call__(self, v: Tensor, x: Tensor) -> list[Tensor]:
        if v.ndim != len(self.grid) + 2:
            raise InputError(
                f"Nodes of {len(self.grid)} axes met a field of shape {tuple(v.shape)}; give one kind per axis of space."
            )
        found = []
        for axis, kind in enumerate(self.grid):
            shape = [-1 if k == axis + 2 else 1 for k in range(v.ndim)]
            found.append(place(kind, v.shape[axis + 2], v).to(v.dtype).reshape(shape))
        return found


@dataclass(frozen=True)
class Coordinates:
    """The first channels of ``x`` are coordinates in the box from ``lower`` to ``upper``."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower", tuple(self.lower))
        object.__setattr__(self, "upper", tuple(self.upper))
        if len(self.lower) != len(self.upper) or any(not a < b for a, b in zip(self.lower, self.upper, strict=True)):
            raise InputError(
                f"Coordinates: a box from {self.lower} to {self.upper}; give as many numbers, each lower below its upper."
            )

    def __call__(self, v: Tensor, x: Tensor) -> list[Tensor]:
        if x.shape[1] < len(self.lower):
            raise InputError(
                f"Coordinates of {len(self.lower)} axes met {x.shape[1]} channels; the first channels are coordinates."
            )
        box = enumerate(zip(self.lower, self.upper, strict=True))
        return [(x[:, axis : axis + 1] - lower) / (upper - lower) for axis, (lower, upper) in box]


@dataclass(frozen=True)
class Scale:
    """``v -> shift + scale v`` on all channels, in the units of the answer."""

    shift: float = 0.0
    scale: float = 1.0

    def __call__(self, v: Tensor, x: Tensor) -> Tensor:
        return self.shift + self.scale * v


@dataclass(frozen=True)
class Distance:
    r"""``v -> phi v``, ``phi`` a product over axes that vanishes on the sides held and nowhere else.

    With xi the position along an axis from 0 to 1: ``4 xi (1 - xi)`` where both its sides are held, ``xi`` or ``1 - xi`` where one is. ``sides`` holds (lower, upper) for
    every axis; None is all sides. *Fails when* the answer has a slope that ``phi`` does not: at a corner of two sides it is of second order.
    """

    at: Places
    sides: Sides | None = None

    def __post_init__(self) -> None:
        if self.sides is not None:
            object.__setattr__(self, "sides", tuple((bool(a), bool(b)) for a, b in self.sides))

    def __call__(self, v: Tensor, x: Tensor) -> Tensor:
        xi = self.at(v, x)
        held = ((True, True),) * len(xi) if self.sides is None else self.sides
        if len(held) != len(xi):
            raise InputError(
                f"Distance: {len(held)} pairs of sides for {len(xi)} axes; give (lower, upper) for every axis."
            )
        for (lower, upper), along in zip(held, xi, strict=True):
            if lower and upper:
                v = v * (4 * along * (1 - along))
            elif lower or upper:
                v = v * (along if lower else 1 - along)
        return v


@dataclass(frozen=True)
class Lift:
    r"""``v -> v + l``, ``l`` linear between constant ``values`` (lower, upper) on the sides of one axis; None where nothing is given.

    Raises InputError where two sides that meet in a corner are given different values: no continuous function has both; take `Extension`.
    """

    at: Places
    values: Values

    def __post_init__(self) -> None:
        values = tuple((lower, upper) for lower, upper in self.values)
        object.__setattr__(self, "values", values)
        given = [[value for value in pair if value is not None] for pair in values]
        if sum(map(bool, given)) > 1 and len({value for pair in given for value in pair}) > 1:
            raise InputError(
                f"Lift: the values {values} contradict each other where two sides meet in a corner; give sides that meet equal "
                "values, or the values of the boundary points in a channel to Extension."
            )

    def __call__(self, v: Tensor, x: Tensor) -> Tensor:
        xi = self.at(v, x)
        if len(self.values) != len(xi):
            raise InputError(
                f"Lift: {len(self.values)} pairs of values for {len(xi)} axes; give (lower, upper) for every axis."
            )
        for (lower, upper), along in zip(self.values, xi, strict=True):
            if lower is not None and upper is not None:
                return v + (lower * (1 - along) + upper * along)
            given = upper if lower is None else lower
            if given is not None:
                return v + given
        return v


@dataclass(frozen=True)
class Extension:
    r"""``v -> v + l``, ``l`` the transfinite interpolation of what channel ``channel`` of the input says on the boundary points.

    With P the linear interpolation between the two ends of an axis, ``l = g - (1 - P_1) ... (1 - P_dim) g``: equal to ``g`` on every boundary
    point of the closed ``axes`` (None: all), where only boundary values of ``g`` are used. For grids with their end points.
    """

    channel: int
    axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", None if self.axes is None else tuple(self.axes))

    def __call__(self, v: Tensor, x: Tensor) -> Tensor:
        g = _channel("Extension", x, self.channel)
        rest = g
        for axis in range(x.ndim - 2) if self.axes is None else self.axes:
            n = x.shape[axis + 2]
            along = place("closed", n, v).to(v.dtype).reshape([-1 if k == axis + 2 else 1 for k in range(x.ndim)])
            first, last = rest.narrow(axis + 2, 0, 1), rest.narrow(axis + 2, n - 1, 1)
            line = first * (1 - along) + last * along
            rest = rest - line
        return v + (g - rest)


@dataclass(frozen=True)
class Overwrite:
    """The boundary points of closed ``axes`` (None: all) get ``value``, or what channel ``channel`` of the input says there.

    The degrees of freedom of a boundary condition are fixed, as in finite elements. *Fails when* the network does not
    approach the values by itself: the answer then jumps next to the boundary (`Distance` does not).
    """

    value: float = 0.0
    channel: int | None = None
    axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", None if self.axes is None else tuple(self.axes))

    def __call__(self, v: Tensor, x: Tensor) -> Tensor:
        given = (
            torch.full_like(v[:, :1], self.value) if self.channel is None else _channel("Overwrite", x, self.channel)
        )
        inside = torch.ones((), dtype=torch.bool, device=v.device)
        for axis in range(v.ndim - 2) if self.axes is None else self.axes:
            n = v.shape[axis + 2]
            i = torch.arange(n, device=v.device).reshape([-1 if k == axis + 2 else 1 for k in range(v.ndim)])
            inside = inside & (i > 0) & (i < n - 1)
        return torch.where(inside, v, given.to(v.dtype))


@dataclass(frozen=True)
class PeriodicFeatures:
    """For networks of the position: channel k of the input becomes ``cos`` and ``sin`` of ``harmonics`` waves on ``periods[k]``; None leaves it.

    Whatever the network makes of them is exactly periodic, with all derivatives. The network takes `channels` channels.
    """

    periods: tuple[float | None, ...]
    harmonics: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "periods", tuple(self.periods))
        if self.harmonics < 1 or any(period is not None and not period > 0 for period in self.periods):
            raise InputError(
                f"PeriodicFeatures: periods {self.periods}, harmonics {self.harmonics}; periods are positive, harmonics at least 1."
            )

    @property
    def channels(self) -> int:
        """How many come out."""
        return sum(1 if period is None else 2 * self.harmonics for period in self.periods)

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[1] != len(self.periods):
            raise InputError(
                f"PeriodicFeatures: {len(self.periods)} periods for {x.shape[1]} channels; give one (or None) for each."
            )
        parts = []
        for k, period in enumerate(self.periods):
            one = x[:, k : k + 1]
            if period is None:
                parts.append(one)
                continue
            for wave in range(1, self.harmonics + 1):
                angle = one * (2 * math.pi * wave / period)
                parts += [angle.cos(), angle.sin()]
        return torch.cat(parts, 1)


class Mapped(nn.Module):
    """A network with maps before it (``inputs``, of x alone) and after it (``outputs``, of what came out and x), in order.

    Networks and maps are given as objects; ``settings`` describes them in plain values, which rebuild the same.
    """

    def __init__(
        self,
        network: nn.Module | Mapping[str, Any],
        outputs: Sequence[OutputMap | Mapping[str, Any]] = (),
        inputs: Sequence[Any] = (),
    ) -> None:
        super().__init__()
        self.network: nn.Module = rebuilt(network)
        self.outputs = tuple(rebuilt(one) for one in outputs)
        self.inputs = tuple(rebuilt(one) for one in inputs)
        self.settings: dict[str, Any] = {
            "network": described(self.network), "outputs": [described(one) for one in self.outputs],
            "inputs": [described(one) for one in self.inputs],
        }  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        v: Tensor = x
        for change in self.inputs:
            v = change(v)
        v = self.network(v)
        for change in self.outputs:
            v = change(v, x)
        return v


def described(thing: Any) -> Any:
    """A network or map as plain values."""
    if isinstance(thing, nn.Module):
        settings = getattr(thing, "settings", None)
        if settings is None:
            raise InputError(
                f"Mapped: {type(thing).__name__} has no `settings` to rebuild it from; give a network of sciml.networks."
            )
        return {"object": type(thing).__name__, **settings}
    if is_dataclass(thing):
        return {"object": type(thing).__name__} | {
            part.name: described(getattr(thing, part.name)) for part in fields(thing)
        }
    if isinstance(thing, tuple | list):
        return [described(one) for one in thing]
    return thing


def rebuilt(thing: Any) -> Any:
    """What `described` describes; everything else as it is."""
    if not isinstance(thing, Mapping):
        return thing
    import sciml.networks

    settings = {name: rebuilt(value) for name, value in thing.items() if name != "object"}
    name = str(thing.get("object"))
    kind = MAPS.get(name) or getattr(sciml.networks, name, None)
    if kind is None:
        raise InputError(f"Mapped: there is no {name!r} in sciml.networks; give the network and the maps as objects.")
    return kind(**settings)


def _channel(name: str, x: Tensor, channel: int) -> Tensor:
    if not 0 <= channel < x.shape[1]:
        raise InputError(f"{name}: channel {channel} of an input with {x.shape[1]} channels; count from 0.")
    return x[:, channel : channel + 1]


MAPS: dict[str, Any] = {
    kind.__name__: kind for kind in (Coordinates, Distance, Extension, Lift, Nodes, Overwrite, PeriodicFeatures, Scale)
}


def example() -> tuple[nn.Module, Tensor]:
    """A network of the position, one on the lower side of the first axis, zero on its upper side, periodic along the second."""
    from sciml.networks.mlp import MLP

    at = Coordinates((0.0, 0.0), (1.0, 2.0))
    outputs = (Distance(at, ((True, True), (False, False))), Lift(at, ((1.0, 0.0), (None, None))))
    features = PeriodicFeatures((None, 2.0))
    network = Mapped(MLP(features.channels, width=8, layers=2), outputs, (features,))
    return network, torch.rand(5, 2, generator=torch.Generator().manual_seed(0))
