r"""From a parameter of a differential equation to (observations of) its solution: any problem becomes a forward model.

With ``R(x, u) = 0`` the equation, ``x`` one of its named tensors and ``O`` what is observed, ``F(x) = O u(x)``, and

    F'(x) v   = -O R_u^-1 R_x v          (the linearised equation)
    F'(x)^H w = -R_x^H R_u^-H O^H w      (the transposed equation),

every solve with the given solver and judged by the problem, like any other. What depends on ``x`` alone (preconditioner,
factors) is prepared once for all products at one ``x``. For an Evolution the derivative goes through the time steps of the
solver: the march is recorded at the first product at an ``x`` (which needs the memory of its steps, or those that
``Checkpoint`` keeps), ``F'^H w`` runs backwards through it, ``F' v`` is that product differentiated once more. Automatic
differentiation of the map itself is right as well, to any order that the solver's gradient allows.

*Fails when* the equation has no solution for some parameter (InputError, with the range of the parameter and the solver's
sentence), or the parameter must stay positive and an iteration leaves that range (use ``log=True``). Reference: Plessix,
Geophys. J. Int. 167, 2006, doi 10.1111/j.1365-246X.2006.02978.x.
"""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.core.gradients import Checkpoint, Unroll
from sciml.core.linear import ForwardModel, LinearOperator
from sciml.core.problem import Problem
from sciml.core.solution import SolveError
from sciml.core.solver import Solver
from sciml.core.tree import Leaf, leaves, rebuild
from sciml.domains.boundary import Neumann, Periodic
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.domains.space import Space
from sciml.forward._sensitivity import Sensitivity, each
from sciml.forward.point_values import PointValues
from sciml.solving import solve

__all__ = ["ParameterToState"]


@dataclass(frozen=True, eq=False)
class ParameterToState(ForwardModel):
    """``x -> observe(u)`` where ``u`` solves ``problem`` with its tensor ``name`` replaced by ``x`` (by ``exp(x)`` with ``log=True``).

    ``problem`` is a Linear, Equation or Evolution; the value that its tensor ``name`` has does not matter, only its shape.
    ``x`` is ``(batch, channel, *space)`` for a field; a single number is a field of one entry, ``(batch, 1, 1, ...)``.
    ``observe`` is None (the whole state; ``(batch, time, channel, *space)`` for an Evolution), points ``(m, dim)`` at which the
    state is interpolated, or any LinearOperator on states. ``solver`` solves the problem and its linearisations.

    Raises InputError for a tensor that the problem does not have, a solver that does not accept the problem, an operator on
    other fields, and when a solve is not certified.
    """

    problem: Problem
    name: str
    _: KW_ONLY
    solver: Solver[Any] = field(metadata={"told": True, "shared": True})
    observe: Tensor | LinearOperator | None = None
    log: bool = False

    def __post_init__(self) -> None:
        problem = self.problem
        if not isinstance(problem, Problem) or not (hasattr(problem, "residual") or isinstance(problem, Evolution)):
            raise InputError(
                f"ParameterToState takes a Linear, Equation or Evolution, not {type(problem).__name__}; load one with sciml.problem(...)"
            )
        known = problem.parameters()
        if self.name not in known:
            raise InputError(f"{problem.name!r} has no tensor {self.name!r}; it has {', '.join(known) or 'none'}")
        if not isinstance(self.solver, Solver):
            hint = f"; write {self.solver.__name__}()" if isinstance(self.solver, type) else ""
            raise InputError(f"a solver is an object such as ConjugateGradient(), not {self.solver!r}{hint}")
        reason = self.solver.accepts(problem)
        if reason is not None:
            raise InputError(f"{type(self.solver).__name__} cannot be asked to solve {problem.name!r}: {reason}")
        object.__setattr__(self, "problem", self._template(problem))
        observe = self.observe
        if isinstance(observe, Tensor):
            observe = PointValues(problem.space, observe.to(problem.space.device))
            object.__setattr__(self, "observe", observe)
        if observe is not None and not isinstance(observe, LinearOperator):
            raise InputError(
                f"observe is {type(observe).__name__}; give points (m, dim) as a tensor, a LinearOperator, or None for the whole state"
            )
        if observe is not None and observe.space.shape != problem.space.shape:
            raise InputError(
                f"observe acts on fields of shape {observe.space.shape}, the states of {problem.name!r} have {problem.space.shape}"
            )

    def _template(self, problem: Problem) -> Problem:
        """The problem with one member of the tensor, numbers as fields of one entry, and without a known solution."""
        ones = (1,) * problem.space.dim

        def settle(leaf: Leaf) -> Tensor:
            if leaf.name != self.name or leaf.told:
                return leaf.tensor
            one = leaf.tensor.detach()
            return one.reshape(1, 1, *ones) if one.ndim == 0 else one if one.shape[0] == 1 else one[:1].clone()

        settled = rebuild(problem._without_truth(), settle)
        tensor = settled.parameters()[self.name]
        if tensor.ndim < 2 or not tensor.is_floating_point():
            raise InputError(
                f"{self.name!r} of {problem.name!r} has shape {tuple(tensor.shape)} and is {tensor.dtype}; a parameter to invert for is a real field (batch, channel, ...) or a number"
            )
        return settled

    @property
    def space(self) -> Space:
        """The parameter's own space: on the nodes of the problem's grid, without the side conditions of the state."""
        tensor, where = self.problem.parameters()[self.name], self.problem.space
        domain = where.domain
        if domain is None or tensor.shape[2:] != torch.Size(domain.shape):
            return Space(None, tuple(tensor.shape[1:]), dtype=tensor.dtype, device=tensor.device)
        own = _bare(domain) if isinstance(domain, Grid) else domain
        return Space(own, tuple(tensor.shape[1:]), dtype=tensor.dtype, device=tensor.device)

    @property
    def codomain(self) -> Space:
        """The observations'; with the times as first axis for an Evolution."""
        one = self.problem.space if self.observe is None else self._observer.codomain
        if not isinstance(self.problem, Evolution):
            return one
        return dataclasses.replace(one, shape=(len(self.problem.times), *one.shape), parts=())

    @property
    def _observer(self) -> LinearOperator:
        assert isinstance(self.observe, LinearOperator)
        return self.observe

    @property
    def members(self) -> int:
        """Number of members of the problem itself (1: one for every parameter)."""
        return self.problem.batch

    def validate(self, name: str) -> None:
        """The problem's own conditions."""
        self.problem.validate()

    def posed(self, x: Tensor) -> Any:
        """The problem with the parameter put in; ``x`` has a batch axis."""
        bare: Problem = dataclasses.replace(self.problem, recipe=None, recommend=None)  # type: ignore[type-var]
        return bare.replace(**{self.name: x.exp() if self.log else x})

    def solved(self, problem: Problem, solver: Any, **settings: Any) -> Tensor:
        """The certified value; InputError, naming the range of the parameter, where there is none."""
        try:
            value: Tensor = solve(problem, solver, strict=True, **settings).value
        except SolveError as error:
            used = problem.parameters().get(self.name)
            span = (
                f" with {self.name} between {float(used.min()):.3g} and {float(used.max()):.3g}"
                if used is not None
                else ""
            )
            sentence = str(error).split("\n")[0]
            raise InputError(
                f"{problem.name!r} has no certified solution{span}: {sentence}; keep the parameter in range (log=True, a stronger prior, a closer start), or pass another solver"
            ) from error
        return value

    def seen(self, u: Tensor) -> Tensor:
        """The linear part of what is observed of states."""
        return u if self.observe is None else self._observer(u)

    def unseen(self, w: Tensor) -> Tensor:
        """Its transpose."""
        return w if self.observe is None else self._observer.adjoint(w)

    def offset(self, posed: Any) -> Tensor | None:
        """What known values on Dirichlet sides add to values at points; None for nothing."""
        if not isinstance(self.observe, PointValues):
            return None
        known = self.observe.offset(posed.space.domain)
        return known.unsqueeze(1) if known is not None and isinstance(posed, Evolution) else known

    def known(self, x: Tensor) -> Tensor:
        """The offset at a parameter; zero where there is none."""
        offset = self.offset(self.posed(x))
        return x.new_zeros((1, *self.codomain.shape)) if offset is None else offset

    def __call__(self, u: Tensor) -> Tensor:
        self._check(u)
        return each(self._observed, u, len(self.space.shape), self.members)

    def _check(self, x: Tensor) -> None:
        shape = self.space.shape
        if x.shape[-len(shape) :] != torch.Size(shape):
            raise InputError(
                f"{self.name!r} of {self.problem.name!r} has shape (batch, {', '.join(map(str, shape))}), not {tuple(x.shape)}"
            )

    def _observed(self, x: Tensor) -> Tensor:
        tracked = torch.is_grad_enabled() and (
            x.requires_grad or any(leaf.tensor.requires_grad for leaf in leaves(self) if not leaf.told)
        )
        posed = self.posed(x)
        value = self._state(x, posed) if not tracked else self.solved(posed, self.solver, **self._way())
        image, offset = self.seen(value), self.offset(posed)
        image = image if offset is None else image + offset
        return image.clone() if image is value else image

    def _way(self) -> dict[str, Any]:
        """How derivatives pass: the solver's own way, but through the steps of an Evolution."""
        if not isinstance(self.problem, Evolution) or isinstance(self.solver.gradient, Unroll | Checkpoint):
            return {}
        return {"gradient": Unroll()}

    def _state(self, x: Tensor, posed: Any) -> Tensor:
        """The state at ``x``; the last one is kept, because a linearisation follows an evaluation."""
        stamp = tuple(leaf.tensor._version for leaf in leaves(self) if not leaf.tensor.is_inference())
        held = self.__dict__.get("_held")
        if held is not None and held[0] == stamp and held[1].shape == x.shape and torch.equal(held[1], x):
            kept: Tensor = held[2]
            return kept
        with torch.no_grad():
            state = self.solved(posed, self.solver).detach()
        self.__dict__["_held"] = (stamp, x.detach().clone(), state)
        return state

    def linearise(self, x: Tensor) -> LinearOperator:
        """The derivative at ``x`` ``(batch, *space)``: solves the equation there (or remembers), and no other yet."""
        self._check(x)
        shape = self.space.shape
        if x.ndim > len(shape) + 1:
            raise InputError(f"linearise takes one batch, (batch, {', '.join(map(str, shape))}), not {tuple(x.shape)}")
        x = x.detach().reshape(-1, *shape)
        state = self._state(x, self.posed(x))
        at = x if x.shape[0] == state.shape[0] else x.expand(state.shape[0], *shape)
        return Sensitivity(self, at, state)

    def __getstate__(self) -> dict[str, Any]:
        state = {key: value for key, value in self.__dict__.items() if key != "_held"}
        recipe = self.problem.recipe
        if recipe is not None and recipe.complete:
            # Casts from outside do not reach the recipe of a problem held here.
            made = recipe.build().space
            for change, old, new in (
                ({"dtype": self.problem.space.dtype}, made.dtype, self.problem.space.dtype),
                ({"device": str(self.problem.space.device)}, made.device, self.problem.space.device),
            ):
                recipe = recipe if old == new else recipe.changed("to", change)
            state["problem"] = dataclasses.replace(self.problem, recipe=recipe)  # type: ignore[type-var]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        object.__setattr__(self, "problem", self._template(self.problem))


def _bare(grid: Grid) -> Grid:
    """The same nodes with no condition at the sides: a parameter is not zero where the state is."""
    origin, extent, sides = [], [], []
    for axis, (info, length, points) in enumerate(zip(grid.axes(), grid.extent, grid.coordinates(), strict=True)):
        closed = info.periodic or info.n < 2
        origin.append(grid.origin[axis] if closed else float(points[0]))
        extent.append(length if closed else info.spacing * (info.n - 1))
        free = (Neumann(0.0), Neumann(0.0))
        sides.append(grid.conditions[axis] if info.n < 2 else (Periodic(), Periodic()) if info.periodic else free)
    return Grid(grid.shape, tuple(extent), tuple(sides), tuple(origin))


def example() -> ParameterToState:
    """The logarithm of the coefficient of a small Darcy flow, to the pressure at four points."""
    from sciml.core.problem import Linear
    from sciml.discretise import Diffusion
    from sciml.solvers import Direct

    grid = Grid((5, 4), (1.0, 2.0))
    ones = torch.ones(1, 1, 5, 4, dtype=torch.float64)
    points = torch.tensor([[0.3, 0.5], [0.9, 1.9], [0.5, 1.0], [0.2, 1.4]], dtype=torch.float64)
    flow = Linear("small flow", Diffusion(grid, ones), ones)
    return ParameterToState(flow, "coefficient", solver=Direct(), observe=points, log=True)
