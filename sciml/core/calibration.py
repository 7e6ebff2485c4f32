r"""Whether samples are draws of the posterior: the record of simulated cases, and the checks made with it.

If ``x ~ prior`` and ``y ~ data given x``, then ``x`` and a draw of the posterior given ``y`` have the same law together with ``y``. So
over many simulated cases the rank of any number ``f(x)`` among that of ``S`` samples is even on ``0 .. S``, and an interval that holds
``k`` of the ``S + 1`` possible ranks covers the truth in a share ``k / (S + 1)`` of the cases (Talts, Betancourt, Simpson, Vehtari and
Gelman, arXiv:1804.06788). One look at the samples of one case cannot show this; the record of many can.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.core.solution import Answer, Check
from sciml.core.tree import described, leaves
from sciml.domains.errors import InputError

if TYPE_CHECKING:
    from sciml.core.inverse import Inverse

__all__ = ["Calibration", "bits", "digest", "inside", "rank", "sampled_checks", "setting"]

NOMINAL = (0.5, 0.9)
LEAST = 16  # cases


@dataclass(frozen=True, eq=False)
class Calibration:
    """What came of ``cases`` simulated members: ``ranks`` ``(cases, functionals)`` of the truth among ``samples`` draws.

    The functionals are values of the image at fixed random places (real and imaginary parts apart), and last the misfit.
    ``crps`` ``(cases,)`` is the continuous ranked probability score, averaged over the places, in units of the image (lower is better).
    ``sampler`` and ``problem`` say what it is a record of.
    """

    ranks: Tensor
    crps: Tensor
    samples: int
    sampler: str
    problem: str

    @property
    def cases(self) -> int:
        """How many were simulated."""
        return len(self.ranks)

    def coverage(self, nominal: float) -> tuple[float, float, float]:
        """The share of places whose truth lies in the central interval of level nearest to ``nominal``: that level, the share, and the standard error of it.

        Places of one case are not independent; the error is that of the means of cases.
        """
        level, within = inside(self.ranks[:, :-1], self.samples, nominal)
        per_case = within.to(torch.float64).mean(1)
        # At least the error of one independent place per case: equal cases are no proof.
        least = math.sqrt(level * (1 - level) / (self.cases * within.shape[1]))
        return level, float(per_case.mean()), max(float(per_case.std()) / math.sqrt(self.cases), least)

    @property
    def deviation(self) -> float:
        """How far the coverage of 50 and 90 % intervals may be from what it should be: the largest difference plus two standard errors;
        or how far the ranks of the misfit are from even, if that is more. Infinite for fewer than 16 cases.
        """
        if self.cases < LEAST:
            return math.inf
        return max(
            self.uneven, *(abs(share - level) + 2 * error for level, share, error in map(self.coverage, NOMINAL))
        )

    @property
    def uneven(self) -> float:
        """How far the ranks of the misfit are from even, with 99 % confidence: Kolmogorov's distance less its critical value."""
        n, steps = self.cases, self.samples + 1
        share = torch.bincount(self.ranks[:, -1], minlength=steps).cumsum(0).to(torch.float64) / n
        even = torch.arange(1, steps + 1, dtype=torch.float64) / steps
        return max(0.0, float((share - even).abs().max()) - 1.63 / math.sqrt(n))

    def __str__(self) -> str:
        known = dict.fromkeys(map(self.coverage, NOMINAL))  # few samples have few intervals
        told = ", ".join(
            f"{share:.2f} +- {error:.2f} of the places in {100 * level:.0f} % intervals"
            for level, share, error in known
        )
        return (
            f"{self.cases} cases, {self.samples} samples each: {told}; CRPS {float(self.crps.mean()):.3g}; ranks of the misfit uneven by at least {self.uneven:.2f}; deviation {self.deviation:.2g}"
            + (f" (below {LEAST} cases nothing can be certified: ask for more)" if self.cases < LEAST else "")
        )

    def objection(self, problem: Inverse[Any], sampler: Any) -> str | None:
        """Why this is not a record of that sampler on that problem, or None."""
        if self.sampler != setting(sampler):
            return f"the calibration record is of {self.sampler}, not of {setting(sampler)}; calibrate again"
        trees = (problem.forward, problem.noise, problem.prior)
        several = any(not leaf.shared and len(leaf.tensor) > 1 for tree in trees for leaf in leaves(tree))
        for one in map(problem.member, range(problem.batch)) if several else (problem,):
            if self.problem != digest(one):
                return f"the calibration record is of another model, noise or prior than that of {one.name!r}; calibrate again"
        return None


def inside(ranks: Tensor, samples: int, nominal: float) -> tuple[float, Tensor]:
    """The level of the central interval of ranks nearest to ``nominal``, and where the ranks lie inside."""
    cut = min(max(0, round((1 - nominal) * (samples + 1) / 2)), samples // 2)
    cut = max(1, cut) if samples > 2 else cut
    return (samples + 1 - 2 * cut) / (samples + 1), (ranks >= cut) & (ranks <= samples - cut)


def setting(sampler: Any) -> str:
    """A sampler's settings in words, without its seed and the number of samples."""
    if not is_dataclass(sampler):
        return type(sampler).__name__
    told = ", ".join(
        f"{part.name}={getattr(sampler, part.name)!r}"
        for part in fields(sampler)
        if part.name not in ("seed", "samples")
    )
    return f"{type(sampler).__name__}({told})"


def digest(problem: Inverse[Any]) -> str:
    """Sixteen digits that stand for forward model, noise, prior and shape of a problem, in single precision; not for its data."""
    mark = hashlib.sha256()
    prior: Any = problem.prior
    words = [
        type(problem.forward).__name__,
        type(problem.noise).__name__,
        type(prior).__name__,
        str(problem.space.shape),
    ]
    mark.update(repr(words).encode())
    for tree in (problem.forward, problem.noise, prior):
        parts = [(path, part) for path, part in described(tree) if "bound" not in path]
        mark.update(repr([one for one in parts if isinstance(one[1], int | float | str | bool)]).encode())
        # Masks and meshes are no parameters, and make another model; what a prior keeps of its own was computed from the rest.
        kept = {leaf.path for leaf in leaves(prior) if leaf.told} if tree is prior else ()
        for path, part in parts:
            held = part.state_dict().values() if isinstance(part, torch.nn.Module) else (part,)
            for value in held if path not in kept else ():
                if isinstance(value, Tensor):
                    mark.update(bits(value))
    return mark.hexdigest()[:16]


def bits(t: Tensor) -> bytes:
    """The numbers of a tensor in single precision."""
    t = torch.view_as_real(t) if t.is_complex() else t
    return t.detach().cpu().to(torch.float32).contiguous().numpy().tobytes()


def sampled_checks(problem: Inverse[Any], answer: Answer) -> tuple[Check, ...]:
    """Gates of an answer with samples: chi-square of the samples per degree of freedom, and the calibration record.

    For draws of the posterior chi-square has the law that it has for the truth, so the mean over the samples of one member is
    one within the misfit's band (its variance is at most that of the truth's). Chi-square of the mean is no gate: the exact
    posterior mean fits better than the truth.
    """
    samples = answer.samples
    assert samples is not None
    shape = (problem.batch, *problem.space.shape)
    if samples.ndim != len(shape) + 1 or samples.shape[1:] != torch.Size(shape):
        raise InputError(
            f"{problem.name!r}: the samples have shape {tuple(samples.shape)}; expected (samples, {', '.join(map(str, shape))})"
        )
    with torch.no_grad():
        chi = torch.stack([problem.misfit(one) for one in samples]).mean(0)
    record = answer.record
    known = isinstance(record, Calibration)
    off = torch.full_like(chi, record.deviation if known else math.inf)
    checks: tuple[Check, ...] = (
        Check("misfit of the samples", (chi - 1).abs(), problem.targets["misfit"]),
        Check("calibration", off, problem.targets["calibration"]),
        Check("chi-square per degree of freedom, mean of the samples", chi),
    )
    if problem.truth is not None and len(samples) > 1:
        level, within = inside(rank(problem.truth, samples), len(samples), 0.9)
        share = within.to(torch.float64).flatten(1).mean(1).expand(problem.batch)
        checks += (Check(f"share of the truth in {100 * level:.0f} % intervals", share),)
    return checks


def rank(truth: Tensor, samples: Tensor) -> Tensor:
    """How many of the samples ``(S, ...)`` lie below the truth, in each component (real and imaginary parts along a last axis)."""
    if samples.is_complex():
        truth, samples = torch.view_as_real(truth.to(samples.dtype)), torch.view_as_real(samples)
    return (samples < truth).sum(0)
