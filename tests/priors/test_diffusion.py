"""Denoising priors: mixtures against quadrature, schedules against one another, the network's form, training that goes on."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sciml
from sciml.core.prior import Energy
from sciml.domains import Pixels, Space
from sciml.networks import UNet
from sciml.priors import (
    Ancestral,
    Denoiser,
    Diffusion,
    Euler,
    Flow,
    Gaussian,
    Heun,
    MagnitudePhase,
    Mixture,
    Scheduled,
    TotalVariation,
    VarianceExploding,
    VariancePreserving,
)
from sciml.priors.noise_schedules import Clean, Noise, Score, Velocity
from sciml.training import EDM

SCHEDULES = [VariancePreserving(), VarianceExploding(), Flow()]
MIX = Mixture(
    torch.tensor([[[-1.0]], [[0.5]], [[2.0]]], dtype=torch.float64),
    torch.tensor([0.04, 0.25, 0.09], dtype=torch.float64),
    torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64),
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quadrature(x: float, sigma: float) -> float:
    """The posterior mean of one number by the trapezoidal rule: exact to rounding for so smooth an integrand."""
    t = torch.linspace(-6, 8, 4001, dtype=torch.float64)
    log = -MIX.energy(t.reshape(-1, 1, 1)) - (x - t).square() / (2 * sigma**2)
    p = (log - log.max()).exp()
    return float((p * t).sum() / p.sum())


def mixture_misses(prior: Any) -> float:
    return max(
        abs(float(prior.denoise(torch.full((1, 1, 1), x, dtype=torch.float64), sigma)) - quadrature(x, sigma))
        for x in (-2.0, -0.3, 0.9, 3.0)
        for sigma in (0.1, 0.7, 3.0)
    )


def test_a_mixture_denoises_as_its_density_says() -> None:
    assert mixture_misses(MIX) <= 1e-9
    wrong = dataclasses.replace(MIX, covariance=1.1 * MIX.covariance)
    assert mixture_misses(wrong) > 1e-3


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 4.0])])
def test_the_energy_of_a_mixture_has_all_constants(weights: torch.Tensor | None) -> None:
    means = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64).reshape(3, 1, 1).expand(3, 1, 4)
    variance = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
    x = torch.randn(5, 1, 4, generator=generator(0), dtype=torch.float64)
    each = torch.distributions.Normal(means.reshape(3, 4), variance.sqrt().reshape(3, 1)).log_prob(x)
    share = torch.ones(3).double() if weights is None else weights.double()
    wanted = -torch.logsumexp((share / share.sum()).log() + each.sum(2), 1)
    found = Mixture(means, variance, weights).energy(x)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-13)


def test_a_mixture_of_matrices() -> None:
    """Full covariances: the score by differentiating log p of the noisy law (Tweedie), and the moments of draws."""
    a = torch.randn(2, 3, 3, generator=generator(0), dtype=torch.float64)
    prior = Mixture(
        torch.randn(2, 1, 3, generator=generator(1), dtype=torch.float64), a @ a.mT + 0.1 * torch.eye(3).double()
    )
    x = torch.randn(4, 1, 3, generator=generator(2), dtype=torch.float64).requires_grad_()
    noisy = Mixture(prior.means, prior.covariance + 0.49 * torch.eye(3).double())
    (slope,) = torch.autograd.grad(noisy.energy(x).sum(), x)
    assert torch.allclose(prior.denoise(x, 0.7), x - 0.49 * slope, atol=1e-10)
    drawn = prior.sample(40_000, generator=generator(3))
    assert torch.allclose(drawn.mean(0), prior.means.mean(0), atol=0.05)  # 4 standard errors of the widest


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_schedules_invert_themselves(schedule: Any) -> None:
    t = torch.linspace(0.01, 0.99, 23, dtype=torch.float64)
    assert torch.allclose(schedule.time(schedule.beta(t) / schedule.alpha(t)), t, atol=1e-9)
    a, b = schedule.rates(t)
    h = 1e-6
    for rate, part in ((a, schedule.alpha), (b, schedule.beta)):
        assert torch.allclose(rate, (part(t + h) - part(t - h)) / (2 * h), rtol=1e-6, atol=1e-6)


def asked(schedule: Any, kind: Any, inner: Any) -> Any:
    """The exact network of that convention for the prior ``inner`` of images from -1 to 1."""

    def f(x: Tensor, t: Tensor) -> Tensor:
        t = t.reshape(-1, 1, 1)
        a, b = schedule.alpha(t), schedule.beta(t)
        clean = inner.denoise(x / a, (b / a).flatten())
        noise = (x - a * clean) / b
        rates = schedule.rates(t)
        return {Noise: noise, Score: -noise / b, Clean: clean, Velocity: rates[0] * clean + rates[1] * noise}[
            type(kind)
        ]

    return f


@pytest.mark.parametrize("kind", [Noise(), Score(), Clean(), Velocity()], ids=lambda k: type(k).__name__)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_every_convention_is_the_same_prior(schedule: Any, kind: Any) -> None:
    prior = Scheduled(asked(schedule, kind, MIX), schedule, kind, range=(-1.0, 1.0))
    x = torch.linspace(-2, 3, 9, dtype=torch.float64).reshape(-1, 1, 1)
    for sigma in (0.05, 0.6, 4.0):
        assert torch.allclose(prior.denoise(x, sigma), MIX.denoise(x, sigma), atol=1e-8)
    other = VarianceExploding(0.02, 40.0) if isinstance(schedule, VarianceExploding) else VarianceExploding()
    mistaken = Scheduled(asked(schedule, kind, MIX), other, kind, range=(-1.0, 1.0))
    assert not torch.allclose(mistaken.denoise(x, 0.6), MIX.denoise(x, 0.6), atol=1e-3)


def test_other_ranges_are_affine() -> None:
    prior = Scheduled(asked(Flow(), Velocity(), MIX), Flow(), Velocity(), range=(10.0, 14.0))
    x = torch.linspace(9, 16, 5, dtype=torch.float64).reshape(-1, 1, 1)
    assert torch.allclose(prior.denoise(x, 1.0), 12 + 2 * MIX.denoise((x - 12) / 2, 0.5), atol=1e-9)


@pytest.mark.parametrize("walk", [Euler(200), Heun(40), Ancestral(200)], ids=lambda w: type(w).__name__)
def test_walks_draw_from_the_prior(walk: Any) -> None:
    """2000 draws: a quantile of a law of width one is known to about 0.03; 0.1 is more than three of that."""
    drawn = walked(walk)
    exact = MIX.sample(20_000, generator=generator(1)).flatten()
    at = torch.tensor([0.05, 0.2, 0.5, 0.8, 0.95], dtype=torch.float64)
    assert float((drawn.quantile(at) - exact.quantile(at)).abs().max()) <= 0.12
    early = walked(dataclasses.replace(walk, steps=3)).quantile(at)
    assert float((early - exact.quantile(at)).abs().max()) > 0.12


def walked(walk: Any) -> Tensor:
    g = generator(5)

    def noise() -> Tensor:
        return torch.randn(2000, 1, 1, generator=g, dtype=torch.float64)

    found: Tensor = walk(MIX.denoise, 100 * noise(), 100.0, 0.01, noise)
    return found.flatten()


class Linear(nn.Module):
    """The exact network for independent Gaussian pixels of unit variance: nothing is left to predict."""

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return torch.zeros_like(x)


def test_the_form_of_the_denoiser() -> None:
    """With a zero network: the Wiener filter of Gaussian pixels with the prior's mean and deviation, at every level."""
    prior = Diffusion(Linear(), scale=0.3, shift=0.7)
    x = torch.randn(3, 1, 5, generator=generator(0), dtype=torch.float64)
    exact = Gaussian(sciml.core.Matrix(0.09 * torch.eye(5, dtype=torch.float64)), mean=0.7).on(Space(None, (1, 5)))
    for sigma in (0.0, 0.01, 0.3, 9.0):
        assert torch.allclose(prior.denoise(x, sigma), exact.denoise(x, sigma), atol=1e-12)
        if sigma:
            assert math.isclose(prior.remaining(sigma), exact.remaining(sigma), rel_tol=1e-9)
    double = prior.scaled(2.0)
    assert torch.allclose(double.denoise(2 * x, 0.4), 2 * prior.denoise(x, 0.2), atol=1e-12)


def test_training_finds_the_posterior_mean(tmp_path: Path) -> None:
    """Two kinds of constant signals: the mean of the posterior is known, and a short run is near it."""
    prior = Diffusion(UNet(1, widths=(16,), blocks=1, fold=1, features=8), scale=1.0, levels=(0.05, 10.0))

    def draw(count: int, source: torch.Generator) -> Tensor:
        return (2.0 * torch.randint(2, (count, 1, 1), generator=source) - 1).expand(count, 1, 8).float()

    settings: dict[str, Any] = {
        "steps": 60,
        "batch_size": 32,
        "learning_rate": 5e-3,
        "out": tmp_path,
        "progress": False,
    }
    fitted = sciml.fit(prior, draw, loss=EDM(mean=0.0), epochs=2, **settings)
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]
    clean = draw(200, generator(1)).double()
    noisy = clean + 1.5 * torch.randn(clean.shape, generator=generator(2), dtype=torch.float64)
    exact = torch.tanh(noisy.sum(-1, keepdim=True) / 1.5**2).expand(noisy.shape)
    ours, wiener = (p.denoise(noisy, 1.5) for p in (fitted.prior, Diffusion(Linear())))
    assert float((ours - exact).square().mean()) < 0.3 * float((wiener - exact).square().mean())
    again = sciml.pretrained(str(tmp_path))
    assert isinstance(again, Diffusion)
    assert torch.equal(again.denoise(noisy, 1.5), ours)


def test_a_killed_run_goes_on_in_the_same_bits(tmp_path: Path) -> None:
    images = torch.randn(20, 1, 6, 5, generator=generator(0))

    def run(folder: str | None, epochs: int, loss: Any = None) -> Tensor:
        prior = Diffusion(UNet(2, widths=(4,), blocks=1, fold=1, features=4))
        out = None if folder is None else tmp_path / folder
        found = sciml.fit(prior, images, loss=loss or EDM(), epochs=epochs, steps=3, out=out, progress=False)
        return found.prior.network.first.weight

    whole = run("one", 3)

    class Killed(EDM):
        count = 0

        def __call__(self, prior: Any, clean: Tensor, source: torch.Generator) -> Tensor:
            type(self).count += 1
            if self.count == 8:
                raise KeyboardInterrupt
            return super().__call__(prior, clean, source)

        def __repr__(self) -> str:
            return repr(EDM())

    with pytest.raises(KeyboardInterrupt):
        run("two", 3, Killed())
    assert torch.equal(run("two", 3), whole)
    with pytest.raises(sciml.InputError, match="epochs"):
        run("two", 4)


def test_magnitude_and_phase() -> None:
    """Given the phase, the mean and the proximal map are those of the real part; a global phase is found from the image."""
    space = Space(None, (1, 40), complex=True, dtype=torch.complex128)
    inner = Gaussian(sciml.core.Matrix(torch.eye(40, dtype=torch.float64)), mean=3.0)
    phase = torch.linspace(0, 4, 40, dtype=torch.float64)
    turn = torch.polar(torch.ones_like(phase), phase)
    w = torch.complex(*torch.randn(2, 2, 1, 40, generator=generator(0), dtype=torch.float64))
    prior = MagnitudePhase(inner, phase, imaginary=0.5).on(space)
    exact = torch.complex((w.real + 0.09 * 3) / 1.09, w.imag * 0.25 / 0.34)
    assert torch.allclose(prior.denoise(turn * w, 0.3), turn * exact, atol=1e-12)
    found = sciml.checks.prox(prior, space)
    assert found, str(found)
    slow = torch.polar(torch.ones_like(phase), 0.1 * phase)
    told = MagnitudePhase(inner, smooth=6.0).on(space)
    truth = 3 * slow
    noisy = truth + 0.3 * w
    away = [float((one - truth).abs().square().mean()) for one in (told.denoise(noisy, 0.3), noisy)]
    assert away[0] < 0.65 * away[1]  # the imaginary half of the noise is gone, the real half shrunk by 1 / 1.09
    assert not hasattr(MagnitudePhase(Denoiser(lambda x, sigma: x)), "energy")
    assert isinstance(MagnitudePhase(TotalVariation()), Energy)


COMPLEX = Space(None, (1, 8), complex=True, dtype=torch.complex64)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Mixture(torch.zeros(2, 1, 3), torch.tensor([1.0, -1.0])), "positive"),
        (lambda: Mixture(torch.zeros(2, 1, 3), torch.zeros(3, 3)), "covariance has shape"),
        (lambda: Mixture(torch.zeros(2, 1, 3), weights=torch.tensor([1.0])), "weights"),
        (lambda: Mixture(torch.zeros(2, 1, 3)).on(Space(None, (1, 4))), "means have shape"),
        (lambda: Diffusion(lambda x, s: x), "use Denoiser"),  # type: ignore[arg-type]
        (lambda: Diffusion(UNet(2), scale=-1.0), "scale"),
        (lambda: Diffusion(UNet(2)).on(Pixels((4, 4)).space(2)), "channels"),
        (lambda: Diffusion(UNet(2)).sample(1, generator=generator(0)), "bind it"),
        (lambda: Diffusion(UNet(1)).on(COMPLEX), "MagnitudePhase"),
        (lambda: MagnitudePhase(Gaussian()).on(Pixels((4, 4)).space()), "images are real"),
        (lambda: MagnitudePhase(Gaussian(), torch.zeros(3, 1, 8)).on(COMPLEX), "phase has shape"),
        (lambda: UNet(2, widths=()), "widths"),
        (lambda: UNet(2)(torch.zeros(1, 3, 4, 4)), "input of shape"),
        (lambda: Scheduled(asked, earliest=2.0), "times run"),
        (lambda: VariancePreserving(first=30.0), "rising"),
        (lambda: sciml.fit(Diffusion(UNet(2)), "digits"), "clean images"),
        (lambda: sciml.fit(Denoiser(lambda x, s: x), torch.zeros(3, 1, 4, 4)), "no network"),
        (lambda: EDM(deviation=0.0), "deviation"),
    ],
)
def test_bad_input_is_one_sentence(call: Any, match: str) -> None:
    with pytest.raises(sciml.InputError, match=match):
        call()


def test_a_network_that_fails_is_named() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor, noise: Tensor) -> Tensor:
            return x / (noise.reshape(-1, 1, 1) + 0.5).clamp_min(0)

    with pytest.raises(sciml.InputError, match="not finite at sigma"):
        Diffusion(Fails(), levels=(1e-3, 10.0)).denoise(torch.ones(1, 1, 4), 0.01)
