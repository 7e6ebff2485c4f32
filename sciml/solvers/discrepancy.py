"""Morozov's discrepancy principle: the weight of the prior at which the data are fitted as well as their noise allows.

The misfit ``chi^2(x_w) / dof`` of the minimiser ``x_w`` of ``F(x) + w R(x)`` grows with the weight ``w`` when the prior is
convex. The weight sought is the one at which it is ``target``, 1 unless said otherwise: smaller weights fit noise, larger
ones leave signal in the residual. The truth is never looked at.

Source: Morozov, Soviet Math. Dokl. 7, 414 (1966); Engl, Hanke and Neubauer, Regularization of Inverse Problems (1996),
section 4.3.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.gradients import Gradient, Unroll
from sciml.core.inverse import Inverse
from sciml.core.noise import across, total
from sciml.core.prior import Energy
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError

__all__ = ["Discrepancy"]


@dataclass(frozen=True, eq=False)
class Discrepancy(Solver[Any]):
    """``Discrepancy(inner)`` runs ``inner`` at the weight for which chi-square per degree of freedom is ``target``.

    The search is a bracketed secant iteration in the logarithms of weight and misfit, per member, each round started from
    the image of the round before; early rounds are solved to a looser optimality. The answer poses the weight that was
    found, so that the problem judges it by ``optimality`` at that weight and by the ``misfit`` band. ``first`` is the first
    weight; None takes the prior's ``natural_weight`` if it has one, else the one that balances both energies at a crude
    image.

    Raises InputError for settings that make no sense. *Fails when* no weight between 1e-8 and 1e8 times the first one
    brings the misfit to the target, because sigma, the forward model or a bound is wrong: the search ends where the misfit no
    longer follows the weight, and the misfit gate says so.
    """

    inner: Solver[Any]
    target: float = 1.0
    rounds: int = 12
    first: float | None = None

    gradient: ClassVar[Gradient] = Unroll()
    citations: ClassVar[tuple[str, ...]] = (
        "@article{morozov1966, author={Morozov, V. A.}, title={On the solution of functional equations by the method of regularization}, journal={Soviet Math. Dokl.}, volume={7}, pages={414--417}, year={1966}}",
    )

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Solver):
            raise InputError(f"Discrepancy wraps a solver such as PrimalDual(), not {self.inner!r}")
        if not self.target > 0 or self.rounds < 1 or (self.first is not None and not self.first > 0):
            raise InputError(
                f"Discrepancy(target={self.target}, rounds={self.rounds}, first={self.first}): all must be positive"
            )

    def accepts(self, problem: Problem) -> str | None:
        """Inverse problems with a prior that states an energy, and that the inner solver accepts at some weight."""
        if not isinstance(problem, Inverse):
            return "it chooses the weight of a prior, and only Inverse problems have one"
        if problem.prior is None:
            return "it has no prior whose weight could be chosen; give one with problem.with_prior(...)"
        if not problem.energetic:
            return (
                f"its prior {type(problem.prior).__name__} states no energy that a weight could multiply; use a sampler"
            )
        return self.inner.accepts(dataclasses.replace(problem, weight=1.0))

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """The search without gradients, then the answer at the weight that was found."""
        assert isinstance(problem, Inverse)
        goal = problem.targets["optimality"]
        band = problem.targets["misfit"] / 4
        # Members may be batched in the data alone; each has its own weight.
        search = _Search(self._first(problem, start), self.target)
        image, steps, answer = start, 0, None
        loose = problem.with_target(optimality=max(goal, 20 * goal if goal < 5e-3 else goal))
        tight = False
        with torch.no_grad():
            for _ in range(self.rounds):
                posed = dataclasses.replace(problem if tight else loose, weight=search.weight, recipe=None)
                answer = self.inner.run(posed, image, context)
                steps += answer.steps
                if bool((answer.claim >= Code.BREAKDOWN).all()):
                    break
                image = answer.value
                chi = problem.misfit(image)
                settled = search.settled(chi, band)
                if settled and tight:
                    break
                tight = tight or settled or search.narrow
                search.advance(chi, band)
            else:
                if not tight:  # no weight reaches the band: the last one is at least solved as asked
                    posed = dataclasses.replace(problem, weight=posed.weight, recipe=None)
                    answer = self.inner.run(posed, image, context)
                    steps += answer.steps
        if torch.is_grad_enabled():
            posed = dataclasses.replace(problem, weight=search.weight, recipe=None)
            answer = self.inner.run(posed, image, context)
        assert answer is not None
        counts = {**answer.counts, "weights tried": float(search.tried)}
        return dataclasses.replace(answer, posed=posed.weight, steps=steps, counts=counts)

    def _first(self, problem: Inverse[Any], start: Tensor | None) -> Tensor:
        dtype, device = problem.data.real.dtype, problem.data.device
        one = torch.ones(problem.batch, dtype=dtype, device=device)
        if self.first is not None:
            return self.first * one
        natural = getattr(problem.prior, "natural_weight", None)
        if natural is not None:
            return float(natural) * one
        if not isinstance(problem.prior, Energy):
            return one
        with torch.no_grad():
            if start is None:
                # One exact line search along the negative gradient at zero.
                zero = problem.space.zeros(problem.batch)
                _, gradient = problem.fidelity(zero)
                ahead = problem.forward.linearise(zero)(gradient)
                bent = problem.noise.bend(ahead, problem.forward(zero), problem.data)
                length = total(gradient.abs().square()) / total((ahead.conj() * bent).real).clamp_min(1e-300)
                start = zero - across(length, zero) * gradient
            inside = getattr(problem.prior, "inside", None)
            start = start if inside is None else inside(start)
            energy = problem.prior.energy(start).to(one).expand(problem.batch)
        weight = 0.5 * problem.noise.dof(problem.data).to(one) / energy.clamp_min(torch.finfo(dtype).tiny)
        return torch.where(torch.isfinite(weight) & (energy > 0) & (weight > 0), weight, one)


class _Search:
    """Bracketed secant iteration for ``log chi(log w) = log target``, per member."""

    def __init__(self, first: Tensor, target: float) -> None:
        self.weight, self.goal, self.tried = first, math.log(target), 0
        w = first.to(torch.float64).log()
        self.least, self.most = w - 18.4, w + 18.4
        self.low, self.high = torch.full_like(w, -math.inf), torch.full_like(w, math.inf)
        self.before: tuple[Tensor, Tensor] | None = None
        self.stuck = torch.zeros_like(w, dtype=torch.bool)  # the misfit no longer follows the weight

    def settled(self, chi: Tensor, band: float) -> bool:
        """Whether every member is in the band, or beyond the reach of any weight."""
        self.tried += 1
        return bool(((chi.log() - self.goal).abs().le(math.log1p(band)) | self.stuck).all())

    @property
    def narrow(self) -> bool:
        """Whether the weights are known to within a factor of 1.3."""
        return bool((self.high - self.low < math.log(1.3)).all())

    def advance(self, chi: Tensor, band: float) -> None:
        """The next weights; members in the band keep theirs."""
        w, f = self.weight.to(torch.float64).log(), chi.to(torch.float64).clamp_min(1e-300).log() - self.goal
        self.low = torch.where(f < 0, torch.maximum(self.low, w), self.low)
        self.high = torch.where(f >= 0, torch.minimum(self.high, w), self.high)
        slope = torch.ones_like(w)
        if self.before is not None:
            past, value = self.before
            rise = (f - value) / torch.where(w == past, torch.ones_like(w), w - past)
            slope = torch.where((w != past) & torch.isfinite(rise) & (rise > 0), rise.clamp(0.05, 4.0), slope)
            open_end = torch.isinf(self.low) | torch.isinf(self.high)
            self.stuck = self.stuck | (open_end & ((w - past).abs() > 1) & (rise.abs() < 0.02))
        self.before = (w, f)
        new = w - (f / slope).clamp(-4.0, 4.0)
        inside = (new > self.low) & (new < self.high)
        middle = 0.5 * (self.low + self.high)
        new = torch.where(inside, new, torch.where(torch.isfinite(middle), middle, new))
        keep = (f.abs() <= math.log1p(band)) | self.stuck
        new = torch.where(keep, w, torch.minimum(torch.maximum(new, self.least), self.most))
        self.weight = new.exp().to(self.weight)


def example() -> tuple[Discrepancy, Inverse[Any]]:
    """The weight of total variation for a blocky signal seen through a random matrix."""
    from sciml.solvers.primal_dual import PrimalDual
    from sciml.solvers.primal_dual import example as blocky

    _, problem = blocky()
    return Discrepancy(PrimalDual()), dataclasses.replace(problem, weight=None)
