"""The input-convex network is convex, its map is a gradient, and nothing in it knows the size of an image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.networks import InputConvexNetwork

SHAPES = {1: (23,), 2: (9, 14), 3: (5, 7, 6)}


def made(dim: int = 2, **settings: float) -> InputConvexNetwork:
    """A small network in float64 with weights away from where they start."""
    given = {"width": 12, "group": 3, "kernel": 5, "alpha": 0.02, **settings}
    network = InputConvexNetwork(dim, **given).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return network


def images(dim: int, count: int, seed: int = 0, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(count, channels, *SHAPES[dim], generator=generator, dtype=torch.float64)


def strongly_convex(psi: Callable[[Tensor], Tensor], alpha: float, dim: int) -> bool:
    """``psi - alpha/2 |x|^2`` lies below its chords; 1e-12 of the values is rounding."""

    def rest(x: Tensor) -> Tensor:
        return psi(x) - alpha / 2 * x.square().flatten(1).sum(1)

    x, y = images(dim, 40, seed=1), images(dim, 40, seed=2)
    x, y = torch.cat((x, x)), torch.cat((y, 3 * x))
    ok = True
    for t in (0.1, 0.5, 0.8):
        chord = t * rest(x) + (1 - t) * rest(y)
        ok = ok and bool((rest(t * x + (1 - t) * y) <= chord + 1e-12 * chord.abs()).all())
    return ok


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_convex_with_the_modulus_that_it_states(dim: int) -> None:
    network = made(dim)
    with torch.no_grad():
        assert strongly_convex(network.potential, network.alpha, dim)
        assert not strongly_convex(lambda x: network.potential(x).pow(0.4), 0.0, dim)  # grows slower than a line
        assert not strongly_convex(network.potential, 10.0, dim)


def test_jacobian_of_the_map_is_symmetric_and_positive() -> None:
    network = made(2, alpha=0.05)
    x = images(2, 1)[..., :6, :7]

    def defects(f: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        jacobian = torch.autograd.functional.jacobian(f, x).reshape(42, 42)
        return float((jacobian - jacobian.T).abs().max()), float(torch.linalg.eigvalsh(jacobian).min())

    skew, least = defects(network.prox)
    assert skew < 1e-13 and least >= 0.05 - 1e-12
    skew, _ = defects(lambda v: network.prox(v) + 0.01 * v.roll(1, 2))
    assert skew > 1e-3


def test_map_is_the_gradient() -> None:
    network = made(2)
    x, d = images(2, 3, seed=3), images(2, 3, seed=4)
    h = 1e-5
    with torch.no_grad():
        slope = (network.potential(x + h * d) - network.potential(x - h * d)) / (2 * h)
        inner = (network.prox(x) * d).flatten(1).sum(1)
        assert ((slope - inner).abs() < 1e-7 * inner.abs() + 1e-5).all()  # h^2 times third derivatives
        assert ((slope - 1.01 * inner).abs() > 1e-3).any()


def test_derivatives_of_the_map() -> None:
    network = made(1, width=4, group=2, kernel=3, scales=1)
    x = images(1, 2)[..., :5].requires_grad_()
    assert torch.autograd.gradcheck(network.prox, x) and torch.autograd.gradgradcheck(network.prox, x)
    network.prox(x.detach()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
    with torch.no_grad():
        assert not network.prox(x).requires_grad
    network.requires_grad_(False)
    assert not network.prox(x.detach()).requires_grad  # nothing asks: no graph is kept


def test_commutes_with_shifts_by_whole_strides_away_from_the_sides() -> None:
    network = made(2, kernel=3, scales=2, layers=1)
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(1, 1, 64, 48, dtype=torch.float64)
    x[..., 24:40, 18:30] = torch.randn(16, 12, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        here, there = network.prox(x), network.prox(x.roll((4, -8), (2, 3)))
    inner = (..., slice(16, 48), slice(12, 28))
    assert (here.roll((4, -8), (2, 3)) - there)[inner].abs().max() < 1e-12
    with torch.no_grad():
        assert (here.roll((1, 0), (2, 3)) - network.prox(x.roll((1, 0), (2, 3))))[inner].abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (17, 8), (33, 40)])
def test_takes_images_of_any_size(shape: tuple[int, int]) -> None:
    network = made(2, channels=2, scales=3)
    x = torch.ones(2, 2, *shape, dtype=torch.float64)
    with torch.no_grad():
        assert network.prox(x).shape == x.shape and network.potential(x).shape == (2,)


def test_follows_images_larger_than_any_it_was_made_for() -> None:
    network = InputConvexNetwork(2, width=80, layers=1, scales=1).double()
    x = 100 * images(2, 1)
    with torch.no_grad():
        ratio = float((network.prox(x) * x).sum() / x.square().sum())
    assert 0.2 < ratio < 2  # a network whose potential grows linearly would give about 0.01


def test_first_weights_nearly_keep_the_image() -> None:
    network = InputConvexNetwork(2).double()
    x = torch.linspace(0, 20, 32, dtype=torch.float64).sin().mul(10).expand(1, 1, 32, 32)
    with torch.no_grad():
        error = (network.prox(x) - x).square().mean().sqrt() / x.square().mean().sqrt()
    assert error < 0.5
    assert torch.equal(InputConvexNetwork(2, seed=3).filters[0], InputConvexNetwork(2, seed=3).filters[0])
    assert not torch.equal(InputConvexNetwork(2, seed=3).mixes[0], InputConvexNetwork(2, seed=4).mixes[0])


def test_bad_settings_and_input_are_refused() -> None:
    with pytest.raises(InputError, match="odd"):
        InputConvexNetwork(2, kernel=4)
    with pytest.raises(InputError, match="group divides"):
        InputConvexNetwork(2, width=10, group=4)
    with pytest.raises(InputError, match="dim is 1, 2 or 3"):
        InputConvexNetwork(4)
    with pytest.raises(InputError, match="positive"):
        InputConvexNetwork(2, alpha=0.0)
    with pytest.raises(InputError, match="it takes"):
        made(2)(torch.zeros(1, 2, 8, 8, dtype=torch.float64))
