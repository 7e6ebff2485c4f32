"""Ways in which a solve could quietly be wrong, each found once and kept out since."""

from __future__ import annotations

import dataclasses
import functools
import pickle

import pytest
import torch

import sciml
from sciml import Code, Dirichlet, Equation, Grid, InputError, Law, Linear, Neumann, Robin, checks
from sciml.core import Context, LinearOperator, Matrix
from sciml.discretise import Diffusion, laplacian
from sciml.solvers import Chained, ConjugateGradient, Direct, ExponentialRungeKutta, Multigrid, Newton

GRID = Grid((9, 14), (1.0, 2.0))
ONES = torch.ones(1, 1, 9, 14, dtype=torch.float64)


def test_a_coefficient_changed_in_place_is_seen() -> None:
    k = ONES.clone()
    problem = Linear("in place", Diffusion(GRID, k), ONES)
    before = sciml.solve(problem, ConjugateGradient()).value
    prepared = ConjugateGradient().prepare(problem)
    k.mul_(10)
    after = sciml.solve(problem, ConjugateGradient()).value
    assert torch.allclose(after, before / 10, rtol=1e-8)
    with pytest.raises(InputError, match="another operator"):
        sciml.solve(problem, prepared)


def test_optimisers_that_step_in_place_descend() -> None:
    k = ONES.clone().requires_grad_()
    problem = Linear("descent", Diffusion(GRID, k), ONES)
    optimiser, losses = torch.optim.SGD([k], lr=10.0), []
    for _ in range(3):
        loss = sciml.solve(problem, ConjugateGradient()).value.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


def test_every_watched_time_is_tied_to_judged_steps() -> None:
    burgers = sciml.problem("burgers", n=32, viscosity=0.1, times=(0.25, 0.5, 0.75, 1.0))
    answer = ExponentialRungeKutta(step=1e-3).run(burgers, None, Context())
    assert bool(burgers.certify(answer)[0].passed.all())
    for i in range(4):
        value = answer.value.clone()
        value[:, i] *= 1.01
        assert not bool(burgers.certify(dataclasses.replace(answer, value=value))[0].passed.any())
        assert not bool(burgers.certify(value)[0].passed.any())


def test_hidden_null_spaces_are_found() -> None:
    insulated = Linear("robin of rate zero", Diffusion(Grid((9, 14), (1.0, 2.0), Robin(0.0, 0.0))), ONES)
    with pytest.raises(InputError, match="incompatible"):
        sciml.solve(insulated, ConjugateGradient())
    reaction = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    mixed = Linear("one of two", Diffusion(Grid((9, 14), (1.0, 2.0), Neumann(0.0)), 1.0, reaction), ONES)
    with pytest.raises(InputError, match="solve the singular members apart"):
        sciml.solve(mixed, ConjugateGradient())


def test_tiny_data_do_not_underflow_into_a_certificate() -> None:
    problem = Linear("tiny", Diffusion(GRID), ONES * 1e-170)
    assert float(problem.certify(torch.zeros_like(ONES))[0].value) == 1.0
    assert float(problem.certify(sciml.solve(problem, Direct()).value)[0].value) < 1e-15


def test_a_huge_law_at_zero_does_not_flatter() -> None:
    pole = Equation("pole", Law(lambda u: 1 / (u + 1e-12)), Grid((5,)).space())
    assert not bool(pole.certify(torch.ones(1, 1, 5, dtype=torch.float64))[0].passed.any())


def test_a_law_may_have_a_tensor_called_source() -> None:
    f = torch.ones(5, 4, dtype=torch.float64, requires_grad=True)  # the grid's shape: one field, no batch
    space = Grid((5, 4)).space()
    cubic = Equation("cubic", Law(lambda u, *, source, space: -laplacian(u, space) + u**3 - source, source=f), space)
    assert cubic.batch == 1
    solution = sciml.solve(cubic, Newton())
    solution.value.sum().backward()
    assert solution.value.shape == (1, 1, 5, 4) and float(f.grad.abs().min()) > 0
    twice = Linear("sum", Diffusion(GRID, ONES) + Diffusion(GRID, 2 * ONES), ONES)
    once = Linear("thrice", Diffusion(GRID, 3 * ONES), ONES)
    assert torch.allclose(sciml.solve(twice, ConjugateGradient()).value, sciml.solve(once, ConjugateGradient()).value)
    assert set(twice.parameters()) == {"coefficient", "operator_right_coefficient", "source"}


def test_prepared_solvers_compare_numbers_and_serve_gradients() -> None:
    plain = Linear("plain", Diffusion(GRID, 1.0), ONES)
    with pytest.raises(InputError, match="another operator"):
        sciml.solve(Linear("other", Diffusion(GRID, 1.0, 1e5), ONES), ConjugateGradient().prepare(plain))
    sides = {"x": Dirichlet(torch.ones(14, dtype=torch.float64))}
    source = ONES.clone().requires_grad_()
    problem = Linear("sides", Diffusion(Grid((9, 14), (1.0, 2.0), sides)), source)
    sciml.solve(problem, ConjugateGradient().prepare(problem)).value.sum().backward()
    assert float(source.grad.min()) > 0


def test_refine_follows_members_and_targets() -> None:
    three = sciml.problem("poisson", n=15, batch=3)
    alone = sciml.refine(three.member(1).with_target(discrete=1e-9))
    assert alone.error.shape == (1,)
    assert torch.allclose(alone.error[0], sciml.refine(three).error[1], rtol=1e-3)


def test_checks_do_not_hold_for_numbers_that_are_none() -> None:
    class Broken(Matrix):
        def __call__(self, u: torch.Tensor) -> torch.Tensor:
            return super().__call__(u) * float("nan")

    operator: LinearOperator = Broken(torch.eye(3, dtype=torch.float64))
    assert not checks.adjoint(operator)


@pytest.mark.parametrize(
    "hide",
    [
        lambda nu: Law(lambda u, nu=nu: nu * u),
        lambda nu: Law(functools.partial(lambda u, nu: nu * u, nu=nu)),
        lambda nu: (lambda box: Law(lambda u: box[0] * u))([nu]),
    ],
    ids=["default", "partial", "list"],
)
def test_tensors_are_found_where_they_hide(hide) -> None:
    with pytest.raises(InputError, match="hides the tensor"):
        hide(torch.tensor(2.0))


SPACE = Grid((5, 4)).space()
REFUSED = {
    "coefficient nan": (lambda: sciml.solve(Linear("a", Diffusion(GRID, float("nan")), ONES), Direct()), "finite number"),
    "side nan": (lambda: sciml.solve(Linear("a", Diffusion(Grid((9, 14), sides=Dirichlet(float("nan")))), ONES), Direct()), "side x_lower"),
    "extent nan": (lambda: sciml.problem("poisson", extent=float("nan")), "positive and finite"),
    "times nan": (lambda: sciml.problem("burgers", n=16, times=(float("nan"),)), "finite"),
    "n float": (lambda: sciml.problem("poisson", n=2.5), "n=2.5|n is 2.5"),
    "n of another dim": (lambda: sciml.problem("poisson", dim=2, n=(3, 3, 3)), "give an integer, or 2 of them"),
    "start of another batch": (lambda: sciml.solve(Linear("a", Diffusion(GRID), ONES), Direct(), start=torch.zeros(3, 1, 9, 14)), "3 members"),
    "complex source": (lambda: sciml.solve(Linear("a", Diffusion(GRID), ONES * 1j), Direct()), "complex"),
    "complex answer": (lambda: Linear("a", Diffusion(GRID), ONES).certify(ONES * 1j), "complex"),
    "no preconditioner": (lambda: sciml.solve(Linear("a", Diffusion(GRID), ONES), ConjugateGradient(preconditioner=Direct())), "no preconditioner"),  # type: ignore[arg-type]
    "class, nested": (lambda: sciml.solve(Linear("a", Diffusion(GRID), ONES), ConjugateGradient(preconditioner=Multigrid)), "no preconditioner"),  # type: ignore[arg-type]
    "class in a chain": (lambda: Chained(Direct, ConjugateGradient()), "two solvers"),  # type: ignore[arg-type]
    "law without its name": (lambda: sciml.solve(Equation("a", Law(lambda u: u, lam=torch.tensor(1.0).double()), SPACE), Newton()), "unexpected keyword"),
    "law of another shape": (lambda: sciml.solve(Equation("a", Law(lambda u: u[..., :2]), SPACE), Newton()), "must agree"),
    "law without derivative": (lambda: sciml.solve(Equation("a", Law(lambda u: u.detach() - 1), SPACE), Newton()), "no derivative"),
    "law tensor of another shape": (lambda: Equation("a", Law(lambda u, *, f: u - f, f=torch.ones(3, 4)), SPACE), "grid's shape"),
    "grid for space": (lambda: Equation("a", Law(lambda u: u), Grid((5, 4))), r"grid.space\(\)"),  # type: ignore[arg-type]
    "device": (lambda: Linear("a", Diffusion(GRID), ONES).to(device="cuda:63"), "cannot be used here"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_pickling_keeps_what_was_changed_behind_the_recipe() -> None:
    darcy = sciml.problem("darcy", n=7)
    changed = dataclasses.replace(darcy, source=2 * darcy.source)
    back = pickle.loads(pickle.dumps(changed))
    assert torch.equal(back.source, changed.source)
    assert float(darcy.replace(source=2.0).source.min()) == 2.0
    assert sciml.solve(back).code is Code.CONVERGED
