"""Pixel means and line integrals of ellipses against areas, fine sampling and quadrature."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from sciml.domains import Ellipses, Pixels, shepp_logan
from sciml.domains.errors import InputError

BOX = Pixels((13, 9), extent=(2.0, 1.5), origin=(-0.9, -0.8))


def some(**changes: float) -> Ellipses:
    """Two images: one of an ellipse within the box, one of two that cross each other and its sides."""
    value = torch.tensor([[1.3, 0.0], [-0.4, 0.9]], dtype=torch.float64)
    centre = torch.tensor([[[0.1, -0.05], [0.0, 0.0]], [[-0.8, 0.2], [0.3, 0.5]]], dtype=torch.float64)
    axes = torch.tensor([[[0.31, 0.07], [1.0, 1.0]], [[0.4, 0.6], [0.9, 0.003]]], dtype=torch.float64)
    angle = torch.tensor([[0.7, 0.0], [-2.0, 1.1]], dtype=torch.float64)
    return Ellipses(centre, axes * changes.get("scale", 1.0), angle + changes.get("turn", 0.0), value)


def sampled(ellipses: Ellipses, pixels: Pixels, fine: int) -> torch.Tensor:
    """Means over the pixels by point samples."""
    dense = Pixels(tuple(n * fine for n in pixels.shape), pixels.extent, pixels.corner)
    values = torch.stack([at(ellipses, i, torch.stack(dense.points(), -1)) for i in range(ellipses.batch)])
    (nx, ny), batch = pixels.shape, ellipses.batch
    return values.reshape(batch, nx, fine, ny, fine).mean((2, 4)).unsqueeze(1)


def at(ellipses: Ellipses, member: int, points: torch.Tensor) -> torch.Tensor:
    """Point values of one image, from the definition."""
    total = torch.zeros(points.shape[:-1], dtype=torch.float64)
    for c, h, phi, value in zip(
        *(getattr(ellipses, f.name)[member] for f in dataclasses.fields(ellipses)), strict=True
    ):
        d = points - c
        u = (d[..., 0] * phi.cos() + d[..., 1] * phi.sin()) / h[0]
        v = (d[..., 1] * phi.cos() - d[..., 0] * phi.sin()) / h[1]
        total = total + value * (u * u + v * v <= 1)
    return total


def test_pixel_means_are_those_of_point_samples() -> None:
    fine = 64  # an edge moves over at most a stripe one sample wide: 1 / fine per edge that crosses the pixel
    exact = some().image(BOX)
    assert exact.shape == (2, 1, 13, 9)
    assert (exact - sampled(some(), BOX, fine)).abs().max() < 2 / fine
    for twin in (some(scale=1.1), some(turn=0.2)):
        assert (twin.image(BOX) - sampled(some(), BOX, fine)).abs().max() > 4 / fine


def test_the_whole_is_the_sum_of_its_pixels() -> None:
    one = some()[:1]
    area = 1.3 * math.pi * 0.31 * 0.07
    for pixels in (BOX, Pixels((1, 1), extent=2.0), Pixels((41, 64), extent=2.0)):
        assert abs(float((one.image(pixels) * pixels.volumes()).sum()) - area) < 1e-14
        assert abs(float((some(scale=1 + 1e-12)[:1].image(pixels) * pixels.volumes()).sum()) - area) > 1e-14


def test_coarse_means_are_means_of_fine_means() -> None:
    ellipses = Ellipses.random(2, seed=3)
    fine = ellipses.image(Pixels((48, 36), extent=2.0)).reshape(2, 1, 12, 4, 12, 3).mean((3, 5))
    assert (fine - ellipses.image(Pixels((12, 12), extent=2.0))).abs().max() < 1e-12  # about 50 sums of areas, rounding


def test_line_integrals_are_quadratures() -> None:
    ellipses = some()
    angles, s = torch.tensor([0.0, 0.4, 2.2], dtype=torch.float64), torch.linspace(-0.6, 0.7, 5, dtype=torch.float64)
    exact = ellipses.line_integrals(angles, s)
    assert exact.shape == (2, 1, 3, 5)
    t, step = torch.linspace(-3, 3, 600_001, dtype=torch.float64), 1e-5
    for view, angle in enumerate(angles):
        along = torch.stack((-angle.sin(), angle.cos()))
        for place, distance in enumerate(s):
            points = distance * torch.stack((angle.cos(), angle.sin())) + t[:, None] * along
            for member in range(2):
                count = at(ellipses, member, points).sum() * step
                # two ends per chord, each known to a step, values about 1
                assert abs(float(exact[member, 0, view, place] - count)) < 4 * step
    assert (some(turn=0.01).line_integrals(angles, s) - exact).abs().max() > 100 * step


def test_projections_hold_the_mass() -> None:
    ellipses = shepp_logan()
    pixels = Pixels((64, 64), extent=2.0)
    mass = float((ellipses.image(pixels) * pixels.volumes()).sum())
    s = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 10_000 - 1
    views = ellipses.line_integrals(torch.tensor([0.3, 1.7]), s).sum(-1) / 10_000
    assert (views - mass).abs().max() < 1e-5  # midpoint rule on square-root ends: h^1.5
    assert abs(mass) > 0.1


def test_shepp_logan_has_the_values_of_the_book() -> None:
    image = shepp_logan().image(Pixels((201, 201), extent=2.0))[0, 0]
    assert float(image[100, 100]) == pytest.approx(0.2)
    assert float(image[100, 191]) == pytest.approx(1.0)  # the skull
    assert float(image[0, 0]) == 0.0
    assert float(image[122, 100]) == pytest.approx(0.0)  # the smaller ventricle, 1 - 0.8 - 0.2


def test_random_is_the_setting_of_the_paper() -> None:
    ellipses = Ellipses.random(400, seed=0, extent=3.0)
    used = ellipses.value != 0
    count = used.sum(1).to(torch.float64)
    # standard errors of means over 400 images and 20000 ellipses, four of them each
    assert abs(float(count.mean()) - 50) < 4 * math.sqrt(50 / 400)
    assert abs(float(count.var()) / 50 - 1) < 4 * math.sqrt(2 / 400)
    axes = ellipses.axes[used]
    assert abs(float(axes.mean()) / 0.3 - 1) < 4 / math.sqrt(axes.numel())
    assert float(ellipses.centre[used].abs().max()) <= 1.5
    size = ellipses.value[used].abs()
    assert abs(float(size.mean()) / 0.1 - 1) < 4 * 1.3 / math.sqrt(size.numel())
    again = Ellipses.random(400, generator=torch.Generator().manual_seed(0), extent=3.0)
    assert torch.equal(again.value, ellipses.value)
    assert not torch.equal(Ellipses.random(400, seed=1).value[:, :20], ellipses.value[:, :20])


def test_members_do_not_see_each_other() -> None:
    three = Ellipses.random(3, seed=5)
    together = three.image(BOX)
    assert torch.equal(together[1:2], three[1:2].image(BOX))


def test_bad_input_is_refused() -> None:
    good = some()
    with pytest.raises(InputError, match="half axes are positive"):
        dataclasses.replace(good, axes=-good.axes)
    with pytest.raises(InputError, match="shapes"):
        dataclasses.replace(good, angle=good.angle[:1])
    with pytest.raises(InputError, match="not finite"):
        dataclasses.replace(good, centre=good.centre * math.nan)
    with pytest.raises(InputError, match="plane"):
        good.image(Pixels((3, 3, 3)))
    with pytest.raises(InputError, match="one of seed"):
        Ellipses.random(2)
