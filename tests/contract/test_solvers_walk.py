"""The contract of solvers and learned solvers, asked of every example(), and of twins that break it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
import walk
from torch import Tensor

from sciml.core import Answer, Code, Iterative, Linear, Matrix

SOLVERS, LEARNED = walk.files("solvers"), walk.files("learned")


@pytest.mark.parametrize("promise", walk.SOLVER, ids=walk.named)
@pytest.mark.parametrize("file", SOLVERS, ids=walk.short)
def test_solver(file: ModuleType, promise: walk.Promise) -> None:
    assert not promise(*file.example())


@pytest.mark.parametrize("promise", walk.LEARNED, ids=walk.named)
@pytest.mark.parametrize("file", LEARNED, ids=walk.short)
def test_learned(file: ModuleType, promise: walk.Promise) -> None:
    assert not promise(*file.example())


@pytest.mark.parametrize("file", [*SOLVERS, *LEARNED], ids=walk.short)
def test_refuses_in_a_sentence(file: ModuleType) -> None:
    others = [other.example()[1] for other in (*SOLVERS, *LEARNED) if other is not file]
    assert not walk.refuses_in_a_sentence(file.example()[0], others)


@dataclass(frozen=True, eq=False)
class Iterate:
    """State of the twin."""

    u: Tensor
    residual: Tensor


@dataclass(frozen=True, eq=False)
class Richardson(Iterative):
    """The plainest iterative solver, `u + r / 4`, for matrices with eigenvalues in (0, 8); `flaw` breaks it."""

    flaw: str = ""
    max_steps: int = 400
    batched: ClassVar[bool] = True
    calls: ClassVar[list[int]] = []

    def accepts(self, problem: Any) -> str | None:
        if self.flaw == "curt" and not isinstance(problem.operator, Matrix):
            return "no"
        return None

    def setup(self, problem: Any) -> Any:
        return None

    def init(self, problem: Any, setup: Any, start: Tensor | None) -> Iterate:
        u = torch.zeros_like(problem.rhs) if start is None else start.expand(problem.rhs.shape)
        u = u.expand(problem.batch, *u.shape[1:])
        if self.flaw == "grabs" and start is not None:
            start.add_(1.0)
        return Iterate(u, problem.rhs - problem.operator(u))

    def step(self, problem: Any, setup: Any, state: Iterate) -> Iterate:
        rate = 0.25
        if self.flaw == "seed":
            rate = 0.2 + 0.05 * float(torch.rand(()))
        u = state.u + rate * state.residual
        if self.flaw == "stray":
            u = u + torch.zeros(u.shape, dtype=u.dtype, device="cpu")
        return Iterate(u, problem.rhs - problem.operator(u))

    def measure(self, problem: Any, setup: Any, state: Iterate) -> Tensor:
        return torch.linalg.vector_norm(state.residual.flatten(1), dim=1)

    def done(self, problem: Any, setup: Any, state: Iterate) -> Tensor:
        small = self.measure(problem, setup, state) < problem.targets["discrete"]
        return torch.where(small, int(Code.CONVERGED), int(Code.RUNNING))

    def answer(self, problem: Any, setup: Any, state: Iterate) -> Answer:
        value = state.u + 1.0 if self.flaw == "wrong" else state.u
        if self.flaw == "mixes":
            value = value + 1e-8 * (value.mean(0, keepdim=True) - value)
        if self.flaw == "double":
            value = value.to(torch.float64)
        codes = torch.full((value.shape[0],), int(Code.CONVERGED))
        return Answer(value[:, :, :-1] if self.flaw == "short" else value, codes)

    def __reduce__(self) -> Any:
        if self.flaw == "forgets":
            return Richardson, ("wrong", self.max_steps)
        return Richardson, (self.flaw, self.max_steps)


def system() -> Linear:
    """A well-conditioned symmetric system."""
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(6, 6, dtype=torch.float64, generator=generator) / 6
    matrix = torch.eye(6, dtype=torch.float64) * 3 + half + half.T
    return Linear("six equations", Matrix(matrix, positive=True), torch.randn(1, 1, 6, dtype=torch.float64))


@pytest.mark.parametrize("promise", walk.SOLVER, ids=walk.named)
def test_an_honest_twin_passes(promise: walk.Promise) -> None:
    assert not promise(Richardson(), system())


@pytest.mark.parametrize(
    ("flaw", "promise"),
    [
        ("wrong", walk.solves),
        ("seed", walk.repeats),
        ("mixes", walk.batches),
        ("forgets", walk.pickles),
        ("double", walk.single_precision),
        ("grabs", walk.keeps_its_input),
        ("stray", walk.steps_anywhere),
    ],
)
def test_a_broken_twin_is_caught(flaw: str, promise: walk.Promise) -> None:
    assert promise(Richardson(flaw), system())


def test_a_refusal_that_is_no_sentence_is_caught() -> None:
    other = Linear("another", Matrix(torch.eye(3, dtype=torch.float64)) * 2.0, torch.ones(1, 1, 3, dtype=torch.float64))
    assert walk.refuses_in_a_sentence(Richardson("curt"), [other])


def test_a_claim_alone_earns_nothing() -> None:
    """Two steps, a claim of success, and the certificate that says otherwise."""
    solution = walk.solved(system(), dataclasses.replace(Richardson("wrong"), max_steps=2))
    assert not solution.ok
    assert solution.code in (Code.BUDGET, Code.UNCERTIFIED)
