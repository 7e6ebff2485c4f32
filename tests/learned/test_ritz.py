"""Ritz's method with a network: exact solutions, the rule, the derivatives of the energy, refusals, and twins that break it."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core import SolveError
from sciml.domains import Dirichlet, Grid, InputError
from sciml.learned import GaussLegendre, Ritz
from sciml.learned._ansatz import Box
from sciml.learned.ritz import example
from sciml.networks import MLP


def solved(problem: Any, solver: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return sciml.solve(problem, solver)
        except SolveError as error:
            return error.solution


def small(steps: int = 20, quadrature: Any = None, inputs: int = 2) -> Ritz:
    network = MLP(inputs, width=8, layers=2, seed=1)
    return Ritz(network, quadrature=quadrature or GaussLegendre(140), max_steps=steps)


@dataclasses.dataclass(frozen=True)
class Drawn(GaussLegendre):
    """The broken twin: as many random points of equal weight."""

    def rule(self, box: Box) -> tuple[Tensor, Tensor]:
        points, weights = super().rule(box)
        unit = torch.rand(points.shape, dtype=points.dtype, generator=torch.Generator().manual_seed(0))
        return box.place(unit), torch.full_like(weights, float(weights.mean()))


def test_the_rule_integrates_polynomials() -> None:
    box = Box((0.0, -1.0), (2.0, 0.5), 2)
    points, weights = GaussLegendre(60, 3).rule(box)
    exact = 2.0**6 / 6 * (0.5**5 + 1.0) / 5
    x, y = points.unbind(1)
    assert float((weights * x**5 * y**4).sum()) == pytest.approx(exact, rel=1e-13)
    few, shares = GaussLegendre(1, 2).rule(box)  # exact up to degree 3 only
    assert abs(float((shares * few[:, 0] ** 5 * few[:, 1] ** 4).sum()) / exact - 1) > 1e-2
    assert len(weights) >= 60 and bool((weights > 0).all())
    assert len(GaussLegendre(600).rule(Box((0.0,), (1.0,), 1))[1]) == 600


def test_gradient_and_curvature_of_the_energy() -> None:
    """Against differences; the curvature in the function's values is that of the energy where the network is linear in its
    last layer's weights."""
    solver, problem = example()
    setup = solver.setup(problem)
    theta, integral = setup.posed.first, setup.integral
    gradient, matrix = integral.expansion(theta)
    generator = torch.Generator().manual_seed(0)
    d = torch.randn(len(theta), dtype=torch.float64, generator=generator)
    h = 1e-5
    slope = (integral.value(theta + h * d) - integral.value(theta - h * d)) / (2 * h)
    assert slope == pytest.approx(float(gradient @ d), rel=1e-6)
    last = torch.zeros_like(d)
    last[-9:] = d[-9:]
    h = 1e-3
    bend = (integral.value(theta + h * last) - 2 * integral.value(theta) + integral.value(theta - h * last)) / h**2
    assert bend == pytest.approx(float(last @ matrix @ last), rel=1e-4)
    assert bend != pytest.approx(float(d @ matrix @ d), rel=1e-1)


@pytest.mark.parametrize(
    ("name", "settings", "limit"),
    [
        ("minimal_surface", {"n": 7, "steepness": 1.5}, 1e-3),
        ("p_laplace", {"n": 7, "p": 3.0}, 1e-4),
        ("p_laplace", {"n": [15], "p": 1.5}, 1e-4),
    ],
)
def test_exact_solutions(name: str, settings: dict[str, Any], limit: float) -> None:
    """The network is compared with the continuous solution; at the start it is far from it."""
    problem = sciml.problem(name, **settings)
    errors = []
    for steps in (1, 20):
        value = solved(problem, small(steps, inputs=problem.space.grid.dim)).value
        errors.append(float((value - problem.exact).abs().max() / problem.exact.abs().max()))
    assert errors[1] < limit
    assert errors[0] > 5 * errors[1]


def test_random_points_lose_the_energy() -> None:
    """The network falls below the least energy by fitting the gaps between them."""
    problem = sciml.problem("minimal_surface", n=7, steepness=1.5)
    fine = GaussLegendre(3000)

    def trained(quadrature: Any) -> tuple[float, float]:
        """The energy that training saw, and that of the same function by a fine rule."""
        solver = small(20, quadrature)
        solution = solved(problem, solver)
        theta = solution.field.theta
        whole = dataclasses.replace(solver, quadrature=fine).setup(problem).integral.value(theta)
        return float(solution.stats["energy"]), whole

    seen, whole = trained(GaussLegendre(140))
    assert abs(seen - whole) < 1e-5
    below, above = trained(Drawn(140))
    assert below < whole - 1e-3 and above > whole


def test_certificate_and_field() -> None:
    """Judged by the problem: a target that it misses is not passed; the field is the value at the nodes, the sides hold exactly."""
    solver, problem = example()
    loose, strict = solved(problem, solver), solved(problem.with_target(strong=1e-3), solver)
    assert loose.ok and not strict.ok
    nodes = torch.stack([p.reshape(-1) for p in problem.space.grid.points()], 1)
    assert torch.equal(loose.field(nodes).reshape(loose.value.shape), loose.value)
    rim = torch.stack([p.reshape(-1) for p in problem.space.grid.side_points("x_upper")], 1)
    assert float(loose.field(rim).abs().max()) < 1e-15


def test_a_batch_is_made_of_members() -> None:
    batch = sciml.problem("p_laplace", n=5, batch=2, seed=3)
    together = solved(batch, small(4)).value
    assert torch.equal(solved(batch.member(1), small(4)).value, together[1:])
    assert not torch.equal(together[:1], together[1:])


def test_refusals() -> None:
    for problem, sentence in (
        (sciml.problem("heat", n=7), "stationary"),
        (sciml.problem("bratu", n=7), "states none"),
        (sciml.problem("poisson", n=7), "states none"),
    ):
        with pytest.raises(InputError, match=sentence):
            sciml.solve(problem, Ritz())
    solver, problem = example()
    grid = Grid((7, 8), sides=Dirichlet(torch.zeros(1, dtype=torch.float64)))
    loose = dataclasses.replace(problem, space=grid.space())
    assert "continuous.lift" in str(solver.accepts(loose))
    for network, sentence in (
        (MLP(3, width=4, layers=1, seed=0), "need 2 to 1"),
        (MLP(2, width=4, layers=1, seed=0, activation="relu"), "no continuous"),
    ):
        with pytest.raises(InputError, match=sentence):
            sciml.solve(problem, Ritz(network))
    with pytest.raises(InputError, match="max_steps"):
        Ritz(max_steps=0)
    with pytest.raises(InputError, match="GaussLegendre"):
        GaussLegendre(0)
