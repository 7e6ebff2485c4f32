"""The public checks accept what is right and reject broken twins."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import sciml
from sciml import InputError, checks
from sciml.core import LinearOperator, Matrix
from sciml.core.linear import Adjoint, Product, Scaled, Sum
from sciml.discretise import Diffusion
from sciml.discretise.finite_difference import example


class Doubled(Diffusion):
    """The adjoint times two."""

    def adjoint(self, v: torch.Tensor) -> torch.Tensor:
        return 2 * super().adjoint(v)


class Shifted(Diffusion):
    """A stencil shifted by one node."""

    def __call__(self, u: torch.Tensor) -> torch.Tensor:
        return super().__call__(u).roll(1, -1)

    def adjoint(self, v: torch.Tensor) -> torch.Tensor:
        return super().__call__(v)


def twin(kind: type[Diffusion]) -> Diffusion:
    good = example()
    return kind(good.grid, good.coefficient, good.reaction)


def operators() -> list[LinearOperator]:
    good = example()
    entries = torch.randn(3, 5, 7, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    a = Matrix(entries)
    return [
        good,
        Sum(good, Scaled(good, 0.3)),
        Scaled(good, -2.0),
        Product(good, good),
        a,
        Adjoint(a),
        Product(Adjoint(a), a),
        Scaled(a, torch.tensor(1 + 2j)),
    ]


@pytest.mark.parametrize("operator", operators(), ids=lambda o: type(o).__name__)
def test_adjoints_hold(operator: LinearOperator) -> None:
    result = checks.adjoint(operator)
    assert result and result.value <= 1e-12, str(result)


def test_broken_adjoints_are_rejected_and_the_ratio_fitted() -> None:
    result = checks.adjoint(twin(Doubled))
    assert not result and "scaled by 2;" in str(result) + ";"
    assert not checks.adjoint(twin(Shifted))


def test_dense_sparse_diagonal_and_size_agree() -> None:
    operator = example()
    dense = operator.dense()[0]
    assert torch.allclose(torch.as_tensor(operator.matrix().todense()), dense, atol=1e-14)
    assert torch.allclose(operator.diagonal().flatten(), dense.diagonal(), atol=1e-14)
    norm = float(torch.linalg.matrix_norm(dense, 2))
    assert 0.4 * norm <= float(operator.size_bound()) <= norm * (1 + 1e-12)
    for matrix in (Matrix(torch.randn(2, 6, 6, dtype=torch.float64)),):
        bound = matrix.size_bound()
        true = torch.linalg.matrix_norm(matrix.entries, 2)
        assert (bound <= true * (1 + 1e-12)).all() and (bound >= 0.8 * true).all()


def test_derivatives() -> None:
    at = torch.rand(1, 1, 5, 4, dtype=torch.float64)
    assert checks.derivative(lambda u: u.exp() * u, at)
    assert checks.derivative(example(), example().space.zeros() + 1)

    class WrongMap(sciml.core.ForwardModel):
        space = codomain = example().space

        def __call__(self, u: torch.Tensor) -> torch.Tensor:
            return u.square()

        def linearise(self, x: torch.Tensor) -> LinearOperator:
            return Matrix(torch.diag(1.9 * x.flatten()))

    line = torch.rand(1, 1, 6, dtype=torch.float64)
    result = checks.derivative(WrongMap(), line)
    assert not result, str(result)
    with pytest.raises(InputError, match="pass at="):
        checks.derivative(lambda u: u)


@pytest.mark.parametrize("name", ["poisson", "darcy", "bratu", "heat", "burgers"])
def test_declared_symmetries_hold_and_a_false_one_is_rejected(name: str) -> None:
    problem = sciml.problem(name, n=16, batch=2, seed=1) if name != "bratu" else sciml.problem(name, n=16)
    for one in problem.symmetries:
        assert checks.symmetry(problem, one), str(checks.symmetry(problem, one))

    class Half:
        def apply(self, fields, generator):  # type: ignore[no-untyped-def]
            return {k: v.roll(1, -1) * torch.linspace(0.9, 1.1, v.shape[-1], dtype=v.dtype) for k, v in fields.items()}

    assert not checks.symmetry(problem, Half())


def test_discrete_and_strong_form_agree_to_second_order() -> None:
    def bump(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.sin(3.14159265358979 * x) * torch.sin(3.14159265358979 * y)

    for problem in (
        sciml.problem("poisson", n=31),
        sciml.problem("darcy", n=31, medium="smooth"),
        sciml.problem("bratu", n=31),
    ):
        result = checks.consistent(problem, bump)
        assert result and 1.75 < result.value < 2.25, str(result)
    assert checks.consistent(sciml.problem("burgers", n=32), lambda x: torch.sin(6.283185307179586 * x))

    good = sciml.problem("poisson", n=31)
    wrong = dataclasses.replace(good.continuous, interior=lambda at: -at.d(0, 0) - 1.01 * at.d(1, 1) - at["source"])
    defect = checks._defect(dataclasses.replace(good, continuous=wrong), bump)
    assert defect > 3 * checks._defect(good, bump)


def test_order_of_a_problem_from_the_catalogue() -> None:
    result = checks.order(sciml.problem("poisson", n=15))
    assert result and abs(result.value - 2.0) <= 0.1
    assert not checks.order(sciml.problem("poisson", n=15), expected=3.0)
