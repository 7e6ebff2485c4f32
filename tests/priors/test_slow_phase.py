"""The slow phase of images of both signs: recovered beyond a turn, per member, or refused."""

from __future__ import annotations

import math

import pytest
import torch

from sciml.domains import Ellipses, InputError, Pixels
from sciml.priors import slow_phase

PIXELS = Pixels((64, 48), (2.0, 1.5))


def images(count: int = 2) -> torch.Tensor:
    """Random ellipses of both signs."""
    return Ellipses.random(count, seed=5).image(PIXELS)


def turn(size: float) -> torch.Tensor:
    x, y = PIXELS.points()
    return (size * (x + 0.4 * y * y - 0.7 * x * y)).reshape(1, 1, *PIXELS.shape)


def error(found: torch.Tensor, truth: torch.Tensor, real: torch.Tensor) -> float:
    """Root mean square error where there is an image, up to one sign of the whole."""
    off = found - truth
    seen = real.abs() > 0.1
    whole = [o[s] for o, s in zip(off, seen, strict=True)]
    whole = [o - math.pi * (o.median() / math.pi).round() for o in whole]
    return max(float(o.square().mean().sqrt()) for o in whole)


@pytest.mark.parametrize("size", [0.5, 3.0, 6.0])
def test_the_phase_is_found_whatever_the_signs(size: float) -> None:
    real, phase = images(), turn(size)
    assert bool((real < -0.1).any()) and bool((real > 0.1).any())
    x = torch.polar(torch.ones_like(phase), phase) * real
    found = slow_phase(x, 1.5)
    assert error(found, phase, real) < 0.03 * size  # at an edge the average of 1.5 pixels of 1/32 sees one side only
    w = torch.polar(torch.ones_like(found), -found) * x
    assert bool((w.real.flatten(1).sum(1) >= 0).all())
    # The argument of the image itself jumps by pi with the sign, and by 2 pi where it wraps.
    assert error(x.angle(), phase, real) > 1.0


def test_noise_moves_it_little() -> None:
    real, phase = images(), turn(3.0)
    x = torch.polar(torch.ones_like(phase), phase) * real
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    found = slow_phase(x + 0.03 * noise, 2.5)
    strong = real.abs() > 0.3
    off = (found - phase)[strong]
    off = off - math.pi * (off / math.pi).round()
    assert float(off.square().mean().sqrt()) < 0.1


def test_members_are_alone_and_bits_repeat() -> None:
    x = torch.polar(torch.ones_like(turn(2.0)), turn(2.0)) * images(3)
    whole = slow_phase(x)
    assert torch.equal(whole, slow_phase(x))
    for i in range(3):
        assert torch.equal(whole[i : i + 1], slow_phase(x[i : i + 1]))
    assert torch.equal(slow_phase(7.0 * x[:1]).round(decimals=9), whole[:1].round(decimals=9))  # units do not matter
    assert slow_phase(x.to(torch.complex64)).dtype == torch.float32
    assert slow_phase(x[:0]).shape == (0, 1, *PIXELS.shape)
    assert float(slow_phase(torch.zeros(1, 1, 5, 4, dtype=torch.complex128)).abs().max()) == 0.0
    line = torch.polar(torch.ones(1, 1, 30), torch.linspace(0, 9, 30).reshape(1, 1, 30))
    assert float((slow_phase(line, 1.0) - slow_phase(line, 1.0)[..., :1]).max()) == pytest.approx(9.0, abs=0.4)


def test_refusals() -> None:
    x = torch.ones(1, 1, 6, 5, dtype=torch.complex128)
    with pytest.raises(InputError, match="complex images"):
        slow_phase(x.real)
    with pytest.raises(InputError, match="smooth is 0"):
        slow_phase(x, 0.0)
    x[0, 0, 2, 2] = complex("nan")
    with pytest.raises(InputError, match="not finite"):
        slow_phase(x)
