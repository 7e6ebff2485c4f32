"""A trained one-step network as a solver of evolutions.

The network maps the last ``history`` frames to the next ``horizon`` frames, at the time spacing it was trained on; it is
applied again and again. Wanted times must be whole numbers of steps apart. *Fails when* errors accumulate: the frames the
network makes drift from those it was trained on, which the problem's ``steps`` gate and the invariants show.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.core.gradients import Gradient, Unroll
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code, Segment
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.training.fitted import Fit

__all__ = ["Rollout"]


@dataclass(frozen=True, eq=False)
class Rollout(Solver):
    """``Rollout(fit)``; ``time_spacing`` is that of the fit unless the data did not say.

    With ``history > 1`` the first frames are needed: they are passed as ``start`` of shape
    ``(batch, history, channel, *space)``, the problem's start being the last of them.
    """

    fit: Fit
    time_spacing: float | None = None
    gradient: ClassVar[Gradient] = Unroll()

    def _spacing(self) -> float | None:
        return self.time_spacing if self.time_spacing is not None else self.fit.signature.time_spacing

    def __post_init__(self) -> None:
        if not isinstance(self.fit, Fit):
            raise InputError(
                f"Rollout takes a fit, not {type(self.fit).__name__}; train one with sciml.fit(...), or load one with "
                "sciml.pretrained(name or folder)"
            )

    def accepts(self, problem: Problem) -> str | None:
        """Evolutions on the grid kind and extent of the fit, at times a whole number of its steps apart."""
        signature = self.fit.signature
        if not isinstance(problem, Evolution):
            return "the network steps in time; for a steady problem use Trained"
        if not signature.history:
            return "the network was trained on pairs, not on windows of trajectories; use Trained"
        spacing = self._spacing()
        if spacing is None:
            return "the training data did not say how far apart frames are; pass Rollout(fit, time_spacing=...)"
        for a, b in pairwise((problem.begin, *problem.times)):
            if abs((b - a) / spacing - round((b - a) / spacing)) > 1e-6:
                return f"the network steps by {spacing:g} in time, which does not divide the interval {a:g} to {b:g}"
        domain = problem.space.domain
        if domain is None:
            return "the network works on grids and the problem has none"
        if signature.in_channels != signature.history * problem.space.shape[0]:
            return f"the network takes {signature.in_channels} channels, the state has {problem.space.shape[0]}"
        if signature.targets != (problem.unknown,):
            return f"the network predicts {', '.join(signature.targets)}, the problem asks for {problem.unknown}"
        return _kind(self.fit, problem)

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """Step from the start through the wanted times."""
        assert isinstance(problem, Evolution)
        signature, spacing = self.fit.signature, self._spacing()
        assert spacing is not None
        channels, batch = problem.space.shape[0], problem.batch
        first = problem.start.expand(batch, *problem.space.shape)
        frames = [first]
        if signature.history > 1:
            if start is None or start.ndim != first.ndim + 1 or start.shape[1] != signature.history:
                raise InputError(
                    f"{problem.name!r}: this network looks at {signature.history} frames; pass them as start, shape (batch, {signature.history}, {', '.join(map(str, problem.space.shape))})"
                )
            frames = [start[:, i].to(first) for i in range(signature.history)]
        counts = [round((b - a) / spacing) for a, b in pairwise((problem.begin, *problem.times))]
        total, kept = sum(counts), context.kept(max(sum(counts), 1))
        produced: list[Tensor] = []
        while len(produced) < total:
            window = torch.cat((frames + produced)[-signature.history :], 1)
            block = self.fit.apply(window).to(first)
            produced += list(torch.split(block, channels, 1))
            if context.progress is not None:
                context.progress(len(produced), total, 0.0)
        states = [first, *produced[:total]]
        at, outputs = 0, []
        ends = set()
        for count, time in zip(counts, problem.times, strict=True):
            at += count
            outputs.append(states[at])
            if time in problem.watched:
                ends.add(at - 1)
        segments = tuple(
            Segment(
                problem.begin + i * spacing,
                problem.begin + (i + 1) * spacing,
                states[i].detach(),
                states[i + 1].detach(),
            )
            for i in sorted({*kept, *ends})
            if 0 <= i < total
        )
        value = torch.stack(outputs, 1)
        finite = torch.isfinite(value.detach()).flatten(1).all(1)
        claim = torch.where(finite, int(Code.CONVERGED), int(Code.DIVERGED))
        return Answer(
            value,
            claim,
            steps=total,
            segments=segments,
            step_count=total,
            sentence="the network's steps are not those of the equation to the target; loosen with_target(steps=...) or use a classical integrator",
        )


def _kind(fit: Fit, problem: Evolution) -> str | None:
    """Grid kind and extent, compared through the signature of a problem that offers the state under the trained name."""
    domain, signature = problem.space.grid, fit.signature
    per_frame = dict.fromkeys((*signature.inputs, *signature.targets), problem.space.shape[0])
    theirs = type(signature).of_grid(
        domain,
        signature.inputs,
        signature.targets,
        per_frame,
        time_spacing=signature.time_spacing,
        history=signature.history,
        horizon=signature.horizon,
    )
    return signature.mismatch(theirs)


def example() -> tuple[Rollout, Any]:
    """An untrained network on pure decay in one dimension."""
    from sciml.core.law import Law
    from sciml.domains import Grid, Periodic
    from sciml.networks import FNO
    from sciml.training.samples import Normaliser, Signature

    grid = Grid((16,), (1.0,), Periodic())
    (x,) = grid.points()
    problem = Evolution(
        "decay",
        grid.space(),
        torch.sin(6.283185307179586 * x),
        times=(0.5, 1.0),
        rest=Law(lambda t, u, *, rate: -rate * u, rate=torch.tensor(1.0, dtype=torch.float64)),
    )
    state = torch.get_rng_state()
    torch.manual_seed(0)
    network = FNO(dim=1, modes=3, width=8, layers=2).eval()
    torch.set_rng_state(state)
    plain = Normaliser.identity(1)
    signature = Signature.of_grid(grid, ("u",), ("u",), {"u": 1}, time_spacing=0.25, history=1, horizon=1)
    return Rollout(Fit(network, signature, plain, plain, [])), problem
