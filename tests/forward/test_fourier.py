"""The Fourier operator of magnetic resonance: the textbook's sums, its masks and coils, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sciml
from sciml import checks
from sciml.core import GaussianNoise, Inverse
from sciml.domains import InputError, Pixels
from sciml.forward import Fourier
from sciml.forward.fourier import example
from sciml.solvers import LeastSquares

SHAPES = [(7,), (8,), (9, 14), (8, 6), (5, 6, 3)]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex128)


def textbook(maps: Tensor, x: Tensor, shift: bool = True) -> Tensor:
    """Centred and orthonormal, by moving halves of the arrays; without ``shift`` the broken twin."""
    axes = tuple(range(1 - maps.ndim, 0))
    inner = torch.fft.ifftshift(maps * x, dim=axes) if shift else maps * x
    return torch.fft.fftshift(torch.fft.fftn(inner, dim=axes, norm="ortho"), dim=axes)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_centred_orthonormal_transform(shape: tuple[int, ...]) -> None:
    maps, x = numbers(3, *shape), numbers(2, 1, *shape, seed=1)
    found = Fourier(Pixels(shape), maps)(x).unflatten(-1, shape)
    assert torch.allclose(found, textbook(maps, x), atol=1e-13)  # sums of at most 126 terms of size one
    assert not torch.allclose(found, textbook(maps, x, shift=False), atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_adjoint(shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.4
    operator = Fourier(Pixels(shape), numbers(3, *shape), mask)
    assert checks.adjoint(operator)
    nothing = torch.zeros(1, *operator.codomain.shape, dtype=torch.complex128)
    low = Inverse("m", operator, nothing, GaussianNoise(1.0)).to(torch.float32).forward
    assert isinstance(low, Fourier) and checks.adjoint(low)

    class Broken(Fourier):
        def adjoint(self, v: Tensor) -> Tensor:
            return super().adjoint(v.conj()).conj()

    assert not checks.adjoint(Broken(Pixels(shape), numbers(3, *shape), mask))


def test_a_coil_of_unit_maps_keeps_the_norm() -> None:
    x = numbers(1, 1, 9, 14)
    y = Fourier(Pixels((9, 14)))(x)
    assert float((torch.linalg.vector_norm(y) / torch.linalg.vector_norm(x) - 1).abs()) < 1e-14


def test_points_are_those_of_the_mask_in_cycles_per_field_of_view() -> None:
    operator = example()
    assert operator.mask is not None and operator.points.shape == (int(operator.mask.sum()), 2)
    x, m = numbers(1, 1, 9, 14), 17
    i = torch.stack(torch.meshgrid(torch.arange(9.0) - 4, torch.arange(14.0) - 7, indexing="ij"), -1).to(torch.float64)
    phase = (i * operator.points[m] / torch.tensor([9.0, 14.0], dtype=torch.float64)).sum(-1)
    wave = torch.polar(torch.ones_like(phase), -2 * torch.pi * phase)
    value = (operator.sensitivities[0, 1] * x[0, 0] * wave).sum() / 126**0.5
    assert torch.allclose(operator(x)[0, 1, m], value, atol=1e-12)


def test_sample_and_zero_filled_are_transposes_and_put_points_back() -> None:
    operator, whole = example(), numbers(2, 3, 9, 14)
    picked = operator.sample(whole)
    back = operator.zero_filled(picked)
    assert torch.equal(operator.sample(back), picked)
    assert operator.mask is not None
    assert torch.equal(back, torch.where(operator.mask, whole, torch.zeros_like(whole)))


def test_coils_broadcast_under_samples_and_members() -> None:
    maps = numbers(2, 3, 6, 5)  # two members with their own maps
    operator, x = Fourier(Pixels((6, 5)), maps), numbers(4, 2, 1, 6, 5)
    together = operator(x)
    assert together.shape == (4, 2, 3, 30)
    for i in range(2):
        alone = Fourier(Pixels((6, 5)), maps[i])(x[:, i : i + 1])
        assert torch.allclose(together[:, i : i + 1], alone, atol=1e-13)


def test_derivatives_in_image_and_maps() -> None:
    x, maps = numbers(1, 1, 3, 2).requires_grad_(), numbers(2, 3, 2, seed=1).requires_grad_()
    mask = torch.rand(3, 2, generator=torch.Generator().manual_seed(0)) < 0.6

    def forward(x: Tensor, maps: Tensor) -> Tensor:
        return Fourier(Pixels((3, 2)), maps, mask)(x)

    def adjoint(v: Tensor, maps: Tensor) -> Tensor:
        return Fourier(Pixels((3, 2)), maps, mask).adjoint(v)

    v = numbers(1, 2, int(mask.sum()), seed=3).requires_grad_()
    for function, given in ((forward, x), (adjoint, v)):
        assert torch.autograd.gradcheck(function, (given, maps), fast_mode=True)
        assert torch.autograd.gradgradcheck(function, (given, maps), fast_mode=True)


def test_maps_changed_in_place_are_seen() -> None:
    maps, x = numbers(1, 2, 5, 4), numbers(1, 1, 5, 4)
    operator = Fourier(Pixels((5, 4)), maps)
    before = operator(x)
    maps *= 2
    assert torch.allclose(operator(x), 2 * before)


def refused(call: object, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        call()  # type: ignore[operator]
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert text.count(". ") == 0, text


def test_refusals() -> None:
    pixels, operator = Pixels((9, 14)), example()
    refused(lambda: operator(torch.zeros(1, 1, 9, 14)), "real", "complex")
    refused(lambda: operator.adjoint(torch.zeros(operator.codomain.shape)), "real", "complex")
    refused(lambda: operator(numbers(1, 1, 14, 9)), "(1, 1, 14, 9)")
    refused(lambda: Fourier(pixels, torch.ones(3, 9, 14)), "maps", "real")
    refused(lambda: Fourier(pixels, numbers(3, 9, 13)), "(3, 9, 13)")
    refused(lambda: Fourier(pixels, numbers(3, 9, 14), torch.zeros(9, 14)), "samples nothing")
    refused(lambda: Fourier(pixels, numbers(3, 9, 14), torch.full((9, 14), 0.5)), "mask", "0 and 1")
    refused(lambda: Fourier(pixels, numbers(3, 9, 14), torch.ones(9, 13)), "(9, 13)")
    refused(lambda: Fourier((9, 14)), "Pixels")  # type: ignore[arg-type]
    assert Fourier(pixels, None, torch.ones(1, 14)).codomain.shape == (1, 126)  # whole lines


def test_maps_that_vanish_or_are_not_finite_are_refused_when_solved() -> None:
    pixels, maps = Pixels((9, 14)), numbers(2, 3, 9, 14)
    maps[1] = 0
    data = torch.ones(2, 3, 126, dtype=torch.complex128)
    refused(
        lambda: sciml.solve(Inverse("m", Fourier(pixels, maps), data, GaussianNoise(1.0)), LeastSquares()),
        "member 1",
        "vanish",
    )
    maps[1] = float("nan")
    posed = Inverse("m", Fourier(pixels, maps), data, GaussianNoise(1.0))
    refused(lambda: sciml.solve(posed, LeastSquares()), "maps is nan")
