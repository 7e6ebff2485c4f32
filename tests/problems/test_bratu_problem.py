"""The catalogue's Bratu problem against its closed form, its fold, and a published value."""

from __future__ import annotations

import math

import pytest
import torch

import sciml
from sciml.domains import InputError
from sciml.solvers import Newton


@pytest.mark.parametrize("lam", [0.0, 1.0, 3.0, 3.51])
def test_closed_form_in_one_dimension(lam: float) -> None:
    """Second order, and below 4e-5 at n = 127."""
    errors = []
    for n in (31, 63, 127):
        problem = sciml.problem("bratu", dim=1, n=n, lam=lam).with_target(discrete=1e-12)
        errors.append(float((sciml.solve(problem).value - problem.exact).abs().max()))
    if lam == 0.0:
        assert max(errors) == 0
        return
    # Close to the fold (3.5138) the tangent is nearly singular and the grid must be finer for the asymptotic order.
    margin = 0.1 if lam < 3.5 else 0.6
    assert abs(math.log2(errors[1] / errors[2]) - 2) < margin
    assert errors[2] < (4e-5 if lam < 3.5 else 1e-2)


def test_the_closed_form_satisfies_the_equation() -> None:
    """By differences of the tabulated values on a fine grid; with `theta` from the other root it does too, so the smaller
    root is tested by the height: 0.140539 at lam = 1 and below 1.19, the height at the fold."""
    problem = sciml.problem("bratu", dim=1, n=1023, lam=1.0)
    assert float(problem.residual(problem.exact).abs().max()) < 1e-5
    assert abs(float(problem.exact.max()) - 0.1405392) < 1e-6
    top = sciml.problem("bratu", dim=1, n=1023, lam=3.5138).exact
    assert 1.1 < float(top.max()) < 1.1868 + 1e-3
    shifted = problem.exact.roll(1, -1)
    assert float(problem.residual(shifted).abs().max()) > 1e-2


def test_two_dimensions() -> None:
    """At lam = 1 the height converges to 0.078101 with second order (three grids)."""
    heights = [float(sciml.solve(sciml.problem("bratu", n=n)).value.max()) for n in (15, 31, 63)]
    assert abs(math.log2((heights[1] - heights[0]) / (heights[2] - heights[1])) - 2) < 0.1
    limit = heights[2] + (heights[2] - heights[1]) / 3
    assert abs(limit - 0.0781010) < 5e-7


def test_a_batch_of_rates_and_its_recommended_solver() -> None:
    problem = sciml.problem("bratu", n=15, lam=torch.tensor([0.5, 3.0, 6.5], dtype=torch.float64))
    solution = sciml.solve(problem)
    assert solution.ok
    assert isinstance(solution.solver, Newton)
    heights = solution.value.amax((1, 2, 3))
    assert bool((heights.diff() > 0).all())


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_symmetries_and_strong_form(dim: int) -> None:
    problem = sciml.problem("bratu", dim=dim, n=7 if dim == 3 else 31)
    for symmetry in problem.symmetries:
        assert sciml.checks.symmetry(problem, symmetry)

    def product(*x: torch.Tensor) -> torch.Tensor:
        return math.prod([torch.sin(math.pi * p) for p in x], start=torch.ones_like(x[0]))

    if dim < 3:
        assert sciml.checks.consistent(problem, product)
    assert sciml.solve(problem).ok


def test_draws_stay_below_the_fold() -> None:
    batch = sciml.problem("bratu", n=9, batch=6, seed=2)
    rates = batch.parameters()["lam"].flatten()
    assert bool((rates > 0).all()) and float(rates.max()) < 0.9 * 6.808
    assert len(rates.unique()) == 6
    assert sciml.solve(batch).ok


def test_the_derivative_in_the_rate() -> None:
    """Of the 1-D height at lam = 1: that of the closed form, up to the discretisation error."""
    lam = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    sciml.solve(sciml.problem("bratu", dim=1, n=127, lam=lam)).value.max().backward()
    high, low = (float(sciml.problem("bratu", dim=1, n=127, lam=v).exact.max()) for v in (1.001, 0.999))
    assert abs(float(lam.grad) - (high - low) / 0.002) < 2e-5


def test_sentences() -> None:
    with pytest.raises(InputError, match="above 3.51383 Bratu's equation has no solution"):
        sciml.problem("bratu", dim=1, lam=4.0)
    with pytest.raises(InputError, match="not negative"):
        sciml.problem("bratu", lam=-1.0)
