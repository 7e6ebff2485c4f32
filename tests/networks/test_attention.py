"""Galerkin and Fourier attention against sums written out, and the transformers on several grids."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.networks.galerkin import FourierTransformer, GalerkinTransformer, _Attention, _Fourier, _Galerkin

KINDS = [_Galerkin, _Fourier]
NETWORKS = [GalerkinTransformer, FourierTransformer]


def attention(kind: type[_Attention], width: int = 6, heads: int = 2, positions: int = 2) -> _Attention:
    made = kind(width, heads, positions, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if name in ("bias", "scale", "shift"):
                weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return made


def values(points: int = 7, width: int = 6, positions: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    v = torch.randn(2, points, width, dtype=torch.float64, generator=generator)
    return v, torch.randn(points, positions, dtype=torch.float64, generator=generator)


def normal(v: Tensor) -> Tensor:
    mean = v.mean(-1, keepdim=True)
    return (v - mean) / (v.var(-1, keepdim=True, unbiased=False) + 1e-7).sqrt()


def by_sums(made: _Attention, v: Tensor, position: Tensor, *, fourier: bool, inside: bool = True) -> Tensor:
    """One head, one member and one point at a time; `inside`: the position is in Q, K and V of each head."""
    n, each = v.shape[1], made.each
    out = torch.zeros(v.shape[0], n, 0, dtype=v.dtype)
    for head in range(made.heads):
        rows = slice(head * each, (head + 1) * each)
        q, k, w = (v @ made.weight[i, rows].T + made.bias[i, rows] for i in range(3))
        if fourier:
            q, k = (normal(p) * made.scale[i, head] + made.shift[i, head] for i, p in enumerate((q, k)))
        else:
            k, w = (normal(p) * made.scale[i, head] + made.shift[i, head] for i, p in enumerate((k, w)))
        beside = position.expand(v.shape[0], *position.shape) * (1 if inside else 0)
        q, k, w = (torch.cat((beside, part), -1) for part in (q, k, w))
        z = torch.zeros_like(w)
        for member in range(len(v)):
            for i in range(n):
                for j in range(n):
                    if fourier:
                        z[member, i] += q[member, i].dot(k[member, j]) * w[member, j] / (n * math.sqrt(k.shape[-1]))
                    else:
                        z[member, i] += (q[member, i] @ k[member, j]) * w[member, j] / n
        out = torch.cat((out, z), -1)
    return out @ made.out.weight.T + made.out.bias


@pytest.mark.parametrize("kind", KINDS)
def test_is_the_sum_over_all_points(kind: type[_Attention]) -> None:
    made = attention(kind)
    v, position = values()
    with torch.no_grad():
        found, wanted = made(v, position), by_sums(made, v, position, fourier=kind is _Fourier)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)  # float64 rounding
        assert (by_sums(made, v, position, fourier=kind is _Galerkin) - found).abs().max() > 1e-3
        assert (by_sums(made, v, position, fourier=kind is _Fourier, inside=False) - found).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_is_a_quadrature(kind: type[_Attention]) -> None:
    """Every point twice is the same function on more points."""
    made = attention(kind)
    v, position = values()
    with torch.no_grad():
        twice = made(v.repeat_interleave(2, 1), position.repeat_interleave(2, 0))
        torch.testing.assert_close(twice[:, ::2], made(v, position), rtol=0, atol=1e-13)
        other = made(torch.cat((v, v[:, :3]), 1), torch.cat((position, position[:3])))
        assert (other[:, :7] - made(v, position)).abs().max() > 1e-3  # three points twice is another function


@pytest.mark.parametrize(("kind", "free"), [(_Galerkin, (1, 2)), (_Fourier, (0, 1))])
def test_the_size_of_what_is_normalised_does_not_matter(kind: type[_Attention], free: tuple[int, int]) -> None:
    v, position = values()
    plain = attention(kind)(v, position)
    for part in range(3):
        made = attention(kind)
        with torch.no_grad():
            made.weight[part].mul_(3)
            made.bias[part].mul_(3)
        change = (made(v, position) - plain).abs().max() / plain.abs().max()
        assert change < 1e-3 if part in free else change > 1e-2  # 1e-7 beside variances of about 1e-4 and more


@pytest.mark.parametrize(("kind", "most"), [(_Galerkin, 3e-3), (_Fourier, 3e-4)])
def test_starts_at_a_hundredth_of_the_identity(kind: type[_Attention], most: float) -> None:
    made = kind(64, 4, 2, torch.Generator().manual_seed(0))
    rest = made.weight.detach() - 0.01 * torch.eye(64)
    assert 0.3 * most < rest.abs().max() < most  # Xavier's sqrt(6 / (64 + 16)) times the gain is 2.7e-3 and 2.7e-4


@pytest.mark.parametrize("kind", NETWORKS)
def test_training_mode_is_no_different(kind: type[GalerkinTransformer]) -> None:
    """No dropout, neither asked for nor forgotten."""
    network = kind(1, width=8, layers=2, heads=2, modes=3)
    x = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network.train()(x), network.train()(x))
    assert torch.equal(network.train()(x), network.eval()(x))
    dropped = torch.nn.functional.dropout(network(x), 0.5)  # the function's own default is to be on
    assert not torch.equal(dropped, network(x))


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("dim", [1, 2])
def test_is_the_same_function_on_a_finer_grid(kind: type[GalerkinTransformer], dim: int) -> None:
    n = {1: 48, 2: 24}[dim]
    settings: dict[str, Any] = {"width": 16, "layers": 2, "heads": 2, "modes": 3, "smooth": 1}

    def field(points: int) -> Tensor:
        line = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
        grids = torch.meshgrid(*[line] * dim, indexing="ij")
        return torch.stack([torch.sin(grids[0]), torch.cos(sum(grids) + 0.3)])[:, None]

    def apart(network: torch.nn.Module) -> float:
        coarse, fine = network(field(n)), network(field(2 * n))
        fine = fine[(slice(None), slice(None), *(slice(None, None, 2),) * dim)]
        return float(((coarse - fine).abs().max() / coarse.abs().max()).detach())

    # sums over a periodic grid are exact up to the spectrum of smooth functions beyond n, which falls off fast
    assert apart(kind(dim, grid="periodic", **settings).double()) < {1: 1e-10, 2: 1e-5}[dim]
    assert apart(kind(dim, grid="unknown", **settings).double()) > 1e-4  # positions half a cell off are seen


@pytest.mark.parametrize("kind", NETWORKS)
def test_without_coordinates_it_commutes_with_translations(kind: type[GalerkinTransformer]) -> None:
    x = torch.randn(2, 1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    free, bound = (
        kind(1, width=6, layers=2, heads=2, modes=3, grid="periodic", coordinates=told).double()
        for told in (False, True)
    )
    with torch.no_grad():
        torch.testing.assert_close(free(x.roll(5, -1)), free(x).roll(5, -1), rtol=0, atol=1e-14)  # rounding
        assert (bound(x.roll(5, -1)) - bound(x).roll(5, -1)).abs().max() > 1e-4
        coarse = kind(2, width=6, layers=1, heads=2, coarsen=2, modes=2, coordinates=False)
        assert coarse(torch.zeros(1, 1, 5, 6)).shape == (1, 1, 5, 6)


def test_rough_answers_need_no_spectral_layers() -> None:
    network = GalerkinTransformer(2, width=8, layers=1, heads=2, smooth=0, coarsen=3)
    assert network(torch.randn(2, 1, 7, 10)).shape == (2, 1, 7, 10)
    assert not any("spectral" in name for name, _ in network.named_parameters())


@pytest.mark.parametrize(
    "settings", [{"heads": 3}, {"dim": 4}, {"grid": "square"}, {"modes": (3,)}, {"layers": 0}, {"padding": 2}]
)
def test_refuses_impossible_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="GalerkinTransformer"):
        GalerkinTransformer(**{"dim": 2, **settings})


def test_refuses_another_shape() -> None:
    with pytest.raises(InputError, match=r"\(2, 3, 8\)"):
        FourierTransformer(1)(torch.zeros(2, 3, 8))
