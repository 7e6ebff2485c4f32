"""ETDRK4 and its referee: coefficients, honest certificates, gradients, batches, bad input."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core import Checkpoint, Code, Evolution, Implicit, Law, Unroll
from sciml.core.solver import Context
from sciml.discretise import Spectrum
from sciml.domains import Grid, InputError, Periodic
from sciml.solvers import Collocation, ExponentialRungeKutta
from sciml.solvers import exponential as module

DOUBLE = torch.float64


def burgers(n: int = 64, **settings: Any) -> Evolution:
    problem: Evolution = sciml.problem("burgers", n=n, **{"viscosity": 0.02, "times": (0.2, 0.4), **settings})
    return problem


def quietly(problem: Evolution, solver: Any = None, **settings: Any) -> sciml.Solution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return sciml.solve(problem, solver, **settings)
        except sciml.SolveError as error:
            return error.solution


# Coefficients


def exact_coefficients(z: float) -> tuple[float, float, float, float]:
    """Q, f1, f2, f3 for h = 1 from their Taylor series in rational arithmetic."""
    from fractions import Fraction

    x = Fraction(z)
    terms = 60 + 8 * abs(int(z))
    phi = [sum((x**j / math.factorial(j + k) for j in range(terms)), Fraction(0)) for k in range(4)]
    half = sum(((x / 2) ** j / math.factorial(j + 1) for j in range(terms)), Fraction(0)) / 2
    return tuple(float(v) for v in (half, phi[1] - 3 * phi[2] + 4 * phi[3], phi[2] - 2 * phi[3], 4 * phi[3] - phi[2]))  # type: ignore[return-value]


@pytest.mark.parametrize("z", [0.0, -1e-7, -1e-3, -0.5, 0.25, -1.0, -3.0, -12.0, -40.0])
def test_coefficients_keep_their_digits(z: float) -> None:
    """phi-functions in rational arithmetic; tolerance: rounding at the points of the circle
    nearest to zero, where the quotients cancel: eps / 0.098^3 over 16 points."""
    found = module.coefficients(torch.tensor([z], dtype=DOUBLE), 1.0)
    for name, value, truth in zip(("q", "f1", "f2", "f3"), found[2:], exact_coefficients(z), strict=True):
        assert abs(float(value) - truth) < 1e-13, f"{name} at {z}"
    complex_ = module.coefficients(torch.tensor([z + 0j], dtype=torch.complex128), 1.0)
    for value, truth in zip(complex_[2:], exact_coefficients(z), strict=True):
        assert abs(complex(value) - truth) < 1e-13


def test_the_plain_quotients_would_not() -> None:
    z = torch.tensor(-1e-3, dtype=DOUBLE)
    plain = (-4 - z + torch.exp(z) * (4 - 3 * z + z * z)) / z**3
    assert abs(float(plain) - exact_coefficients(-1e-3)[1]) > 1e-9


# The certificate


@pytest.mark.parametrize("step", [0.1, 0.02])
def test_too_large_a_step_is_not_certified(step: float) -> None:
    solution = quietly(burgers(n=128, viscosity=0.005, seed=1), ExponentialRungeKutta(step=step))
    assert solution.code in (Code.UNCERTIFIED, Code.DIVERGED)


def test_the_certificate_does_not_flatter() -> None:
    """The estimate is no less than the error seen against a run with steps sixteen times shorter."""
    problem = burgers(batch=4, seed=2)
    truth = quietly(problem, ExponentialRungeKutta(step=0.01 / 16)).value
    solution = quietly(problem, ExponentialRungeKutta(step=0.01))
    error = (problem.space.norm(solution.value - truth) / problem.space.norm(truth)).amax(1)
    assert bool((solution.check("steps").value > error).all())


def anti(modes: Any, *, viscosity: Tensor) -> Tensor:
    return -1.05 * viscosity * modes.square


def half_transport(t: float, v: Tensor, *, space: Any) -> Tensor:
    n = space.shape[-1]
    u = torch.fft.irfft(v, n=n)
    return -0.5j * math.pi * torch.arange(n // 2 + 1) * torch.fft.rfft(u * u)


@pytest.mark.parametrize("flaw", ["viscosity", "rest_modes", "coefficient", "no flaw"])
def test_broken_twins_are_rejected(flaw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, solver = burgers(), ExponentialRungeKutta(step=1e-3)
    solved = problem
    if flaw == "viscosity":
        nu = problem.parameters()["viscosity"]
        solved = dataclasses.replace(problem, stiff=Spectrum(problem.space.domain, anti, viscosity=nu))
    elif flaw == "rest_modes":
        solved = dataclasses.replace(problem, rest_modes=Law(half_transport))
    elif flaw == "coefficient":
        right = module.coefficients

        def wrong(symbol: Tensor, step: float) -> Any:
            good = right(symbol, step)
            return good._replace(f3=1.01 * good.f3)

        monkeypatch.setattr(module, "coefficients", wrong)
    answer = solver.run(solved, None, Context())
    passed = bool(problem.certify(answer)[0].passed.all())
    assert passed == (flaw == "no flaw")


def test_a_sign_error_of_the_viscosity_is_rejected() -> None:
    problem = burgers(n=16, viscosity=0.002, times=(0.05,))
    negative = problem.replace(viscosity=-problem.parameters()["viscosity"])
    answer = ExponentialRungeKutta(step=1e-3).run(negative, None, Context())
    assert bool(torch.isfinite(answer.value).all())
    assert not bool(problem.certify(answer)[0].passed.any())


def test_a_plain_tensor_is_judged_between_the_wanted_times() -> None:
    problem = burgers()
    value = quietly(problem, ExponentialRungeKutta(step=5e-4)).value
    assert bool(problem.certify(value)[0].passed.all())
    assert not bool(problem.certify(value.roll(1, -1))[0].passed.any())


def test_a_member_that_is_lost_does_not_spoil_the_others() -> None:
    problem = burgers(batch=3, seed=3)
    answer = ExponentialRungeKutta(step=5e-4).run(problem, None, Context())
    value = answer.value.clone()
    value[1] = float("nan")
    segments = tuple(
        dataclasses.replace(one, after=torch.where(torch.tensor([0, 1, 0]).reshape(3, 1, 1) > 0, torch.nan, one.after))
        for one in answer.segments
    )
    check = problem.certify(dataclasses.replace(answer, value=value, segments=segments))[0]
    assert check.passed.tolist() == [True, False, True]


# Steps


def test_the_default_step_meets_the_target() -> None:
    for target in (1e-4, 1e-8):
        solution = sciml.solve(burgers(viscosity=0.01, seed=5).with_target(steps=target))
        assert solution.ok
        assert float(solution.check("steps").value) > 1e-5 * target, "far more steps than asked for"


def test_every_step_is_taken_with_and_without_a_gradient() -> None:
    """The value does not depend on how derivatives pass; recomputed pieces have the same bits."""
    plain = burgers(seed=4)
    bent = plain.replace(viscosity=plain.parameters()["viscosity"].clone().requires_grad_())
    solver = ExponentialRungeKutta(step=0.004)
    values = [quietly(bent, solver, gradient=way).value.detach() for way in (Unroll(), Checkpoint(7), Checkpoint(1000))]
    for value in values:
        assert torch.equal(value, quietly(plain, solver).value)


def test_times_need_not_fit_the_step() -> None:
    wanted = quietly(burgers(times=(0.0, 0.013, 0.4)), ExponentialRungeKutta(step=1e-3)).value
    torch.testing.assert_close(wanted[:, 0], burgers().start, rtol=1e-14, atol=1e-14)  # there and back by FFT
    alone = quietly(burgers(times=(0.013,)), ExponentialRungeKutta(step=1e-3)).value
    torch.testing.assert_close(wanted[:, 1], alone[:, 0], rtol=1e-12, atol=1e-12)


def test_a_batch_is_the_stack_of_its_members() -> None:
    problem = burgers(batch=3, seed=6).replace(viscosity=torch.tensor([0.01, 0.02, 0.05], dtype=DOUBLE))
    solver = ExponentialRungeKutta(step=1e-3)
    together = quietly(problem, solver).value
    for i in range(3):
        torch.testing.assert_close(
            together[i : i + 1], quietly(problem.member(i), solver).value, rtol=1e-11, atol=1e-12
        )
    assert not torch.allclose(together[0:1], quietly(problem.member(1), solver).value)


def test_members_with_their_own_viscosity_from_one_start() -> None:
    problem = burgers().replace(viscosity=torch.tensor([0.01, 0.02], dtype=DOUBLE))
    solution = sciml.solve(problem)
    assert solution.value.shape == (2, 2, 1, 64) and solution.ok


def bistable(t: float, u: Tensor, *, rate: Tensor) -> Tensor:
    return rate * (u - u**3)


def front(batch: int = 1) -> Evolution:
    grid = Grid((9, 14, 11), (1.0, 2.0, 0.7), sides=Periodic())
    x, y, z = grid.points()
    start = torch.stack(
        [
            (0.5 + 0.1 * i) * torch.cos(2 * torch.pi * x) * torch.sin(torch.pi * y)
            + 0.1 * torch.cos(2 * torch.pi / 0.7 * z)
            for i in range(batch)
        ]
    )
    diffusivity, rate = torch.tensor(0.02, dtype=DOUBLE), torch.tensor(1.5, dtype=DOUBLE)
    return Evolution(
        "front",
        grid.space(),
        start.unsqueeze(1),
        (0.5,),
        Law(bistable, rate=rate),
        Spectrum(grid, diffusivity=diffusivity),
        referee=Collocation(),
    )


def test_a_law_on_the_grid_in_three_dimensions() -> None:
    solution = sciml.solve(front(batch=2), ExponentialRungeKutta())
    other = quietly(front(batch=2), Collocation(step=0.05))
    assert solution.ok and other.ok
    torch.testing.assert_close(solution.value, other.value, rtol=1e-6, atol=1e-7)


# Gradients


def slope_of(function: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor) -> float:
    """Slope of the Taylor remainder of first order: 2 for a right gradient, 1 for a wrong one."""
    at = at.clone().requires_grad_()
    value = function(at)
    (gradient,) = torch.autograd.grad(value, at)
    remainders = []
    for h in (1e-2, 5e-3, 2.5e-3):
        with torch.no_grad():
            remainders.append(abs(float(function(at + h * direction) - value - h * (gradient * direction).sum())))
    return math.log(remainders[0] / remainders[-1]) / math.log(4)


@pytest.mark.parametrize("name", ["viscosity", "start"])
@pytest.mark.parametrize("way", [Unroll(), Checkpoint(8)], ids=["unroll", "checkpoint"])
def test_gradients_on_burgers(name: str, way: Any) -> None:
    problem = burgers(n=32, seed=7)

    def loss(tensor: Tensor) -> Tensor:
        value = quietly(problem.replace(**{name: tensor}), ExponentialRungeKutta(step=0.01), gradient=way).value
        return value.square().mean() + value[..., 3].sum()

    at = problem.parameters()[name].detach()
    direction = (
        0.5 * at if at.ndim == 0 else torch.sin(4 * torch.pi * torch.arange(32, dtype=DOUBLE) / 32).expand_as(at)
    )
    assert abs(slope_of(loss, at, direction) - 2) < 0.1


def test_a_gradient_that_misses_a_path_is_seen() -> None:
    problem = burgers(n=32, seed=7)

    def loss(tensor: Tensor) -> Tensor:
        once = problem.replace(viscosity=tensor)
        value = quietly(once, ExponentialRungeKutta(step=0.01), gradient=Unroll()).value
        return value.square().mean() + 1e-2 * (tensor.detach() * 50).square()

    at = problem.parameters()["viscosity"]
    assert abs(slope_of(loss, at, 0.5 * at) - 2) > 0.5


def test_the_rate_of_a_law_on_the_grid() -> None:
    problem = front()

    def loss(rate: Tensor) -> Tensor:
        return quietly(problem.replace(rate=rate), ExponentialRungeKutta(step=0.05)).value.square().mean()

    assert abs(slope_of(loss, torch.tensor(1.5, dtype=DOUBLE), torch.tensor(20.0, dtype=DOUBLE)) - 2) < 0.1


@pytest.mark.parametrize("way", [Unroll(), Checkpoint(2)], ids=["unroll", "checkpoint"])
def test_second_derivatives(way: Any) -> None:
    problem = burgers(n=6, times=(0.01,), seed=8)

    def last(viscosity: Tensor, start: Tensor) -> Tensor:
        return quietly(
            problem.replace(viscosity=viscosity, start=start), ExponentialRungeKutta(step=0.005), gradient=way
        ).value

    inputs = (problem.parameters()["viscosity"].clone().requires_grad_(), problem.start.clone().requires_grad_())
    assert torch.autograd.gradcheck(last, inputs)
    assert torch.autograd.gradgradcheck(last, inputs)


def test_gradients_of_collocation_agree() -> None:
    problem = burgers(n=32, seed=9)
    found = []
    for solver in (ExponentialRungeKutta(step=1e-3), Collocation(step=0.02)):
        nu = problem.parameters()["viscosity"].clone().requires_grad_()
        loss = quietly(problem.replace(viscosity=nu), solver, gradient=Unroll()).value.square().mean()
        found.append(float(torch.autograd.grad(loss, nu)[0]))
    assert found[0] == pytest.approx(found[1], rel=1e-7)  # fixed-point sweeps end at 2e-8 of the target 1e-6


# Refusals


def test_bad_input_is_named() -> None:
    problem = burgers()
    bad = problem.start.clone()
    bad[0, 0, 5] = float("nan")
    with pytest.raises(InputError, match="start"):
        sciml.solve(problem.replace(start=bad))
    with pytest.raises(InputError, match="viscosity"):
        sciml.solve(problem.replace(viscosity=float("nan")))
    for step in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="step"):
            ExponentialRungeKutta(step=step)
    with pytest.raises(InputError, match="stages"):
        Collocation(stages=1)
    with pytest.raises(InputError, match="increase"):
        burgers(times=(0.5, 0.5))
    with pytest.raises(InputError, match="residual"):
        nu = problem.parameters()["viscosity"].clone().requires_grad_()
        sciml.solve(problem.replace(viscosity=nu), ExponentialRungeKutta(step=0.01), gradient=Implicit())


def test_without_a_stiff_part_it_says_why() -> None:
    plain = dataclasses.replace(front(), stiff=None)
    reason = ExponentialRungeKutta().accepts(plain)
    assert reason is not None and "stiff" in reason
    assert quietly(plain, Collocation(step=0.05)).ok


# The pilot run


def test_the_series_of_steps() -> None:
    from sciml.solvers._pilot import round_down

    assert [round_down(h) for h in (1e-3, 0.00124, 0.99e-3, 7.9, 3.3e-5)] == [1e-3, 1e-3, 8e-4, 6.3, 3.2e-5]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_default_step_holds_for_rough_and_smooth_members(dtype: str) -> None:
    for viscosity, seed in ((0.1, 2), (0.03, 4), (0.005, 1)):
        solution = sciml.solve(sciml.problem("burgers", n=64, viscosity=viscosity, batch=3, seed=seed, dtype=dtype))
        assert solution.ok, f"{viscosity}: {solution}"
        assert solution.stats["step"] <= 0.05
