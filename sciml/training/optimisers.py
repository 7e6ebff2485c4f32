"""Which rule turns gradients into steps: small objects that build a torch optimizer for given parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

__all__ = ["AdamW", "Optimiser"]


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
