"""Settings of the wrong kind are one sentence that names the setting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import sciml
from sciml.core.counts import PoissonNoise, TransmissionNoise
from sciml.domains import InputError, Pixels
from sciml.forward import Hann, Radon, RayDriven
from sciml.priors import Haar, Smoothness, Wavelet
from sciml.solvers import FilteredBackprojection

PIXELS = Pixels((8, 8), (1.0, 1.0))


def radon(**settings: Any) -> Radon:
    return Radon(**{"pixels": PIXELS, "angles": torch.tensor([0.0, 1.0]), **settings})


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "pixels": (lambda: radon(pixels=(8, 8)), "Pixels"),
    "bins nan": (lambda: radon(bins=math.nan), "bins is"),
    "bins text": (lambda: radon(bins="9"), "bins is '9'"),
    "pitch": (lambda: radon(pitch="a"), "pitch is 'a'"),
    "centre": (lambda: radon(centre=None), "centre is None"),
    "route class": (lambda: radon(route=RayDriven), r"give RayDriven\(\)"),
    "route name": (lambda: radon(route="fourier"), "route is 'fourier'"),
    "window class": (lambda: FilteredBackprojection(window=Hann), "window is"),
    "window name": (lambda: FilteredBackprojection(window="hann"), "window is 'hann'"),
    "cutoff": (lambda: Hann("1"), "cutoff is a fraction"),
    "family": (lambda: Wavelet(family=Haar), "family is"),
    "levels": (lambda: Wavelet(levels=2.0), "levels is 2.0"),
    "order": (lambda: Smoothness("1"), "order of Smoothness is '1'"),
    "blank": (lambda: TransmissionNoise(None), "blank is None"),
    "background": (lambda: PoissonNoise("5"), "background is '5'"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_sentence_names_the_setting(case: str) -> None:
    make, sentence = CASES[case]
    with pytest.raises(InputError, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_what_is_right_is_taken() -> None:
    scan = radon(bins=9.0, pitch=torch.tensor(0.2), centre=0, route=RayDriven())
    assert scan.bins == 9 and isinstance(scan.bins, int)
    assert FilteredBackprojection(window=lambda f: f).window is not None
    assert Wavelet(levels=2, family=Haar()).levels == 2 and Smoothness(0).order == 0
    TransmissionNoise(torch.ones(3)), PoissonNoise(0)


@pytest.mark.parametrize("name", ["burgers", "heat"])
def test_members_given_by_hand_are_not_drawn(name: str) -> None:
    start = torch.zeros(1, 1, 16, dtype=torch.float64)
    with pytest.raises(InputError, match="batch=3 draws random members, but with these settings .* has 1"):
        sciml.problem(name, batch=3, n=16, start=start)
