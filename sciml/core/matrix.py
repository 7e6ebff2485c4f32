"""Dense matrices as linear operators on plain vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator
from sciml.domains.errors import InputError
from sciml.domains.space import Space

__all__ = ["Matrix"]


@dataclass(frozen=True, eq=False)
class Matrix(LinearOperator):
    """A dense matrix ``(batch, n, n)`` or ``(n, n)`` acting on vectors ``(batch, 1, n)``."""

    entries: Tensor
    positive: bool | None = None

    def __post_init__(self) -> None:
        if self.entries.ndim == 2:
            object.__setattr__(self, "entries", self.entries.unsqueeze(0))
        if self.entries.ndim != 3:
            raise InputError(f"a matrix has shape (n, m) or (batch, n, m), not {tuple(self.entries.shape)}")

    @property
    def space(self) -> Space:
        """Plain vectors, as many as columns."""
        e = self.entries
        return Space(None, (1, e.shape[-1]), complex=e.is_complex(), dtype=e.dtype, device=e.device)

    @property
    def codomain(self) -> Space:
        """Plain vectors, as many as rows."""
        e = self.entries
        return Space(None, (1, e.shape[-2]), complex=e.is_complex(), dtype=e.dtype, device=e.device)

    @property
    def symmetric(self) -> bool:
        """Whether the entries equal their conjugate transpose to the last bit."""
        return self.entries.shape[-1] == self.entries.shape[-2] and bool((self.entries == self.entries.mH).all())

    @property
    def definite(self) -> bool | None:
        """What the caller said in ``positive``."""
        return self.positive

    def __call__(self, u: Tensor) -> Tensor:
        return torch.einsum("bij,...bcj->...bci", self.entries, u)

    def adjoint(self, v: Tensor) -> Tensor:
        """The conjugate transposed matrix applied to ``v``."""
        return torch.einsum("bij,...bci->...bcj", self.entries.conj(), v)

    def dense(self) -> Tensor:
        """The entries."""
        return self.entries

    def diagonal(self) -> Tensor:
        """The diagonal of the entries."""
        return self.entries.diagonal(dim1=-2, dim2=-1).unsqueeze(1)

    def matrix(self, member: int = 0) -> Any:
        """The entries of one member as a scipy CSR array."""
        import scipy.sparse

        return scipy.sparse.csr_array(self.entries[member].detach().cpu().numpy())
