"""Darcy flow ``-div(coefficient grad u) = source`` on a box, through a random medium.

``medium`` names the coefficient: ``two_phase`` (12 where a centred Gaussian field is positive, 3 elsewhere: the medium of
Li et al., arXiv 2010.08895, field with covariance (-laplacian + 9)^-2 and zero-flux cosine modes), ``lognormal``
(``exp`` of the same field, scaled so that largest over smallest value is ``contrast`` as seen on 33 points per axis), or ``smooth`` (a fixed smooth
coefficient with a manufactured exact solution, for convergence). Units: lengths in units of the extent, pressure in units
of source times length squared over coefficient.

*Fails when* the medium is not resolved by the grid: a jump that falls between two nodes is only seen to first order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sciml.core import Continuous, Linear
from sciml.core.continuous import At
from sciml.discretise import Diffusion, SideLaw
from sciml.domains import Condition, Dirichlet, GaussianField, Grid, InputError, Neumann
from sciml.solvers import ConjugateGradient, Multigrid
from sciml.training import Reflection, Transposition

Sides = Mapping[str, Any] | Condition


def interior(at: At) -> Tensor:
    """``-div(k grad u) - f``."""
    total = -at["source"]
    for axis in range(len(at.x)):
        total = total - at["coefficient"] * at.d(axis, axis) - at.d(axis, of="coefficient") * at.d(axis)
    return total


def smooth(*x: Tensor) -> Tensor:
    """A smooth coefficient between 0.5 and 2."""
    return torch.exp(
        0.6 * torch.sin(2 * x[0]) * math.prod([torch.cos(1.5 * p) for p in x[1:]], start=torch.ones_like(x[0]))
    )


def problem(
    *,
    dim: int | None = None,
    n: int | Sequence[int] = 127,
    extent: float | Sequence[float] = 1.0,
    medium: str = "two_phase",
    high: float = 12.0,
    low: float = 3.0,
    contrast: float = 1e4,
    power: float = 2.0,
    shift: float = 9.0,
    source: float | Tensor = 1.0,
    sides: Sides = Dirichlet(0.0),  # noqa: B008  (frozen)
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Linear:
    """One member: the first that ``draw`` gives for this seed."""
    return draw(1, **locals())


def draw(
    count: int,
    *,
    seed: int = 0,
    dim: int | None = None,
    n: int | Sequence[int] = 127,
    extent: float | Sequence[float] = 1.0,
    medium: str = "two_phase",
    high: float = 12.0,
    low: float = 3.0,
    contrast: float = 1e4,
    power: float = 2.0,
    shift: float = 9.0,
    source: float | Tensor = 1.0,
    sides: Sides = Dirichlet(0.0),  # noqa: B008  (frozen)
    dtype: torch.dtype = torch.float64,
) -> Linear:
    """``count`` random media; member ``i`` depends on ``seed`` and ``i`` alone, and is the same function on every grid."""
    if count < 1:
        raise InputError(f"count is {count}; draw at least one member")
    shape = (n,) * (dim or 2) if isinstance(n, int) else tuple(n)
    if not all(isinstance(m, int) for m in shape) or (dim is not None and len(shape) != dim):
        raise InputError(f"n is {n}; give an integer, or {dim or 'one to three'} of them")
    grid = Grid(shape, extent, sides)  # type: ignore[arg-type]
    field = GaussianField(power=power, shift=shift)
    exact = None
    if medium == "smooth":
        points = grid.points(torch.float64)
        if not all(kind == ("dirichlet", "dirichlet") for kind in grid.kinds()):
            raise InputError(
                "the smooth medium's exact solution vanishes on all sides; give no sides with medium='smooth'"
            )
        truth, coefficient, source = _manufactured(points, grid.extent)
        exact, coefficient = truth[None, None].to(dtype), coefficient.to(dtype)[None, None].expand(count, 1, *shape)
        source = source.to(dtype)
    elif medium in ("two_phase", "lognormal"):
        draws = [field.sample(grid, 1, _generator(seed, i), torch.float64) for i in range(count)]
        z = torch.cat(draws)
        if medium == "two_phase":
            coefficient = torch.where(z > 0, high, low).to(dtype)
        else:
            seen = Grid((33,) * grid.dim, grid.extent, Neumann(0.0))
            coarse = torch.cat([field.sample(seen, 1, _generator(seed, i), torch.float64) for i in range(count)])
            least, most = coarse.flatten(1).amin(1), coarse.flatten(1).amax(1)
            middle, width = (x.reshape(-1, 1, *[1] * grid.dim) for x in ((least + most) / 2, most - least))
            coefficient = torch.exp((z - middle) / width * math.log(contrast)).to(dtype)
    else:
        raise InputError(f"there is no medium {medium!r}; darcy knows two_phase, lognormal and smooth")
    square = len(set(shape)) == 1 and len(set(grid.extent)) == 1
    square = square and isinstance(sides, Dirichlet) and not isinstance(sides.value, Tensor)
    symmetries = (Reflection(), Transposition())
    return Linear(
        f"darcy, {medium.replace('_', '-')} medium",
        Diffusion(grid, coefficient),
        source if isinstance(source, Tensor) else torch.full((1, 1, *shape), float(source), dtype=dtype),
        exact=exact,
        continuous=Continuous(interior, SideLaw.of(grid, "coefficient")),
        symmetries=symmetries if square else (),
    )


def solver(problem: Any) -> ConjugateGradient:
    """Conjugate gradients with one multigrid cycle as preconditioner."""
    return ConjugateGradient(preconditioner=Multigrid(), max_steps=200)


def _manufactured(points: tuple[Tensor, ...], extent: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """``u = prod sin(pi x / L) * exp(sum x / 2)``, the coefficient, and the source that belongs to them."""
    x = tuple(p.clone().requires_grad_() for p in points)
    u = torch.ones_like(x[0])
    for p, length in zip(x, extent, strict=True):
        u = u * torch.sin(math.pi * p / length) * torch.exp(0.5 * p)
    k = smooth(*x)
    source = torch.zeros_like(points[0])
    for p in x:
        (slope,) = torch.autograd.grad(u.sum(), p, create_graph=True)
        (change,) = torch.autograd.grad((k * slope).sum(), p, create_graph=True)
        source = source - change.detach()
    return u.detach(), k.detach(), source


def _generator(seed: int, index: int) -> torch.Generator:
    """Independent of the other members: both numbers go through a hash."""
    word = hashlib.sha256(f"{seed} {index}".encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(word, "little") >> 1)
