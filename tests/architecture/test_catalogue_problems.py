"""Every problem of the catalogue: built by name, cast to float32, pickled, drawn in batches, certified."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml

SIZES = {"ct": 64}  # pixels of an eighth of the head do not explain its line integrals
ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "problems").glob("*.py"))


def small(name: str, **settings: Any) -> Any:
    """A problem of the catalogue on a small grid."""
    size = {"nodes": 150, "electrodes": 8} if name == "eit" else {"n": SIZES.get(name, 16)}
    return sciml.problem(name, **size, **settings)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Equal names, dtypes, shapes and bits."""
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def floating(problem: Any) -> set[torch.dtype]:
    """The precisions of a problem's tensors; complex numbers have that of their parts."""
    tensors = problem.parameters().values()
    return {tensor.real.dtype for tensor in tensors if tensor.is_floating_point() or tensor.is_complex()}


def test_the_catalogue_lists_every_file() -> None:
    listed = sciml.problems()
    assert set(NAMES) <= set(listed), f"{set(NAMES) - set(listed)} is not listed"


@pytest.mark.parametrize("name", NAMES)
def test_a_problem_names_its_tensors(name: str) -> None:
    problem = small(name)
    tensors = problem.parameters()
    assert tensors, f"{name} depends on no tensor"
    assert floating(problem) == {torch.float64}
    assert problem.batch == 1
    assert problem.targets, f"{name} has no gate"


@pytest.mark.parametrize("name", NAMES)
def test_to_float32(name: str) -> None:
    problem = small(name).to(torch.float32)
    assert floating(problem) == {torch.float32}
    assert problem.space.zeros().real.dtype == torch.float32
    for key, tensor in small(name).parameters().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(problem.parameters()[key], tensor.float(), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_pickling_goes_through_the_recipe(name: str) -> None:
    problem = small(name, seed=3)
    first = next(iter(problem.parameters()))
    for changed in (problem, problem.to(torch.float32), problem.replace(**{first: problem.parameters()[first] * 1.5})):
        twin = pickle.loads(pickle.dumps(changed))
        assert same(changed.parameters(), twin.parameters())
        assert twin.recipe.to_json() == changed.recipe.to_json()
        assert dict(twin.targets) == dict(changed.targets)
    assert not same(problem.parameters(), twin.parameters())  # the comparison can fail


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_made_of_members(name: str) -> None:
    batch = small(name, batch=3, seed=1)
    again = small(name, batch=3, seed=1)
    other = small(name, batch=3, seed=2)
    assert batch.batch == 3
    assert same(batch.parameters(), again.parameters())
    assert not same(batch.parameters(), other.parameters())
    alone = batch.member(1)
    assert alone.batch == 1
    assert same(alone.parameters(), pickle.loads(pickle.dumps(alone)).parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_recommended_solver_earns_the_certificate(name: str) -> None:
    problem = small(name)
    solution = sciml.solve(problem)
    assert solution.ok, str(solution)
    assert problem.certify(solution.value * 1.01 + 0.01)[0].passed.all().item() is False, "any answer passes"
