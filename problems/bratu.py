"""Bratu's equation ``-laplacian u = lam exp(u)``, ``u = 0`` on the sides of the unit box: the lower solution.

It is the steady temperature of a reacting solid, in units of the activation temperature rise (Frank-Kamenetskii); ``lam`` is
the reaction rate over the conduction rate. There are two solutions for ``lam`` below a fold and none above it: the fold
lies at 3.513830719 in one dimension and at about 6.808 in two (unit square). The lower solution grows from zero with
``lam``, and Newton's method from zero finds it. In one dimension it is ``u = -2 log(cosh((x - 1/2) theta / 2) / cosh(theta / 4))``
with ``theta = sqrt(2 lam) cosh(theta / 4)``, kept as ``exact``.

*Fails when* ``lam`` lies above the fold (no solution: the line search stagnates) or just below it (nearly singular tangent).
References: Bratu, Bull. Soc. Math. France 42, 1914, doi 10.24033/bsmf.943; Boyd, Appl. Math. Comput. 143, 2003,
doi 10.1016/S0096-3003(02)00345-4; the fold in two dimensions: Glowinski, Keller and Reinhart, SIAM J. Sci. Stat. Comput. 6,
1985, doi 10.1137/0906055.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sciml.core import Continuous, Equation, Law, Linear
from sciml.core.continuous import At
from sciml.discretise import Diffusion, SideLaw, laplacian
from sciml.domains import Grid, InputError, Space
from sciml.solvers import Multigrid, Nearby, Newton
from sciml.training import Reflection, Transposition

FOLD = {1: 3.513830719, 2: 6.808}


def law(u: Tensor, *, lam: Tensor, space: Space) -> Tensor:
    """``-laplacian u - lam exp(u)`` per volume."""
    return -laplacian(u, space) - lam * u.exp()


def interior(at: At) -> Tensor:
    """``-laplacian u - lam exp(u)``."""
    total = -at["lam"] * at.u.exp()
    for axis in range(len(at.x)):
        total = total - at.d(axis, axis)
    return total


def problem(
    *,
    dim: int = 2,
    n: int | Sequence[int] = 63,
    lam: float | Tensor = 1.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Equation:
    """One member, or as many as ``lam`` has entries. ``seed`` is for ``draw``."""
    shape = (int(n),) * dim if isinstance(n, int) else tuple(int(m) for m in n)
    grid = Grid(shape)
    rate = torch.as_tensor(lam, dtype=dtype)
    if rate.ndim > 1 or not bool((rate >= 0).all()):
        raise InputError(f"lam is {lam}; give a number that is not negative, or one per member")
    highest = float(rate.detach().max())
    if highest > FOLD.get(grid.dim, math.inf):
        raise InputError(
            f"lam is {highest:g}; above {FOLD[grid.dim]:g} Bratu's equation has no solution in {grid.dim}-D"
        )
    return Equation(
        f"bratu, lam {highest:g}" if rate.ndim == 0 else f"bratu, lam up to {highest:g}",
        Law(law, lam=rate),
        grid.space(1, dtype, rate.device),
        symmetric=True,
        exact=_closed_form(grid, rate.detach()) if grid.dim == 1 else None,
        continuous=Continuous(interior, SideLaw.of(grid)),
        symmetries=(Reflection(), Transposition()) if len(set(shape)) == 1 else (),
    )


def draw(
    count: int,
    *,
    seed: int = 0,
    dim: int = 2,
    n: int | Sequence[int] = 63,
    dtype: torch.dtype = torch.float64,
) -> Equation:
    """``count`` values of ``lam``, uniform between zero and nine tenths of the fold (of six in 3-D).

    Member ``i`` depends on ``seed`` and ``i`` alone.
    """
    if count < 1:
        raise InputError(f"count is {count}; draw at least one member")
    top = 0.9 * FOLD.get(dim if isinstance(n, int) else len(n), 6.0)
    values = [top * float(torch.rand((), dtype=torch.float64, generator=_generator(seed, i))) for i in range(count)]
    return problem(dim=dim, n=n, lam=torch.tensor(values, dtype=dtype), dtype=dtype)


def solver(problem: Any) -> Newton:
    """Newton's method from zero; multigrid for the Laplacian in the law preconditions the inner solves."""
    grid, kind, device = problem.space.domain, problem.space.dtype, problem.space.device
    zero = torch.zeros((1, *problem.space.shape), dtype=kind, device=device)
    return Newton(
        preconditioner=Nearby(Multigrid(), Linear("conduction", Diffusion(grid, 1.0, dtype=kind, device=device), zero))
    )


def _closed_form(grid: Grid, lam: Tensor) -> Tensor:
    """The lower solution in one dimension, ``(members, 1, n)``."""
    (x,) = grid.points(torch.float64)
    rows = []
    for value in lam.reshape(-1).tolist():
        # theta = sqrt(2 lam) cosh(theta / 4): the smaller root, which the iteration reaches monotonically from zero.
        theta = 0.0
        for _ in range(10_000):
            new = math.sqrt(2 * value) * math.cosh(theta / 4)
            slope = math.sqrt(2 * value) * math.sinh(theta / 4) / 4
            new = theta + (new - theta) / (1 - slope) if slope < 1 else new
            if abs(new - theta) <= 1e-15 * max(1.0, new):
                break
            theta = new
        u = -2 * torch.log(torch.cosh((x - 0.5) * theta / 2) / math.cosh(theta / 4))
        rows.append(u[None])
    return torch.stack(rows).to(lam.dtype)


def _generator(seed: int, index: int) -> torch.Generator:
    """Independent of the other members: both numbers go through a hash."""
    word = hashlib.sha256(f"{seed} {index}".encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(word, "little") >> 1)
