r"""Preconditioned conjugate gradients for symmetric positive (semi-)definite operators.

With ``r = b - A u``, ``z = M r``, ``p = z + beta p``:

    alpha = (r, z) / (p, A p),   u += alpha p,   r -= alpha A p,   beta = (r, z)_new / (r, z)_old.

The recursive residual is replaced by the true one every 50 steps. A singular consistent system is solved in the complement
of the operator's null space. *Fails when* the operator is indefinite (``p.Ap <= 0``: BREAKDOWN) or not symmetric (refused).
References: Hestenes and Stiefel, J. Res. NBS 49, 1952, doi 10.6028/jres.049.044; van der Vorst and Ye, SIAM J. Sci.
Comput. 22, 2000 (residual replacement).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from sciml.core.problem import Linear, Problem, project_out
from sciml.core.solution import Answer, Code
from sciml.core.solver import Iterative
from sciml.domains.errors import InputError

__all__ = ["ConjugateGradient", "Preconditioner"]


class Preconditioner(Protocol):
    """A solver that can also give one symmetric positive application of an approximate inverse."""

    def accepts(self, problem: Problem) -> str | None:
        """None if it can precondition the problem's operator."""

    def preconditioner(self, problem: Problem) -> Callable[[Tensor], Tensor]:
        """The map ``r -> M r`` on ``(batch, channel, *space)``, linear, symmetric, positive."""


@dataclass(frozen=True, eq=False)
class Setup:
    """What CG keeps of an operator."""

    apply: Callable[[Tensor], Tensor] | None
    size: Tensor
    null: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class State:
    """Iterate, residual, direction, and the scalars per member."""

    u: Tensor
    r: Tensor
    p: Tensor
    rho: Tensor
    curvature: Tensor
    rhs: Tensor
    rhs_norm: Tensor
    step: int


@dataclass(frozen=True)
class ConjugateGradient(Iterative):
    """CG with an optional symmetric ``preconditioner`` (such as ``Multigrid()``); stops at half the problem's target."""

    preconditioner: Preconditioner | None = None
    max_steps: int = 1000
    citations: ClassVar[tuple[str, ...]] = ("@article{hestenes1952, doi={10.6028/jres.049.044}}",)

    def __post_init__(self) -> None:
        if self.max_steps < 0:
            raise InputError(f"max_steps is {self.max_steps}; it must not be negative")

    def accepts(self, problem: Problem) -> str | None:
        """Linear problems with a symmetric operator that is not known to be indefinite."""
        if not isinstance(problem, Linear):
            return "conjugate gradients solve Linear problems"
        if not problem.operator.symmetric:
            return "the operator is not symmetric"
        if problem.operator.definite is False:
            return "the operator is not positive definite"
        if self.preconditioner is None:
            return None
        if isinstance(self.preconditioner, type) or not callable(getattr(self.preconditioner, "preconditioner", None)):
            return f"{self.preconditioner!r} is no preconditioner; pass one such as Multigrid()"
        return self.preconditioner.accepts(problem)

    def setup(self, problem: Problem) -> Setup:
        """The preconditioner's set-up and the size of the operator."""
        assert isinstance(problem, Linear)
        apply = None if self.preconditioner is None else self.preconditioner.preconditioner(problem)
        return Setup(apply, problem.operator.size_bound(), problem.operator.null_space())

    def init(self, problem: Problem, setup: Setup, start: Tensor | None) -> State:
        """Start from ``start`` or zero."""
        assert isinstance(problem, Linear)
        batch = problem.batch
        b = project_out(problem.rhs, setup.null).expand(batch, *problem.space.shape)
        u = torch.zeros_like(b) if start is None else start.clone()
        r = b - problem.operator(u) if start is not None else b.clone()
        rho = torch.zeros(batch, dtype=b.dtype, device=b.device)
        return State(
            u, r, torch.zeros_like(r), rho.real if rho.is_complex() else rho, torch.ones_like(rho.real), b, _norm(b), 0
        )

    def step(self, problem: Problem, setup: Setup, state: State) -> State:
        """One step of the recurrence."""
        assert isinstance(problem, Linear)
        z = state.r if setup.apply is None else setup.apply(state.r)
        if setup.null:
            z = project_out(z, setup.null)
        rho = _dot(state.r, z)
        beta = torch.where(state.rho > 0, rho / state.rho, torch.zeros_like(rho))
        p = torch.addcmul(z, _like(beta, z), state.p) if state.step else z
        image = problem.operator(p)
        curvature = _dot(p, image)
        alpha = _like(torch.where(curvature > 0, rho / curvature, torch.zeros_like(rho)), p)
        u = torch.addcmul(state.u, alpha, p)
        step = state.step + 1
        r = state.rhs - problem.operator(u) if step % 50 == 0 else torch.addcmul(state.r, alpha, image, value=-1)
        return State(
            u, r, p, rho, torch.where(rho > 0, curvature, torch.ones_like(curvature)), state.rhs, state.rhs_norm, step
        )

    def measure(self, problem: Problem, setup: Setup, state: State) -> Tensor:
        """The backward error with the recursive residual."""
        top = _norm(state.r)
        return torch.where(top == 0, torch.zeros_like(top), top / (setup.size * _norm(state.u) + state.rhs_norm))

    def done(self, problem: Problem, setup: Setup, state: State) -> Tensor:
        """CONVERGED at half the target; BREAKDOWN on non-positive curvature."""
        reached = self.measure(problem, setup, state) <= 0.5 * problem.targets["discrete"]
        codes = torch.where(reached, int(Code.CONVERGED), int(Code.RUNNING))
        return torch.where((state.curvature <= 0) & ~reached, int(Code.BREAKDOWN), codes)

    def answer(self, problem: Problem, setup: Setup, state: State) -> Answer:
        """The iterate; on a breakdown, the sentence that says where."""
        bad = state.curvature <= 0
        sentence = ""
        if bool(bad.any()):
            i = int(torch.nonzero(bad)[0])
            word = "indefinite" if float(state.curvature[i]) < 0 else "singular"
            sentence = f"the operator is {word} (p.Ap = {float(state.curvature[i]):.1e} at step {state.step})"
        return Answer(state.u, torch.zeros_like(bad, dtype=torch.int64), sentence=sentence)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a.conj() * b).flatten(1).sum(1).real if a.is_complex() else (a * b).flatten(1).sum(1)


def _norm(a: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(a.flatten(1), dim=1)
    return size.to(torch.float64)


def _like(a: Tensor, field: Tensor) -> Tensor:
    return a.to(field.dtype).reshape(-1, *[1] * (field.ndim - 1))


def example() -> tuple[ConjugateGradient, Any]:
    """CG on a small Poisson problem."""
    from sciml.discretise import Diffusion
    from sciml.domains import Grid

    grid = Grid((9, 14), (1.0, 2.0))
    return ConjugateGradient(), Linear("small poisson", Diffusion(grid), torch.ones(1, 1, 9, 14, dtype=torch.float64))
