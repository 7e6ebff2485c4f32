"""The p-Laplace equation of the catalogue: its closed form, its energy, its sentences; and the corners that it is built on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core import SolveError
from sciml.core.continuous import At
from sciml.discretise import corner_divergence, corner_energy, laplacian, on_sides
from sciml.domains import Dirichlet, Grid, InputError, Neumann, Space
from sciml.solvers import Newton, SobolevDescent


def height(*x: Tensor) -> Tensor:
    """A smooth function without a point where its gradient vanishes."""
    return x[0] + 0.3 * torch.sin(2 * x[0] + sum(x[1:], torch.zeros_like(x[0])))


def middle_divergence(u: Tensor, space: Space) -> Tensor:
    """The broken twin: the energy with one gradient at the middle of each cell of a square grid with zero sides."""

    def total(v: Tensor) -> Tensor:
        w = torch.nn.functional.pad(v, (1, 1, 1, 1))
        dx, dy = w.diff(dim=-2), w.diff(dim=-1)
        dx, dy = (dx[..., 1:] + dx[..., :-1]) / 2, (dy[..., 1:, :] + dy[..., :-1, :]) / 2
        return (dx.square() + dy.square()).sum() / 2

    return torch.func.grad(total)(u) / space.grid.spacing[0] ** 2


def test_the_usual_laplacian_for_unit_conductance() -> None:
    """The axes do not mix there, whatever stands in the corners; a checkerboard is seen, and by the middle of cells it is not."""
    for shape in ((5,), (5, 4), (4, 3, 2)):
        grid = Grid(shape, (1.0, 2.0, 0.7)[: len(shape)], Dirichlet(0.3))
        u = torch.randn(2, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        gap = corner_divergence(u, grid.space(), torch.ones_like) + laplacian(u, grid.space())
        assert float(gap.abs().max()) < 1e-11
    space = Grid((8, 8)).space()
    board = torch.tensor([[(-1.0) ** (i + j) for j in range(8)] for i in range(8)], dtype=torch.float64)[None, None]
    inner = (..., slice(1, -1), slice(1, -1))
    assert float(corner_divergence(board, space, torch.ones_like)[inner].abs().min()) > 100
    assert float(middle_divergence(board, space)[inner].abs().max()) < 1e-11


@pytest.mark.parametrize("shape", [(6,), (5, 4), (3, 4, 2)])
def test_the_law_is_the_gradient_of_the_energy(shape: tuple[int, ...]) -> None:
    grid = on_sides(Grid(shape, (1.0, 2.0, 0.7)[: len(shape)]), height)
    space = grid.space()
    u = torch.randn(1, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def total(v: Tensor) -> Tensor:
        return corner_energy(v, space, lambda s: (1 + s) ** 1.5 / 3).sum()

    slope = torch.func.grad(total)(u) / math.prod(grid.spacing)
    written = corner_divergence(u, space, lambda s: (1 + s).sqrt())
    scale = float(slope.abs().max())
    assert float((slope - written).abs().max()) < 1e-13 * scale
    assert float((slope - corner_divergence(u, space, lambda s: (1 + s) ** 0.51)).abs().max()) > 1e-6 * scale


@pytest.mark.parametrize(("dim", "p"), [(1, 1.5), (1, 3.0), (2, 1.5), (2, 3.0), (2, 4.0)])
def test_the_closed_form_with_second_order(dim: int, p: float) -> None:
    problem = sciml.problem("p_laplace", dim=dim, n=7, p=p)
    assert sciml.checks.order(problem, sizes=(15, 31), margin=0.12)


def test_the_closed_form_solves_the_strong_form() -> None:
    """Inside, with a large regularisation too; the closed form of another power or regularisation does not."""
    for epsilon in (1e-3, 0.7):
        problem = sciml.problem("p_laplace", n=5, p=2.6, epsilon=epsilon)
        known = {
            name: t.reshape(-1)[0] for name, t in problem.parameters().items() if name in ("p", "epsilon", "source")
        }
        points = Grid((4, 3)).points()
        lift = problem.continuous.lift.function
        assert float(problem.continuous.interior(At(points, lift, known)).abs().max()) < 1e-10
        broken = {**known, "p": torch.tensor(2.7, dtype=torch.float64)}
        assert float(problem.continuous.interior(At(points, lift, broken)).abs().max()) > 1e-2


def test_the_law_tends_to_the_strong_form() -> None:
    for settings in ({"n": 15, "p": 1.5}, {"n": 15, "p": 3.0}, {"n": 31, "p": 4.0, "dim": 1}):
        assert sciml.checks.consistent(sciml.problem("p_laplace", **settings), height)


def test_the_lift_meets_the_sides_and_is_not_the_solution() -> None:
    problem = sciml.problem("p_laplace", n=9, dim=2)
    lift = problem.continuous.lift
    for side in ("x_lower", "x_upper", "y_lower", "y_upper"):
        points = problem.space.grid.side_points(side)
        for value in (0.0, 5.0):
            at = At(points, lambda *x, value=value: torch.full_like(x[0], value))
            assert float((lift(at) - lift.function(*points)).abs().max()) < 1e-14
    inside = problem.space.grid.points()
    zero = lift(At(inside, lambda *x: torch.zeros_like(x[0])))
    assert float((zero - problem.exact[0, 0]).abs().max()) > 1e-4


def test_the_exact_energy_is_the_least() -> None:
    """By the trapezoidal rule over the nodes inside, for zero sides: any bump raises it, and twice the source's term does not."""
    problem = sciml.problem("p_laplace", n=15, p=3.0, source=1.0)
    u = sciml.solve(problem).value

    def energy(v: Tensor, factor: float = 1.0) -> float:
        density = corner_energy(v, problem.space, lambda s: (s + 1e-6) ** 1.5 / 3)
        return float(density) - factor * float((v * problem.space.weights()).sum())

    x, y = problem.space.grid.points()
    bump = torch.sin(math.pi * x) * torch.sin(2 * math.pi * y) + torch.sin(math.pi * x) * torch.sin(math.pi * y)
    assert all(energy(u + t * bump) > energy(u) for t in (-0.1, -1e-3, 1e-3, 0.1))
    assert energy(u + 1e-3 * bump, 2.0) < energy(u, 2.0)


def test_symmetries_hold_with_zero_sides() -> None:
    problem = sciml.problem("p_laplace", n=7, p=2.5, source=1.0)
    assert len(problem.symmetries) == 2
    assert all(sciml.checks.symmetry(problem, one) for one in problem.symmetries)
    uneven = sciml.problem("p_laplace", n=7, p=2.5, source=1.0, sides=height)
    assert not uneven.symmetries
    assert not all(sciml.checks.symmetry(uneven, one) for one in problem.symmetries)


def test_drawn_members_and_their_derivative() -> None:
    batch = sciml.problem("p_laplace", n=7, batch=3, seed=2)
    solution = sciml.solve(batch)
    assert solution.ok
    powers = batch.parameters()["p"].flatten()
    assert len(powers.unique()) == 3 and 1.5 < float(powers.min()) and float(powers.max()) < 4
    alone = sciml.solve(batch.member(2)).value
    assert float((alone - solution.value[2:]).abs().max()) < 1e-9  # targets of 1e-10 times the condition

    def top(p: Tensor | float) -> Tensor:
        return sciml.solve(sciml.problem("p_laplace", n=7, p=p, source=1.0).with_target(discrete=1e-13)).value.max()

    p = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    top(p).backward()
    quotient = (float(top(2.501)) - float(top(2.499))) / 0.002
    assert abs(float(p.grad) / quotient - 1) < 1e-5


def test_a_large_power_is_given_to_descent() -> None:
    """Newton's line search stagnates there, and the sand pile is nearly reached: the height of the pile is at most 1/2."""
    problem = sciml.problem("p_laplace", n=15, p=8.0, source=1.0)
    solution = sciml.solve(problem)
    assert solution.ok and isinstance(solution.solver, SobolevDescent)
    assert 0.3 < float(solution.value.max()) < 0.5
    with pytest.raises(SolveError):
        sciml.solve(problem, Newton(), strict=True)


def test_sentences() -> None:
    for settings, sentence in (
        ({"p": 1.0}, "above one"),
        ({"epsilon": 0.0}, "positive number"),
        ({"p": torch.tensor([2.0, 3.0])}, "one p"),
        ({"source": 1.0, "sides": lambda x, y: torch.log(x - 0.5)}, "not finite"),
    ):
        with pytest.raises(InputError, match=sentence):
            sciml.problem("p_laplace", n=5, **settings)
    with pytest.raises(InputError, match="Dirichlet sides"):
        corner_divergence(
            torch.zeros(1, 1, 5, dtype=torch.float64), Grid((5,), sides=Neumann(0.0)).space(), torch.ones_like
        )
