r"""Sine and cosine transforms for ``-k laplacian(u) + c u = f`` on a box with constant ``k``, ``c``: a direct method.

With ``T`` the transform that makes the second differences diagonal (eigenvalues ``lambda``) and ``V`` the dual cells,

    u = T^-1 ( T(b / V) / (k lambda + c) ),      b the integrated right-hand side, boundary data included.

Exact up to rounding; ``O(n log n)`` in the number of unknowns. A pure Neumann or periodic problem without reaction is
solved in the complement of the constants. Fastest where ``n + 1`` (Dirichlet), ``n - 1`` (Neumann) or ``n`` (mixed,
periodic) has small prime factors. *Fails when* a coefficient varies or a side is Robin (refused in a sentence), or when
a negative ``c`` meets an eigenvalue (BREAKDOWN).
References: Hockney, J. ACM 12, 1965, doi 10.1145/321250.321259; Swarztrauber, SIAM Review 19, 1977, 10.1137/1019071.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from sciml.core.problem import Linear, Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Context, Solver
from sciml.domains.boundary import Robin

if TYPE_CHECKING:
    from sciml.discretise.finite_difference import Diffusion

__all__ = ["DirectTransform"]


@dataclass(frozen=True)
class DirectTransform(Solver):
    """The transform method for constant coefficients; all members at once."""

    citations: ClassVar[tuple[str, ...]] = ("@article{hockney1965, doi={10.1145/321250.321259}}",)

    def accepts(self, problem: Problem) -> str | None:
        """Linear problems whose operator is a Diffusion with one coefficient and reaction per member, no Robin side."""
        from sciml.discretise.finite_difference import Diffusion

        if not isinstance(problem, Linear) or not isinstance(problem.operator, Diffusion):
            return "transforms solve Linear problems whose operator is a Diffusion"
        for name in ("coefficient", "reaction"):
            value = getattr(problem.operator, name)
            if isinstance(value, Tensor) and value.ndim and value.numel() != value.shape[0]:
                return f"the {name} is a field, and transforms need one number per member"
        for name, pair in zip("xyz", problem.operator.grid.conditions, strict=False):
            if any(isinstance(condition, Robin) for condition in pair):
                return f"axis {name} has a Robin side, which no fast transform makes diagonal"
        return None

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """Transform, divide, transform back."""
        from sciml.discretise.spectral import Transform

        problem = cast(Linear, problem)
        operator = cast("Diffusion", problem.operator)
        transform = Transform(operator.grid)
        coefficients, broken = _divide(transform.forward(_density(problem)), operator)
        value = transform.inverse(coefficients, overwrite=True).expand(problem.batch, *problem.space.shape)
        broken = broken.expand(problem.batch)
        codes = torch.where(broken, int(Code.BREAKDOWN), int(Code.CONVERGED))
        sentence = "the negative reaction meets an eigenvalue: the operator is singular" if bool(broken.any()) else ""
        return Answer(value, codes, steps=1, sentence=sentence)


def _density(problem: Linear) -> Tensor:
    """The right-hand side per volume; the source itself where all side values are zero."""
    operator = cast("Diffusion", problem.operator)
    values = [getattr(condition, "value", 0.0) for pair in operator.grid.conditions for condition in pair]
    plain = all(not isinstance(value, Tensor) and value == 0 for value in values)
    return problem.source if plain else operator.source_of(problem.rhs)


SLAB = 1 << 15


def _divide(v: Tensor, operator: Diffusion) -> tuple[Tensor, Tensor]:
    """``v / (k lambda + c)``, without the constant mode of a singular operator; and which operators are singular.

    Without a gradient it works in slabs that stay in the cache: to form the symbol would cost as much as a transform.
    """
    from sciml.discretise.spectral import axis_eigenvalues

    k, c, dim = operator.coefficient, operator.reaction, operator.grid.dim
    lines = axis_eigenvalues(operator.grid, operator.dtype, operator.device)
    batch = operator.batch
    if v.shape[0] < batch:
        v = v.expand(batch, *v.shape[1:]).clone()
    largest: Any = sum(float(line.amax()) for line in lines)
    top = largest * k + abs(c)
    floor = 4 * torch.finfo(operator.dtype).eps * top
    singular = bool(operator.null_space())
    tracked = torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in (v, k, c))
    others = torch.zeros_like(lines[0][:1])
    for line in lines[1:]:
        others = others + line
    rows = v.shape[-dim] if tracked else max(1, SLAB // max(1, v[0, 0].numel() // v.shape[-dim]))
    broken = torch.zeros(batch, dtype=torch.bool, device=v.device)
    pieces = []
    for begin in range(0, v.shape[-dim], rows):
        part = v.narrow(-dim, begin, min(rows, v.shape[-dim] - begin))
        symbol = (lines[0].narrow(0, begin, part.shape[-dim]) + others)[None, None] * k + c
        if singular and begin == 0:
            first = torch.zeros(symbol.shape[2:], dtype=torch.bool, device=v.device)
            first[(0,) * dim] = True
            symbol = torch.where(first, torch.full_like(symbol, float("inf")), symbol)
        if operator.definite is not True:
            broken = broken | (symbol.abs() <= floor).flatten(1).any(1)
        if tracked:
            pieces.append(part / symbol)
        else:
            part.div_(symbol)
    return (torch.cat(pieces, -dim) if tracked else v), broken


def example() -> tuple[DirectTransform, Any]:
    """Every kind of side it takes, on an uneven box."""
    from sciml.discretise import Diffusion
    from sciml.domains import Dirichlet, Grid, Neumann, Periodic

    grid = Grid(
        (9, 14, 11), (1.0, 2.0, 0.7), {"x": Dirichlet(1.0), "y": (Neumann(0.5), Dirichlet(0.0)), "z": Periodic()}
    )
    x, y, _ = grid.points()
    return DirectTransform(), Linear("small box", Diffusion(grid, 2.0, reaction=3.0), torch.sin(3 * x) + y)
