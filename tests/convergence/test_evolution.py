"""Observed orders in time of the exponential and the collocation integrators, and exactness of the linear part."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core import Evolution
from sciml.core.solver import Context, Solver
from sciml.domains import Dirichlet, Neumann, Periodic
from sciml.solvers import Collocation, ExponentialRungeKutta
from sciml.solvers import exponential as module

STEPS = (16, 32, 64, 128)


def wave() -> Evolution:
    """A resolved nonlinear wave: two modes, no layer thinner than the grid."""
    x = torch.arange(64, dtype=torch.float64) / 64
    start = 0.5 * torch.sin(2 * torch.pi * x) + 0.3 * torch.cos(4 * torch.pi * x)
    problem: Evolution = sciml.problem("burgers", n=64, viscosity=0.02, times=(0.4,), start=start)
    return problem


def run(problem: Evolution, solver: Solver) -> Tensor:
    """The last state, without a certificate."""
    return solver.run(problem, None, Context()).value[:, -1]


def slope(problem: Evolution, solvers: list[Solver], truth: Tensor) -> float:
    """Least-squares slope of log error against log step."""
    errors = [float(problem.space.norm(run(problem, solver) - truth)) for solver in solvers]
    x = torch.tensor([math.log(getattr(solver, "step", 1.0)) for solver in solvers])
    y = torch.tensor(errors).log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def with_steps(kind: Any, **settings: Any) -> list[Solver]:
    return [kind(step=0.4 / n, **settings) for n in STEPS]


def test_exponential_runge_kutta_has_order_four() -> None:
    problem = wave()
    truth = run(problem, Collocation(step=0.4 / 64))
    observed = slope(problem, with_steps(ExponentialRungeKutta), truth)
    assert abs(observed - 4) < 0.2, f"observed order {observed:.2f}"


def test_a_wrong_coefficient_loses_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    right = module.coefficients

    def wrong(symbol: Tensor, step: float) -> Any:
        good = right(symbol, step)
        return good._replace(f2=good.f2 * (1 + 1e-3), f1=good.f1 - 4e-3 * good.f2)

    problem = wave()
    truth = run(problem, Collocation(step=0.4 / 64))
    monkeypatch.setattr(module, "coefficients", wrong)
    observed = slope(problem, with_steps(ExponentialRungeKutta), truth)
    assert abs(observed - 4) > 0.2, f"observed order {observed:.2f} with a wrong coefficient"


def test_collocation_has_order_two_s_minus_one() -> None:
    problem = wave()
    truth = run(problem, Collocation(step=0.4 / 256, stages=5))
    observed = slope(problem, with_steps(Collocation, stages=2), truth)
    assert abs(observed - 3) < 0.2, f"observed order {observed:.2f}"


def test_two_families_agree() -> None:
    """Nothing is shared but the problem: ETDRK4 at a small step (error 1e-12) and collocation."""
    problem = wave().with_target(steps=1e-10)
    gap = problem.space.norm(run(problem, ExponentialRungeKutta(step=2.5e-4)) - run(problem, Collocation(step=5e-3)))
    assert float(gap / problem.space.norm(problem.start)) < 1e-11


@pytest.mark.parametrize(
    "sides",
    [Dirichlet(0.0), Neumann(0.0), Periodic(), {"x": (Neumann(0.0), Dirichlet(0.0)), "y": Periodic()}],
    ids=["dirichlet", "neumann", "periodic", "mixed"],
)
def test_the_linear_part_is_exact(sides: Any) -> None:
    """One step of any length is the matrix exponential of the discrete operator; tolerance: rounding of ``expm``."""
    problem = sciml.problem("heat", dim=2, n=(9, 14), extent=(1.0, 2.0), sides=sides, diffusivity=0.05, times=(0.7,))
    eye = torch.eye(9 * 14, dtype=torch.float64).reshape(126, 1, 9, 14)
    matrix = problem.rate(0.0, eye).reshape(126, 126).T
    expected = torch.linalg.matrix_exp(0.7 * matrix) @ problem.start.reshape(126)
    found = sciml.solve(problem, ExponentialRungeKutta(step=0.5)).value.reshape(126)
    assert float((found - expected).norm() / expected.norm()) < 1e-12


@pytest.mark.parametrize(
    "sides",
    [None, Neumann(0.0), (Neumann(0.0), Dirichlet(0.0)), (Dirichlet(0.0), Neumann(0.0))],
    ids=["dd", "nn", "nd", "dn"],
)
def test_heat_is_second_order_in_space(sides: Any) -> None:
    steps, errors = [], []
    for n in (16, 32, 64):
        given = {"x": sides} if isinstance(sides, tuple) else sides
        problem = sciml.problem("heat", n=n, sides=given, times=(0.5,))
        value = sciml.solve(problem).value
        steps.append(math.log(problem.space.domain.spacing[0]))
        errors.append(
            math.log(float((problem.space.norm(value - problem.exact) / problem.space.norm(problem.exact)).max()))
        )
    observed = (errors[-1] - errors[0]) / (steps[-1] - steps[0])
    assert abs(observed - 2) < 0.1, f"observed order {observed:.3f}"


def test_heat_on_periodic_axes_is_exact() -> None:
    problem = sciml.problem("heat", dim=3, n=(9, 14, 11), extent=(1.0, 2.0, 0.7), sides=Periodic())
    value = sciml.solve(problem).value
    gap = problem.space.norm(value - problem.exact) / problem.space.norm(problem.exact)
    assert float(gap.max()) < 1e-13  # rounding of three transforms


def test_a_front_is_second_order_in_space() -> None:
    """Allen-Cahn's invading front, exact on the line; the same differences against a front too fast show no order."""
    width, steps, errors, wrong = 0.02, [], [], []

    def front(x: Tensor, t: float, speed: float) -> Tensor:
        return (1 - torch.tanh((x - 0.3 - speed * width * t) / (2 * math.sqrt(2) * width))) / 2

    for n in (60, 120, 240):
        made = sciml.problem("allen_cahn", dim=1, n=n, width=width, times=(2.0,))
        (x,) = made.space.domain.points()
        value = sciml.solve(made.replace(start=front(x, 0.0, 0.0)[None, None])).value[0, 0, 0]
        steps.append(math.log(made.space.domain.spacing[0]))
        for found, speed in ((errors, 3 / math.sqrt(2)), (wrong, 2.0)):
            found.append(math.log(float((value - front(x, 2.0, speed)).norm() / value.norm())))
    orders = [(found[-1] - found[0]) / (steps[-1] - steps[0]) for found in (errors, wrong)]
    assert abs(orders[0] - 2) < 0.1 < abs(orders[1] - 2), f"observed orders {orders}"


def test_exponential_runge_kutta_has_order_four_on_a_flow() -> None:
    """Two vortices of unlike size, which transport one another, under the force of the data sets."""
    x, y = (2 * torch.pi * p for p in sciml.Grid((24, 24), (1.0, 1.0), sides=Periodic()).points())
    start = 6 * torch.sin(x) * torch.sin(y) + 3 * torch.cos(2 * x + y)
    problem = sciml.problem("navier_stokes", n=24, viscosity=5e-3, times=(0.4,), start=start).with_target(steps=1e-11)
    truth = run(problem, Collocation(step=0.4 / 64))
    observed = slope(problem, with_steps(ExponentialRungeKutta), truth)
    assert abs(observed - 4) < 0.2, f"observed order {observed:.2f}"


def test_a_smooth_flow_is_spectral_in_space() -> None:
    """A start of few waves: every four points more along an axis gain a digit, until the time steps decide."""
    values = []
    for n in (12, 16, 20, 48):
        x, y = (2 * torch.pi * p for p in sciml.Grid((n, n), (1.0, 1.0), sides=Periodic()).points())
        start = 2 * torch.sin(x) * torch.sin(y) + torch.cos(2 * x + y)
        problem = sciml.problem("navier_stokes", n=n, viscosity=2e-2, times=(0.4,), start=start)
        values.append(
            run(problem.with_target(steps=1e-10), ExponentialRungeKutta(step=0.01))[0, 0, :: n // 4, :: n // 4]
        )
    errors = [float((value - values[-1]).norm() / values[-1].norm()) for value in values[:-1]]
    assert errors[1] < 0.1 * errors[0] and errors[2] < 0.1 * errors[1] and errors[0] < 0.1, errors
