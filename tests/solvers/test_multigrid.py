"""Multigrid as a solver of Linear problems and as a preconditioner, through the public verb."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor

from sciml.core import Equation, Law, Linear, Unroll
from sciml.core.matrix import Matrix
from sciml.discretise import Diffusion
from sciml.domains import Dirichlet, Grid, Neumann, Periodic, Robin
from sciml.domains.errors import InputError
from sciml.solvers.conjugate_gradient import ConjugateGradient
from sciml.solvers.direct import Direct
from sciml.solvers.multigrid import Multigrid
from sciml.solving import solve

SIDES = [
    {"x": Dirichlet(0.3), "y": (Neumann(0.5), Dirichlet(-1.0)), "z": Periodic()},
    {"x": (Robin(2.0, 1.0), Neumann(-0.2)), "y": Dirichlet(1.0), "z": (Dirichlet(0.0), Robin(0.5, 0.0))},
]
BOXES = [((60,), (1.3,)), ((40, 25), (2.0, 1.2)), ((9, 14, 11), (1.0, 2.0, 0.7))]


def box(shape, extent, sides, coefficient=True, seed=0) -> Linear:
    grid = Grid(shape, extent, {axis: sides[axis] for axis in "xyz"[: len(shape)]})
    points = grid.points()
    k: Tensor | float = 1 + 0.9 * torch.sin(5 * points[0] + 3 * points[-1]) if coefficient else 2.5
    source = torch.randn((1, 1, *shape), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return Linear("box", Diffusion(grid, k, 0.1), source)


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("coefficient", [True, False], ids=["variable", "constant"])
@pytest.mark.parametrize("sides", SIDES, ids=["periodic", "robin"])
@pytest.mark.parametrize(("shape", "extent"), BOXES, ids=["1", "2", "3"])
def test_it_finds_what_a_factorisation_finds(shape, extent, sides, coefficient):
    """Every dimension and side condition, with boundary data; few steps; the code is the problem's."""
    problem = box(shape, extent, sides, coefficient)
    solution = solve(problem, Multigrid())
    assert solution.ok and solution.stats["steps"] <= 14
    # the target 1e-10 is of the backward error: times the condition number of these grids, below 1e4
    assert apart(solution.value, solve(problem, Direct()).value) < 1e-7
    few = solve(problem, ConjugateGradient(preconditioner=Multigrid()))
    assert few.ok and few.stats["steps"] <= 9


def test_steps_do_not_depend_on_the_number_of_nodes():
    counts = [int(solve(box((n, n + 3), (2.0, 1.2), SIDES[0]), Multigrid()).stats["steps"]) for n in (30, 120, 301)]
    assert max(counts) <= 12 and max(counts) - min(counts) <= 3


def test_cycles_in_single_precision_reach_double():
    problem = box((64, 50), (1.0, 1.0), SIDES[1]).with_target(discrete=1e-15)
    assert solve(problem, Multigrid()).ok
    low = box((64, 50), (1.0, 1.0), SIDES[1]).to(torch.float32)
    assert solve(low, Multigrid()).ok and solve(low, Multigrid()).value.dtype == torch.float32


def test_a_batch_of_media_is_the_stack_of_its_members():
    grid = Grid((33, 40), (1.0, 1.2), {"y": Neumann(0.0)})
    k = torch.exp(torch.randn((5, 1, 33, 40), dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    source = torch.ones(5, 1, 33, 40, dtype=torch.float64) * torch.tensor([1.0, 0.0, 3.0, 1e-8, 1.0]).reshape(
        5, 1, 1, 1
    )
    problem = Linear("media", Diffusion(grid, k), source.double())
    for solver in (Multigrid(), ConjugateGradient(preconditioner=Multigrid())):
        together = solve(problem, solver)
        assert together.ok
        assert float(together.value[1].abs().max()) == 0
        for i in (0, 2, 3, 4):
            # both are certified to 1e-10 backward error, on grids whose condition number is below 1e5
            assert apart(together.value[i : i + 1], solve(problem.member(i), solver).value) < 1e-6


def test_pure_neumann_and_periodic_sides():
    grid = Grid((40, 33), (1.0, 1.2), {"x": Neumann(0.0), "y": Periodic()})
    operator = Diffusion(grid, 1 + grid.points()[0])
    source = torch.randn((1, 1, 40, 33), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    source = source - (source * grid.volumes()).sum() / grid.volumes().sum()
    solution = solve(Linear("free", operator, source), Multigrid())
    assert solution.ok and abs(float(solution.value.mean())) < 1e-12


def test_set_up_once_for_many_right_hand_sides():
    problem = box((40, 25), (2.0, 1.2), SIDES[0])
    prepared = pickle.loads(pickle.dumps(Multigrid().prepare(problem)))
    other = problem.replace(source=torch.ones_like(problem.source))
    assert torch.equal(solve(other, prepared).value, solve(other, Multigrid()).value)
    changed = problem.replace(coefficient=2 * problem.parameters()["coefficient"])
    with pytest.raises(InputError, match="another operator"):
        solve(changed, prepared)


def preconditioned(solver: Multigrid, problem: Linear):
    apply = solver.preconditioner(problem)
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn((2, 1, *problem.space.shape), dtype=torch.float64, generator=generator)
    return apply, a, b


@pytest.mark.parametrize(("shape", "extent"), BOXES, ids=["1", "2", "3"])
def test_one_cycle_is_symmetric_and_positive(shape, extent):
    """To the rounding of the float32 in which it runs: its precision 6e-8 times some twenty additions per node."""
    apply, a, b = preconditioned(Multigrid(), box(shape, extent, SIDES[0]))
    scale = float(a.norm() * apply(b).norm())
    assert abs(float((a * apply(b)).sum() - (b * apply(a)).sum())) < 1e-6 * scale
    assert float((a * apply(a)).sum()) > 0
    assert torch.equal(apply(a), apply(a))
    tilted = torch.linspace(1.0, 1.5, shape[-1], dtype=torch.float64)  # the twin: rows scaled
    assert abs(float((a * tilted * apply(b)).sum() - (b * tilted * apply(a)).sum())) > 1e-6 * scale


def test_derivative_of_the_cycle():
    """The derivative of a symmetric linear map is itself, also the second time."""
    apply, a, b = preconditioned(Multigrid(), box((9, 14, 11), (1.0, 2.0, 0.7), SIDES[0]))
    a.requires_grad_()
    (first,) = torch.autograd.grad((b * apply(a)).sum(), a)
    assert apart(first, apply(b)) == 0
    (squared,) = torch.autograd.grad(apply(a).square().sum(), a, create_graph=True)
    (second,) = torch.autograd.grad((squared * b).sum(), a)
    assert apart(second, 2 * apply(apply(b))) < 1e-6


@pytest.mark.parametrize("way", [None, Unroll()], ids=["implicit", "unrolled"])
def test_gradient_of_the_solution(way):
    """With respect to coefficient and source, against a symmetric difference."""
    problem = box((20, 17), (1.0, 1.2), SIDES[1]).with_target(discrete=1e-13)
    k, source = problem.parameters()["coefficient"].clone(), problem.source.clone()
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(source.shape, dtype=torch.float64, generator=generator)
    away = torch.randn(k.shape, dtype=torch.float64, generator=generator) * 0.1

    def value(step: float) -> Tensor:
        moved = problem.replace(coefficient=k + step * away, source=source * (1 + step))
        return (weight * solve(moved, Multigrid()).value).sum()

    moving = torch.zeros((), dtype=torch.float64, requires_grad=True)
    posed = problem.replace(coefficient=k + moving * away, source=source * (1 + moving))
    (weight * solve(posed, Multigrid(), gradient=way).value).sum().backward()
    expected = float(value(1e-4) - value(-1e-4)) / 2e-4
    assert moving.grad is not None
    assert abs(float(moving.grad) - expected) < 1e-6 * abs(expected)  # difference formula: step^2 = 1e-8, rounding 1e-9


def test_refusals():
    grid = Grid((9, 8), (1.0, 1.0))
    source = torch.ones(1, 1, 9, 8, dtype=torch.float64)
    indefinite = Linear("helmholtz", Diffusion(grid, 1.0, reaction=-30.0), source)
    assert "indefinite" in str(Multigrid().accepts(indefinite))
    matrix = Linear("six", Matrix(torch.eye(6, dtype=torch.float64), positive=True), torch.ones(1, 1, 6).double())
    assert "Diffusion" in str(Multigrid().accepts(matrix))
    law = Equation("plain", law=Law(lambda u, *, space: u), space=grid.space())
    assert "Linear" in str(Multigrid().accepts(law))
    assert Multigrid().accepts(Linear("fine", Diffusion(grid), source)) is None
    with pytest.raises(InputError, match="sweeps is 0"):
        Multigrid(sweeps=0)
    with pytest.raises(InputError, match="max_steps is -1"):
        Multigrid(max_steps=-1)


def test_more_sweeps_take_fewer_steps():
    problem = box((120, 100), (1.0, 1.0), SIDES[0])
    counts = [int(solve(problem, Multigrid(sweeps=s)).stats["steps"]) for s in (1, 2, 4)]
    assert counts[0] > counts[1] > counts[2]
