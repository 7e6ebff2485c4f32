"""Coil maps: simulated ones are smooth and normalised, estimated ones are the true ones where there is an object."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciml.domains import InputError, Pixels
from sciml.domains.phantoms import shepp_logan
from sciml.forward import Fourier, birdcage_maps, espirit, low_resolution_maps
from sciml.forward.coil_maps import calibration_block

PIXELS = Pixels((60, 52), (2.0, 2.0))


def scan(coils: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """True maps, whole k-space and where the object is."""
    maps = birdcage_maps(PIXELS, coils)
    image = shepp_logan().image(PIXELS).to(torch.complex128)
    operator = Fourier(PIXELS, maps)
    return maps[0], operator.zero_filled(operator(image))[0], image[0, 0].abs() > 0.05


def likeness(found: Tensor, true: Tensor) -> Tensor:
    """1 where the maps are the same up to a phase common to the coils, which no data can tell."""
    return (found.conj() * true).sum(0).abs()


@pytest.mark.parametrize("shape", [(9,), (9, 14), (6, 7, 5)], ids=str)
def test_birdcage_maps_are_normalised_and_smooth(shape: tuple[int, ...]) -> None:
    maps = birdcage_maps(Pixels(shape), 4)
    assert maps.shape == (1, 4, *shape)
    assert torch.allclose(torch.linalg.vector_norm(maps, dim=1), torch.ones((1, *shape), dtype=torch.float64))
    fine = birdcage_maps(Pixels((80, 80)), 8)[0]
    for axis in (1, 2):  # no jump of the phase by a turn: a pixel of 0.025, 0.4 from the nearest loop
        assert float(fine.diff(dim=axis).abs().max()) < 0.08
    assert float((fine[0] - fine[1]).abs().max()) > 0.3


def test_espirit_finds_the_maps() -> None:
    true, kspace, inside = scan()
    found = espirit(kspace)
    # 24 of 52 points see the maps at a little less than the pixels' resolution.
    assert float(likeness(found, true)[inside].min()) > 0.997
    size = torch.linalg.vector_norm(found, dim=0)
    assert torch.allclose(size[inside], torch.ones_like(size[inside]))
    assert torch.equal(espirit(kspace), found)
    wrong = espirit(kspace.conj())  # the broken twin: maps of the mirrored object
    assert not float(likeness(wrong, true)[inside].min()) > 0.9


def test_low_resolution_finds_the_maps_a_little_less_well() -> None:
    true, kspace, inside = scan()
    found = low_resolution_maps(kspace)
    assert float(likeness(found, true)[inside].min()) > 0.99


def test_maps_do_not_depend_on_the_unit_of_the_data_or_on_what_lies_outside_the_block() -> None:
    _, kspace, inside = scan()
    found = espirit(kspace, calibration=20)
    assert torch.allclose(espirit(1e-6 * kspace, calibration=20)[:, inside], found[:, inside], atol=1e-8)
    mask = torch.zeros(PIXELS.shape, dtype=torch.bool)
    mask[20:40, 16:36] = True
    assert torch.allclose(espirit(kspace * mask), found, atol=1e-10)
    single = espirit(kspace.to(torch.complex64), calibration=20)
    assert float(likeness(single.to(torch.complex128), found)[inside].min()) > 1 - 1e-4


def test_phase_of_the_object_stays_in_the_image() -> None:
    true, kspace, inside = scan()
    operator = Fourier(PIXELS, espirit(kspace))
    flat = operator.adjoint(operator.sample(kspace[None]))[0, 0]
    x, y = PIXELS.points()
    phase = torch.polar(torch.ones_like(x), 1.5 * x - y)
    true_operator = Fourier(PIXELS, true)
    turned = true_operator.zero_filled(true_operator(phase * shepp_logan().image(PIXELS)))[0]
    operator = Fourier(PIXELS, espirit(turned))
    image = operator.adjoint(operator.sample(turned[None]))[0, 0]
    relative = (image * flat.conj() * phase.conj())[inside]
    middle = relative.sum() / relative.sum().abs()
    assert (
        float((relative / relative.abs() - middle).abs().max()) < 0.15
    )  # maps have an own phase only at low resolution


def test_one_and_three_axes() -> None:
    for shape in ((40,), (14, 16, 12)):
        pixels = Pixels(shape, (2.0,) * len(shape))
        maps = birdcage_maps(pixels, 3)
        bump = torch.exp(-2 * sum(p.square() for p in pixels.points())).to(torch.complex128)
        operator = Fourier(pixels, maps)
        kspace = operator.zero_filled(operator(bump[None, None]))[0]
        found = espirit(kspace, calibration=12, kernel=4, crop=0.0)
        assert found.shape == (3, *shape)
        inside = bump.abs() > 0.5
        assert float(likeness(found, maps[0])[inside].min()) > 0.99


def test_the_calibration_block_is_what_was_sampled_whole() -> None:
    mask = torch.zeros(31, 40, dtype=torch.bool)
    mask[8:20, 15:33] = True
    assert calibration_block(mask) == (slice(8, 20), slice(15, 33))
    assert calibration_block(mask, 6) == (slice(12, 18), slice(17, 23))
    mask[15, 20] = False
    with pytest.raises(InputError, match="middle of k-space"):
        calibration_block(mask)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda k: espirit(k.real), "complex"),
        (lambda k: espirit(k[0, 0]), "shape"),
        (lambda k: espirit(k * float("nan")), "not finite"),
        (lambda k: espirit(k, calibration=4), "too few"),
        (lambda k: espirit(k, kernel=1), "kernel"),
        (lambda k: espirit(0 * k, torch.ones(60, 52)), "zero"),
        (lambda k: espirit(k, torch.ones(5, 52)), r"mask has shape \(5, 52\)"),
        (lambda k: low_resolution_maps(k, torch.zeros(60, 52)), "samples nothing"),
        (lambda k: birdcage_maps(PIXELS, 0), "at least one coil"),
    ],
)
def test_refusals(call: object, words: str) -> None:
    _, kspace, _ = scan(3)
    with pytest.raises(InputError, match=words):
        call(kspace)  # type: ignore[operator]
