"""Samplers against posteriors known in closed form, and the record that tells draws of the posterior from others.

Monte-Carlo bounds: with 500 chains the mean of exact draws is off by about sqrt(1/500) = 0.045 posterior deviations; limits below are
what the samplers reach with a margin of about two of that.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core import Answer, Code, Context, GaussianNoise, Inverse, Matrix
from sciml.core.calibration import Calibration
from sciml.priors import Ancestral, Denoiser, Gaussian, Heun, Mixture
from sciml.samplers import (
    DecomposedDiffusion,
    DiffusionPosteriorSampling,
    GaussianPosterior,
    Isotropic,
    MomentMatching,
    NullSpace,
    RedDiff,
    TwistedDiffusion,
)
from sciml.samplers.gaussian_posterior import example
from sciml.solvers import Calibrated, ConjugateGradient

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmark"))
import posterior as table  # noqa: E402

LIMITS = [
    (GaussianPosterior(), 0.09, 0.2),
    (MomentMatching(walk=Heun(40)), 0.09, 0.2),
    (MomentMatching(walk=Heun(40), covariance=Isotropic()), 0.15, 0.25),
    (DecomposedDiffusion(steps=49), 0.2, 0.4),
    (NullSpace(steps=100), 0.2, 0.4),
    (DiffusionPosteriorSampling(), 0.2, 0.3),
]


def drawn(sampler: Any, problem: Inverse[Any], count: int) -> Tensor:
    found = dataclasses.replace(sampler, samples=count, seed=3).run(problem, None, Context()).samples
    assert found is not None
    return found[:, 0, 0]


@pytest.mark.parametrize(("sampler", "mean", "covariance"), LIMITS, ids=lambda v: type(v).__name__)
def test_gaussian_posterior(sampler: Any, mean: float, covariance: float) -> None:
    problem, centre, spread = table.gaussian()
    found = table.errors(drawn(sampler, problem, 500), centre, spread)
    assert found["mean error"] <= mean
    assert found["covariance error"] <= covariance


def test_the_limits_reject_a_wrong_noise_level() -> None:
    problem, centre, spread = table.gaussian()
    wrong = dataclasses.replace(problem, noise=GaussianNoise(10 * table.SIGMA))
    found = table.errors(drawn(MomentMatching(walk=Heun(20)), wrong, 500), centre, spread)
    assert found["covariance error"] > 0.25


def test_weights_of_three_modes() -> None:
    """400 chains: the share of a mode of weight 0.8 has a standard error of 0.02 if they were independent."""
    problem, exact = table.mixture()
    share = table.weights(drawn(TwistedDiffusion(steps=100), problem, 400))
    assert float((share - exact).abs().max()) <= 0.08
    plain = table.weights(drawn(MomentMatching(walk=Heun(20)), problem, 400))
    assert float((plain - exact).abs().max()) > 0.08  # which is why there are twisted chains


def test_complex_images_and_masks() -> None:
    """Fourier samples of a complex signal under a Gaussian prior of both parts: mean and variance in closed form."""
    from sciml.core.linear import LinearOperator
    from sciml.domains.space import Space
    from sciml.priors import MagnitudePhase

    @dataclass(frozen=True, eq=False)
    class Phased(LinearOperator):
        """Every other number, times i."""

        @property
        def space(self) -> Space:
            return Space(None, (1, 8), complex=True, dtype=torch.complex128)

        @property
        def codomain(self) -> Space:
            return Space(None, (1, 4), complex=True, dtype=torch.complex128)

        def __call__(self, u: Tensor) -> Tensor:
            return 1j * u[..., ::2]

        def adjoint(self, v: Tensor) -> Tensor:
            out = torch.zeros(*v.shape[:-1], 8, dtype=v.dtype)
            out[..., ::2] = -1j * v
            return out

    phase = torch.linspace(0, 3, 8, dtype=torch.float64)
    inner = Gaussian(Matrix(torch.eye(8, dtype=torch.float64)), mean=1.0)
    prior = MagnitudePhase(inner, phase, imaginary=0.3)
    truth = torch.polar(torch.ones(8, dtype=torch.float64), phase).reshape(1, 1, 8)
    forward, noise = Phased(), GaussianNoise(0.5)
    data = noise.sample(forward(truth), generator=torch.Generator().manual_seed(0))
    problem = Inverse("phased", forward, data, noise, prior)
    w = torch.polar(torch.ones(4, dtype=torch.float64), -phase[::2]) * (-1j * data[0, 0])
    # The null-space method takes what is measured from the data as it is, and does not shrink the imaginary part.
    for sampler, limit in (
        (MomentMatching(walk=Heun(20)), 0.1),
        (DecomposedDiffusion(steps=60), 0.2),
        (NullSpace(), 0.5),
    ):
        x = drawn(sampler, problem, 400) * torch.polar(torch.ones(8, dtype=torch.float64), -phase)
        seen = x[:, ::2].mean(0)
        exact = torch.complex((1 + 4 * w.real) / 5, w.imag * 0.09 / (0.09 + 0.25))
        assert float((seen - exact).abs().max()) <= limit, type(sampler).__name__
        assert float((x[:, 1::2].mean(0) - 1).abs().max()) <= 0.2, type(sampler).__name__
        assert abs(float(x[:, 1::2].real.std()) - 1) <= max(limit, 0.1), type(sampler).__name__
        assert abs(float(x[:, 1::2].imag.std()) - 0.3) <= 0.5 * max(limit, 0.1), type(sampler).__name__


@dataclass(frozen=True, eq=False)
class Narrow(GaussianPosterior):
    """Draws whose spread is a factor of what it should be."""

    factor: float = 1.0

    def run(self, problem: Any, start: Tensor | None, context: Any) -> Answer:
        answer = GaussianPosterior(samples=self.samples, seed=self.seed).run(problem, start, context)
        assert answer.samples is not None
        # About the posterior mean, not that of the samples, which would hide part of it.
        many = GaussianPosterior(samples=150, seed=self.seed + 1).run(problem, start, context).value
        return dataclasses.replace(answer, samples=many + self.factor * (answer.samples - many))


def test_the_record_earns_the_certificate() -> None:
    sampler, problem = example()
    record = sciml.calibrate(problem, dataclasses.replace(sampler, samples=19), cases=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sciml.solve(problem, sampler).code is Code.UNCERTIFIED
    assert sciml.solve(problem, Calibrated(sampler, record)).ok
    assert "cases" in str(record)


@pytest.mark.parametrize("factor", [2 / 3, 1.6])
def test_a_wrong_spread_is_not_certified(factor: float) -> None:
    _, problem = example()
    sampler = Narrow(samples=19, factor=factor)
    record = sciml.calibrate(problem, sampler, cases=64)
    assert record.deviation > problem.targets["calibration"]
    with pytest.warns(UserWarning, match="UNCERTIFIED"):
        assert not sciml.solve(problem, Calibrated(sampler, record)).ok


def test_a_point_is_not_a_posterior() -> None:
    _, problem = example()
    record = sciml.calibrate(problem, RedDiff(steps=40, samples=9), cases=16)
    assert record.deviation > 0.3


def test_a_record_is_of_one_sampler_on_one_model(tmp_path: Path) -> None:
    sampler, problem = example()
    record = sciml.calibrate(problem, sampler, cases=4, out=tmp_path / "record.json")
    assert Calibrated(sampler, record).accepts(problem.replace(data=2 * problem.data)) is None
    reason = Calibrated(dataclasses.replace(sampler, inner=3), record).accepts(problem)
    assert reason is not None and "inner=3" in reason
    noisier = dataclasses.replace(problem, noise=GaussianNoise(0.2))
    reason = Calibrated(sampler, record).accepts(noisier)
    assert reason is not None and "another model, noise or prior" in reason
    other = dataclasses.replace(problem, prior=dataclasses.replace(problem.prior, mean=0.6, bound=None), recipe=None)
    assert Calibrated(sampler, record).accepts(other) is not None
    assert record.deviation == float("inf")  # four cases say nothing
    with pytest.raises(sciml.InputError, match="another file"):
        sciml.calibrate(noisier, sampler, cases=4, out=tmp_path / "record.json")
    (tmp_path / "noise.json").write_text("no record")
    with pytest.raises(sciml.InputError, match="no calibration record"):
        sciml.calibrate(problem, sampler, cases=4, out=tmp_path / "noise.json")


def test_a_killed_calibration_goes_on(tmp_path: Path) -> None:
    sampler, problem = example()
    whole = sciml.calibrate(problem, sampler, cases=6)

    def kill(case: int, cases: int, share: float) -> None:
        if case == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sciml.calibrate(problem, sampler, cases=6, out=tmp_path / "record.json", progress=kill)
    seen: list[int] = []
    again = sciml.calibrate(
        problem, sampler, cases=6, out=tmp_path / "record.json", progress=lambda case, *_: seen.append(case)
    )
    assert seen == [4, 5, 6]
    assert torch.equal(whole.ranks, again.ranks)
    assert torch.equal(whole.crps, again.crps)


def test_coverage_counts_ranks() -> None:
    """Uniform ranks cover what they should; the truth always in the middle, or always outside, does not."""
    even = torch.arange(20).repeat(5, 1).T.contiguous()
    record = Calibration(even, torch.zeros(20), 19, "", "")
    assert record.coverage(0.9) == pytest.approx((0.9, 0.9, 0.0688), abs=1e-3)
    middle = Calibration(torch.full((20, 5), 10), torch.zeros(20), 19, "", "")
    assert middle.coverage(0.5)[1] == 1.0
    assert middle.deviation > 0.5


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda p: sciml.calibrate(p, GaussianPosterior(), cases=1), "at least 2"),
        (lambda p: sciml.calibrate(p, ConjugateGradient()), "cannot be asked"),
        (lambda p: sciml.calibrate(p, GaussianPosterior(samples=2)), "at least 3"),
        (lambda p: sciml.calibrate(p, GaussianPosterior(), cases=4, truths=torch.zeros(2, 1, 9)), "one for each"),
        (lambda p: sciml.calibrate(p, "dds"), "takes a sampler"),
        (lambda p: Calibrated(GaussianPosterior(), 0.9), "record"),  # type: ignore[arg-type]
        (lambda p: DecomposedDiffusion(eta=2.0), "eta"),
        (lambda p: DecomposedDiffusion(steps=0), "at least 1"),
    ],
)
def test_bad_input_is_one_sentence(call: Any, match: str) -> None:
    with pytest.raises(sciml.InputError, match=match):
        call(example()[1])


def test_a_denoiser_that_fails_at_one_level_is_named() -> None:
    _, problem = example()

    def fails(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.where(sigma < 0.3, torch.full_like(x, float("nan")), x / (1 + sigma**2))

    posed = dataclasses.replace(problem, prior=Denoiser(fails), recipe=None)
    with pytest.raises(sciml.InputError, match="not finite at sigma"):
        sciml.solve(posed, DecomposedDiffusion(steps=20, samples=2))


def test_linear_samplers_refuse_nonlinear_models() -> None:
    problem = sciml.problem("inverse_darcy", n=15)
    posed = dataclasses.replace(problem, prior=Gaussian(sciml.GaussianField(mean_mode=True)), recipe=None)
    for sampler in (DecomposedDiffusion(), NullSpace(), MomentMatching(), TwistedDiffusion()):
        reason = sampler.accepts(posed)
        assert reason is not None and "linear" in reason
    for any_model in (DiffusionPosteriorSampling(), RedDiff()):
        assert any_model.accepts(posed) is None


def test_nonlinear_models_are_sampled() -> None:
    """The square of a positive number: data pull the samples to where they explain them."""
    from sciml.core.linear import ForwardModel, LinearOperator
    from sciml.domains.space import Space

    @dataclass(frozen=True, eq=False)
    class Square(ForwardModel):
        @property
        def space(self) -> Space:
            return Space(None, (1, 5))

        codomain = space

        def __call__(self, u: Tensor) -> Tensor:
            return u.square()

        def linearise(self, x: Tensor) -> LinearOperator:
            return Matrix(torch.diag_embed(2 * x[:, 0]))

    prior = Mixture(torch.full((1, 1, 5), 2.0, dtype=torch.float64), 0.25)
    problem = Inverse("squares", Square(), torch.full((1, 1, 5), 6.25, dtype=torch.float64), GaussianNoise(0.2), prior)
    x = drawn(DiffusionPosteriorSampling(walk=Ancestral(60)), problem, 50)
    assert abs(float(x.mean()) - 2.48) <= 0.05  # the mode of the posterior is 2.489
    assert abs(float(drawn(RedDiff(steps=150), problem, 2).mean()) - 2.48) <= 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_zeros_measure_nothing(dtype: torch.dtype) -> None:
    """A model of two unlike singular values and one that is zero: the null-space method keeps what is measured."""
    matrix = torch.zeros(3, 4, dtype=dtype)
    matrix[0, 0], matrix[1, 1] = 1.0, 2.0
    problem = Inverse(
        "two of four", Matrix(matrix), torch.tensor([[[1.0, 2.0, 9.0]]], dtype=dtype), GaussianNoise(0.01),
        Gaussian(Matrix(torch.eye(4, dtype=dtype))),
    )  # fmt: skip
    x = drawn(NullSpace(steps=30), problem, 20)
    assert float((x[:, :2] - 1).abs().max()) < 0.5  # the prior alone is about 1 off
    assert 0.5 < float(x[:, 2:].std()) < 1.5


def test_the_noise_of_the_data_counts_as_part_of_the_fresh_noise() -> None:
    """A step of NullSpace where the data tell everything: samples spread about them by what their own noise leaves of the level."""
    deviation, eta, level = 0.3, 0.8, 1.0  # the lowest level is a thousandth of the range
    flat = Denoiser(lambda x, sigma: x, range=(0.0, 1000 * level))
    data = torch.tensor([[[0.2, -0.7, 0.4]]], dtype=torch.float64)
    problem = Inverse("told", Matrix(torch.eye(3, dtype=torch.float64)), data, GaussianNoise(deviation), flat)
    found = drawn(NullSpace(steps=2, eta=eta), problem, 4000)
    left = (eta * level) ** 2 - deviation**2
    assert torch.allclose(found.mean(0), data[0, 0], atol=4 * math.sqrt(left / 4000))
    assert torch.allclose(found.var(0), torch.full((3,), left, dtype=torch.float64), rtol=4 * math.sqrt(2 / 4000))
