r"""The p-Laplace equation ``-div((|grad u|^2 + epsilon^2)^((p - 2) / 2) grad u) = source``, ``p > 1``, on the unit box.

It is the torsion of a bar that creeps by a power law, the flow of a power-law fluid through a film, a sand pile for large ``p``.
Its solution minimises ``integral (|grad u|^2 + epsilon^2)^(p/2) / p - source u``. ``epsilon`` (in units of the gradient) keeps the
conductance positive and finite where the gradient vanishes: what is solved is the regularised equation, and its solution tends
to that of ``epsilon = 0`` with ``epsilon``. The law is the gradient of that energy averaged over the corners of the cells (`corner_divergence`).

Without a ``source`` the problem has a closed form: with ``r`` the distance to the point ``centre (1, ..., 1)``, ``source`` the number of axes, and
``s(r)`` the root of ``(s^2 + epsilon^2)^((p - 2) / 2) s = r``,

    u = (s^2 + epsilon^2)^(p/2) / p - s r,        |grad u| = s,

which for ``epsilon = 0`` is ``-(p - 1) / p r^(p / (p - 1))``; the sides have its values, and it is kept as ``exact``. The centre lies
outside of the box, so that the solution is smooth; inside, it has a kink of curvature at the centre where ``p > 2``.

*Fails when* the gradient vanishes and ``epsilon`` is below its change in a cell: less than second order there; and for Newton's
method where ``p`` is large (with zero sides its line search stagnates at 6), which is why `SobolevDescent` is recommended above 4.
References: Barrett and Liu, Math. Comp. 61, 1993, doi 10.1090/S0025-5718-1993-1192966-4; Loisel, Numer. Math. 146, 2020, doi 10.1007/s00211-020-01141-z.
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
from sciml.domains import Dirichlet, GaussianField, Grid, InputError, Space
from sciml.domains.random_fields import member_generator
from sciml.solvers import DirectTransform, Multigrid, Nearby, Newton, SobolevDescent
from sciml.training import Reflection, Transposition


def law(u: Tensor, *, p: Tensor, epsilon: Tensor, source: Tensor, space: Space) -> Tensor:
    """``-div(k grad u) - source`` per volume."""
    return corner_divergence(u, space, lambda s: (s + epsilon**2) ** (p / 2 - 1)) - source


def interior(at: At) -> Tensor:
    """``-k (laplacian u + (p - 2) g.H g / (|g|^2 + epsilon^2)) - source`` with gradient ``g`` and second derivatives ``H``."""
    axes = range(len(at.x))
    slopes = [at.d(a) for a in axes]
    s = sum((slope.square() for slope in slopes), at["epsilon"] ** 2)
    total = torch.zeros_like(at.x[0])
    for a in axes:
        total = total + at.d(a, a)
        for b in axes:
            total = total + (at["p"] - 2) * slopes[a] * slopes[b] * at.d(*sorted((a, b))) / s
    return -(s ** (at["p"] / 2 - 1)) * total - at["source"]


def energy(at: At) -> Tensor:
    """``(|grad u|^2 + epsilon^2)^(p/2) / p - source u``, to be integrated over the box."""
    s = sum((at.d(a).square() for a in range(len(at.x))), at["epsilon"] ** 2)
    return s ** (at["p"] / 2) / at["p"] - at["source"] * at.u


def problem(
    *,
    p: float | Tensor = 3.0,
    epsilon: float = 1e-3,
    dim: int = 2,
    n: int | Sequence[int] = 63,
    source: float | Tensor | None = None,
    sides: float | Callable[..., Tensor] = 0.0,
    centre: float = -0.5,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Equation:
    """The closed form, or the problem with the given ``source`` (a number or a field) and ``sides`` (a number or a function of
    the coordinates). ``p`` may be one number per member. ``seed`` is for ``draw``."""
    grid = _grid(dim, n)
    power = _powers(p, dtype)
    if not epsilon > 0 or not math.isfinite(epsilon):
        raise InputError(f"epsilon is {epsilon}; give a positive number, such as a thousandth of the typical gradient")
    if source is not None:
        data = torch.as_tensor(source, dtype=dtype)
        field = data.reshape(1, 1, *grid.shape) if data.shape == torch.Size(grid.shape) else data
        if field.ndim != grid.dim + 2:
            field = field.reshape(-1, 1, *[1] * grid.dim).expand(-1, 1, *grid.shape).clone()
        function = sides if callable(sides) else None
        if function is None:
            level = float(sides)  # type: ignore[arg-type]
            plain = Grid(grid.shape, sides=Dirichlet(level))
            lift = Lift(lambda *x: torch.full_like(x[0], level), grid.origin, grid.extent)
            even = len(set(grid.shape)) == 1
            return _posed(plain, power, epsilon, field, lift, (Reflection(), Transposition()) if even else (), None)
        return _posed(on_sides(grid, function, dtype), power, epsilon, field, Lift(function, grid.origin, grid.extent))
    if power.ndim and len(set(power.tolist())) > 1:
        raise InputError("the closed form has one p; give a source, or build the problems one by one")
    value = float(power.detach().reshape(-1)[0])

    def radial(*x: Tensor) -> Tensor:
        return closed_form(x, value, epsilon, centre)

    field = torch.full((1, 1, *grid.shape), float(grid.dim), dtype=dtype)
    exact = radial(*grid.points())[None, None].to(dtype)
    lift = Lift(radial, grid.origin, grid.extent)
    return _posed(on_sides(grid, radial, dtype), power, epsilon, field, lift, (), exact)


def draw(
    count: int,
    *,
    seed: int = 0,
    p: float | None = None,
    epsilon: float = 1e-3,
    dim: int = 2,
    n: int | Sequence[int] = 63,
    dtype: torch.dtype = torch.float64,
) -> Equation:
    """``count`` sources ``1 + half a Gaussian field`` with zero sides and ``p`` uniform between 1.5 and 4 (or the one given).

    Member ``i`` depends on ``seed`` and ``i`` alone, and is the same function on every grid.
    """
    if count < 1:
        raise InputError(f"count is {count}; draw at least one member")
    grid, field, sources, powers = _grid(dim, n), GaussianField(deviation=0.5), [], []
    for i in range(count):
        sources.append(1 + field.sample(grid, 1, member_generator(seed, i, "source"), dtype))
        u = float(torch.rand((), dtype=torch.float64, generator=member_generator(seed, i, "p")))
        powers.append(1.5 + 2.5 * u if p is None else float(p))
    return problem(
        p=torch.tensor(powers, dtype=dtype), epsilon=epsilon, n=grid.shape, source=torch.cat(sources), dtype=dtype
    )


def solver(problem: Any) -> Newton | SobolevDescent:
    """Newton's method from the guess, multigrid for the Laplacian preconditioning the inner solves; descent in H1 for ``p`` above 4."""
    if bool((problem.parameters()["p"] > 4).any()):
        return SobolevDescent()
    grid, kind, device = problem.space.domain, problem.space.dtype, problem.space.device
    zero = torch.zeros((1, *problem.space.shape), dtype=kind, device=device)
    nearby = Linear("conduction", Diffusion(grid.homogeneous(), 1.0, dtype=kind, device=device), zero)
    return Newton(preconditioner=Nearby(Multigrid(), nearby))


def closed_form(x: Sequence[Tensor], p: float, epsilon: float, centre: float) -> Tensor:
    """The radial solution at points, differentiable twice by autograd."""
    r = sum(((q - centre).square() for q in x), torch.zeros_like(x[0])).clamp_min(1e-300).sqrt()
    with torch.no_grad():  # the root lies between these bounds; bisection, then Newton's steps carry the derivatives
        low = torch.zeros_like(r) if p >= 2 else r ** (1 / (p - 1))
        high = r ** (1 / (p - 1)) if p >= 2 else (r * 2 ** (1 - p / 2)).clamp_min(epsilon ** (p - 1)) ** (1 / (p - 1))
        for _ in range(100):
            middle = (low + high) / 2
            below = (middle.square() + epsilon**2) ** (p / 2 - 1) * middle < r
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        s = (low + high) / 2
    for _ in range(2):
        square = s.square() + epsilon**2
        slope = square ** (p / 2 - 2) * (square + (p - 2) * s.square())
        s = s - (square ** (p / 2 - 1) * s - r) / slope
    return (s.square() + epsilon**2) ** (p / 2) / p - s * r


def _posed(
    grid: Grid,
    p: Tensor,
    epsilon: float,
    source: Tensor,
    lift: Lift,
    symmetries: tuple[Any, ...] = (),
    exact: Tensor | None = None,
) -> Equation:
    kind = source.dtype
    # Laplace's equation with the same data, scaled to the size that the power law gives: where Newton's method starts.
    with torch.no_grad():
        linear = Linear("guess", Diffusion(grid, 1.0, dtype=kind), source.detach())
        guess = DirectTransform().run(linear, None, Context()).value
    last = p.detach().reshape(-1)
    return Equation(
        f"p-laplace, p {float(last[0]):g}" if len(last) == 1 else f"p-laplace, p up to {float(last.max()):.3g}",
        Law(law, p=p, epsilon=torch.tensor(epsilon, dtype=kind), source=source),
        grid.space(1, kind),
        guess=guess,
        symmetric=True,
        exact=exact,
        continuous=Continuous(interior, SideLaw.of(grid), energy, lift=lift),
        symmetries=symmetries,
    )


def _grid(dim: int, n: int | Sequence[int]) -> Grid:
    return Grid((int(n),) * dim if isinstance(n, int) else tuple(int(m) for m in n))


def _powers(p: float | Tensor, dtype: torch.dtype) -> Tensor:
    power = torch.as_tensor(p, dtype=dtype)
    if power.ndim > 1 or not bool(((power > 1) & torch.isfinite(power)).all()):
        raise InputError(f"p is {p}; give a number above one, or one per member")
    return power
