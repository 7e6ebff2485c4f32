"""The score of the Kuopio challenge and its baseline's division into three kinds, against plain loops of numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sciml.domains.errors import InputError
from sciml.files import open_dataset
from sciml.metrics import ktc_score, otsu


def masks(seed: int) -> Any:
    """Two discs of different kinds in water."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:256, :256]
    found = np.zeros((256, 256), dtype=np.uint8)
    for kind in (1, 2):
        centre, radius = rng.uniform(70, 180, 2), rng.uniform(15, 40)
        found[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = kind
    return found


def likeness(a: Any, b: Any) -> float:
    """Similarity of two masks from the definition: the two-dimensional window, by FFT, no product of one-dimensional ones."""
    from scipy.signal import fftconvolve

    i, j = np.mgrid[-160:161, -160:161]
    window = np.exp(-(i**2 + j**2) / (2 * 80**2)) / np.sqrt(2 * np.pi)

    def blurred(image: Any) -> Any:
        return fftconvolve(image, window, mode="same") / fftconvolve(np.ones((256, 256)), window, mode="same")

    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    both = blurred(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + 1e-4) * (2 * both + 9e-4)
    return float(np.mean(top / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))))


def by_definition(found: Any, truth: Any) -> float:
    return np.mean([likeness((found == kind) * 1.0, (truth == kind) * 1.0) for kind in (1, 2)])  # type: ignore[return-value]


def test_agrees_with_the_definition() -> None:
    """Tolerance: sums of 1e5 terms by FFT and by products of matrices, both float64, over a denominator above 1e-7."""
    pairs = [(masks(1), masks(2)), (masks(3), masks(3)), (0 * masks(4), masks(4)), (masks(5)[::-1].copy(), masks(5))]
    found, truth = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
    scores = ktc_score(found, truth)
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores.numpy(), [by_definition(*pair) for pair in pairs], atol=1e-9)
    assert float(scores[1]) == pytest.approx(1.0, abs=1e-12)
    # Broken twins: the two kinds exchanged, and a window of half the width, are seen.
    exchanged = torch.where(found[0] > 0, 3 - found[0], 0)
    assert abs(float(ktc_score(exchanged, truth[0]) - scores[0])) > 1e-3


def test_an_empty_answer_by_hand() -> None:
    """Truth: all conductive. Found: all water. Conductive: c1 / (1 + c1) everywhere (both variances vanish); resistive: 1."""
    found, truth = torch.zeros(256, 256), torch.full((256, 256), 2.0)
    assert float(ktc_score(found, truth)) == pytest.approx((1e-4 / (1 + 1e-4) + 1) / 2, abs=1e-12)
    assert float(ktc_score(truth + 0.09, truth)) == pytest.approx(1.0)
    assert float(ktc_score(truth + 0.11, truth)) < 0.51


def test_members_and_refusals() -> None:
    batch = torch.from_numpy(np.stack([masks(6), masks(7)]))[:, None]
    scores = ktc_score(batch, batch.flip(0))
    assert scores.shape == (2, 1)
    assert torch.equal(scores[1], ktc_score(batch[1], batch[0]))
    for shape in ((255, 256), (256,), (3, 256, 256)):
        with pytest.raises(InputError, match="256, 256"):
            ktc_score(torch.zeros(shape), torch.zeros(2, 256, 256))


def levels_by_loops(image: Any, bins: int = 256) -> Any:
    """Both thresholds by trying all pairs, the last of equals kept."""
    counts, edges = np.histogram(image.ravel(), bins)
    place = np.arange(bins)
    mean = (counts * place).sum() / counts.sum()
    best, kept = -1.0, (0, 0)
    for upper in range(1, bins):
        for lower in range(1, upper):
            parts = [slice(0, lower), slice(lower, upper), slice(upper, bins)]
            sizes = [counts[part].sum() for part in parts]
            if min(sizes) == 0:
                continue
            value = sum(
                n * ((counts[part] * place[part]).sum() / n - mean) ** 2 for n, part in zip(sizes, parts, strict=True)
            )
            if value >= best * (1 - 1e-12):
                best, kept = max(value, best), (lower, upper)
    middles = (edges[1:] + edges[:-1]) / 2
    return middles[kept[0] - 1], middles[kept[1] - 1]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_otsu_agrees_with_loops(sign: float) -> None:
    rng = np.random.default_rng(8)
    image = sign * (0.3 * rng.standard_normal((40, 37)) + np.where(rng.random((40, 37)) < 0.1, 3, 0))
    image[:5] -= 4 * sign
    lower, upper = levels_by_loops(image, 32)
    kinds = (image >= lower).astype(int) + (image > upper)
    water = int(np.bincount(kinds.ravel()).argmax())
    expected = np.where(kinds == water, 0, np.where(kinds < water, 1, 2))
    found = otsu(torch.from_numpy(np.stack([image, image * 2 + 1])), 32)
    np.testing.assert_array_equal(found[0].numpy(), expected)
    assert found.dtype == torch.uint8 and set(found.unique().tolist()) == {0, 1, 2}
    # Broken twin: the image with its sign changed exchanges the two kinds.
    assert not torch.equal(otsu(torch.from_numpy(-image), 32), found[0])


def test_otsu_recovers_three_plateaus_and_refuses_two() -> None:
    truth = torch.from_numpy(masks(9))
    image = torch.tensor([0.0, -1.0, 2.0])[truth.long()]
    assert torch.equal(otsu(image + 1e-2 * torch.rand(256, 256, generator=torch.Generator().manual_seed(0))), truth)
    resistive_only = torch.tensor([0.0, -1.0, -2.0])[truth.long()]
    assert set(otsu(resistive_only).unique().tolist()) == {0, 1}
    for image in (
        torch.zeros(4, 4),
        torch.eye(4),
        torch.zeros(4, 4, dtype=torch.complex64),
        torch.full((4, 4), torch.nan),
    ):
        with pytest.raises(InputError, match="otsu"):
            otsu(image)


def test_the_published_segmentations(real_data: Path) -> None:
    """A truth scores 1 with itself and less with the other; agreement with the definition as above."""
    truths = [open_dataset(real_data / "eit_ktc2023" / f"true{k}.mat").truth.values for k in (1, 2)]
    first, second = (torch.from_numpy(truth) for truth in truths)
    assert float(ktc_score(first, first)) == pytest.approx(1.0, abs=1e-12)
    assert float(ktc_score(second, first)) == pytest.approx(by_definition(truths[1], truths[0]), abs=1e-9)
    assert float(ktc_score(second, first)) < 0.9
