"""Convolution: against scipy for every boundary and size, by entries and by FFT, the adjoint, kernels, refusals."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, signal

from sciml import checks
from sciml.domains import Grid, InputError, Periodic, Pixels
from sciml.forward import Convolution, Nearest, Reflect, Valid, Zero, convolution, gaussian_kernel, motion_kernel

MODES: dict[str, Any] = {"wrap": Periodic(), "reflect": Reflect(), "nearest": Nearest(), "constant": Zero()}
# Image and kernel: few entries and many, even and odd, and kernels larger than the image.
SIZES = [
    ((9,), (4,)),
    ((9,), (25,)),
    ((9, 14), (3, 4)),
    ((9, 14), (4, 7)),
    ((9, 14), (12, 17)),
    ((5, 6, 7), (2, 3, 2)),
    ((5, 6, 7), (3, 4, 5)),
]
ROUNDING = 1e-13  # sums of at most 204 products of normal numbers


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "sizes"), SIZES)
def test_scipy_gives_the_same(mode: str, shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    kernel, image = draw(*sizes), draw(1, 1, *shape, seed=1)
    blur = Convolution(Pixels(shape), kernel, MODES[mode])
    wanted = ndimage.convolve(image[0, 0].numpy(), kernel.numpy(), mode=mode)
    size = np.abs(wanted).max()
    assert np.abs(blur(image)[0, 0].numpy() - wanted).max() < ROUNDING * size
    turned = ndimage.correlate(image[0, 0].numpy(), kernel.numpy(), mode=mode)
    assert np.abs(blur(image)[0, 0].numpy() - turned).max() > 0.1 * size  # a correlation is seen
    assert checks.adjoint(blur)


@pytest.mark.parametrize(
    ("shape", "sizes"), [((9,), (4,)), ((9, 14), (3, 4)), ((9, 14), (6, 7)), ((5, 6, 7), (3, 4, 5))]
)
def test_valid_is_the_part_that_was_seen_whole(shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    kernel, image = draw(*sizes), draw(1, 1, *shape, seed=1)
    pixels = Pixels(shape, tuple(0.5 * n for n in shape), unit="mm")
    blur = Convolution(pixels, kernel, Valid())
    wanted = signal.convolve(image[0, 0].numpy(), kernel.numpy(), "valid", method="direct")
    assert np.abs(blur(image)[0, 0].numpy() - wanted).max() < ROUNDING * np.abs(wanted).max()
    assert checks.adjoint(blur)
    # The pixels of the result lie where the same numbers lie in the whole image.
    whole = Convolution(pixels, kernel, Zero())(image)[0, 0]
    inner: Any = blur.codomain.domain
    assert inner.unit == "mm"
    for axis, (few, many) in enumerate(zip(inner.coordinates(), pixels.coordinates(), strict=True)):
        at = int(torch.isclose(many, few[0]).nonzero()[0, 0])
        whole = whole.narrow(axis, at, len(few))
    torch.testing.assert_close(blur(image)[0, 0], whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("boundary", [*MODES.values(), Valid()], ids=lambda b: type(b).__name__)
@pytest.mark.parametrize("complex_", [False, True])
def test_entries_and_transforms_agree(boundary: Any, complex_: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = torch.complex128 if complex_ else torch.float64
    blur = Convolution(Pixels((9, 14)), draw(3, 1, 4, 3, dtype=kind), boundary, channels=2)
    image, data = draw(3, 2, 9, 14, seed=1, dtype=kind), draw(3, *blur.codomain.shape, seed=2, dtype=kind)
    assert checks.adjoint(blur)
    results = []
    for few in (0, 100):
        monkeypatch.setattr(convolution, "FEW", few)
        results.append((blur(image), blur.adjoint(data)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)
    alone = Convolution(Pixels((9, 14)), blur.kernel[1:2], boundary, channels=2)
    torch.testing.assert_close(blur(image)[1:2], alone(image[1:2]), rtol=0, atol=1e-13)
    assert not torch.allclose(blur(image)[:1], alone(image[:1]))  # the members have kernels of their own


def test_a_complex_kernel_needs_its_conjugate() -> None:
    class Forgets(Convolution):
        def adjoint(self, v: torch.Tensor) -> torch.Tensor:
            return Convolution.adjoint(self, v.conj()).conj()

    kernel = draw(4, 7, dtype=torch.complex128)
    assert checks.adjoint(Convolution(Pixels((9, 14)), kernel))
    assert not checks.adjoint(Forgets(Pixels((9, 14)), kernel))


@pytest.mark.parametrize("sizes", [(3, 2), (4, 5)])
def test_derivatives_of_image_and_kernel(sizes: tuple[int, ...]) -> None:
    image, kernel = draw(2, 1, 5, 6).requires_grad_(), draw(*sizes, seed=1).requires_grad_()

    def run(x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        blur = Convolution(Pixels((5, 6)), k)
        return blur(x) + blur.adjoint(x)

    assert torch.autograd.gradcheck(run, (image, kernel))
    assert torch.autograd.gradgradcheck(run, (image, kernel))


def test_the_kept_transform_follows_the_kernel() -> None:
    blur, image = Convolution(Pixels((9, 14)), draw(4, 7)), draw(1, 1, 9, 14, seed=1)
    before = blur(image)
    blur.kernel.mul_(2.0)
    torch.testing.assert_close(blur(image), 2 * before)


def test_a_grid_and_leading_axes() -> None:
    blur = Convolution(Grid((9, 14)), draw(4, 7))
    stack = draw(5, 2, 1, 9, 14)
    torch.testing.assert_close(blur(stack)[3], blur(stack[3]), rtol=0, atol=1e-13)


def test_gaussian_kernels_are_those_of_scipy() -> None:
    kernel = gaussian_kernel((0.3, 0.7), (0.1, 0.2))
    image = draw(1, 1, 30, 40)
    wanted = ndimage.gaussian_filter(image[0, 0].numpy(), (3.0, 3.5), mode="reflect", truncate=4.0)
    found = Convolution(Pixels((30, 40), (3.0, 8.0)), kernel, Reflect())(image)[0, 0].numpy()
    assert np.abs(found - wanted).max() < 1e-12
    assert gaussian_kernel(2.0, (1.0, 1.0, 1.0), truncate=1.0).shape == (5, 5, 5)


def test_motion_kernels() -> None:
    for length, angle in ((9.3, 0.0), (9.3, 0.4), (6.0, math.pi / 2), (0.0, 1.0)):
        kernel = motion_kernel(length, angle)
        x, y = (torch.arange(n, dtype=torch.float64) - n // 2 for n in kernel.shape)
        assert abs(float(kernel.sum()) - 1) < 1e-12
        mean = float((kernel.sum(1) * x).sum()), float((kernel.sum(0) * y).sum())
        assert max(map(abs, mean)) < 1e-12
        # The spread along the line: that of a uniform one, length^2 / 12, and of the sharing among pixels, at most 1/4 per axis.
        along = x[:, None] * math.cos(angle) + y[None, :] * math.sin(angle)
        spread = float((kernel * along.square()).sum()) - length**2 / 12
        assert -0.01 < spread < 0.5
        assert torch.allclose(kernel, kernel.flip(0, 1), atol=1e-12)
    assert not torch.allclose(motion_kernel(9.3, 0.4), motion_kernel(9.3, -0.4))


def test_bad_input_is_named() -> None:
    pixels = Pixels((9, 14))
    with pytest.raises(InputError, match=r"shape \(3,\)"):
        Convolution(pixels, draw(3))
    with pytest.raises(InputError, match="brackets"):
        Convolution(pixels, draw(3, 3), Reflect)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="larger than the image"):
        Convolution(pixels, draw(10, 3), Valid())
    with pytest.raises(InputError, match="zero or not finite"):
        dataclasses.replace(Convolution(pixels, draw(3, 3)), kernel=torch.zeros(3, 3)).validate("blurred")
    with pytest.raises(InputError, match="width is -1"):
        gaussian_kernel(-1.0, (1.0,))
    with pytest.raises(InputError, match="over 1 axes"):
        motion_kernel(1.0, 0.0, (1.0,))
