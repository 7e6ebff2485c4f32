"""What every problem can do with its tensors: parameters, replace, member, to, targets, pickling, bad input."""

from __future__ import annotations

import pickle

import pytest
import torch

import sciml
from sciml import Dirichlet, Equation, Grid, InputError, Law, Linear, Neumann, Robin
from sciml.core import Answer, Code
from sciml.core.solution import Check, decide
from sciml.core.tree import leaves
from sciml.discretise import Diffusion, laplacian
from sciml.solvers import ConjugateGradient, Direct


def plate(batch: int = 3) -> Linear:
    sides = {
        "x": (Dirichlet(torch.rand(14, dtype=torch.float64)), Neumann(0.5)),
        "y": (Robin(2.0, 1.0), Dirichlet(0.0)),
    }
    grid = Grid((9, 14), (1.0, 2.0), sides)
    k = 1 + torch.rand(batch, 1, 9, 14, dtype=torch.float64)
    return Linear("plate", Diffusion(grid, k), torch.rand(9, 14, dtype=torch.float64))


def test_every_tensor_has_a_name_and_can_be_replaced() -> None:
    problem = plate()
    assert set(problem.parameters()) == {"coefficient", "x_lower", "source"}
    assert problem.batch == 3
    new = problem.replace(x_lower=torch.zeros(14, dtype=torch.float64))
    assert float(new.operator.grid.side("x_lower").value.abs().max()) == 0.0
    assert new.operator.coefficient is problem.operator.coefficient
    assert problem.replace(source=problem.source * 2).operator is problem.operator
    with pytest.raises(InputError, match="no tensor 'colour'; it has"):
        problem.replace(colour=torch.zeros(1))
    with pytest.raises(InputError, match="only the batch axis may differ"):
        problem.replace(source=torch.zeros(5, 5, dtype=torch.float64))
    with pytest.raises(InputError, match="cast it"):
        problem.replace(source=torch.zeros(9, 14))


def test_members_are_problems_and_slices_of_the_batch() -> None:
    problem = plate()
    one = problem.member(1)
    assert one.batch == 1
    assert torch.equal(one.operator.coefficient[0], problem.operator.coefficient[1])
    whole = sciml.solve(problem, Direct()).value
    assert torch.allclose(whole[1], sciml.solve(one, Direct()).value[0], rtol=1e-13)
    with pytest.raises(InputError, match="3 members"):
        problem.member(3)


def test_to_moves_every_tensor_and_the_space() -> None:
    single = plate().to(torch.float32)
    assert {leaf.tensor.dtype for leaf in leaves(single)} == {torch.float32}
    assert single.space.dtype == torch.float32
    assert single.targets["discrete"] == 1e-6
    assert sciml.solve(single, Direct()).ok
    assert plate().to(torch.float64).space.dtype == torch.float64


def test_targets_are_named_and_positive() -> None:
    problem = plate().with_target(discrete=1e-12)
    assert problem.targets["discrete"] == 1e-12
    with pytest.raises(InputError, match="no gate 'speed'"):
        problem.with_target(speed=1.0)
    with pytest.raises(InputError, match="positive"):
        problem.with_target(discrete=-1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: p.replace(source=torch.full((9, 14), float("nan"), dtype=torch.float64)),
            "source is nan at x=.*must be finite",
        ),
        (
            lambda p: p.replace(coefficient=p.operator.coefficient * -1),
            "coefficient is -.* at x=0.1.*of member 0; diffusion needs it positive",
        ),
        (lambda p: p.replace(source=torch.rand(2, 1, 9, 14, dtype=torch.float64)), "has 2 members, others have 3"),
        (lambda p: p.replace(source=torch.rand(0, 1, 9, 14, dtype=torch.float64)), "is empty"),
        (
            lambda p: Linear("mixed", p.operator, p.source.float()),
            "source is torch.float32, the space is torch.float64",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change, message) -> None:
    with pytest.raises(InputError, match=message) as caught:
        sciml.solve(change(plate()), Direct())
    assert "\n" not in str(caught.value)


def test_incompatible_neumann_data_are_refused_and_compatible_solved() -> None:
    grid = Grid((9, 14), (1.0, 2.0), {"x": Neumann(0.0), "y": (Neumann(1.0), Neumann(0.0))})
    bad = Linear("tank", Diffusion(grid), torch.zeros(9, 14, dtype=torch.float64))
    with pytest.raises(InputError, match="singular and its right-hand side is incompatible"):
        sciml.solve(bad, ConjugateGradient())
    good = bad.replace(source=torch.full((9, 14), -0.5, dtype=torch.float64))
    one, two = sciml.solve(good, ConjugateGradient()), sciml.solve(good, Direct())
    assert one.ok and two.ok
    assert torch.allclose(one.value, two.value, atol=1e-8)
    assert abs(float(two.value.sum())) < 1e-10


def test_a_law_may_hide_no_tensor() -> None:
    secret = torch.tensor(2.0)
    with pytest.raises(InputError, match="hides the tensor 'secret'"):
        Law(lambda u: secret * u)
    with pytest.raises(InputError, match="pass torch.tensor"):
        Law(lambda u, *, a: a * u, a=2.0)  # type: ignore[arg-type]
    law = Law(lambda u, *, lam, space: -laplacian(u, space) - lam * u.exp(), lam=torch.tensor([1.0, 2.0]))
    equation = Equation("bratu", law=law, space=Grid((5, 4)).space())
    assert equation.parameters()["lam"].shape == (2, 1, 1, 1)
    assert equation.batch == 2


def test_pickling_by_hand_and_by_recipe() -> None:
    problem = plate()
    again = pickle.loads(pickle.dumps(problem))
    assert all(
        torch.equal(a, b) for a, b in zip(problem.parameters().values(), again.parameters().values(), strict=True)
    )
    named = (
        sciml.problem("darcy", n=9, seed=3)
        .replace(source=torch.full((9, 9), 2.0, dtype=torch.float64))
        .with_target(discrete=1e-9)
    )
    back = pickle.loads(pickle.dumps(named))
    assert back.recipe.to_json() == named.recipe.to_json()
    assert back.targets == named.targets
    assert all(torch.equal(a, b) for a, b in zip(named.parameters().values(), back.parameters().values(), strict=True))


def test_the_certificate_alone_decides() -> None:
    claims = torch.tensor([int(c) for c in Code])
    good, bad = Check("gate", torch.zeros(len(Code)), 1.0), Check("gate", torch.full((len(Code),), 2.0), 1.0)
    told = Check("told", torch.full((len(Code),), float("nan")), None)
    names = [Code(int(c)).name for c in decide(claims, (good, told))]
    assert names == ["CONVERGED"] * 5 + ["BREAKDOWN", "DIVERGED", "BAD_INPUT"]
    names = [Code(int(c)).name for c in decide(claims, (bad, told))]
    assert names == [
        "UNCERTIFIED",
        "UNCERTIFIED",
        "UNCERTIFIED",
        "BUDGET",
        "STAGNATED",
        "BREAKDOWN",
        "DIVERGED",
        "BAD_INPUT",
    ]
    assert Code.CONVERGED not in [Code(int(c)) for c in decide(claims, (told,))]
    nan = Check("gate", torch.full((len(Code),), float("nan")), 1.0)
    assert Code.CONVERGED not in [Code(int(c)) for c in decide(claims, (good, nan))]


def test_prepared_solvers_keep_their_set_up_and_refuse_another_operator() -> None:
    problem = plate(batch=1)
    prepared = ConjugateGradient(max_steps=400).prepare(problem)
    for scale in (1.0, 3.0):
        other = problem.replace(source=problem.source * scale)
        assert torch.equal(
            sciml.solve(other, prepared).value, sciml.solve(other, ConjugateGradient(max_steps=400)).value
        )
    with pytest.raises(InputError, match="prepared for another operator"):
        sciml.solve(problem.replace(coefficient=problem.operator.coefficient + 1), prepared)


def test_the_exact_start_needs_no_step_and_two_steps_are_reported() -> None:
    problem = plate(batch=1)
    truth = sciml.solve(problem, Direct()).value
    assert sciml.solve(problem, ConjugateGradient(), start=truth).stats["steps"] == 0
    with pytest.warns(UserWarning, match="BUDGET"):
        short = sciml.solve(problem, ConjugateGradient(max_steps=2))
    assert short.code is Code.BUDGET and short.stats["steps"] == 2
    with pytest.raises(sciml.SolveError, match="budget"):
        sciml.solve(problem, ConjugateGradient(max_steps=2), strict=True)


def test_anybodys_answer_can_be_certified() -> None:
    problem = plate(batch=1)
    truth = sciml.solve(problem, Direct()).value
    assert bool(problem.certify(truth)[0].passed.all())
    assert not bool(problem.certify(truth * 1.001)[0].passed.any())
    with pytest.raises(InputError, match="expected"):
        problem.certify(truth[..., :5])
    answer = Answer(truth, torch.zeros(1, dtype=torch.int64))
    assert str(problem.certify(answer)[0]).startswith("discrete backward error")


def test_scaling_the_data_leaves_the_verdict_alone() -> None:
    problem = plate(batch=1)
    for factor in (1e-12, 1e12):
        scaled = problem.replace(
            source=problem.source * factor, x_lower=problem.operator.grid.side("x_lower").value * factor
        )
        grid = scaled.operator.grid
        assert grid.shape == problem.operator.grid.shape
        a, b = (
            problem.certify(sciml.solve(problem, Direct()).value),
            scaled.certify(sciml.solve(scaled, Direct()).value),
        )
        assert float(a[0].value) < 1e-15 and float(b[0].value) < 1e-15


def test_a_problem_prints_as_one_line() -> None:
    told = str(sciml.problem("heat", n=15, batch=2))
    assert told.count("\n") == 0 and "2 members of shape (1, 15)" in told and "steps 1e-06" in told
