"""Gradients through a solve: Taylor slope 2, second derivatives, agreement of the ways, failed members."""

from __future__ import annotations

import pytest
import torch

import sciml
from sciml import Checkpoint, Detach, Dirichlet, Grid, Implicit, Linear, Neumann, Unroll
from sciml.checks import fitted_slope
from sciml.discretise import Diffusion
from sciml.solvers import ConjugateGradient, Direct


def problem(batch: int = 1) -> Linear:
    sides = {"x": Dirichlet(0.3), "y": (Neumann(0.1), Dirichlet(torch.rand(5, dtype=torch.float64)))}
    grid = Grid((5, 4), (1.0, 0.7), sides)
    return Linear(
        "small",
        Diffusion(grid, 1 + torch.rand(batch, 1, 5, 4, dtype=torch.float64)),
        torch.rand(5, 4, dtype=torch.float64),
    ).with_target(discrete=1e-14)


@pytest.mark.parametrize("name", ["coefficient", "source", "y_upper"])
def test_taylor_slope_and_a_broken_twin(name: str) -> None:
    base = problem()
    at = base.parameters()[name].clone().requires_grad_()
    direction = torch.rand_like(at)
    weight = torch.rand(1, 1, 5, 4, dtype=torch.float64)

    def value(p: torch.Tensor) -> torch.Tensor:
        return (sciml.solve(base.replace(**{name: p}), Direct()).value.square() * weight).sum()

    (gradient,) = torch.autograd.grad(value(at), at)
    steps = [2.0**-k for k in range(3, 11)]
    with torch.no_grad():
        right = [abs(float(value(at + h * direction) - value(at) - h * (gradient * direction).sum())) for h in steps]
        wrong = [
            abs(float(value(at + h * direction) - value(at) - 1.01 * h * (gradient * direction).sum())) for h in steps
        ]
    assert abs(fitted_slope(steps, right) - 2.0) <= 0.1
    assert abs(fitted_slope(steps, wrong) - 2.0) > 0.1


def test_second_derivatives() -> None:
    base = problem()
    names = ("coefficient", "source", "y_upper")
    inputs = tuple(base.parameters()[n].clone().requires_grad_() for n in names)

    def value(*p: torch.Tensor) -> torch.Tensor:
        return sciml.solve(base.replace(**dict(zip(names, p, strict=True))), Direct()).value

    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)


def test_the_ways_agree_and_the_backward_solves_are_on_record() -> None:
    base = problem(batch=2)
    found = []
    for way in (Implicit(), Implicit(Direct()), Unroll(), Checkpoint(1)):
        k = base.parameters()["coefficient"].clone().requires_grad_()
        solution = sciml.solve(base.replace(coefficient=k), ConjugateGradient(), gradient=way)
        solution.value.square().sum().backward()
        found.append(k.grad)
        assert (len(solution.backward) == 1 and solution.backward[0].ok) or isinstance(way, Unroll | Checkpoint)
    assert torch.allclose(found[0], found[1], rtol=1e-9, atol=1e-13)
    assert torch.allclose(found[0], found[2], rtol=1e-7, atol=1e-12)
    assert torch.equal(found[2], found[3])
    k = base.parameters()["coefficient"].clone().requires_grad_()
    assert not sciml.solve(base.replace(coefficient=k), ConjugateGradient(), gradient=Detach()).value.requires_grad


def test_a_gradient_at_an_uncertified_answer_warns() -> None:
    base = problem()
    k = base.parameters()["coefficient"].clone().requires_grad_()
    with pytest.warns(UserWarning, match="not certified"):
        sciml.solve(base.replace(coefficient=k), ConjugateGradient(max_steps=2))


def test_failed_members_contribute_zero() -> None:
    grid = Grid((9, 14), (1.0, 2.0))
    reaction = torch.tensor([0.0, -40.0], dtype=torch.float64)
    source = torch.ones(2, 1, 9, 14, dtype=torch.float64, requires_grad=True)
    both = Linear("two", Diffusion(grid, 1.0, reaction), source)
    with pytest.warns(UserWarning):
        solution = sciml.solve(both, ConjugateGradient())
        solution.value.sum().backward()
    assert torch.isfinite(source.grad).all()
    assert float(source.grad[1].abs().max()) == 0.0
    assert float(source.grad[0].abs().max()) > 0.0
