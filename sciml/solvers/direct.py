"""Sparse LU factorisation (SuperLU through scipy) for any Linear problem whose matrix can be assembled.

Backward stable with partial pivoting; memory grows fast in 3-D (fill-in of order ``n^(4/3)`` in the number of unknowns).
*Fails when* the matrix is singular (BREAKDOWN, unless the operator names its null space, which is then bordered) or too
large for memory. Runs on the CPU in float64; the answer is cast back. Reference: Li, ACM TOMS 31, 2005,
doi 10.1145/1089014.1089017.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.problem import Linear, Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Context, Solver

__all__ = ["Direct"]


@dataclass(frozen=True)
class Direct(Solver):
    """Factorise and solve, one step of refinement; member by member."""

    batched: ClassVar[bool] = False
    citations: ClassVar[tuple[str, ...]] = ("@article{li2005, doi={10.1145/1089014.1089017}}",)
    limit: int = 2_000_000

    def accepts(self, problem: Problem) -> str | None:
        """Linear problems of at most ``limit`` unknowns."""
        if not isinstance(problem, Linear):
            return "a factorisation solves Linear problems"
        if problem.space.size > self.limit:
            return f"a factorisation of {problem.space.size} unknowns would not fit in memory (limit {self.limit})"
        if problem.space.domain is None and problem.space.size > 20_000:
            return "the operator has no sparse matrix and is too large for a dense one"
        return None

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """Assemble, factorise, solve."""
        import numpy as np
        import scipy.sparse
        import scipy.sparse.linalg

        assert isinstance(problem, Linear)
        high = problem.to(torch.float64)
        matrix = scipy.sparse.csc_array(high.operator.matrix())
        n = matrix.shape[0]
        rhs = high.rhs.detach().cpu().numpy().reshape(-1)
        null = [v.detach().cpu().numpy().reshape(n, 1) for v in high.operator.null_space()]
        if null:
            border = scipy.sparse.csc_array(np.hstack(null))
            matrix = scipy.sparse.block_array([[matrix, border], [border.T.conj(), None]], format="csc")
            rhs = np.concatenate([rhs, np.zeros(len(null))])
        claim = torch.tensor([int(Code.CONVERGED)])
        sentence = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", scipy.sparse.linalg.MatrixRankWarning)
                factor = scipy.sparse.linalg.splu(
                    matrix, permc_spec="MMD_AT_PLUS_A" if high.operator.symmetric else "COLAMD"
                )
            x = factor.solve(rhs)
            x = x + factor.solve(rhs - matrix @ x)
        except RuntimeError:
            x, claim = np.full(n, np.nan), torch.tensor([int(Code.BREAKDOWN)])
            sentence = "the matrix is singular to working precision"
        value = torch.as_tensor(x[:n]).reshape(1, *problem.space.shape).to(problem.space.device, problem.space.dtype)
        return Answer(value, claim.to(problem.space.device), steps=1, sentence=sentence)


def example() -> tuple[Direct, Any]:
    """A small indefinite problem."""
    from sciml.discretise import Diffusion
    from sciml.domains import Grid

    grid = Grid((9, 14), (1.0, 2.0))
    return Direct(), Linear(
        "small shifted", Diffusion(grid, 1.0, reaction=-30.0), torch.ones(1, 1, 9, 14, dtype=torch.float64)
    )
