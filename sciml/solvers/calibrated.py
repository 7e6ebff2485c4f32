"""A sampler with its calibration record: what lets the problem certify samples."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.calibration import Calibration
from sciml.core.gradients import Detach, Gradient
from sciml.core.inverse import Inverse
from sciml.core.linear import LinearOperator
from sciml.core.noise import GaussianNoise
from sciml.core.problem import Problem
from sciml.core.solution import Answer
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.domains.pixels import Pixels
from sciml.domains.random_fields import GaussianField
from sciml.domains.space import Space

__all__ = ["Calibrated"]


@dataclass(frozen=True, eq=False)
class Calibrated(Solver[Inverse[Any]]):
    """``Calibrated(sampler, record)`` runs the sampler and attaches the record that ``sciml.calibrate(problem, sampler)`` made.

    The problem judges: the chi-square of the samples, and how far the record's intervals are from covering what they should.
    Any number of samples and any seed of the same sampler will do, on any data of the same model, noise and prior; anything else
    is refused. *Fails when* the data did not come from the model and the prior: no record of simulated cases can show that.
    """

    inner: Solver[Any]
    record: Calibration

    gradient: ClassVar[Gradient] = Detach()
    citations: ClassVar[tuple[str, ...]] = (
        "@article{talts2018, author={Talts, S. and Betancourt, M. and Simpson, D. and Vehtari, A. and Gelman, A.}, title={Validating Bayesian inference algorithms with simulation-based calibration}, eprint={1804.06788}, archivePrefix={arXiv}}",
    )

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Solver):
            raise InputError(f"Calibrated wraps a sampler such as DecomposedDiffusion(), not {self.inner!r}")
        if not isinstance(self.record, Calibration):
            raise InputError(f"Calibrated takes the record of sciml.calibrate(problem, sampler), not {self.record!r}")

    def accepts(self, problem: Problem) -> str | None:
        """What the sampler accepts, where the record is of this sampler on a problem like this."""
        reason = self.inner.accepts(problem)
        if reason is not None or not isinstance(problem, Inverse):
            return reason
        return self.record.objection(problem, self.inner)

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """The sampler's answer with the record."""
        answer = self.inner.run(problem, start, context)
        told = f"the calibration record: {self.record}"
        return dataclasses.replace(answer, record=self.record, sentence=told)


@dataclass(frozen=True, eq=False)
class Means(LinearOperator):
    """Means of three neighbours, of every other place."""

    on: Space

    @property
    def space(self) -> Space:
        """The signals."""
        return self.on

    @property
    def codomain(self) -> Space:
        """The means."""
        return dataclasses.replace(self.on, domain=None, shape=(1, (self.on.shape[-1] - 1) // 2))

    def __call__(self, u: Tensor) -> Tensor:
        return u.unfold(-1, 3, 2).mean(-1)

    def adjoint(self, v: Tensor) -> Tensor:
        """A third to each neighbour."""
        out = torch.zeros(*v.shape[:-1], self.on.shape[-1], dtype=v.dtype, device=v.device)
        for k in range(3):
            out[..., k : k + 2 * v.shape[-1] : 2] += v / 3
        return out


def example() -> tuple[Calibrated, Inverse[Any]]:
    """Exact draws of a Gaussian posterior."""
    from sciml.priors.gaussian import Gaussian
    from sciml.samplers.gaussian_posterior import GaussianPosterior
    from sciml.solving.calibrate import calibrate

    forward = Means(Pixels((13,)).space())
    prior = Gaussian(GaussianField(power=1.0, shift=50.0, deviation=1.0, mean_mode=True))
    generator, noise = torch.Generator().manual_seed(0), GaussianNoise(0.1)
    truth = prior.on(forward.space).sample(1, generator=generator)
    data = noise.sample(forward(truth), generator=generator)
    problem = Inverse("means of a Gaussian signal", forward, data, noise, prior, truth=truth)
    record = calibrate(problem, GaussianPosterior(samples=19), cases=48)
    return Calibrated(GaussianPosterior(samples=8), record), problem
