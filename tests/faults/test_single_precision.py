"""Inverse problems in single precision: small and large units change nothing, noise below the rounding is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import sciml
from sciml.core import GaussianNoise, Inverse
from sciml.core.noise import inner
from sciml.domains import InputError
from sciml.priors import Smoothness, TotalVariation, Wavelet
from sciml.solvers import ADMM, Discrepancy, GaussNewton, LeastSquares, PrimalDual, ProximalGradient

SOLVERS: dict[str, tuple[Any, Any, float | None]] = {
    "primal-dual": (TotalVariation(), PrimalDual(), 30.0),
    "admm": (TotalVariation(), ADMM(), 30.0),
    "proximal gradient": (Wavelet(), ProximalGradient(), 30.0),
    "gauss-newton": (Smoothness(), Discrepancy(GaussNewton()), None),
    "least squares": (None, LeastSquares(), None),
}


def posed(prior: Any, unit: float, weight: float | None) -> Inverse:
    """The same blurred image in another unit, in float32; these priors with a weight are homogeneous of degree one."""
    base = sciml.problem("deblur", n=12, sigma=0.02, dtype="float32")
    weight = None if weight is None else weight / unit
    return Inverse("in another unit", base.forward, base.data * unit, GaussianNoise(0.02 * unit), prior, weight)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_unit_of_the_data_changes_nothing(name: str) -> None:
    """Sigma of 2e-9 and 2e10: sums of squares of gradients leave single precision in both. Tolerance: that of the certificates."""
    prior, solver, weight = SOLVERS[name]
    plain = sciml.solve(posed(prior, 1.0, weight), solver)
    assert plain.ok, str(plain)
    for unit in (1e-7, 1e12):
        other = sciml.solve(posed(prior, unit, weight), solver)
        assert other.ok, str(other)
        gap = (other.value.double() / unit - plain.value).norm() / plain.value.norm()
        assert float(gap) < 0.1  # conjugate gradients without a prior feel every rounding


def test_products_in_single_precision_would_overflow() -> None:
    """The twin: the same inner product without leaving single precision."""
    a = torch.full((2, 1, 3), 1e20)
    torch.testing.assert_close(inner(a, a), torch.full((2,), 3e40, dtype=torch.float64), rtol=1e-6, atol=0)
    assert bool(torch.isinf((a * a).flatten(1).sum(1)).all())
    c = torch.complex(a, 2 * a)
    torch.testing.assert_close(inner(c, c), torch.full((2,), 15e40, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("sigma", "unit", "sentence"),
    [(1e-8, 1.0, "single precision rounds off data"), (1e-12, 1e-11, "leaves the numbers there are")],
)
def test_noise_that_single_precision_cannot_hold_is_refused(sigma: float, unit: float, sentence: str) -> None:
    base = sciml.problem("deblur", n=16, dtype="float32")
    data = base.data + 1.0  # no pixel near zero
    bad = Inverse("too quiet", base.forward, data * unit, GaussianNoise(sigma), TotalVariation(), 1.0)
    with pytest.raises(InputError, match=sentence) as caught:
        sciml.solve(bad, PrimalDual())
    assert "\n" not in str(caught.value)
    bad.to(torch.float64).validate()
