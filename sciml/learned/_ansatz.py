"""What a PINN is made of beside its network: the box it lives in, features, declared symmetries, conditions that always hold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sciml.core.continuous import At
from sciml.core.evolution import Evolution
from sciml.core.problem import Problem
from sciml.domains.boundary import Dirichlet, Periodic
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.learned._fields import Evolved, Held, known_tensors
from sciml.learned._jets import Index, Layers, Streams, jets_of

__all__ = ["Ansatz", "Box", "Even", "Exact", "Form", "Odd", "Penalised", "Symmetry"]


@dataclass(frozen=True)
class Box:
    """Ranges of the coordinates ``(*x, t, *parameters)``; the first ``dim`` are space."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    dim: int

    def place(self, unit: Tensor) -> Tensor:
        """Points of the unit cube, moved into the box."""
        low, high = (torch.tensor(ends, dtype=unit.dtype) for ends in (self.lower, self.upper))
        return low + (high - low) * unit

    def fraction(self, points: Tensor) -> Tensor:
        """The position along every coordinate from 0 to 1."""
        low, high = (torch.tensor(ends, dtype=points.dtype) for ends in (self.lower, self.upper))
        return (points - low) / (high - low)

    def refuse(self, points: Tensor) -> None:
        """InputError naming the first point that lies outside."""
        if points.ndim != 2 or points.shape[1] != len(self.lower):
            raise InputError(
                f"points have shape {tuple(points.shape)}; give (points, {len(self.lower)}): positions, then the time and the parameters where there are any"
            )
        xi = self.fraction(points.to(torch.float64))
        bad = ~((xi > -1e-9) & (xi < 1 + 1e-9)).all(1)
        if bool(bad.any()):
            i = int(torch.nonzero(bad)[0])
            raise InputError(
                f"{int(bad.sum())} points lie outside the domain, the first at {tuple(round(v, 6) for v in points[i].tolist())}; the box is {self.lower} to {self.upper}"
            )


def box_of(problem: Problem, ranges: tuple[tuple[float, float], ...] = ()) -> Box:
    """The box of a problem on a grid, with the ranges of parameters behind."""
    grid = problem.space.grid
    lower = list(grid.origin)
    upper = [a + length for a, length in zip(grid.origin, grid.extent, strict=True)]
    if isinstance(problem, Evolution):
        lower.append(problem.begin)
        upper.append(max(problem.times[-1], problem.begin + 1e-12))
    return Box((*lower, *(a for a, _ in ranges)), (*upper, *(b for _, b in ranges)), grid.dim)


class Symmetry(Protocol):
    """``u(mirror(x)) = sign u(x)`` with the reflection of one axis about a point."""

    @property
    def axis(self) -> int: ...

    @property
    def about(self) -> float: ...

    @property
    def sign(self) -> float: ...


@dataclass(frozen=True)
class Odd:
    """``u(2 about - x) = -u(x)`` along ``axis``: extra knowledge, declared by the user and checked against law and start."""

    axis: int = 0
    about: float = 0.0

    @property
    def sign(self) -> float:
        """-1."""
        return -1.0


@dataclass(frozen=True)
class Even:
    """``u(2 about - x) = u(x)`` along ``axis``: extra knowledge, declared by the user and checked against law and start."""

    axis: int = 0
    about: float = 0.0

    @property
    def sign(self) -> float:
        """1."""
        return 1.0


class Form(Protocol):
    """How the network becomes a candidate solution."""

    @property
    def symmetries(self) -> tuple[Symmetry, ...]: ...

    def ansatz(self, problem: Any, box: Box) -> Ansatz: ...


@dataclass(frozen=True, eq=False)
class Ansatz:
    """``u(q) = base(q) + factor(q) * sum of sign_c N(features(mirror_c(q)))`` with ``q = (*x, t, *parameters)``.

    What a lift holds (start, sides) holds whatever the weights are; ``half`` is the part of the box that the symmetries leave.
    """

    box: Box
    half: Box
    features: Callable[[Tensor], Tensor]
    copies: tuple[tuple[float, tuple[tuple[int, float], ...]], ...]
    base: Any = None
    factor: Callable[[Tensor], Tensor] | None = None
    fed: float | None = None  # what the base is divided by where the network takes it as a further input

    @property
    def inputs(self) -> int:
        """How many numbers the network takes."""
        middle = self.box.place(torch.full((1, len(self.box.lower)), 0.5, dtype=torch.float64))
        return int(self.features(middle).shape[1]) + (self.fed is not None)

    def patch(self, points: Tensor, streams: Streams) -> Patch:
        """All that does not depend on the weights, at points."""

        def mirrored(mirrors: tuple[tuple[int, float], ...]) -> Callable[[Tensor], Tensor]:
            def function(q: Tensor) -> Tensor:
                columns = list(q.unbind(1))
                for axis, about in mirrors:
                    columns[axis] = 2 * about - columns[axis]
                return self.features(torch.stack(columns, 1))

            return function

        inputs = torch.cat([jets_of(mirrored(mirrors), points, streams) for _, mirrors in self.copies], 1)
        if self.fed is not None:
            started = [self._started(mirrors, points, streams) for _, mirrors in self.copies]
            inputs = torch.cat((inputs, torch.cat(started, 1).unsqueeze(-1) / self.fed), -1)
        base = None if self.base is None else self.base.jets(points, streams)
        factor = None if self.factor is None else jets_of(self.factor, points, streams)[..., 0]
        return Patch(
            points, streams, inputs, torch.tensor([s for s, _ in self.copies], dtype=points.dtype), base, factor
        )

    def _started(self, mirrors: tuple[tuple[int, float], ...], points: Tensor, streams: Streams) -> Tensor:
        """The streams of ``base(mirror(q))``: an odd number of derivatives along a mirrored axis turns the sign."""
        there, axes = points.clone(), [axis for axis, _ in mirrors]
        for axis, about in mirrors:
            there[:, axis] = 2 * about - there[:, axis]
        turned = [(-1.0) ** sum(axis in axes for axis in index) for index in streams.indices]
        result: Tensor = self.base.jets(there, streams)
        return result * torch.tensor(turned, dtype=points.dtype).unsqueeze(1)

    def values(self, layers: Layers, theta: Tensor, points: Tensor, index: Index = ()) -> Tensor:
        """The candidate at points, or one of its derivatives, in pieces that fit the caches."""
        parts, streams = [], Streams.of([index] if index else [])
        for some in torch.split(points, 8192):
            patch = self.patch(some, streams)
            parts.append(patch.candidate(layers.forward(theta, patch.inputs, patch.streams)[0])[streams.at(index)])
        return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class Patch:
    """Points with the streams of the features ``(streams, copies * points, inputs)`` and of the lift ``(streams, points)``."""

    points: Tensor
    streams: Streams
    inputs: Tensor
    signs: Tensor
    base: Tensor | None
    factor: Tensor | None

    def candidate(self, out: Tensor) -> Tensor:
        """The streams of ``u`` ``(streams, points)`` from those of the network's output."""
        n = self.signs.reshape(1, -1, 1) * out[..., 0].reshape(len(out), len(self.signs), -1)
        u = n.sum(1)
        if self.factor is not None:
            u = self.streams.product(self.factor, u)
        return u if self.base is None else self.base + u


@dataclass(frozen=True)
class Penalised:
    """Nothing is built in but the periods: start and sides become terms of the loss. ``harmonics`` waves per periodic axis."""

    symmetries: tuple[Symmetry, ...] = ()
    harmonics: int = 1

    def ansatz(self, problem: Any, box: Box) -> Ansatz:
        """Plain coordinates from -1 to 1, waves along periodic axes."""
        return _plain(problem, box, self.symmetries, self.harmonics)


@dataclass(frozen=True)
class Exact:
    """Start, constant Dirichlet values and periods hold exactly; other sides become terms of the loss.

    ``u = start + tau phi N`` with ``tau`` from 0 to 1 in time and ``phi`` vanishing on the sides held; on a periodic box the start is
    carried on by the stiff linear part of the equation. With ``fed`` the network takes that start, divided by its largest value, as one more
    input: where the rest of the equation acts point by point (a reaction), the solution is close to a smooth function of it, however steep it is
    itself. The problem's own ``continuous.lift`` and ``features`` come first, if it has
    them. Raises InputError where values contradict each other in a corner. *Fails when* the start does not meet its sides.
    """

    symmetries: tuple[Symmetry, ...] = ()
    harmonics: int = 1
    fed: bool = False

    def ansatz(self, problem: Any, box: Box) -> Ansatz:
        """The plain ansatz with base and factor; InputError where ``fed`` is asked for and no start is held."""
        plain = _plain(problem, box, self.symmetries, self.harmonics)
        continuous, grid = problem.continuous, problem.space.grid
        if self.fed and (continuous.lift is not None or not isinstance(problem, Evolution)):
            raise InputError(
                f"Exact(fed=True) feeds the start of an evolution, and {problem.name!r} holds none; leave it out"
            )
        if continuous.lift is not None:
            return Ansatz(box, plain.half, plain.features, plain.copies, *_lifted(problem, box))
        held = _held(grid)
        evolving = isinstance(problem, Evolution)
        base: Any = None
        if evolving:
            start = known_tensors(problem)["start"]
            base = start if isinstance(start, Evolved) else Held(start, grid.dim)
            _meets(problem, base, box, held)
        elif any(value for value in held.values()):
            base = Held(_between(grid, held), grid.dim)

        def factor(q: Tensor) -> Tensor:
            xi = box.fraction(q)
            result = xi[:, box.dim] if evolving else torch.ones_like(xi[:, 0])
            for axis in range(grid.dim):
                lower, upper = ((axis, side) in held for side in (0, 1))
                along = xi[:, axis]
                if lower and upper:
                    result = result * (4 * along * (1 - along))
                elif lower or upper:
                    result = result * (along if lower else 1 - along)
            return result

        fed = (float(problem.start.abs().max()) or 1.0) if self.fed else None
        return Ansatz(box, plain.half, plain.features, plain.copies, base, factor if held or evolving else None, fed)


def _plain(problem: Any, box: Box, symmetries: tuple[Symmetry, ...], harmonics: int) -> Ansatz:
    grid: Grid = problem.space.grid
    periodic = [isinstance(pair[0], Periodic) for pair in grid.conditions]
    for one in symmetries:
        if not 0 <= one.axis < grid.dim:
            raise InputError(f"{one} names axis {one.axis}; the problem has axes 0 to {grid.dim - 1}")
        middle = grid.origin[one.axis] + grid.extent[one.axis] / 2
        if not periodic[one.axis] and abs(one.about - middle) > 1e-9 * grid.extent[one.axis]:
            raise InputError(
                f"{one}: axis {one.axis} is not periodic and its middle is {middle:g}; mirror it about that"
            )
    even = {one.axis: one.about for one in symmetries if one.sign > 0 and periodic[one.axis]}
    own = problem.continuous.features

    def features(q: Tensor) -> Tensor:
        if own is not None:
            rest = q[:, box.dim] if isinstance(problem, Evolution) else None
            made: Tensor = own(At(tuple(q[:, : box.dim].unbind(1)), _nothing, {}, rest))
            return made
        xi, columns = box.fraction(q), []
        for axis in range(q.shape[1]):
            if axis >= box.dim or not periodic[axis]:
                columns.append(2 * xi[:, axis] - 1)
                continue
            for wave in range(1, harmonics + 1):
                angle = (q[:, axis] - even.get(axis, grid.origin[axis])) * (2 * math.pi * wave / grid.extent[axis])
                columns.append(torch.cos(angle))
                if axis not in even:  # cosines about the point of symmetry are even by themselves
                    columns.append(torch.sin(angle))
        return torch.stack(columns, 1)

    mirrors = [one for one in symmetries if not (own is None and one.axis in even and one.sign > 0)]
    copies = []
    for chosen in itertools.product((False, True), repeat=len(mirrors)):
        used = [one for one, take in zip(mirrors, chosen, strict=True) if take]
        copies.append((math.prod(one.sign for one in used), tuple((one.axis, one.about) for one in used)))
    lower, upper = list(box.lower), list(box.upper)
    for one in symmetries:
        length = grid.extent[one.axis] / 2
        ahead = one.about + length <= box.upper[one.axis] + 1e-9 * length
        lower[one.axis] = one.about if ahead else one.about - length
        upper[one.axis] = lower[one.axis] + length
    return Ansatz(box, Box(tuple(lower), tuple(upper), box.dim), features, tuple(copies))


def _nothing(*_: Tensor) -> Tensor:
    raise InputError("features are functions of the coordinates; they cannot ask for the solution")


def _held(grid: Grid) -> dict[tuple[int, int], float]:
    """Sides with one constant Dirichlet value, by (axis, side)."""
    found = {}
    for axis, pair in enumerate(grid.conditions):
        for side, condition in enumerate(pair):
            if isinstance(condition, Dirichlet) and not isinstance(condition.value, Tensor):
                found[axis, side] = float(condition.value)
    for (a, i), (b, j) in itertools.combinations(found, 2):
        if a != b and found[a, i] != found[b, j]:
            names = ["xyz"[axis] + ("_lower", "_upper")[side] for axis, side in ((a, i), (b, j))]
            raise InputError(
                f"{names[0]} holds {found[a, i]:g} and {names[1]} holds {found[b, j]:g}, and they meet in a corner, so that no function holds both exactly; give sides that agree, or form=Penalised()"
            )
    return found


def _between(grid: Grid, held: dict[tuple[int, int], float]) -> Callable[..., Tensor]:
    """A function with the held values: constant, or linear along the one axis whose ends differ."""

    def function(*x: Tensor) -> Tensor:
        value = torch.full_like(x[0], next(iter(held.values())))
        for axis in range(grid.dim):
            low, high = held.get((axis, 0)), held.get((axis, 1))
            if low is not None and high is not None and low != high:
                xi = (x[axis] - grid.origin[axis]) / grid.extent[axis]
                value = low + (high - low) * xi
        return value

    return function


def _meets(problem: Evolution, base: Any, box: Box, held: dict[tuple[int, int], float]) -> None:
    """The start must have the values that its sides hold."""
    size = float(problem.start.abs().max()) or 1.0
    for (axis, side), value in held.items():
        unit = torch.rand((64, len(box.lower)), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        unit[:, axis], unit[:, box.dim] = float(side), 0.0
        gap = float((base.jets(box.place(unit), Streams.of([]))[0] - value).abs().max())
        if gap > 1e-3 * max(size, abs(value)):
            name = "xyz"[axis] + ("_lower", "_upper")[side]
            raise InputError(
                f"{problem.name!r}: the start misses the value {value:g} of side {name} by {gap:.1e}, so that no continuous function holds both; give a start that meets its sides, or form=Penalised()"
            )


@dataclass(frozen=True, eq=False)
class _Given:
    """A plain function of points as a base."""

    function: Callable[[Tensor], Tensor]

    def jets(self, points: Tensor, streams: Streams) -> Tensor:
        """The streams ``(streams, points)``."""
        return jets_of(self.function, points, streams)[..., 0]


def _lifted(problem: Any, box: Box) -> tuple[_Given, Callable[[Tensor], Tensor]]:
    """``continuous.lift(at)`` taken apart into what it adds and what it multiplies ``at.u`` with."""
    lift, known = problem.continuous.lift, known_tensors(problem)

    def put(q: Tensor, value: float) -> Tensor:
        t = q[:, box.dim] if isinstance(problem, Evolution) else None
        x = tuple(q[:, : box.dim].unbind(1))
        result: Tensor = lift(At(x, lambda *c: torch.full_like(c[0], value), known, t))
        return result

    probe = box.place(torch.rand((32, len(box.lower)), dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    bent = put(probe, 2.0) - 2 * put(probe, 1.0) + put(probe, 0.0)
    if float(bent.abs().max()) > 1e-9 * (1 + float(put(probe, 2.0).abs().max())):
        raise InputError(f"{problem.name!r}: the lift is not affine in at.u; return base + factor * at.u")
    return _Given(lambda q: put(q, 0.0)), lambda q: put(q, 1.0) - put(q, 0.0)
