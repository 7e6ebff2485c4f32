"""MLP and SIREN: what they compute, how they start, their derivatives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sciml.domains.errors import InputError
from sciml.networks import MLP, SIREN
from sciml.networks.mlp import ACTIVATIONS


def test_mlp_is_affine_maps_and_activations() -> None:
    network = MLP(2, 3, width=4, layers=2).double()
    x = torch.randn(5, 2, dtype=torch.float64)
    v = x
    for layer in network.layers[:-1]:
        v = torch.tanh(v @ layer.weight.T + layer.bias)
    wanted = v @ network.layers[-1].weight.T + network.layers[-1].bias
    torch.testing.assert_close(network(x), wanted, rtol=0, atol=1e-14)
    field = x.T.reshape(1, 2, 5)
    torch.testing.assert_close(network(field)[0].T, wanted, rtol=0, atol=1e-14)  # a point is a point
    assert network(torch.zeros(2, 2, 3, 4, 5, dtype=torch.float64)).shape == (2, 3, 3, 4, 5)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_smoothness_is_what_the_activation_says(name: str) -> None:
    """One-sided derivatives at zero agree as often as the class is told."""
    function, times = ACTIVATIONS[name]
    network = MLP(1, 1, activation=name)
    assert network.smoothness == times
    for order in range(3 if times > 1 else int(times) + 2):
        sides = []
        for at in (-1e-9, 1e-9):
            x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
            value = function(x)
            for _ in range(order):
                (value,) = (
                    torch.autograd.grad(value, x, create_graph=True) if value.requires_grad else (torch.zeros(()),)
                )
            sides.append(float(value.detach()))
        assert (abs(sides[0] - sides[1]) < 1e-6) == (order <= times), order


@pytest.mark.parametrize(
    "network", [MLP(2, width=6, layers=2), SIREN(2, width=6, layers=2, omega=3.0)], ids=["mlp", "siren"]
)
def test_second_derivatives(network: Any) -> None:
    network = network.double()
    x = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda v: network(v).sin(), (x,))


def test_siren_starts_with_arguments_of_unit_variance() -> None:
    """Whatever the depth, up to the constant phases of the biases; the twin starts as a plain network does."""
    network = SIREN(2, width=256, layers=6, omega=30.0)
    x = 2 * torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)) - 1
    plain = SIREN(2, width=256, layers=6, omega=30.0)
    with torch.no_grad():
        for layer in plain.layers[1:-1]:
            layer.weight.mul_(30 / math.sqrt(6))
        for made, fits in ((network, True), (plain, False)):
            v = torch.sin(30 * made.layers[0](x))
            for layer in list(made.layers)[1:-1]:
                spread = float((30 * v @ layer.weight.T).square().mean())  # about zero; the biases shift phases
                assert (0.8 < spread < 1.2) == fits  # 256 x 256 draws: within a few percent
                v = torch.sin(30 * layer(v))


def test_siren_sees_what_an_mlp_does_not() -> None:
    """One wave of 8 periods by 150 steps of Adam."""
    x = torch.linspace(-1, 1, 200)[:, None]
    wanted = torch.sin(8 * math.pi * x)
    errors = []
    for network in (SIREN(1, width=32, layers=2, omega=30.0), MLP(1, width=32, layers=2)):
        rule = torch.optim.Adam(network.parameters(), 2e-3)
        for _ in range(150):
            rule.zero_grad()
            (network(x) - wanted).square().mean().backward()
            rule.step()
        errors.append(float(((network(x) - wanted).norm() / wanted.norm()).detach()))
    assert errors[0] < 0.1 < 0.8 < errors[1]


@pytest.mark.parametrize("kind", [MLP, SIREN])
@pytest.mark.parametrize("settings", [{"width": 0}, {"layers": 0}, {"in_channels": 0}])
def test_refuses_impossible_settings(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=kind.__name__):
        kind(**settings)
    with pytest.raises(InputError, match=r"\(4, 3\)"):
        kind(2)(torch.zeros(4, 3))


def test_refuses_names_and_frequencies_that_are_none() -> None:
    with pytest.raises(InputError, match="'step'"):
        MLP(activation="step")
    with pytest.raises(InputError, match="omega"):
        SIREN(omega=0.0)
