r"""Judging an answer that is a function: the strong form, the sides and the start at points that the problem chooses.

Where a law ``R`` (of the interior, or of a side) is asked at points ``p`` about the derivatives ``j_k`` of the candidate,

.. math:: \eta = \frac{\mathrm{rms}_p\, R}{\mathrm{rms}_p\, \bigl(|R_0| + \sum_k |\partial R / \partial j_k|\, \mathrm{rms}(j_k)\bigr)}

is the backward error of the law in the sense of the normwise one of a linear system: ``R_0`` is what the law says of zero, and
``rms(j_k)`` is taken in the interior. A function that meets the law on both sides of a jump or a kink meets it at almost every point: along random
lines the largest jump of the function, and of its first derivative in space, is sought by bisection and counts as an error of the law. Points are uniform in the domain (and in time), the same for every answer, and unknown to the
solver; derivatives are taken here, by automatic differentiation of the function itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.core.continuous import At
from sciml.core.solution import Answer, Check
from sciml.domains.boundary import Periodic
from sciml.domains.grid import Grid
from sciml.domains.interpolant import Interpolant

if TYPE_CHECKING:
    from sciml.core.problem import Problem

__all__ = ["judged", "known_tensors", "targets"]

POINTS = 1024  # inside
SIDE_POINTS = 256  # on every side, and at the start
LINES, CUTS, HALVINGS = 16, 64, 24  # lines per axis, pieces of a line, and how often the worst one is cut in two
SEED = 0x5EED
TINY = 1e-300

Law = Callable[[At], Tensor]
Index = tuple[int, ...]
Points = tuple[Tensor, ...]  # one tensor per axis


def targets(problem: Problem) -> dict[str, float]:
    """The gates of an answer that is a function, for a problem that states its strong form."""
    if problem.continuous is None:
        return {}
    double = problem.space.dtype == torch.float64
    return {"strong": 1e-4, "sides": 1e-6 if double else 1e-5, "agreement": 1e-10 if double else 1e-5}


def judged(problem: Any, answer: Answer | Tensor, checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """``checks`` as they are; for a function, those of the strong form as gates, and ``checks`` told beside."""
    if not isinstance(answer, Answer) or answer.field is None or problem.continuous is None:
        return checks
    if not isinstance(problem.space.domain, Grid) or problem.space.shape[0] != 1:
        return checks
    rows = [_member(problem.member(i), _own(answer, i), answer.value[i]) for i in range(problem.batch)]
    found = torch.tensor(rows, dtype=torch.float64, device=answer.value.device)
    gates = tuple(
        Check(name, found[:, at], problem.targets[name]) for at, name in enumerate(("strong", "sides", "agreement"))
    )
    return (*gates, *(replace(check, target=None) for check in checks))


def _own(answer: Answer, member: int) -> Callable[[Tensor], Tensor]:
    """The function of one member, points ``(N, axes)`` to ``(N,)``."""
    function: Any = answer.field
    own = getattr(function, "member", None)
    if own is not None:
        one = own(member)
        return lambda points: one(points)[0, 0]
    return lambda points: function(points)[min(member, len(answer.value) - 1), 0]


def _member(problem: Any, function: Callable[[Tensor], Tensor], value: Tensor) -> tuple[float, float, float]:
    """``strong``, ``sides`` and ``agreement`` of a problem with one member."""
    grid = problem.space.domain
    times: tuple[float, ...] = getattr(problem, "times", ())
    begin = problem.begin if times else None
    known = known_tensors(problem)
    generator = torch.Generator().manual_seed(SEED)

    def drawn(count: int) -> tuple[Points, Tensor | None]:
        unit = torch.rand(grid.dim + 1, count, generator=generator, dtype=torch.float64)
        x = tuple(a + length * unit[i] for i, (a, length) in enumerate(zip(grid.origin, grid.extent, strict=True)))
        return x, None if begin is None else begin + (times[-1] - begin) * unit[-1]

    def jets(x: Points, t: Tensor | None) -> _Jets:
        return _Jets(x, function, known, t)

    x, t = drawn(POINTS)
    inside = jets(x, t)
    law = problem.continuous.interior
    size: dict[Index, Tensor] = {}
    strong = max(_error(law, inside, size), _jump(grid, begin, times, function, generator))
    worst = [0.0]
    for name, axis, at in _sides(grid):
        x, t = drawn(SIDE_POINTS)
        there = jets(_moved(x, axis, at), t)
        if problem.continuous.sides is not None:
            worst.append(_error(_side_law(problem.continuous.sides, name), there, size, inside))
    for axis, pair in enumerate(grid.conditions):
        if isinstance(pair[0], Periodic):
            x, t = drawn(SIDE_POINTS)
            ends = [jets(_moved(x, axis, grid.origin[axis] + s), t) for s in (0.0, grid.extent[axis])]
            for index in ((), (axis,)):
                gap = ends[1].jet(index) - ends[0].jet(index)
                worst.append(float(_rms(gap) / _rms(inside.jet(index)).clamp_min(TINY)))
    if begin is not None:  # the start is known at the nodes
        nodes, start = _nodes(grid), problem.start.detach().to("cpu", torch.float64).reshape(-1)
        chosen = torch.randperm(len(nodes), generator=generator)[:SIDE_POINTS]
        with torch.no_grad():
            gap = function(_at_time(nodes[chosen], begin)) - start[chosen]
        worst.append(float(_rms(gap) / _rms(start).clamp_min(TINY)))
    return strong, max(worst), _apart(grid, times, function, value)


def _jump(
    grid: Grid, begin: float | None, times: tuple[float, ...], function: Callable[[Tensor], Tensor], generator: torch.Generator
) -> float:  # fmt: skip
    """The largest jump along lines of the function, relative to its root mean square, and of its first derivative in space likewise."""
    ends = [(a, a + length) for a, length in zip(grid.origin, grid.extent, strict=True)]
    ends += [] if begin is None else [(begin, times[-1])]
    low, high = torch.tensor(ends, dtype=torch.float64).T
    worst = 0.0
    for axis in range(len(ends)):
        for order in (0, 1) if axis < grid.dim else (0,):
            through = low + (high - low) * torch.rand(LINES, len(ends), generator=generator, dtype=torch.float64)
            knots = torch.linspace(float(low[axis]), float(high[axis]), CUTS + 1, dtype=torch.float64)
            along = _along(function, through.repeat_interleave(CUTS + 1, 0), axis, order, knots.repeat(LINES))
            lines = along.reshape(3, LINES, CUTS + 1)
            chosen = _gap(lines[:, :, :-1], lines[:, :, 1:]).argmax(1)
            each = torch.arange(LINES)
            a, b = lines[:, each, chosen], lines[:, each, chosen + 1]
            for _ in range(HALVINGS):
                middle = _along(function, through, axis, order, (a[0] + b[0]) / 2)
                left = _gap(a, middle) >= _gap(middle, b)
                a, b = torch.where(left, a, middle), torch.where(left, middle, b)
            worst = max(worst, float(_gap(a, b).max() / _rms(along[1]).clamp_min(TINY)))
    return worst


def _along(function: Callable[[Tensor], Tensor], through: Tensor, axis: int, order: int, place: Tensor) -> Tensor:
    """Places along an axis, a derivative along it there, and the next one: three rows."""
    with torch.enable_grad():
        parts = [p.detach().requires_grad_() for p in through.unbind(1)]
        parts[axis] = place.detach().requires_grad_()
        values = [function(torch.stack(parts, 1))]
        for _ in range(order + 1):
            values.append(_slope(values[-1], parts[axis]))
    return torch.stack((place, values[order].detach(), values[order + 1].detach()))


def _gap(a: Tensor, b: Tensor) -> Tensor:
    """What the mean of the slopes at both ends leaves of a difference."""
    return (b[1] - a[1] - (b[0] - a[0]) * (a[2] + b[2]) / 2).abs()


def _moved(x: Points, axis: int, place: float) -> Points:
    """The points, all at one place along an axis."""
    return tuple(torch.full_like(one, place) if i == axis else one for i, one in enumerate(x))


def _side_law(sides: Callable[[At, str], Tensor], name: str) -> Law:
    return lambda at: sides(at, name)


def _sides(grid: Grid) -> Iterator[tuple[str, int, float]]:
    """The sides that are not periodic: name, axis, place along it."""
    for axis, pair in enumerate(grid.conditions):
        for condition, word in zip(pair, ("lower", "upper"), strict=True):
            if not isinstance(condition, Periodic):
                place = grid.origin[axis] + (grid.extent[axis] if word == "upper" else 0.0)
                yield f"{'xyz'[axis]}_{word}", axis, place


def _nodes(grid: Grid) -> Tensor:
    return torch.stack([p.reshape(-1) for p in grid.points(torch.float64)], 1)


def _at_time(points: Tensor, t: float) -> Tensor:
    return torch.cat((points, points.new_full((len(points), 1), t)), 1)


def _apart(grid: Grid, times: tuple[float, ...], function: Callable[[Tensor], Tensor], value: Tensor) -> float:
    """How far the values at the nodes are from the function there, relative L2."""
    nodes = _nodes(grid)
    places = [_at_time(nodes, t) for t in times] or [nodes]
    with torch.no_grad():
        there = torch.cat([function(p) for p in places])
    given = value.detach().to(there).reshape(-1)
    return float((given - there).norm() / there.norm().clamp_min(TINY))


def _error(law: Law, at: _Jets, size: dict[Index, Tensor], inside: _Jets | None = None) -> float:
    """The backward error of a law at points; ``size`` collects what derivatives amount to in the interior."""
    with torch.enable_grad():
        residual = torch.as_tensor(law(at), dtype=torch.float64).expand(at.x[0].shape)
        asked = dict(at.found)
        slopes = (
            torch.autograd.grad(residual.sum(), list(asked.values()), allow_unused=True)
            if residual.requires_grad
            else ()
        )
        empty = torch.as_tensor(law(at.without()), dtype=torch.float64).detach().expand(at.x[0].shape)
    scale = empty.abs()
    for index, slope in zip(asked, slopes, strict=False):
        if slope is not None:
            if index not in size:
                size[index] = _rms((inside or at).jet(index))
            scale = scale + slope.abs() * size[index]
    return float(_rms(residual.detach()) / _rms(scale).clamp_min(TINY))


def _slope(value: Tensor, along: Tensor) -> Tensor:
    """The derivative at every point; zero where the value does not depend on the coordinate."""
    if not value.requires_grad:
        return torch.zeros_like(along)
    (slope,) = torch.autograd.grad(value.sum(), along, create_graph=True, allow_unused=True)
    return torch.zeros_like(along) if slope is None else slope


def _rms(values: Tensor) -> Tensor:
    return values.detach().square().mean().sqrt()


@dataclass(frozen=True, eq=False)
class _Jets(At):
    """Points at which derivatives of ``function(points)`` are taken once, each then a number of its own: a law can be asked how it
    depends on it."""

    found: dict[Index, Tensor] = field(default_factory=dict)
    zero: bool = False

    def without(self) -> _Jets:
        """The same points for the candidate zero."""
        return replace(self, found={}, zero=True)

    @property
    def u(self) -> Tensor:
        """The candidate."""
        return self.jet(())

    def d(self, *axes: int, of: str | None = None) -> Tensor:
        """A derivative of the candidate, or of a known field."""
        return super().d(*axes, of=of) if of is not None else self.jet(tuple(sorted(axes)))

    @property
    def dt(self) -> Tensor:
        """The derivative in time, whose axis comes after those of space."""
        return self.jet((len(self.x),))

    def jet(self, index: Index) -> Tensor:
        """A derivative by its axes."""
        if self.zero:
            return torch.zeros_like(self.x[0])
        if index not in self.found:
            with torch.enable_grad():
                parts = [p.detach().requires_grad_() for p in (self.x if self.t is None else (*self.x, self.t))]
                value = self.function(torch.stack(parts, 1))
                for axis in index:
                    value = _slope(value, parts[axis])
            self.found[index] = value.detach().requires_grad_()
        return self.found[index]


def known_tensors(problem: Any) -> dict[str, Any]:
    """The tensors of a problem with one member: numbers, and functions of position for fields and side values."""
    grid, found = problem.space.domain, dict[str, Any]()
    for name, tensor in problem.parameters().items():
        value = tensor.detach().to("cpu", torch.float64)
        if value.numel() == 1:
            found[name] = value.reshape(())
        elif value.ndim == grid.dim + 2 and all(n in (1, m) for n, m in zip(value.shape[2:], grid.shape, strict=True)):
            found[name] = Interpolant(value[0, 0], grid)
    return found
