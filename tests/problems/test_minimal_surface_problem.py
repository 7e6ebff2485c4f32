"""Minimal surfaces of the catalogue against Scherk's and an arc, and against surfaces that are not minimal."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core.continuous import At
from sciml.domains import InputError
from sciml.learned._fields import known_tensors

FLAT = {"tension": torch.ones((), dtype=torch.float64), "pressure": torch.zeros((), dtype=torch.float64)}


def test_scherk_with_second_order() -> None:
    """In the largest error, 3.1e-5 at n = 31; against the surface of another steepness there is none."""
    errors, wrong = [], []
    for n in (15, 31):
        problem = sciml.problem("minimal_surface", n=n)
        value = sciml.solve(problem).value
        errors.append(float((value - problem.exact).abs().max()))
        wrong.append(float((value - sciml.problem("minimal_surface", n=n, steepness=2.05).exact).abs().max()))
    assert abs(math.log2(errors[0] / errors[1]) - 2) < 0.1
    assert errors[1] < 4e-5
    assert wrong[1] > 0.5 * wrong[0]


def test_scherk_solves_the_strong_form() -> None:
    problem = sciml.problem("minimal_surface", n=7, steepness=2.5)
    interior, points = problem.continuous.interior, problem.space.grid.points()
    scherk = problem.continuous.lift.function
    assert float(interior(At(points, scherk, FLAT)).abs().max()) < 1e-12
    assert float(interior(At(points, lambda *x: 1.1 * scherk(*x), FLAT)).abs().max()) > 1e-2
    assert float((problem.exact[0, 0] - scherk(*points)).abs().max()) == 0


def test_an_arc_under_pressure() -> None:
    """In one dimension the film is an arc of radius tension over pressure; without the tension it is another."""
    errors = []
    for n in (15, 31):
        problem = sciml.problem("minimal_surface", n=[n], sides=lambda x: 0 * x, pressure=2.4, tension=2.0)
        (x,) = problem.space.grid.points()
        radius = 1 / 1.2
        arc = torch.sqrt(radius**2 - (x - 0.5) ** 2) - math.sqrt(radius**2 - 0.25)
        errors.append(float((sciml.solve(problem).value[0, 0] - arc).abs().max()))
    assert abs(math.log2(errors[0] / errors[1]) - 2) < 0.1
    assert errors[1] < 1e-4
    slack = sciml.solve(problem.replace(tension=1.9)).value
    assert float((slack[0, 0] - arc).abs().max()) > 1e-3


def test_the_catenoid_from_a_user_frame() -> None:
    """``u = arccosh(r)`` about a point outside of the box, on an uneven grid."""

    def neck(x: Tensor, y: Tensor) -> Tensor:
        return torch.acosh(torch.sqrt((x + 1.2) ** 2 + (y + 0.9) ** 2))

    errors = []
    for n in ([7, 9], [15, 19]):
        problem = sciml.problem("minimal_surface", n=n, sides=neck)
        x, y = problem.space.grid.points()
        errors.append(float((sciml.solve(problem).value[0, 0] - neck(x, y)).abs().max()))
    assert 1.8 < math.log2(errors[0] / errors[1]) < 2.2
    assert errors[1] < 1e-4


def test_the_law_tends_to_the_strong_form() -> None:
    def hill(x: Tensor, y: Tensor) -> Tensor:
        return torch.sin(2 * x + 1) * torch.cos(y)

    assert sciml.checks.consistent(sciml.problem("minimal_surface", n=31), hill)


def test_drawn_frames() -> None:
    batch, finer = (sciml.problem("minimal_surface", n=n, batch=3, seed=4) for n in (7, 15))
    solution = sciml.solve(batch)
    assert solution.ok
    coarse, fine = (one.parameters()["x_lower"] for one in (batch, finer))
    torch.testing.assert_close(coarse, fine[..., 1::2], rtol=0, atol=1e-15)  # one frame on every grid
    assert float((coarse[0] - coarse[1]).abs().max()) > 1e-2
    top = torch.stack([batch.parameters()[f"{a}_{b}"].flatten(1).amax(1) for a in "xy" for b in ("lower", "upper")])
    assert bool((solution.value.amax((1, 2, 3)) < top.amax(0) + 1e-2).all())  # maximum principle, but for the corners
    alone = sciml.solve(batch.member(1)).value
    assert float((alone - solution.value[1:2]).abs().max()) < 1e-9


def test_the_lift_of_a_drawn_member_meets_its_frame() -> None:
    problem = sciml.problem("minimal_surface", n=15, batch=2, seed=4).member(1)
    known = known_tensors(problem)
    for side in ("x_lower", "x_upper", "y_lower", "y_upper"):
        points = problem.space.grid.side_points(side)
        value = problem.continuous.lift(At(points, lambda *x: torch.ones_like(x[0]), known))
        gap = value - problem.parameters()[side][0, 0].squeeze()
        assert float(gap.abs().max()) < 1e-12


def test_sentences() -> None:
    for settings, sentence in (
        ({"steepness": 3.2}, "between 0 and pi"),
        ({"pressure": 1.0}, "no pressure"),
        ({"pressure": math.nan}, "pressure is nan"),
        ({"tension": 0.0}, "tension is 0.0"),
        ({"n": [5]}, "two axes"),
        ({"batch": 2, "height": -1.0}, "positive number"),
        ({"batch": 2, "n": [5]}, "over a square"),
    ):
        with pytest.raises(InputError, match=sentence):
            sciml.problem("minimal_surface", **{"n": 5, **settings})
