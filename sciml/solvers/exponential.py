r"""Exponential time differencing of fourth order for ``du/dt = L u + N(t, u)`` with a diagonal ``L``.

In the basis in which ``L`` is diagonal, one step of length ``h`` is

    a = e^(hL/2) v + Q N(v)                          N_a = N(t + h/2, a)
    b = e^(hL/2) v + Q N_a                           N_b = N(t + h/2, b)
    c = e^(hL/2) a + Q (2 N_b - N(v))                N_c = N(t + h, c)
    v <- e^(hL) v + f1 N(v) + 2 f2 (N_a + N_b) + f3 N_c

with ``Q = (e^(hL/2) - 1) / L`` and, for ``z = hL``,

    f1 = h (-4 - z + e^z (4 - 3z + z^2)) / z^3,   f2 = h (2 + z + e^z (z - 2)) / z^3,
    f3 = h (-4 - 3z - z^2 + e^z (4 - z)) / z^3

(Cox and Matthews, J. Comput. Phys. 176, 2002, doi 10.1006/jcph.2002.6995). The quotients lose all digits for small ``z``;
they are means over a circle of radius one around ``z`` instead (Kassam and Trefethen, SIAM J. Sci. Comput. 26, 2005,
doi 10.1137/S1064827502410633). The linear part is exact; ``N`` is dealiased by the two-thirds rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.core.gradients import Checkpoint, Gradient
from sciml.core.loop import cuts, march
from sciml.core.problem import Problem
from sciml.core.solution import Answer
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.solvers._pilot import chosen_step
from sciml.solvers._semidiscrete import Semidiscrete

__all__ = ["ExponentialRungeKutta"]

POINTS = 16  # on the half circle: the trapezoidal rule is then exact to the 32nd Taylor coefficient, 1 / 32!


class _Coefficients(NamedTuple):
    """Multipliers of one step, each of the symbol's shape."""

    whole: Tensor
    half: Tensor
    q: Tensor
    f1: Tensor
    f2: Tensor
    f3: Tensor


def coefficients(symbol: Tensor, step: float) -> _Coefficients:
    """The multipliers for a symbol (real or complex), computed in double precision, differentiable in the symbol."""
    real = not symbol.is_complex()
    z = step * symbol.to(torch.float64 if real else torch.complex128)
    # For a real z the lower half of the circle gives the conjugate: the real part of the upper half is the mean.
    angles = (torch.arange(POINTS if real else 2 * POINTS, dtype=torch.float64, device=z.device) + 0.5) * (
        math.pi / POINTS
    )
    sums: list[Tensor] = []
    for point in torch.polar(torch.ones_like(angles), angles):
        w = z + point
        e, cube = torch.exp(w), w * w * w
        terms = (
            (torch.exp(w / 2) - 1) / w,
            (-4 - w + e * (4 - 3 * w + w * w)) / cube,
            (2 + w + e * (w - 2)) / cube,
            (-4 - 3 * w - w * w + e * (4 - w)) / cube,
        )
        terms = tuple(term.real for term in terms) if real else terms
        sums = list(terms) if not sums else [old + term for old, term in zip(sums, terms, strict=True)]
    means = [total * (step / len(angles)) for total in sums]
    return _Coefficients(*(c.to(symbol.dtype) for c in (torch.exp(z), torch.exp(z / 2), *means)))


def prepared(system: Semidiscrete, step: float, dtype: torch.dtype) -> _Coefficients:
    """The multipliers of a step in the dtype of the state; all but the last product see dealiased modes only."""
    c = coefficients(system.symbol, step)
    if system.keep is not None:
        c = _Coefficients(c.whole, *(one * system.keep for one in c[1:]))
    return _Coefficients(*(one.to(dtype) for one in c))


def advance(system: Semidiscrete, c: _Coefficients, t: float, h: float, v: Tensor) -> Tensor:
    """One step from ``v`` at time ``t``."""
    if system.linear:
        return c.whole * v
    n = system.bare(t, v if system.keep is None else v * system.keep)
    middle = c.half * v
    a = torch.addcmul(middle, c.q, n)
    n_a = system.bare(t + h / 2, a)
    n_b = system.bare(t + h / 2, torch.addcmul(middle, c.q, n_a))
    n_c = system.bare(t + h, torch.addcmul(c.half * a, c.q, 2 * n_b - n))
    result = torch.addcmul(c.whole * v, c.f1, n)
    return torch.addcmul(torch.addcmul(result, c.f2, n_a + n_b, value=2), c.f3, n_c)


@dataclass(frozen=True)
class ExponentialRungeKutta(Solver):
    """ETDRK4 with steps of at most ``step``, cut to equal steps between wanted times.

    ``step`` None takes the longest step with which a pilot run (``chosen_step`` in
    ``_pilot.py``) stays below 0.15 of the target; it is told as ``step`` in the solution's stats.
    *Fails when* ``step`` times the growth rate of ``N`` is large: the state then grows without bound, or the certificate is
    missed.
    """

    gradient: ClassVar[Gradient] = Checkpoint(32)
    citations: ClassVar[tuple[str, ...]] = (
        "@article{cox2002, doi={10.1006/jcph.2002.6995}}",
        "@article{kassam2005, doi={10.1137/S1064827502410633}}",
    )
    step: float | None = None

    def __post_init__(self) -> None:
        if self.step is not None and not self.step > 0:
            raise InputError(f"ExponentialRungeKutta(step={self.step}): the step must be positive, or None")

    def accepts(self, problem: Problem) -> str | None:
        """Evolutions with a stiff part."""
        if not isinstance(problem, Evolution):
            return "exponential time differencing solves Evolution problems"
        if problem.stiff is None:
            return "exponential time differencing needs a stiff linear part that a transform makes diagonal"
        return None

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """Step through the wanted times with coefficients computed once per length of step."""
        problem = cast(Evolution, problem)
        system = Semidiscrete(problem)
        state = system.begin
        step = self.step or _own_step(problem)
        # Before the march, which may be recomputed in pieces. Intervals of one length differ by rounding.
        lengths = {f"{h:.12g}": h for _, h, count in cuts(problem, step) if count}
        known = {key: prepared(system, h, state.dtype) for key, h in lengths.items()}

        def leap(t: float, h: float, v: Tensor) -> Tensor:
            return advance(system, known[f"{h:.12g}"], t, h, v)

        answer = march(problem, step, leap, state, system.stiff.inverse, context)
        return replace(answer, counts={"step": step})


def _own_step(problem: Evolution) -> float:
    """The whole span if there is nothing but the stiff part (it is exact), else what a pilot run says."""
    if Semidiscrete(problem).linear:
        return max(problem.times[-1] - problem.begin, 1e-300)
    return chosen_step(problem, _stepper, 4)


def _stepper(problem: Evolution) -> tuple[Callable[[float, float, Tensor], Tensor], Tensor]:
    system = Semidiscrete(problem)
    state = system.begin
    known: dict[float, _Coefficients] = {}

    def leap(t: float, h: float, v: Tensor) -> Tensor:
        if h not in known:
            known[h] = prepared(system, h, state.dtype)
        return advance(system, known[h], t, h, v)

    return leap, state


def example() -> tuple[ExponentialRungeKutta, Any]:
    """A small periodic front, judged by collocation."""
    from sciml.core.law import Law
    from sciml.discretise import Spectrum
    from sciml.domains import Grid, Periodic
    from sciml.solvers.collocation import Collocation

    grid = Grid((9, 14, 11), (1.0, 2.0, 0.7), sides=Periodic())
    x, y, z = grid.points()
    start = 0.8 * torch.cos(2 * torch.pi * x) * torch.sin(torch.pi * y) + 0.1 * torch.cos(2 * torch.pi / 0.7 * z)
    stiff = Spectrum(grid, diffusivity=torch.tensor(0.02, dtype=torch.float64))
    problem = Evolution(
        "a small front", grid.space(), start, (0.25, 0.5), rest=Law(_bistable), stiff=stiff, referee=Collocation()
    )
    return ExponentialRungeKutta(step=0.02), problem


def _bistable(t: float, u: Tensor) -> Tensor:
    return u - u * u * u
