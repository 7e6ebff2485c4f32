"""Derivatives of first and second order through elliptic solves: coefficient, source, side values and Robin rate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core import Linear
from sciml.discretise import Diffusion
from sciml.domains import Dirichlet, Grid, Neumann, Robin
from sciml.solvers import GMRES, ConjugateGradient, Direct, DirectTransform, Multigrid, Newton

SOLVERS = [DirectTransform(), ConjugateGradient(), Direct(), Newton(), GMRES(), ConjugateGradient(Multigrid())]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def data(constant: bool) -> dict[str, Tensor]:
    """Tensors that a small problem depends on; for transforms one coefficient for all nodes and no Robin side."""
    shared = {"source": noise(1, 1, 3, 4), "dirichlet": noise(1, 1, 4, seed=1), "neumann": noise(1, 1, 3, seed=2)}
    if constant:
        return {"coefficient": torch.tensor(1.3, dtype=torch.float64), **shared}
    return {"coefficient": 1 + noise(1, 1, 3, 4, seed=3).abs(), "rate": noise(1, 1, 3, seed=4).abs(), **shared}


def stated(tensors: dict[str, Tensor]) -> Linear:
    upper = Robin(tensors["rate"], 0.3) if "rate" in tensors else Dirichlet(0.3)
    sides = {"x": (Dirichlet(tensors["dirichlet"]), Neumann(0.2)), "y": (Neumann(tensors["neumann"]), upper)}
    grid = Grid((3, 4), (1.0, 2.0), sides)
    operator = Diffusion(grid, tensors["coefficient"], reaction=0.4)
    return Linear("tiny", operator, tensors["source"]).with_target(discrete=1e-14)


def loss_in(which: str, solver: Any) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A loss of the solution as a function of one tensor, and where."""
    tensors = data(constant=isinstance(solver, DirectTransform))

    def loss(tensor: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # at a target of 1e-14 a rounding error may decide the code
            value = sciml.solve(stated({**tensors, which: tensor}), solver).value
        return (value * noise(1, 1, 3, 4, seed=5)).sum() + value.square().sum()

    return loss, tensors[which]


CASES = [
    (solver, which)
    for solver in SOLVERS
    for which in ("coefficient", "source", "dirichlet", "neumann", "rate")
    if which in data(isinstance(solver, DirectTransform))
]


@pytest.mark.parametrize(("solver", "which"), CASES, ids=lambda v: v if isinstance(v, str) else type(v).__name__)
def test_first_and_second_derivatives(solver: Any, which: str) -> None:
    loss, at = loss_in(which, solver)
    at = at.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.autograd.gradcheck(loss, (at,), fast_mode=True)
        assert torch.autograd.gradgradcheck(loss, (at,), fast_mode=True)


def taylor(loss: Callable[[Tensor], Tensor], at: Tensor, factor: float = 1.0) -> float:
    """The slope of `|L(x + h d) - L(x) - h factor L'(x) d|` in `h`."""
    direction = noise(*at.shape, seed=6) * 0.3 if at.ndim else torch.tensor(0.3, dtype=torch.float64)
    at = at.clone().requires_grad_()
    base = loss(at)
    (gradient,) = torch.autograd.grad(base, at)
    rate = factor * (gradient * direction).sum()
    steps = [2.0**-k for k in range(3, 8)]
    left = [float((loss(at.detach() + h * direction) - base - h * rate).abs()) for h in steps]
    return math.log2(left[0] / left[-1]) / (len(steps) - 1)


@pytest.mark.parametrize(("solver", "which"), CASES[::3], ids=lambda v: v if isinstance(v, str) else type(v).__name__)
def test_taylor(solver: Any, which: str) -> None:
    """Slope two, and one for a gradient that is a tenth off."""
    loss, at = loss_in(which, solver)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert abs(taylor(loss, at) - 2) < 0.1
        assert taylor(loss, at, factor=1.1) < 1.5
