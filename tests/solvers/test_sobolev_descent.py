"""Descent in H1: the same answers as Newton's method, steps that do not grow with the grid, and refusals."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch

import sciml
from sciml.core import Equation, Law, Linear, SolveError
from sciml.discretise import Diffusion
from sciml.domains import Grid, InputError, Robin
from sciml.solvers import Multigrid, Nearby, PolakRibiere, SobolevDescent, Steepest


def solved(problem: Any, solver: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return sciml.solve(problem, solver)
        except SolveError as error:
            return error.solution


@dataclasses.dataclass(frozen=True)
class Flat:
    """The broken twin: the gradient in L2, which sees no Laplacian."""

    def accepts(self, problem: Any) -> str | None:
        return None

    def preconditioner(self, problem: Any) -> Any:
        return lambda r: r * 0.01


def test_the_answer_is_that_of_newtons_method() -> None:
    for name, settings in (
        ("minimal_surface", {}),
        ("p_laplace", {"p": 1.5}),
        ("p_laplace", {"p": 4.0, "source": 1.0}),
        ("bratu", {"lam": 5.0}),
    ):
        problem = sciml.problem(name, n=9, **settings).with_target(discrete=1e-12)
        one, two = sciml.solve(problem, SobolevDescent()), sciml.solve(problem)
        assert one.ok
        assert float((one.value - two.value).abs().max()) < 1e-8 * float(two.value.abs().max())


@pytest.mark.parametrize("direction", [PolakRibiere(), Steepest()])
def test_the_steps_do_not_grow_with_the_grid(direction: Any) -> None:
    coarse, fine = (
        solved(sciml.problem("minimal_surface", n=n), SobolevDescent(direction)).stats["steps"] for n in (7, 15)
    )
    assert fine < 1.5 * coarse


def test_in_l2_they_do() -> None:
    coarse, fine = (
        solved(sciml.problem("minimal_surface", n=n), SobolevDescent(Steepest(), Flat())).stats["steps"] for n in (4, 9)
    )
    assert fine > 2 * coarse


def test_conjugate_directions_need_fewer_steps() -> None:
    problem = sciml.problem("minimal_surface", n=9)
    assert (
        solved(problem, SobolevDescent()).stats["steps"]
        < 0.8 * solved(problem, SobolevDescent(Steepest())).stats["steps"]
    )


def test_every_step_lowers_the_energy() -> None:
    """The bracket from falling to rising holds a minimum: the area over the corners falls at every step."""
    from sciml.discretise import corner_energy

    problem = sciml.problem("minimal_surface", n=9, steepness=2.8)
    solver = SobolevDescent()
    setup = solver.setup(problem)
    state = solver.init(problem, setup, torch.zeros(1, 1, 9, 9, dtype=torch.float64))
    areas = []
    with torch.no_grad():
        for _ in range(12):
            areas.append(float(corner_energy(state.u, problem.space, lambda s: (1 + s).sqrt())))
            state = solver.step(problem, setup, state)
    assert all(b < a for a, b in zip(areas, areas[1:], strict=False))


def test_members_do_not_see_each_other() -> None:
    batch = sciml.problem("p_laplace", n=7, batch=3, seed=1)
    together = sciml.solve(batch, SobolevDescent()).value
    for i in range(3):
        assert torch.equal(sciml.solve(batch.member(i), SobolevDescent()).value, together[i : i + 1])


def test_another_inner_product_and_a_robin_side() -> None:
    grid = Grid((7, 8), sides={"x": Robin(2.0, 0.0)})
    posed = sciml.problem("p_laplace", n=7, p=2.5)
    zero = torch.zeros(1, *posed.space.shape, dtype=torch.float64)
    nearby = Nearby(Multigrid(), Linear("membrane", Diffusion(posed.space.grid.homogeneous(), 1.0), zero))
    assert sciml.solve(posed, SobolevDescent(preconditioner=nearby)).ok
    robin = Equation("robin", Law(lambda u: u), grid.space(), symmetric=True)
    assert "Robin" in str(SobolevDescent().accepts(robin))


def test_beyond_the_fold_it_says_so() -> None:
    """Bratu's energy has no minimum there."""
    problem = sciml.problem("bratu", n=7, lam=6.0).replace(lam=torch.tensor(9.0, dtype=torch.float64))
    assert not solved(problem, SobolevDescent(max_steps=60)).ok


def test_refusals() -> None:
    plain = sciml.problem("bratu", n=7)
    assert SobolevDescent().accepts(plain) is None
    assert "gradient of an energy" in str(SobolevDescent().accepts(dataclasses.replace(plain, symmetric=False)))
    for problem, sentence in (
        (sciml.problem("poisson", n=7), "ConjugateGradient"),
        (sciml.problem("heat", n=7), "Equation"),
    ):
        with pytest.raises(InputError, match=sentence):
            sciml.solve(problem, SobolevDescent())
    with pytest.raises(InputError, match="max_steps"):
        SobolevDescent(max_steps=-1)
