"""LeastSquares and FilteredBackprojection: dense oracles, the noise level, invariances, derivatives, honesty."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import pytest
import torch
from inverse_problems import COLUMNS, Absolute, Huber, generator, matrix, normal_solution, posed, ridge, scaled
from torch import Tensor

import sciml
from sciml.core import Code, GaussianNoise, Inverse, Matrix, Unroll
from sciml.domains import Pixels
from sciml.domains.errors import InputError
from sciml.forward import Radon
from sciml.forward.windows import Hann
from sciml.solvers import Chained, FilteredBackprojection, LeastSquares
from sciml.solvers.gauss_newton import Exponential
from sciml.solvers.least_squares import _cut


def away(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_the_dense_normal_equations(complex_: bool) -> None:
    prior: Any = ridge()
    if complex_:
        prior = dataclasses.replace(prior, matrix=Matrix(prior.matrix.entries.to(torch.complex128)))
    problem = posed(prior, 2.0, complex_=complex_).with_target(optimality=1e-12)
    solution = sciml.solve(problem, LeastSquares())
    assert away(solution.value, normal_solution(problem)) < 1e-8
    # A twin with another weight is not certified.
    assert not bool(problem.with_weight(2.2).certify(solution.value)[0].passed.any())


def test_a_prior_with_a_mean() -> None:
    """The gradient of a quadratic prior need not vanish at zero."""

    @dataclasses.dataclass(frozen=True, eq=False)
    class Around(type(ridge())):  # type: ignore[misc]
        mean: Tensor = dataclasses.field(default_factory=lambda: torch.ones(1, 1, COLUMNS, dtype=torch.float64))

        def energy(self, x: Tensor) -> Tensor:
            return super().energy(x - self.mean)

        def gradient(self, x: Tensor) -> Tensor:
            return super().gradient(x - self.mean)

    problem = posed(Around(ridge().matrix), 1e6).with_target(optimality=1e-9)
    solution = sciml.solve(problem, LeastSquares())
    # At this weight the data move the image away from the mean by about |A|^2 / 1e6.
    assert away(solution.value, problem.prior.mean) < 1e-2


def test_without_a_prior_chi_square_is_the_degrees_of_freedom() -> None:
    problem = posed(None, batch=3)
    solution = sciml.solve(problem, LeastSquares())
    assert solution.ok and float(solution.check("misfit").value.max()) < 1e-9
    setup = LeastSquares().setup(problem)
    state = LeastSquares().init(problem, setup, None)
    for _ in range(int(solution.stats["steps"]) - 1):
        state = LeastSquares().step(problem, setup, state)
    # One step before the noise level was not reached everywhere: the rule stops at the first step that does.
    assert float(problem.misfit(state.x).max()) > 1.0 + 1e-9


def test_the_last_step_is_cut_at_the_root() -> None:
    one = torch.tensor([1.0], dtype=torch.float64)
    # |r - t q|^2 = 9 - 2 t 2 + t^2: at t = 1 it is 6; dof 7 is crossed at 2 - sqrt 2.
    cut = _cut(one, one, 2 * one, (9.0 - 7.0) * one)
    assert float(cut) == pytest.approx(2 - math.sqrt(2), rel=1e-14)
    assert float(_cut(one, one, 2 * one, (9.0 - 5.0) * one)) == 1.0


def test_a_sigma_that_is_too_small_is_told() -> None:
    problem = posed(None)
    wrong = dataclasses.replace(problem, noise=GaussianNoise(0.03))
    with pytest.warns(UserWarning, match="no image fits the data better than chi-square per degree of freedom"):
        solution = sciml.solve(wrong, LeastSquares())
    assert solution.code is Code.STAGNATED


def test_a_sigma_that_is_too_large_is_not_certified() -> None:
    wrong = dataclasses.replace(posed(None), noise=GaussianNoise(1e3))
    with pytest.warns(UserWarning):
        solution = sciml.solve(wrong, LeastSquares())
    assert not solution.ok


@pytest.mark.parametrize(("data", "model"), [(1e3, 1.0), (1.0, 7e-4), (3e-5, 11.0)])
@pytest.mark.parametrize("prior", [None, ridge()], ids=["none", "ridge"])
def test_units_do_not_matter(prior: Any, data: float, model: float) -> None:
    problem = posed(prior, None if prior is None else 2.0)
    plain = sciml.solve(problem, LeastSquares())
    other = sciml.solve(scaled(problem, data, model, 2), LeastSquares())
    assert other.stats["steps"] == plain.stats["steps"]
    assert away(other.value * model / data, plain.value) < 1e-10


@pytest.mark.parametrize("prior", [None, ridge()], ids=["none", "ridge"])
def test_a_batch_is_the_stack_of_its_members(prior: Any) -> None:
    problem = posed(prior, None if prior is None else torch.tensor([0.5, 5.0, 50.0], dtype=torch.float64), batch=3)
    together = sciml.solve(problem, LeastSquares())
    for i in range(3):
        assert away(together.value[i : i + 1], sciml.solve(problem.member(i), LeastSquares()).value) < 1e-10
    assert torch.equal(together.value, sciml.solve(problem, LeastSquares()).value)


@dataclasses.dataclass(frozen=True, eq=False)
class Inverted:
    """The exact inverse as a preconditioner."""

    problem: Inverse[Any]

    def accepts(self, problem: Any) -> str | None:
        return None

    def preconditioner(self, problem: Any) -> Any:
        a = problem.forward.entries[0] / problem.noise.sigma
        inverse = torch.linalg.inv(a.T @ a + problem.weight * problem.prior.matrix.entries[0])
        return lambda r: r @ inverse


def test_a_preconditioner_is_used() -> None:
    problem = posed(ridge(), 2.0).with_target(optimality=1e-9)
    helped = sciml.solve(problem, LeastSquares(preconditioner=Inverted(problem)))
    assert helped.stats["steps"] <= 2 < sciml.solve(problem, LeastSquares()).stats["steps"]
    with pytest.raises(InputError, match="no preconditioner"):
        sciml.solve(problem, LeastSquares(preconditioner=Inverted))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["data", "weight"])
def test_derivatives_through_the_steps(name: str) -> None:
    problem = posed(ridge(), torch.tensor([2.0], dtype=torch.float64)).with_target(optimality=1e-12)
    tensor = problem.parameters()[name]
    direction = torch.randn(tensor.shape, generator=generator(5), dtype=torch.float64)

    def value(t: Any) -> Tensor:
        moved = problem.replace(**{name: tensor + t * direction})
        return sciml.solve(moved, LeastSquares(), gradient=Unroll()).value.square().sum()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value(t).backward()
    with torch.no_grad():
        difference = (value(1e-4) - value(-1e-4)) / 2e-4
    assert t.grad is not None
    assert float(t.grad) == pytest.approx(float(difference), rel=1e-6)


REFUSED = {
    "no weight": (lambda: posed(ridge()), "no weight is posed.*Discrepancy"),
    "nonsmooth": (lambda: posed(Absolute(), 1.0), "not quadratic"),
    "smooth": (lambda: posed(Huber(), 1.0), "not quadratic.*GaussNewton"),
    "nonlinear": (
        lambda: Inverse("a", Exponential(matrix()), posed(None).data, GaussianNoise(0.3)),
        "linear forward model",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    build, sentence = REFUSED[case]
    with pytest.raises(InputError, match=sentence):
        sciml.solve(build(), LeastSquares())


def disc(views: int = 60, n: int = 33) -> Inverse[Any]:
    """A smooth disc behind a Radon transform, one per cent of noise."""
    pixels = Pixels((n, n), (2.0, 2.0))
    forward = Radon(pixels, torch.arange(views, dtype=torch.float64) * math.pi / views)
    x, y = pixels.points()
    truth = torch.exp(-8 * (x**2 + y**2)).reshape(1, 1, n, n)
    clean = forward(truth)
    noise = GaussianNoise(0.01 * float(clean.max()))
    return Inverse("disc", forward, noise.sample(clean, generator=generator(0)), noise, truth=truth)


def test_filtered_backprojection_is_near_and_judged_kindly() -> None:
    problem = disc()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = sciml.solve(problem, FilteredBackprojection(window=Hann()))
    assert problem.truth is not None and away(solution.value, problem.truth) < 0.1
    if not solution.ok:
        assert solution.code is Code.UNCERTIFIED and "explicit formula" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sharp = sciml.solve(problem, FilteredBackprojection())
    assert away(sharp.value, problem.truth) > away(solution.value, problem.truth)  # more noise without a window


def test_filtered_backprojection_is_a_start() -> None:
    problem = disc()
    solution = sciml.solve(problem, Chained(FilteredBackprojection(window=Hann()), LeastSquares()))
    assert solution.value.shape == (1, 1, 33, 33)


def test_filtered_backprojection_needs_a_radon_transform() -> None:
    with pytest.raises(InputError, match="no filtered back-projection; Radon has"):
        sciml.solve(posed(None), FilteredBackprojection())
