"""Linear operators on fields, stated so that a symmetric one is plainly symmetric.

An operator acts on the trailing ``1 + dim`` axes and broadcasts the leading ones. ``adjoint`` is the plain conjugate
transpose, the one that automatic differentiation uses; quadrature weights live in ``Space.norm`` alone. Differential
operators are in integrated form: ``load`` turns a source (per volume) into a right-hand side, boundary data included.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sciml.core.tree import leaves
from sciml.domains.errors import InputError
from sciml.domains.space import Space

if TYPE_CHECKING:
    import scipy.sparse

__all__ = ["Adjoint", "ForwardModel", "LinearOperator", "Product", "Scaled", "SemiDefinite", "Sum", "dot"]

DENSE_LIMIT = 20_000


def dot(a: Tensor, b: Tensor, ndim: int) -> Tensor:
    """Plain inner product over the trailing ``ndim`` axes, conjugating ``a``."""
    axes = tuple(range(a.ndim - ndim, a.ndim)) if a.ndim >= b.ndim else tuple(range(b.ndim - ndim, b.ndim))
    return (a.conj() * b).sum(axes)


class ForwardModel(ABC):
    """A map from unknowns to data; ``linearise(x)`` is its derivative at ``x`` as a LinearOperator."""

    @property
    @abstractmethod
    def space(self) -> Space:
        """Where the unknown lives."""

    @property
    @abstractmethod
    def codomain(self) -> Space:
        """Where the result lives."""

    def validate(self, name: str) -> None:  # noqa: B027 - most maps have nothing to refuse
        """Raise InputError if the tensors are not what the map needs; ``name`` is the problem's."""

    @property
    def unit(self) -> str:
        """The unit of the unknown for files and pictures, as in ``mm-1``; ``1`` where it has none or nobody said."""
        return "1"

    @abstractmethod
    def __call__(self, u: Tensor) -> Tensor:
        """Apply the map."""

    @abstractmethod
    def linearise(self, x: Tensor) -> LinearOperator:
        """The derivative at ``x``."""


class LinearOperator(ForwardModel):
    """A linear map between spaces. Facts a solver may rely on: ``symmetric``, ``definite``, ``null_space()``."""

    @property
    def codomain(self) -> Space:
        """Where the result lives; the same space unless said otherwise."""
        return self.space

    @abstractmethod
    def adjoint(self, v: Tensor) -> Tensor:
        """The plain conjugate transpose applied to ``v``."""

    @property
    def symmetric(self) -> bool:
        """Whether the operator equals its adjoint."""
        return False

    @property
    def definite(self) -> bool | None:
        """True: positive (semi-)definite; False: known not to be; None: not known."""
        return None

    @property
    def batch(self) -> int:
        """Number of different operators held (1: one for all members)."""
        return max((leaf.tensor.shape[0] for leaf in leaves(self) if not leaf.shared and not leaf.told), default=1)

    @property
    def H(self) -> LinearOperator:
        """The adjoint as an operator, with homogeneous boundary data."""
        return self.homogeneous() if self.symmetric else Adjoint(self)

    def homogeneous(self) -> LinearOperator:
        """The same linear map with all boundary data zero."""
        return self

    def linearise(self, x: Tensor) -> LinearOperator:
        """The operator itself."""
        return self

    def load(self, source: Tensor) -> Tensor:
        """Right-hand side of a source: integrated over dual cells, plus boundary data."""
        return source

    def source_of(self, rhs: Tensor) -> Tensor:
        """The source whose load is ``rhs`` when the boundary data are zero."""
        return rhs

    def null_space(self) -> tuple[Tensor, ...]:
        """Orthonormal fields ``(1, *shape)`` that the operator maps to zero; empty when it is not known to be singular."""
        return ()

    def size_bound(self) -> Tensor:
        """A lower bound of the 2-norm per operator in the batch, from power iterations on ``A^H A``.

        A lower bound makes a backward error computed with it an upper bound: never flattering.
        """
        generator = torch.Generator().manual_seed(0)
        shape, ndim = (self.batch, *self.space.shape), len(self.space.shape)
        v = torch.randn(shape, generator=generator, dtype=torch.float64).to(self.space.device, self.space.dtype)
        size = torch.zeros(self.batch, dtype=torch.float64, device=self.space.device)
        with torch.no_grad():
            for _ in range(12):
                v = v / _norm(v, ndim).clamp_min(1e-300)
                image = self(v)
                size = torch.maximum(size, _norm(image, len(self.codomain.shape)).reshape(self.batch).to(torch.float64))
                v = self.adjoint(image)
        return size

    def diagonal(self) -> Tensor:
        """The diagonal ``(batch, *shape)``; by default read from the dense matrix of a small operator."""
        return self.dense().diagonal(dim1=-2, dim2=-1).reshape(self.batch, *self.space.shape)

    def dense(self) -> Tensor:
        """The matrix ``(batch, rows, columns)``, column by column; for operators of at most 20 000 entries a side."""
        n, m = self.space.size, self.codomain.size
        if max(n, m) > DENSE_LIMIT:
            raise InputError(f"a dense matrix of {m} x {n} would not fit; use matrix() or apply the operator")
        eye = torch.eye(n, dtype=self.space.dtype, device=self.space.device).reshape(n, 1, *self.space.shape)
        return self(eye.expand(n, self.batch, *self.space.shape)).reshape(n, self.batch, m).permute(1, 2, 0)

    def matrix(self, member: int = 0) -> scipy.sparse.csr_array:
        """The operator as a scipy CSR array (fields flattened in C order); stencil operators assemble it sparsely."""
        import scipy.sparse

        return scipy.sparse.csr_array(self.dense()[member].detach().cpu().numpy())

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        return Product(self, other)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, other)

    def __mul__(self, factor: float | Tensor) -> LinearOperator:
        return Scaled(self, factor)

    __rmul__ = __mul__

    def __neg__(self) -> LinearOperator:
        return Scaled(self, -1.0)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, Scaled(other, -1.0))


def _norm(v: Tensor, ndim: int) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(v, dim=tuple(range(v.ndim - ndim, v.ndim)), keepdim=True)
    return size


class SemiDefinite(LinearOperator):
    """Abstract: equal to its adjoint and positive semi-definite; one operator for all members unless it says otherwise."""

    @property
    def symmetric(self) -> bool:
        """By construction."""
        return True

    @property
    def definite(self) -> bool | None:
        """By construction."""
        return True

    @property
    def batch(self) -> int:
        """One for all members."""
        return 1

    def adjoint(self, v: Tensor) -> Tensor:
        """The operator itself."""
        return self(v)


@dataclass(frozen=True, eq=False)
class Adjoint(LinearOperator):
    """The conjugate transpose of an operator."""

    inner: LinearOperator

    @property
    def space(self) -> Space:
        """The inner operator's codomain."""
        return self.inner.codomain

    @property
    def codomain(self) -> Space:
        """The inner operator's space."""
        return self.inner.space

    def __call__(self, u: Tensor) -> Tensor:
        return self.inner.adjoint(u)

    def adjoint(self, v: Tensor) -> Tensor:
        """The inner operator."""
        return self.inner(v)

    @property
    def H(self) -> LinearOperator:
        """The inner operator, with homogeneous boundary data."""
        return self.inner.homogeneous()


@dataclass(frozen=True, eq=False)
class Product(LinearOperator):
    """``left @ right``: first ``right``, then ``left``."""

    left: LinearOperator
    right: LinearOperator

    def __post_init__(self) -> None:
        if self.left.space.shape != self.right.codomain.shape:
            raise InputError(f"operators do not chain: {self.right.codomain.shape} goes into {self.left.space.shape}")

    @property
    def space(self) -> Space:
        """The right factor's space."""
        return self.right.space

    @property
    def codomain(self) -> Space:
        """The left factor's codomain."""
        return self.left.codomain

    def __call__(self, u: Tensor) -> Tensor:
        return self.left(self.right(u))

    def adjoint(self, v: Tensor) -> Tensor:
        """``right^H left^H v``."""
        return self.right.adjoint(self.left.adjoint(v))


@dataclass(frozen=True, eq=False)
class Sum(LinearOperator):
    """``left + right``."""

    left: LinearOperator
    right: LinearOperator

    def __post_init__(self) -> None:
        if self.left.space.shape != self.right.space.shape:
            raise InputError(f"operators on {self.left.space.shape} and {self.right.space.shape} cannot be added")

    @property
    def space(self) -> Space:
        """The common space."""
        return self.left.space

    @property
    def codomain(self) -> Space:
        """The common codomain."""
        return self.left.codomain

    @property
    def symmetric(self) -> bool:
        """Whether both terms are."""
        return self.left.symmetric and self.right.symmetric

    @property
    def definite(self) -> bool | None:
        """True when both terms are positive semi-definite."""
        return True if self.left.definite and self.right.definite else None

    def homogeneous(self) -> LinearOperator:
        """Both terms homogeneous."""
        return Sum(self.left.homogeneous(), self.right.homogeneous())

    def load(self, source: Tensor) -> Tensor:
        """The first term's load of the source, and the second's boundary data."""
        return self.left.load(source) + self.right.load(torch.zeros_like(source))

    def source_of(self, rhs: Tensor) -> Tensor:
        """The first term's."""
        return self.left.source_of(rhs)

    def validate(self, name: str) -> None:
        """Both terms."""
        self.left.validate(name)
        self.right.validate(name)

    def __call__(self, u: Tensor) -> Tensor:
        return self.left(u) + self.right(u)

    def adjoint(self, v: Tensor) -> Tensor:
        """Sum of the adjoints."""
        return self.left.adjoint(v) + self.right.adjoint(v)

    def diagonal(self) -> Tensor:
        """Sum of the diagonals."""
        return self.left.diagonal() + self.right.diagonal()


@dataclass(frozen=True, eq=False)
class Scaled(LinearOperator):
    """``factor * inner``; a tensor factor has shape () or ``(batch, 1, ...)``."""

    inner: LinearOperator
    factor: float | Tensor

    @property
    def space(self) -> Space:
        """The inner operator's."""
        return self.inner.space

    @property
    def codomain(self) -> Space:
        """The inner operator's."""
        return self.inner.codomain

    @property
    def symmetric(self) -> bool:
        """As the inner operator, for real factors."""
        return self.inner.symmetric and not torch.is_complex(torch.as_tensor(self.factor))

    @property
    def definite(self) -> bool | None:
        """Kept by a positive number, turned by a negative one."""
        if isinstance(self.factor, Tensor) or self.inner.definite is None or self.factor == 0:
            return None
        return self.factor > 0 if self.inner.definite else None

    def __call__(self, u: Tensor) -> Tensor:
        return self.factor * self.inner(u)

    def adjoint(self, v: Tensor) -> Tensor:
        """``conj(factor) * inner^H v``."""
        factor = self.factor.conj() if isinstance(self.factor, Tensor) else self.factor
        return factor * self.inner.adjoint(v)

    def homogeneous(self) -> LinearOperator:
        """The inner operator homogeneous."""
        return Scaled(self.inner.homogeneous(), self.factor)

    def load(self, source: Tensor) -> Tensor:
        """Integrates the source, scales the boundary data."""
        bare = self.inner.homogeneous().load(source)
        return bare + self.factor * (self.inner.load(source) - bare)

    def source_of(self, rhs: Tensor) -> Tensor:
        """The inner operator's."""
        return self.inner.source_of(rhs)

    def validate(self, name: str) -> None:
        """The inner operator."""
        self.inner.validate(name)

    def diagonal(self) -> Tensor:
        """The scaled diagonal."""
        return self.factor * self.inner.diagonal()

    def null_space(self) -> tuple[Tensor, ...]:
        """The inner operator's."""
        return self.inner.null_space()
