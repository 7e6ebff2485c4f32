"""The Radon transform: against brute force, against closed forms, transposes, derivatives, refusals."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import dataclass, replace

import ellipses
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from sciml import checks
from sciml.core.tree import rebuild, tensors
from sciml.domains.errors import InputError
from sciml.domains.pixels import Pixels
from sciml.forward import radon
from sciml.forward.radon import Radon, RayDriven

F64 = torch.float64
TURN = torch.arange(12, dtype=F64) * (math.pi / 12)
UNEVEN = torch.tensor([0.1, 0.2, 0.9, 1.6, 2.4, 3.0, 4.9], dtype=F64)
SQUARE, BOX = Pixels((8, 8), (1.0, 1.0)), Pixels((9, 14), (1.0, 2.0))
GEOMETRIES = {
    "uneven box": Radon(BOX, UNEVEN),
    "square, evenly spaced": Radon(SQUARE, TURN),
    "whole turn": Radon(SQUARE, 2 * TURN, bins=12),
    "axis off the middle": Radon(SQUARE, 2 * TURN, bins=13, centre=0.07),
    "box off the axis": Radon(Pixels((8, 8), (1.0, 1.0), (-0.3, -0.5)), TURN, bins=13),
    "fine and narrow detector": Radon(BOX, UNEVEN, bins=13, pitch=0.05),
    "flat pixels": Radon(Pixels((11, 6), (1.0, 3.0)), UNEVEN, pitch=0.2),
    "one bin, one view many times": Radon(BOX, torch.full((9,), 0.3, dtype=F64), bins=1),
    "one pixel": Radon(Pixels((1, 1), (1.0, 1.0)), TURN),
    "along the axes and diagonals": Radon(SQUARE, torch.arange(8, dtype=F64) * (math.pi / 4), bins=9),
}


def joseph(op: Radon) -> Tensor:
    """Joseph's weights, ray by ray: linear interpolation on every line of pixels that the ray crosses."""
    (nx, ny), (dx, dy), (x, y) = op.pixels.shape, op.pixels.spacing, op.pixels.coordinates()
    weights = torch.zeros(len(op.angles), op.bins, nx, ny, dtype=F64)
    for view, angle in enumerate(op.angles.tolist()):
        c, s = math.cos(angle), math.sin(angle)
        for k, at in enumerate(op.positions.tolist()):
            if abs(s) * dy <= abs(c) * dx:
                for j in range(ny):
                    where = (at - float(y[j]) * s) / c
                    weights[view, k, :, j] += (1 - (where - x).abs() / dx).clamp_min(0) * dy / abs(c)
            else:
                for i in range(nx):
                    where = (at - float(x[i]) * c) / s
                    weights[view, k, i, :] += (1 - (where - y).abs() / dy).clamp_min(0) * dx / abs(s)
    return weights.reshape(1, len(op.angles) * op.bins, nx * ny)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_shared_weights_are_josephs(name: str) -> None:
    op = GEOMETRIES[name]
    expected = joseph(op)
    scale = float(expected.max())
    assert float((op.dense() - expected).abs().max()) < 1e-12 * scale  # rounding of positions measured in pixels
    assert float((replace(op, centre=op.centre + 0.01).dense() - expected).abs().max()) > 1e-3 * scale


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_adjoint_is_the_transpose(name: str) -> None:
    assert checks.adjoint(GEOMETRIES[name])

    @dataclass(frozen=True, eq=False)
    class Doubled(Radon):
        def adjoint(self, v: Tensor) -> Tensor:
            return 2 * super().adjoint(v)

    op = GEOMETRIES[name]
    assert not checks.adjoint(Doubled(op.pixels, op.angles, op.bins, op.pitch, op.centre, op.route))


def test_weights_are_shared_where_views_are_mirror_images() -> None:
    def distinct(op: Radon) -> int:
        prepared = op._prepared()
        return sum(len(part.normals) for part in prepared.fold.parts) * len(prepared.fold.rows)

    views = torch.arange(180, dtype=F64) * (math.pi / 180)
    op = Radon(Pixels((16, 16), (1.0, 1.0)), views)
    assert distinct(op) == 46 * -(-op.bins // 2)  # 0 to 45 degrees, half the detector
    assert distinct(replace(op, angles=views.float())) == 46 * -(-op.bins // 2)
    assert distinct(replace(op, centre=0.1)) == 46 * op.bins
    assert distinct(replace(op, angles=torch.rand(20, dtype=F64))) == 20 * -(-op.bins // 2)


@pytest.mark.parametrize("memory", [0.0, 20000.0])
def test_little_memory_changes_nothing_but_time(memory: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciml.forward._joseph.BLOCK", 3000.0)
    op = GEOMETRIES["uneven box"]
    small = replace(op, route=RayDriven(memory=memory))
    x, y = torch.randn(2, *op.space.shape, dtype=F64), torch.randn(2, *op.codomain.shape, dtype=F64)
    torch.testing.assert_close(small(x), op(x), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(small.adjoint(y), op.adjoint(y), rtol=1e-13, atol=1e-14)
    prepared = small._prepared()
    assert len(prepared.blocks) > 2 and not prepared.kept
    held = [b for b in prepared.blocks if b.forward is not None]
    assert held == [b for b in prepared.blocks if b.kept] and bool(held) == (memory > 0)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_ellipses_have_their_line_integrals() -> None:
    errors = []
    for n in (64, 128, 256):
        op = Radon(Pixels((n, n), (2.0, 2.0)), torch.arange(30, dtype=F64) * (math.pi / 30) + 0.01)
        exact = ellipses.sinogram(ellipses.HEAD, op.angles, op.positions)
        errors.append(relative(op(ellipses.image(ellipses.HEAD, op.pixels, 5)), exact))
    assert errors[-1] < 6e-3, errors  # 5.0e-3: the blur of one pixel at every edge
    assert math.log2(errors[0] / errors[-1]) / 2 == pytest.approx(
        1, abs=0.1
    )  # of first order, because images have edges
    shifted = replace(op, centre=0.5 * op.pitch)
    assert relative(shifted(ellipses.image(ellipses.HEAD, op.pixels, 5)), exact) > 1e-2


def test_leading_axes_and_members() -> None:
    op = radon.example()
    x = torch.randn(2, 3, *op.space.shape, dtype=F64)
    y = op(x)
    assert y.shape == (2, 3, *op.codomain.shape)
    torch.testing.assert_close(y[1, 2], op(x[1, 2]), rtol=1e-13, atol=1e-14)
    assert torch.equal(op(x), y)
    assert op(x[:0]).shape == (0, 3, *op.codomain.shape)
    z = torch.complex(x, x.flip(0))
    torch.testing.assert_close(op(z), torch.complex(y, op(x.flip(0))))


def test_derivatives_of_any_order() -> None:
    op = Radon(Pixels((4, 5), (1.0, 1.0)), UNEVEN[:3], bins=6)
    x = torch.randn(2, *op.space.shape, dtype=F64, requires_grad=True)
    y = torch.randn(2, *op.codomain.shape, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(op, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradcheck(op.adjoint, y)
    assert torch.autograd.gradgradcheck(lambda u: op(u).pow(3), x)
    single = torch.stack([op(u) for u in x.detach()])
    torch.testing.assert_close(torch.func.vmap(op)(x.detach()), single)


def test_dtype_device_copies() -> None:
    op = radon.example()
    x = torch.randn(1, *op.space.shape, dtype=F64)
    assert set(tensors(op)) == {"angles"}
    single = rebuild(op, lambda leaf: leaf.tensor.float())
    assert single(x.float()).dtype == torch.float32
    torch.testing.assert_close(single(x.float()).double(), op(x), rtol=1e-4, atol=1e-5)
    for twin in (pickle.loads(pickle.dumps(op)), copy.deepcopy(op)):
        assert torch.equal(twin(x), op(x))
    assert len(pickle.dumps(op)) < 3000  # the settings, not the weights
    away = replace(op, angles=op.angles.to("meta"))
    assert away(x.to("meta")).shape == (1, *op.codomain.shape)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert op(mode.from_tensor(x)).shape == (1, *op.codomain.shape)


def test_set_up_is_shared_and_follows_the_angles() -> None:
    op = Radon(BOX, UNEVEN.clone())
    assert replace(op)._prepared() is op._prepared()
    before = op._prepared()
    op.angles[0] = 0.15
    assert op._prepared() is not before


def test_little_room_keeps_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radon, "HELD", 0.0)
    first, second = Radon(BOX, UNEVEN + 0.01), Radon(BOX, UNEVEN + 0.02)
    kept = first._prepared()
    second._prepared()
    assert len(radon._HELD) == 1 and first._prepared() is not kept


def test_facts() -> None:
    op = radon.example()
    assert op.covers and op.batch == 1 and not op.symmetric
    assert not replace(op, bins=9).covers
    assert Radon(BOX, UNEVEN, centre=0.3).covers  # the default detector is made wider
    assert float(op.positions[0] + op.positions[-1]) == pytest.approx(-2 * op.centre)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"angles": torch.tensor([0.0, float("nan")])}, "angle 1 is nan"),
        ({"angles": torch.zeros(0)}, "one number"),
        ({"angles": torch.zeros(2, 2)}, r"\(2, 2\)"),
        ({"bins": 0}, "bins"),
        ({"bins": 2.5}, "bins"),
        ({"pitch": 0.0}, "pitch"),
        ({"pitch": -1.0}, "pitch"),
        ({"centre": math.inf}, "centre"),
        ({"centre": 9.0, "bins": 21}, "never on it"),
        ({"pixels": Pixels((3, 3, 3))}, "two axes"),
        ({"angles": torch.arange(8.0, requires_grad=True) / 2}, "derivative"),
    ],
)
def test_bad_scans_are_refused(change: dict[str, object], words: str) -> None:
    op = radon.example()
    with pytest.raises(InputError, match=words):
        scan = replace(op, **change)
        scan(torch.ones(1, *op.space.shape))


def test_bad_images_are_refused_and_degrees_noticed() -> None:
    op = radon.example()
    with pytest.raises(InputError, match="shape"):
        op(torch.ones(1, 14, 9, dtype=F64))
    with pytest.raises(InputError, match="shape"):
        op.adjoint(torch.ones(1, 21, 7, dtype=F64))
    with pytest.raises(InputError, match=r"\.to\(dtype\)"):
        op(torch.ones(1, 9, 14))
    with pytest.raises(InputError, match="memory"):
        RayDriven(memory=-1)
    with pytest.warns(UserWarning, match="0 to 179"):
        Radon(BOX, torch.arange(180.0))
