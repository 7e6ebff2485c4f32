"""Newton's method: how fast, for what tangents, how it says that there is no solution, and derivatives through it."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core import Code, Equation, Law, Linear, SolveError
from sciml.core.matrix import Matrix
from sciml.discretise import Diffusion, laplacian
from sciml.domains import Dirichlet, Grid, InputError, Neumann, Space
from sciml.solvers import GMRES, ConjugateGradient, Direct, DirectTransform, Multigrid, Nearby, Newton
from sciml.solvers.gmres import cycle

WALLS = Dirichlet(0.0)


def law(u: Tensor, *, lam: Tensor, space: Space) -> Tensor:
    return -laplacian(u, space) - lam * u.exp()


def bratu(lam: Any = 1.0, *, symmetric: bool = True, sides: Any = WALLS, n: tuple[int, ...] = (9, 14)) -> Equation:
    rate = torch.as_tensor(lam, dtype=torch.float64)
    return Equation("bratu", Law(law, lam=rate), Grid(n, (1.0, 2.0)[: len(n)], sides).space(), symmetric=symmetric)


def plain(u: Tensor) -> Tensor:
    return torch.atan(u)


def test_quadratic_convergence() -> None:
    """With exact inner solves the residual squares: `|F_(k+1)| <= C |F_k|^2`; a chord (frozen tangent) only reduces it."""
    problem = bratu(3.0, n=(31,)).with_target(discrete=1e-15)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 1e-15 is below rounding
        history = sciml.solve(problem, Newton(Direct())).history[:, 0]
    useful = history[history > 1e-13]
    rates = [
        math.log(float(c / b)) / math.log(float(b / a)) for a, b, c in zip(useful, useful[1:], useful[2:], strict=False)
    ]
    assert len(rates) >= 1
    assert max(rates) > 1.8
    u = torch.zeros(1, 1, 31, dtype=torch.float64)
    chord = [float(problem.residual(u).norm())]
    tangent = Linear("chord", problem.tangent(u), -problem.residual(u))
    for _ in range(4):
        u = u + sciml.solve(tangent.replace(source=-problem.residual(u)), Direct()).value
        chord.append(float(problem.residual(u).norm()))
    slow = [math.log(c / b) / math.log(b / a) for a, b, c in zip(chord, chord[1:], chord[2:], strict=False)]
    assert max(slow) < 1.5


def test_forcing_keeps_the_number_of_outer_steps() -> None:
    """Inexact inner solves take at most two steps more than exact ones, to the same accuracy."""
    exact, loose = sciml.solve(bratu(3.0), Newton(Direct())), sciml.solve(bratu(3.0), Newton())
    assert exact.ok and loose.ok
    assert loose.stats["steps"] <= exact.stats["steps"] + 2
    torch.testing.assert_close(exact.value, loose.value, rtol=0, atol=1e-8)


@pytest.mark.parametrize("solver", [Newton(), Newton(Direct()), Newton(GMRES())], ids=str)
def test_a_tangent_that_is_not_symmetric(solver: Newton) -> None:
    """Half cells at Neumann sides make the tangent of the strong form unsymmetric."""
    problem = bratu(0.4, symmetric=False, sides={"x": (Neumann(0.1), Dirichlet(0.0)), "y": Dirichlet(0.0)})
    solution = sciml.solve(problem, solver)
    assert solution.ok
    again = sciml.solve(problem, Newton(Direct())).value
    torch.testing.assert_close(solution.value, again, rtol=0, atol=1e-9)


def test_a_symmetric_claim_is_not_needed() -> None:
    one, two = (sciml.solve(bratu(2.0, symmetric=s), Newton()) for s in (True, False))
    torch.testing.assert_close(one.value, two.value, rtol=0, atol=1e-9)


def test_an_indefinite_tangent() -> None:
    """On the upper branch the symmetric tangent has a negative eigenvalue: GMRES takes over from CG."""
    problem = bratu(2.0, n=(31,))
    (x,) = problem.space.domain.points()
    lower = sciml.solve(problem, Newton())
    upper = sciml.solve(problem, Newton(), start=(3.5 * torch.sin(math.pi * x))[None, None])
    assert upper.ok
    assert float(upper.value.max()) > 2 * float(lower.value.max())
    tangent = problem.tangent(upper.value).dense()[0]
    assert float(torch.linalg.eigvalsh(tangent)[0]) < 0


def test_line_search() -> None:
    """`atan(u) = 0` from 3: the full step diverges, the search does not."""
    space = Space(None, (1, 2))
    problem = Equation("atan", Law(plain), space, symmetric=True)
    start = torch.tensor([[[3.0, -2.0]]], dtype=torch.float64)
    assert sciml.solve(problem, Newton(), start=start).ok
    u = start
    for _ in range(5):
        u = u - torch.atan(u) * (1 + u * u)
    assert float(u.abs().max()) > 1e3


def test_no_solution() -> None:
    """Beyond the fold the line search ends; other members are not held up."""
    problem = bratu([1.0, 9.0, 2.0], n=(15, 15))
    with pytest.warns(UserWarning, match="no step along Newton's direction"):
        solution = sciml.solve(problem, Newton())
    assert solution.codes[0] == solution.codes[2] == Code.CONVERGED
    assert solution.codes[1] in (Code.STAGNATED, Code.BUDGET)


def test_members_are_independent() -> None:
    together = sciml.solve(bratu([0.5, 3.0]), Newton()).value
    for i, lam in enumerate((0.5, 3.0)):
        alone = sciml.solve(bratu(lam), Newton()).value
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-9)


def test_linear_problems_and_refusals() -> None:
    matrix = torch.tensor([[3.0, 1.0], [-1.0, 2.0]], dtype=torch.float64)
    linear = Linear("two", Matrix(matrix), torch.tensor([[[1.0, 2.0]]], dtype=torch.float64))
    value = sciml.solve(linear, Newton()).value
    torch.testing.assert_close(value.flatten(), torch.linalg.solve(matrix, torch.tensor([1.0, 2.0]).double()))
    wave = Equation("wave", Law(plain), Space(None, (1, 2), complex=True))
    assert "two real channels" in str(Newton().accepts(wave))
    with pytest.raises(InputError, match="not symmetric"):
        sciml.solve(bratu(symmetric=False), Newton(ConjugateGradient()))
    assert Newton(DirectTransform()).accepts(bratu()) is None
    with pytest.raises(InputError, match="tangent problem"):
        sciml.solve(bratu(), Newton(DirectTransform()))


def test_a_problem_nearby_preconditions() -> None:
    """Multigrid for the Laplacian: less than a third of the inner steps, the same answer, symmetric tangent or not."""
    sides = {"x": (Neumann(0.1), Dirichlet(0.0)), "y": Dirichlet(0.0)}
    for problem in (bratu(0.4, n=(31, 47)), bratu(0.4, n=(31, 47), symmetric=False, sides=sides)):
        grid = problem.space.domain
        nearby = Linear("conduction", Diffusion(grid), problem.space.zeros())
        plain, helped = (
            sciml.solve(problem, Newton()),
            sciml.solve(problem, Newton(preconditioner=Nearby(Multigrid(), nearby))),
        )
        assert helped.ok
        assert helped.stats["inner_steps"] < 0.33 * plain.stats["inner_steps"]
        torch.testing.assert_close(plain.value, helped.value, rtol=0, atol=1e-8)
    with pytest.raises(InputError, match="nearby problem lives on"):
        sciml.solve(bratu(), Newton(preconditioner=Nearby(Multigrid(), nearby)))
    with pytest.raises(InputError, match="not both"):
        Newton(Direct(), Nearby(Multigrid(), nearby))


@pytest.mark.parametrize("symmetric", [True, False])
def test_derivatives(symmetric: bool) -> None:
    """First and second, by the transposed tangent; a law whose symmetry is claimed wrongly is caught."""
    lam = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    problem = bratu(1.0, symmetric=symmetric, n=(3, 4)).with_target(discrete=1e-14)

    def loss(lam: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = sciml.solve(problem.replace(lam=lam), Newton()).value
        return value.square().sum() + value.sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.autograd.gradcheck(loss, (lam,))
        assert torch.autograd.gradgradcheck(loss, (lam,))


def test_a_wrong_claim_of_symmetry_is_caught_by_the_gradient() -> None:
    sides = {"x": (Neumann(0.1), Dirichlet(0.0)), "y": Dirichlet(0.0)}
    lam = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def loss(lam: Tensor, symmetric: bool) -> Tensor:
        problem = bratu(1.0, symmetric=symmetric, sides=sides, n=(3, 4)).replace(lam=lam).with_target(discrete=1e-12)
        value = sciml.solve(problem, Newton(), gradient=sciml.Implicit(GMRES())).value
        return (value * torch.arange(12.0, dtype=torch.float64).reshape(3, 4)).sum()

    assert torch.autograd.gradcheck(lambda t: loss(t, False), (lam,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            caught = not torch.autograd.gradcheck(lambda t: loss(t, True), (lam,), raise_exception=False)
        except SolveError:
            caught = True
    assert caught


def test_gmres_cycle_is_the_least_squares_solution() -> None:
    """Against a dense minimisation over the Krylov space; complex numbers; an exhausted space."""
    generator = torch.Generator().manual_seed(0)
    for kind in (torch.float64, torch.complex128):
        entries = torch.randn(7, 7, dtype=kind, generator=generator) + 3 * torch.eye(7, dtype=kind)
        r = torch.randn(2, 1, 7, dtype=kind, generator=generator)
        change, left, taken = cycle(Matrix(entries), r, 4)
        assert taken == 4
        for b in range(2):
            columns = [r[b, 0]]
            for _ in range(3):
                columns.append(entries @ columns[-1])
            space = torch.linalg.qr(torch.stack(columns, 1))[0]
            best = torch.linalg.lstsq(entries @ space, r[b, 0][:, None]).solution
            expected = r[b, 0] - (entries @ space @ best)[:, 0]
            torch.testing.assert_close(r[b, 0] - entries @ change[b, 0], expected, rtol=0, atol=1e-11)
            torch.testing.assert_close(left[b], torch.linalg.vector_norm(expected), rtol=1e-9, atol=0)
        full, _, _ = cycle(Matrix(entries), r, 20)
        torch.testing.assert_close(torch.einsum("ij,bcj->bci", entries, full), r, rtol=0, atol=1e-10)
        once, _, _ = cycle(Matrix(torch.eye(7, dtype=kind) * 2), r, 5)
        torch.testing.assert_close(once, r / 2)
