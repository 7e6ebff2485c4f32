"""Orthogonal steps, and the loss whose mean is the mean signal-to-noise ratio."""

from __future__ import annotations

import torch
from torch import nn

from sciml.metrics import psnr
from sciml.training import LogL2, Muon
from sciml.training.optimisers import orthogonal


def singular(shape: tuple[int, int], power: float) -> torch.Tensor:
    """A matrix whose singular values fall from 1 to 10^-power."""
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    return u @ torch.diag(torch.logspace(0, -power, min(shape))) @ v


def test_directions_keep_and_sizes_become_one() -> None:
    """Five steps bring singular values between 1 and 1/30 of the Frobenius norm to 0.68 .. 1.21, the range of the quintic."""
    for shape in ((7, 40), (40, 7), (12, 12)):
        g = singular(shape, 1.0)
        found = orthogonal(g)
        sizes = torch.linalg.svdvals(found)
        assert 0.65 < float(sizes.min()) and float(sizes.max()) < 1.25
        u, _, v = torch.linalg.svd(g, full_matrices=False)
        core = u.T @ found @ v.T
        off = core - torch.diag(core.diag())
        assert float(off.abs().max()) < 1e-4  # the same singular vectors, to rounding of a few products
    assert float(torch.linalg.svdvals(singular((7, 40), 1.0)).min()) < 0.2  # without it they would not


def test_matrices_and_the_rest() -> None:
    """A convolution moves by the learning rate times 15 in every direction, a bias by the learning rate, whatever the gradient."""
    for scale in (1e-6, 1.0, 1e6):
        weight, bias = nn.Parameter(torch.zeros(5, 4, 3, 3)), nn.Parameter(torch.zeros(5))
        lifting = nn.Parameter(torch.zeros(5, 1, 3, 3))  # one input: no matrix
        rule = Muon().build([weight, bias, lifting], 1e-3)
        weight.grad = scale * singular((5, 36), 0.5).reshape(5, 4, 3, 3)
        bias.grad, lifting.grad = scale * torch.ones(5), scale * torch.ones(5, 1, 3, 3)
        rule.step()
        sizes = torch.linalg.svdvals(weight.detach().flatten(1)) / 15e-3
        assert 0.65 < float(sizes.min()) and float(sizes.max()) < 1.25
        assert torch.allclose(bias.detach(), torch.full((5,), -1e-3), rtol=0.05)  # Adam's first step
        assert torch.allclose(lifting.detach(), torch.full((5, 1, 3, 3), -1e-3), rtol=0.05)


def test_weights_without_gradient_stay() -> None:
    one, other = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    rule = Muon().build([one, other], 0.1)
    one.grad = torch.eye(3)
    rule.step()
    assert torch.equal(other, torch.ones(3, 3)) and not torch.equal(one, torch.ones(3, 3))


def test_log_l2_is_the_mean_psnr_up_to_a_constant() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(6, 1, 8, 9, generator=generator)
    one, two = (truth + s * torch.randn(truth.shape, generator=generator) for s in (0.1, 0.01))
    gained = float((psnr(two, truth) - psnr(one, truth)).mean())
    lowered = float(LogL2()(one, truth) - LogL2()(two, truth))
    assert abs(gained - lowered * 20 / torch.log(torch.tensor(10.0)).item()) < 1e-4 * gained
    assert torch.isfinite(LogL2()(truth, truth))
