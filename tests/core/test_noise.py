"""Likelihoods: derivatives, conjugates, proximal maps, whitening, sampling, densities, and what they refuse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from sciml.core import (
    CorrelatedNoise,
    CovarianceMatrix,
    GaussianNoise,
    Noise,
    PoissonNoise,
    PowerSpectrum,
    TransmissionNoise,
)
from sciml.domains.errors import InputError

SHAPE = (2, 1, 3, 5)
F = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spectrum(*shape: int) -> Tensor:
    """Positive and even in frequency."""
    d = torch.rand(shape, generator=seeded(3), dtype=F) + 0.2
    axes = tuple(range(d.ndim))
    return d + d.flip(axes).roll((1,) * d.ndim, axes)


def covariance(n: int) -> Tensor:
    a = torch.randn(n, n, generator=seeded(4), dtype=F)
    return a @ a.T / n + 0.1 * torch.eye(n, dtype=F)


MASK = torch.rand(SHAPE, generator=seeded(5)) > 0.3
CASES: dict[str, tuple[Noise, Tensor]] = {
    "gaussian": (GaussianNoise(torch.tensor([0.3, 2.0], dtype=F)), torch.rand(SHAPE, generator=seeded(1), dtype=F)),
    "gaussian, some measured": (GaussianNoise(0.5, MASK), torch.rand(SHAPE, generator=seeded(1), dtype=F)),
    "poisson": (PoissonNoise(), torch.rand(SHAPE, generator=seeded(1), dtype=F) * 9 + 1),
    "poisson, background": (PoissonNoise(torch.tensor([0.5, 3.0], dtype=F), MASK), torch.rand(SHAPE, generator=seeded(1), dtype=F) * 4),
    "transmission": (TransmissionNoise(200.0), torch.rand(SHAPE, generator=seeded(1), dtype=F) * 3),
    "transmission, background": (TransmissionNoise(torch.full(SHAPE[1:], 90.0, dtype=F), 2.0, MASK), torch.rand(SHAPE, generator=seeded(1), dtype=F) * 2),
    "stationary": (CorrelatedNoise(PowerSpectrum(spectrum(3, 5))), torch.rand(SHAPE, generator=seeded(1), dtype=F)),
    "stationary along the last axis": (CorrelatedNoise(PowerSpectrum(spectrum(5))), torch.rand(SHAPE, generator=seeded(1), dtype=F)),
    "matrix of the last axis": (CorrelatedNoise(CovarianceMatrix(covariance(5))), torch.rand(SHAPE, generator=seeded(1), dtype=F)),
    "matrix of all": (CorrelatedNoise(CovarianceMatrix(covariance(15))), torch.rand(SHAPE, generator=seeded(1), dtype=F)),
}  # fmt: skip
CONVEX = {name: case for name, case in CASES.items() if name != "transmission, background"}


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> tuple[Noise, Tensor, Tensor]:
    noise, z = CASES[request.param]
    y = noise.sample(z, generator=seeded(2))
    noise.validate("a test", y)
    return noise, z, y


@pytest.fixture(params=CONVEX, ids=str)
def convex(request: pytest.FixtureRequest) -> tuple[Noise, Tensor, Tensor]:
    noise, z = CONVEX[request.param]
    return noise, z, noise.sample(z, generator=seeded(2))


def remainder(noise: Any, z: Tensor, y: Tensor) -> float:
    """The slope with which the Taylor remainder of the energy falls; inf where it is at rounding level."""
    d = torch.randn(z.shape, generator=seeded(7), dtype=F)
    d = 0.3 * d * z.abs().clamp_min(0.1)
    steps = [2.0**-k for k in range(5, 11)]
    base, slope = noise.energy(z, y), (noise.slope(z, y) * d).flatten(1).sum(1)
    errors = [float((noise.energy(z + h * d, y) - base - h * slope).abs().sum()) for h in steps]
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def test_slopes(case: tuple[Noise, Tensor, Tensor]) -> None:
    assert remainder(*case) == pytest.approx(2.0, abs=0.1)


@dataclass
class Twin:
    """A likelihood with one method spoiled."""

    inner: Any
    spoiled: str
    factor: float = 1.02

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        return (lambda *a, **k: self.factor * value(*a, **k)) if name == self.spoiled else value


def test_a_wrong_slope_is_seen(case: tuple[Noise, Tensor, Tensor]) -> None:
    noise, z, y = case
    assert remainder(Twin(noise, "slope", 1.2), z, y) < 1.7


def test_slopes_by_automatic_differentiation(case: tuple[Noise, Tensor, Tensor]) -> None:
    noise, z, y = case
    at = z.clone().requires_grad_()
    (found,) = torch.autograd.grad(noise.energy(at, y).sum(), at)
    torch.testing.assert_close(found, noise.slope(z, y), rtol=1e-9, atol=1e-9)


def test_bends(case: tuple[Noise, Tensor, Tensor]) -> None:
    """The derivative of the slope; with a background of transmission noise its expectation, at ``y = lam``."""
    noise, z, y = case
    y = noise.expected(z) if isinstance(noise, TransmissionNoise) else y
    r = torch.randn(SHAPE, generator=seeded(8), dtype=F)
    h = 1e-5
    found = (noise.slope(z + h * r, y) - noise.slope(z - h * r, y)) / (2 * h)
    torch.testing.assert_close(noise.bend(r, z, y), found, rtol=1e-6, atol=1e-7)


def test_the_energy_is_zero_at_its_minimum(case: tuple[Noise, Tensor, Tensor]) -> None:
    noise, z, _ = case
    y = noise.expected(z) if isinstance(noise, PoissonNoise | TransmissionNoise) else z
    assert float(noise.energy(z, y).abs().max()) < 1e-12
    for seed in range(5):
        other = z + 0.1 * torch.randn(SHAPE, generator=seeded(seed), dtype=F) * z.abs()
        assert bool((noise.energy(other, y) > 0).all())


def test_too_few_counts_in_transmission() -> None:
    """Fewer counts than the background: the infimum, at full absorption, is still zero."""
    noise = TransmissionNoise(100.0, 5.0)
    y = torch.tensor([[[2.0, 0.0, 7.0]]], dtype=F)
    z = torch.tensor([[[40.0, 40.0, math.log(50.0)]]], dtype=F)
    assert float(noise.energy(z, y)) == pytest.approx(0.0, abs=1e-12)
    assert float(TransmissionNoise(100.0).energy(z[..., 1:2], y[..., 1:2])) == pytest.approx(0.0, abs=1e-12)


def dot_error(noise: Any, y: Tensor) -> float:
    r, q = (torch.randn(SHAPE, generator=seeded(s), dtype=F) for s in (9, 10))
    a, b = (noise.whiten(r, y) * q).sum(), (r * noise.unwhiten(q, y)).sum()
    return float((a - b).abs() / (noise.whiten(r, y).norm() * q.norm()))


def test_whitening_and_its_adjoint(case: tuple[Noise, Tensor, Tensor]) -> None:
    noise, _, y = case
    assert dot_error(noise, y) < 1e-13
    assert dot_error(Twin(noise, "unwhiten"), y) > 1e-4


def test_whitened_slope(case: tuple[Noise, Tensor, Tensor]) -> None:
    noise, z, y = case
    torch.testing.assert_close(noise.unwhiten(noise.whitened_slope(z, y), y), noise.slope(z, y))


def dual_objective(noise: Any, p: Tensor, q: Tensor, step: Tensor, y: Tensor) -> Tensor:
    return (p - q).square().flatten(1).sum(1) / 2 + step * noise.conjugate(p, y)


def lowered(noise: Any, y: Tensor) -> float:
    """How much lower than at the proximal point the dual objective is found to be nearby."""
    q = torch.randn(SHAPE, generator=seeded(11), dtype=F)
    step = torch.tensor([0.4, 3.0], dtype=F)
    p = noise.dual_prox(q, step, y)
    base = dual_objective(noise, p, q, step, y)
    if not bool(torch.isfinite(base).all()):
        return math.inf
    worst = 0.0
    generator = seeded(12)
    measured = noise.measured if noise.measured is not None else torch.ones(SHAPE, dtype=torch.bool)
    for radius in (1.0, 0.1, 1e-2, 1e-3, 1e-4):
        for d in (q - p, p, *(torch.randn(SHAPE, generator=generator, dtype=F) for _ in range(40))):
            for sign in (-1, 1):
                there = p + sign * radius * d * measured
                value = dual_objective(noise, there, q, step, y)
                worst = max(worst, float(((base - value) / base.abs().clamp_min(1)).max()))
    return worst


def test_dual_prox_by_brute_force(convex: tuple[Noise, Tensor, Tensor]) -> None:
    noise, _, y = convex
    assert lowered(noise, y) < 1e-13
    assert lowered(Twin(noise, "dual_prox"), y) > 1e-7


def test_conjugates(convex: tuple[Noise, Tensor, Tensor]) -> None:
    """Fenchel and Young: ``F(W z) + F*(q) >= <W z, q>``, with equality where ``q`` is the slope at ``W z``."""
    noise, z, y = convex

    def gap(q: Tensor) -> Tensor:
        return noise.energy(z, y) + noise.conjugate(q, y) - (noise.whiten(z, y) * q).flatten(1).sum(1)

    touching = noise.whitened_slope(z, y)
    torch.testing.assert_close(gap(touching), torch.zeros(2, dtype=F), rtol=0.0, atol=1e-9)
    generator = seeded(13)
    for _ in range(20):
        away = touching + 0.3 * torch.randn(SHAPE, generator=generator, dtype=F) * touching.ne(0)
        assert bool((gap(away) > 1e-6).all())


def test_unmeasured_duals_are_infinite() -> None:
    y = torch.ones(1, 1, 4, dtype=F)
    noise = PoissonNoise(0.0, torch.tensor([[[True, False, True, True]]]))
    q = torch.full((1, 1, 4), 0.1, dtype=F)
    assert float(noise.conjugate(q, y)) == math.inf
    assert math.isfinite(float(noise.conjugate(q * noise.measured, y)))
    assert float(PoissonNoise().conjugate(2 * torch.ones_like(q), y)) == math.inf


def test_transmission_with_background_has_no_dual() -> None:
    y = torch.ones(1, 1, 4, dtype=F)
    noise = TransmissionNoise(10.0, 1.0)
    assert not noise.convex
    for ask in (lambda: noise.conjugate(y, y), lambda: noise.dual_prox(y, torch.ones(1, dtype=F), y)):
        with pytest.raises(InputError, match="background"):
            ask()


@pytest.mark.parametrize("blank", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("step", [1e-6, 1.0, 1e6])
def test_lambert_over_the_whole_range(blank: float, step: float) -> None:
    """The optimality condition ``p - q + step z W^2 = 0`` in whitened units, at extreme settings."""
    noise = TransmissionNoise(blank)
    y = torch.tensor([[[0.0, 1.0, 30.0, 1e5]]], dtype=F)
    q = torch.tensor([[[-3.0, 0.5, 2.0, 10.0]]], dtype=F)
    p = noise.dual_prox(q, torch.tensor([step], dtype=F), y)
    w = noise.whiten(torch.ones_like(y), y)
    z = (q - p) / (step * w)  # the primal point
    s = w * p  # the slope of the energy there, in counts
    wanted = y - blank * torch.exp(-z)
    scale = s.abs() + y + blank * torch.exp(-z) * (1 + z.abs()) + (q.abs() + p.abs()) / step
    assert float(((s - wanted).abs() / scale).max()) < 1e-9


def test_chi_square_on_average(case: tuple[Noise, Tensor, Tensor]) -> None:
    """Its mean over 4000 draws is ``dof`` within five standard errors of that mean (measured)."""
    noise, z, y = case
    generator, count = seeded(14), 4000
    values = torch.stack([noise.chi_square(z, noise.sample(z, generator=generator)) for _ in range(count)])
    error = values.std(0) / math.sqrt(count)
    assert bool(((values.mean(0) - noise.dof(y)).abs() < 5 * error).all())
    assert bool((error < 0.05 * noise.dof(y)).all())  # an error of a tenth would be seen


def test_samples_have_the_covariance_that_is_stated() -> None:
    for noise in (CorrelatedNoise(PowerSpectrum(spectrum(5))), CorrelatedNoise(CovarianceMatrix(covariance(5)))):
        drawn = noise.sample(torch.zeros(20_000, 1, 5, dtype=F), generator=seeded(15))[:, 0]
        eye = torch.eye(5, dtype=F)
        stated = noise.covariance.colour(eye).T if isinstance(noise.covariance, CovarianceMatrix) else noise.covariance.colour(noise.covariance.colour(eye))  # fmt: skip
        stated = stated @ stated.T if isinstance(noise.covariance, CovarianceMatrix) else stated
        # The standard error of an entry is at most sqrt(2 / 20 000) of the largest variance; five of them.
        assert float((torch.cov(drawn.T) - stated).abs().max()) < 0.05 * float(stated.abs().max())


def test_densities_against_scipy() -> None:
    z, y = (torch.rand(2, 1, 3, 5, generator=seeded(s), dtype=F) for s in (1, 2))

    def normal(matrix: Tensor, a: Tensor, b: Tensor) -> float:
        rows = (b - a).reshape(-1, matrix.shape[0]).numpy()
        return float(np.sum(scipy.stats.multivariate_normal(cov=matrix.numpy()).logpdf(rows)))

    whole, last = covariance(15), covariance(5)
    for matrix in (whole, last):
        found = CorrelatedNoise(CovarianceMatrix(matrix)).log_likelihood(z, y)
        assert [float(v) for v in found] == pytest.approx([normal(matrix, z[i], y[i]) for i in range(2)], rel=1e-12)
    density = spectrum(3, 5)
    circulant = PowerSpectrum(density).colour(PowerSpectrum(density).colour(torch.eye(15, dtype=F).reshape(15, 3, 5)))
    found = CorrelatedNoise(PowerSpectrum(density)).log_likelihood(z, y)
    matrix = circulant.reshape(15, 15)
    assert [float(v) for v in found] == pytest.approx([normal(matrix, z[i], y[i]) for i in range(2)], rel=1e-11)

    counts = (9 * y).round()
    lam = 4 * z + 0.5
    wanted = scipy.stats.poisson.logpmf(counts.numpy(), lam.numpy()).reshape(2, -1).sum(1)
    assert PoissonNoise(0.5).log_likelihood(4 * z, counts).numpy() == pytest.approx(wanted, rel=1e-12)
    wanted = scipy.stats.poisson.logpmf(counts.numpy(), (8 * torch.exp(-z) + 0.5).numpy()).reshape(2, -1).sum(1)
    assert TransmissionNoise(8.0, 0.5).log_likelihood(z, counts).numpy() == pytest.approx(wanted, rel=1e-12)


def test_log_likelihood_is_minus_the_energy_up_to_a_constant(case: tuple[Noise, Tensor, Tensor]) -> None:
    noise, z, y = case
    other = 0.9 * z + 0.05
    sums = [noise.log_likelihood(at, y) + noise.energy(at, y) for at in (z, other)]
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-12, atol=1e-9)


def test_complex_data() -> None:
    """Two real components each; the whitened energy is that of the parts."""
    noise = CorrelatedNoise(PowerSpectrum(spectrum(5)))
    z = torch.zeros(4000, 1, 5, dtype=torch.complex128)
    y = noise.sample(z, generator=seeded(16))
    assert float(noise.dof(y)[0]) == 10
    assert float(noise.chi_square(z, y).mean()) == pytest.approx(10, abs=5 * math.sqrt(20 / 4000))
    parts = noise.log_likelihood(z.real, y.real) + noise.log_likelihood(z.imag, y.imag)
    torch.testing.assert_close(noise.log_likelihood(z, y), parts)


@pytest.mark.parametrize("sigma", [1e-3, 0.05, 2.0])
def test_sigma_is_estimated(sigma: float) -> None:
    """Within 5 % on a smooth curve of 64 x 256 values: three standard errors of the median are 2 % there."""
    x = torch.linspace(0, 6, 256, dtype=F)
    curve = (x.sin() * 3).expand(2, 1, 64, 256)
    y = curve + sigma * torch.randn(curve.shape, generator=seeded(17), dtype=F)
    found = GaussianNoise.estimate(y).sigma
    torch.testing.assert_close(found, torch.full((2,), sigma, dtype=F), rtol=0.05, atol=0.0)
    assert not torch.allclose(found * 1.1, torch.full((2,), sigma, dtype=F), rtol=0.05)


def test_single_precision_stays_single(case: tuple[Noise, Tensor, Tensor]) -> None:
    noise, z, y = case
    z, y = z.float(), y.float()
    assert noise.slope(z, y).dtype == noise.whiten(z, y).dtype == noise.bend(z, z, y).dtype == torch.float32
    assert noise.sample(z, generator=seeded()).dtype == torch.float32
    assert noise.energy(z, y).dtype == torch.float64
    if not isinstance(noise, TransmissionNoise) or noise.convex:
        assert noise.dual_prox(z, torch.ones(2), y).dtype == torch.float32


COUNTS = torch.tensor([[[3.0, 0.0, 5.0]]], dtype=F)


@pytest.mark.parametrize(
    ("noise", "y", "word"),
    [
        (PoissonNoise(), COUNTS - 1, "negative"),
        (PoissonNoise(), COUNTS + 0.5, "whole number"),
        (PoissonNoise(), COUNTS.to(torch.complex128), "complex"),
        (PoissonNoise(-1.0), COUNTS, "background"),
        (PoissonNoise(torch.ones(2, 2, 2)), COUNTS, "shape"),
        (TransmissionNoise(0.0), COUNTS, "blank"),
        (TransmissionNoise(torch.tensor([[[1.0, 0.0, 2.0]]])), COUNTS, "measured="),
        (TransmissionNoise(torch.ones(7, 1, 1)), COUNTS, "shape"),
        (TransmissionNoise(5.0, math.nan), COUNTS, "background"),
        (PoissonNoise(0.0, torch.zeros(1, 1, 3, dtype=torch.bool)), COUNTS, "no measured data"),
        (CorrelatedNoise(PowerSpectrum(torch.ones(4))), COUNTS, "shape"),
        (CorrelatedNoise(PowerSpectrum(torch.tensor([1.0, 0.0, 0.0]))), COUNTS, "positive"),
        (CorrelatedNoise(PowerSpectrum(torch.tensor([1.0, 2.0, 3.0]))), COUNTS, "opposite"),
        (CorrelatedNoise(CovarianceMatrix(torch.ones(3, 3))), COUNTS, "positive definite"),
        (CorrelatedNoise(CovarianceMatrix(torch.eye(2))), COUNTS, "2 values"),
        (CorrelatedNoise(CovarianceMatrix(torch.tensor([[1.0, 0.5, 0], [0, 1, 0], [0, 0, 1]]))), COUNTS, "symmetric"),
        (CorrelatedNoise(CovarianceMatrix(torch.eye(3)), COUNTS > 0), COUNTS, "not measured"),
        (GaussianNoise(0.0), COUNTS, "positive"),
        (GaussianNoise(torch.ones(4)), COUNTS, "shape"),
    ],
)  # fmt: skip
def test_refusals(noise: Noise, y: Tensor, word: str) -> None:
    with pytest.raises(InputError, match=word) as caught:
        noise.validate("my scan", y)
    assert "my scan" in str(caught.value)


def test_negative_values_that_were_not_measured_are_no_counts() -> None:
    PoissonNoise(0.0, COUNTS > 0).validate("a scan", COUNTS - 1e-3 * (COUNTS == 0))


def test_a_prediction_below_zero_is_told() -> None:
    z = torch.tensor([[[-1.0, 2.0]]], dtype=F)
    assert float(PoissonNoise().energy(z, z.abs())) == math.inf
    with pytest.raises(InputError, match="mean"):
        PoissonNoise().sample(z, generator=seeded())


def test_duals_of_what_was_not_measured_stay_zero() -> None:
    measured = torch.tensor([True, False, True]).reshape(1, 1, 3)
    noise, one = GaussianNoise(0.1, measured=measured), torch.ones(1, 1, 3, dtype=torch.float64)
    found = noise.dual_prox(one, torch.tensor([0.5], dtype=torch.float64), 0 * one)
    assert torch.allclose(found, torch.where(measured, one / 1.5, 0 * one), rtol=0, atol=1e-15)


def test_sigma_is_that_of_each_real_component() -> None:
    """Complex draws have ``sigma`` in both components, so that chi-square counts two per number."""
    law = GaussianNoise(0.3)
    z = torch.zeros(1, 20_000, dtype=torch.complex128)
    y = law.sample(z, generator=torch.Generator().manual_seed(0))
    for part in (y.real, y.imag):
        assert float(part.std()) == pytest.approx(0.3, rel=0.02)  # four deviations of the estimate
    assert float(law.chi_square(z, y) / law.dof(y)) == pytest.approx(1.0, abs=0.03)
