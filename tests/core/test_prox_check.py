"""checks.prox: every classical prior passes on every kind of domain; each broken twin is rejected."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml import checks
from sciml.core.prior import Prior
from sciml.domains import GaussianField, Grid, Neumann, Periodic
from sciml.domains.pixels import Pixels
from sciml.domains.space import Space
from sciml.priors import Daubechies, Gaussian, Smoothness, TotalVariation, Wavelet

SPACES = {
    "pixels": Pixels((5, 4), extent=(1.0, 0.5)).space(),
    "channels": Pixels((7,), extent=(2.0,)).space(2),
    "grid": Grid((4, 5), extent=(1.0, 0.7), sides={"x": Neumann(0.0), "y": Periodic()}).space(),
    "volume": Pixels((3, 2, 4), extent=(1.0, 2.0, 0.7)).space(),
}
PRIORS = {
    "variation": TotalVariation(),
    "bounded": TotalVariation(0.0, 1.0),
    "wavelet": Wavelet(2),
    "daubechies": Wavelet(2, Daubechies(2)),
    "smoothness": Smoothness(),
    "fractional": Smoothness(0.6),
    "gaussian": Gaussian(GaussianField(mean_mode=True), 0.3),
}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_priors_pass(prior: Any, space: Space) -> None:
    assert checks.prox(prior, space)


def test_complex_images() -> None:
    space = replace(SPACES["pixels"], complex=True)
    for prior in (TotalVariation(), Wavelet(2), Smoothness()):
        assert checks.prox(prior, space)


@dataclass(frozen=True, eq=False)
class Twin(Prior):
    """A prior whose proximal map is spoiled."""

    inner: Any
    how: str
    only_step = None

    def on(self, space: Space) -> Twin:
        return replace(self, inner=self.inner.on(space))

    def energy(self, x: Tensor) -> Tensor:
        return self.inner.energy(x)

    def prox(self, v: Tensor, step: float) -> Tensor:
        if self.how == "twice the step":
            return self.inner.prox(v, 2 * step)
        if self.how == "one step for all":
            return self.inner.prox(v, 0.1)
        if self.how == "shifted":
            return self.inner.prox(v, step) + 1e-3
        if self.how == "a permille short":
            return self.inner.prox(v, step * 1.002)
        if self.how == "expansive":
            return v + (v - self.inner.prox(v, step))
        return self.inner.on(Space(None, tuple(v.shape[1:]))).prox(v, step)  # the spacing forgotten


@pytest.mark.parametrize("prior", [PRIORS[name] for name in ("variation", "wavelet", "smoothness", "gaussian")])
@pytest.mark.parametrize(
    "how", ["twice the step", "one step for all", "shifted", "a permille short", "expansive", "the spacing forgotten"]
)
def test_broken_twins_are_rejected(prior: Any, how: str) -> None:
    result = checks.prox(Twin(prior, how))
    assert not result
    assert "FAILS" in str(result)


@dataclass(frozen=True)
class Once:
    """Soft threshold that knows one step."""

    used: float
    only_step: float | None = 0.4

    def energy(self, x: Tensor) -> Tensor:
        return x.abs().flatten(1).sum(1)

    def prox(self, v: Tensor, step: float) -> Tensor:
        assert step == self.only_step
        return v.sign() * (v.abs() - self.used).clamp_min(0)


def test_a_prior_with_one_step_is_asked_for_that() -> None:
    assert checks.prox(Once(0.4))
    assert not checks.prox(Once(0.41))


class Silent:
    """A proximal map without an energy."""

    only_step = None

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def prox(self, v: Tensor, step: float) -> Tensor:
        return self.factor * v


def test_without_an_energy_firmness_decides() -> None:
    assert "no energy" in str(checks.prox(Silent(0.5)))
    assert checks.prox(Silent(0.5))
    assert not checks.prox(Silent(-0.5))
    assert checks.prox(Silent(-0.5), convex=False)


def test_an_infinite_objective_fails() -> None:
    class Outside(Silent):
        def energy(self, x: Tensor) -> Tensor:
            return torch.full((x.shape[0],), math.inf, dtype=torch.float64)

    assert not checks.prox(Outside(0.5))
