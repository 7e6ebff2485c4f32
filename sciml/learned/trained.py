"""A trained network as a solver of steady problems.

The network maps the problem's fields, by the names it was trained with, to the answer. Nothing is iterated and nothing is
claimed: the problem judges the answer like any other, so it is UNCERTIFIED unless the target was loosened. *Fails when* the
problem is not of the kind the network was trained on: other names, another domain, other side conditions (all refused), or
fields outside the training range (the certificate then shows it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.core.gradients import Gradient, Unroll
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.training.fitted import Fit
from sciml.training.samples import Signature

__all__ = ["Trained"]


@dataclass(frozen=True, eq=False)
class Trained(Solver):
    """``Trained(fit)``: one evaluation of the network, in batches of ``batch_size`` members.

    Derivatives pass through the network (``Unroll``).
    """

    fit: Fit
    batch_size: int = 64
    gradient: ClassVar[Gradient] = Unroll()

    def __post_init__(self) -> None:
        if not isinstance(self.fit, Fit):
            raise InputError(
                f"Trained takes a fit, not {type(self.fit).__name__}; train one with sciml.fit(...), or load one with "
                "sciml.pretrained(name or folder)"
            )

    def accepts(self, problem: Problem) -> str | None:
        """Steady problems whose fields, grid kind, extent and channels are those of the fit's Signature."""
        signature = self.fit.signature
        if isinstance(problem, Evolution) or signature.history:
            return "the network gives one field for one set of fields; for an evolution use Rollout"
        return mismatch(self.fit, problem, signature.inputs)

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """Evaluate the network on the problem's fields."""
        fields = inputs_of(problem, self.fit.signature.inputs)
        parts = []
        for first in range(0, problem.batch, self.batch_size):
            parts.append(self.fit.apply(fields[first : first + self.batch_size]))
        value = torch.cat(parts).to(problem.space.device, problem.space.dtype)
        finite = torch.isfinite(value.detach()).flatten(1).all(1)
        claim = torch.where(finite, int(Code.CONVERGED), int(Code.DIVERGED))
        return Answer(
            value,
            claim,
            counts={"evaluations": float(len(parts))},
            sentence="the network's answer does not meet the target; chain it, Chained(Trained(fit), ConjugateGradient()), or loosen with_target",
        )


def mismatch(fit: Fit, problem: Problem, inputs: tuple[str, ...]) -> str | None:
    """Why the fit does not suit the problem, in one sentence, or None."""
    domain = problem.space.domain
    if not isinstance(domain, Grid):
        return "the network works on grids and the problem has none"
    known = problem.parameters()
    missing = [name for name in inputs if name not in known]
    if missing:
        return f"the network needs the field {missing[0]!r}; the problem has {', '.join(known)}"
    signature = fit.signature
    if signature.targets != (problem.unknown,):
        return f"the network predicts {', '.join(signature.targets)}, the problem asks for {problem.unknown}"
    channels = {name: known[name].shape[1] if known[name].ndim > 2 else 1 for name in inputs}
    channels[problem.unknown] = problem.space.shape[0]
    theirs = Signature.of_grid(
        domain,
        inputs,
        signature.targets,
        channels,
        time_spacing=signature.time_spacing,
        history=signature.history,
        horizon=signature.horizon,
    )
    return signature.mismatch(theirs)


def inputs_of(problem: Problem, names: tuple[str, ...]) -> Tensor:
    """The named fields as channels, ``(batch, channels, *space)``; numbers become constant channels."""
    known, space = problem.parameters(), problem.space.shape[1:]
    columns = []
    for name in names:
        value = known[name]
        value = value.reshape(-1, *[1] * (len(space) + 1)) if value.ndim <= 1 else value
        columns.append(value.expand(problem.batch, value.shape[1], *space))
    return torch.cat(columns, 1)


def example() -> tuple[Trained, Any]:
    """An untrained network on a small Darcy problem: an answer with checks, whatever they say."""
    from sciml.core.problem import Linear
    from sciml.discretise import Diffusion
    from sciml.networks import FNO
    from sciml.training.samples import Normaliser

    grid = Grid((9, 14), (1.0, 2.0))
    x, y = grid.points()
    problem = Linear("small darcy", Diffusion(grid, 1 + x * y), torch.ones(1, 1, 9, 14, dtype=torch.float64))
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    network = FNO(dim=2, modes=3, width=8, layers=2).eval()
    torch.set_rng_state(torch_state)
    plain = Normaliser.identity(1)
    fit = Fit(network, Signature.of_grid(grid, ("coefficient",), ("u",), {"coefficient": 1, "u": 1}), plain, plain, [])
    return Trained(fit), problem
