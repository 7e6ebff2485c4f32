"""Order and magnitude of the error of elliptic problems, with every side condition, in one to three dimensions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core import Linear
from sciml.discretise import Diffusion
from sciml.domains import Condition, Dirichlet, Grid, Neumann, Periodic, Robin
from sciml.solvers import ConjugateGradient, Direct

D, N, R, P = Dirichlet(), Neumann(), Robin(1.5), Periodic()
PAIRS = [*itertools.product((D, N, R), repeat=2), (P, P)]
EXTENT = (1.0, 2.0, 0.7)
Pair = tuple[Condition, Condition]


def shape(cells: tuple[int, ...], pairs: tuple[Pair, ...]) -> tuple[int, ...]:
    """Unknowns per axis for so many cells, so that cells halve under refinement."""

    def one(count: int, pair: Pair) -> int:
        return count if pair[0] is P else count - 1 + sum(c is not D for c in pair)

    return tuple(one(count, pair) for count, pair in zip(cells, pairs, strict=True))


def name(pairs: tuple[Pair, ...]) -> str:
    return "-".join("".join(type(c).__name__[0] for c in pair) for pair in pairs)


def error(problem: Any, solver: Any = None) -> float:
    """Relative L2 error of a solve that is tight enough not to show."""
    value = sciml.solve(problem.with_target(discrete=1e-13), solver or Direct()).value
    return float(problem.space.norm(value - problem.exact) / problem.space.norm(problem.exact))


def order(build: Callable[[int], Any], solver: Any = None) -> float:
    """Observed order over one halving of the cells."""
    coarse, fine = (error(build(factor), solver) for factor in (1, 2))
    return math.log2(coarse / fine)


def poisson(pairs: tuple[Pair, ...], cells: tuple[int, ...], factor: int) -> Any:
    dim = len(pairs)
    sizes = shape(tuple(factor * c for c in cells), pairs)
    return sciml.problem("poisson", n=sizes, extent=EXTENT[:dim], sides=dict(zip("xyz", pairs, strict=False)))


# One row per axis: every pair meets every other in 2-D; in 3-D each pair stands once on each axis.
LINES = [(pair,) for pair in PAIRS]
SQUARES = list(itertools.product(PAIRS, repeat=2))
BOXES = [(PAIRS[i], PAIRS[(3 * i + 4) % 10], PAIRS[(7 * i + 9) % 10]) for i in range(10)]


@pytest.mark.parametrize("pairs", [*LINES, *SQUARES], ids=name)
def test_second_order_with_every_mix_of_sides(pairs: tuple[Pair, ...]) -> None:
    """Second order to a tenth: what is left of the next term of the error, at 24 cells and more."""
    cells = (24,) if len(pairs) == 1 else (24, 36)
    assert abs(order(lambda factor: poisson(pairs, cells, factor)) - 2) < 0.1


@pytest.mark.parametrize("pairs", BOXES, ids=name)
def test_second_order_in_boxes(pairs: tuple[Pair, ...]) -> None:
    assert abs(order(lambda factor: poisson(pairs, (12, 18, 14), factor), sciml.solvers.Multigrid()) - 2) < 0.1


def polynomial(x: tuple[Tensor, ...]) -> Tensor:
    """Of degree two, with mixed terms."""
    u = 0.7 + sum((0.3 + axis) * p - 0.8 * p * p for axis, p in enumerate(x))
    return u + math.prod(x[1:], start=x[0]) if len(x) > 1 else u


def stated(
    pairs: tuple[Pair, ...],
    sizes: tuple[int, ...],
    u: Callable[..., Tensor],
    k: Callable[..., Tensor],
    rate: float = 1.0,
) -> Linear:
    """`-div(k grad u) = f` with side values from `u`; `rate` scales the Robin value, to break it."""
    dim = len(pairs)
    bare = Grid(sizes, EXTENT[:dim], dict(zip("xyz", pairs, strict=False)))

    def slope(value: Tensor, p: Tensor) -> Tensor:
        return torch.autograd.grad(value.sum(), p, create_graph=True)[0]

    x = tuple(p.requires_grad_() for p in bare.points())
    value, medium = u(x), k(x)
    source = torch.zeros_like(value)
    for p in x:
        source = source - slope(medium * slope(value, p) + 0 * p, p)
    sides: dict[str, Any] = {}
    for axis, pair in enumerate(pairs):
        row: list[Condition] = []
        for condition, word, sign in zip(pair, ("lower", "upper"), (-1.0, 1.0), strict=True):
            if condition is P:
                row.append(P)
                continue
            at = tuple(p.requires_grad_() for p in bare.side_points(f"{'xyz'[axis]}_{word}"))
            on = u(at)
            flux = (sign * k(at) * slope(on, at[axis])).detach()
            kinds = {D: Dirichlet(on.detach()), N: Neumann(flux), R: Robin(1.5, rate * (flux + 1.5 * on.detach()))}
            row.append(kinds[condition])
        sides["xyz"[axis]] = tuple(row)
    grid = Grid(sizes, EXTENT[:dim], sides)
    operator, field = Diffusion(grid, medium.detach()), source.detach()[None, None]
    exact = value.detach()[None, None]
    if operator.null_space():
        field = field - operator.load(field).sum() / grid.volumes().sum()
        exact = exact - exact.mean()
    return Linear("stated", operator, field, exact=exact)


@pytest.mark.parametrize(
    "pairs",
    [p for p in [*LINES, *SQUARES[::7], *BOXES] if (P, P) not in p],
    ids=name,
)
def test_polynomials_of_degree_two_are_exact(pairs: tuple[Pair, ...]) -> None:
    """Second differences, half cells and side values are exact for them: any wrong factor shows. Rounding: 1e-16 times
    the condition of some hundred unknowns."""
    one = stated(pairs, (9, 14, 11)[: len(pairs)], polynomial, lambda x: torch.ones_like(x[0]))
    assert error(one) < 1e-12


def test_a_wrong_side_value_is_seen() -> None:
    pairs = ((D, R), (N, R))
    assert error(stated(pairs, (9, 14), polynomial, lambda x: torch.ones_like(x[0]), rate=1.01)) > 1e-4
    broken = [
        error(stated(pairs, shape((c, c), pairs), polynomial, lambda x: torch.ones_like(x[0]), 1.01)) for c in (12, 24)
    ]
    assert math.log2(broken[0] / broken[1]) < 0.5  # and it does not go away with the grid


WAVES = {
    "DD": (math.pi, 0.0),
    "NN": (math.pi, 0.5),
    "ND": (math.pi / 2, 0.5),
    "DN": (math.pi / 2, 0.0),
    "PP": (2 * math.pi, 0.2),
}
KINDS = {"D": D, "N": N, "P": P}


@pytest.mark.parametrize("words", [w for dim in (1, 2, 3) for w in itertools.product(WAVES, repeat=dim)], ids="-".join)
def test_the_error_is_what_theory_says(words: tuple[str, ...]) -> None:
    """On a product of waves the discrete solution is the exact one times `sum k^2 / sum 4 / h^2 sin^2(k h / 2)`."""
    pairs = tuple((KINDS[a], KINDS[b]) for a, b in words)
    dim = len(words)
    grid = Grid((9, 14, 11)[:dim], EXTENT[:dim], dict(zip("xyz", pairs, strict=False)))
    u, square, seen = torch.ones(grid.shape, dtype=torch.float64), 0.0, 0.0
    for word, p, length, axis in zip(words, grid.points(), grid.extent, grid.axes(), strict=True):
        wave, phase = WAVES[word][0] / length, WAVES[word][1] * math.pi
        u = u * torch.sin(wave * p + phase)
        square += wave**2
        seen += 4 / axis.spacing**2 * math.sin(wave * axis.spacing / 2) ** 2
    problem = Linear("wave", Diffusion(grid), (square * u)[None, None]).with_target(discrete=1e-13)
    value = sciml.solve(problem, ConjugateGradient()).value
    torch.testing.assert_close(value[0, 0], u * (square / seen), rtol=0, atol=1e-10)


def wavy(x: tuple[Tensor, ...]) -> Tensor:
    """Smooth, between 0.5 and 2."""
    return torch.exp(0.6 * torch.sin(2 * x[0] + sum(x[1:], start=torch.zeros_like(x[0]))))


def bump(x: tuple[Tensor, ...]) -> Tensor:
    return math.prod([1.5 + torch.cos(2.1 * p + 0.4 * axis) for axis, p in enumerate(x)], start=torch.ones_like(x[0]))


@pytest.mark.parametrize("pairs", [p for p in [*LINES, *SQUARES[::9]] if (P, P) not in p], ids=name)
def test_second_order_with_a_smooth_coefficient(pairs: tuple[Pair, ...]) -> None:
    def build(factor: int) -> Linear:
        return stated(pairs, shape((24 * factor, 36 * factor)[: len(pairs)], pairs), bump, wavy)

    assert abs(order(build) - 2) < 0.1


@pytest.mark.parametrize(("dim", "n"), [(1, (31, 63)), (2, (31, 63)), (3, (23, 47))])
def test_manufactured_darcy(dim: int, n: tuple[int, int]) -> None:
    def build(factor: int) -> Any:
        return sciml.problem("darcy", dim=dim, n=n[factor - 1], medium="smooth")

    assert abs(order(build, ConjugateGradient(sciml.solvers.Multigrid())) - 2) < 0.1


def test_a_layered_medium_is_exact() -> None:
    """The harmonic mean carries the flux through a jump between nodes: the piecewise linear solution, to rounding."""
    grid = Grid((19,), (1.0,), {"x": (Dirichlet(0.0), Dirichlet(1.0))})
    (x,) = grid.points()
    jump, left, right = 0.475, 12.0, 3.0
    flux = 1 / (jump / left + (1 - jump) / right)
    exact = torch.where(x < jump, flux * x / left, 1 - flux * (1 - x) / right)
    layered = Linear(
        "layers", Diffusion(grid, torch.where(x < jump, left, right).double()), torch.zeros(1, 1, 19).double()
    )
    torch.testing.assert_close(sciml.solve(layered, Direct()).value[0, 0], exact, rtol=0, atol=1e-13)
    arithmetic = torch.where(x < jump, left, right).double()
    arithmetic[8] = 7.5  # a twin whose node beside the jump takes the arithmetic mean
    blurred = Linear("blurred", Diffusion(grid, arithmetic), torch.zeros(1, 1, 19).double())
    assert float((sciml.solve(blurred, Direct()).value[0, 0] - exact).abs().max()) > 1e-3
