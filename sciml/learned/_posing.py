"""From a problem to what a PINN trains on: which laws there are, which of them hold already, and their rows at points."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sciml.core.continuous import At
from sciml.core.evolution import Evolution
from sciml.core.solution import Answer
from sciml.domains.boundary import Periodic
from sciml.domains.errors import InputError
from sciml.learned._ansatz import Ansatz, Box, Symmetry
from sciml.learned._differentiable import differentiable
from sciml.learned._jets import Index, Layers, Streams, smoothness
from sciml.learned._residuals import LeastSquares, Term, orders
from sciml.learned._sampling import Sampling, Sobol
from sciml.learned._sensors import Sensors, misfit

__all__ = ["Field", "Posed", "Statement", "statements", "together"]

HELD = 1e-9  # a condition that random weights meet to this share of their size is held by the form
MIRRORED = 1e-5  # what interpolated data may add to an exact symmetry


class Statement(NamedTuple):
    """A law that vanishes: its name, the function of ``At``, and which coordinates are pinned to which value."""

    name: str
    law: Callable[[At], Tensor]
    pinned: tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class Posed:
    """What does not change in training: form, network as a function of its weights, laws, known tensors, sensors."""

    ansatz: Ansatz
    network: nn.Module
    layers: Layers
    laws: tuple[Statement, ...]
    known: Any
    timed: bool
    columns: tuple[str, ...] = ()
    sensors: Sensors | None = None

    def settled(self, problem: Any, symmetries: tuple[Symmetry, ...]) -> Posed:
        """Checked, and without the laws that hold whatever the weights are.

        Raises InputError where the network cannot be differentiated often enough, and for a symmetry that the problem lacks.
        """
        middle = self.ansatz.box.place(torch.full((2, len(self.ansatz.box.lower)), 0.5, dtype=torch.float64))
        order = max(orders(one.law, middle, self.ansatz.box.dim, self.timed, self.known).order for one in self.laws)
        if smoothness(self.network) < order:
            raise InputError(
                f"PINN: the equation {problem.name!r} is of order {order} and the network's activation has only {smoothness(self.network):g} continuous derivatives; take tanh, sin, gelu, silu or softplus"
            )
        self._mirror(problem, symmetries)
        return replace(self, laws=tuple(one for one in self.laws if one.name == "interior" or not self._holds(one)))

    @property
    def first(self) -> Tensor:
        """Where training starts: all weights in one row, in double precision, and the unknown's number."""
        parts = [t.detach().reshape(-1) for layer in self._layers() for t in (layer.weight, layer.bias)]
        row = torch.cat(parts).to(torch.float64)
        return row if self.sensors is None else torch.cat((row, row.new_zeros(1)))

    def _layers(self) -> Any:
        return self.network.layers

    def trained(self, theta: Tensor) -> nn.Module:
        """The network with other weights."""
        twin = copy.deepcopy(self.network).to(torch.float64)
        with torch.no_grad():
            for layer, (matrix, bias) in zip(twin.layers, self.layers.split(theta), strict=True):  # type: ignore[arg-type]
                layer.weight.copy_(matrix)
                layer.bias.copy_(bias)
        return twin

    def term(self, one: Statement, points: Tensor, streams: Streams | None = None) -> Term:
        """A law at points; ``streams`` are the derivatives that it asks for, where they are known."""
        dim = self.ansatz.box.dim
        if streams is None:
            streams = orders(one.law, points, dim, self.timed, self.known)
        begin = self.ansatz.box.lower[dim] if self.timed else 0.0
        patch = self.ansatz.patch(points, streams)
        return Term(one.name, one.law, patch, self.known, self.timed, self.columns, begin=begin)

    def objective(self, terms: tuple[Term, ...]) -> LeastSquares:
        """The least-squares problem of terms."""
        if self.sensors is None:
            return LeastSquares(self.layers, terms)
        return LeastSquares(self.layers, terms, (self.sensors.name,), self.sensors.of_number)

    def sampled(self, sampling: Sampling, seed: int, theta: Tensor | None) -> LeastSquares:
        """All laws at fresh points; ``theta`` are weights whose residual may guide where they lie."""
        terms = []
        for k, one in enumerate(self.laws):
            if one.name == "interior":
                sense = None if theta is None else partial(self.sensed, one, theta)
                points = sampling.draw(self.ansatz.half, seed, sense)
            else:
                points = self._pinned(one, max(16, sampling.points // 8), seed + 7919 * (k + 1))
            terms.append(self.term(one, points))
        if self.sensors is not None:
            seen = {"seen": self.sensors.data, "certainty": self.sensors.certainty}
            told = replace(self, known={**self.known, **seen})
            data = told.term(Statement("data", misfit, ()), self.sensors.points, Streams.of([]))
            terms.append(data)
        return self.objective(tuple(terms))

    def _pinned(self, one: Statement, count: int, seed: int) -> Tensor:
        points = Sobol(count).draw(self.ansatz.half, seed)
        for axis, value in one.pinned:
            points[:, axis] = value
        return points[:1] if len(one.pinned) == points.shape[1] else points

    def sensed(self, one: Statement, theta: Tensor, points: Tensor) -> Tensor:
        """The residual of a law at points, in pieces."""
        found = []
        for some in torch.split(points, 8192):
            term = self.term(one, some)
            found.append(self.objective((term,)).residual(term, theta))
        return torch.cat(found)

    def _random(self, factor: float) -> Tensor:
        return self.first[: self.layers.count] * factor + 0.1

    def _holds(self, one: Statement) -> bool:
        """Whether a condition is met by random weights."""
        points = Sobol(32).draw(self.ansatz.box, 1)
        for axis, value in one.pinned:
            points[:, axis] = value
        term, worst, size = self.term(one, points), 0.0, 1.0
        for factor in (1.0, 1.7):
            out = self.layers.forward(self._random(factor), term.patch.inputs, term.patch.streams)[0]
            u = term.patch.candidate(out)
            worst = max(worst, float(one.law(term.at(u, {})).abs().max()))
            size = max(size, float(u.abs().max()), float(out.abs().max()))
        return math.isfinite(worst) and worst <= HELD * size

    def _mirror(self, problem: Any, symmetries: tuple[Symmetry, ...]) -> None:
        """The candidate and the law must have the declared symmetries."""
        interior = self.laws[0]
        points = Sobol(64).draw(self.ansatz.half, 2)
        for one in symmetries:
            mirrored = points.clone()
            mirrored[:, one.axis] = 2 * one.about - mirrored[:, one.axis]
            inside = self.ansatz.box.fraction(mirrored)[:, one.axis]
            length = self.ansatz.box.upper[one.axis] - self.ansatz.box.lower[one.axis]
            mirrored[:, one.axis] -= torch.floor(inside).clamp(-1, 1) * length * ((inside < 0) | (inside > 1))
            found = []
            for where in (points, mirrored):
                term = self.term(interior, where)
                out = self.layers.forward(self._random(1.0), term.patch.inputs, term.patch.streams)[0]
                u = term.patch.candidate(out)
                found.append((u[0], interior.law(term.at(u, {}))))
            for word, here, there in zip(("start or side values", "law"), *found, strict=True):
                gap = float((there - one.sign * here).abs().max())
                if not gap <= MIRRORED * (1 + float(here.abs().max())):
                    raise InputError(
                        f"{one} is declared, and {word} of {problem.name!r} do not have that symmetry (they miss it by {gap:.1e}); leave it out"
                    )


def statements(problem: Any, box: Box) -> tuple[Statement, ...]:
    """The interior, every side that is not periodic, and the start."""
    continuous, grid = problem.continuous, problem.space.grid
    found = [Statement("interior", continuous.interior, ())]
    for axis, pair in enumerate(grid.conditions):
        for side, condition in enumerate(pair):
            if isinstance(condition, Periodic) or continuous.sides is None:
                continue
            name = "xyz"[axis] + ("_lower", "_upper")[side]
            at = box.upper[axis] if side else box.lower[axis]
            found.append(Statement(name, partial(_on_side, continuous.sides, name), ((axis, at),)))
    if isinstance(problem, Evolution):
        found.append(Statement("start", _at_start, ((box.dim, problem.begin),)))
    return tuple(found)


def _on_side(sides: Any, name: str, at: At) -> Tensor:
    result: Tensor = sides(at, name)
    return result


def _at_start(at: At) -> Tensor:
    return at.u - at["start"]


@dataclass(frozen=True, eq=False)
class Field:
    """The trained function: points ``(m, coordinates)`` to values ``(1, 1, m)``; InputError for points outside of the box.

    ``network`` is the trained network: ``PINN(network=solution.field.network)`` goes on where this run ended.
    """

    posed: Posed
    theta: Tensor
    numbers: tuple[tuple[float, ...], ...] = ((),)  # what the network is told of every member

    def member(self, index: int) -> Callable[[Tensor], Tensor]:
        """The function of one member, without its parameters among the coordinates."""
        told = torch.tensor(self.numbers[min(index, len(self.numbers) - 1)], dtype=torch.float64)
        return lambda points: self(torch.cat((points, told.expand(len(points), -1)), 1))

    @property
    def network(self) -> nn.Module:
        """The network with the trained weights, in double precision."""
        return self.posed.trained(self.theta)

    def __call__(self, points: Tensor) -> Tensor:
        self.posed.ansatz.box.refuse(points.detach())
        return differentiable(self, points.to("cpu", torch.float64)).to(points.device)

    def derivative(self, points: Tensor, index: Index) -> Tensor:
        """A derivative at points, ``(1, 1, m)``; ``index`` are the coordinates, sorted."""
        weights = self.theta[: self.posed.layers.count]
        return self.posed.ansatz.values(self.posed.layers, weights, points, index).reshape(1, 1, -1)


@dataclass(frozen=True, eq=False)
class Together:
    """The functions of several members as one, ``(batch, 1, m)``."""

    parts: tuple[Any, ...]

    def member(self, index: int) -> Callable[[Tensor], Tensor]:
        """The function of one member."""
        own: Callable[[Tensor], Tensor] = self.parts[index]
        return own

    def __call__(self, points: Tensor) -> Tensor:
        return torch.cat([one(points) for one in self.parts])


def together(answers: Sequence[Answer], device: torch.device) -> Answer:
    """The answers of single members as one of a batch."""
    return replace(
        answers[0],
        value=torch.cat([a.value for a in answers]),
        claim=torch.cat([a.claim for a in answers]).to(device),
        steps=max(a.steps for a in answers),
        history=None,
        counts={key: sum(a.counts[key] for a in answers) for key in answers[0].counts},
        field=Together(tuple(a.field for a in answers)),
    )
