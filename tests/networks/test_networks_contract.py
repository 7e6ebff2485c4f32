"""What every network file promises: its example() runs, in every setting a caller may choose."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import sciml.networks

NAMES = [found.name for found in pkgutil.iter_modules(sciml.networks.__path__) if not found.name.startswith("_")]
FILES = [importlib.import_module(f"sciml.networks.{name}") for name in NAMES]


def named(module: ModuleType) -> str:
    return module.__name__.rsplit(".", 1)[-1]


@pytest.fixture(params=FILES, ids=named)
def file(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def batch_axis(file: ModuleType) -> int:
    return -2 if named(file) == "layers" else 0  # layers work space first


def test_evaluates_twice_to_the_same_bits(file: ModuleType) -> None:
    network, x = file.example()
    network.eval()
    assert torch.equal(network(x), network(x))


def test_every_parameter_gets_a_gradient(file: ModuleType) -> None:
    network, x = file.example()
    network(x).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert not parameter.is_complex(), name
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_batch_is_the_stack_of_its_members(file: ModuleType) -> None:
    network, x = file.example()
    network.eval()
    axis = batch_axis(file)
    whole = network(x)
    single = torch.cat([network(member) for member in x.split(1, dim=axis)], dim=axis)
    # float32 sums of at most a few hundred terms, in another order
    torch.testing.assert_close(whole, single, rtol=2e-5, atol=2e-5 * float(whole.detach().abs().max()))


def test_float64_agrees_with_float32(file: ModuleType) -> None:
    network, x = file.example()
    low = network(x).detach()
    high = network.double()(x.double())
    assert high.dtype == torch.float64
    torch.testing.assert_close(low.double(), high, rtol=1e-4, atol=2e-5 * float(high.detach().abs().max()))


def test_runs_on_fake_tensors_and_then_on_real_ones(file: ModuleType) -> None:
    with FakeTensorMode():
        network, x = file.example()
        shape = network(x).shape
    network, x = file.example()
    assert network(x).shape == shape


def test_inference_mode_leaves_training_possible(file: ModuleType) -> None:
    network, x = file.example()
    axis = batch_axis(file) - 1 if batch_axis(file) < 0 else 2 * (x.ndim > 2)
    x = torch.cat((x, x), dim=axis)  # a size nobody has met before
    with torch.inference_mode():
        network(x)
    network(x).square().sum().backward()


def test_settings_rebuild_the_network(file: ModuleType) -> None:
    network, x = file.example()
    if named(file) == "layers":
        assert not hasattr(network, "settings")  # a part, not a network
        return
    twin = type(network)(**network.settings)
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin.eval()(x), network.eval()(x))
