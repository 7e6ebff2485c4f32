"""Nonlinear equations ``law(u) = 0`` on a space."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sciml.core import strong
from sciml.core.bounds import backward_error
from sciml.core.continuous import Continuous
from sciml.core.law import Law
from sciml.core.linear import LinearOperator
from sciml.core.problem import Linear, Problem, as_field, opaque, unpack
from sciml.core.recipe import Recipe
from sciml.core.solution import Answer, Check
from sciml.domains.errors import InputError
from sciml.domains.space import Space

__all__ = ["Equation", "Tangent"]


class _Graph:
    """A law recorded by automatic differentiation at one state: ``pull`` is ``J^H v``, ``push`` is ``J v``."""

    def __init__(self, tangent: Tangent) -> None:
        with torch.enable_grad():
            self.at = tangent.at.detach().requires_grad_()
            self.value = tangent.law(self.at, space=tangent.where)
        self.twice: tuple[Tensor, Tensor] | None = None

    def pull(self, v: Tensor) -> Tensor:
        result: Tensor = torch.autograd.grad(self.value, self.at, v, retain_graph=True)[0]
        return result

    def push(self, v: Tensor) -> Tensor:
        if self.twice is None:
            with torch.enable_grad():
                w = torch.zeros_like(self.value, requires_grad=True)
                self.twice = w, torch.autograd.grad(self.value, self.at, w, create_graph=True)[0]
        w, pulled = self.twice
        result: Tensor = torch.autograd.grad(pulled, w, v, retain_graph=True)[0]
        return result


_GRAPHS: weakref.WeakKeyDictionary[Tangent, _Graph] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Tangent(LinearOperator):
    """The derivative of an equation's law at ``at``, applied by automatic differentiation."""

    law: Law
    at: Tensor
    where: Space
    flipped: bool = False
    selfadjoint: bool = False

    @property
    def space(self) -> Space:
        """The equation's."""
        return self.where

    @property
    def symmetric(self) -> bool:
        """As the equation says."""
        return self.selfadjoint

    def _forward(self, v: Tensor) -> Tensor:
        graph = self._graph(v)
        if graph is not None:
            if self.selfadjoint:
                return graph.pull(v)
            return graph.push(v)
        at = self.at.expand(v.shape).contiguous() if self.at.shape != v.shape else self.at
        result: Tensor = torch.func.jvp(lambda u: self.law(u, space=self.where), (at,), (v,))[1]
        return result

    def _backward(self, v: Tensor) -> Tensor:
        graph = self._graph(v)
        if graph is not None:
            return graph.pull(v)
        at = self.at.expand(v.shape).contiguous() if self.at.shape != v.shape else self.at
        pull = torch.func.vjp(lambda u: self.law(u, space=self.where), at)[1]
        result: Tensor = pull(v)[0]
        return result

    def _graph(self, v: Tensor) -> _Graph | None:
        """The recorded law at ``at``, kept for many products; None where the product itself is differentiated."""
        if torch.is_grad_enabled() or v.shape != self.at.shape or torch._C._are_functorch_transforms_active():
            return None
        kept = _GRAPHS.get(self)
        if kept is None:
            kept = _Graph(self)
            _GRAPHS[self] = kept
        return kept if kept.value.requires_grad else None

    def __call__(self, u: Tensor) -> Tensor:
        return self._backward(u) if self.flipped else self._forward(u)

    def adjoint(self, v: Tensor) -> Tensor:
        """The transposed derivative."""
        return self._forward(v) if self.flipped else self._backward(v)

    @property
    def H(self) -> LinearOperator:
        """The transposed derivative as an operator."""
        return self if self.selfadjoint else dataclasses.replace(self, flipped=not self.flipped)


@dataclass(frozen=True, eq=False)
class Equation(Problem):
    """``law(u) = 0``; ``guess`` is where a solver may start, ``symmetric`` says that the tangent is.

    Gate: ``discrete``, ``|law(u)| / (|J(u)| |u| + |law(u) - J(u) u|)``, the backward error of the linear problem
    that the law is at ``u``, with the tangent ``J``.
    """

    name: str
    law: Law
    space: Space = field()
    guess: Tensor | None = field(default=None, metadata={"told": True})
    symmetric: bool = False
    exact: Tensor | None = field(default=None, metadata={"told": True})
    continuous: Continuous | None = opaque()
    symmetries: tuple[Any, ...] = opaque(())
    goals: Mapping[str, float] = field(default_factory=dict, metadata={"opaque": True})
    recipe: Recipe | None = opaque()
    recommend: Callable[[Any], Any] | None = opaque()
    unknown: str = "u"

    def __post_init__(self) -> None:
        if not isinstance(self.space, Space):
            raise InputError(f"{self.name!r}: space is {type(self.space).__name__}; pass grid.space()")
        if not isinstance(self.law, Law):
            raise InputError(
                f"{self.name!r}: law is {type(self.law).__name__}; wrap the function, Law(function, name=tensor, ...)"
            )
        object.__setattr__(self, "law", self.law.shaped(self.space))
        if self.exact is not None:
            object.__setattr__(self, "exact", as_field("exact", self.exact, self.space))

    def validate(self) -> None:
        """Tensors, and a law that can be evaluated, keeps the shape of ``u`` and has a derivative."""
        super().validate()
        u = self.space.zeros(self.batch).requires_grad_()
        try:
            with torch.enable_grad():
                result = self.residual(u)
        except (TypeError, IndexError, RuntimeError) as error:
            raise InputError(
                f"{self.name!r}: the law cannot be evaluated: {error}; its tensors are {', '.join(self.law.parameters) or 'none'}"
            ) from error
        if not result.requires_grad:
            raise InputError(
                f"{self.name!r}: the law's result has no derivative with respect to u; do not detach it or leave torch"
            )

    def residual(self, u: Tensor) -> Tensor:
        """``law(u)``."""
        return self.law(u, space=self.space)

    def scale(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """``(|J(u)|, law(u) - J(u) u)``: operator and right-hand side of the linear problem at ``u``."""
        tangent = self.tangent(u)
        return tangent.size_bound(), self.residual(u) - tangent(u)

    def tangent(self, u: Tensor) -> LinearOperator:
        """The derivative of the law at ``u``."""
        return Tangent(self.law, u, self.space, selfadjoint=self.symmetric)

    def transposed(self, u: Tensor, gradient: Tensor) -> Linear:
        """``J(u)^H lambda = gradient``."""
        return Linear(f"{self.name}, transposed", self.tangent(u).H, gradient, goals=self.goals)

    def gauge(self, u: Tensor) -> Tensor:
        """``u`` itself."""
        return u

    def default_targets(self) -> dict[str, float]:
        """1e-10 in double precision, 1e-6 in single; those of functions beside."""
        return {"discrete": 1e-10 if self.space.dtype == torch.float64 else 1e-6, **strong.targets(self)}

    def certify(self, answer: Answer | Tensor) -> tuple[Check, ...]:
        """The discrete backward error at ``u``; of a function ``strong``, ``sides`` and ``agreement``."""
        u = unpack(self, answer, self.space.shape)
        with torch.no_grad():
            high = self.to(torch.float64).to(device=u.device)
            value = backward_error(high.residual(u), *_order(high.scale(u), u))
        return strong.judged(self, answer, (Check("discrete backward error", value, self.targets["discrete"]),))


def _order(scale: tuple[Tensor, Tensor], u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return scale[0], u, scale[1]
