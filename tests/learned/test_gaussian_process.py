"""Gaussian processes conditioned on equations: kernels, exactness, calibration, structure, and what is refused; with twins."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml import Code, Dirichlet, Grid, InputError, Linear, Neumann, Periodic
from sciml.core import Context, Continuous
from sciml.core.continuous import At
from sciml.discretise import Diffusion, SideLaw
from sciml.domains import Robin
from sciml.learned import GaussianProcess, Matern, SquaredExponential
from sciml.learned._kernels import AxisCovariance, Kernel
from sciml.learned._kronecker import Kronecker
from sciml.learned._linear_form import LinearForm, linear_form
from sciml.learned._posterior import Dense, Posterior, Prior, value_at
from sciml.learned.gaussian_process import _forms

KERNEL = Matern(length=0.6, smoothness=3)


def interior(at: At) -> Tensor:
    return 0.7 * at.u - sum((at.d(i, i) for i in range(len(at.x))), torch.zeros_like(at.x[0])) - at["source"]


def posed(shape: tuple[int, ...], sides: Any = None, members: int = 1, seed: int = 0) -> Linear:
    grid = Grid(shape, (1.0, 1.4, 0.7)[: len(shape)], Dirichlet(0.0) if sides is None else sides)
    source = torch.randn(members, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return Linear("posed", Diffusion(grid, 1.0), source, continuous=Continuous(interior, SideLaw.of(grid)))


def answered(problem: Any, solver: GaussianProcess) -> Any:
    return solver.run(problem, None, Context())


@pytest.mark.parametrize("kernel", [SquaredExponential(0.3), Matern(0.3, 2), Matern(0.4, 4)], ids=str)
def test_derivatives_of_kernels_are_those_of_their_differences(kernel: Kernel) -> None:
    r, h = torch.tensor([-0.61, -0.2, -0.03, 0.11, 0.45], dtype=torch.float64), 1e-5
    length = float(kernel.length)  # type: ignore[arg-type]
    assert torch.allclose(
        kernel.along(torch.zeros(1, dtype=torch.float64), length, 0), torch.ones(1, dtype=torch.float64)
    )
    for order in range(4):
        slope = (kernel.along(r + h, length, order) - kernel.along(r - h, length, order)) / (2 * h)
        exact = kernel.along(r, length, order + 1)
        # Central differences: h^2 / 6 times the third derivative, a few thousand times the size.
        assert float((slope - exact).abs().max()) < 1e-5 * float(exact.abs().max())
        assert float((slope - kernel.along(1.02 * r, length, order + 1)).abs().max()) > 1e-3 * float(exact.abs().max())


def test_a_covariance_knows_its_period_and_its_ends() -> None:
    x = torch.tensor([0.1, 0.35, 0.8], dtype=torch.float64)
    round_ = AxisCovariance(KERNEL, 0.3, period=1.0)
    assert torch.allclose(round_(x, 0, x, 2), round_(x + 1.0, 0, x, 2), rtol=0, atol=1e-10)
    free = AxisCovariance(KERNEL, 0.3)
    assert float((free(x, 0, x, 2) - free(x + 1.0, 0, x, 2)).abs().max()) > 0.1
    ends = ((0.0, {0: 1.0}), (1.0, {1: 2.0, 0: 0.5}))
    held = AxisCovariance(KERNEL, 0.3, ends=ends)
    end = torch.tensor([1.0], dtype=torch.float64)
    assert float((2 * held(end, 1, x, 0) + 0.5 * held(end, 0, x, 0)).abs().max()) < 1e-10
    assert float((2 * free(end, 1, x, 0) + 0.5 * free(end, 0, x, 0)).abs().max()) > 1e-3


def test_a_linear_form_is_read_off_and_a_nonlinear_one_is_not() -> None:
    x = (torch.linspace(0.1, 0.9, 5, dtype=torch.float64), torch.linspace(0.2, 0.4, 5, dtype=torch.float64))
    known = {"k": lambda *p: 1 + p[0] * p[1], "f": torch.tensor(3.0, dtype=torch.float64)}

    def law(at: At) -> Tensor:
        return at["k"] * at.d(0, 0) + at.d(0, of="k") * at.d(0) + at.d(1, 0) - 2 * at.u - at["f"]

    form = linear_form(law, x, known)
    assert form is not None and set(form.factors) == {(), (0,), (0, 0), (0, 1)}
    assert torch.allclose(form.factors[0, 0], 1 + x[0] * x[1]) and torch.allclose(form.factors[0,], x[1])
    assert torch.equal(form.constant, torch.full((5,), -3.0, dtype=torch.float64))
    for bent in (lambda at: at.u * at.d(0), lambda at: at.d(0, 0) + at.u.exp(), lambda at: at.u.abs()):
        assert linear_form(bent, x, known) is None


def conditioned(problem: Linear, structured: bool) -> tuple[Posterior, dict[str, LinearForm]]:
    answer = answered(problem, GaussianProcess(KERNEL, 1.0, samples=0, structured=structured))
    forms = _forms(problem)
    assert isinstance(answer.field, Posterior) and isinstance(forms, dict)
    return answer.field, forms


@pytest.mark.parametrize("structured", [True, False])
def test_a_solution_in_the_span_of_the_kernel_is_found_exactly(structured: bool) -> None:
    problem = posed((6, 5))
    posterior, forms = conditioned(problem, structured)
    solved, inside = posterior.solved[0], forms["interior"]
    weights = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    points = torch.rand(11, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * torch.tensor(
        [1.0, 1.4]
    )
    truth = solved.prior.covariance(value_at(points), inside) @ weights
    source = solved.prior.covariance(inside, inside) @ weights
    again, _ = conditioned(problem.replace(source=source.reshape(1, 1, 6, 5)), structured)
    scale = float(truth.abs().max())
    # Rounding times the condition of the matrix, about 1e5 here.
    assert torch.allclose(again(points)[0, 0], truth, rtol=0, atol=1e-10 * scale)
    other = problem.replace(source=source.flip(0).reshape(1, 1, 6, 5))
    assert not torch.allclose(conditioned(other, structured)[0](points)[0, 0], truth, rtol=0, atol=1e-3 * scale)


@pytest.mark.parametrize("structured", [True, False])
def test_the_mean_meets_the_equation_and_nothing_is_uncertain_there(structured: bool) -> None:
    sides = {"x": (Dirichlet(0.0), Neumann(0.0)), "y": (Robin(2.0, 0.0), Dirichlet(0.0))}
    problem = posed((6, 5), sides)
    posterior, forms = conditioned(problem, structured)
    inside = forms["interior"]
    data = -inside.constant
    assert float((posterior.mean(0, inside) - data).abs().max()) < 1e-9 * float(data.abs().max())
    prior = posterior.solved[0].prior.variance(inside).sqrt()
    # The root of rounding: variances are differences.
    assert float((posterior.spread(0, inside) / prior).max()) < 1e-5
    x = torch.stack([p.reshape(-1) for p in problem.space.grid.side_points("x_lower", torch.float64)], 1)
    assert float(posterior.deviation(x).max()) < 1e-7 and float(posterior(x).abs().max()) < 1e-9
    between = inside.points + 0.03
    assert float(posterior.deviation(between).min()) > 1e-6
    shifted = LinearForm(between, inside.factors, inside.constant)
    assert float((posterior.spread(0, shifted) / prior).max()) > 1e-3  # the twin, where nothing was observed


def test_data_on_sides_are_observed() -> None:
    grid = Grid((9,), (2.0,), {"x": (Dirichlet(0.3), Neumann(-1.0))})
    (x,) = grid.points()
    exact = 0.3 + torch.sin(x) * 0.8
    known = Grid((9,), (2.0,), {"x": (Dirichlet(0.3), Neumann(0.8 * float(torch.cos(torch.tensor(2.0)))))})
    for where, good in ((known, True), (grid, False)):
        source = 0.7 * exact + 0.8 * torch.sin(x)
        problem = Linear("line", Diffusion(where, 1.0), source, continuous=Continuous(interior, SideLaw.of(where)))
        answer = answered(problem, GaussianProcess(Matern(1.5, 5), samples=0))
        away = float((answer.value[0, 0] - exact).abs().max())
        assert (away < 1e-3) == good
        assert answer.counts["observations"] == 11


@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        ((9,), None),
        ((6, 7), {"x": (Dirichlet(0.0), Neumann(0.0)), "y": Periodic()}),
        ((6, 5), {"x": Robin(1.5, 0.0), "y": (Neumann(0.0), Dirichlet(0.0))}),
        ((4, 5, 3), None),
    ],
)
def test_kronecker_products_give_what_the_dense_matrix_gives(shape: tuple[int, ...], sides: Any) -> None:
    problem = posed(shape, sides)
    fast, slow = (answered(problem, GaussianProcess(KERNEL, samples=0, structured=s)) for s in (True, False))
    assert isinstance(fast.field.solved[0], Kronecker) and isinstance(slow.field.solved[0], Dense)
    size = float(slow.value.abs().max())
    assert torch.allclose(fast.value, slow.value, rtol=0, atol=1e-10 * size)
    points = torch.rand(7, len(shape), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.7
    assert torch.allclose(fast.field(points), slow.field(points), rtol=0, atol=1e-10 * size)
    assert torch.allclose(fast.field.deviation(points), slow.field.deviation(points), rtol=1e-5, atol=1e-8 * size)
    assert abs(fast.field.variances[0] / slow.field.variances[0] - 1) < 1e-9
    if len(shape) > 1:  # the twin without the products across axes
        axes = fast.field.solved[0].axes
        lame = dataclasses.replace(
            fast.field.solved[0], axes=tuple(dataclasses.replace(a, left=0 * a.left) for a in axes)
        )
        weights = lame.solve(lame.turn(-_forms(problem)["interior"].constant))
        assert not torch.allclose(
            lame.cross(value_at(points)) @ weights, slow.field(points)[0, 0], rtol=0, atol=1e-2 * size
        )


def drawn(kernel: Kernel, count: int, deviation: float) -> tuple[Linear, Tensor, Tensor]:
    """Problems whose solutions are draws of the process, those solutions at points, and the points."""
    problem = posed((6, 5))
    forms = _forms(problem)
    assert isinstance(forms, dict)
    ends = ((0.0, {0: 1.0}),)
    lines = [AxisCovariance(kernel, 0.6, ends=(*ends, (e, {0: 1.0}))) for e in (1.0, 1.4)]
    points = torch.tensor([[0.31, 0.2], [0.52, 0.77], [0.9, 1.3], [0.07, 0.6], [0.66, 0.99]], dtype=torch.float64)
    prior, both = Prior(tuple(lines)), [value_at(points), forms["interior"]]
    cov = torch.cat([torch.cat([prior.covariance(a, b) for b in both], 1) for a in both])
    size, q = torch.linalg.eigh((cov + cov.T) / 2)
    noise = torch.randn(count, len(cov), dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    draws = deviation * noise @ (q * size.clamp_min(0).sqrt()).T
    return problem.replace(source=draws[:, 5:].reshape(count, 1, 6, 5)), draws[:, :5], points


def test_deviations_are_calibrated_on_draws_of_known_smoothness() -> None:
    problem, truth, points = drawn(KERNEL, 24, 2.0)

    def scores(kernel: Kernel, deviation: float | None) -> Tensor:
        field = answered(problem, GaussianProcess(kernel, samples=0)).field
        own = field.variances if deviation is None else (deviation**2,) * 24
        field = dataclasses.replace(field, variances=own)
        return (truth - field(points)[:, 0]) / field.deviation(points)[:, 0]

    z = scores(KERNEL, 2.0)
    # Mean square of 120 scores, related within each draw: between two and four deviations.
    assert abs(float(z.square().mean()) - 1) < 0.5
    assert 0.9 < float((z.abs() < 1.96).double().mean()) < 0.99
    assert abs(float(scores(KERNEL, None).square().mean()) - 1) < 0.5  # of largest likelihood, from 30 data each
    for twin in (scores(KERNEL, 1.0), scores(Matern(0.6, 5), 2.0)):
        assert float(twin.square().mean()) > 2.5


@pytest.mark.parametrize("structured", [True, False])
def test_draws_have_the_mean_and_the_deviation(structured: bool) -> None:
    problem = posed((5, 4))
    solution = answered(problem, GaussianProcess(KERNEL, 1.0, samples=800, structured=structured))
    nodes = torch.stack([p.reshape(-1) for p in problem.space.grid.points(torch.float64)], 1)
    deviation = solution.field.deviation(nodes).reshape(5, 4)
    samples = solution.samples[:, 0, 0]
    assert samples.shape == (800, 5, 4)
    ratio = samples.std(0) / deviation
    # Four deviations of the standard deviation of 800 draws, 1 / sqrt(1600).
    assert float((ratio - 1).abs().max()) < 0.1
    away = (samples.mean(0) - solution.value[0, 0]) / deviation
    assert float(away.abs().max()) < 4 / 800**0.5
    again = answered(problem, GaussianProcess(KERNEL, 1.0, samples=800, seed=1, structured=structured))
    assert not torch.equal(again.samples, solution.samples)


@pytest.mark.parametrize("structured", [True, False])
def test_a_batch_is_the_stack_of_its_members_to_the_bit(structured: bool) -> None:
    problem = posed((5, 4), members=3)
    solver = GaussianProcess(KERNEL, samples=2, structured=structured)
    whole = answered(problem, solver)
    again = answered(problem, solver)
    assert torch.equal(whole.value, again.value) and torch.equal(whole.samples, again.samples)
    for i in range(3):
        alone = answered(problem.member(i), solver)
        assert torch.equal(whole.value[i : i + 1], alone.value)
        assert torch.equal(whole.samples[:, i : i + 1], alone.samples)
    assert len({id(one) for one in whole.field.solved}) == 1  # factored once
    assert not torch.equal(whole.value[:1], whole.value[1:2])


def test_a_varying_coefficient_goes_through_the_dense_matrix() -> None:
    darcy = sciml.problem("darcy", n=11, seed=1, batch=2)
    smooth = 1 + 0.3 * torch.sin(3 * darcy.space.grid.points()[0])
    darcy = darcy.replace(coefficient=torch.stack([smooth, 1 + 0 * smooth])[:, None])
    answer = answered(darcy, GaussianProcess(Matern(0.8, 3), samples=0))
    exact = sciml.solve(darcy).value
    error = (darcy.space.norm(answer.value - exact) / darcy.space.norm(exact)).tolist()
    assert max(error) < 0.02  # that of the differences, second order in 1/12
    assert isinstance(answer.field.solved[0], Dense) and answer.field.solved[0] is not answer.field.solved[1]


def test_lost_definiteness_is_met_with_jitter_and_told() -> None:
    problem = sciml.problem("poisson", dim=1, n=63)
    solution = None
    with pytest.warns(UserWarning, match="jitter .* was added"):
        solution = sciml.solve(problem.with_target(strong=1e-12), GaussianProcess(SquaredExponential(1.0), samples=0))
    assert solution.stats["jitter"] > 0 and solution.code is Code.UNCERTIFIED
    assert float((solution.value - problem.exact).abs().max()) < 1e-5
    assert answered(problem, GaussianProcess(Matern(0.3, 2), samples=0)).counts["jitter"] == 0


def test_smoother_kernels_converge_faster_than_the_differences() -> None:
    errors = {}
    for n, smoothness in itertools.product((7, 15), (2, 4)):
        problem = sciml.problem("poisson", dim=2, n=n)
        value = answered(problem, GaussianProcess(Matern(0.5, smoothness), samples=0)).value
        errors[n, smoothness] = float((value - problem.exact).norm() / problem.exact.norm())
    assert errors[15, 4] < errors[15, 2] < errors[7, 2]
    assert errors[7, 4] / errors[15, 4] > 8 > errors[7, 2] / errors[15, 2] * 0.5


@pytest.mark.parametrize(
    ("problem", "solver", "reason"),
    [
        (lambda: sciml.problem("bratu", n=15), GaussianProcess(), "not linear in u"),
        (lambda: sciml.problem("heat", n=15), GaussianProcess(), "conditioned on steady equations"),
        (lambda: dataclasses.replace(posed((5, 4)), continuous=None), GaussianProcess(), "states no strong form"),
        (lambda: posed((5, 4)), GaussianProcess(Matern(0.5, 1)), "take a smoother kernel"),
        (lambda: posed((5, 4)), GaussianProcess(Matern((0.5, 0.5, 0.5), 3)), "3 lengths, the domain 2 axes"),
        (lambda: sciml.problem("darcy", n=65), GaussianProcess(), "a dense matrix takes at most"),
    ],
)
def test_what_it_cannot_do_is_refused_in_a_sentence(problem: Any, solver: GaussianProcess, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        sciml.solve(problem(), solver)


def test_bad_settings_are_refused() -> None:
    for wrong in (lambda: Matern(-1.0), lambda: Matern(1.0, 99), lambda: GaussianProcess(samples=-1)):
        with pytest.raises(InputError):
            wrong()
    with pytest.raises(InputError, match="takes a kernel"):
        GaussianProcess(0.5)  # type: ignore[arg-type]


def test_the_example_tells_what_it_should() -> None:
    import importlib.util

    path = Path(__file__).resolve().parents[2] / "examples" / "gaussian_process.py"
    spec = importlib.util.spec_from_file_location("gaussian_process_example", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.main(n=11)
    assert found["error"] < 0.5 * found["error of differences"]
    assert 0 < found["deviation"] < 0.01 and 0 < found["spread"] < 0.01


def test_autograd_knows_the_derivatives_of_the_mean() -> None:
    problem = sciml.problem("poisson", n=9)
    field = answered(problem, GaussianProcess(samples=0)).field
    points = 0.2 + 0.6 * torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(field, points.requires_grad_(), atol=1e-6)
    assert torch.autograd.gradgradcheck(field, points, atol=1e-5)
