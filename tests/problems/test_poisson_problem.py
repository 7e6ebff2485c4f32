"""The catalogue's Poisson problems: what they state, refuse, draw, and which symmetries they declare."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import pytest
import torch

import sciml
from sciml.core.continuous import At
from sciml.domains import Dirichlet, InputError, Neumann, Periodic, Robin
from sciml.solvers import ConjugateGradient, DirectTransform, Multigrid

SIDES: dict[str, Any] = {
    "dirichlet": Dirichlet(0.0),
    "neumann": Neumann(),
    "periodic": Periodic(),
    "robin": Robin(1.5),
    "mixed": {"x": (Dirichlet(), Neumann()), "y": Robin(2.0)},
}


def sine(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.sin(math.pi * x) * torch.sin(math.pi * y)


@pytest.mark.parametrize("sides", SIDES.values(), ids=list(SIDES))
def test_solved_by_what_it_recommends(sides: Any) -> None:
    problem = sciml.problem("poisson", n=(15, 20), extent=(1.0, 2.0), sides=sides)
    solution = sciml.solve(problem)
    assert solution.ok
    assert isinstance(solution.solver, Multigrid)
    away = float(problem.space.norm(solution.value - problem.exact) / problem.space.norm(problem.exact))
    assert away < 0.03  # about the square of the spacing times the squared wave number over twelve
    other = sciml.solve(problem, ConjugateGradient()).value
    torch.testing.assert_close(solution.value, other, rtol=0, atol=1e-6)


def test_pickles_with_side_conditions_in_its_settings() -> None:
    problem = sciml.problem("poisson", n=(7, 9), sides=SIDES["mixed"])
    twin = pickle.loads(pickle.dumps(problem))
    assert twin.space.domain.kinds() == problem.space.domain.kinds()
    torch.testing.assert_close(twin.rhs, problem.rhs, rtol=0, atol=0)


def test_discrete_and_strong_form_agree() -> None:
    """To second order inside; on the sides the strong form vanishes at the exact solution, and at no other."""
    assert sciml.checks.consistent(sciml.problem("poisson", n=31), sine)
    problem = sciml.problem("poisson", n=(9, 12), extent=(1.0, 2.0), sides=SIDES["mixed"])
    grid = problem.space.domain
    stated = problem.parameters()
    for name in ("x_lower", "x_upper", "y_lower", "y_upper"):
        points = tuple(p.requires_grad_() for p in grid.side_points(name))
        value = stated[name].reshape(-1)
        for factor, far in ((1.0, False), (1.01, True)):
            at = At(points, lambda x, y, c=factor: c * manufactured(x, y), {name: lambda *_, v=value: v})
            left = float(problem.continuous.sides(at, name).detach().abs().max())
            assert (left > 1e-3) == far, name
            assert far or left < 1e-12
    with pytest.raises(InputError, match="no side 'z_lower'"):
        problem.continuous.sides(at, "z_lower")


def manufactured(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (1.5 + torch.cos(2.1 * x + 0.4)) * (1.5 + torch.cos(2.1 * y / 2.0 + 0.8))


@pytest.mark.parametrize("sides", ["dirichlet", "neumann", "periodic"])
def test_declared_symmetries(sides: str) -> None:
    problem = sciml.problem("poisson", n=12, sides=SIDES[sides], batch=2)
    assert problem.symmetries
    for symmetry in problem.symmetries:
        assert sciml.checks.symmetry(problem, symmetry)
    uneven = sciml.problem("poisson", n=(12, 13), sides=SIDES["dirichlet"], batch=2)
    assert not uneven.symmetries


def test_a_symmetry_that_does_not_hold_is_caught() -> None:
    """A translation of a Dirichlet problem."""
    problem = sciml.problem("poisson", n=12, batch=2)
    translation = sciml.problem("poisson", n=12, sides=Periodic(), batch=2).symmetries[0]
    assert not sciml.checks.symmetry(problem, translation)


def test_members_do_not_depend_on_their_batch_or_grid() -> None:
    few, many = (sciml.problem("poisson", n=15, batch=count, seed=4) for count in (2, 5))
    torch.testing.assert_close(few.source, many.source[:2], rtol=0, atol=0)
    fine = sciml.problem("poisson", n=31, batch=2, seed=4)
    torch.testing.assert_close(fine.source[..., 1::2, 1::2], few.source, rtol=0, atol=1e-11)


@pytest.mark.parametrize("sides", [Neumann(), Periodic()])
def test_singular_members_are_compatible(sides: Any) -> None:
    problem = sciml.problem("poisson", n=(9, 14), sides=sides, batch=3)
    assert sciml.solve(problem).ok
    assert sciml.solve(problem, DirectTransform()).ok
    exact = sciml.problem("poisson", n=(9, 14), sides=sides).exact
    assert abs(float(exact.sum())) < 1e-12
    with pytest.raises(InputError, match="incompatible"):
        sciml.solve(sciml.problem("poisson", n=9, sides=sides, source=1.0))


def test_a_source_of_your_own() -> None:
    """The torsion of a square bar: the largest stress function is 0.07367 (Timoshenko and Goodier, table 6, halved)."""
    solution = sciml.solve(sciml.problem("poisson", n=63, source=1.0))
    assert abs(float(solution.value.max()) - 0.07367) < 2e-5


@pytest.mark.parametrize(("dim", "sides"), list(itertools.product((1, 2, 3), ("dirichlet", "robin"))))
def test_single_precision(dim: int, sides: str) -> None:
    problem = sciml.problem("poisson", dim=dim, n=9, sides=SIDES[sides], dtype="float32")
    assert problem.space.dtype == torch.float32
    assert sciml.solve(problem).ok


def test_sentences() -> None:
    with pytest.raises(InputError, match="no setting 'size'"):
        sciml.problem("poisson", size=3)
    with pytest.raises(InputError, match="draw at least one"):
        from sciml.catalogue import _load, folder

        _load(folder("problems") / "poisson.py").draw(0)
