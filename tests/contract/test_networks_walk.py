"""What every network promises beyond its own tests: saved and loaded weights, any grid, any device."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    importlib.import_module(f"sciml.networks.{path.stem}")
    for path in sorted((ROOT / "sciml" / "networks").glob("[!_]*.py"))
]
NETWORKS = [file for file in FILES if hasattr(file.example()[0], "settings")]  # the others are parts of networks


@pytest.fixture(params=FILES, ids=lambda file: file.__name__.rsplit(".", 1)[-1])
def file(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def on_another_device(example: Callable[[], tuple[nn.Module, Tensor]]) -> torch.device:
    """Forward and backward with fake tensors on a device that is not the CPU; a tensor left on the CPU is an error.

    The device is `meta`: a build of torch without CUDA refuses even fake tensors on a GPU.
    """
    network, x = example()
    network.to("meta")
    with FakeTensorMode(allow_non_fake_inputs=True):
        y = network(x.to("meta"))
        y.square().sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        return y.device


def test_runs_where_its_tensors_are(file: ModuleType) -> None:
    assert on_another_device(file.example).type == "meta"


class Stray(nn.Linear):
    """The broken twin: makes a tensor on the CPU, whatever its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.arange(x.shape[-1], dtype=x.dtype, device="cpu")


def test_a_stray_tensor_is_caught() -> None:
    with pytest.raises(RuntimeError, match="same device"):
        on_another_device(lambda: (Stray(5, 5), torch.ones(2, 5)))


def test_saved_weights_give_the_same_bits(file: ModuleType) -> None:
    network, x = file.example()
    other, _ = file.example()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)
    assert not torch.equal(network(x), other(x))
    stream = io.BytesIO()
    torch.save(network.state_dict(), stream)
    stream.seek(0)
    other.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(network(x), other(x))


@pytest.mark.parametrize("network", NETWORKS, ids=lambda file: file.__name__.rsplit(".", 1)[-1])
def test_any_grid(network: ModuleType) -> None:
    """Even, odd, uneven, and smaller than what the weights were made for."""
    module, x = network.example()
    dim = x.ndim - 2
    for sizes in ((8, 8, 8), (9, 14, 11), (5, 4, 7), (2, 3, 4)):
        space = sizes[:dim]
        act = getattr(module, "prox", module)  # a potential is one number per image; its gradient is an image
        y = act(torch.ones(2, x.shape[1], *space))
        assert y.shape[0] == 2
        assert y.shape[2:] == space
        assert torch.isfinite(y).all()
