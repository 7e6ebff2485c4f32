r"""POD-Galerkin reduced models: an evolution projected on the modes of solutions that were computed before.

Snapshots of solutions for some parameters span, nearly, the solutions for others. With the first ``r`` of their proper
orthogonal modes ``V`` and ``u ~ V a`` the evolution becomes ``r`` ordinary differential equations,

    da/dt = <V, S V> a + <V, N(V a)>,

with the stiff part ``S`` of every member projected exactly. A nonlinearity that is a pointwise function ``g`` behind a linear operator
(transport, reactions) is interpolated at few points (DEIM), so that a time step costs nothing that grows with the grid;
any other is evaluated on the whole grid. All members of a batch advance together. The error is bounded from the residual
of a richer reduced model of the same snapshots (``_error_bound.py``).

References: Sirovich 1987, doi 10.1090/qam/910462; Kunisch and Volkwein, Numer. Math. 90, 2001, doi 10.1007/s002110100282; Chaturantabut and
Sorensen 2010, doi 10.1137/090766498.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.core.gradients import Gradient, Unroll
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code, Segment
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.learned._error_bound import bound_of, nodes_of
from sciml.learned._galerkin import SmallSystem
from sciml.learned._reduction import Reduction
from sciml.solvers.exponential import ExponentialRungeKutta

__all__ = ["ReducedModel"]

SHARE = 1e-5  # error of the time steps, relative to the state


@dataclass(frozen=True, eq=False)
class ReducedModel(Solver):
    """``ReducedModel(snapshots, modes=20)``: ``snapshots`` is the Solution of a batch, a generated data set, or ``ReducedModel.load(folder)``.

    ``reference`` is the number of modes of the richer model behind the bound (None: three times ``modes``, 0: no bound). The bound is the
    solution's ``history`` ``(times, batch)``, relative to the size of the reduced solution, and its largest value is ``stats["bound"]``.
    The answer at the start time is the start itself. Nothing is claimed beyond: the problem's ``steps`` gate judges, so that an answer is
    UNCERTIFIED unless the target was loosened. *Fails when* solutions leave the span of the snapshots: other parameters or starts (refused),
    or fronts that travel through places where no snapshot had them (the bound shows it).
    """

    gradient: ClassVar[Gradient] = Unroll()
    citations: ClassVar[tuple[str, ...]] = (
        "@article{sirovich1987, doi={10.1090/qam/910462}}",
        "@article{kunisch2001, doi={10.1007/s002110100282}}",
        "@article{chaturantabut2010, doi={10.1137/090766498}}",
    )

    snapshots: Any
    modes: int = 20
    reference: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "snapshots", Reduction.of(self.snapshots))
        if (
            self.modes < 1
            or (self.reference is not None and 0 < self.reference <= self.modes)
            or (self.reference or 0) < 0
        ):
            raise InputError(
                f"ReducedModel(modes={self.modes}, reference={self.reference}): at least one mode, and more in the reference (or none, 0)"
            )

    @property
    def reduction(self) -> Reduction:
        """What the snapshots left behind."""
        found: Reduction = self.snapshots
        return found

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write modes, points and ranges to ``folder/reduction.safetensors``, whole or not at all."""
        self.reduction.save(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], modes: int = 20, reference: int | None = None) -> ReducedModel:
        """Read what ``save`` wrote. Raises InputError if it is something else."""
        return cls(Reduction.load(folder), modes, reference)

    def accepts(self, problem: Problem) -> str | None:
        """Evolutions on the grid of the snapshots, with parameters, times and starts within what they cover."""
        if not isinstance(problem, Evolution):
            return "a reduced model steps in time; for a steady problem use Trained"
        if problem.stiff is not None and problem.stiff.symbol.is_complex():
            return "its stiff part is not symmetric; a reduced model takes diffusion of any order, not dispersion"
        reason = self.reduction.mismatch(problem)
        if reason is not None:
            return reason
        return self._strange_start(problem)

    def _strange_start(self, problem: Evolution) -> str | None:
        space, modes = problem.space, self.reduction.modes.to(problem.space.device)
        start = problem.start.detach().to(torch.float64)
        tested = (modes * space.weights(torch.float64)).flatten(1)
        left = start - ((start.flatten(1) @ tested.T) @ modes.flatten(1)).reshape(start.shape)
        away = space.norm(left) / space.norm(start).clamp_min(1e-300)
        allowed = max(10 * self.reduction.misfit, 1e-2)
        if bool((away > allowed).any()):
            at = int(away.argmax())
            return (
                f"{float(away[at]):.1e} of the start of member {at} lies outside of the modes (snapshots: "
                f"{self.reduction.misfit:.1e}); take snapshots from such starts too"
            )
        return None

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """Project, step, and lift."""
        assert isinstance(problem, Evolution)
        double, space = problem.to(torch.float64), problem.space
        held = len(self.reduction.modes)
        count = min(self.modes, held)
        wanted = problem.times if problem.times[-1] > problem.begin else (*problem.times,)
        small = SmallSystem.of(double, self.reduction, count, 2 * count, wanted)
        answer = _advanced(small, context)
        value = small.field(answer.value)
        if problem.times[0] == problem.begin:
            first = double.start.expand(problem.batch, *space.shape).unsqueeze(1)
            value = torch.cat((first, value[:, 1:]), 1)
        history, counts = None, dict(answer.counts)
        reference = 3 * count if self.reference is None else self.reference
        if reference and held > count:
            with torch.no_grad():
                history = self._bound(double, value.detach(), min(reference, held), context)
            counts["bound"] = float(history.max())
        counts["modes"] = float(count)
        segments = tuple(
            Segment(s.begin, s.end, small.field(s.before).to(space.dtype), small.field(s.after).to(space.dtype))
            for s in answer.segments
        )
        finite = torch.isfinite(value.detach()).flatten(1).all(1)
        claim = torch.where(finite, int(Code.CONVERGED), int(Code.DIVERGED))
        told = "" if history is None else f" (error at most {counts['bound']:.1e} of the state, by its own bound)"
        return Answer(
            value.to(space.dtype),
            claim,
            steps=answer.steps,
            counts=counts,
            history=history,
            segments=segments,
            step_count=answer.step_count,
            sentence=f"the reduced model's answer{told} does not meet the target; take more modes, or loosen with_target(steps=...)",
        )

    def _bound(self, problem: Evolution, value: Tensor, modes: int, context: Context) -> Tensor:
        """The bound at the wanted times relative to the state, ``(times, batch)``."""
        space, nodes = problem.space, nodes_of(problem)
        rich = SmallSystem.of(problem, self.reduction, modes, 2 * modes, nodes)
        states = _advanced(rich, context).value
        bounds = bound_of(problem, rich, nodes, states)
        found = []
        for i, t in enumerate(problem.times):
            j = nodes.index(t)
            away = space.norm(rich.field(states[:, j]) - value[:, i])
            found.append((away + bounds[:, j]) / space.norm(value[:, i]).clamp_min(1e-300) + 2 * SHARE)
            if t == problem.begin:
                found[-1] = torch.full_like(found[-1], 1e-14)  # the start itself, up to rounding
        return torch.stack(found)


def _advanced(small: SmallSystem, context: Context) -> Answer:
    """The coefficients at the wanted times, ``(batch, times, 1, r)``."""
    return ExponentialRungeKutta().run(small.evolution.with_target(steps=SHARE), None, context)


def example() -> tuple[ReducedModel, Any]:
    """Diffusion with a reaction on a line, from four rates of diffusion to a fifth."""
    from sciml.core.law import Law
    from sciml.discretise import Spectrum
    from sciml.domains import Grid, Periodic
    from sciml.solvers import Collocation

    grid = Grid((24,), (1.0,), Periodic())
    (x,) = grid.points()
    start = torch.sin(2 * torch.pi * x) + 0.5 * torch.cos(4 * torch.pi * x)

    def posed(rates: list[float]) -> Evolution:
        rate = torch.tensor(rates, dtype=torch.float64)
        times = (0.02, 0.05, 0.1)
        return Evolution(
            "a fading wave",
            grid.space(),
            start,
            times,
            Law(_reaction),
            Spectrum(grid, diffusivity=rate),
            referee=Collocation(),
        )

    taught = posed([0.02, 0.05, 0.1, 0.2])
    value = ExponentialRungeKutta(step=2e-3).run(taught, None, Context()).value
    from sciml.core.solution import Solution

    codes = torch.full((4,), int(Code.CONVERGED))
    return ReducedModel(Solution(value, codes, (), taught, None, {}), modes=4, reference=8), posed([0.07])


def _reaction(t: float, u: Tensor) -> Tensor:
    return u - u * u * u
