"""Cholesky's factorisation of block tridiagonal matrices, for many at a time, on any device.

A sparse symmetric matrix whose bandwidth is ``b`` is block tridiagonal in blocks of ``b``: with diagonal blocks ``D_i`` and blocks ``E_i`` below them,

    L_1 L_1^T = D_1,    B_i = E_i L_i^-T,    L_(i+1) L_(i+1)^T = D_(i+1) - B_i B_i^T.

All work is in products of dense blocks, which for bands of some tens to hundreds is quicker than a banded or a general sparse factorisation
with as many right-hand sides as electrodes. Golub and Van Loan, Matrix Computations (2013), section 4.5.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Factor", "factored"]


@dataclass(frozen=True, eq=False)
class Factor:
    """``L`` (blocks on the diagonal) and ``B`` (below), each ``(batch, b, b)``, and which members were positive definite."""

    diagonal: list[Tensor]
    below: list[Tensor]
    good: Tensor

    def solve(self, right: Tensor) -> Tensor:
        """``A^-1`` applied to ``(batch or 1, blocks, b, k)``; NaN for members that were not positive definite."""
        forward: list[Tensor] = []
        batch = len(self.good)
        for i, (block, part) in enumerate(zip(self.diagonal, right.unbind(1), strict=True)):
            rest = part.expand(batch, -1, -1)
            if i:
                rest = torch.baddbmm(rest, self.below[i - 1], forward[-1], alpha=-1)
            forward.append(torch.linalg.solve_triangular(block, rest, upper=False))
        found = torch.empty((batch, *right.shape[1:]), dtype=right.dtype, device=right.device)
        last = len(self.diagonal) - 1
        for i in range(last, -1, -1):
            rest = forward[i]
            if i < last:
                rest = torch.baddbmm(rest, self.below[i].mT, found[:, i + 1], alpha=-1)
            found[:, i] = torch.linalg.solve_triangular(self.diagonal[i].mT, rest, upper=True)
        if not bool(self.good.all()):
            found[~self.good] = torch.nan
        return found


def factored(blocks: Tensor) -> Factor:
    """The factor of matrices ``(number, 2, batch, b, b)``: ``[i, 0]`` is ``D_i``, of which the lower part is read, ``[i, 1]`` is ``E_i``."""
    diagonal: list[Tensor] = []
    below: list[Tensor] = []
    failures: list[Tensor] = []
    own, under = blocks[:, 0].unbind(0), blocks[:, 1].unbind(0)
    rest = own[0]
    for i in range(len(own)):
        lower, failed = torch.linalg.cholesky_ex(rest)
        failures.append(failed)
        diagonal.append(lower)
        if i + 1 < len(own):
            below.append(torch.linalg.solve_triangular(lower.mT, under[i], upper=True, left=False))
            rest = torch.baddbmm(own[i + 1], below[-1], below[-1].mT, alpha=-1)
    return Factor(diagonal, below, (torch.stack(failures) == 0).all(0))
