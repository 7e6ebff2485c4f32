r"""The small system of a reduced model, as an Evolution of its own.

With modes ``V`` (orthonormal in the inner product ``<.,.>`` of the space) and ``u ~ V a``,

    da/dt = <V, S V> a + <V, N(V a)>,

``S`` the stiff part and ``N`` the rest. ``Interpolated`` replaces ``N = N(0) + D (g - g(0))`` by interpolation of ``g`` at few points, so that a
step costs nothing that grows with the grid; ``Projected`` evaluates ``N`` on the whole grid.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.core.law import Law, no_law
from sciml.domains.space import Space
from sciml.learned._pointwise import Pointwise, constant
from sciml.learned._reduction import Reduction
from sciml.solvers._semidiscrete import Semidiscrete

__all__ = ["Interpolated", "Projected", "SmallSystem", "full_rate"]

CHUNK = 8  # members of which the stiff part is projected at once


@dataclass(frozen=True, eq=False, repr=False)
class _Eigenbasis:
    """The projected stiff part, diagonal in the eigenvectors ``(batch, r, r)`` of each member."""

    vectors: Tensor
    symbol: Tensor

    def forward(self, u: Tensor) -> Tensor:
        return u @ self.vectors

    def inverse(self, v: Tensor) -> Tensor:
        return v @ self.vectors.mT

    def dealias(self, v: Tensor) -> Tensor:
        return v


_CALL = inspect.Signature(
    [
        inspect.Parameter("t", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        inspect.Parameter("a", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        inspect.Parameter("constant", inspect.Parameter.KEYWORD_ONLY),
    ]
)


@dataclass(frozen=True, eq=False, repr=False)
class Interpolated:
    """``back g(V a at the points) + constant``: ``at`` ``(r, m)`` gives the state at the points, ``back`` is ``(m, r)``."""

    __signature__: ClassVar[inspect.Signature] = _CALL  # else looked up in every step
    form: Pointwise
    at: Tensor
    back: Tensor

    def __call__(self, t: float, a: Tensor, *, constant: Tensor) -> Tensor:
        return self.form.inner(a @ self.at) @ self.back + constant

    def slope(self, a: Tensor) -> Tensor:
        """The derivative at ``a`` ``(..., r)``, as matrices ``(..., r, r)`` that act from the left."""
        rates = self.form.inner(a @ self.at, 1)
        return (self.back.T * rates.unsqueeze(-2)) @ self.at.T

    @staticmethod
    def of(problem: Evolution, reduction: Reduction, modes: Tensor, count: int) -> tuple[Interpolated, Tensor] | None:
        """The interpolation in ``count`` functions and the constant ``(batch, 1, r)``; None if the law is not of this form."""
        states = reduction.states.to(modes)
        form = Pointwise.of(problem, states)
        if form is None or not len(reduction.points):
            return None
        flux, points = reduction.flux[:count].to(modes), reduction.points[:count].to(modes.device)
        weights = problem.space.weights(modes.dtype)
        tested = (modes * weights).flatten(1)
        outer = form.outer(flux).flatten(1) @ tested.T
        # rows: coefficients of g at the points in the functions, then D, then the test with the modes
        back = torch.linalg.solve(flux.flatten(1)[:, points], outer)
        zero = torch.zeros_like(states[:1])
        constant = (
            problem.rest(problem.begin, zero.expand(problem.batch, *zero.shape[1:]), space=problem.space).flatten(1)
            @ tested.T
        )
        constant = constant - form.inner(zero).flatten(1)[:, :1] * back.sum(0)
        return Interpolated(form, modes.flatten(1)[:, points], back), constant.unsqueeze(1)


@dataclass(frozen=True, eq=False, repr=False)
class Projected:
    """``<V, N(V a)>`` with ``N`` on the whole grid, as the full model has it."""

    system: Semidiscrete
    modes: Tensor
    tested: Tensor

    def __call__(self, t: float, a: Tensor) -> Tensor:
        u = torch.einsum("brn,n...->br...", a, self.modes)[:, 0]
        stiff = self.system.stiff
        rate = stiff.inverse(self.system.rest(t, stiff.forward(u)))
        return (rate.flatten(1) @ self.tested).unsqueeze(1)


@dataclass(frozen=True, eq=False, repr=False)
class SmallSystem:
    """A problem projected on ``modes``: ``evolution`` in the coefficients ``(batch, 1, r)``, and the way back."""

    evolution: Evolution
    modes: Tensor
    matrix: Tensor
    rest: Interpolated | Projected | None

    def field(self, a: Tensor) -> Tensor:
        """``V a`` for ``(..., 1, r)``: ``(..., channel, *space)``."""
        flat: Tensor = a.squeeze(-2) @ self.modes.flatten(1)
        return flat.reshape(*flat.shape[:-1], *self.modes.shape[1:])

    def rate(self, t: float, a: Tensor) -> Tensor:
        """``da/dt`` at ``(batch, 1, r)``."""
        return self.evolution.rate(t, a)

    @staticmethod
    def of(problem: Evolution, reduction: Reduction, count: int, points: int, times: tuple[float, ...]) -> SmallSystem:
        """The first ``count`` modes, with interpolation at ``points`` points where the law allows it."""
        space = problem.space
        modes = reduction.modes[:count].to(space.device, torch.float64)
        tested = (modes * space.weights(torch.float64)).flatten(1).T
        batch, r = problem.batch, len(modes)
        start = (problem.start.to(torch.float64).flatten(1) @ tested).unsqueeze(1).expand(batch, 1, r)
        system = Semidiscrete(problem)
        matrix = _projected(problem, system, modes, tested)
        values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
        stiff = _Eigenbasis(vectors, values.unsqueeze(1))
        rest: Interpolated | Projected | None = None
        law = Law(no_law)
        if not system.linear and constant(problem):
            fed = problem.rest(problem.begin, space.zeros(batch).to(modes), space=space)
            law = Law(_fed, constant=(fed.flatten(1) @ tested).unsqueeze(1))
        elif not system.linear:
            found = Interpolated.of(problem, reduction, modes, points)
            if found is not None:
                rest, zero = found
                law = Law(rest, constant=zero)
            else:
                rest = Projected(system, modes, tested)
                law = Law(rest)
        small = Space(None, (1, r), dtype=torch.float64, device=space.device)
        evolution = Evolution(f"{problem.name}, reduced", small, start, times, law, stiff, problem.begin)
        return SmallSystem(evolution, modes, matrix, rest)


def _fed(t: float, a: Tensor, *, constant: Tensor) -> Tensor:
    """What does not depend on the state."""
    return constant.expand_as(a)


def _projected(problem: Evolution, system: Semidiscrete, modes: Tensor, tested: Tensor) -> Tensor:
    """``<V, S V>``, ``(batch or 1, r, r)``."""
    symbol, stiff = system.symbol, system.stiff
    hat = stiff.forward(modes)
    rows = []
    for first in range(0, symbol.shape[0], CHUNK):
        one = symbol[first : first + CHUNK].unsqueeze(1)
        images = stiff.inverse(one * hat.unsqueeze(0))
        rows.append(images.flatten(2) @ tested)
    return torch.cat(rows).mT


def full_rate(problem: Evolution, system: Semidiscrete, t: float, u: Tensor) -> Tensor:
    """``du/dt`` of the full model at ``u`` ``(batch, channel, *space)``, dealiased as its steppers do."""
    v = system.stiff.forward(u)
    return system.stiff.inverse(system.symbol * v + system.rest(t, v))
