"""Training in bfloat16: any network, rounded to three digits while it learns and in full precision when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sciml.networks.output_maps import described, rebuilt

__all__ = ["Rounded", "example"]


class Rounded(nn.Module):
    """A network that computes its convolutions and matrix products in bfloat16 while training, and as usual in evaluation.

    Weights, gradients and what the optimiser does stay in float32 (mixed precision: Micikevicius et al., arXiv:1710.03740); bfloat16 has the range of float32 and 8 bits
    of mantissa, so that nothing needs scaling. On processors with matrix units for it (AMX, tensor cores) a step of a network of convolutions takes about
    half the time or less; elsewhere nothing is gained.

    ``network`` is an object of `sciml.networks`; ``settings`` describes it in plain values, which rebuild the same. *Fails when* the error sought is below
    the rounding of the values that add up to it: about 0.004 divided by the root of how many there are. Then train the last epochs without.
    """

    def __init__(self, network: nn.Module | Mapping[str, Any]) -> None:
        super().__init__()
        self.network: nn.Module = rebuilt(network)
        self.settings: dict[str, Any] = {"network": described(self.network)}

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or x.dtype != torch.float32 or x.is_meta:
            found: Tensor = self.network(x)
            return found
        with torch.autocast(x.device.type, torch.bfloat16):
            found = self.network(x)
        return found.to(x.dtype)


def example() -> tuple[nn.Module, Tensor]:
    """A small network of convolutions, as it is used, and an input that it takes."""
    from sciml.networks.multigrid import MgNO

    x = torch.randn(3, 1, 9, 8, generator=torch.Generator().manual_seed(0))
    return Rounded(MgNO(2, width=4, layers=1, schedule=((1, 1), (1, 0)))).eval(), x
