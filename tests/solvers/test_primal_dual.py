"""PrimalDual, Discrepancy and PlugAndPlay against dense minimisers, and what their certificates promise."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import sciml
from sciml.core import Answer, Code, GaussianNoise, Inverse, Matrix, PoissonNoise
from sciml.domains import InputError, Pixels
from sciml.forward import Convolution, Radon, gaussian_kernel
from sciml.networks import UNet
from sciml.priors import Denoiser, Diffusion, Smoothness, TotalVariation, Wavelet
from sciml.solvers import Discrepancy, PlugAndPlay, PrimalDual
from sciml.solvers.primal_dual import example

PIXELS = Pixels((9, 11), (1.0, 0.7))


def scan(batch: int = 1, *, seed: int = 0, sigma: float = 0.02, weight: float | None = 20.0) -> Inverse[Any]:
    """A small scan of a block, 12 views."""
    generator = torch.Generator().manual_seed(seed)
    radon = Radon(PIXELS, torch.arange(12, dtype=torch.float64) * (np.pi / 12))
    truth = torch.zeros(batch, 1, 9, 11, dtype=torch.float64)
    truth[:, :, 2:6, 3:8] = 1 + torch.rand(batch, 1, 1, 1, generator=generator, dtype=torch.float64)
    noise = GaussianNoise(sigma)
    data = noise.sample(radon(truth), generator=generator)
    return Inverse("a block", radon, data, noise, TotalVariation(), weight=weight, truth=truth)


def least(problem: Inverse[Any]) -> float:
    """The minimum of the objective, by quasi-Newton steps on a smoothed one whose smoothing is taken back."""
    shape = (1, *problem.space.shape)
    value, x = np.inf, np.zeros(int(np.prod(shape)))
    kx = problem.prior.operator
    weight = float(problem.weights()[0])
    unit = float(problem.prior.outer(torch.ones_like(kx(torch.zeros(shape, dtype=torch.float64)))))
    size = unit / (9 * 11) / np.sqrt(2)  # outer of one unit jump

    for smooth in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):

        def smoothed(flat: np.ndarray, smooth: float = smooth) -> tuple[float, np.ndarray]:
            u = torch.as_tensor(flat).reshape(shape).requires_grad_()
            z = kx(u).reshape(2, -1)
            total = problem.noise.energy(problem.forward(u), problem.data).sum()
            total = total + weight * size * (z.square().sum(0) + smooth**2).sqrt().sum()
            (slope,) = torch.autograd.grad(total, u)
            return float(total.detach()), slope.numpy().ravel()

        x = minimize(
            smoothed, x, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10}
        ).x
        value = min(value, float(problem.objective(torch.as_tensor(x).reshape(shape))))
    return value


def test_the_gap_bounds_the_distance_to_the_minimum() -> None:
    problem = scan()
    best = least(problem)
    for goal in (1e-1, 1e-2, 1e-3, 1e-5):
        solution = sciml.solve(problem.with_target(optimality=goal), PrimalDual())
        assert solution.ok
        found = float(problem.objective(solution.value))
        bound = float(solution.check("optimality").value) * found
        assert found - best <= bound * (1 + 1e-6) + 1e-7 * best  # the minimum itself is known to about 1e-8
    assert abs(found / best - 1) < 1e-5


@pytest.mark.parametrize("prior", [TotalVariation(), TotalVariation(lower=0.0, upper=1.2), Wavelet(levels=1)])
def test_every_composite_prior_is_certified(prior: Any) -> None:
    problem = scan().with_prior(prior, weight=5.0)
    solution = sciml.solve(problem, PrimalDual())
    assert solution.ok, str(solution)
    assert torch.equal(problem.prior.inside(solution.value), solution.value)


def test_a_wrong_image_or_weight_is_not_certified() -> None:
    problem = scan()
    setup = PrimalDual()
    answer = setup.run(problem, None, sciml.core.Context())
    assert problem.certify(answer)[0].passed.all()
    shifted = dataclasses.replace(answer, value=answer.value.roll(1, -1))
    assert not problem.certify(shifted)[0].passed.any()
    assert not problem.with_weight(60.0).certify(answer)[0].passed.any()
    infeasible = dataclasses.replace(answer, dual={**answer.dual, "prior": 1.1 * answer.dual["prior"]})
    assert not problem.certify(infeasible)[0].passed.any()
    zero = Answer(torch.zeros_like(answer.value), torch.tensor([int(Code.CONVERGED)]))
    assert not problem.certify(zero)[0].passed.any()
    assert torch.isinf(scan(weight=None).certify(answer.value)[0].value).all()  # no weight: nothing is optimal


def test_a_batch_is_its_members_and_twice_is_the_same() -> None:
    problem = scan(3)
    whole, again = sciml.solve(problem, PrimalDual()).value, sciml.solve(problem, PrimalDual()).value
    assert torch.equal(whole, again)
    for i in range(3):
        alone = sciml.solve(problem.member(i), PrimalDual()).value
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("c", [1e-3, 7.0, 1e4])
def test_units_of_the_data_do_not_matter(c: float) -> None:
    problem = scan(weight=None)
    scaled = Inverse("scaled", c * problem.forward, c * problem.data, GaussianNoise(c * 0.02), TotalVariation())
    for solver in (Discrepancy(PrimalDual()),):
        one, other = sciml.solve(problem, solver).value, sciml.solve(scaled, solver).value
        torch.testing.assert_close(other, one, rtol=0, atol=1e-10)


def test_a_budget_of_two_steps_is_told() -> None:
    with pytest.warns(UserWarning, match="BUDGET"):
        solution = sciml.solve(scan(), PrimalDual(max_steps=2))
    assert solution.code is Code.BUDGET
    assert not solution.ok


def test_counts_as_data() -> None:
    generator = torch.Generator().manual_seed(3)
    blur = Convolution(PIXELS, gaussian_kernel(0.1, PIXELS.spacing))
    truth = torch.full((1, 1, 9, 11), 20.0, dtype=torch.float64)
    truth[..., 3:6, 4:8] = 200.0
    noise = PoissonNoise(background=5.0)
    data = noise.sample(blur(truth), generator=generator)
    problem = Inverse("photons", blur, data, noise, TotalVariation(lower=0.0), weight=0.2)
    solution = sciml.solve(problem.with_target(optimality=5e-2), PrimalDual())
    assert solution.ok, str(solution)
    assert (solution.value - truth).norm() < 0.7 * (data - truth).norm()


def test_gradients_pass_through_the_steps() -> None:
    problem = scan()
    data = problem.data.clone().requires_grad_()
    way = torch.randn(data.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def value(y: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return sciml.solve(problem.replace(data=y), PrimalDual(max_steps=15, ratio=0.1)).value.square().sum()

    (slope,) = torch.autograd.grad(value(data), data)
    step = 1e-7  # images are about 1: kinks of the projections stay out of the way
    with torch.no_grad():
        numeric = (value(problem.data + step * way) - value(problem.data - step * way)) / (2 * step)
    assert abs(float((slope * way).sum() / numeric) - 1) < 1e-5  # central differences


def test_the_weight_is_found_from_the_noise_alone() -> None:
    problem = scan(3, weight=None)
    solution = sciml.solve(problem, Discrepancy(PrimalDual()))
    assert solution.ok, str(solution)
    chi = solution.check("chi-square per degree of freedom").value
    assert (chi - 1).abs().max() < problem.targets["misfit"]
    without = dataclasses.replace(problem, truth=None)
    assert torch.equal(sciml.solve(without, Discrepancy(PrimalDual())).value, solution.value)
    with pytest.warns(UserWarning, match="misfit"):
        generous = sciml.solve(problem, Discrepancy(PrimalDual(), target=1.5))
    assert (generous.check("chi-square per degree of freedom").value > chi).all()


def test_a_sigma_that_is_wrong_is_told() -> None:
    problem = scan(weight=None, sigma=0.02)
    hopeless = dataclasses.replace(problem, noise=GaussianNoise(1e-7))
    with pytest.warns(UserWarning):
        solution = sciml.solve(hopeless, Discrepancy(PrimalDual(max_steps=60), rounds=3))
    assert not solution.ok


@pytest.mark.parametrize(
    ("problem", "solver", "sentence"),
    [
        (scan(weight=None), PrimalDual(), "no weight is posed"),
        (scan().with_prior(Smoothness(), 1.0), PrimalDual(), "not of the form"),
        (scan().with_prior(None), Discrepancy(PrimalDual()), "no prior"),
        (scan().with_prior(Denoiser(lambda x, s: x)), Discrepancy(PrimalDual()), "states no energy"),
        (scan(), PlugAndPlay(), "does not denoise"),
        (scan().with_prior(Diffusion(UNet(2))), PlugAndPlay(), "declares no range"),
        (sciml.problem("poisson", n=5), PrimalDual(), "Inverse problems"),
    ],
)
def test_refusals_are_sentences(problem: Any, solver: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        sciml.solve(problem, solver)


def test_impossible_settings() -> None:
    for make in (
        lambda: PrimalDual(max_steps=0),
        lambda: PrimalDual(ratio=-1.0),
        lambda: PrimalDual(relaxation=2.0),
        lambda: Discrepancy(PrimalDual),  # type: ignore[arg-type]
        lambda: Discrepancy(PrimalDual(), target=0.0),
        lambda: PlugAndPlay(first=-0.1),
        lambda: PlugAndPlay(trials=0),
    ):
        with pytest.raises(InputError):
            make()


def shrink(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """A filter."""
    around = (x.roll(1, -1) + x.roll(-1, -1) + x.roll(1, -2) + x.roll(-1, -2)) / 4
    return x + (around - x) * sigma / (sigma + 0.1)


def test_plug_and_play_explains_the_data_and_keeps_the_units() -> None:
    problem = scan(2, weight=None).with_prior(Denoiser(shrink, range=(0.0, 2.0)))
    solver = PlugAndPlay(max_steps=6)
    solution = sciml.solve(problem, solver)
    assert solution.ok, str(solution)
    scaled = dataclasses.replace(
        problem, forward=8.0 * problem.forward, data=8.0 * problem.data, noise=GaussianNoise(8.0 * 0.02)
    )
    torch.testing.assert_close(sciml.solve(scaled, solver).value, solution.value, rtol=0, atol=1e-10)
    alone = sciml.solve(problem.member(1), solver).value
    torch.testing.assert_close(solution.value[1:], alone, rtol=0, atol=1e-7)  # inner solves stop at 1e-3

    def flatten(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return TotalVariation().prox(x, sigma.reshape(-1))

    flat = sciml.solve(problem.with_prior(Denoiser(flatten, range=(0.0, 2.0))), solver)
    plain = sciml.solve(problem.with_prior(Denoiser(lambda x, s: x, range=(0.0, 2.0))), solver)
    assert (flat.value - problem.truth).norm() < 0.7 * (plain.value - problem.truth).norm()


def test_the_example_of_one_matrix() -> None:
    solver, problem = example()
    assert isinstance(problem.forward, Matrix)
    assert sciml.solve(problem, solver).ok
