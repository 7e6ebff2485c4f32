"""The Fourier route of the Radon transform: closed forms, transposes, derivatives; skipped without finufft."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from dataclasses import dataclass, replace
from typing import Any

import ellipses
import pytest
import test_radon
import torch
from torch import Tensor

from sciml import checks
from sciml.domains.errors import InputError
from sciml.domains.pixels import Pixels
from sciml.forward import _nufft
from sciml.forward.radon import FourierSlice, Radon, RayDriven

pytest.importorskip("finufft", reason="pip install sciml[nufft]")
F64 = torch.float64


@pytest.mark.parametrize("accuracy", [1e-5, 1e-12])
@pytest.mark.parametrize("name", test_radon.GEOMETRIES)
def test_the_adjoint_is_the_transpose(name: str, accuracy: float) -> None:
    op = replace(test_radon.GEOMETRIES[name], route=FourierSlice(accuracy))
    assert checks.adjoint(op)  # to 1e-12 whatever the accuracy of the transform

    @dataclass(frozen=True, eq=False)
    class Unweighted(Radon):
        """Every frequency counted once, as if the half circle were the whole one."""

        def adjoint(self, v: Tensor) -> Tensor:
            prepared: Any = self._prepare()
            prepared.back = prepared.phase.conj() / prepared.period
            return prepared.adjoint(v[:, 0]).unsqueeze(1)

    assert not checks.adjoint(Unweighted(op.pixels, op.angles, op.bins, op.pitch, op.centre, op.route))


@pytest.mark.parametrize("pitch", [0.5, 1.0, 1.7])
def test_gaussian_blobs_have_their_line_integrals(pitch: float) -> None:
    pixels = Pixels((96, 80), (96.0, 80.0))
    op = Radon(pixels, torch.arange(40, dtype=F64) * (math.pi / 40), pitch=pitch)
    image, exact = ellipses.blobs(pixels, op.angles, op.positions, 2.0)
    fine = replace(op, route=FourierSlice(1e-12))
    assert test_radon.relative(fine(image), exact) < 1e-8  # band limit: exp(-(2 pi)^2 / 2) = 3e-9
    assert test_radon.relative(replace(op, route=FourierSlice(1e-5))(image), exact) < 1e-5
    single = replace(op, angles=op.angles.float(), route=FourierSlice(1e-5))
    assert test_radon.relative(single(image.float()).double(), exact) < 5e-5  # rounded frequencies times 48 pixels
    assert test_radon.relative(replace(op, route=RayDriven())(image), exact) > 5e-3  # what interpolation costs
    shifted = replace(fine, centre=0.01)
    assert test_radon.relative(shifted(image), exact) > 1e-3


def test_unequal_pixels_off_the_axis() -> None:
    pixels = Pixels((40, 90), (40.0, 45.0), (-12.0, -30.0))
    op = Radon(pixels, torch.arange(30, dtype=F64) * (math.pi / 15), centre=0.3, route=FourierSlice(1e-10))
    x, y = pixels.points()
    image = torch.exp(-((x - 8) ** 2 + (y + 7) ** 2) / 8)[None, None]
    t = op.positions[None] - 8 * op.angles.cos()[:, None] + 7 * op.angles.sin()[:, None]
    exact = math.sqrt(2 * math.pi) * 2 * torch.exp(-(t**2) / 8)
    assert test_radon.relative(op(image)[0, 0], exact) < 1e-8


def test_derivatives_of_any_order() -> None:
    op = Radon(Pixels((4, 5), (1.0, 1.0)), test_radon.UNEVEN[:3], bins=6, route=FourierSlice(1e-12))
    x = torch.randn(2, *op.space.shape, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(op, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda u: op(u).pow(3), x)


def test_batches_repeat_and_copies() -> None:
    op = Radon(Pixels((9, 14), (1.0, 2.0)), test_radon.UNEVEN, route=FourierSlice(1e-9))
    x = torch.randn(19, *op.space.shape, dtype=F64)
    y = op(x)
    torch.testing.assert_close(y, torch.stack([op(u) for u in x]), rtol=1e-12, atol=1e-13)
    assert torch.equal(op(x), y)
    back = op.adjoint(y)
    torch.testing.assert_close(back[7], op.adjoint(y[7]), rtol=1e-12, atol=1e-12)
    for twin in (pickle.loads(pickle.dumps(op)), copy.deepcopy(op)):
        assert torch.equal(twin(x), y)
    assert len(op._prepared().plans) <= _nufft.PLANS


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="accuracy"):
        FourierSlice(0.0)
    monkeypatch.setitem(sys.modules, "finufft", None)
    with pytest.raises(InputError, match=r"pip install sciml\[nufft\], or use RayDriven"):
        FourierSlice()
    monkeypatch.setitem(sys.modules, "cufinufft", None)
    with pytest.raises(InputError, match="cufinufft"):
        _nufft.engine(torch.device("cuda"))
    with pytest.raises(InputError, match="mps"):
        _nufft.engine(torch.device("mps"))
