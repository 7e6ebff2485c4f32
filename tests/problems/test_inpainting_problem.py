"""The catalogue's inpainting: masks, simulated and given images, priors, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import sciml
from sciml.core import GaussianNoise
from sciml.domains import InputError
from sciml.priors import Wavelet
from sciml.solvers import Discrepancy, PlugAndPlay, ProximalGradient


def error(value: torch.Tensor, truth: torch.Tensor) -> float:
    return float((value - truth).norm() / truth.norm())


def test_the_simulation_is_what_it_says() -> None:
    posed = sciml.problem("inpainting", n=(40, 31), missing=0.3, sigma=0.02, seed=4)
    seen = posed.noise.measured
    assert posed.data.shape == posed.truth.shape == (1, 1, 40, 31)
    assert int((~seen).sum()) == round(0.3 * 1240)
    assert torch.equal(posed.forward.seen, seen) and bool((posed.data[~seen] == 0).all())
    rest = ((posed.data - posed.truth) / 0.02)[seen]
    assert abs(float(rest.std()) - 1) < 0.1  # 868 normal numbers: deviation 0.024
    assert abs(float(posed.misfit(posed.truth)) - 1) < 0.2 < abs(float(posed.misfit(posed.truth + 0.02)) - 1)
    assert int(posed.noise.dof(posed.data)) == int(seen.sum())


def test_holes_are_squares() -> None:
    seen = sciml.problem("inpainting", n=(20, 22), missing=0.4, hole=5, seed=1).noise.measured[0, 0]
    squares = seen[:, :20].reshape(4, 5, 4, 5)
    assert bool((squares == squares[:, :1, :, :1]).all())
    assert int((~seen).sum()) in range(150, 201)  # 8 of 20 squares, some of them cut to 2 columns
    single = sciml.problem("inpainting", n=(20, 22), missing=0.4, seed=1).noise.measured[0, 0]
    assert not bool((single[:, :20].reshape(4, 5, 4, 5) == single[:, :20].reshape(4, 5, 4, 5)[:, :1, :, :1]).all())


def test_members_depend_on_seed_and_number_alone() -> None:
    batch, more = (sciml.problem("inpainting", n=16, batch=count, seed=1) for count in (3, 5))
    assert torch.equal(batch.data, more.data[:3]) and torch.equal(batch.forward.seen, more.forward.seen[:3])
    assert torch.equal(batch.data[:1], sciml.problem("inpainting", n=16, seed=1).data)
    assert not torch.equal(batch.forward.seen[0], batch.forward.seen[1])


def test_total_variation_fills_single_pixels_and_holes() -> None:
    for settings, share in (({"missing": 0.5}, 0.45), ({"missing": 0.25, "hole": 4}, 0.7)):
        posed = sciml.problem("inpainting", n=32, **settings)
        solution = sciml.solve(posed)
        assert solution.ok, str(solution)
        assert error(solution.value, posed.truth) < share * error(posed.data, posed.truth)


def test_wavelets_and_a_denoiser() -> None:
    posed = sciml.problem("inpainting", n=32, missing=0.3, seed=2)
    waves = sciml.solve(posed.with_prior(Wavelet()), Discrepancy(ProximalGradient()))
    assert waves.ok, str(waves)
    mean = sciml.Denoiser(lambda x, sigma: torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
    plugged = sciml.solve(posed.with_prior(mean), PlugAndPlay())
    for solution in (waves, plugged):
        assert error(solution.value, posed.truth) < 0.6 * error(posed.data, posed.truth)


def test_a_batch_of_masks_is_the_stack_of_its_members() -> None:
    """Each finds its own weight; a member that is done rounds before the others is a little better for them."""
    batch = sciml.problem("inpainting", n=16, batch=2, seed=3)
    value = sciml.solve(batch).value
    for i in range(2):
        torch.testing.assert_close(value[i : i + 1], sciml.solve(batch.member(i)).value, rtol=0, atol=1e-5)


def test_an_image_of_ones_own() -> None:
    """With not-a-number, or with a mask; the same problem either way. Colours as members share a mask."""
    whole = sciml.problem("inpainting", n=48, seed=2, missing=0.0)
    assert bool(whole.forward.seen.all())
    noisy = GaussianNoise(0.02).sample(whole.truth, generator=torch.Generator().manual_seed(0))[0, 0]
    gone = torch.rand(48, 48, generator=torch.Generator().manual_seed(1)) < 0.2
    holed = torch.where(gone, torch.nan, noisy)
    posed = sciml.problem("inpainting", data=holed)
    assert posed.truth is None and torch.equal(posed.forward.seen[0, 0], ~gone)
    assert 0.015 < float(posed.noise.sigma) < 0.03  # estimated where four neighbours are known
    masked = sciml.problem("inpainting", data=noisy.numpy(), mask=(~gone).to(torch.uint8).numpy())
    assert torch.equal(masked.data, posed.data) and torch.equal(masked.noise.sigma, posed.noise.sigma)
    colours = sciml.problem("inpainting", data=noisy.expand(3, 1, 48, 48), mask=~gone, sigma=0.02, dtype="float32")
    assert colours.batch == 3 and colours.forward.batch == 1
    assert sciml.solve(colours.member(0)).value.dtype == torch.float32
    volume = sciml.problem("inpainting", image=torch.zeros(6, 7, 8), missing=0.2)
    assert volume.data.shape == (1, 1, 6, 7, 8)


IMAGE = torch.zeros(9, 9, dtype=torch.float64)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"data": IMAGE}, "give mask="),
        ({"data": IMAGE, "image": IMAGE}, "not both"),
        ({"data": IMAGE, "mask": IMAGE[:4] == 0, "sigma": 0.1}, r"mask has shape \(4, 9\)"),
        ({"data": IMAGE, "mask": IMAGE + 2, "sigma": 0.1}, "other numbers than 0 and 1"),
        ({"data": IMAGE, "mask": IMAGE > 1, "sigma": 0.1}, "sees no pixel"),
        ({"data": IMAGE, "mask": torch.eye(9)}, "give sigma="),
        ({"data": "photograph"}, "makes no tensor"),
        ({"data": IMAGE + 1j}, "real tensor"),
        ({"data": IMAGE, "batch": 2}, "without batch="),
        ({"image": torch.zeros(3, 1, 9, 9), "batch": 2}, "3 images and batch=2"),
        ({"sigma": 0.0}, "sigma is 0"),
        ({"missing": 1.0}, "missing is 1"),
        ({"hole": 0}, "hole is 0"),
        ({"n": (8, 8, 8)}, "in the plane"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        sciml.problem("inpainting", **{"n": 16, **settings} if "data" not in settings else settings)
