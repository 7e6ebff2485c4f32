"""How good is the grid: the same problem on two grids."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.core.problem import Problem
from sciml.core.recipe import Recipe
from sciml.core.solver import Solver
from sciml.domains.errors import InputError
from sciml.solving.solve import solve

__all__ = ["Refinement", "refine"]


@dataclass(frozen=True, eq=False)
class Refinement:
    """``error``: estimated relative L2 discretisation error of the given (coarser) grid, per member.

    ``true_error`` is the actual one where the problem knows its exact solution.
    """

    error: Tensor
    true_error: Tensor | None
    shapes: tuple[tuple[int, ...], tuple[int, ...]]

    def __str__(self) -> str:
        text = f"estimated discretisation error {float(self.error.max()):.0e} (grids {self.shapes[0]} and {self.shapes[1]})"
        return text if self.true_error is None else f"{text}, true {float(self.true_error.max()):.0e}"

    __repr__ = __str__


def refine(problem: Problem, solver: Solver | None = None, *, order: float = 2.0) -> Refinement:
    """Solve on the problem's grid and on one about twice as fine; Richardson's estimate of the coarser grid's error.

    With ``u_h - u = C h^p`` and ``p = order``, the error of ``u_h`` is ``|u_h - u_(h/2)| / (1 - 2^-p)``. The finer problem is
    built from the recipe with another ``n``, so the problem must come from the catalogue or a file with a setting ``n``.
    Solves are made tight (a hundredth of the target) so that the solver does not show.
    """
    recipe = problem.recipe
    if recipe is None or problem.space.domain is None:
        raise InputError(
            f"{problem.name!r} was built by hand; refine needs a catalogue entry or a problem file with a setting n to build a finer grid"
        )
    if recipe.changes and any(verb == "replace" for verb, _ in recipe.changes):
        raise InputError(
            f"{problem.name!r} had tensors replaced, which belong to one grid; refine the original, or pass the change as a setting"
        )
    domain = problem.space.grid
    finer = _finer(problem)
    grid = finer.space.grid
    values = []
    for one in (problem, finer):
        goals = {
            name: max(1e-2 * target, 1e-14) if one.space.dtype == torch.float64 else target
            for name, target in one.targets.items()
        }
        values.append(solve(one.with_target(**goals), solver, gradient=None).value.detach())
    coarse, fine = values
    seen = _restrict(fine, grid.coordinates(), domain.coordinates())
    size = problem.space.norm(coarse).clamp_min(1e-300)
    estimate = problem.space.norm(coarse - seen) / size / (1 - 2.0**-order)
    exact = getattr(problem, "exact", None)
    truth = None if exact is None else problem.space.norm(coarse - exact) / size
    return Refinement(estimate, truth, (domain.shape, grid.shape))


def _finer(problem: Problem) -> Any:
    """The same recipe with twice the number of intervals along every axis."""
    import importlib

    recipe, domain = problem.recipe, problem.space.grid
    assert recipe is not None
    sizes = [
        round(length / (axis.spacing / 2)) + (axis.n - round(length / axis.spacing))
        for axis, length in zip(domain.axes(), domain.extent, strict=True)
    ]
    n: Any = sizes[0] if len(set(sizes)) == 1 else tuple(sizes)
    settings = {**{key: recipe.argument(value) for key, value in recipe.settings.items()}, "n": n}
    build = importlib.import_module("sciml.catalogue").problem
    finer = build(recipe.source, **settings)
    for verb, packed in recipe.changes:  # replaced tensors belong to one grid; everything else is done again
        finer = Recipe.change(finer, verb, recipe.argument(packed))
    return finer


def _restrict(value: Tensor, fine: tuple[Tensor, ...], coarse: tuple[Tensor, ...]) -> Tensor:
    """Values at the coarse nodes, which are nodes of the fine grid: picked, not interpolated."""
    first = value.ndim - len(fine)
    for axis, (a, b) in enumerate(zip(fine, coarse, strict=True)):
        index = torch.searchsorted(a, b - 0.25 * float(a[1] - a[0]))
        if not math.isclose(
            float((a[index.clamp_max(len(a) - 1)] - b).abs().max()), 0.0, abs_tol=1e-9 * float(a[-1].abs() + 1)
        ):
            raise InputError(
                "the finer grid does not hold the nodes of the coarser one; choose n so that intervals halve"
            )
        value = value.index_select(first + axis, index.to(value.device))
    return value
