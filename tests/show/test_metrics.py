"""How good an image is: against the numbers that scikit-image finds, and against what the formulas say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sciml.domains import InputError
from sciml.metrics import psnr, snr, ssim

SHAPES = {1: (23,), 2: (11, 17), 3: (9, 8, 11)}


def pair(dim: int, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Three members of different ranges, the last one in agreement."""
    generator = torch.Generator().manual_seed(dim)
    truth = torch.rand(3, channels, *SHAPES[dim], generator=generator, dtype=torch.float64)
    truth = truth.cumsum(-1) * torch.tensor([1.0, 0.1, 30.0], dtype=torch.float64).reshape(-1, *[1] * (dim + 1))
    value = truth * (1 + 0.2 * torch.randn(truth.shape, generator=generator, dtype=torch.float64))
    value[2] = truth[2]
    return value, truth


@pytest.mark.parametrize("dim", SHAPES)
def test_agreement_with_scikit_image(dim: int) -> None:
    value, truth = pair(dim)
    likeness, peak = ssim(value, truth), psnr(value, truth)
    for i in range(2):
        a, b = value[i, 0].numpy(), truth[i, 0].numpy()
        span = float(b.max() - b.min())
        assert float(likeness[i]) == pytest.approx(structural_similarity(b, a, data_range=span), abs=1e-6)
        assert float(peak[i]) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=span), abs=1e-6)
        assert abs(float(likeness[i]) - structural_similarity(b, a, data_range=2 * span)) > 1e-3  # it can differ
    assert float(likeness[2]) == pytest.approx(1.0, abs=1e-12) and math.isinf(float(peak[2]))


def test_channels_are_averaged_and_ranges_can_be_given() -> None:
    value, truth = pair(2, channels=2)
    a, b = value[0].numpy(), truth[0].numpy()
    expected = structural_similarity(b, a, data_range=3.0, channel_axis=0)
    assert float(ssim(value, truth, range=3.0)[0]) == pytest.approx(expected, abs=1e-6)
    assert float(psnr(value, truth, range=3.0)[0]) == pytest.approx(
        peak_signal_noise_ratio(b, a, data_range=3.0), abs=1e-6
    )


def test_what_the_formulas_say() -> None:
    _, truth = pair(2)
    doubled = psnr(truth + 0.1, truth, range=2.0)
    assert doubled.tolist() == pytest.approx([20 * math.log10(20)] * 3)
    assert (snr(1.1 * truth, truth) - 20).abs().max() < 1e-9  # the error is a tenth of the signal
    assert math.isinf(float(snr(truth, truth)[0]))
    waves = torch.polar(truth, truth)
    assert psnr(waves + 0.1, waves, range=2.0).tolist() == pytest.approx(doubled.tolist())


@pytest.mark.parametrize("metric", [psnr, ssim, snr])
def test_members_do_not_see_each_other(metric: object) -> None:
    value, truth = pair(2)
    whole = metric(value, truth)  # type: ignore[operator]
    single = [float(metric(value[i : i + 1], truth[i : i + 1])) for i in range(3)]  # type: ignore[operator]
    assert np.array_equal(whole.numpy(), np.array(single))


def test_bad_input_is_a_sentence() -> None:
    value, truth = pair(2)
    with pytest.raises(InputError, match="shape"):
        psnr(value[:, :, :9], truth)
    with pytest.raises(InputError, match="member 1 is constant; pass range"):
        flat = truth.clone()
        flat[1] = 2.0
        psnr(value, flat)
    with pytest.raises(InputError, match="range is -1"):
        ssim(value, truth, range=-1)
    with pytest.raises(InputError, match="at least 7 pixels"):
        ssim(value[..., :6], truth[..., :6])
    with pytest.raises(InputError, match="complex"):
        ssim(torch.polar(value, value), torch.polar(value, value))
