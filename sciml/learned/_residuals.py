"""The equation, its sides and its start as rows of a nonlinear least-squares problem in the weights of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sciml.core.continuous import At
from sciml.domains.errors import InputError
from sciml.learned._ansatz import Patch
from sciml.learned._jets import Index, Layers, Streams

__all__ = ["Jets", "LeastSquares", "Term", "orders"]


@dataclass(frozen=True, eq=False)
class Jets(At):
    """An ``At`` whose derivatives of ``u`` were carried forward: ``values`` is ``(streams, points)``.

    What the law asks of known fields is computed once and kept in ``memory``.
    """

    values: Tensor = field(default_factory=lambda: torch.zeros(1, 1))
    streams: Streams = field(default_factory=lambda: Streams.of([]))
    memory: dict[Any, Tensor] = field(default_factory=dict)

    @property
    def u(self) -> Tensor:
        """The candidate at the points."""
        return self.values[0]

    @property
    def dt(self) -> Tensor:
        """Its time derivative."""
        if self.t is None:
            raise InputError("the strong form asks for a time derivative, but no time was given")
        return self.values[self.streams.at((len(self.x),))]

    def __getitem__(self, name: str) -> Tensor:
        if name in self.parameters and isinstance(self.parameters[name], Tensor):
            return super().__getitem__(name)
        if name not in self.memory:
            self.memory[name] = super().__getitem__(name)
        return self.memory[name]

    def d(self, *axes: int, of: str | None = None) -> Tensor:
        """A partial derivative of ``u``, or of the named parameter."""
        if of is None:
            return self.values[self.streams.at(axes)]
        key = (of, *axes)
        if key not in self.memory:
            self.memory[key] = super().d(*axes, of=of)
        return self.memory[key]


@dataclass(frozen=True, eq=False)
class _Recorder(At):
    """Notes which derivatives a law asks for."""

    asked: set[Index] = field(default_factory=set)

    @property
    def u(self) -> Tensor:
        return torch.zeros_like(self.x[0])

    @property
    def dt(self) -> Tensor:
        if self.t is None:
            raise InputError("the strong form asks for a time derivative, but no time was given")
        self.asked.add((len(self.x),))
        return torch.zeros_like(self.x[0])

    def d(self, *axes: int, of: str | None = None) -> Tensor:
        if of is None:
            self.asked.add(tuple(sorted(axes)))
        return torch.zeros_like(self.x[0])


Law = Callable[[At], Tensor]


def orders(law: Law, points: Tensor, dim: int, timed: bool, parameters: Mapping[str, Any]) -> Streams:
    """The derivatives that a law asks for."""
    at = _Recorder(tuple(points[:2, :dim].unbind(1)), _none, parameters, points[:2, dim] if timed else None)
    law(at)
    return Streams.of(at.asked)


def _none(*_: Tensor) -> Tensor:
    raise InputError("derivatives are carried forward; a law asks for them with at.d and at.dt")


@dataclass(frozen=True, eq=False)
class Term:
    """Rows ``weight^(1/2) law(u) / points^(1/2)``, ``weight`` a number or one per point. ``columns`` name parameters that are coordinates."""

    name: str
    law: Law
    patch: Patch
    parameters: Mapping[str, Any]
    timed: bool = False
    columns: tuple[str, ...] = ()
    weight: float | Tensor = 1.0
    begin: float = 0.0
    memory: dict[Any, Tensor] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.patch.points)

    @property
    def scale(self) -> Tensor:
        """What the rows are multiplied with."""
        weight = torch.as_tensor(self.weight, dtype=self.patch.points.dtype)
        return (weight / self.count).sqrt().expand(self.count)

    def at(self, values: Tensor, unknown: Mapping[str, Tensor]) -> Jets:
        """What the law sees."""
        q = self.patch.points
        dim = q.shape[1] - len(self.columns) - self.timed
        known: dict[str, Any] = {**self.parameters, **unknown}
        for i, name in enumerate(self.columns):
            known[name] = q[:, dim + self.timed + i]
        t = q[:, dim] if self.timed else None
        return Jets(tuple(q[:, :dim].unbind(1)), _none, known, t, values, self.patch.streams, self.memory)


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """``rows(theta)``: the residuals of all terms, each scaled; half the sum of their squares is what training lowers.

    ``theta`` holds the weights of the network, then one number for every name in ``unknown``, ``value = of(number)``.
    """

    layers: Layers
    terms: tuple[Term, ...]
    unknown: tuple[str, ...] = ()
    of: Callable[[Tensor], Tensor] = torch.exp

    def weighted(self, weights: Sequence[float | Tensor]) -> LeastSquares:
        """With other weights of the terms."""
        return replace(self, terms=tuple(replace(t, weight=w) for t, w in zip(self.terms, weights, strict=True)))

    def _unknown(self, theta: Tensor) -> dict[str, Tensor]:
        return {name: self.of(theta[self.layers.count + i]) for i, name in enumerate(self.unknown)}

    def residual(self, term: Term, theta: Tensor) -> Tensor:
        """One term's law at its points, not scaled."""
        out = self.layers.forward(theta[: self.layers.count], term.patch.inputs, term.patch.streams)[0]
        return _full(term.law(term.at(term.patch.candidate(out), self._unknown(theta))), term)

    def rows(self, theta: Tensor) -> Tensor:
        """All residuals, scaled."""
        return torch.cat([self.residual(t, theta) * t.scale for t in self.terms])

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Half the sum of squares and its gradient, by reverse mode."""
        with torch.enable_grad():
            leaf = theta.detach().requires_grad_()
            value = 0.5 * self.rows(leaf).square().sum()
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient

    def jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """All scaled residuals and their Jacobian ``(rows, len(theta))``."""
        total = sum(t.count for t in self.terms)
        result = torch.zeros(total, len(theta), dtype=theta.dtype)
        values, at = [], 0
        for term in self.terms:
            block = result[at : at + term.count]
            weights = theta[: self.layers.count].detach()
            with torch.enable_grad():
                out, entered, seen = self.layers.forward(weights, term.patch.inputs, term.patch.streams, cut=True)
                spread = {
                    name: value.detach().expand(term.count).clone().requires_grad_()
                    for name, value in self._unknown(theta).items()
                }
                r = _full(term.law(term.at(term.patch.candidate(out), spread)), term)
                asked = [*entered, *spread.values()]
                found = torch.autograd.grad(r.sum(), asked, allow_unused=True)
            full = [torch.zeros_like(a) if g is None else g for a, g in zip(asked, found, strict=True)]
            bars, rest = full[: len(entered)], full[len(entered) :]
            self.layers.rows(bars, [a.detach() for a in seen], len(term.patch.signs), block[:, : self.layers.count])
            for i, slope in enumerate(rest):
                with torch.enable_grad():
                    number = theta[self.layers.count + i].detach().clone().requires_grad_()
                    (chain,) = torch.autograd.grad(self.of(number), number)
                block[:, self.layers.count + i] = slope * chain
            block *= term.scale.unsqueeze(1)
            values.append(r.detach() * term.scale)
            at += term.count
        return torch.cat(values), result


def _full(r: Tensor, term: Term) -> Tensor:
    return r if r.ndim else r.expand(term.count)
