"""The catalogue's heat problem: sides, data, gradients, exact solutions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core import Unroll
from sciml.discretise import laplacian
from sciml.domains import Dirichlet, InputError, Neumann, Periodic, Robin
from sciml.training import Translation


def test_a_gradient_through_the_solve() -> None:
    k = torch.tensor(0.3, requires_grad=True)
    problem = sciml.problem("heat", diffusivity=k)
    u = sciml.solve(problem).value
    u.square().mean().backward()
    assert k.grad is not None and k.grad.dtype == torch.float32
    # d/dk of exp(-2 k w^2 t) on every discrete mode, by central differences of the same solve; tolerance: h^2 and float32.
    low, high = (sciml.solve(sciml.problem("heat", diffusivity=0.3 + h)).value.square().mean() for h in (-1e-4, 1e-4))
    assert float(k.grad) == pytest.approx(float(high - low) / 2e-4, rel=1e-4)


@pytest.mark.parametrize("name", ["diffusivity", "start"])
def test_taylor(name: str) -> None:
    problem = sciml.problem("heat", dim=2, n=(9, 14), extent=(1.0, 2.0), times=(0.2,), sides={"x": Dirichlet(1.0)})

    def loss(tensor: Tensor) -> Tensor:
        return sciml.solve(problem.replace(**{name: tensor})).value.pow(4).mean()

    at = problem.parameters()[name].clone().requires_grad_()
    value = loss(at)
    (gradient,) = torch.autograd.grad(value, at)
    direction = torch.ones_like(at) * (0.1 if at.ndim == 0 else 1.0)
    remainders = []
    for h in (1e-1, 5e-2, 2.5e-2):
        with torch.no_grad():
            remainders.append(abs(float(loss(at + h * direction) - value - h * (gradient * direction).sum())))
    assert abs(math.log(remainders[0] / remainders[-1]) / math.log(4) - 2) < 0.1


def test_second_derivatives() -> None:
    problem = sciml.problem("heat", n=5, times=(0.3,))
    k = problem.parameters()["diffusivity"].clone().requires_grad_()

    def last(one: Tensor) -> Tensor:
        return sciml.solve(problem.replace(diffusivity=one), gradient=Unroll()).value

    assert torch.autograd.gradgradcheck(last, (k,))


@pytest.mark.parametrize(
    "sides",
    [
        {"x": (Dirichlet(1.0), Neumann(0.5)), "y": Dirichlet(-0.3)},
        {"x": (Neumann(-0.2), Dirichlet(0.7)), "y": Periodic()},
        {"x": Dirichlet(torch.linspace(0, 1, 14, dtype=torch.float64)), "y": (Neumann(0.0), Dirichlet(0.0))},
    ],
    ids=["numbers", "one axis periodic", "along the side"],
)
def test_side_data_feed_in(sides: Any) -> None:
    """The rate is the Laplacian with those data, and after a long time the Laplacian vanishes."""
    problem = sciml.problem(
        "heat", dim=2, n=(9, 14), extent=(1.0, 2.0), sides=sides, diffusivity=1.0, times=(0.1, 20.0)
    )
    torch.testing.assert_close(
        problem.rate(0.0, problem.start), laplacian(problem.start, problem.space), rtol=1e-9, atol=1e-9
    )
    solution = sciml.solve(problem)
    assert solution.ok
    steady = laplacian(solution.value[:, -1], problem.space)
    assert float(steady.abs().max()) < 1e-9 * float(laplacian(problem.start, problem.space).abs().max())


def test_flux_data_are_fluxes() -> None:
    """A rod with fluxes +q and -q has the steady slope -q / k."""
    problem = sciml.problem("heat", n=33, diffusivity=0.5, sides={"x": (Neumann(0.4), Neumann(-0.4))}, times=(40.0,))
    u = sciml.solve(problem).value[0, 0, 0]
    torch.testing.assert_close(u.diff() * 32, torch.full((32,), -0.8, dtype=torch.float64), rtol=1e-8, atol=1e-8)


def test_members_with_their_own_diffusivity() -> None:
    k = torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64)
    sides = {"x": Dirichlet(1.0)}
    problem = sciml.problem("heat", n=31, batch=3, diffusivity=k, sides=sides, times=(0.3,))
    value = sciml.solve(problem).value
    for i in range(3):
        alone = sciml.solve(problem.member(i)).value
        torch.testing.assert_close(value[i : i + 1], alone, rtol=1e-10, atol=1e-11)
    assert torch.equal(problem.member(1).parameters()["diffusivity"].reshape(()), k[1])
    again = sciml.problem("heat", n=31, batch=3, sides=sides, times=(0.3,)).replace(diffusivity=k)
    torch.testing.assert_close(sciml.solve(again).value, value, rtol=1e-12, atol=1e-12)


def test_heat_is_kept_behind_closed_sides() -> None:
    solution = sciml.solve(sciml.problem("heat", dim=2, n=17, sides=Neumann(0.0)))
    assert float(solution.check("heat drift").value.max()) < 1e-13
    open_ = sciml.solve(sciml.problem("heat", dim=2, n=17))
    assert all("drift" not in check.name for check in open_.checks)


def test_a_replaced_start_has_no_exact_solution() -> None:
    problem = sciml.problem("heat", n=15)
    assert problem.exact is not None and problem.exact.shape == (1, 3, 1, 15)
    assert problem.replace(start=problem.start * 2).exact is None
    assert "exact" not in problem.parameters()


def test_strong_form_and_symmetries() -> None:
    assert sciml.checks.consistent(sciml.problem("heat", n=15), lambda x: torch.sin(torch.pi * x))
    problem = sciml.problem("heat", dim=2, n=(9, 14), sides=Periodic())
    assert all(sciml.checks.symmetry(problem, one) for one in problem.symmetries)
    assert not sciml.checks.symmetry(sciml.problem("heat", n=16), Translation())


def test_refusals() -> None:
    with pytest.raises(InputError, match="diffusivity"):
        sciml.problem("heat", diffusivity=-1.0)
    with pytest.raises(InputError, match="Robin"):
        sciml.problem("heat", sides=Robin(1.0))
    with pytest.raises(InputError, match="n="):
        sciml.problem("heat", dim=3, n=(9, 14))
