"""DeepONet and MultiONet: what they compute, where they measure, and a first step that moves every weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciml.domains.errors import InputError
from sciml.networks import DeepONet, MultiONet
from sciml.networks._positions import place, position_features, resampling

BOTH: list[Any] = [DeepONet, MultiONet]


def small(kind: Any, **settings: Any) -> Any:
    return kind(**{"dim": 1, "width": 5, "layers": 3, "sensors": 8, "harmonics": 2, **settings}).double()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def through(layers: nn.ModuleList, function: Any, v: Tensor) -> list[Tensor]:
    found = []
    for layer in layers:
        v = function(v @ layer.weight.T + layer.bias)
        found.append(v)
    return found


def test_multionet_pairs_the_last_layers() -> None:
    network = small(MultiONet, pairs=2, out_channels=3, grid="closed")
    x = noise(4, 1, 8)
    with torch.no_grad():
        trunk = through(network.trunk, network.function, position_features(("closed",), (8,), x, 2))
        branch = through(network.branch, network.function, x[:, 0])
        wanted = network.bias[None, :, None].clone()
        for depth in (1, 2):
            wanted = wanted + torch.einsum("ck,bk,nk->bcn", network.weight[:, depth - 1], branch[depth], trunk[depth])
        torch.testing.assert_close(network(x), wanted, rtol=0, atol=1e-13)
        single = small(MultiONet, pairs=1, out_channels=3, grid="closed")
        assert (single(x) - wanted).abs().max() > 1e-3


def test_deeponet_is_a_product_of_two_networks() -> None:
    network = small(DeepONet, grid="periodic")
    x = noise(4, 1, 8)
    with torch.no_grad():
        trunk = through(network.trunk, network.function, position_features(("periodic",), (8,), x, 2))[-1]
        hidden = through(network.branch[:-1], network.function, x[:, 0])[-1]
        branch = hidden @ network.branch[-1].weight.T + network.branch[-1].bias
        wanted = torch.einsum("k,bk,nk->bn", network.weight[0], branch, trunk) + network.bias
        torch.testing.assert_close(network(x)[:, 0], wanted, rtol=0, atol=1e-13)


def test_equal_size_up_to_the_weights_of_the_pairs() -> None:
    one, two = small(DeepONet, layers=5), small(MultiONet, layers=5, pairs=4)
    sizes = [sum(p.numel() for p in network.parameters()) for network in (one, two)]
    assert sizes[1] - sizes[0] == 3 * 5


@pytest.mark.parametrize("kind", BOTH)
def test_the_first_step_has_a_gradient_in_every_weight(kind: Any) -> None:
    network = small(kind)
    (network(noise(6, 1, 8)) - 1).square().mean().backward()
    without = [name for name, weight in network.named_parameters() if not weight.grad.abs().max() > 0]
    assert not without
    network.zero_grad()
    with torch.no_grad():
        network.weight.zero_()  # as the source starts
    (network(noise(6, 1, 8)) - 1).square().mean().backward()
    assert any(not weight.grad.abs().max() > 0 for weight in network.parameters())


@pytest.mark.parametrize("kind", ["periodic", "closed", "interior", "unknown"])
def test_sensors_are_found_on_any_grid(kind: str) -> None:
    like = torch.zeros((), dtype=torch.float64)
    for n, m in ((8, 8), (16, 8), (8, 16), (9, 5), (1, 3), (7, 1)):
        matrix = resampling(kind, n, m, like)
        assert matrix.shape == (m, n)
        torch.testing.assert_close(matrix.sum(1), torch.ones(m, dtype=torch.float64))
    assert torch.equal(resampling(kind, 6, 6, like), torch.eye(6, dtype=torch.float64))
    fine, coarse = place(kind, 16, like), place(kind, 7, like)
    inner = (coarse >= fine[0]) & (coarse <= fine[-1])
    torch.testing.assert_close((resampling(kind, 16, 7, like) @ fine)[inner], coarse[inner])  # linear functions exactly


def test_periodic_sensors_close_the_circle() -> None:
    like = torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(
        resampling("periodic", 4, 8, like)[-1], torch.tensor([0.5, 0, 0, 0.5], dtype=torch.float64)
    )
    torch.testing.assert_close(resampling("unknown", 4, 8, like)[-1], torch.tensor([0, 0, 0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("grid", ["periodic", "closed"])
def test_a_finer_grid_gives_the_same_function(kind: Any, grid: str) -> None:
    network = small(kind, grid=grid, dim=2, sensors=(4, 5))
    coarse = noise(2, 1, 4, 5)
    more = (8, 10) if grid == "periodic" else (7, 9)
    down = [resampling(grid, n, m, coarse) for n, m in zip((4, 5), more, strict=True)]
    fine = torch.einsum("ai,bj,zcij->zcab", *down, coarse)  # piecewise linear, equal at the common points
    torch.testing.assert_close(network(fine)[..., ::2, ::2], network(coarse), rtol=0, atol=1e-12)
    other = small(kind, grid="unknown", dim=2, sensors=(4, 5))
    assert (other(fine)[..., ::2, ::2] - other(coarse)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", BOTH)
def test_periodic_answers(kind: Any) -> None:
    like = torch.zeros((), dtype=torch.float64)
    features = position_features(("periodic",), (8,), like, 3)
    assert features.shape == (8, 6)
    torch.testing.assert_close(features.mean(0), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-15)
    assert position_features(("closed",), (8,), like, 3).shape == (8, 4)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "settings",
    [{"dim": 0}, {"sensors": (3, 4)}, {"width": 0}, {"harmonics": 0}, {"activation": "step"}, {"grid": "ring"}],
)
def test_refuses_impossible_settings(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=kind.__name__):
        kind(**{"dim": 1, **settings})
    with pytest.raises(InputError, match="pairs"):
        MultiONet(1, layers=3, pairs=4)
    with pytest.raises(InputError, match=r"\(2, 3, 8\)"):
        kind(1)(torch.zeros(2, 3, 8))
