r"""Minimal surfaces ``-tension div(grad u / sqrt(1 + |grad u|^2)) = pressure`` over the unit box, with given heights on the sides.

With ``pressure`` zero it is the soap film through a frame: its mean curvature vanishes and its area, ``integral sqrt(1 + |grad u|^2)``,
is the least. Otherwise ``pressure / tension``, one over a length, is twice the mean curvature (in two dimensions). Heights and lengths
are in units of the box. The law is the gradient of the area averaged over the corners of
the cells (`corner_divergence`).

Without ``sides`` it is Scherk's surface ``u = log(cos(a (x - 1/2)) / cos(a (y - 1/2))) / a``, ``a`` the ``steepness`` below pi, kept as ``exact``;
``a = pi`` would be infinitely steep in the corners.

*Fails when* there is no such surface over the box: ``pressure / tension`` times the area of the box must stay below the length of its rim (below 4 in
the unit square, below 2 on the unit interval). References: Scherk, J. reine angew. Math. 13, 1835, doi 10.1515/crll.1835.13.185; Concus, Math. Comp. 21, 1967,
doi 10.1090/S0025-5718-1967-0229394-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sciml.core import Context, Continuous, Equation, Law, Linear
from sciml.core.continuous import At
from sciml.discretise import Diffusion, Lift, SideLaw, corner_divergence, on_sides
from sciml.domains import Grid, InputError, Space
from sciml.domains.random_fields import member_generator
from sciml.solvers import DirectTransform, Multigrid, Nearby, Newton

WAVES = 4  # of the harmonic polynomials on the rim of drawn members


def law(u: Tensor, *, tension: Tensor, pressure: Tensor, space: Space) -> Tensor:
    """``-tension div(grad u / sqrt(1 + |grad u|^2)) - pressure`` per volume."""
    return corner_divergence(u, space, lambda s: tension * (1 + s).rsqrt()) - pressure


def interior(at: At) -> Tensor:
    """``-tension (laplacian u - g.H g / (1 + |g|^2)) / sqrt(1 + |g|^2) - pressure``, gradient ``g`` and second derivatives ``H``."""
    axes = range(len(at.x))
    slopes = [at.d(a) for a in axes]
    s = sum((slope.square() for slope in slopes), torch.ones_like(at.x[0]))
    total = torch.zeros_like(s)
    for a in axes:
        total = total + at.d(a, a)
        for b in axes:
            total = total - slopes[a] * slopes[b] * at.d(*sorted((a, b))) / s
    return -at["tension"] * total * s.rsqrt() - at["pressure"]


def energy(at: At) -> Tensor:
    """``tension sqrt(1 + |grad u|^2) - pressure u``, to be integrated over the box."""
    s = sum((at.d(a).square() for a in range(len(at.x))), torch.ones_like(at.x[0]))
    return at["tension"] * s.sqrt() - at["pressure"] * at.u


def problem(
    *,
    n: int | Sequence[int] = 63,
    sides: Callable[..., Tensor] | None = None,
    pressure: float | Tensor = 0.0,
    tension: float | Tensor = 1.0,
    steepness: float = 2.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Equation:
    """Scherk's surface, or the one through ``sides``, a function of one tensor of coordinates per axis (one to three axes: as many
    as ``n`` has entries). ``pressure`` and ``tension`` may be one number per member. ``seed`` is for ``draw``."""
    grid = Grid((int(n),) * 2 if isinstance(n, int) else tuple(int(m) for m in n))
    load, pull = torch.as_tensor(pressure, dtype=dtype), torch.as_tensor(tension, dtype=dtype)
    if load.ndim > 1 or not bool(torch.isfinite(load).all()):
        raise InputError(f"pressure is {pressure}; give a number, or one per member")
    if pull.ndim > 1 or not bool(((pull > 0) & torch.isfinite(pull)).all()):
        raise InputError(f"tension is {tension}; give a positive number, or one per member")
    if sides is not None:
        return _posed(
            "minimal surface", on_sides(grid, sides, dtype), pull, load, Lift(sides, grid.origin, grid.extent)
        )
    if not 0 < steepness < math.pi:
        raise InputError(f"steepness is {steepness}; Scherk's surface stands over the box between 0 and pi")
    if grid.dim != 2 or bool((load != 0).any()):
        raise InputError("Scherk's surface has two axes and no pressure; give sides, a function of the coordinates")

    def scherk(x: Tensor, y: Tensor) -> Tensor:
        return torch.log(torch.cos(steepness * (x - 0.5)) / torch.cos(steepness * (y - 0.5))) / steepness

    exact = scherk(*grid.points())[None, None].to(dtype)
    lift = Lift(scherk, grid.origin, grid.extent)
    return _posed("minimal surface, Scherk", on_sides(grid, scherk, dtype), pull, load, lift, exact)


def draw(
    count: int,
    *,
    seed: int = 0,
    n: int | Sequence[int] = 63,
    height: float = 0.5,
    dtype: torch.dtype = torch.float64,
) -> Equation:
    """``count`` frames: random harmonic polynomials of degree four about the middle of the square, ``height`` their size at its corners.

    Member ``i`` depends on ``seed`` and ``i`` alone, and is the same frame on every grid.
    """
    if count < 1:
        raise InputError(f"count is {count}; draw at least one member")
    if not isinstance(n, int) and len(n) != 2:
        raise InputError(f"n is {n}; frames are drawn over a square, so give one number or two")
    if not height > 0 or not math.isfinite(height):
        raise InputError(f"height is {height}; give a positive number")
    grid = Grid((int(n),) * 2 if isinstance(n, int) else tuple(int(m) for m in n))
    rows = [
        torch.randn((2, WAVES), dtype=torch.float64, generator=member_generator(seed, i, "frame")) for i in range(count)
    ]
    weights = height * torch.stack(rows) / math.sqrt(2 * WAVES)

    def frame(x: Tensor, y: Tensor) -> Tensor:
        z = torch.complex(x - 0.5, y - 0.5) * math.sqrt(2)
        powers = torch.stack([z**k for k in range(1, WAVES + 1)])
        both = torch.stack((powers.real, powers.imag))
        return torch.einsum("iak,ak...->i...", weights, both).unsqueeze(1)

    lift = Lift(None, grid.origin, grid.extent)
    pull, load = torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype)
    return _posed("minimal surface, random frame", on_sides(grid, frame, dtype), pull, load, lift)


def solver(problem: Any) -> Newton:
    """Newton's method from the harmonic surface; multigrid for the Laplacian preconditions the inner solves."""
    grid, kind, device = problem.space.domain, problem.space.dtype, problem.space.device
    zero = torch.zeros((1, *problem.space.shape), dtype=kind, device=device)
    nearby = Linear("membrane", Diffusion(grid.homogeneous(), 1.0, dtype=kind, device=device), zero)
    return Newton(preconditioner=Nearby(Multigrid(), nearby))


def _posed(
    name: str, grid: Grid, tension: Tensor, pressure: Tensor, lift: Lift, exact: Tensor | None = None
) -> Equation:
    kind = tension.dtype
    with torch.no_grad():  # the membrane through the same frame: where Newton's method starts
        zero = torch.zeros((1, 1, *grid.shape), dtype=kind)
        guess = DirectTransform().run(Linear("guess", Diffusion(grid, 1.0, dtype=kind), zero), None, Context()).value
    return Equation(
        name,
        Law(law, tension=tension, pressure=pressure),
        grid.space(1, kind),
        guess=guess,
        symmetric=True,
        exact=exact,
        continuous=Continuous(interior, SideLaw.of(grid), energy, lift=lift),
    )
