"""Which rule turns gradients into steps: small objects that build a torch optimizer for given parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

__all__ = ["AdamW", "Muon", "Optimiser"]


class Optimiser(Protocol):
    """``build(parameters, learning_rate)`` gives a fresh torch optimizer whose state is made of tensors."""

    def build(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer: ...


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101), fused where torch can."""

    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)

    def build(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        weights = list(parameters)
        fused = all(p.dtype in (torch.float32, torch.float64) and p.device.type in ("cpu", "cuda") for p in weights)
        return torch.optim.AdamW(
            weights, lr=learning_rate, betas=self.betas, weight_decay=self.weight_decay, fused=fused
        )


@dataclass(frozen=True)
class Muon:
    """Steps of equal size in all directions for the matrices among the weights, Adam's for the rest.

    The momentum of a weight with at least two outputs and two inputs (a convolution counts as the matrix outputs x the rest)
    is replaced by the nearest orthogonal matrix, up to a factor between 0.7 and 1.2, by five Newton-Schulz steps (Jordan and
    others, https://kellerjordan.github.io/posts/muon, 2024), times the learning rate times ``matrices``. ``clip``: the gradient of
    all weights together is cut to this 2-norm first.
    """

    matrices: float = 15.0
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0

    def build(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        return _Muon(list(parameters), learning_rate, self)


class _Muon(torch.optim.Optimizer):
    def __init__(self, weights: list[nn.Parameter], learning_rate: float, rule: Muon) -> None:
        self.rule = rule
        super().__init__(weights, {"lr": learning_rate})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        rule = self.rule
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        torch.nn.utils.clip_grad_norm_(weights, rule.clip)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if p.ndim > 1 and min(p.shape[:2]) > 1:
                    mean = state.setdefault("mean", torch.zeros_like(p)).lerp_(p.grad, 1 - rule.momentum)
                    move = orthogonal(p.grad.lerp(mean, rule.momentum).flatten(1))
                    tall = max(1.0, move.shape[0] / move.shape[1]) ** 0.5
                    p.add_(move.reshape(p.shape), alpha=-group["lr"] * rule.matrices * tall)
                    continue
                count = state.setdefault("count", torch.zeros(()))
                count += 1
                mean = state.setdefault("mean", torch.zeros_like(p)).lerp_(p.grad, 1 - rule.betas[0])
                square = state.setdefault("square", torch.zeros_like(p))
                square.lerp_(p.grad.square(), 1 - rule.betas[1])
                first, second = (1 - beta ** float(count) for beta in rule.betas)
                p.addcdiv_(mean, (square / second).sqrt_().add_(1e-8), value=-group["lr"] / first)


def orthogonal(g: Tensor) -> Tensor:
    """Roughly ``U V^T`` of ``g = U S V^T``: five steps of a quintic that drives singular values to about one."""
    wide = g.shape[0] <= g.shape[1]
    x: Tensor = g if wide else g.mT
    x = x / (x.norm() + 1e-12)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x if wide else x.mT
