"""No false CONVERGED: hundreds of hostile problems, each verdict recomputed densely in float64 with numpy alone."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch

import sciml
from sciml import Code, Dirichlet, Grid, InputError, Linear, Neumann, Periodic, SolveError
from sciml.core import Matrix
from sciml.discretise import Diffusion
from sciml.solvers import ConjugateGradient, Direct, ExponentialRungeKutta, Multigrid, Newton


def dense_backward_error(problem: Linear, value: torch.Tensor, member: int) -> float:
    """``|b - Au| / (|A|_2 |u| + |b|)`` from the dense matrix, in float64, with numpy's SVD norm."""
    one = problem.member(member).to(torch.float64)
    a, b = one.operator.dense()[0].numpy(), one.rhs.numpy().reshape(-1)
    u = value[member].detach().double().numpy().reshape(-1)
    if not np.isfinite(u).all() or not np.isfinite(a).all():
        return float("inf")
    bottom = np.linalg.norm(a, 2) * np.linalg.norm(u) + np.linalg.norm(b)
    top = np.linalg.norm(b - a @ u)
    return 0.0 if top == 0 else float(top / bottom)


def hostile(seed: int) -> Linear:
    """A random problem of one of ten kinds, most of them not meant to be solved."""
    rng = np.random.default_rng(seed)
    n, kind = int(rng.integers(2, 24)), seed % 10
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    spectrum = 10.0 ** rng.uniform(-3, 3, n)
    b = rng.standard_normal((1, 1, n)) * 10.0 ** rng.uniform(-8, 8)
    if kind == 0:  # singular, consistent by chance of the projection
        spectrum[0] = 0.0
        a = (q * spectrum) @ q.T
        b = (a @ rng.standard_normal(n)).reshape(1, 1, n)
    elif kind == 1:  # singular, inconsistent
        spectrum[: max(1, n // 3)] = 0.0
        a = (q * spectrum) @ q.T
    elif kind == 2:  # indefinite
        a = (q * (spectrum * rng.choice([-1.0, 1.0], n))) @ q.T
    elif kind == 3:  # terribly scaled
        scale = 10.0 ** rng.uniform(-12, 12, n)
        a = (q * spectrum) @ q.T * np.outer(scale, scale)
    elif kind == 4:  # not symmetric
        a = rng.standard_normal((n, n))
    elif kind == 5:  # zero matrix
        a = np.zeros((n, n))
    elif kind == 6:  # zero right-hand side
        a, b = (q * spectrum) @ q.T, np.zeros((1, 1, n))
    elif kind == 7:  # condition 1e16
        a = (q * np.logspace(-16, 0, n)) @ q.T
    elif kind == 8:  # skew
        a = rng.standard_normal((n, n))
        a = a - a.T
    else:  # a grid with a random, sometimes indefinite, reaction
        sides = [Dirichlet(0.0), Neumann(0.0), Periodic()][int(rng.integers(3))]
        grid = Grid((int(rng.integers(3, 9)), int(rng.integers(3, 9))), (1.0, 2.0), sides)
        k = torch.as_tensor(10.0 ** rng.uniform(-4, 4, grid.shape))
        return Linear(
            f"hostile {seed}",
            Diffusion(grid, k, torch.as_tensor(rng.uniform(-50, 5))),
            torch.as_tensor(rng.standard_normal(grid.shape)),
        )
    if kind != 4 and kind != 8:
        a = (a + a.T) / 2
    return Linear(f"hostile {seed}", Matrix(torch.as_tensor(a)), torch.as_tensor(b))


SOLVERS = [ConjugateGradient(max_steps=200), ConjugateGradient(max_steps=2), Direct(), Multigrid(), Newton(max_steps=5)]


@pytest.mark.parametrize("start", range(0, 240, 40))
def test_no_false_certificate(start: int) -> None:
    tried = certified = 0
    for seed in range(start, start + 40):
        problem = hostile(seed)
        if seed % 3 == 0:
            problem = problem.to(torch.float32)
        for solver in SOLVERS:
            if solver.accepts(problem) is not None:
                continue
            if isinstance(solver, Newton) and seed % 7:
                continue  # its inner iterations are costly on singular matrices, and each kind still comes up
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    solution = sciml.solve(problem, solver)
                except SolveError as error:
                    solution = error.solution
                    assert not solution.ok
                except InputError:
                    continue
            tried += 1
            if solution.code is Code.CONVERGED:
                certified += 1
                error_ = dense_backward_error(problem, solution.value, 0)
                assert error_ <= problem.targets["discrete"] * (1 + 1e-6), (seed, solver, error_)
    assert tried >= 50
    assert certified >= 10  # otherwise the test would say nothing


def test_a_lying_solver_is_caught() -> None:
    """The negative control: a solver that claims success with a wrong value is not believed."""

    class Liar(ConjugateGradient):
        def run(self, problem, start, context):  # type: ignore[no-untyped-def]
            answer = super().run(problem, start, context)
            return type(answer)(answer.value * 1.001, torch.ones_like(answer.claim), steps=answer.steps)

    problem = Linear("honest", Diffusion(Grid((9, 7))), torch.ones(9, 7, dtype=torch.float64))
    with pytest.warns(UserWarning, match="UNCERTIFIED"):
        solution = sciml.solve(problem, Liar())
    assert solution.code is Code.UNCERTIFIED
    assert dense_backward_error(problem, solution.value, 0) > problem.targets["discrete"]


def test_one_bad_member_does_not_spoil_the_others() -> None:
    grid = Grid((9, 14), (1.0, 2.0))
    reaction = torch.tensor([0.0, -40.0, 3.0], dtype=torch.float64)
    source = torch.ones(3, 1, 9, 14, dtype=torch.float64)
    problem = Linear("three", Diffusion(grid, 1.0, reaction), source)
    with pytest.warns(UserWarning, match="1 of 3 members"):
        solution = sciml.solve(problem, ConjugateGradient())
    assert [Code(int(c)).name for c in solution.codes] == ["CONVERGED", "BREAKDOWN", "CONVERGED"]
    for i in (0, 2):
        single = sciml.solve(problem.member(i), ConjugateGradient())
        assert torch.allclose(single.value[0], solution.value[i], rtol=1e-12, atol=1e-14)


def test_all_members_broken_raise_with_the_list_of_solvers() -> None:
    grid = Grid((9, 14), (1.0, 2.0))
    problem = Linear("shifted plate", Diffusion(grid, 1.0, -40.0), torch.ones(9, 14, dtype=torch.float64))
    with pytest.raises(SolveError, match=r"indefinite \(p\.Ap = -.*\n.*Direct.*Newton") as caught:
        sciml.solve(problem, ConjugateGradient())
    assert caught.value.solution.code is Code.BREAKDOWN
    assert "ConjugateGradient," not in str(caught.value).split("accept it")[1]


def test_good_steps_do_not_certify_another_answer() -> None:
    """An integrator that keeps honest steps but hands over a changed state, or begins elsewhere, is not believed."""
    burgers = sciml.problem("burgers", n=32, viscosity=0.05, times=[0.0, 0.1, 0.2])
    assert sciml.solve(burgers).ok

    class Changed(ExponentialRungeKutta):
        def run(self, problem, start, context):  # type: ignore[no-untyped-def]
            answer = super().run(problem, start, context)
            value = answer.value.clone()
            value[:, -1] *= 1.01
            return dataclasses.replace(answer, value=value)

    class Elsewhere(ExponentialRungeKutta):
        def run(self, problem, start, context):  # type: ignore[no-untyped-def]
            return super().run(problem.replace(start=problem.start * 1.01), start, context)

    class Unkept(Changed):
        def run(self, problem, start, context):  # type: ignore[no-untyped-def]
            return dataclasses.replace(super().run(problem, start, context), segments=(), step_count=0)

    for liar in (Changed(), Elsewhere(), Unkept()):
        with pytest.warns(UserWarning, match="UNCERTIFIED"):
            solution = sciml.solve(burgers, liar)
        assert float(solution.check("steps").value.min()) > 1e-3
