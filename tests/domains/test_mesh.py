"""Meshes: what generators make, quadrature, interpolation, pictures, and what is refused."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

from sciml.core.slopes import Slopes
from sciml.domains import InputError, Mesh, disc, polygon, rectangle

L_SHAPE = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]
SQUARE = torch.tensor([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
TWO = torch.tensor([(0, 1, 2), (0, 2, 3)])


def meshes() -> dict[str, tuple[Mesh, float]]:
    return {
        "disc": (disc(0.5, nodes=300, electrodes=8), math.pi / 4),
        "rectangle": (rectangle((2.0, 0.7), nodes=300, electrodes=6), 1.4),
        "polygon": (polygon(L_SHAPE, nodes=300), 3.0),
    }


MADE = meshes()


@pytest.mark.parametrize("name", MADE)
def test_triangles_fill_the_domain_and_are_good(name: str) -> None:
    mesh, area = MADE[name]
    short = 0.01 if name == "disc" else 1e-12  # a polygon inscribed in a circle
    assert float(mesh.areas().sum()) == pytest.approx(area, rel=short)
    assert float(mesh.volumes().sum()) == pytest.approx(float(mesh.areas().sum()), rel=1e-12)
    assert float(mesh.quality().min()) > 0.4 and float(mesh.quality().mean()) > 0.9
    assert 200 < len(mesh.nodes) < 500
    covered = sum(len(edges) for edges in mesh.sides.values())
    assert covered == len(mesh.boundary())  # every edge of the boundary belongs to one side
    # Euler: nodes - edges + triangles = 1
    edges = len(mesh.inner_edges()[0]) + len(mesh.boundary())
    assert len(mesh.nodes) - edges + len(mesh.triangles) == 1


def test_electrodes_are_alike_and_where_they_were_asked_for() -> None:
    mesh = disc(2.0, nodes=900, electrodes=6, coverage=0.3, first=0.7)
    for i in range(6):
        edges = mesh.side(f"electrode_{i}")
        assert float(mesh.lengths(edges).sum()) == pytest.approx(0.3 * 4 * math.pi / 6, rel=0.01)
        middle = mesh.nodes[torch.unique(edges)].mean(0)
        angle = 0.7 + i * math.pi / 3
        along = middle / middle.norm()
        assert torch.allclose(along, torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64), atol=1e-6)
    lengths = mesh.lengths(mesh.side("electrode_0"))
    assert float(lengths[0]) < 0.5 * float(lengths.max())  # finer towards the ends


def test_the_same_arguments_give_the_same_bits() -> None:
    one, two = disc(nodes=120, electrodes=4), disc(nodes=120, electrodes=4)
    assert torch.equal(one.nodes, two.nodes) and torch.equal(one.triangles, two.triangles)


def test_points_inside_become_nodes() -> None:
    angles = torch.arange(24, dtype=torch.float64) * 2 * math.pi / 24
    ring = 0.5 * torch.stack((angles.cos(), angles.sin()), 1)
    mesh = disc(nodes=300, through=ring)
    assert float((mesh.nodes.unsqueeze(0) - ring.unsqueeze(1)).square().sum(2).amin(1).max()) == 0
    x, y = mesh.elements.points()
    inside = x.square() + y.square() < 0.25 * math.cos(math.pi / 24) ** 2
    polygon_area = 12 * 0.25 * math.sin(2 * math.pi / 24)
    assert float(mesh.areas()[inside].sum()) == pytest.approx(polygon_area, rel=1e-9)  # edges join them


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_quadrature_is_exact_to_its_degree(degree: int) -> None:
    mesh = rectangle((2.0, 0.7), nodes=30)

    def integral(power: int) -> float:
        points, weights = mesh.quadrature(degree)
        return float((points[..., 0] ** power * weights).sum())

    for power in range(degree + 1):
        assert integral(power) == pytest.approx(0.7 * 2.0 ** (power + 1) / (power + 1), rel=1e-12)
    assert integral(degree + 2) != pytest.approx(0.7 * 2.0 ** (degree + 3) / (degree + 3), rel=1e-9)


def test_interpolation_is_exact_for_linear_fields() -> None:
    mesh, _ = MADE["polygon"]
    x, y = mesh.points()
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = torch.from_numpy(mesh.interpolation(points) @ (1 + 2 * x - 3 * y).numpy())
    assert torch.allclose(found, 1 + 2 * points[:, 0] - 3 * points[:, 1], atol=1e-12)
    bent = torch.from_numpy(mesh.interpolation(points) @ x.square().numpy())
    assert not torch.allclose(bent, points[:, 0].square(), atol=1e-6)
    assert (mesh.locate(torch.tensor([[1.5, 1.5], [0.5, 0.5]]))[0] < 0).tolist() == [True, False]


def test_a_picture_has_the_body_and_nothing_around_it() -> None:
    mesh, _ = MADE["polygon"]
    x, _ = mesh.points()
    picture, (across, _) = mesh.picture(x.reshape(1, 1, -1), 40)
    assert picture.shape == (1, 1, 40, 40)
    assert float(torch.isfinite(picture).to(torch.float64).mean()) == pytest.approx(0.75, abs=0.02)
    seen = torch.isfinite(picture[0, 0])
    assert torch.allclose(picture[0, 0][seen], across.unsqueeze(1).expand(40, 40)[seen], atol=1e-12)
    flat, _ = mesh.elements.picture(torch.ones(1, 1, len(mesh.triangles), dtype=torch.float64), 40)
    assert torch.equal(torch.isfinite(flat), torch.isfinite(picture))


def test_the_sense_of_rotation_does_not_move_electrodes() -> None:
    """``first`` counts from corner 0, counterclockwise, however the corners are listed, and sides keep their names."""
    names = ("lower", "right", "upper", "left")
    given = [(0, 0), (2, 0), (2, 1), (0, 1)]
    turned = [given[0], *given[:0:-1]]
    one = polygon(given, names=names, nodes=150, electrodes=3, coverage=0.2, first=0.5)
    two = polygon(turned, names=names[::-1], nodes=150, electrodes=3, coverage=0.2, first=0.5)
    assert torch.equal(one.nodes, two.nodes)
    for name in one.sides:
        assert torch.equal(one.side(name), two.side(name))
    middle = one.nodes[torch.unique(one.side("electrode_0"))]
    assert middle.mean(0).tolist() == pytest.approx([0.5, 0.0], abs=1e-6)


@pytest.mark.parametrize("beside", [1e-3, 1e-5, 1e-8])
def test_an_electrode_may_end_close_to_a_corner(beside: float) -> None:
    mesh = rectangle(nodes=200, electrodes=4, coverage=0.2, first=0.1 + beside)
    assert 150 < len(mesh.nodes) < 600  # fine where it must be, and nowhere else
    assert float(mesh.quality().min()) > 0.4
    for i in range(4):
        assert float(mesh.lengths(mesh.side(f"electrode_{i}")).sum()) == pytest.approx(0.2, rel=1e-4)


def test_points_beside_a_cluster_of_small_triangles_are_found() -> None:
    """One large triangle whose centre is farther away than hundreds of small ones."""
    fine = rectangle((1e-3, 1e-3), nodes=400)
    outer = torch.tensor([(-50.0, -1e-3), (50.0, -1e-3)], dtype=torch.float64)
    corners = [int(fine.nodes.sub(torch.tensor(c)).square().sum(1).argmin()) for c in ((0.0, 0.0), (1e-3, 0.0))]
    n = len(fine.nodes)
    below = torch.tensor([(n, n + 1, corners[0])])
    mesh = Mesh(torch.cat((fine.nodes, outer)), torch.cat((fine.triangles, below)))
    points = torch.tensor([(-5e-4, -5e-4), (5e-4, 5e-4), (0.0, -2e-3)], dtype=torch.float64)
    place, shares = mesh.locate(points)
    assert place[0] == len(fine.triangles) and place[1] >= 0 and place[2] == -1
    assert torch.allclose(torch.einsum("kc,kcd->kd", shares[:2], mesh.corners()[place[:2]]), points[:2], atol=1e-12)


def test_whole_numbers_make_a_picture() -> None:
    mesh, _ = MADE["polygon"]
    for domain, count in ((mesh, len(mesh.nodes)), (mesh.elements, len(mesh.triangles))):
        picture, _ = domain.picture(torch.ones(1, 1, count, dtype=torch.int64), 8)
        assert float(picture.nansum()) == 48 and int(picture.isnan().sum()) == 16


BAD: dict[str, tuple[Any, str]] = {
    "overlap": (lambda: Mesh(SQUARE[:3], TWO[[0, 0]]), r"same side of the edge \[0, 1\]"),
    "same corner": (lambda: polygon([*SQUARE.tolist(), (0.0, 1.0)]), "corner 3 .* same point"),
    "through outside": (lambda: disc(through=torch.tensor([(2.0, 0.0)])), r"\(2, 0\) of through"),
    "through twice": (lambda: disc(through=torch.tensor([(0.1, 0.0)] * 2)), r"\(0.1, 0\) of through"),
    "through not finite": (lambda: disc(through=torch.tensor([(0.1, torch.nan)])), "through are finite"),
    "too many electrodes": (lambda: disc(nodes=100, electrodes=64), "at least 256"),
    "first": (lambda: disc(electrodes=4, first=math.nan), "finite place"),
    "inverted": (lambda: Mesh(SQUARE, torch.tensor([(0, 2, 1), (0, 2, 3)])), "inverted.*counterclockwise"),
    "degenerate": (lambda: Mesh(torch.tensor([(0.0, 0), (1, 0), (2, 0)]), torch.tensor([(0, 1, 2)])), "degenerate"),
    "alone": (lambda: Mesh(SQUARE, TWO[:1]), "node 3 .* no triangle"),
    "unknown": (lambda: Mesh(SQUARE, TWO + 1), "there are 4 nodes"),
    "not finite": (lambda: Mesh(SQUARE * torch.nan, TWO), "not finite"),
    "inner side": (lambda: Mesh(SQUARE, TWO, {"plate": torch.tensor([(0, 2)])}), "'plate'.*not on the boundary"),
    "empty side": (lambda: Mesh(SQUARE, TWO, {"plate": torch.zeros(0, 2)}), "'plate'.*no edge"),
    "shape": (lambda: Mesh(SQUARE.T, TWO), r"nodes \(n, 2\)"),
    "no name": (lambda: Mesh(SQUARE, TWO).side("plate"), "no side 'plate'"),
    "radius": (lambda: disc(-1.0), "radius"),
    "coverage": (lambda: disc(electrodes=4, coverage=1.5), "coverage"),
    "corners": (lambda: polygon([(0, 0), (1, 1)]), "three corners"),
    "no area": (lambda: polygon([(0, 0), (1, 1), (2, 2)]), "no area"),
    "degree": (lambda: Mesh(SQUARE, TWO).quadrature(3), "degree"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str) -> None:
    make, sentence = BAD[name]
    with pytest.raises(InputError, match=sentence) as error:
        make()
    assert "\n" not in str(error.value)


def test_complex_fields_have_differences_too() -> None:
    """Real and imaginary part by themselves, without a warning that one of them is dropped."""
    mesh, _ = MADE["polygon"]
    space = replace(mesh.space(), complex=True, dtype=torch.complex128)
    u = torch.complex(*torch.rand(2, 1, 1, len(mesh.nodes), generator=torch.Generator().manual_seed(0)).double())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Slopes(space)(u)
    real = Slopes(mesh.space())
    assert torch.equal(found, torch.complex(real(u.real), real(u.imag)))
