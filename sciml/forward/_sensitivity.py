"""Derivatives of a state with respect to a parameter: by the linearised and the transposed equation, or through time steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.core.gradients import Implicit
from sciml.core.linear import LinearOperator
from sciml.core.problem import Linear, project_out
from sciml.core.tree import leaves
from sciml.domains.errors import InputError
from sciml.domains.space import Space

if TYPE_CHECKING:
    from sciml.forward.parameter_to_state import ParameterToState

Map = Callable[[Tensor], Tensor]


class Recorded:
    """A function recorded by automatic differentiation at one point: ``pull`` is ``F'^H w``, ``push`` is ``F' v``.

    ``push`` differentiates ``w -> F'^H w``, which is linear, once more.
    """

    def __init__(self, function: Map, at: Tensor, sentence: str) -> None:
        with torch.enable_grad():
            self.at = at.detach().clone().requires_grad_()
            self.value = function(self.at)
        if not self.value.requires_grad:
            raise InputError(sentence)
        self.twice: tuple[Tensor, Tensor] | None = None

    def pull(self, w: Tensor) -> Tensor:
        """The transposed derivative."""
        result: Tensor = torch.autograd.grad(self.value, self.at, w.contiguous(), retain_graph=True)[0]
        return result

    def push(self, v: Tensor) -> Tensor:
        """The derivative."""
        if self.twice is None:
            with torch.enable_grad():
                w = torch.zeros_like(self.value, requires_grad=True)
                self.twice = w, torch.autograd.grad(self.value, self.at, w, create_graph=True)[0]
        w, pulled = self.twice
        result: Tensor | None = torch.autograd.grad(pulled, w, v.contiguous(), retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(self.value) if result is None else result


def each(function: Map, u: Tensor, ndim: int, members: int) -> Tensor:
    """``function`` of fields with a batch, applied to any leading axes: folded into the batch for one member, else in turn."""
    lead = u.shape[:-ndim]
    if len(lead) == 1:
        return function(u)
    if not lead:
        return function(u.unsqueeze(0))[0]
    if members == 1:
        image = function(u.reshape(-1, *u.shape[-ndim:]))
        return image.reshape(*lead, *image.shape[1:])
    return torch.stack([each(function, one, ndim, members) for one in u])


class _Product(torch.autograd.Function):
    """A product with a sensitivity that can be differentiated in its argument, any number of times."""

    @staticmethod
    def forward(ctx: Any, operator: Sensitivity, turned: bool, v: Tensor) -> Tensor:
        ctx.operator, ctx.turned, ctx.shape = operator, turned, v.shape
        return operator.product(v.detach(), turned)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
        result: Tensor = _Product.apply(ctx.operator, not ctx.turned, upstream[0])  # type: ignore[no-untyped-call]
        return None, None, result.sum_to_size(ctx.shape)


@dataclass(frozen=True, eq=False)
class Sensitivity(LinearOperator):
    """The derivative of ``forward`` at the parameter ``at`` ``(batch, *space)`` with the state ``state`` that belongs to it.

    What depends on the point alone (the linear operator, its preconditioner or factors, the recorded law) is made at the
    first product and kept.
    """

    forward: ParameterToState
    at: Tensor
    state: Tensor

    @property
    def space(self) -> Space:
        """The parameter's."""
        return self.forward.space

    @property
    def codomain(self) -> Space:
        """The observations'."""
        return self.forward.codomain

    @property
    def batch(self) -> int:
        """Number of members."""
        return self.at.shape[0]

    def __call__(self, u: Tensor) -> Tensor:
        return self._applied(u, False)

    def adjoint(self, v: Tensor) -> Tensor:
        """The transposed derivative."""
        return self._applied(v, True)

    def _applied(self, v: Tensor, turned: bool) -> Tensor:
        ndim = len((self.codomain if turned else self.space).shape)
        result: Tensor = _Product.apply(self, turned, v) if v.ndim > ndim else _Product.apply(self, turned, v[None])[0]  # type: ignore[no-untyped-call]
        return result

    def product(self, v: Tensor, turned: bool) -> Tensor:
        """One product, without a derivative."""
        ndim = len((self.codomain if turned else self.space).shape)
        with torch.no_grad():
            parts = self._parts()
            return each(parts.back if turned else parts.ahead, v, ndim, self.batch)

    def _parts(self) -> Steady | Transient:
        stamp = tuple(leaf.tensor._version for leaf in leaves(self) if not leaf.tensor.is_inference())
        held = self.__dict__.get("_held")
        if held is None or held[0] != stamp:
            steady = hasattr(self.forward.problem, "residual")
            held = stamp, (Steady if steady else Transient)(self)
            self.__dict__["_held"] = held
        parts: Steady | Transient = held[1]
        return parts

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_held"}


class Steady:
    """``J = -O R_u^-1 R_x + O_x`` for ``R(x, u) = 0`` observed by ``O``, and its transpose; every solve is certified."""

    def __init__(self, of: Sensitivity) -> None:
        forward, self.batch = of.forward, of.batch
        self.forward, self.posed = forward, forward.posed(of.at.detach())
        self.law = Recorded(
            lambda x: forward.posed(x).residual(of.state.detach()),
            of.at,
            f"{forward.problem.name!r} does not depend on {forward.name!r}",
        )
        self.known: Recorded | None = None
        offset = forward.offset(self.posed)
        if offset is not None:
            with torch.enable_grad():
                x = of.at.detach().clone().requires_grad_()
                moved = forward.offset(forward.posed(x))
            if moved is not None and moved.requires_grad:
                shape = (of.batch, *moved.shape[1:])
                self.known = Recorded(lambda x: forward.known(x).expand(shape), of.at, "")
        operator: LinearOperator = self.posed.tangent(of.state.detach())
        self.operator = operator.homogeneous()
        self.turned = self.operator if self.operator.symmetric else operator.H
        way = getattr(forward.solver, "gradient", None)
        back = (way.solver if isinstance(way, Implicit) else None) or forward.solver.transposed()
        zero = torch.zeros_like(of.state)
        self.solver = _prepared(forward.solver, self._linear("linearised", self.operator, zero))
        same = back is forward.solver and self.turned is self.operator
        self.back_solver = (
            self.solver
            if same
            else _prepared(back, self._linear("transposed", self.turned, torch.zeros_like(of.state)))
        )

    def _linear(self, word: str, operator: LinearOperator, right: Tensor) -> Linear:
        right = project_out(right, operator.null_space() if operator.symmetric else operator.H.null_space())
        return Linear(f"{self.posed.name}, {word}", operator, operator.source_of(right), goals=self.posed.goals)

    def ahead(self, v: Tensor) -> Tensor:
        """``J v`` by the linearised equation."""
        right = _members(self.law.push, v, self.batch)
        du = self.forward.solved(self._linear("linearised", self.operator, -right), self.solver)
        image = self.forward.seen(du)
        return image if self.known is None else image + _members(self.known.push, v, self.batch)

    def back(self, w: Tensor) -> Tensor:
        """``J^H w`` by the transposed equation."""
        pulled = self.forward.unseen(w)
        multiplier = self.forward.solved(self._linear("transposed", self.turned, pulled), self.back_solver)
        image = _members(self.law.pull, -multiplier, self.batch)
        return image if self.known is None else image + _members(self.known.pull, w, self.batch)


class Transient:
    """The derivative through the time steps, recorded once; ``J v`` is the derivative of ``w -> J^H w``."""

    def __init__(self, of: Sensitivity) -> None:
        forward, self.batch = of.forward, of.batch
        self.march = Recorded(
            forward, of.at, f"the solution of {forward.problem.name!r} does not depend on {forward.name!r}"
        )

    def ahead(self, v: Tensor) -> Tensor:
        """``J v``, the transposed product differentiated once more."""
        return _members(self.march.push, v, self.batch)

    def back(self, w: Tensor) -> Tensor:
        """``J^H w``, backwards through the steps."""
        return _members(self.march.pull, w, self.batch)


def _members(function: Map, v: Tensor, batch: int) -> Tensor:
    """A product recorded for ``batch`` members, of as many fields, or of any number where there is one member."""
    if v.shape[0] == batch:
        return function(v)
    if batch == 1:
        return torch.cat([function(one.unsqueeze(0)) for one in v])
    return function(v.expand(batch, *v.shape[1:]))


def _prepared(solver: Any, problem: Linear) -> Any:
    """The solver with its set-up for this operator kept, where it can be."""
    prepare = getattr(solver, "prepare", None)
    return solver if prepare is None or solver.accepts(problem) is not None else prepare(problem)
