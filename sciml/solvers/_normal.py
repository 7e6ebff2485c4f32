"""What solvers of inverse problems share: the data term with its curvature, and conjugate gradients per member."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.core.inverse import Inverse
from sciml.core.linear import LinearOperator
from sciml.core.noise import GaussianNoise, across, inner
from sciml.core.prior import Energy
from sciml.core.problem import Problem
from sciml.solvers.gmres import settled

__all__ = [
    "Fit",
    "conjugate_gradients",
    "fit",
    "inner",
    "known",
    "linear",
    "objective",
    "quadratic",
    "ratio",
    "spread",
    "unposed",
    "unproximal",
    "weights",
]

Map = Callable[[Tensor], Tensor]


def ratio(top: Tensor, bottom: Tensor) -> Tensor:
    """``top / bottom``, zero where ``bottom`` is not positive; derivatives stay finite there."""
    safe = torch.where(bottom > 0, bottom, torch.ones_like(bottom))
    return torch.where(bottom > 0, top / safe, torch.zeros_like(bottom))


def linear(problem: Inverse[Any]) -> bool:
    """Whether the forward model is linear."""
    return isinstance(problem.forward, LinearOperator)


def quadratic(problem: Inverse[Any]) -> bool:
    """Whether the data term is quadratic: a linear forward model and Gaussian noise."""
    return linear(problem) and isinstance(problem.noise, GaussianNoise)


def weights(problem: Inverse[Any]) -> Tensor:
    """The posed weight, ``(batch,)``."""
    weight = problem.weights()
    assert weight is not None
    return weight


def unposed(problem: Inverse[Any], name: str) -> str | None:
    """The sentence for a problem whose prior has no weight yet."""
    if problem.weight is not None:
        return None
    return f"no weight is posed; give Inverse(weight=...), or wrap the solver: Discrepancy({name}())"


def unproximal(problem: Problem, name: str, *kinds: Any) -> str | None:
    """Why a splitting method called ``name`` for priors of these ``kinds`` cannot be asked, or None."""
    if not isinstance(problem, Inverse):
        return f"{name} takes Inverse problems: data, noise and a prior"
    if problem.prior is None:
        return "it has no prior; give one with problem.with_prior(TotalVariation())"
    if not isinstance(problem.prior, kinds):
        return f"its prior {type(problem.prior).__name__} has no proximal map; use PrimalDual for g(K x), GaussNewton for smooth priors, a sampler for denoisers"
    return unposed(problem, name)


def spread(problem: Inverse[Any], start: Tensor | None) -> Tensor:
    """The start, or zero, for every member."""
    shape = (problem.batch, *problem.space.shape)
    return problem.space.zeros(problem.batch) if start is None else start.expand(shape)


@dataclass(frozen=True, eq=False)
class Fit:
    """The data term at an image: its value per member, its gradient, and what applies its curvature."""

    value: Tensor
    gradient: Tensor
    z: Tensor
    tangent: LinearOperator
    problem: Inverse[Any]

    def curvature(self, d: Tensor) -> Tensor:
        """``J^H (second derivative of the energy) J d``."""
        noise, y = self.problem.noise, self.problem.data
        return self.tangent.adjoint(noise.bend(self.tangent(d), self.z, y))


def fit(problem: Inverse[Any], x: Tensor) -> Fit:
    """The data term at ``x``: one forward model and one adjoint."""
    z, tangent = problem.forward(x), problem.forward.linearise(x)
    slope = problem.noise.slope(z, problem.data)
    return Fit(problem.noise.energy(z, problem.data), tangent.adjoint(slope), z, tangent, problem)


def known(problem: Inverse[Any]) -> bool:
    """Whether the objective can be told: a prior of one step is a map, whose energy is unknown or dear."""
    return isinstance(problem.prior, Energy) and getattr(problem.prior, "only_step", None) is None


def objective(problem: Inverse[Any], x: Tensor, value: Tensor) -> Tensor:
    """``value + weight R(x)`` in double precision; ``value`` alone where the energy is not known."""
    if not known(problem):
        return value
    energy: Tensor = problem.prior.energy(x)
    return value + weights(problem).to(torch.float64) * energy


@dataclass(frozen=True, eq=False)
class Krylov:
    """What conjugate gradients found: the solution, the norm of its residual, the decrease of the model, the products."""

    d: Tensor
    left: Tensor
    drop: Tensor
    steps: Tensor


Enough = Callable[[Tensor, Tensor, Tensor], Tensor]


def conjugate_gradients(apply: Map, b: Tensor, limit: int, enough: Enough, precondition: Map | None = None) -> Krylov:
    """``apply(d) = b`` for a Hermitian positive ``apply``, from zero, each member by itself.

    A member stops when ``enough(d, |residual|, drop)`` holds for it, at a non-positive curvature, or after ``limit``
    steps; ``drop`` is how far ``<d, apply d> / 2 - Re <b, d>`` has come down below zero.
    """
    d, r = torch.zeros_like(b), b
    z = r if precondition is None else precondition(r)
    p, rho = z, inner(r, z)
    drop, steps = torch.zeros_like(rho), torch.zeros_like(rho)
    active = (rho > 0) & ~enough(d, inner(r, r).sqrt(), drop)
    for _ in range(limit):
        if settled(~active):
            break
        image = apply(p)
        bend = inner(p, image)
        active = active & (bend > 0)
        alpha = torch.where(active, ratio(rho, bend), torch.zeros_like(rho))
        d, r = d + across(alpha, p) * p, r - across(alpha, p) * image
        drop, steps = drop + alpha * rho / 2, steps + active.to(steps.dtype)
        z = r if precondition is None else precondition(r)
        new = inner(r, z)
        p = torch.where(across(active.to(p.real.dtype), p) > 0, z + across(ratio(new, rho), p) * p, p)
        rho = torch.where(active, new, rho)
        active = active & (rho > 0) & ~enough(d, inner(r, r).detach().sqrt(), drop)
    return Krylov(d, inner(r, r).detach().sqrt(), drop, steps)
