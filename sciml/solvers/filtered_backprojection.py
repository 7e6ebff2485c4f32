r"""Filtered back-projection: the explicit inverse of the Radon transform, applied to sampled, noisy data.

    x = R^# (window . |frequency|) y

The forward model does it (``Radon.backproject_filtered``), because the sampling of angles and bins is its own. An explicit
formula neither fits the data nor weighs a prior; the problem judges the image by the misfit, and an image from noisy or few
views rarely fits within their noise. *Fails when* views are few or cover less than half a turn: streaks.

Reference: Kak and Slaney, Principles of Computerized Tomographic Imaging (1988), chapter 3, doi 10.1137/1.9780898719277.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.gradients import Gradient, Unroll
from sciml.core.inverse import Inverse
from sciml.core.linear import LinearOperator
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.domains.space import Space

__all__ = ["FilteredBackprojection"]


@dataclass(frozen=True, eq=False)
class FilteredBackprojection(Solver[Inverse[Any]]):
    """One pass of filter and back-projection.

    ``window`` tapers the ramp: a function of the frequency as a
    fraction of the detector's highest, such as ``sciml.forward.windows.Hann()``; None leaves the ramp as it is.

    Takes Inverse problems whose forward model is a Radon transform; noise, prior, weight and start play no part in the image.
    """

    window: Callable[[Tensor], Tensor] | None = None

    gradient: ClassVar[Gradient] = Unroll()
    citations: ClassVar[tuple[str, ...]] = ("@book{kak1988, doi={10.1137/1.9780898719277}}",)

    def __post_init__(self) -> None:
        if isinstance(self.window, type) or (self.window is not None and not callable(self.window)):
            raise InputError(f"window is {self.window!r}; give None or a window such as sciml.forward.windows.Hann()")

    def accepts(self, problem: Problem) -> str | None:
        """Inverse problems whose forward model has a filtered back-projection."""
        if not isinstance(problem, Inverse):
            return "filtered back-projection takes Inverse problems with a Radon transform"
        if not callable(getattr(problem.forward, "backproject_filtered", None)):
            return f"its forward model {type(problem.forward).__name__} has no filtered back-projection; Radon has"
        return None

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """The image; the claim is that the formula was applied, the problem judges."""
        assert isinstance(problem, Inverse)
        forward: Any = problem.forward
        image = forward.backproject_filtered(problem.data, torch.ones_like if self.window is None else self.window)
        image = image.expand(problem.batch, *problem.space.shape)
        claim = torch.full((problem.batch,), int(Code.CONVERGED), dtype=torch.int64, device=image.device)
        sentence = "an explicit formula is judged by the misfit band; for an image that fits the data, continue with Chained(FilteredBackprojection(), LeastSquares()), or give a prior"
        return Answer(image, claim, steps=1, sentence=sentence)


@dataclass(frozen=True, eq=False)
class Turns(LinearOperator):
    """A scanner for signals on a ring: view ``v`` shows the signal turned by ``v`` places, ``(1, n)`` to ``(1, views, n)``."""

    on: Space
    views: int

    @property
    def space(self) -> Space:
        """The signals."""
        return self.on

    @property
    def codomain(self) -> Space:
        """All views."""
        return dataclasses.replace(self.on, shape=(1, self.views, self.on.shape[-1]))

    def __call__(self, u: Tensor) -> Tensor:
        return torch.stack([u.roll(v, -1) for v in range(self.views)], -2)

    def adjoint(self, v: Tensor) -> Tensor:
        """The sum of the views, turned back."""
        rows: Tensor = torch.stack([v[..., i, :].roll(-i, -1) for i in range(self.views)]).sum(0)
        return rows

    def backproject_filtered(self, data: Tensor, window: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean of the views, turned back and filtered; on a ring there is no ramp."""
        wave = torch.fft.rfft(self.adjoint(data) / self.views)
        gain = window(torch.linspace(0, 1, wave.shape[-1], dtype=torch.float64, device=data.device))
        image: Tensor = torch.fft.irfft(wave * gain.to(data.dtype), n=data.shape[-1])
        return image


def example() -> tuple[FilteredBackprojection, Any]:
    """A signal on a ring, seen from forty places."""
    from sciml.core.noise import GaussianNoise

    forward = Turns(Space(None, (1, 9)), 40)
    truth = torch.linspace(1.0, 2.0, 9, dtype=torch.float64).reshape(1, 1, 9)
    noise, generator = GaussianNoise(0.1), torch.Generator().manual_seed(0)
    return FilteredBackprojection(), Inverse("ring", forward, noise.sample(forward(truth), generator=generator), noise)
