"""Maps that hold boundary conditions: exactly, for any weights, and through training, saving and loading."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray
from torch import Tensor, nn

from sciml.domains.errors import InputError
from sciml.networks import FNO, MLP, Mapped
from sciml.networks.output_maps import Coordinates, Distance, Extension, Lift, Nodes, Overwrite, PeriodicFeatures, Scale
from sciml.training.fit import fit
from sciml.training.fitted import Fit

SHAPES = [(9,), (7, 6), (5, 4, 6)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def boundary(shape: tuple[int, ...]) -> Tensor:
    found = torch.zeros(shape, dtype=torch.bool)
    for axis, n in enumerate(shape):
        found.index_fill_(axis, torch.tensor([0, n - 1]), True)
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_a_distance_vanishes_on_the_sides_and_nowhere_else(shape: tuple[int, ...]) -> None:
    v = noise(2, 3, *shape)
    held = Distance(Nodes(("closed",) * len(shape)))(v, v)
    on = boundary(shape)
    assert not held[..., on].any() and (held[..., ~on] != 0).all()
    middle = Distance(Nodes(("closed",)))(torch.ones(1, 1, 3), torch.ones(1, 1, 3))
    assert middle.flatten().tolist() == [0.0, 1.0, 0.0]
    twin = Distance(Nodes(("interior",) * len(shape)))(v, v)  # points taken for others
    assert (twin[..., on] != 0).all()


def test_single_sides() -> None:
    v = torch.ones(1, 1, 5, 3, dtype=torch.float64)
    held = Distance(Nodes(("closed", "closed")), ((True, False), (False, True)))(v, v)[0, 0]
    assert not held[0].any() and not held[:, -1].any() and (held[1:, :-1] > 0).all()


def test_values_on_two_sides() -> None:
    at = Nodes(("closed", "periodic"))
    v = noise(2, 1, 5, 4)
    u = Lift(at, ((1.5, -2.0), (None, None)))(Distance(at, ((True, True), (False, False)))(v, v), v)
    assert (u[..., 0, :] == 1.5).all() and (u[..., -1, :] == -2.0).all()
    u = Lift(at, ((1.5, None), (None, None)))(Distance(at, ((True, False), (False, False)))(v, v), v)
    assert (u[..., 0, :] == 1.5).all() and (u[..., -1, :] != 1.5).all()


def test_corners_that_contradict_are_refused() -> None:
    at = Nodes(("closed", "closed"))
    Lift(at, ((1.0, 1.0), (1.0, None)))
    with pytest.raises(InputError, match="corner"):
        Lift(at, ((1.0, 0.0), (0.0, None)))


@pytest.mark.parametrize("shape", SHAPES)
def test_an_extension_takes_boundary_values_and_only_those(shape: tuple[int, ...]) -> None:
    x, on = noise(2, 2, *shape), boundary(shape)
    u = Extension(1)(torch.zeros(2, 1, *shape, dtype=torch.float64), x)
    torch.testing.assert_close(u[:, 0, on], x[:, 1, on], rtol=0, atol=1e-14)
    other = torch.where(on, x, noise(*x.shape, seed=1))
    torch.testing.assert_close(Extension(1)(torch.zeros_like(u), other), u, rtol=0, atol=1e-14)
    assert (Extension(0)(torch.zeros_like(u), x) - u)[:, 0, on].abs().max() > 0.1  # the wrong channel


def test_an_extension_repeats_products_of_linear_functions() -> None:
    lines = [torch.linspace(-1, 2, n, dtype=torch.float64) for n in (5, 4, 6)]
    a, b, c = torch.meshgrid(*lines, indexing="ij")
    g = (1 + 2 * a - a * b + 3 * a * b * c)[None, None]
    torch.testing.assert_close(Extension(0)(torch.zeros_like(g), g), g, rtol=0, atol=1e-13)
    g = (a * b * c).square()[None, None]
    assert (Extension(0)(torch.zeros_like(g), g) - g).abs().max() > 0.01


@pytest.mark.parametrize("shape", SHAPES)
def test_overwriting(shape: tuple[int, ...]) -> None:
    v, x, on = noise(2, 1, *shape), noise(2, 2, *shape, seed=1), boundary(shape)
    assert (Overwrite(0.5)(v, x)[..., on] == 0.5).all()
    u = Overwrite(channel=1)(v, x)
    assert torch.equal(u[:, 0, on], x[:, 1, on]) and torch.equal(u[..., ~on], v[..., ~on])
    first = Overwrite(0.5, axes=(0,))(v, x)
    assert (first[:, :, 0] == 0.5).all() and (len(shape) == 1 or torch.equal(first[:, :, 1:-1], v[:, :, 1:-1]))


def test_networks_of_the_position_hold_values_and_periods_with_derivatives() -> None:
    features = PeriodicFeatures((None, 2.0), harmonics=2)
    at = Coordinates((0.0, 0.0), (1.0, 2.0))
    outputs = (Scale(0.3, 5.0), Distance(at, ((True, True), (False, False))), Lift(at, ((1.0, 0.0), (None, None))))
    network = Mapped(MLP(features.channels, width=6, layers=2), outputs, (features,)).double()
    y = torch.rand(6, 1, dtype=torch.float64)
    for end, value in ((0.0, 1.0), (1.0, 0.0)):
        u = network(torch.cat((torch.full_like(y, end), y), 1))
        torch.testing.assert_close(u, torch.full_like(u, value), rtol=0, atol=1e-15)

    def derivatives(at_y: float) -> list[Tensor]:
        x = torch.tensor([[0.3, at_y]], dtype=torch.float64, requires_grad=True)
        u = network(x)
        (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first[0, 1], x)
        return [u.detach(), first.detach(), second]

    for one, two in zip(derivatives(0.25), derivatives(2.25), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11)  # cosines of angles off by a multiple of the circle
    plain = MLP(2, width=6, layers=2).double()
    ends = torch.tensor([[0.3, 0.25], [0.3, 2.25]], dtype=torch.float64)
    assert (plain(ends)[0] - plain(ends)[1]).abs() > 1e-3


def test_settings_are_plain_values_that_rebuild_maps_and_network() -> None:
    import json

    at = Nodes(("closed", "interior"))
    outputs = (Scale(0.1, 2.0), Distance(at), Lift(at, ((None, None), (0.0, 0.0))), Extension(0, (0,)), Overwrite(0.0))
    network = Mapped(FNO(2, modes=2, width=4, layers=1, in_channels=2), outputs)
    settings = json.loads(json.dumps(network.settings))
    twin = Mapped(**settings)
    assert twin.outputs == network.outputs and twin.settings == network.settings
    twin.load_state_dict(network.state_dict())
    x = noise(2, 2, 5, 6).float()
    assert torch.equal(twin(x), network(x))


def test_what_cannot_be_rebuilt_is_refused() -> None:
    with pytest.raises(InputError, match="settings"):
        Mapped(nn.Linear(2, 2))
    with pytest.raises(InputError, match="'Nothing'"):
        Mapped({"object": "Nothing"})


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Nodes(("round",)), "round"),
        (lambda: Nodes(("closed",))(torch.zeros(1, 1, 2, 2), torch.zeros(())), r"\(1, 1, 2, 2\)"),
        (lambda: Coordinates((0.0,), (0.0,)), "box"),
        (lambda: Coordinates((0.0, 0.0), (1.0, 1.0))(torch.zeros(2, 1), torch.zeros(2, 1)), "coordinates"),
        (
            lambda: Distance(Nodes(("closed",)), ((True, True),) * 2)(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3)),
            "pairs",
        ),
        (lambda: Extension(2)(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3)), "channel 2"),
        (lambda: PeriodicFeatures((0.0,)), "positive"),
        (lambda: PeriodicFeatures((1.0,))(torch.zeros(2, 2)), "1 periods"),
    ],
)
def test_refuses(make: Any, word: str) -> None:
    with pytest.raises(InputError, match=word):
        make()


def test_held_through_training_and_loading(tmp_path: Path) -> None:
    """On a closed grid, in physical units: `normalise=False` and a scale of the output."""
    x = torch.linspace(0, 1, 17, dtype=torch.float64)
    amplitude = 1 + torch.rand(40, 1, dtype=torch.float64)
    u = 3 + x + amplitude * torch.sin(math.pi * x)
    data = xarray.Dataset(
        {"a": (("sample", "x"), amplitude.expand(40, 17).numpy()), "u": (("sample", "x"), u.numpy())}, {"x": x.numpy()}
    )
    at = Nodes(("closed",))
    network = Mapped(FNO(1, modes=3, width=8, layers=2), (Distance(at), Lift(at, ((3.0, 4.0),))))
    fitted = fit(network, data, inputs="a", targets="u", epochs=15, learning_rate=1e-2, normalise=False, out=tmp_path)
    assert fitted.history[-1]["loss"] < 0.2 * fitted.history[0]["loss"]
    again = Fit.load(tmp_path).predict(data).u.values
    assert (again[:, 0] == 3.0).all() and (again[:, -1] == 4.0).all()
