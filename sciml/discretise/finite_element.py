r"""Piecewise linear finite elements on triangles in integrated form.

``Stiffness`` is the matrix of ``integral sigma grad u . grad v`` over basis functions, which belongs to ``-div(sigma grad u)`` with no flow through the
boundary: ``K(sigma) = G^T diag(area sigma) G`` with ``G`` the gradient on every triangle. It is applied without being assembled, for all members at
once, and is differentiable in the coefficient; ``matrix`` assembles it. Ciarlet, The Finite Element Method for Elliptic Problems (1978).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator
from sciml.core.slopes import Slopes, gathering
from sciml.domains.errors import InputError
from sciml.domains.mesh import Mesh
from sciml.domains.space import Space

if TYPE_CHECKING:
    import scipy.sparse

__all__ = ["Stiffness"]


@dataclass(frozen=True, eq=False)
class Stiffness(LinearOperator):
    """``-div(coefficient grad u)``, integrated, with natural conditions; fields are ``(batch, 1, n)``.

    ``coefficient`` is ``(batch, 1, m)``, one number per triangle, or ``(batch, 1, n)`` at the nodes, of which every triangle takes the mean of its
    corners (exact for a linear coefficient). Symmetric, positive semi-definite; constants are mapped to zero. ``load`` integrates a source.
    Raises InputError for a coefficient of another shape or one that is not positive.
    """

    mesh: Mesh = field(metadata={"opaque": True})
    coefficient: Tensor

    def __post_init__(self) -> None:
        shape, sizes = tuple(self.coefficient.shape), (len(self.mesh.triangles), len(self.mesh.nodes))
        if len(shape) != 3 or shape[1] != 1 or shape[2] not in sizes:
            raise InputError(
                f"the coefficient has shape {shape}; it is (batch, 1, {sizes[0]}) on the triangles or (batch, 1, {sizes[1]}) at the nodes"
            )

    def validate(self, name: str) -> None:
        """The coefficient must be positive."""
        least = self.coefficient.detach().min()
        if not bool(least > 0):
            raise InputError(
                f"{name!r}: the coefficient is {float(least):.3g} at its least; diffusion needs it positive"
            )

    @property
    def space(self) -> Space:
        """Fields at the nodes."""
        return self.mesh.space(1, self.coefficient.dtype, self.coefficient.device)

    @property
    def symmetric(self) -> bool:
        """Always."""
        return True

    @property
    def definite(self) -> bool | None:
        """Positive semi-definite."""
        return True

    def elements(self) -> Tensor:
        """The coefficient on the triangles, ``(batch, 1, m)``."""
        if self.coefficient.shape[2] == len(self.mesh.triangles):
            return self.coefficient
        return self.coefficient[..., self.mesh.triangles.to(self.coefficient.device)].mean(-1)

    @property
    def _slopes(self) -> Slopes:
        held: Slopes | None = self.__dict__.get("_held")
        if held is None:
            held = self.__dict__["_held"] = Slopes(self.space)
        return held

    def __call__(self, u: Tensor) -> Tensor:
        slopes = self._slopes
        return slopes.adjoint(slopes(u) * (self.elements() * slopes.volumes(u.real.dtype)))

    def adjoint(self, v: Tensor) -> Tensor:
        """The same."""
        return self(v)

    def load(self, source: Tensor) -> Tensor:
        """``integral source v`` by the nodes' own rule: the source at a node times a third of the area around it."""
        return source * self.mesh.volumes(source.real.dtype, source.device)

    def source_of(self, rhs: Tensor) -> Tensor:
        """The inverse of ``load``."""
        return rhs / self.mesh.volumes(rhs.real.dtype, rhs.device)

    def diagonal(self) -> Tensor:
        """``sum over triangles of coefficient area |grad phi_i|^2``."""
        own = self.mesh.gradients().square().sum(2).to(self.coefficient)
        each = (self.elements() * self.mesh.areas().to(self.coefficient)).unsqueeze(-1) * own
        back = gathering(self.mesh.triangles.reshape(-1), len(self.mesh.nodes)).to(each.device)
        return torch.nn.functional.pad(each.flatten(-2), (0, 1))[..., back].sum(-1)

    def null_space(self) -> tuple[Tensor, ...]:
        """The constant field."""
        ones = torch.ones((1, *self.space.shape), dtype=self.coefficient.dtype, device=self.coefficient.device)
        return (ones / len(self.mesh.nodes) ** 0.5,)

    def matrix(self, member: int = 0) -> scipy.sparse.csr_array:
        """The assembled matrix as a scipy CSR array."""
        from scipy.sparse import coo_array

        slopes, t = self.mesh.gradients(), self.mesh.triangles
        weights = self.elements()[member, 0].detach().cpu().to(torch.float64) * self.mesh.areas()
        local = torch.einsum("mid,mjd,m->mij", slopes, slopes, weights).reshape(-1).numpy()
        rows, columns = t.repeat_interleave(3, 1).reshape(-1).numpy(), t.repeat(1, 3).reshape(-1).numpy()
        return coo_array((local, (rows, columns)), shape=(len(self.mesh.nodes),) * 2).tocsr()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_held"}
