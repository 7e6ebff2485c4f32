"""ProximalGradient and ADMM: dense oracles, invariances, one-step priors, honesty, derivatives, broken twins."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch
from inverse_problems import (
    SIGMA,
    Absolute,
    Huber,
    OneStep,
    OnlyDenoises,
    generator,
    matrix,
    posed,
    ridge,
    scaled,
    soft_solution,
)
from torch import Tensor

import sciml
from sciml.core import Code, Context, GaussianNoise, Inverse, Matrix, Unroll
from sciml.domains.errors import InputError
from sciml.priors import TotalVariation
from sciml.solvers import ADMM, NoMomentum, PrimalDual, ProximalGradient

SPLITTING = [ProximalGradient(), ProximalGradient(momentum=NoMomentum()), ADMM(), ADMM(relaxation=1.6)]
NAMED = ["fista", "plain", "admm", "relaxed"]
WEIGHT = 20.0


def quiet(problem: Inverse[Any], solver: Any, **settings: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sciml.solve(problem, solver, **settings)


def away(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("solver", SPLITTING, ids=NAMED)
def test_the_lasso_by_coordinate_descent(solver: Any) -> None:
    problem = posed(Absolute(), WEIGHT).with_target(optimality=1e-11)
    solution = sciml.solve(problem, dataclasses.replace(solver, max_steps=5000))
    exact = torch.from_numpy(soft_solution(problem)).reshape(1, 1, -1)
    # The certificate bounds |rest| |x| / P; the image is off by about rest over the least curvature, which is above 1 here.
    assert away(solution.value, exact) < 1e-8
    assert (solution.value == 0).any() == (exact == 0).any()


@pytest.mark.parametrize("lower", [None, 0.0], ids=["free", "bounded"])
def test_admm_agrees_with_primal_dual_on_total_variation(lower: float | None) -> None:
    problem = posed(TotalVariation(lower=lower), 5.0).with_target(optimality=1e-9)
    solution = sciml.solve(problem, ADMM(max_steps=5000))
    other = sciml.solve(problem, PrimalDual(max_steps=50_000))
    # F is strongly convex: |x - x*|^2 is at most 2 gap P / (least curvature), here about 1e-7.
    assert away(solution.value, other.value) < 1e-4
    assert lower is None or float(solution.value.min()) >= lower


def test_admm_hands_over_a_feasible_dual_variable() -> None:
    problem = posed(TotalVariation(), 5.0)
    answer = ADMM().run(problem, None, Context())
    assert answer.dual is not None
    assert float(problem.prior.conjugate(answer.dual["prior"], problem.weights())) == 0.0
    assert bool(problem.certify(answer)[0].passed.all())
    # Twins: another dual variable, another image.
    far = dataclasses.replace(answer, dual={"prior": 1.1 * answer.dual["prior"]})
    assert not bool(problem.certify(far)[0].passed.any())
    assert not bool(problem.certify(dataclasses.replace(answer, value=1.05 * answer.value))[0].passed.any())


@pytest.mark.parametrize("solver", SPLITTING, ids=NAMED)
def test_complex_images(solver: Any) -> None:
    problem = posed(Absolute(), WEIGHT, complex_=True)
    solution = sciml.solve(problem, solver)
    other = sciml.solve(problem.with_target(optimality=1e-9), ProximalGradient(max_steps=5000))
    assert solution.value.is_complex() and away(solution.value, other.value) < 1e-2


@pytest.mark.parametrize("solver", SPLITTING, ids=NAMED)
@pytest.mark.parametrize(("data", "model"), [(1e3, 1.0), (1.0, 7e-4), (3e-5, 11.0)])
def test_units_do_not_matter(solver: Any, data: float, model: float) -> None:
    problem = posed(Absolute(), WEIGHT)
    plain = sciml.solve(problem, solver)
    other = sciml.solve(scaled(problem, data, model, 1), solver)
    assert other.stats["steps"] == plain.stats["steps"]
    assert away(other.value * model / data, plain.value) < 1e-10


def test_a_forgotten_weight_is_not_a_change_of_units() -> None:
    problem = posed(Absolute(), WEIGHT)
    other = dataclasses.replace(scaled(problem, 10.0, 1.0, 1), weight=problem.weight)
    plain = sciml.solve(problem, ProximalGradient())
    assert away(sciml.solve(other, ProximalGradient()).value / 10, plain.value) > 1e-2


@pytest.mark.parametrize("solver", SPLITTING, ids=NAMED)
def test_a_batch_is_the_stack_of_its_members(solver: Any) -> None:
    weight = torch.tensor([5.0, 20.0, 80.0], dtype=torch.float64)
    problem = posed(Absolute(), weight, batch=3)
    together = sciml.solve(problem, solver)
    for i in range(3):
        assert away(together.value[i : i + 1], sciml.solve(problem.member(i), solver).value) < 1e-10
    again = sciml.solve(problem, solver)
    assert torch.equal(together.value, again.value)


@pytest.mark.parametrize("solver", SPLITTING, ids=NAMED)
def test_two_steps_are_reported_as_what_they_are(solver: Any) -> None:
    with pytest.warns(UserWarning, match="budget"):
        solution = sciml.solve(posed(Absolute(), WEIGHT), dataclasses.replace(solver, max_steps=2))
    assert solution.code is Code.BUDGET and solution.stats["steps"] == 2


@pytest.mark.parametrize("flaw", [0.5, 2.0])
@pytest.mark.parametrize("solver", SPLITTING[:3:2], ids=NAMED[:3:2])
def test_a_prox_of_another_step_is_not_certified(solver: Any, flaw: float) -> None:
    """A map with the wrong step minimises something else; the energy tells the certificate."""
    wrong = quiet(posed(Absolute(flaw), WEIGHT), solver)
    honest = posed(Absolute(), WEIGHT)
    assert not bool(honest.certify(wrong.value)[0].passed.any())
    assert bool(honest.certify(sciml.solve(honest, solver).value)[0].passed.all())


def test_fista_never_rises_and_is_faster() -> None:
    problem = posed(Absolute(), 1.0).with_target(optimality=1e-9)
    fast, plain = ProximalGradient(), ProximalGradient(momentum=NoMomentum())
    setup = fast.setup(problem)
    state = fast.init(problem, setup, None)
    values = [float(state.value)]
    for _ in range(60):
        state = fast.step(problem, setup, state)
        values.append(float(state.value))
    assert all(b <= a * (1 + 1e-14) for a, b in zip(values, values[1:], strict=False))
    assert sciml.solve(problem, fast).stats["steps"] < sciml.solve(problem, plain).stats["steps"]


def test_a_step_that_is_too_long_is_cut() -> None:
    problem = posed(Absolute(), WEIGHT)
    solver = ProximalGradient()
    setup = solver.setup(problem)
    state = solver.init(problem, setup, None)
    far = dataclasses.replace(state, tau=state.tau * 50)
    cut = solver.step(problem, setup, far)
    assert float(cut.tau) < 2.1 * float(state.tau)
    assert float(cut.value) < float(far.value)


@pytest.mark.parametrize("step", [1e-3, 3e-2, 1.0])
def test_one_step_priors_reach_the_fixed_point(step: float) -> None:
    """The prox of ``step |x|_1`` at one step: the answer is the lasso's, whether or not an explicit step is stable."""
    problem = posed(OneStep(step, Absolute()), WEIGHT).with_target(optimality=1e-9)
    solution = sciml.solve(problem, ProximalGradient(max_steps=20_000))
    exact = torch.from_numpy(soft_solution(dataclasses.replace(problem, prior=Absolute()))).reshape(1, 1, -1)
    assert away(solution.value, exact) < 1e-6
    assert ("inner_steps" in solution.stats) == (step > 3e-3)  # ADMM took over


def test_members_go_their_own_way() -> None:
    weight = torch.tensor([3.0, 3000.0], dtype=torch.float64)
    problem = posed(OneStep(0.1, Absolute()), weight, batch=2)
    together = sciml.solve(problem, ProximalGradient())
    for i in range(2):
        assert torch.equal(together.value[i : i + 1], sciml.solve(problem.member(i), ProximalGradient()).value)


@dataclasses.dataclass(frozen=True, eq=False)
class Firm(Absolute):
    """Firm thresholding: the map of a prior that is not convex, of slope ``g / (g - 1)``."""

    gamma: float = 1.5

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        inside = super().prox(v, step) * self.gamma / (self.gamma - 1)
        return torch.where(v.abs() <= self.gamma * step, inside, v)


@pytest.mark.parametrize("weight", [5.0, 50.0])
def test_a_map_that_is_not_convex_ends_in_a_fixed_point_or_says_not(weight: float) -> None:
    problem = posed(OneStep(0.05, Firm()), weight)
    solution = quiet(problem, ProximalGradient())
    number = float(solution.check("optimality").value)
    assert solution.ok == (number <= 1e-3)
    assert number < 1e-2


def test_other_noise_than_gaussian_and_a_model_that_is_not_linear() -> None:
    from sciml.solvers.gauss_newton import Exponential

    forward = Exponential(Matrix(torch.rand(1, 25, 6, generator=generator(3), dtype=torch.float64)))
    truth = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(1, 1, 6)
    noise = GaussianNoise(0.05)
    data = noise.sample(forward(truth), generator=generator(4))
    problem = Inverse("logarithm", forward, data, noise, Absolute(), weight=20.0)
    fista, admm = sciml.solve(problem, ProximalGradient()), sciml.solve(problem, ADMM())
    assert away(fista.value, admm.value) < 1e-2


@pytest.mark.parametrize("solver", [ProximalGradient(max_steps=400), ADMM(max_steps=100)], ids=["fista", "admm"])
def test_derivatives_through_the_steps(solver: Any) -> None:
    problem = posed(Absolute(), WEIGHT).with_target(optimality=1e-10)
    direction = torch.randn(problem.data.shape, generator=generator(7), dtype=torch.float64)

    def value(t: Any) -> Tensor:
        moved = problem.replace(data=problem.data + t * direction)
        return quiet(moved, solver, gradient=Unroll()).value.square().sum()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value(t).backward()
    with torch.no_grad():
        difference = (value(1e-4) - value(-1e-4)) / 2e-4
    assert t.grad is not None
    assert float(t.grad) == pytest.approx(float(difference), rel=1e-5)


REFUSED = {
    "no prior": (lambda: posed(None), "has no prior"),
    "no weight": (lambda: posed(Absolute()), "no weight is posed.*Discrepancy"),
    "denoiser": (lambda: posed(OnlyDenoises(), 1.0), "no proximal map"),
    "smooth": (lambda: posed(Huber(), 1.0), "no proximal map.*GaussNewton"),
}


@pytest.mark.parametrize("solver", [ProximalGradient(), ADMM()], ids=["fista", "admm"])
@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, solver: Any) -> None:
    build, sentence = REFUSED[case]
    with pytest.raises(InputError, match=sentence):
        sciml.solve(build(), solver)


def test_settings_are_checked() -> None:
    for wrong in (lambda: ADMM(relaxation=2.0), lambda: ADMM(inner=0), lambda: ProximalGradient(max_steps=-1)):
        with pytest.raises(InputError):
            wrong()
    with pytest.raises(InputError, match="Nesterov"):
        ProximalGradient(momentum=NoMomentum)  # type: ignore[arg-type]


def test_the_helpers_are_what_they_say() -> None:
    assert ridge().matrix.symmetric and matrix().space.shape == (1, 14) and SIGMA == 0.3


def test_bounds_take_longer_and_are_not_given_up() -> None:
    """The gap of an image that is held within bounds stands still at first: the default patience of sixty steps was too short."""
    posed_within = sciml.problem("ct", n=16, views=10, finer=1).with_prior(TotalVariation(lower=0.0), 20.0)
    assert sciml.solve(posed_within, ADMM(max_steps=1500)).ok
    assert float(sciml.solve(posed_within, PrimalDual()).value.min()) >= 0
