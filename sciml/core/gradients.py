"""How a derivative passes through a solve: an object, never a flag.

* ``Implicit(solver=None)``: from the equation itself. With ``F(u, p) = 0`` and an incoming gradient ``g``, solve
  ``F_u^T lambda = g`` (certified like any other solve, recorded in ``Solution.backward``) and return
  ``-lambda^T F_p``. The backward pass is itself made of differentiable solves, so second derivatives are right too.
* ``Unroll()``: through every step of the solver. ``Checkpoint(every)``: the same, storing every ``every``-th step only.
* ``Detach()``: none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.domains.errors import InputError

if TYPE_CHECKING:
    from sciml.core.solution import Solution
    from sciml.core.solver import Solver

__all__ = ["Checkpoint", "Detach", "Gradient", "Implicit", "Unroll", "implicit_value"]


@dataclass(frozen=True)
class Implicit:
    """By the transposed problem, solved with ``solver`` (None: the solver of the forward problem)."""

    solver: Solver | None = None


@dataclass(frozen=True)
class Unroll:
    """Through every step."""


@dataclass(frozen=True)
class Checkpoint:
    """Through every step, recomputing what is not stored.

    A time integrator stores every ``every``-th state; an iterative solver stores each state and recomputes what happens
    inside a step, whatever ``every`` is.
    """

    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"Checkpoint(every={self.every}): every must be at least 1")


@dataclass(frozen=True)
class Detach:
    """No derivative."""


Gradient = Implicit | Unroll | Checkpoint | Detach


class _ImplicitValue(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        alive: Tensor,
        problem: Any,
        names: tuple[str, ...],
        transposed: Callable[[Any], Solution],
        record: list[Any],
        *parameters: Tensor,
    ) -> Tensor:
        result = value.clone()
        ctx.save_for_backward(result, alive, *parameters)
        ctx.problem, ctx.names, ctx.transposed, ctx.record = problem, names, transposed, record
        return result

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
        value, alive, *parameters = ctx.saved_tensors
        twice = torch.is_grad_enabled()
        needed = ctx.needs_input_grad[6:]
        with torch.enable_grad():
            if not twice:
                value, upstream = value.detach(), tuple(g.detach() for g in upstream)
                parameters = [p.detach() for p in parameters]
            shape = (-1, *[1] * (value.ndim - 1))
            mask = alive.reshape(shape)
            gradient = torch.where(mask, upstream[0], torch.zeros_like(upstream[0]))
            problem = ctx.problem.replace(**dict(zip(ctx.names, parameters, strict=True)))
            adjoint = problem.transposed(torch.where(mask, value, torch.zeros_like(value)), gradient)
            solution = ctx.transposed(adjoint)
            ctx.record.append(solution)
            good = mask & (solution.codes == 1).reshape(shape) if not solution.ok else mask
            multiplier = torch.where(good, solution.value, torch.zeros_like(solution.value))
            # Aliases of the parameters: differentiating with respect to them leaves out the paths through value.
            aliases = [p.view_as(p) if p.requires_grad else p.detach().requires_grad_() for p in parameters]
            again = ctx.problem.replace(**dict(zip(ctx.names, aliases, strict=True)))
            residual = again.residual(torch.where(mask, value, torch.zeros_like(value)))
            wanted = [a for a, n in zip(aliases, needed, strict=True) if n]
            found = iter(torch.autograd.grad(residual, wanted, -multiplier, create_graph=twice, allow_unused=True))
        return (None,) * 6 + tuple(next(found) if n else None for n in needed)


def implicit_value(
    value: Tensor,
    alive: Tensor,
    problem: Any,
    names: tuple[str, ...],
    parameters: tuple[Tensor, ...],
    transposed: Callable[[Any], Solution],
    record: list[Any],
) -> Tensor:
    """``value`` with the derivative of the implicit function theorem attached.

    ``problem`` is the forward problem with detached tensors; ``parameters`` (called ``names`` in it) carry the graph;
    ``transposed`` solves the transposed problem it is given. Members that are not ``alive`` contribute zero.
    """
    result: Tensor = _ImplicitValue.apply(value, alive, problem, names, transposed, record, *parameters)  # type: ignore[no-untyped-call]
    return result
