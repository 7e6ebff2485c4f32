"""Impedance: closed forms for every electrode model, conservation, derivatives, batches, refusals."""

from __future__ import annotations

import math
from typing import Any

import discs
import pytest
import torch
from discs import INNER, RHO, concentric, error

from sciml import checks
from sciml.discretise import LinearElements, QuadraticElements
from sciml.domains import InputError, Mesh, Pixels, disc
from sciml.forward import (
    CompleteElectrodes,
    GapElectrodes,
    Impedance,
    Logarithm,
    PointElectrodes,
    ShuntElectrodes,
    Spread,
    adjacent,
    opposite,
)

MODELS: dict[str, Any] = {
    "complete": CompleteElectrodes(torch.tensor([0.3, 0.5, 0.2, 0.4, 0.1], dtype=torch.float64)),
    "gap": GapElectrodes(),
    "shunt": ShuntElectrodes(),
    "point": PointElectrodes(),
}
SMALL = disc(nodes=40, electrodes=5, edge=0.5)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small(name: str, **settings: Any) -> Impedance:
    return Impedance(SMALL, MODELS[name], adjacent(5)[:, :3], **{"chart": Logarithm(0.7), **settings})


@pytest.mark.parametrize(("name", "coarse", "graded"), [("gap", 500, 0.02), ("shunt", 500, 0.02)])
def test_concentric_inclusion(name: str, coarse: int, graded: float) -> None:
    """Below 1e-3 with less than 10 000 unknowns, and of order 2 at least in the size of triangles (measured: gap 2.1, limited by the polygon that
    stands for the interface; shunt 4, with the ends of the electrodes graded as the square of the size)."""
    series = discs.gap if name == "gap" else discs.shunt
    closed = series(8, 0.5, 1.0, INNER, RHO, count=50_000)
    model = MODELS[name]
    first, few = error(*concentric(coarse, graded, 8), model, QuadraticElements(), closed)
    second, many = error(*concentric(4 * coarse, graded / 8, 8), model, QuadraticElements(), closed)
    assert many < 10_000 and second < 1e-3
    assert math.log(first / second) / math.log(math.sqrt(many / few)) > 1.9
    linear = error(*concentric(coarse, graded, 8), model, LinearElements(), closed)[0]
    assert 2 * first < linear < 0.1  # linear elements on the same mesh
    wrong = series(8, 0.5, 1.0, 1.0, RHO, count=50_000)  # without the inclusion
    assert error(*concentric(300, 0.05, 8), model, QuadraticElements(), wrong)[0] > 0.05


def test_complete_electrodes_tend_to_shunt_electrodes() -> None:
    mesh = disc(nodes=200, electrodes=4, edge=0.2)
    ones = torch.ones(1, 1, len(mesh.nodes), dtype=torch.float64)
    limit = Impedance(mesh, ShuntElectrodes(), adjacent(4))(ones)
    gaps = [
        float((Impedance(mesh, CompleteElectrodes(z), adjacent(4))(ones) - limit).abs().max()) for z in (1e-3, 1e-5)
    ]
    assert gaps[1] < 0.02 * gaps[0] < 1e-3  # proportional to z
    # A large impedance is in series: two electrodes of length |e|, 2 z / |e| on top.
    length = float(mesh.lengths(mesh.side("electrode_0")).sum())
    high = Impedance(mesh, CompleteElectrodes(100.0), adjacent(4), adjacent(4))(ones)
    assert float(high[0, 0, 0, 0]) == pytest.approx(200.0 / length, rel=0.02)


@pytest.mark.parametrize("elements", [LinearElements(), QuadraticElements()])
@pytest.mark.parametrize("name", MODELS)
def test_reciprocity_and_conservation(name: str, elements: Any) -> None:
    """Exchanging injection and measurement changes nothing; voltages are those of the scaled body over the scale; constants are not seen."""
    forward = small(name, elements=elements)
    x = 0.3 * draw(1, *forward.space.shape)
    resistances = forward.resistances(forward.potentials(x))[0]
    size = float(resistances.abs().max())
    assert float((resistances - resistances.T).abs().max()) < 1e-12 * size
    assert float(resistances.sum(0).abs().max()) < 1e-12 * size * 5  # no current into all electrodes at once
    assert float(torch.linalg.eigvalsh(resistances)[1]) > 0  # power is positive
    if name != "complete":  # contact impedances do not scale with the body
        assert torch.allclose(forward(x + math.log(2.0)), forward(x) / 2, rtol=1e-12)
    tied = forward.currents.clone()
    tied[0] += 0.1
    with pytest.raises(InputError, match="sums to 0.1.*subtract the mean"):
        Impedance(SMALL, MODELS[name], tied)


@pytest.mark.parametrize("elements", [LinearElements(), QuadraticElements()])
@pytest.mark.parametrize("name", MODELS)
def test_the_sensitivity_is_the_derivative(name: str, elements: Any) -> None:
    forward = small(name, elements=elements)
    x = 0.3 * draw(2, *forward.space.shape)
    tangent = forward.linearise(x)
    assert checks.adjoint(tangent, tolerance=1e-12)
    assert checks.derivative(forward, x[:1])
    whole = tangent.dense()
    v = draw(2, *forward.space.shape, seed=1)
    assert torch.allclose((whole @ v.flatten(1).unsqueeze(2)).squeeze(2), tangent(v).flatten(1), atol=1e-12)
    x.requires_grad_()
    w = draw(2, *forward.codomain.shape, seed=2)
    (back,) = torch.autograd.grad(forward(x), x, w)
    assert torch.allclose(back, tangent.adjoint(w), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(back, 2 * tangent.adjoint(w), rtol=1e-3)


@pytest.mark.parametrize("where", ["nodes", "elements", "coarse", "pixels"])
def test_where_the_image_lives(where: str) -> None:
    space = {
        "nodes": SMALL.space(),
        "elements": SMALL.elements.space(),
        "coarse": disc(nodes=20).space(),
        "pixels": Pixels((5, 6), (2.2, 2.2)).space(),
    }[where]
    spread = Spread(SMALL, space)
    ones = torch.ones(1, *space.shape, dtype=torch.float64)
    assert torch.allclose(spread(ones), torch.ones(1, 1, len(SMALL.triangles), dtype=torch.float64))
    assert checks.adjoint(spread)
    forward = small("complete", image=spread)
    flat = small("complete")
    same = flat(torch.zeros(1, *flat.space.shape, dtype=torch.float64))
    assert torch.allclose(forward(0 * ones), same, rtol=1e-12)
    tangent = forward.linearise(0.2 * draw(1, *space.shape))
    v = draw(1, *space.shape, seed=1)
    assert torch.allclose((tangent.dense()[0] @ v.reshape(-1)), tangent(v).reshape(-1), atol=1e-12)


def test_contact_impedances_and_patterns_have_gradients() -> None:
    z = torch.tensor([0.3, 0.5, 0.2, 0.4, 0.1], dtype=torch.float64, requires_grad=True)
    x = 0.3 * draw(1, 1, len(SMALL.nodes))

    def voltages(z: torch.Tensor) -> torch.Tensor:
        return Impedance(SMALL, CompleteElectrodes(z), adjacent(5)[:, :2], chart=Logarithm())(x)

    assert torch.autograd.gradcheck(voltages, (z,))
    assert torch.autograd.gradgradcheck(voltages, (z,))


def test_a_batch_is_the_stack_of_its_members_and_factors_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = small("complete")
    x = 0.3 * draw(5, *forward.space.shape)
    together = forward(x)
    assert torch.allclose(together, torch.cat([forward(one[None]) for one in x]), rtol=1e-12)
    monkeypatch.setattr("sciml.forward._potentials.MOST", {"cpu": 1})
    monkeypatch.setattr("sciml.forward.impedance.LARGE", 1)
    w = draw(5, *forward.codomain.shape, seed=1)
    apart = torch.cat([forward.linearise(x[i : i + 1]).adjoint(w[i : i + 1]) for i in range(5)])
    assert torch.allclose(forward.linearise(x).adjoint(w), apart, rtol=1e-10, atol=1e-14)
    assert torch.allclose(forward(x), together, rtol=1e-12)
    assert torch.equal(forward(x), forward(x))


def test_a_body_that_overflows_is_not_a_number_alone() -> None:
    forward = small("complete")
    x = torch.zeros(2, *forward.space.shape, dtype=torch.float64)
    x[1] = 1000.0
    found = forward(x)
    assert bool(torch.isfinite(found[0]).all()) and bool(torch.isnan(found[1]).all())


def test_kinds_of_material() -> None:
    mesh = disc(nodes=500)
    forward = Impedance(SMALL, MODELS["gap"], adjacent(5), image=Spread(SMALL, mesh.space()), chart=Logarithm())
    x, y = mesh.points()
    image = torch.where((x - 0.5).square() + y.square() < 0.09, 1.0, 0.0)
    image = torch.where(x.square() + (y - 0.5).square() < 0.09, -1.0, image).reshape(1, 1, -1).to(torch.float64)
    labels = forward.kinds(image, 64)[0]
    assert (
        labels[32, 48] == 2 and labels[16, 32] == 1 and labels[48, 32] == 0 and labels[0, 0] == 0
    )  # the first row is the top


def test_patterns() -> None:
    assert adjacent(4).T.tolist()[3] == [-1.0, 0.0, 0.0, 1.0]
    assert opposite(6).shape == (6, 3) and opposite(6)[:, 1].tolist() == [0, 1, 0, 0, -1, 0]
    with pytest.raises(InputError, match="5 electrodes have none across"):
        opposite(5)


BARE = disc(nodes=20)
BAD: dict[str, tuple[Any, str]] = {
    "no electrodes": (lambda: Impedance(BARE, GapElectrodes(), adjacent(5)), "no sides electrode_0"),
    "no such side": (lambda: Impedance(BARE, GapElectrodes(("here", "there")), adjacent(2)).system, "no side 'here'"),
    "shape": (lambda: Impedance(SMALL, MODELS["gap"], adjacent(4)), r"\(5, patterns\)"),
    "zero": (lambda: Impedance(SMALL, MODELS["gap"], torch.zeros(5, 2)), "pattern 0 of currents is zero"),
    "impedance": (
        lambda: Impedance(SMALL, CompleteElectrodes(-1.0), adjacent(5)).validate("tank"), "'tank'.*positive and finite",
    ),
    "impedances": (
        lambda: Impedance(SMALL, CompleteElectrodes(torch.ones(3)), adjacent(5)).validate("tank"), "one per electrode",
    ),
    "negative": (
        lambda: Impedance(SMALL, MODELS["gap"], adjacent(5))(-torch.ones(1, 1, len(SMALL.nodes), dtype=torch.float64)),
        "conductivity is -1.*Logarithm",
    ),
    "reference": (lambda: Logarithm(0.0), "reference conductivity is 0"),
    "other mesh": (lambda: Impedance(SMALL, MODELS["gap"], adjacent(5), image=Spread(BARE)), "another mesh"),
    "image": (lambda: small("gap")(torch.zeros(1, 1, 3, dtype=torch.float64)), "images have shape"),
    "points": (lambda: PointElectrodes((1, 1)).wiring(SMALL, LinearElements()), "different nodes"),
    "two channels": (lambda: Spread(SMALL, SMALL.space(2)), "one channel"),
    "one": (lambda: adjacent(1), "at least 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str) -> None:
    make, sentence = BAD[name]
    with pytest.raises(InputError, match=sentence) as error:
        make()
    assert "\n" not in str(error.value)


def test_touching_electrodes_are_refused() -> None:
    mesh = Mesh(
        SMALL.nodes, SMALL.triangles, {"electrode_0": SMALL.side("wall"), "electrode_1": SMALL.side("electrode_1")}
    )
    with pytest.raises(InputError, match="share node"):
        Impedance(mesh, ShuntElectrodes(), adjacent(2)[:, :1]).system  # noqa: B018
