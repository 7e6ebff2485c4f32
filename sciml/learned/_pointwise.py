r"""Laws of the form ``N(u) = N(0) + D (g(u) - g(0))``: a function of the value at each point, behind a linear operator.

Transport in conservation form, ``-(u^2/2)_x``, and reactions are of this form. Neither part is named by the problem, but the derivative of
``N`` at a constant state ``c`` is ``g'(c) D``: so ``D`` is the derivative at one state, in units in which ``g'`` is one there, and ``g'``
at other states is a ratio of two such derivatives. ``g`` is the integral of a polynomial through these ratios. What was found is held
against ``N`` on given states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.core.law import Law
from sciml.domains.space import Space

__all__ = ["Pointwise", "constant", "slope"]

DEGREE = 16
EXACT = 1e-9  # of N: beyond, the law is not of this form


@dataclass(frozen=True, eq=False)
class Pointwise:
    """``outer`` is ``D``; ``inner`` is ``g``, the polynomial ``sum_k powers[k] s^k`` of ``s = (u - middle) / half``."""

    law: Law
    space: Space
    begin: float
    state: float
    powers: tuple[float, ...]
    middle: float
    half: float

    def outer(self, fields: Tensor) -> Tensor:
        """``D`` applied to ``(m, 1, *space)``."""
        return slope(self.law, self.space, self.begin, torch.full_like(fields, self.state), fields)

    def inner(self, u: Tensor, order: int = 0) -> Tensor:
        """``g``, or its first derivative (``order`` 1)."""
        powers: Sequence[float] = self.powers
        if order:
            powers = [k * c / self.half for k, c in enumerate(powers)][1:] or [0.0]
        s = (u - self.middle) / self.half
        total = powers[-1] * s + powers[-2] if len(powers) > 1 else torch.full_like(u, powers[-1])
        for c in powers[-3::-1]:
            total = total * s + c
        return total

    @staticmethod
    def of(problem: Evolution, states: Tensor) -> Pointwise | None:
        """The form of ``problem.rest``, found and tested on ``states`` ``(batch, 1, *space)``; None if it is of another."""
        law, space, begin = problem.rest, problem.space, problem.begin
        batched = any(value.ndim and value.shape[0] > 1 for value in law.parameters.values())
        if space.shape[0] != 1 or batched or states.is_complex():
            return None
        low, high = float(states.min()), float(states.max())
        middle, half = (low + high) / 2, max(0.75 * (high - low), 1e-3 * max(abs(low), abs(high)), 1e-300)
        s = torch.from_numpy(np.cos(np.pi * (np.arange(DEGREE + 1) + 0.5) / (DEGREE + 1)))
        constants = (middle + half * s).reshape(-1, *[1] * len(space.shape)).expand(-1, *space.shape)
        probe = states[int(space.norm(states).argmax())]
        probe = probe + (high - low) * torch.cos(torch.arange(probe.numel(), dtype=probe.dtype)).reshape(probe.shape)
        answers = slope(law, space, begin, constants.contiguous(), probe.expand(constants.shape).contiguous()).flatten(
            1
        )
        sizes = torch.linalg.vector_norm(answers, dim=1)
        best = int(sizes.argmax())
        if not float(sizes[best]) > 0 or not bool(torch.isfinite(answers).all()):
            return None
        ratios = answers @ answers[best] / sizes[best].square()
        fitted = np.polynomial.chebyshev.Chebyshev.fit(s.numpy(), ratios.numpy(), DEGREE, domain=[-1, 1])
        coefficients = np.where(abs(fitted.coef) > 1e-12 * abs(fitted.coef).max(), fitted.coef, 0.0)
        powers = (
            np.polynomial.chebyshev.Chebyshev(coefficients, domain=[-1, 1])
            .integ()
            .convert(kind=np.polynomial.Polynomial)
            .coef
        )
        powers = np.trim_zeros(half * np.asarray(powers, dtype=np.float64), "b")
        found = Pointwise(law, space, begin, float(constants[best].flatten()[0]), tuple(powers.tolist()), middle, half)
        return found if found._agrees(problem, states) else None

    def _agrees(self, problem: Evolution, states: Tensor) -> bool:
        some = states[:: max(1, len(states) // 6)][:8]
        zero = torch.zeros_like(some)
        meant = self.law(self.begin, some, space=self.space)
        later = self.law(problem.times[-1], some, space=self.space)
        made = self.law(self.begin, zero, space=self.space) + self.outer(self.inner(some) - self.inner(zero))
        size = torch.linalg.vector_norm(meant)
        return bool(torch.linalg.vector_norm(made - meant) <= EXACT * size) and bool(
            torch.linalg.vector_norm(later - meant) <= EXACT * size
        )


def constant(problem: Evolution) -> bool:
    """Whether the law depends on neither the state nor the time, as where side values feed a linear equation."""
    law, space = problem.rest, problem.space
    with torch.enable_grad():
        u = problem.start.detach().expand(problem.batch, *space.shape).requires_grad_()
        first = law(problem.begin, u, space=space)
        later = law(problem.times[-1], u, space=space)
        free = not first.requires_grad or torch.autograd.grad(first.sum(), u, allow_unused=True)[0] is None
    return free and torch.equal(first, later)


def slope(law: Law, space: Space, t: float, u: Tensor, v: Tensor) -> Tensor:
    """The derivative of ``law(t, u)`` along ``v``: two backward passes, the second one linear."""
    with torch.enable_grad():
        at = u.detach().requires_grad_()
        value = law(t, at, space=space)
        if not value.requires_grad:
            return torch.zeros_like(v)
        weights = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, at, weights, create_graph=True)
        if not pulled.requires_grad:
            return torch.zeros_like(v)
        (result,) = torch.autograd.grad(pulled, weights, v, allow_unused=True)
    return torch.zeros_like(v) if result is None else result.detach()
