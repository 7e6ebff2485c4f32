"""Inverse problems on a GPU beside the same on the CPU: line integrals, blurs and masks, reconstructions, learned maps."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
import walk
from torch import Tensor

import sciml
from sciml.core import ForwardModel, Inverse
from sciml.core.tree import rebuild
from sciml.domains import Pixels
from sciml.forward import Radon
from sciml.priors import TotalVariation
from sciml.solvers import ADMM, PrimalDual, ProximalGradient

DEVICE = "cuda"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

FORWARD = [file for file in walk.files("forward") if isinstance(file.example(), ForwardModel)]


def moved(thing: Any) -> Any:
    """Any object of tensors on the device."""

    def other(name: str, value: Any) -> Any:
        return torch.device(DEVICE) if isinstance(value, torch.device) else value

    return rebuild(thing, lambda leaf: leaf.tensor.to(DEVICE), other)


def random(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gap(there: Tensor, here: Tensor) -> float:
    assert there.device.type == DEVICE
    return float((there.detach().cpu() - here.detach()).abs().max() / here.detach().abs().max())


def disagreement(here: Any, there: Any, rounding: float) -> list[str]:
    """Forward and adjoint of the derivative at one point, on both machines."""
    x = 0.3 * random((1, *here.space.shape), here.space.dtype, 0)
    v = random((1, *here.codomain.shape), here.codomain.dtype, 1)
    forth = gap(there(x.to(DEVICE)), here(x))
    back = gap(there.linearise(x.to(DEVICE)).adjoint(v.to(DEVICE)), here.linearise(x).adjoint(v))
    return [f"{name} differs by {one:.1e}" for name, one in (("forward", forth), ("adjoint", back)) if one > rounding]


@pytest.mark.parametrize("file", FORWARD, ids=walk.short)
def test_a_forward_model_agrees_with_the_cpu(file: ModuleType) -> None:
    """float64, sums of at most a few thousand terms in another order, solves to 1e-10 where the model solves."""
    here = file.example()
    assert not disagreement(here, moved(here), 1e-8)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_line_integrals(dtype: torch.dtype, rounding: float) -> None:
    """Sums of at most 200 weights times pixels, and their transpose: rounding is 2e-16 or 1.2e-7 times that."""
    angles = torch.linspace(0.0, 3.1, 40, dtype=dtype)
    here = Radon(Pixels((90, 70), (1.8, 1.4)), angles)
    there = moved(here)
    assert not disagreement(here, there, rounding)
    assert sciml.checks.adjoint(there, tolerance=rounding)
    shifted = moved(Radon(Pixels((90, 70), (1.8, 1.4)), angles + 0.01))
    assert len(disagreement(here, shifted, rounding)) == 2  # the broken twin
    x = random((1, 1, 90, 70), dtype, 2).to(DEVICE)
    assert torch.equal(there(x), there(x))


def posed(prior: Any, weight: float) -> Inverse:
    problem: Inverse = sciml.problem("ct", n=32, views=20, seed=0).with_prior(prior, weight)
    return problem


@pytest.mark.parametrize("solver", [PrimalDual(), ADMM(), ProximalGradient()], ids=lambda one: type(one).__name__)
def test_total_variation_agrees_with_the_cpu(solver: Any) -> None:
    """Both certified: the objectives differ by no more than twice the target of the gap."""
    here = posed(TotalVariation(), 20.0)
    there = here.to(device=DEVICE)
    mine, other = sciml.solve(here, solver), sciml.solve(there, solver)
    assert mine.ok and other.ok and other.value.device.type == DEVICE
    values = [float(here.objective(value.detach().cpu())) for value in (mine.value, other.value)]
    assert abs(values[0] - values[1]) <= 2 * here.targets["optimality"] * min(values)
    heavier = sciml.solve(here.with_weight(40.0), solver).value  # the twin: another problem is seen
    assert abs(float(here.objective(heavier)) - values[0]) > 2 * here.targets["optimality"] * values[0]


def test_a_learned_proximal_map_agrees_with_the_cpu() -> None:
    """float32 through a network of a dozen layers: 1e-4 of the largest value; at another strength the map is another."""
    prior = sciml.pretrained("lpn-ellipses")
    image = 0.3 * random((2, 1, 48, 40), torch.float32, 3).abs()
    step = torch.full((2,), float(prior.only_step))
    with torch.no_grad():
        here = prior.prox(image, step)
        there = moved(prior).prox(image.to(DEVICE), step.to(DEVICE))
    assert gap(there, here) < 1e-4
    assert gap(there, image) > 1e-2  # the map does something


def test_a_learned_reconstruction_agrees_with_the_cpu() -> None:
    """Both are fixed points to the target, on images of size one."""
    here = sciml.problem("ct", n=32, views=20, seed=0, dtype="float32").with_prior(
        sciml.pretrained("lpn-ellipses"), 30.0
    )
    solver = ProximalGradient(max_steps=300)
    values = [sciml.solve(problem, solver).value.detach().cpu() for problem in (here, here.to(device=DEVICE))]
    assert float((values[0] - values[1]).norm() / values[0].norm()) < 0.02
