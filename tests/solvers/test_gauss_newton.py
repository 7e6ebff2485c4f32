"""GaussNewton: dense oracles, models that are not linear, the noise level, invariances, derivatives, honesty."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from inverse_problems import Absolute, Huber, OnlyDenoises, generator, normal_solution, posed, ridge, scaled
from torch import Tensor

import sciml
from sciml.core import Code, GaussianNoise, Inverse, LinearOperator, Matrix, Unroll
from sciml.domains.errors import InputError
from sciml.solvers import GaussNewton
from sciml.solvers.gauss_newton import Exponential

N = 8


def away(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def logarithm(prior: Any = None, weight: Any = None, sigma: float = 0.05, batch: int = 1) -> Inverse[Any]:
    """Data of ``A exp(x)``."""
    forward = Exponential(Matrix(torch.rand(1, 20, N, generator=generator(0), dtype=torch.float64)))
    truth = torch.linspace(-1.0, 1.0, N, dtype=torch.float64) * torch.arange(1, batch + 1).reshape(-1, 1, 1)
    noise = GaussianNoise(sigma)
    data = noise.sample(forward(truth), generator=generator(1))
    return Inverse("logarithm", forward, data, noise, prior, weight=weight)


def test_a_linear_problem_in_one_step() -> None:
    problem = posed(ridge(), 2.0).with_target(optimality=1e-8)
    solution = sciml.solve(problem, GaussNewton())
    assert solution.stats["steps"] == 1
    assert away(solution.value, normal_solution(problem)) < 1e-8
    assert not bool(problem.with_weight(2.2).certify(solution.value)[0].passed.any())


def test_a_smooth_prior_by_scipy() -> None:
    from scipy.optimize import minimize

    problem = posed(Huber(), 30.0).with_target(optimality=1e-10)
    solution = sciml.solve(problem, GaussNewton())
    a, y = problem.forward.entries[0].numpy() / 0.3, problem.data[0, 0].numpy() / 0.3  # type: ignore[attr-defined]

    def value(x: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        r, root = a @ x - y, np.sqrt(1 + x**2)
        return float(r @ r / 2 + 30.0 * (root - 1).sum()), a.T @ r + 30.0 * x / root

    found = minimize(value, np.zeros(a.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9})
    assert away(solution.value.flatten(), torch.from_numpy(found.x)) < 1e-8


def test_a_model_that_is_not_linear_by_scipy() -> None:
    from scipy.optimize import least_squares

    quadratic = dataclasses.replace(ridge(), matrix=Matrix(torch.eye(N, dtype=torch.float64)))
    problem = logarithm(quadratic, 3.0).with_target(optimality=1e-11)
    solution = sciml.solve(problem, GaussNewton())
    a, y = problem.forward.linear.entries[0].numpy(), problem.data[0, 0].numpy()  # type: ignore[attr-defined]
    found = least_squares(
        lambda x: np.concatenate([(a @ np.exp(x) - y) / 0.05, np.sqrt(3.0) * x]),
        np.zeros(N),
        jac=lambda x: np.concatenate([a * np.exp(x) / 0.05, np.sqrt(3.0) * np.eye(N)]),
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    )
    assert away(solution.value.flatten(), torch.from_numpy(found.x)) < 1e-8
    assert solution.stats["steps"] <= 20


def test_without_a_prior_it_stops_at_the_noise_level() -> None:
    problem = logarithm(batch=2)
    solution = sciml.solve(problem, GaussNewton())
    assert solution.ok
    assert float((problem.misfit(solution.value) - 1).abs().max()) < 0.05 * problem.targets["misfit"]


def test_a_zero_start_is_left() -> None:
    """At the zero image a product with ``|x|`` says nothing of optimality."""
    for prior in (ridge(), Huber()):
        assert float(sciml.solve(posed(prior, 1.0), GaussNewton()).value.norm()) > 1.0


def test_from_a_bad_start_the_objective_falls() -> None:
    quadratic = dataclasses.replace(ridge(), matrix=Matrix(torch.eye(N, dtype=torch.float64)))
    problem = logarithm(quadratic, 3.0)
    near = sciml.solve(problem, GaussNewton())
    far = sciml.solve(problem, GaussNewton(), start=torch.full((1, 1, N), -6.0, dtype=torch.float64))
    assert away(far.value, near.value) < 1e-2


@dataclasses.dataclass(frozen=True, eq=False)
class WrongSlope(Exponential):
    """A derivative of the wrong sign."""

    def linearise(self, x: Tensor) -> LinearOperator:
        return super().linearise(x) * -1.0


def test_a_wrong_derivative_is_told() -> None:
    problem = logarithm(Huber(), 1e-3)
    wrong = dataclasses.replace(problem, forward=WrongSlope(problem.forward.linear))  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="checks.derivative"):
        solution = sciml.solve(wrong, GaussNewton())
    assert solution.code is Code.STAGNATED


@pytest.mark.parametrize(("data", "model"), [(1e3, 1.0), (1.0, 7e-4), (3e-5, 11.0)])
@pytest.mark.parametrize("prior", [None, ridge()], ids=["none", "ridge"])
def test_units_do_not_matter(prior: Any, data: float, model: float) -> None:
    problem = posed(prior, None if prior is None else 2.0)
    plain = sciml.solve(problem, GaussNewton())
    other = sciml.solve(scaled(problem, data, model, 2), GaussNewton())
    assert other.stats["inner_steps"] == plain.stats["inner_steps"]
    assert away(other.value * model / data, plain.value) < 1e-10


def test_units_of_the_data_do_not_matter_to_a_model_that_is_not_linear() -> None:
    problem = logarithm(Huber(), 1.0)
    forward = Exponential(Matrix(problem.forward.linear.entries * 1e3))  # type: ignore[attr-defined]
    other = Inverse("other", forward, problem.data * 1e3, GaussianNoise(50.0), Huber(), weight=1.0)
    # Rounding grows through ten steps, most of them far from the minimum.
    assert away(sciml.solve(other, GaussNewton()).value, sciml.solve(problem, GaussNewton()).value) < 1e-8


@pytest.mark.parametrize("prior", [None, Huber()], ids=["none", "huber"])
def test_a_batch_is_the_stack_of_its_members(prior: Any) -> None:
    weight = None if prior is None else torch.tensor([0.5, 5.0], dtype=torch.float64)
    problem = logarithm(prior, weight, batch=2)
    together = sciml.solve(problem, GaussNewton())
    for i in range(2):
        assert away(together.value[i : i + 1], sciml.solve(problem.member(i), GaussNewton()).value) < 1e-10
    assert torch.equal(together.value, sciml.solve(problem, GaussNewton()).value)


def test_one_step_is_reported_as_what_it_is() -> None:
    with pytest.warns(UserWarning, match="budget"):
        solution = sciml.solve(logarithm(Huber(), 1.0).with_target(optimality=1e-9), GaussNewton(max_steps=1))
    assert solution.code is Code.BUDGET


def test_derivatives_through_the_steps() -> None:
    problem = logarithm(Huber(), 1.0).with_target(optimality=1e-12)
    direction = torch.randn(problem.data.shape, generator=generator(5), dtype=torch.float64)

    def value(t: Any) -> Tensor:
        moved = problem.replace(data=problem.data + t * direction)
        return sciml.solve(moved, GaussNewton(), gradient=Unroll()).value.square().sum()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value(t).backward()
    with torch.no_grad():
        difference = (value(1e-4) - value(-1e-4)) / 2e-4
    assert t.grad is not None
    assert float(t.grad) == pytest.approx(float(difference), rel=1e-6)


REFUSED = {
    "no weight": (lambda: posed(Huber()), "no weight is posed.*Discrepancy"),
    "nonsmooth": (lambda: posed(Absolute(), 1.0), "has no gradient"),
    "denoiser": (lambda: posed(OnlyDenoises(), 1.0), "has no gradient"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    build, sentence = REFUSED[case]
    with pytest.raises(InputError, match=sentence):
        sciml.solve(build(), GaussNewton())
    with pytest.raises(InputError, match="positive"):
        GaussNewton(inner=0)
