"""The bias-free denoiser: homogeneous, any size, told the level."""

from __future__ import annotations

import pytest
import torch

from sciml.domains.errors import InputError
from sciml.networks import BiasFreeDenoiser


@pytest.mark.parametrize(("dim", "shape"), [(1, (11,)), (2, (8, 13)), (3, (4, 5, 6))])
def test_scales_with_image_and_level(dim: int, shape: tuple[int, ...]) -> None:
    network = BiasFreeDenoiser(dim, channels=2, width=5, layers=3)
    x = torch.randn(2, 2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigma = torch.tensor([0.1, 0.3], dtype=torch.float64).reshape(2, *(1,) * (dim + 1))
    once = network(x, sigma)
    assert once.shape == x.shape and once.dtype == torch.float64
    assert (network(3 * x, 3 * sigma) - 3 * once).abs().max() < 1e-13 * once.abs().max() * 10
    assert (network(3 * x, sigma) - 3 * once).abs().max() > 1e-3
    assert torch.equal(network(x[1:], sigma[1:]), once[1:]) or torch.allclose(
        network(x[1:], sigma[1:]), once[1:], atol=1e-12
    )


def test_blocks_are_put_back_where_they_were() -> None:
    network = BiasFreeDenoiser(2, width=4, layers=2)
    with torch.no_grad():
        for weight in network.weights:
            weight.zero_()
        for channel in range(4):  # the residual is then relu of the image itself
            network.weights[0][channel, channel, 1, 1] = 1.0
            network.weights[1][channel, channel, 1, 1] = 1.0
    x = torch.rand(1, 1, 7, 10, generator=torch.Generator().manual_seed(0)) + 0.1
    assert torch.equal(network(x, 0.1), torch.zeros_like(x))


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="dim is 1, 2 or 3"):
        BiasFreeDenoiser(0)
    with pytest.raises(InputError, match="it takes"):
        BiasFreeDenoiser(2)(torch.zeros(1, 3, 8, 8))
