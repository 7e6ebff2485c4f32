"""The spectral layer against full FFTs, and the network on several grids."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.networks.fno import FNO
from sciml.networks.layers import SpectralConvolution, space_first, space_last
from sciml.networks.symmetric_fno import SymmetricFNO, elements

CASES = [
    ((16,), (5,)), ((15,), (5,)), ((7,), (9,)), ((1,), (2,)),
    ((9, 14), (3, 4)), ((8, 8), (4, 4)), ((14, 9), (2, 5)), ((5, 4), (6, 7)),
    ((9, 14, 11), (3, 2, 4)), ((4, 6, 5), (2, 3, 3)), ((3, 8, 4), (4, 2, 5)),
]  # fmt: skip


def layer(modes: tuple[int, ...], channels: tuple[int, int] = (2, 3)) -> SpectralConvolution:
    return SpectralConvolution(modes, *channels, generator=torch.Generator().manual_seed(1)).double()


def by_fft(weight: Tensor, modes: tuple[int, ...], x: Tensor, *, conjugate: bool = False) -> Tensor:
    """rfftn, one product per kept frequency, irfftn; (batch, channel, *space)."""
    shape, axes = x.shape[2:], tuple(range(2, x.ndim))
    spectrum = torch.fft.rfftn(x, dim=axes, norm="forward")
    out = torch.zeros(x.shape[0], weight.shape[-1], *spectrum.shape[2:], dtype=spectrum.dtype)
    full = torch.complex(weight.select(-2, 0), weight.select(-2, 1))
    if conjugate:
        full = full.conj()
    kept = [min(m, (n + 1) // 2) for m, n in zip(modes, shape, strict=True)]
    ranges = [range(1 - k, k) for k in kept[:-1]] + [range(kept[-1])]
    for k in torch.cartesian_prod(*(torch.tensor(list(r)) for r in ranges)).reshape(-1, len(shape)).tolist():
        stored = tuple(f + m - 1 for f, m in zip(k[:-1], modes[:-1], strict=True)) + (k[-1],)
        out[(slice(None), slice(None), *k)] = spectrum[(slice(None), slice(None), *k)] @ full[stored]
    return torch.fft.irfftn(out, s=shape, dim=axes, norm="forward")


@pytest.mark.parametrize(("shape", "modes"), CASES)
def test_equals_the_full_fft(shape: tuple[int, ...], modes: tuple[int, ...]) -> None:
    spectral = layer(modes)
    x = torch.randn(3, 2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ours = space_last(spectral(space_first(x)))
    reference = by_fft(spectral.weight.detach(), modes, x)
    error = (ours - reference).norm() / reference.norm()
    assert error < 1e-13  # float64 rounding of sums over fewer than 2000 points
    if min(shape) > 2:
        twin = by_fft(spectral.weight.detach(), modes, x, conjugate=True)
        assert (ours - twin).norm() / reference.norm() > 1e-2  # the wrong sign of i is seen


def smooth(shape: tuple[int, ...]) -> Tensor:
    """A function with frequencies up to 3 per axis, two members, two channels, sampled on a periodic grid."""
    axes = [torch.arange(n, dtype=torch.float64) / n for n in shape]
    grids = torch.meshgrid(*axes, indexing="ij")
    phase = 2 * math.pi * sum((a + 1) * g for a, g in enumerate(grids))
    other = 2 * math.pi * sum((3 - a) * g for a, g in enumerate(grids))
    fields = [torch.sin(phase), 0.3 + torch.cos(other + 0.5), torch.cos(phase - 1.0) * 0.5, torch.sin(other)]
    return torch.stack(fields).reshape(2, 2, *shape)


@pytest.mark.parametrize("shape", [(10,), (9, 12), (8, 9, 11)])
def test_spectral_layer_is_the_same_function_on_a_finer_grid(shape: tuple[int, ...]) -> None:
    spectral = layer((4,) * len(shape))
    coarse = spectral(space_first(smooth(shape)))
    fine = spectral(space_first(smooth(tuple(2 * n for n in shape))))
    fine = fine[(slice(None, None, 2),) * len(shape)]
    torch.testing.assert_close(coarse, fine, rtol=0, atol=1e-13)
    scaled = spectral(space_first(smooth(tuple(2 * n for n in shape))) * 2 ** len(shape))  # a transform without 1/N
    assert (scaled[(slice(None, None, 2),) * len(shape)] - coarse).abs().max() > 0.1


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_network_is_the_same_function_on_a_finer_grid(dim: int) -> None:
    network = FNO(dim=dim, modes=4, width=4, layers=2, in_channels=2, coordinates=False).double()
    n = {1: 96, 2: 40, 3: 24}[dim]
    coarse, fine = network(smooth((n,) * dim)), network(smooth((2 * n,) * dim))
    fine = fine[(slice(None), slice(None), *(slice(None, None, 2),) * dim)]
    # GELU makes frequencies beyond the grid; what aliases back falls off like the spectrum of a smooth function
    assert (coarse - fine).abs().max() < {1: 1e-10, 2: 1e-5, 3: 1e-3}[dim] * coarse.abs().max()


def test_commutes_with_translation_without_coordinates() -> None:
    x = smooth((12, 10))
    shift = {"shifts": (3, 4), "dims": (-2, -1)}
    free = FNO(dim=2, modes=3, width=5, in_channels=2, coordinates=False).double()
    torch.testing.assert_close(free(x.roll(**shift)), free(x).roll(**shift), rtol=0, atol=1e-12)
    bound = FNO(dim=2, modes=3, width=5, in_channels=2, coordinates=True).double()
    assert (bound(x.roll(**shift)) - bound(x).roll(**shift)).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(1,), (3,), (16, 5), (2, 31), (3, 1, 6)])
def test_takes_any_grid(shape: tuple[int, ...]) -> None:
    network = FNO(dim=len(shape), modes=12 if len(shape) < 3 else 3, width=4, padding=0.3, out_channels=2)
    assert network(torch.randn(1, 1, *shape)).shape == (1, 2, *shape)


def test_same_seed_same_weights_and_global_generator_untouched() -> None:
    before = torch.get_rng_state()
    one, two, other = FNO(dim=1, seed=3), FNO(dim=1, seed=3), FNO(dim=1, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.project.weight, other.project.weight)


def test_second_derivatives() -> None:
    network = FNO(dim=1, modes=2, width=3, layers=1).double()
    x = torch.randn(1, 1, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda v: network(v).sin(), (x,))


@pytest.mark.parametrize(
    "settings", [{"dim": 4}, {"dim": 2, "modes": (3,)}, {"dim": 1, "modes": 0}, {"dim": 1, "width": 0},
                 {"dim": 1, "padding": -0.1}]
)  # fmt: skip
def test_refuses_impossible_settings(settings: dict[str, object]) -> None:
    with pytest.raises(InputError, match="FNO"):
        FNO(**settings)  # type: ignore[arg-type]


def test_refuses_another_shape() -> None:
    with pytest.raises(InputError, match=r"\(2, 3, 8\)"):
        FNO(dim=1)(torch.zeros(2, 3, 8))


@pytest.mark.parametrize("node", [False, True])
@pytest.mark.parametrize("shape", [(7,), (6, 6), (6, 4), (4, 4, 4), (4, 3, 4)])
def test_symmetric_network_commutes_with_its_group(shape: tuple[int, ...], node: bool) -> None:
    network = SymmetricFNO(len(shape), modes=2, width=4, layers=2, in_channels=2, node=node).double().eval()
    x = torch.randn(2, 2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    group = list(elements(shape))
    assert len(group) == {(7,): 2, (6, 6): 8, (6, 4): 4, (4, 4, 4): 48, (4, 3, 4): 16}[shape]
    plain = 0.0
    for g in group[1:]:
        moved = network.move(x, *g)
        assert torch.equal(network.move(moved, *g, back=True), x) and not torch.equal(moved, x)
        torch.testing.assert_close(network(moved), network.move(network(x), *g), rtol=0, atol=1e-12)
        apart = network.inner(moved) - network.move(network.inner(x), *g)
        plain = max(plain, float(apart.detach().abs().max()))
    assert plain > 1e-3  # the network inside does not


def test_symmetric_network_draws_its_average() -> None:
    network = SymmetricFNO(2, modes=2, width=4, layers=1, padding=0.0).double()
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = network(x.expand(4000, -1, -1, -1))
    spread = float(drawn.detach().std(0).max())
    assert (drawn.mean(0) - network.eval()(x)).abs().max() < 5 * spread / 4000**0.5  # five standard errors
    assert spread > 1e-3


def test_parts_that_fit_the_cache_change_nothing() -> None:
    """Without gradients the pointwise networks run by parts and in place: the same numbers to rounding, and the input is left alone."""
    network = FNO(2, modes=5, width=24, seed=3)
    x = torch.randn(5, 1, 96, 80, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    with torch.no_grad():
        parts = network(x)
    whole = network(x).detach()
    assert torch.equal(x, kept)
    assert float((parts - whole).norm() / whole.norm()) < 1e-6
    layer = network.spectral[0]
    v, skip = torch.randn(2, 9, 8, 3, 24, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(layer(v, onto=skip), layer(v) + skip, atol=1e-5)
