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
from sciml.core.noise import across, inner
from sciml.core.prior import Energy
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError

__all__ = ["Discrepancy"]


SHARE = 0.3  # of the misfit's energy by which the objective of a round may be too high
TRUSTED = 1.0  # the same, beyond which the misfit of an unfinished round is not believed
NARROW = math.log(1.3)  # between two weights that are as good as the same
BRIEF = 80  # steps of a round that only weighs the misfit, where the prior's map is learned and may not settle


@dataclass(frozen=True, eq=False)
class Discrepancy(Solver[Any]):
    """``Discrepancy(inner)`` runs ``inner`` at the weight for which chi-square per degree of freedom is ``target``.

    The search is a bracketed secant iteration in the logarithms of weight and misfit, per member, each round started from
    the image of the round before; the first of at most ``rounds`` rounds are solved to a looser optimality. A round that
    ``inner`` did not finish says nothing of the weight sought, and a larger weight, which is easier, is tried next. With a learned
    proximal map, which need not settle, rounds take at most 80 steps until the weight is known. The answer is the
    best of the weights tried, solved at the problem's own ``optimality``; the problem judges it by that and by the ``misfit``
    band. ``first`` is the first weight; None takes the prior's ``natural_weight`` if it has one, else one that weighs the energies
    of a crude image, the larger, the more the data stand out of their noise.

    The misfit gate asks for 1 within its band whatever ``target`` is: 1 is what the stated sigma says. A ``target`` outside of
    the band is for experiments and fails that gate; if the data are noisier than was said, state a larger sigma, and for another
    band use ``problem.with_target(misfit=...)``.

    Raises InputError for settings that make no sense. *Fails when* no weight between 1e-8 and 1e8 times the first one
    brings the misfit to the target, because sigma, the forward model or a bound is wrong: the search ends where smaller weights
    no longer lower the misfit, and the misfit gate says so.
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
            return f"its prior {type(problem.prior).__name__} states no energy that a weight could multiply; use PlugAndPlay() or a sampler"
        return self.inner.accepts(dataclasses.replace(problem, weight=1.0))

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """The search without gradients, then the answer at the weight that was found."""
        assert isinstance(problem, Inverse)
        goal = problem.targets["optimality"]
        # Members may be batched in the data alone; each has its own weight.
        search = _Search(self._first(problem, start), self.target, problem.targets["misfit"] / 4)
        loose = 20 * goal if goal < 5e-3 else goal
        brief = _brief(self.inner, problem)
        image, steps, tight, done = start, 0, False, False
        answer: Answer | None = None
        with torch.no_grad():
            for _ in range(self.rounds):
                fine = min(goal if tight else loose, max(1e-6, SHARE * self._share(problem, search.weight, image)))
                posed = dataclasses.replace(problem, weight=search.weight, recipe=None).with_target(optimality=fine)
                answer = (self.inner if tight else brief).run(posed, image, context)
                steps += answer.steps
                if done := bool((answer.claim >= Code.BREAKDOWN).all()):
                    break
                solved = _solved(posed, answer)
                settled = search.look(problem.misfit(answer.value), solved)
                image = _kept(problem, image, answer.value, solved)
                if done := settled and tight:
                    break
                narrow = search.narrow
                search.advance()
                if not tight and (settled or narrow or search.ended):
                    tight = True
                    search.forget()
            if not done:  # the best weight, at the problem's own target
                posed = dataclasses.replace(problem, weight=search.best, recipe=None)
                answer = self.inner.run(posed, image, context)
                steps += answer.steps
        if torch.is_grad_enabled():
            posed = dataclasses.replace(problem, weight=posed.weight, recipe=None)
            answer = self.inner.run(posed, image, context)
        assert answer is not None
        counts = {**answer.counts, "weights tried": float(search.tried)}
        return dataclasses.replace(answer, posed=posed.weight, steps=steps, counts=counts)

    def _share(self, problem: Inverse[Any], weight: Tensor, image: Tensor | None) -> float:
        """How much of the objective the misfit is at the weight sought, in the member where it is least: data that stand far out
        of their noise leave almost all of it to the prior, and a small relative error of the objective is a large one of the misfit."""
        if image is None or not isinstance(problem.prior, Energy) or _learned(problem):
            return 1.0
        mine = 0.5 * self.target * problem.noise.dof(problem.data)
        rest = weight.to(mine) * problem.prior.energy(image).to(mine)
        return float((mine / (mine + rest)).nan_to_num(1.0).min())

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
                length = inner(gradient, gradient) / inner(ahead, bent).clamp_min(1e-300)
                start = zero - across(length, zero) * gradient
            inside = getattr(problem.prior, "inside", None)
            start = start if inside is None else inside(start)
            energy = problem.prior.energy(start).to(one).expand(problem.batch)
            heard = self._heard(problem).to(one)
        weight = 0.5 * problem.noise.dof(problem.data).to(one) / energy.clamp_min(torch.finfo(dtype).tiny)
        weight = torch.where(heard > weight, (heard * weight).sqrt(), weight)
        return torch.where(torch.isfinite(weight) & (energy > 0) & (weight > 0), weight, one)

    @staticmethod
    def _heard(problem: Inverse[Any]) -> Tensor:
        """The weight at which a step towards an image of noise alone gains as much as it costs; zero if that is not known."""
        prior: Any = problem.prior
        zero = problem.space.zeros(problem.batch)
        tangent = problem.forward.linearise(zero)
        generator = torch.Generator().manual_seed(0)
        shape, like = (1, *problem.data.shape[1:]), problem.data
        draw = torch.randn(shape, generator=generator, dtype=torch.float64).to(like).expand(like.shape)
        gradient = tangent.adjoint(problem.noise.unwhiten(draw, problem.data))
        ahead = tangent(gradient)
        bent = problem.noise.bend(ahead, problem.forward(zero), problem.data)
        size = inner(gradient, gradient)
        length = size / inner(ahead, bent).clamp_min(1e-300)
        found: Tensor = length * size / prior.energy(across(length, zero) * gradient).to(size).clamp_min(1e-300)
        return torch.where(torch.isfinite(found), found, torch.zeros_like(found))


def _brief(inner: Solver[Any], problem: Inverse[Any]) -> Solver[Any]:
    """``inner`` for rounds that only weigh the misfit: few steps for a learned map, which may take long to settle, or never."""
    steps = getattr(inner, "max_steps", None)
    if steps is None or not _learned(problem):
        return inner
    brief: Solver[Any] = dataclasses.replace(inner, max_steps=min(steps, BRIEF))  # type: ignore[type-var]
    return brief


def _learned(problem: Inverse[Any]) -> bool:
    """Whether the prior's proximal map is known at one step only, and so learned: its energy is dear, its iteration need not settle."""
    return getattr(problem.prior, "only_step", None) is not None


def _kept(problem: Inverse[Any], image: Tensor | None, found: Tensor, solved: Tensor) -> Tensor:
    """Where the next round starts: from what was found, unless it was not solved and fits the data worse than the start did."""
    if image is None or bool(solved.all()):
        return found
    good = solved | (problem.misfit(found) <= problem.misfit(image))
    return torch.where(good.reshape(-1, *[1] * (found.ndim - 1)), found, image)


def _solved(posed: Inverse[Any], answer: Answer) -> Tensor:
    """The members whose misfit is about that of the minimiser: those that the solver finished, or nearly."""
    claimed = answer.claim <= Code.CONVERGED
    if bool(claimed.all()):
        return claimed
    weight, x = posed.weights(), answer.value
    assert weight is not None
    found = posed.optimality(x, weight, answer.dual)
    if _learned(posed) or not isinstance(posed.prior, Energy):
        return claimed | (found <= 0.1 * TRUSTED)
    return claimed | (found * posed.objective(x, weight) <= TRUSTED * posed.noise.energy(posed.forward(x), posed.data))


class _Search:
    """Bracketed secant iteration for ``log chi(log w) = log target``, per member."""

    def __init__(self, first: Tensor, target: float, band: float) -> None:
        self.weight, self.goal, self.band, self.tried = first, math.log(target), math.log1p(band), 0
        w = first.to(torch.float64).log()
        self.least, self.most = w - 18.4, w + 18.4
        self.hard = torch.full_like(w, -math.inf)  # the largest weight that was too hard to solve
        self.miss, self.solved = torch.zeros_like(w), torch.zeros_like(w, dtype=torch.bool)
        self.value = torch.zeros_like(w)
        self.stuck = torch.zeros_like(w, dtype=torch.bool)  # no weight reaches the target
        self.best = first
        self.forget()

    def forget(self) -> None:
        """Weigh the weights tried from here on only by what comes: looser solutions may have been on the wrong side."""
        self.least_miss = torch.full_like(self.least, math.inf)
        self.low, self.high = torch.full_like(self.least, -math.inf), torch.full_like(self.least, math.inf)
        self.past = torch.full_like(self.least, math.nan)

    def look(self, chi: Tensor, solved: Tensor) -> bool:
        """Take in a misfit at the weights; whether every member is in the band, or beyond the reach of any weight."""
        self.tried += 1
        self.miss = chi.to(torch.float64).clamp_min(1e-300).log() - self.goal
        self.solved = solved
        # What was not solved is the answer only if nothing was.
        size = torch.where(solved, self.miss.abs(), self.miss.abs() + 1e6)
        better = size < self.least_miss
        self.least_miss = torch.where(better, size, self.least_miss)
        self.best = torch.where(better, self.weight, self.best)
        return self.ended

    @property
    def _inside(self) -> Tensor:
        return self.solved & (self.miss.abs() <= self.band)

    @property
    def ended(self) -> bool:
        """Whether no other weight is to be tried for any member."""
        return bool((self._inside | self.stuck).all())

    @property
    def narrow(self) -> bool:
        """Whether the weights are known to within a factor of 1.3."""
        return bool((self.high - self.low < NARROW).all())

    def advance(self) -> None:
        """The next weights; members in the band keep theirs."""
        w, f, solved = self.weight.to(torch.float64).log(), self.miss, self.solved
        below, above = solved & (f < 0), solved & (f >= 0)
        # A better solution may contradict an end of the bracket, which is then open again.
        self.high = torch.where(below & (w >= self.high), math.inf, torch.where(above, self.high.minimum(w), self.high))
        self.low = torch.where(above & (w <= self.low), -math.inf, torch.where(below, self.low.maximum(w), self.low))
        self.hard = torch.where(solved, self.hard, torch.maximum(self.hard, w))
        self.hard = torch.where(self.hard < self.high, self.hard, -math.inf)
        moved = torch.isfinite(self.past) & (w != self.past)
        rise = (f - self.value) / torch.where(moved, w - self.past, torch.ones_like(w))
        slope = torch.where(moved & torch.isfinite(rise) & (rise > 0), rise.clamp(0.05, 4.0), torch.ones_like(w))
        slope = torch.where(moved & below & (rise <= 0), 0.05, slope)  # the plateau of small weights
        # Where the misfit hardly falls with the weight it falls ever less: one that leads beyond all bounds leads nowhere.
        flat = (rise < 0.02) | (f > rise * (w - self.least))
        self.stuck |= above & moved & torch.isinf(self.low) & ((w - self.past).abs() > 1) & flat
        self.past, self.value = torch.where(solved, w, self.past), torch.where(solved, f, self.value)
        new = torch.where(solved, w - (f / slope).clamp(-4.0, 4.0), w + 3.0)
        floor = torch.maximum(self.low, self.hard)
        self.stuck |= torch.isinf(self.low) & (self.high - self.hard < NARROW)  # all smaller weights are too hard
        middle = 0.5 * (floor + self.high)
        inside = (new > floor) & (new < self.high)
        new = torch.where(inside, new, torch.where(torch.isfinite(middle), middle, new))
        new = torch.minimum(torch.maximum(new, self.least), self.most)
        self.stuck |= ~self._inside & (new == w)
        kept = torch.where(self.stuck & ~solved & torch.isfinite(self.past), self.past, w)
        self.weight = torch.where(self._inside | self.stuck, kept, new).exp().to(self.weight)


def example() -> tuple[Discrepancy, Inverse[Any]]:
    """The weight of total variation for a blocky signal seen through a random matrix."""
    from sciml.solvers.primal_dual import PrimalDual
    from sciml.solvers.primal_dual import example as blocky

    _, problem = blocky()
    return Discrepancy(PrimalDual()), dataclasses.replace(problem, weight=None)
