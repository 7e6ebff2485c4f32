"""The wavelet transform as matrix products and as shifts: the same numbers, for real and complex images."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from sciml import checks
from sciml.domains import Pixels
from sciml.priors import Daubechies, Haar
from sciml.priors.wavelet import WaveletTransform


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("family", [Haar(), Daubechies(2), Daubechies(4)], ids=str)
@pytest.mark.parametrize("shape", [(21,), (9, 14), (9, 14, 11)], ids=str)
def test_routes_agree(shape: tuple[int, ...], family: Any, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    space = dataclasses.replace(Pixels(shape).space(2), complex=kind.is_complex, dtype=kind)
    transform = WaveletTransform(space, 3, family)
    u = torch.randn(3, 2, *shape, generator=torch.Generator().manual_seed(0), dtype=kind)
    found, back = transform(u), transform.adjoint(u)
    assert checks.adjoint(transform)
    assert torch.allclose(transform.adjoint(found), u, atol=1e-12)  # orthonormal
    monkeypatch.setattr("sciml.priors.wavelet.SHORT", 0)
    assert torch.allclose(transform(u), found, atol=1e-13) and torch.allclose(transform.adjoint(u), back, atol=1e-13)
    assert not torch.allclose(WaveletTransform(space, 1, Daubechies(3))(u), found, atol=1e-3)  # another transform
