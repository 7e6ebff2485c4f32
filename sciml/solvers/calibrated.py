"""A sampler with its calibration record: what lets the problem certify samples."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from sciml.core.calibration import Calibration
from sciml.core.gradients import Detach, Gradient
from sciml.core.inverse import Inverse
from sciml.core.problem import Problem
from sciml.core.solution import Answer
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError

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


def example() -> tuple[Calibrated, Inverse[Any]]:
    """Exact draws of a Gaussian posterior."""
    from sciml.samplers.gaussian_posterior import example as exact
    from sciml.solving.calibrate import calibrate

    sampler, problem = exact()
    return Calibrated(sampler, calibrate(problem, dataclasses.replace(sampler, samples=19), cases=48)), problem
