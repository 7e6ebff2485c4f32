"""Classical priors against closed forms, dense matrices, published numbers, finer meshes, and the certificate they serve."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor

from sciml import checks
from sciml.core import GaussianNoise, Inverse, LinearOperator, Matrix
from sciml.domains import GaussianField, Grid, InputError, Neumann, Periodic
from sciml.domains.pixels import Pixels
from sciml.domains.space import Space
from sciml.priors import Daubechies, Denoiser, Gaussian, Haar, Smoothness, TotalVariation, Wavelet
from sciml.priors.total_variation import Gradient
from sciml.priors.wavelet import WaveletTransform

F = torch.float64
UNEVEN = Pixels((9, 14), extent=(1.0, 2.0)).space()


def random(space: Space, count: int = 2, seed: int = 0) -> Tensor:
    return torch.randn((count, *space.shape), generator=torch.Generator().manual_seed(seed), dtype=F)


# Total variation


SPACES = [
    UNEVEN,
    Pixels((9, 14, 11), extent=(1.0, 2.0, 0.7)).space(2),
    Pixels((13,), extent=(0.3,)).space(3),
    Grid((8, 9), extent=(1.0, 2.0), sides={"x": Periodic(), "y": Neumann(0.0)}).space(),
    replace(UNEVEN, complex=True),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: str(space.shape))
def test_the_gradient_and_its_adjoint(space: Space) -> None:
    K = Gradient(space)
    assert checks.adjoint(K)
    # The bound is one, and nearly reached: the highest mode is not far from an eigenvector.
    assert 0.5 * K.square_bound <= float(K.size_bound()) ** 2 <= K.square_bound


def test_an_adjoint_with_the_spacing_forgotten_is_rejected() -> None:
    class Forgetful(Gradient):
        def adjoint(self, v: Tensor) -> Tensor:
            return Gradient(replace(self.on, domain=None)).adjoint(v)

    assert not checks.adjoint(Forgetful(UNEVEN))


@pytest.mark.parametrize("n", [10, 40])
def test_the_variation_of_a_ramp_and_of_a_step(n: int) -> None:
    """Of ``3 x`` on a box of 1 x 2: 6, but for the last column; of a unit step across: the length 2 of its edge, at any n."""
    domain = Pixels((n, n + 3), extent=(1.0, 2.0))
    x, _ = domain.points()
    tv = TotalVariation().on(domain.space())
    assert float(tv.energy(3 * x[None, None])) == pytest.approx(6 * (n - 1) / n, rel=1e-12)
    step = (x > 0).to(F)[None, None]
    assert float(tv.energy(step)) == pytest.approx(2.0, rel=1e-12)
    assert float(TotalVariation().energy(step)) == pytest.approx(n + 3, rel=1e-12)  # unbound: in pixels
    both = torch.cat((step, 2 * step), 1)
    assert float(TotalVariation().on(domain.space(2)).energy(both)) == pytest.approx(6.0, rel=1e-12)


def test_the_variation_of_a_wave_on_a_ring() -> None:
    """A square wave on a periodic axis jumps twice; on an axis with ends the jump across them is not counted."""
    wave = torch.tensor([0.0, 0, 0, 1, 1, 1], dtype=F)[None, None]
    ring = Grid((6,), extent=(3.0,), sides=Periodic()).space()
    assert float(TotalVariation().on(ring).energy(wave)) == pytest.approx(2.0)
    assert float(TotalVariation().on(Pixels((6,), extent=(3.0,)).space()).energy(wave)) == pytest.approx(1.0)


@pytest.mark.parametrize(("dtype", "error"), [(F, 2e-5), (torch.float32, 5e-3)])
def test_the_prox_of_a_step_in_one_dimension(dtype: torch.dtype, error: float) -> None:
    """Both plateaus, of 4 and 6 values a distance 1 apart, move by step over their number: 0.3/4 up and 0.3/6 down.

    The value is within 1e-10 (1e-5) of the least, hence the image within sqrt(2e-10 P) of it, P < 1.
    """
    v = torch.tensor([0.0] * 4 + [1.0] * 6, dtype=dtype)[None, None]
    expected = torch.tensor([0.075] * 4 + [0.95] * 6, dtype=dtype)[None, None]
    tv = TotalVariation().on(Pixels((10,), extent=(5.0,)).space())
    found = tv.prox(v, 0.3)
    assert float((found - expected).norm()) < error
    assert float((tv.prox(v, 0.33) - expected).norm()) > error
    flat = tv.prox(v, 100.0)  # more than the jump: the mean
    assert float((flat - 0.6).norm()) < error


def test_bounds() -> None:
    v = torch.tensor([-1.0] * 4 + [2.0] * 6, dtype=F)[None, None]
    tv = TotalVariation(0.0, 1.0).on(Pixels((10,), extent=(5.0,)).space())
    found = tv.prox(v, 0.3)
    assert float((found - torch.tensor([0.0] * 4 + [1.0] * 6, dtype=F)).norm()) < 1e-5
    assert torch.equal(tv.energy(v), torch.tensor([math.inf], dtype=F))
    assert float(tv.energy(found)) == pytest.approx(1.0, abs=1e-5)
    slope = torch.ones_like(v)
    assert torch.equal(tv.descent(found.round(), slope)[0, 0], torch.tensor([0.0] * 4 + [1.0] * 6, dtype=F))
    assert torch.equal(tv.descent(found.round(), -slope)[0, 0], torch.tensor([-1.0] * 4 + [0.0] * 6, dtype=F))
    with pytest.raises(InputError, match="lower"):
        TotalVariation(1.0, 0.0)
    with pytest.raises(InputError, match="complex"):
        TotalVariation(0.0).on(replace(UNEVEN, complex=True))


def test_members_of_a_prox_stop_by_themselves() -> None:
    """An easy member beside hard ones is what it is alone, to the bit (one thread)."""
    tv = TotalVariation().on(UNEVEN)
    v = random(UNEVEN, 3)
    v[1] = 0.7
    steps = torch.tensor([1e-4, 1.0, 0.5], dtype=F)
    together = tv.prox(v, steps)
    assert torch.equal(together[1], v[1])
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], tv.prox(v[i : i + 1], steps[i : i + 1]), rtol=1e-9, atol=1e-12)


def test_the_prox_is_differentiable() -> None:
    """By unrolling; the derivative of a prox is symmetric, which autograd of a wrong one is not."""
    tv, v = TotalVariation().on(Pixels((6,)).space()), random(Pixels((6,)).space(), 1)
    matrix = torch.autograd.functional.jacobian(lambda u: tv.prox(u.reshape(1, 1, 6), 0.1).flatten(), v.flatten())
    torch.testing.assert_close(matrix, matrix.T, rtol=0.0, atol=1e-4)
    assert float(matrix.diagonal().sum()) == pytest.approx(
        len(tv.prox(v, 0.1).flatten().mul(1e3).round().unique()), abs=0.05
    )


# Wavelets


@pytest.mark.parametrize("family", [Haar(), *(Daubechies(m) for m in range(1, 9))], ids=str)
@pytest.mark.parametrize("shape", [(33,), (16, 22), (9, 14, 11)], ids=str)
def test_wavelets_are_orthonormal(family: Any, shape: tuple[int, ...]) -> None:
    space = Pixels(shape).space(2)
    W = WaveletTransform(space, 3, family)
    u = random(space)
    assert checks.adjoint(W)
    torch.testing.assert_close(W.adjoint(W(u)), u, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(W(W.adjoint(u)), u, rtol=0.0, atol=1e-12)


def test_published_filters() -> None:
    """Daubechies, Comm. Pure Appl. Math. 41, 1988, table 1: N = 2 in closed form, N = 3 to its digits."""
    r = math.sqrt(3)
    two = [(1 + r), (3 + r), (3 - r), (1 - r)]
    assert Daubechies(2).taps() == pytest.approx([t / (4 * math.sqrt(2)) for t in two], abs=1e-14)
    three = [0.332670552950, 0.806891509311, 0.459877502118, -0.135011020010, -0.085441273882, 0.035226291882]
    assert Daubechies(3).taps() == pytest.approx(three, abs=1e-11)
    assert Daubechies(1).taps() == pytest.approx(Haar().taps(), abs=1e-15)
    with pytest.raises(InputError, match="moments"):
        Daubechies(9)


@pytest.mark.parametrize("moments", [1, 2, 4])
def test_vanishing_moments(moments: int) -> None:
    """Details of a polynomial of one degree less are zero where nothing wraps around, and not of that degree."""
    x = torch.linspace(-1, 1, 64, dtype=F)
    W = WaveletTransform(Pixels((64,)).space(), 1, Daubechies(moments))
    inner = slice(32, 64 - moments)
    for degree in range(moments + 1):
        size = float(W((x**degree)[None, None])[..., inner].abs().max())
        assert (size < 1e-12) == (degree < moments)


def test_wavelet_energies_do_not_depend_on_the_mesh() -> None:
    """A square, on meshes that resolve its edges, costs the same with one more level on a mesh twice as fine (Haar, exactly
    in the limit of many levels: details within the square vanish); without the volume it would cost twice as much."""
    values = []
    for n, levels in ((16, 3), (32, 4), (64, 5)):
        domain = Pixels((n, n))
        x, y = domain.points()
        square = ((x.abs() < 0.1875) & (y.abs() < 0.1875)).to(F)[None, None]
        values.append(float(Wavelet(levels).on(domain.space()).energy(square)))
        assert values[-1] == pytest.approx(values[0], rel=1e-12)
    assert float(Wavelet(3).energy(square)) == pytest.approx(64 * float(Wavelet(3).on(domain.space()).energy(square)))


def test_wavelets_say_what_is_too_small() -> None:
    with pytest.raises(InputError, match="filter"):
        Wavelet(2, Daubechies(3)).on(Pixels((5, 4)).space())
    with pytest.raises(InputError, match="levels"):
        Wavelet(0)


# Smoothness


@pytest.mark.parametrize("order", [0.0, 0.5, 1.0, 2.0])
def test_smoothness_of_a_wave(order: float) -> None:
    """Of ``cos(2 pi x / L)`` between its crests and on a ring: ``|k|^(2 s) L / 4``, to second order in the spacing."""
    length = 2.0
    for build in (lambda n: Pixels((n,), length, (0.0,)), lambda n: Grid((n,), (length,), Periodic())):
        errors = []
        for n in (20, 40):
            domain = build(n)
            wave = torch.cos(2 * math.pi / length * domain.points()[0])[None, None]
            value = float(Smoothness(order).on(domain.space()).energy(wave))
            errors.append(abs(value / ((2 * math.pi / length) ** (2 * order) * length / 4) - 1))
        assert errors[1] < 1e-12 or errors[0] / errors[1] == pytest.approx(4.0, abs=0.1)


def test_smoothness_of_order_one_is_the_squared_gradient() -> None:
    for space in SPACES[:4]:
        u = random(space)
        basis = Smoothness().on(space)
        volume = math.prod(space.domain.spacing)
        wanted = volume * Gradient(space)(u).square().flatten(1).sum(1) / 2
        torch.testing.assert_close(basis.energy(u), wanted, rtol=1e-12, atol=0.0)


def test_the_prox_of_smoothness_solves_its_equation() -> None:
    for space in SPACES:
        v = random(space) + (1j * random(space, seed=1) if space.complex else 0)
        prior = Smoothness(1.3).on(space)
        x = prior.prox(v, 0.2)
        torch.testing.assert_close(x + 0.2 * prior.gradient(x), v, rtol=1e-10, atol=1e-10)
    with pytest.raises(InputError, match="order"):
        Smoothness(-1.0)


# Gaussian


SMALL = Pixels((4, 3), extent=(1.0, 0.7)).space()


def dense(n: int) -> Tensor:
    a = torch.randn(n, n, generator=torch.Generator().manual_seed(4), dtype=F)
    return a @ a.T / n + 0.1 * torch.eye(n, dtype=F)


@dataclass(frozen=True, eq=False)
class OnImages(LinearOperator):
    """A symmetric matrix on images."""

    on: Space
    entries: Tensor = field(metadata={"shared": True})

    @property
    def space(self) -> Space:
        return self.on

    def __call__(self, u: Tensor) -> Tensor:
        return (u.flatten(-len(self.on.shape)) @ self.entries.T).reshape(u.shape)

    def adjoint(self, v: Tensor) -> Tensor:
        return (v.flatten(-len(self.on.shape)) @ self.entries).reshape(v.shape)


GAUSSIANS = {
    "field": Gaussian(GaussianField(shift=20.0, mean_mode=True), 0.4),
    "covariance": Gaussian(OnImages(SMALL, dense(12)), 0.4),
    "precision": Gaussian(OnImages(SMALL, dense(12).inverse()), 0.4, precision=True),
}


@pytest.mark.parametrize("prior", GAUSSIANS.values(), ids=GAUSSIANS)
def test_gaussian_densities_and_posterior_means(prior: Gaussian) -> None:
    """Against scipy's density and the normal equations with the dense covariance."""
    bound = prior.on(SMALL)
    C = bound.curvature(SMALL.zeros()).dense()[0].inverse()
    if isinstance(prior.covariance, OnImages):
        torch.testing.assert_close(C, dense(12), rtol=1e-8, atol=1e-10)
    x = random(SMALL)
    law = scipy.stats.multivariate_normal([0.4] * 12, C.numpy())
    densities = [law.logpdf(one.flatten().numpy()) for one in x]
    energies = bound.energy(x)
    assert float(energies[1] - energies[0]) == pytest.approx(densities[0] - densities[1], rel=1e-8)
    wanted = 0.4 + (x.flatten(1) - 0.4) @ torch.linalg.solve(C + 0.09 * torch.eye(12, dtype=F), C)
    torch.testing.assert_close(bound.denoise(x, 0.3).flatten(1), wanted, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(bound.prox(x, 0.09), bound.denoise(x, 0.3))
    assert not torch.allclose(bound.prox(x, 0.1).flatten(1), wanted, rtol=1e-4)


@pytest.mark.parametrize("prior", GAUSSIANS.values(), ids=GAUSSIANS)
def test_gaussian_draws(prior: Gaussian) -> None:
    """Mean and covariance of 20 000 draws, within five standard errors of the largest."""
    bound = prior.on(SMALL)
    drawn = bound.sample(20_000, generator=torch.Generator().manual_seed(1)).flatten(1)
    C = bound.curvature(SMALL.zeros()).dense()[0].inverse()
    top = float(C.diagonal().max())
    assert float((drawn.mean(0) - 0.4).abs().max()) < 5 * math.sqrt(top / 20_000)
    assert float((torch.cov(drawn.T) - C).abs().max()) < 5 * top * math.sqrt(2 / 20_000)


def test_the_field_keeps_its_meaning_on_a_finer_grid() -> None:
    """The variance at the middle, by the diagonal of the covariance, on grids of 9 and 27 points: 1 % apart."""
    middles = []
    for n in (9, 27):
        space = Pixels((n, n), extent=(1.0, 1.0)).space()
        bound = Gaussian(GaussianField(power=3.0, shift=30.0, mean_mode=True)).on(space).bound
        spike = space.zeros()
        spike[0, 0, n // 2, n // 2] = 1
        middles.append(float(bound(spike)[0, 0, n // 2, n // 2]))
    assert middles[0] == pytest.approx(middles[1], rel=0.01)


def test_gaussian_draws_have_the_deviation_that_is_asked_for() -> None:
    space = Pixels((12, 10)).space()
    bound = Gaussian(GaussianField(deviation=0.5, mean_mode=True)).on(space)
    drawn = bound.sample(4000, generator=torch.Generator().manual_seed(2))
    assert float(drawn.square().mean().sqrt()) == pytest.approx(0.5, rel=0.03)


def test_a_replaced_covariance_is_decomposed_again() -> None:
    problem = denoising(Gaussian(OnImages(SMALL, dense(12))), SMALL, 1.0)
    assert "entries" in problem.parameters()
    other = problem.replace(entries=2 * problem.parameters()["entries"])
    x = random(SMALL, 1)
    torch.testing.assert_close(2 * other.prior.energy(x), problem.prior.energy(x))


def test_gaussian_refusals() -> None:
    with pytest.raises(InputError, match="mean_mode"):
        Gaussian(GaussianField()).on(SMALL)
    with pytest.raises(InputError, match="positive definite"):
        Gaussian(OnImages(SMALL, torch.ones(12, 12, dtype=F))).on(SMALL)
    with pytest.raises(InputError, match="positive definite"):
        Gaussian(OnImages(SMALL, dense(12).triu())).on(SMALL)
    with pytest.raises(InputError, match=r"mean has shape \(5, 5\)"):
        Gaussian(GaussianField(mean_mode=True), mean=torch.zeros(5, 5)).on(SMALL)
    with pytest.raises(InputError, match="acts on"):
        Gaussian(Matrix(dense(5))).on(SMALL)
    with pytest.raises(InputError, match="GaussianField"):
        wide = Pixels((70, 70)).space()
        Gaussian(OnImages(wide, torch.eye(2, dtype=F))).on(wide)
    with pytest.raises(InputError, match="bind"):
        Gaussian().energy(SMALL.zeros())


# Denoisers


def test_a_denoiser_is_given_its_own_range() -> None:
    seen = []

    def f(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append((float(x.min()), float(x.max()), sigma.flatten().tolist(), tuple(sigma.shape)))
        return x / 2

    x = torch.tensor([[[-1000.0, 3000.0]], [[1000.0, 1000.0]]], dtype=F)
    found = Denoiser(f, range=(-1000.0, 3000.0)).denoise(x, torch.tensor([400.0, 40.0], dtype=F))
    assert seen == [(0.0, 1.0, [0.1, 0.01], (2, 1, 1))]
    torch.testing.assert_close(found, torch.tensor([[[-1000.0, 1000.0]], [[0.0, 0.0]]], dtype=F))


@pytest.mark.parametrize(
    ("f", "word"),
    [
        (lambda x, s: x[..., 1:], "returned"),
        (lambda x, s: x.float(), "float32"),
        (lambda x, s: x / 0, "not finite"),
        (lambda x, s: None, "NoneType"),
    ],
)
def test_a_denoiser_that_breaks_its_word_is_told(f: Any, word: str) -> None:
    with pytest.raises(InputError, match=word):
        Denoiser(f).denoise(torch.ones(1, 1, 4, dtype=F), 0.1)


def test_denoiser_refusals() -> None:
    with pytest.raises(InputError, match="function"):
        Denoiser("bm3d")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="range"):
        Denoiser(lambda x, s: x, range=(1.0, 1.0))
    with pytest.raises(InputError, match="negative"):
        Denoiser(lambda x, s: x).denoise(torch.ones(1, 1, 4), -0.1)


# The certificate


@dataclass(frozen=True, eq=False)
class Identity(LinearOperator):
    """The image itself."""

    on: Space

    @property
    def space(self) -> Space:
        return self.on

    def __call__(self, u: Tensor) -> Tensor:
        return u

    def adjoint(self, v: Tensor) -> Tensor:
        return v


def denoising(prior: Any, space: Space, weight: float) -> Inverse:
    """Noise of deviation 1/2 on an image: its minimiser is ``prox(data, weight / 4)``."""
    return Inverse("a noisy image", Identity(space), random(space).abs(), GaussianNoise(0.5), prior, weight)


@pytest.mark.parametrize(
    "prior",
    [TotalVariation(), TotalVariation(0.2, 0.9), Wavelet(2), Smoothness(), GAUSSIANS["field"]],
    ids=["variation", "bounded", "wavelet", "smoothness", "gaussian"],
)
def test_the_certificate_accepts_the_minimiser_alone(prior: Any) -> None:
    """At ``prox(data, weight sigma^2)``; with the weight a fifth off, or another image, it says no."""
    problem = denoising(prior, UNEVEN, 0.8)
    weight, bound = problem.weights(), problem.prior
    assert weight is not None
    x = bound.prox(problem.data, 0.2)
    dual = None
    if hasattr(bound, "operator"):
        K = bound.operator
        rate = 1 / float(K.size_bound()) ** 2 / 1.05
        dual = torch.zeros_like(K(x))
        for _ in range(400):  # of the problem divided by the curvature 1 / sigma^2 = 4
            ahead = dual + 4 * rate * K(bound.inside(problem.data - K.adjoint(dual) / 4))
            dual = bound.dual_prox(ahead, weight, weight)
    certificate = None if dual is None else {"prior": dual}
    good = float(problem.optimality(x, weight, certificate).max())
    assert good < 1e-3
    assert float(problem.optimality(x, 1.2 * weight, certificate).max()) > 10 * good
    assert float(problem.optimality(problem.data * 0.9, weight, certificate).max()) > 0.01
    assert float(problem.optimality(bound.prox(problem.data, 0.26), weight, certificate).max()) > 10 * good


def test_problems_move_their_prior() -> None:
    for prior in (TotalVariation(), Wavelet(2), Smoothness(), GAUSSIANS["field"]):
        moved = denoising(prior, UNEVEN, 0.8).to(torch.float32)
        assert moved.prior.prox(moved.data, 0.2).dtype == torch.float32
        space = moved.prior.bound.on if isinstance(prior, Gaussian) else moved.prior.space
        assert space.dtype == torch.float32
        assert torch.isfinite(moved.objective(moved.data.clamp(0.2, 0.9))).all()


@pytest.mark.parametrize("prior", [TotalVariation(), Wavelet(2), Smoothness()], ids=lambda prior: type(prior).__name__)
def test_an_image_of_another_shape_is_told(prior: Any) -> None:
    with pytest.raises(InputError, match="bound to"):
        prior.on(UNEVEN).energy(torch.ones(1, 1, 14, 9, dtype=F))
