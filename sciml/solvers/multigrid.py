r"""Geometric multigrid for diffusion on uniform grids: a solver, and a preconditioner for conjugate gradients.

One cycle ``e = M r`` goes down a sequence of coarser grids and back: smooth, restrict the residual, correct, smooth. It
costs a few products with the operator and leaves about a tenth of the error whatever the number of nodes, the spacings
and the side conditions. As a solver it repeats, with the step that lowers the energy most,

    e = M r,   alpha = (e, r) / (e, A e),   u += alpha e,   r -= alpha A e,

which never increases the energy of the error. The cycle runs in float32 also where the problem is in float64: the
residual is what decides the accuracy. Any number of nodes per axis, any spacing, any coefficient given at the nodes,
one per member of the batch; :mod:`sciml.solvers._levels` describes the coarse grids.

*Fails when* the coefficient jumps by many orders from one node to the next, or conducts much better along one axis (thin
layers): the steps then grow; ``ConjugateGradient(preconditioner=Multigrid())`` takes fewer. References:
A. Brandt, Math. Comp. 31 (1977), doi:10.1090/S0025-5718-1977-0431719-X; U. Trottenberg, C. Oosterlee, A. Schueller,
Multigrid, Academic Press (2001); O. Tatebe, The multigrid preconditioned conjugate gradient method, NASA CP 3224
(1993).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.problem import Linear, Problem, project_out
from sciml.core.solution import Answer, Code
from sciml.core.solver import Iterative
from sciml.domains.errors import InputError
from sciml.solvers._levels import Axis, Hierarchy, build

__all__ = ["Multigrid"]


@dataclass(frozen=True, eq=False)
class Setup:
    """The grids, and what measures the residual."""

    cycle: Callable[[Tensor], Tensor]
    size: Tensor
    null: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class State:
    """Iterate, residual, right-hand side, and per member the curvature along the last correction."""

    u: Tensor
    r: Tensor
    rhs: Tensor
    curvature: Tensor


@dataclass(frozen=True)
class Multigrid(Iterative):
    """V-cycles until half the problem's target. ``sweeps`` smoothing steps before and after (None: two or three)."""

    max_steps: int = 50
    sweeps: int | None = None
    citations: ClassVar[tuple[str, ...]] = ("@article{brandt1977, doi={10.1090/S0025-5718-1977-0431719-X}}",)

    def __post_init__(self) -> None:
        if self.max_steps < 0:
            raise InputError(f"max_steps is {self.max_steps}; it must not be negative")
        if self.sweeps is not None and self.sweeps < 1:
            raise InputError(f"sweeps is {self.sweeps}; multigrid needs at least one smoothing step")

    def accepts(self, problem: Problem) -> str | None:
        """Linear problems whose operator is a Diffusion without negative reaction."""
        if not isinstance(problem, Linear):
            return "multigrid solves Linear problems"
        kind = type(problem.operator)
        if not all(hasattr(kind, name) for name in ("faces", "mass")) or not hasattr(problem.operator, "grid"):
            return f"geometric multigrid needs a Diffusion operator on a grid, not {kind.__name__}"
        if problem.operator.definite is not True:
            return "the reaction is negative somewhere, so the operator may be indefinite"
        return None

    def hierarchy(self, problem: Problem) -> Hierarchy:
        """The coarse grids of the problem's operator, set up for cycles in float32."""
        operator: Any = problem.operator if isinstance(problem, Linear) else problem
        axes = [Axis(*axis) for axis in operator.grid.axes()]
        with torch.no_grad():
            return build(axes, operator.faces, operator.mass, sweeps=self.sweeps, dtype=torch.float32)

    def preconditioner(self, problem: Problem) -> Callable[[Tensor], Tensor]:
        """One cycle ``r -> M r`` on ``(batch, 1, *space)``: linear, symmetric, positive (semi-)definite.

        Differentiable with respect to ``r``; the dependence of ``M`` on the coefficient is left out.
        """
        return _Preconditioner(self.hierarchy(problem))

    def setup(self, problem: Problem) -> Setup:
        """The coarse grids and the size of the operator."""
        operator = problem.operator if isinstance(problem, Linear) else None
        if operator is None:
            raise InputError(f"{problem.name!r}: multigrid solves Linear problems")
        return Setup(self.preconditioner(problem), operator.size_bound(), operator.null_space())

    def init(self, problem: Linear, setup: Setup, start: Tensor | None) -> State:  # type: ignore[override]
        """Start from ``start`` or zero."""
        b = project_out(problem.rhs, setup.null).expand(problem.batch, *problem.space.shape)
        u = torch.zeros_like(b) if start is None else start.clone()
        r = b if start is None else b - problem.operator(u)
        return State(u, r, b, torch.ones(problem.batch, dtype=b.dtype, device=b.device))

    def step(self, problem: Linear, setup: Setup, state: State) -> State:  # type: ignore[override]
        """One cycle and the best step along its correction."""
        e = setup.cycle(state.r)
        image = problem.operator(e)
        descent, curvature = _dot(e, state.r), _dot(e, image)
        length = torch.where(curvature > 0, descent / curvature, torch.zeros_like(descent))
        alpha = length.reshape(-1, *[1] * (e.ndim - 1))
        r = torch.addcmul(state.r, alpha, image, value=-1)
        curvature = torch.where(descent == 0, torch.ones_like(curvature), curvature)
        return State(torch.addcmul(state.u, alpha, e), r, state.rhs, curvature)

    def measure(self, problem: Problem, setup: Setup, state: State) -> Tensor:
        """The normwise backward error with the recursive residual."""
        top = _norm(state.r)
        return torch.where(top == 0, torch.zeros_like(top), top / (setup.size * _norm(state.u) + _norm(state.rhs)))

    def done(self, problem: Problem, setup: Setup, state: State) -> Tensor:
        """CONVERGED at half the target; BREAKDOWN when the operator is not positive along a correction."""
        reached = self.measure(problem, setup, state) <= 0.5 * problem.targets["discrete"]
        codes = torch.where(reached, int(Code.CONVERGED), int(Code.RUNNING))
        return torch.where((state.curvature <= 0) & ~reached, int(Code.BREAKDOWN), codes)

    def answer(self, problem: Problem, setup: Setup, state: State) -> Answer:
        """The iterate."""
        return Answer(state.u, torch.zeros(state.u.shape[0], dtype=torch.int64, device=state.u.device))


@dataclass(frozen=True, eq=False)
class _Preconditioner:
    """One cycle for fields with any leading axes, with a derivative only where one is asked for."""

    grids: Hierarchy

    def __call__(self, r: Tensor) -> Tensor:
        flat = r.reshape(-1, *r.shape[-len(self.grids.axes) :])
        if not (torch.is_grad_enabled() and r.requires_grad):
            return self.grids.cycle(flat).reshape(r.shape)
        e: Tensor = _Cycle.apply(flat, self.grids)  # type: ignore[no-untyped-call]
        return e.reshape(r.shape)


class _Cycle(torch.autograd.Function):
    """The cycle as a symmetric linear map: its own derivative, to any order."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, grids: Hierarchy) -> Tensor:
        ctx.grids = grids
        return grids.cycle(r)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        e: Tensor = _Cycle.apply(upstream[0], ctx.grids)  # type: ignore[no-untyped-call]
        return e, None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return product


def _norm(a: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(a.flatten(1), dim=1)
    return size.to(torch.float64)


def example() -> tuple[Multigrid, Any]:
    """Cycles for a layered box with three kinds of sides and spacings."""
    from sciml.discretise import Diffusion
    from sciml.domains import Dirichlet, Grid, Neumann, Periodic

    grid = Grid(
        (9, 14, 11), (1.0, 2.0, 0.7), {"x": Dirichlet(1.0), "y": (Neumann(0.5), Dirichlet(0.0)), "z": Periodic()}
    )
    x, y, _ = grid.points()
    return Multigrid(), Linear("small layered box", Diffusion(grid, 1.0 + 9.0 * (y > 1.0).double()), torch.sin(3 * x))
