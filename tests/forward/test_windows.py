"""Filtered back-projection and its windows: values of a disc, units, uneven and repeated views."""

from __future__ import annotations

import math
from dataclasses import replace

import ellipses
import pytest
import torch

from sciml.domains.errors import InputError
from sciml.domains.pixels import Pixels
from sciml.forward import windows
from sciml.forward._filtered import ramped, view_weights
from sciml.forward.radon import Radon
from sciml.forward.windows import Cosine, Hamming, Hann, RamLak, SheppLogan

F64 = torch.float64
ALL = [RamLak, SheppLogan, Cosine, Hann, Hamming]
DISC = (ellipses.Ellipse(1.5, 0.1, -0.2, 0.6, 0.6),)


def views(count: int, turn: float = math.pi) -> torch.Tensor:
    return torch.arange(count, dtype=F64) * (turn / count)


def inside(op: Radon) -> torch.Tensor:
    x, y = op.pixels.points()
    return ((x - 0.1) ** 2 + (y + 0.2) ** 2).sqrt() < 0.5


SCANS = {
    "half a turn": Radon(Pixels((40, 48), (2.0, 2.4)), views(180)),
    "whole turn": Radon(Pixels((40, 48), (2.0, 2.4)), views(361, 2 * math.pi)),
    "each view twice": Radon(Pixels((40, 48), (2.0, 2.4)), views(180).repeat(2)),
    "uneven": Radon(Pixels((40, 48), (2.0, 2.4)), views(240) + 0.006 * torch.sin(views(240) * 40)),
    "coarse in one half": Radon(Pixels((40, 48), (2.0, 2.4)), torch.cat([views(320)[:160], views(160)[80:]])),
    "fine detector off the axis": Radon(Pixels((40, 48), (2.0, 2.4)), views(180), pitch=0.02, centre=0.05),
}


@pytest.mark.parametrize("name", SCANS)
def test_a_disc_has_its_value(name: str) -> None:
    op = SCANS[name]
    data = ellipses.sinogram(DISC, op.angles, op.positions)
    image = op.backproject_filtered(data, Hann())[0, 0]
    assert float(image[inside(op)].mean()) == pytest.approx(1.5, rel=0.01)
    assert float((image[inside(op)] - 1.5).abs().max()) < 0.03 * 1.5
    wrong = replace(op, pitch=1.1 * op.pitch).backproject_filtered(data, Hann())[0, 0]
    assert abs(float(wrong[inside(op)].mean()) - 1.5) > 0.05


@pytest.mark.parametrize("kind", ALL)
def test_many_views_and_every_window(kind: type[windows.Window]) -> None:
    op = Radon(Pixels((96, 96), (2.0, 2.0)), views(360))
    data = ellipses.sinogram(DISC, op.angles, op.positions)
    image = op.backproject_filtered(data, kind())[0, 0]
    assert float((image[inside(op)] - 1.5).abs().max()) < 0.01 * 1.5
    assert float((image - ellipses.image(DISC, op.pixels)[0, 0]).square().mean().sqrt()) < 0.1


def test_it_undoes_the_projection_in_batches_and_single_precision() -> None:
    op = Radon(Pixels((64, 64), (2.0, 2.0)), views(200))
    picture, _ = ellipses.blobs(op.pixels, op.angles, op.positions, 0.15)
    data = op(torch.cat([picture, 2 * picture]))
    image = op.backproject_filtered(data, RamLak())
    assert image.shape == (2, *op.space.shape)
    torch.testing.assert_close(image[1], 2 * image[0])
    assert float((image[:1] - picture).norm() / picture.norm()) < 0.02
    single = replace(op, angles=op.angles.float()).backproject_filtered(data.float(), RamLak())
    torch.testing.assert_close(single.double(), image, rtol=0, atol=1e-5)


def test_it_is_linear_and_differentiable() -> None:
    op = Radon(Pixels((4, 5), (1.0, 1.0)), views(3), bins=6)
    data = torch.randn(2, *op.codomain.shape, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: op.backproject_filtered(d, Hann()), data)


def test_the_ramp_keeps_the_mean() -> None:
    point = torch.zeros(1, 1, 33, dtype=F64)
    point[..., 16] = 1.0
    response = ramped(point, 0.5, RamLak())[0, 0]
    n = torch.arange(33, dtype=F64) - 16
    exact = torch.where(n % 2 == 0, 0.0, -1 / (math.pi * n) ** 2) / 0.5
    exact[16] = 0.25 / 0.5
    torch.testing.assert_close(response, exact, rtol=1e-12, atol=1e-14)


def test_weights_of_the_views() -> None:
    for angles in (views(7), views(7, 2 * math.pi), views(8, 2 * math.pi), torch.rand(9, dtype=F64), views(1)):
        weights = view_weights(angles)
        wedge = float((math.pi - weights.sum()).abs())
        assert wedge < 1e-12 or float(angles.max()) < 1  # only the random views leave a wedge
    half = view_weights(torch.linspace(0, math.pi / 2, 91, dtype=F64))
    torch.testing.assert_close(half, torch.full_like(half, math.pi / 180))
    uneven = view_weights(torch.tensor([0.0, 1.0, 1.5], dtype=F64))
    torch.testing.assert_close(uneven, torch.tensor([(math.pi - 0.5) / 2, 0.75, (math.pi - 1.0) / 2], dtype=F64))


@pytest.mark.parametrize("kind", ALL)
def test_windows_fall_from_one_and_end_at_the_cutoff(kind: type[windows.Window]) -> None:
    at = torch.linspace(0, 1, 101, dtype=F64)
    gain, early = kind()(at), kind(cutoff=0.5)(at)
    assert float(gain[0]) == pytest.approx(1) and bool((gain.diff() <= 1e-12).all())
    torch.testing.assert_close(early[:51], gain[::2])
    assert float(early[51:].abs().max()) == 0
    for cutoff in (0.0, 1.5, math.nan):
        with pytest.raises(InputError, match="cutoff"):
            kind(cutoff=cutoff)
