r"""Restarted GMRES for square linear systems that need not be symmetric.

A cycle builds an orthonormal basis ``Q`` of the Krylov space of ``A M`` from the residual (Arnoldi, modified Gram-Schmidt
done twice) and adds ``M Q y`` with ``y`` minimising ``|r - A M Q y|``. A step of this solver is one cycle. Real or
complex. *Fails when* the spectrum surrounds the origin and ``restart`` is too small: the residual then stagnates; a
preconditioner or a longer cycle helps.
Reference: Saad and Schultz, SIAM J. Sci. Stat. Comput. 7, 1986, doi 10.1137/0907058.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator
from sciml.core.problem import Linear, Problem, project_out
from sciml.core.solution import Answer, Code
from sciml.core.solver import Iterative
from sciml.domains.errors import InputError
from sciml.solvers.conjugate_gradient import Preconditioner

__all__ = ["GMRES", "cycle"]

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Setup:
    """What GMRES keeps of an operator."""

    apply: Map | None
    size: Tensor
    null: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class State:
    """Iterate, true residual, right-hand side."""

    u: Tensor
    r: Tensor
    rhs: Tensor


@dataclass(frozen=True)
class GMRES(Iterative):
    """GMRES with cycles of ``restart`` steps and an optional right ``preconditioner``; memory ``restart`` fields."""

    preconditioner: Preconditioner | None = None
    restart: int = 40
    max_steps: int = 200
    patience: ClassVar[int] = 10
    citations: ClassVar[tuple[str, ...]] = ("@article{saad1986, doi={10.1137/0907058}}",)

    def __post_init__(self) -> None:
        if self.max_steps < 0 or self.restart < 1:
            raise InputError(f"GMRES(restart={self.restart}, max_steps={self.max_steps}): restart must be positive")

    def accepts(self, problem: Problem) -> str | None:
        """Linear problems."""
        if not isinstance(problem, Linear):
            return "GMRES solves Linear problems"
        return None if self.preconditioner is None else self.preconditioner.accepts(problem)

    def setup(self, problem: Problem) -> Setup:
        """The preconditioner's set-up and the size of the operator."""
        problem = cast(Linear, problem)
        apply = None if self.preconditioner is None else self.preconditioner.preconditioner(problem)
        return Setup(apply, problem.operator.size_bound(), problem.operator.null_space())

    def init(self, problem: Problem, setup: Setup, start: Tensor | None) -> State:
        """Start from ``start`` or zero."""
        problem = cast(Linear, problem)
        rhs = problem.rhs.expand(problem.batch, *problem.space.shape)
        u = torch.zeros_like(rhs) if start is None else start.clone()
        return State(u, rhs.clone() if start is None else rhs - problem.operator(u), rhs)

    def step(self, problem: Problem, setup: Setup, state: State) -> State:
        """One cycle, then the true residual."""
        operator = cast(Linear, problem).operator
        change, _, _ = cycle(operator, state.r, min(self.restart, problem.space.size), setup.apply)
        u = project_out(state.u + change, setup.null)
        return State(u, state.rhs - operator(u), state.rhs)

    def measure(self, problem: Problem, setup: Setup, state: State) -> Tensor:
        """The backward error."""
        top = _norm(state.r)
        return torch.where(top == 0, torch.zeros_like(top), top / (setup.size * _norm(state.u) + _norm(state.rhs)))

    def done(self, problem: Problem, setup: Setup, state: State) -> Tensor:
        """CONVERGED at half the target."""
        reached = self.measure(problem, setup, state) <= 0.5 * problem.targets["discrete"]
        return torch.where(reached, int(Code.CONVERGED), int(Code.RUNNING))

    def answer(self, problem: Problem, setup: Setup, state: State) -> Answer:
        """The iterate."""
        return Answer(state.u, torch.zeros(state.u.shape[0], dtype=torch.int64, device=state.u.device))


def settled(flags: Tensor) -> bool:
    """Whether all flags are set; tensors on the ``meta`` device hold no values and count as set."""
    return flags.device.type == "meta" or bool(flags.all())


def cycle(
    operator: LinearOperator | Map, r: Tensor, length: int, apply: Map | None = None, goal: Tensor | None = None
) -> tuple[Tensor, Tensor, int]:
    """The correction that minimises ``|r - A d|`` over a Krylov space, the norm that is left, and the steps taken.

    Stops early once the residual of every member is at most ``goal`` (norms, ``(batch,)``).
    """
    batch, kind = r.shape[0], r.dtype
    start = torch.linalg.vector_norm(r.flatten(1), dim=1)
    basis = [_divided(r.flatten(1), start)]
    columns: list[Tensor] = []
    target = torch.zeros((batch, length + 1), dtype=kind, device=r.device)
    target[:, 0] = start
    every = 4 if r.device.type == "cpu" else 8
    weights, left = target[:, :0], start
    for j in range(length):
        direction = basis[j].reshape(r.shape)
        image = operator(direction if apply is None else apply(direction)).flatten(1)
        span = torch.stack(basis, 1)
        size = torch.linalg.vector_norm(image, dim=1)
        column = torch.zeros((batch, length + 1), dtype=kind, device=r.device)
        for _ in range(2):
            part = torch.einsum("bkn,bn->bk", span.conj(), image)
            image = image - torch.einsum("bk,bkn->bn", part, span)
            column = column + torch.nn.functional.pad(part, (0, length + 1 - part.shape[1]))
        norm = torch.linalg.vector_norm(image, dim=1)
        # An exhausted Krylov space leaves rounding noise: it is no new direction.
        norm = torch.where(norm > 64 * torch.finfo(kind).eps * size, norm, torch.zeros_like(norm))
        column = column + torch.nn.functional.one_hot(torch.tensor(j + 1, device=r.device), length + 1) * norm[:, None]
        columns.append(column)
        basis.append(_divided(image, norm))
        if goal is not None and ((j + 1) % every == 0) or j + 1 == length:
            hessenberg = torch.stack(columns, 2)
            weights = (torch.linalg.pinv(hessenberg) @ target[:, :, None]).squeeze(2)
            left = torch.linalg.vector_norm(target - (hessenberg @ weights[:, :, None]).squeeze(2), dim=1)
            if goal is not None and settled(left <= goal):
                break
    change = torch.einsum("bk,bkn->bn", weights, torch.stack(basis[: weights.shape[1]], 1)).reshape(r.shape)
    return (change if apply is None else apply(change)), left, weights.shape[1]


def _divided(vector: Tensor, norm: Tensor) -> Tensor:
    safe = torch.where(norm > 0, norm, torch.ones_like(norm))[:, None]
    return torch.where(norm[:, None] > 0, vector / safe, torch.zeros_like(vector))


def _norm(a: Tensor) -> Tensor:
    result: Tensor = torch.linalg.vector_norm(a.flatten(1), dim=1)
    return result.to(torch.float64)


def example() -> tuple[GMRES, Any]:
    """A small system that is not symmetric."""
    from sciml.core.matrix import Matrix

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    system = Matrix(torch.eye(12, dtype=torch.float64) * 4 + 0.5 * noise)
    return GMRES(), Linear("twelve equations", system, torch.ones(1, 1, 12, dtype=torch.float64))
