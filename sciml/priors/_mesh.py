"""Quadratic smoothness on meshes: ``x^T Q x / 2`` with ``Q`` the stiffness or the mass of the mesh."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.core.linear import SemiDefinite
from sciml.core.noise import across, total
from sciml.core.slopes import Differences, Jumps, Slopes
from sciml.domains.mesh import Elements, Mesh
from sciml.domains.space import Space

__all__ = ["MeshForm", "differences", "meshed"]

TOLERANCE = 1e-13
MOST = 5000


def meshed(space: Space | None) -> bool:
    """Whether fields of this space live on a mesh."""
    return space is not None and isinstance(space.domain, Mesh | Elements)


def differences(space: Space) -> Differences:
    """Gradients of nodal fields, jumps of fields on triangles."""
    return Slopes(space) if isinstance(space.domain, Mesh) else Jumps(space)


@dataclass(frozen=True, eq=False)
class MeshForm(SemiDefinite):
    """``Q``: order 1 the integral of ``|grad x|^2`` (across edges the squared jump times length over distance of centres), order 0 that of ``x^2``."""

    on: Space
    order: float

    @property
    def space(self) -> Space:
        """The fields."""
        return self.on

    def _parts(self) -> tuple[Differences | None, Tensor]:
        held = self.__dict__.get("_held")
        if held is None:
            if self.order == 0:
                held = None, self.on.weights(torch.float64)
            else:
                K = differences(self.on)
                held = K, K.volumes() if isinstance(K, Slopes) else K.volumes() / Jumps(self.on).apart()
            self.__dict__["_held"] = held
        parts: tuple[Differences | None, Tensor] = held
        return parts

    def __call__(self, u: Tensor) -> Tensor:
        K, weights = self._parts()
        weights = weights.to(u.device, u.real.dtype)
        return weights * u if K is None else K.adjoint(weights * K(u))

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """``(1 + step Q)^-1 v`` by conjugate gradients to 1e-13 of ``v``, each member by itself."""
        s, tolerance = across(step, v), TOLERANCE if v.real.dtype == torch.float64 else 1e-6
        x, r = torch.zeros_like(v), v
        p, rho = r, total(r.abs().square())
        goal = tolerance**2 * rho
        for _ in range(MOST):
            go = rho > goal
            if not bool(go.any()):
                break
            image = p + s * self(p)
            alpha = torch.where(go, rho / total((p.conj() * image).real).clamp_min(1e-300), torch.zeros_like(rho))
            x, r = x + across(alpha, p) * p, r - across(alpha, p) * image
            new = total(r.abs().square())
            p = r + across(torch.where(go, new / rho.clamp_min(1e-300), torch.zeros_like(rho)), p) * p
            rho = torch.where(go, new, rho)
        return x

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_held"}
