"""Every network that maps fields to fields: other resolutions, training on shipped data, checkpoints, as a solver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sciml
from sciml.learned import Trained
from sciml.networks import FNO, DeepONet, FourierTransformer, GalerkinTransformer, MgNO, MultiONet, Rounded, UNet
from sciml.training.fit import fit
from sciml.training.fitted import Fit

MADE: dict[str, Callable[[int, str], nn.Module]] = {
    "fno": lambda dim, grid: FNO(dim, modes=4, width=8, layers=2, padding=0.0 if grid == "periodic" else 0.2),
    "galerkin": lambda dim, grid: GalerkinTransformer(dim, width=16, layers=2, heads=2, modes=4, grid=grid, coarsen=dim),
    "fourier": lambda dim, grid: FourierTransformer(dim, width=16, layers=2, heads=2, modes=4, grid=grid, coarsen=2 * dim),
    "mgno": lambda dim, grid: MgNO(
        dim, width=8, layers=2, schedule=((1, 1), (1, 1), (2, 0)), padding="circular" if grid == "periodic" else "zeros"
    ),
    "unet": lambda dim, grid: UNet(dim, widths=(8, 12), blocks=1),
    "deeponet": lambda dim, grid: DeepONet(dim, width=32, layers=3, sensors=16, grid=grid),
    "multionet": lambda dim, grid: MultiONet(dim, width=32, layers=3, sensors=16, grid=grid),
}  # fmt: skip


@pytest.fixture(params=MADE)
def make(request: pytest.FixtureRequest) -> Callable[[int, str], nn.Module]:
    return MADE[request.param]


def stirred(network: nn.Module) -> nn.Module:
    """Weights that start at zero moved away from it."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_half_and_double_resolution_member_by_member(make: Callable[[int, str], nn.Module], dim: int) -> None:
    network = stirred(make(dim, "interior"))
    for n in (7, 15, 31) if dim < 3 else (5, 11):
        x = torch.randn(2, 1, *(n + k for k in range(dim)), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            y = network(x)
            assert y.shape == x.shape and bool(torch.isfinite(y).all())
            # float32 sums of some thousand terms, in another order
            torch.testing.assert_close(
                torch.cat([network(one) for one in x.split(1)]), y, rtol=1e-4, atol=1e-4 * float(y.abs().max())
            )
            assert not torch.equal(y[0], y[1])


def test_learns_is_saved_and_solves(make: Callable[[int, str], nn.Module], tmp_path: Path) -> None:
    """Darcy flow on the shipped members: the loss falls, the checkpoint answers with the same bits, the problem judges."""
    data = sciml.dataset("darcy").isel(sample=slice(0, 24))
    fitted = fit(
        make(2, "interior"),
        data,
        inputs="coefficient",
        targets="u",
        epochs=4,
        batch_size=6,
        learning_rate=1e-2,
        out=tmp_path,
    )
    losses = [row["loss"] for row in fitted.history]
    assert losses[-1] < 0.93 * losses[0], losses  # seen: 0.44 to 0.88
    again = Fit.load(tmp_path)
    assert type(again.network) is type(fitted.network) and again.network.settings == fitted.network.settings
    x = torch.randn(2, 1, 31, 31)
    assert torch.equal(again.evaluate(x), fitted.evaluate(x))
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 6, "learning_rate": 1e-2}
    twice = fit(
        make(2, "interior"), data, inputs="coefficient", targets="u", out=tmp_path, **settings
    )  # nothing left to do
    assert twice.history == fitted.history and torch.equal(twice.evaluate(x), fitted.evaluate(x))
    problem = sciml.problem("darcy", n=31, batch=2, dtype=torch.float32)
    solver = Trained(again)
    assert solver.accepts(problem) is None
    with pytest.warns(UserWarning):
        solution = sciml.solve(problem, solver)
    assert solution.value.shape == (2, 1, 31, 31) and not solution.ok


def test_learns_on_a_periodic_line(make: Callable[[int, str], nn.Module]) -> None:
    data = sciml.dataset("burgers").isel(time=[5])
    fitted = fit(make(1, "periodic"), data, inputs="start", targets="u", epochs=6, batch_size=6, learning_rate=3e-3)
    assert fitted.history[-1]["loss"] < 0.9 * fitted.history[0]["loss"]


def test_training_that_learns_nothing_is_seen() -> None:
    """The twin of the two tests above: steps too small to matter."""
    data = sciml.dataset("darcy").isel(sample=slice(0, 24))
    fitted = fit(
        MADE["fno"](2, "interior"), data, inputs="coefficient", targets="u", epochs=4, batch_size=6, learning_rate=1e-9
    )
    assert not fitted.history[-1]["loss"] < 0.93 * fitted.history[0]["loss"]


def test_a_plain_unet_takes_other_channels_and_old_settings() -> None:
    network = stirred(UNet(2, widths=(6, 8), blocks=1, in_channels=3, out_channels=2))
    x = torch.randn(2, 3, 7, 10)
    assert network(x).shape == (2, 2, 7, 10)
    assert torch.equal(network(x), network(x, 0.0)) and not torch.equal(network(x), network(x, 1.0))
    assert UNet(**network.settings).settings == network.settings
    assert "in_channels" not in UNet(2, channels=2).settings


def test_rounding_is_for_training_alone(tmp_path: Path) -> None:
    inner = MADE["mgno"](2, "interior")
    network = Rounded(inner)
    x = torch.randn(2, 1, 9, 8, generator=torch.Generator().manual_seed(0))
    exact = inner(x)
    assert torch.equal(network.eval()(x), exact)
    rough = network.train()(x)
    assert rough.dtype == torch.float32
    change = float((rough - exact).detach().norm() / exact.detach().norm())
    assert 1e-4 < change < 3e-2  # 8 bits of mantissa are 0.4 %; a few layers
    assert not torch.equal(rough, rough.bfloat16().float())  # the last map is not rounded, or neighbours would be equal
    other = Rounded(stirred(MADE["unet"](2, "interior"))).train()(x)
    assert torch.equal(other, other.bfloat16().float())
    data = sciml.dataset("darcy").isel(sample=slice(0, 24))
    fitted = fit(
        network, data, inputs="coefficient", targets="u", epochs=2, batch_size=6, learning_rate=1e-2, out=tmp_path
    )
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]
    again = Fit.load(tmp_path)
    x = torch.randn(1, 1, 31, 31)
    assert again.network.settings == network.settings and torch.equal(again.evaluate(x), fitted.evaluate(x))


def test_a_complex_weight_counts_twice() -> None:
    from sciml.training._estimate import real_parameters

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.zeros(3, dtype=torch.complex64)), nn.Parameter(torch.zeros(5))

    network: Any = Twice()
    assert real_parameters(network) == 11 != sum(p.numel() for p in network.parameters())
    for name, build in MADE.items():
        made = build(2, "interior")
        assert real_parameters(made) == sum(p.numel() for p in made.parameters()), name  # all weights are real
