"""Priors with known densities, and the weights of small learned proximal networks for them.

`python tests/priors/oracles.py` fits the networks to the exact proximal maps of `-log p` at step 1 and writes the folders beside
this file, so that what is read out of them can be compared with the densities.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from torch import Tensor

from sciml.networks import InputConvexNetwork
from sciml.priors import LearnedProx

HERE = Path(__file__).resolve().parent
CENTRES = torch.tensor([[0.8, 0.0], [-0.4, 0.7], [-0.4, -0.7]], dtype=torch.float64)
SPREAD = 0.65


class Laplace:
    """``p(x) = exp(-|x|) / 2`` on one channel."""

    channels = 1

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        u = torch.rand(count, 1, 1, generator=generator) - 0.5
        return -u.sign() * torch.log1p(-2 * u.abs())

    def energy(self, x: Tensor) -> Tensor:
        """``-log p``; ``x`` is (count, 1, 1)."""
        return x.abs().flatten(1).sum(1) + math.log(2)

    def prox(self, v: Tensor) -> Tensor:
        return v.sign() * (v.abs() - 1).clamp_min(0)


class Mixture:
    """Three Gaussians in the corners of a triangle, on two channels: nonconvex, with a proximal map of one value."""

    channels = 2

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        which = torch.randint(len(CENTRES), (count,), generator=generator)
        noise = torch.randn(count, 2, generator=generator)
        return (CENTRES.float()[which] + SPREAD * noise).unsqueeze(-1)

    def energy(self, x: Tensor) -> Tensor:
        """``-log p``; ``x`` is (count, 2, 1)."""
        far = (x[..., 0].unsqueeze(1) - CENTRES).square().sum(-1) / (2 * SPREAD**2)
        return -torch.logsumexp(-far, 1) + math.log(len(CENTRES) * 2 * math.pi * SPREAD**2)

    def prox(self, v: Tensor) -> Tensor:
        """By brute force: gradient descent on the objective, which is strongly convex for this spread."""
        x = v.double().clone()
        for _ in range(40):  # a step below 1 / (1 + 1 / SPREAD^2)
            share = torch.softmax(-(x[..., 0].unsqueeze(1) - CENTRES).square().sum(-1) / (2 * SPREAD**2), 1)
            x = x - 0.29 * (x - v + (x - (share @ CENTRES).unsqueeze(-1)) / SPREAD**2)
        return x


def train(name: str, width: int, steps: int) -> None:
    law = {"laplace": Laplace(), "mixture": Mixture()}[name]
    network = InputConvexNetwork(
        1, channels=law.channels, width=width, group=4, kernel=1, stride=1, scales=1, layers=2, alpha=1e-2
    )
    rule = torch.optim.Adam(network.parameters(), lr=2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(rule, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        v = 2 * torch.randn(256, law.channels, 1, generator=generator)
        loss = (network.prox(v) - law.prox(v).float()).square().mean()
        rule.zero_grad()
        loss.backward()
        rule.step()
        schedule.step()
    polish(network, law)
    prior = LearnedProx(network.float().requires_grad_(False), noise=1.0)
    prior.save(HERE / name)
    v = 1.5 * torch.randn(2000, law.channels, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    known = law.prox(v)
    error = prior.prox(v, 1.0) - known
    sys.stdout.write(
        f"{name}: relative L2 {float(error.norm() / known.norm()):.4f}, mean {float(error.abs().mean()):.4f}, largest "
        f"{float(error.abs().max()):.4f}\n"
    )


def polish(network: InputConvexNetwork, law: Laplace | Mixture) -> None:
    """Quasi-Newton steps on a fixed sample, in double precision: stochastic gradients stop three times short of this."""
    network.double()
    v = 2 * torch.randn(1500, law.channels, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    known = law.prox(v)
    rule = torch.optim.LBFGS(
        network.parameters(), max_iter=1500, history_size=50, line_search_fn="strong_wolfe", tolerance_change=1e-14,
        tolerance_grad=1e-12,
    )  # fmt: skip

    def closure() -> Tensor:
        rule.zero_grad()
        loss = (network.prox(v) - known).square().mean()
        loss.backward()
        return loss

    rule.step(closure)


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    train("laplace", 48, 1500)
    train("mixture", 8, 1500)
