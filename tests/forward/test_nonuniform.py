"""Fourier transforms off the grid: they are those of the grid on it, transposes, twice differentiable, and alike for both engines."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

import sciml
from sciml import checks
from sciml.core import GaussianNoise, Inverse
from sciml.domains import InputError, Pixels
from sciml.forward import DirectSum, Fourier, NonuniformFFT, NonuniformFourier
from sciml.forward.nonuniform import example

try:
    import finufft  # noqa: F401

    ENGINES = [NonuniformFFT(1e-12), DirectSum()]
except ImportError:
    ENGINES = [DirectSum()]
needs_finufft = pytest.mark.skipif(len(ENGINES) == 1, reason="finufft is not installed")


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex128)


def scattered(count: int, shape: tuple[int, ...], seed: int = 5) -> Tensor:
    unit = torch.rand(count, len(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
    return unit * torch.tensor(shape, dtype=torch.float64)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("shape", [(7,), (8,), (9, 14), (5, 6, 3)], ids=str)
def test_on_the_grid_it_is_the_transform_of_the_grid(shape: tuple[int, ...], engine: object) -> None:
    maps, x = numbers(3, *shape), numbers(2, 1, *shape, seed=1)
    grid = Fourier(Pixels(shape), maps)
    operator = NonuniformFourier(Pixels(shape), grid.points, maps, engine)  # type: ignore[arg-type]
    assert torch.allclose(operator(x), grid(x), atol=1e-10)  # the accuracy asked for is 1e-12 of sums of size 10
    moved = NonuniformFourier(Pixels(shape), grid.points + 0.01, maps, engine)  # type: ignore[arg-type]
    assert not torch.allclose(moved(x), grid(x), atol=1e-4)


@pytest.mark.parametrize("accuracy", [1e-3, 1e-9])
@pytest.mark.parametrize("shape", [(17,), (9, 14), (5, 6, 3)], ids=str)
@needs_finufft
def test_adjoint_whatever_the_accuracy(shape: tuple[int, ...], accuracy: float) -> None:
    operator = NonuniformFourier(Pixels(shape), scattered(40, shape), numbers(2, *shape), NonuniformFFT(accuracy))
    assert checks.adjoint(operator)


def test_the_direct_sum_is_its_own_transpose_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (5, 6, 3)
    operator = NonuniformFourier(Pixels(shape), scattered(40, shape), numbers(2, *shape), DirectSum())
    whole = operator(numbers(2, 1, *shape))
    monkeypatch.setattr("sciml.forward.nonuniform.AT_ONCE", 800)
    assert torch.allclose(operator(numbers(2, 1, *shape)), whole, atol=1e-13)
    assert checks.adjoint(operator)


@needs_finufft
def test_engines_agree() -> None:
    shape = (12, 15)
    points, maps, x = scattered(60, shape), numbers(2, *shape), numbers(1, 1, *shape, seed=3)
    fast, slow = (NonuniformFourier(Pixels(shape), points, maps, engine) for engine in ENGINES)
    assert torch.allclose(fast(x), slow(x), atol=1e-10)
    v = numbers(1, 2, 60, seed=4)
    assert torch.allclose(fast.adjoint(v), slow.adjoint(v), atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: type(e).__name__)
def test_derivatives_of_both_orders_in_image_data_maps_and_points(engine: object) -> None:
    pixels = Pixels((4, 3))
    points = (0.9 * scattered(5, (4, 3))).requires_grad_()
    maps = numbers(2, 4, 3).requires_grad_()
    x, v = numbers(1, 1, 4, 3, seed=1).requires_grad_(), numbers(1, 2, 5, seed=2).requires_grad_()

    def forward(x: Tensor, points: Tensor, maps: Tensor) -> Tensor:
        return NonuniformFourier(pixels, points, maps, engine)(x)  # type: ignore[arg-type]

    def adjoint(v: Tensor, points: Tensor, maps: Tensor) -> Tensor:
        return NonuniformFourier(pixels, points, maps, engine).adjoint(v)  # type: ignore[arg-type]

    for function, given in ((forward, x), (adjoint, v)):
        assert torch.autograd.gradcheck(function, (given, points, maps))
        assert torch.autograd.gradgradcheck(function, (given, points, maps))


@needs_finufft
def test_a_pair_whose_backward_is_a_number_is_caught() -> None:
    """What a wrapper does that leaves out second derivatives: the first are right, gradgradcheck says no."""
    from sciml.forward._nufft import Transforms

    columns = list(scattered(5, (4, 3)).unbind(1))
    transforms = Transforms((4, 3), [c.contiguous() for c in columns], torch.complex128, 1e-12)

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, images: Tensor) -> Tensor:
            return transforms.execute(2, images)

        @staticmethod
        def backward(ctx: object, *given: Tensor) -> Tensor:
            return transforms.execute(1, given[0].detach())

    x = numbers(1, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(Once.apply, (x,))
    assert not torch.autograd.gradgradcheck(Once.apply, (x,), raise_exception=False)


def test_without_finufft_sums_are_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = example()(numbers(1, 1, 9, 14))
    monkeypatch.setitem(sys.modules, "finufft", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert torch.allclose(example()(numbers(1, 1, 9, 14)), wanted, atol=1e-7)
    with pytest.raises(InputError, match=r"pip install sciml\[nufft\], or use DirectSum"):
        NonuniformFourier(Pixels((9, 14)), example().points, None, NonuniformFFT())(numbers(1, 1, 9, 14))


def test_a_radial_scan_is_reconstructed() -> None:
    """Data of the image itself and no noise to speak of: least squares find it."""
    n, spokes = 12, 24
    radius = torch.linspace(-n / 2, n / 2, 2 * n, dtype=torch.float64)
    angle = torch.arange(spokes, dtype=torch.float64)[:, None] * (torch.pi / spokes)
    points = torch.stack((radius * angle.cos(), radius * angle.sin()), -1).reshape(-1, 2) * (1 - 1e-9)
    operator = NonuniformFourier(Pixels((n, n)), points, None, DirectSum())
    truth = torch.zeros(1, 1, n, n, dtype=torch.complex128)
    truth[..., 4:8, 3:9] = 1 + 2j
    posed = Inverse("radial", operator, operator(truth), GaussianNoise(1e-3), truth=truth)
    solution = sciml.solve(posed.with_target(misfit=2.0), sciml.solvers.LeastSquares(), strict=False)
    assert float((solution.value - truth).abs().max()) < 0.1


def refused(call: object, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        call()  # type: ignore[operator]
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_refusals() -> None:
    pixels, operator = Pixels((9, 14)), example()
    refused(lambda: operator(torch.zeros(1, 1, 9, 14)), "real")
    refused(lambda: operator.adjoint(numbers(1, 2, 16)), "(1, 2, 16)")
    refused(lambda: NonuniformFourier(pixels, torch.zeros(5, 3)), "(5, 3)")
    refused(lambda: NonuniformFourier(pixels, torch.zeros(5, 2, dtype=torch.complex64)), "real tensor")
    refused(lambda: NonuniformFourier(pixels, scattered(5, (9, 14)), None, DirectSum), "DirectSum()")  # type: ignore[arg-type]
    refused(lambda: NonuniformFFT(0.0), "accuracy")
    far = NonuniformFourier(pixels, 3 * scattered(50, (9, 14)))
    refused(lambda: far.validate("far"), "cycles per field of view", "axis")
    lost = NonuniformFourier(pixels, torch.full((1, 2), float("nan"), dtype=torch.float64))
    refused(lambda: lost.validate("lost"), "not finite")
