"""What a run will cost, found by trying two steps on a copy."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Estimate", "estimate", "real_parameters"]


def real_parameters(network: nn.Module) -> int:
    """Real numbers that are trained; a complex parameter counts as two."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in network.parameters() if p.requires_grad)


@dataclass(frozen=True)
class Estimate:
    """Seconds per training step, and bytes for weights, gradients, optimizer state and one step's activations."""

    seconds_per_step: float
    bytes: int

    def __str__(self) -> str:
        return f"{self.bytes / 2**20:.0f} MiB, {self.seconds_per_step * 1e3:.3g} ms a step"


def estimate(network: nn.Module, step: Callable[[nn.Module], Tensor], device: torch.device) -> Estimate:
    """Time forward and backward passes on a deep copy; neither weights nor random state nor gradients are touched.

    `step(network)` returns the loss of one full batch. Of three steps the first warms up and is not counted; the time
    of the optimizer is not included.
    """
    twin = copy.deepcopy(network)
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    times = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for attempt in range(3):
            began = time.perf_counter()
            if attempt == 0:
                with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
                    step(twin).backward()  # type: ignore[no-untyped-call]
            else:
                step(twin).backward()  # type: ignore[no-untyped-call]
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
    own = sum(p.numel() * p.element_size() for p in twin.parameters())
    return Estimate(min(times[1:]), 4 * own + sum(seen.values()))
