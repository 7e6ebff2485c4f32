"""The contract of samplers, asked of every example(), and of twins that break it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
import walk
from torch import Tensor

from sciml.core import Answer, Context, GaussianNoise, Inverse, Matrix
from sciml.priors import Diffusion, Gaussian, TotalVariation
from sciml.samplers import GaussianPosterior
from sciml.samplers.gaussian_posterior import example

SAMPLERS = walk.files("samplers")
DEPENDENT = {"twisted"}  # chains that compete
OTHERS = [file.example()[1] for file in walk.files("solvers")[:6]]


def samples(sampler: Any, problem: Any) -> Tensor:
    found = sampler.run(problem.blind(), None, Context()).samples
    assert found is not None
    return found


def draws(sampler: Any, problem: Any) -> list[str]:
    """As many samples as asked for, all different, the value their mean; not certified without a record."""
    solution = walk.solved(problem, sampler)
    if solution.samples is None:
        return ["no samples"]
    faults = []
    if solution.samples.shape != (sampler.samples, problem.batch, *problem.space.shape):
        faults.append(f"samples of shape {tuple(solution.samples.shape)}")
    if not torch.allclose(solution.samples.mean(0), solution.value, rtol=1e-6, atol=1e-9):
        faults.append("the value is not the mean of the samples")
    if len(solution.samples.flatten(1).unique(dim=0)) < len(solution.samples) // 4:
        faults.append("the samples are the same")
    return [*faults, "certified without a record"] if solution.ok else faults


def independent(sampler: Any, problem: Any) -> list[str]:
    """The first chains are the same however many there are; another seed gives others."""
    whole = samples(sampler, problem)
    part = samples(dataclasses.replace(sampler, samples=2), problem)
    close = torch.allclose(whole[:2], part, rtol=1e-7, atol=1e-9)
    other = samples(dataclasses.replace(sampler, seed=sampler.seed + 1), problem)
    faults = [] if close else ["chains depend on one another"]
    return [*faults, "the seed is not used"] if torch.allclose(other, whole) else faults


def unitless(sampler: Any, problem: Any) -> list[str]:
    """Data and noise in other units, with the model to match, change nothing; nor do images in other units.

    1e-6: Adam's guard against zero and the stopping of conjugate gradients are not scaled exactly.
    """
    whole, faults = samples(sampler, problem), []
    for data, image in ((1e3, 1.0), (1.0, 20.0)):
        prior = dataclasses.replace(
            problem.prior, covariance=Matrix(problem.prior.covariance.entries * image**2), mean=problem.prior.mean * image, bound=None
        )  # fmt: skip
        other = Inverse(
            problem.name, Matrix(problem.forward.entries * (data / image)), problem.data * data,
            GaussianNoise(problem.noise.sigma * data), prior,
        )  # fmt: skip
        away = float((samples(sampler, other) / image - whole).abs().max() / whole.abs().max())
        if not away <= 1e-6:
            faults.append(f"data times {data:g}, images times {image:g}: samples move by {away:.1e}")
    return faults


def refuses(sampler: Any, problem: Any) -> list[str]:
    """Priors that do not denoise, and none at all, are refused in a sentence; so is a network without its channels."""
    bare = dataclasses.replace(problem, prior=None, recipe=None)
    flat = dataclasses.replace(problem, prior=TotalVariation(), recipe=None)
    return [
        f"accepts {name}"
        for name, one in (("no prior", bare), ("total variation", flat))
        if len((sampler.accepts(one) or "").split()) < 4
    ]


def low_precision(sampler: Any, problem: Any) -> list[str]:
    """In float32 it answers in float32."""
    low = problem.to(torch.float32)
    return walk.well_formed(walk.solved(low, sampler), low)


PROMISES = (
    walk.accepts, walk.answers, walk.repeats, walk.batches, walk.pickles, walk.refuses_nan, walk.keeps_its_input,
    draws, independent, unitless, refuses, low_precision,
)  # fmt: skip


@pytest.mark.parametrize("promise", PROMISES, ids=walk.named)
@pytest.mark.parametrize("file", SAMPLERS, ids=walk.short)
def test_sampler(file: ModuleType, promise: walk.Promise) -> None:
    if promise is independent and walk.short(file) in DEPENDENT:
        pytest.skip("its chains compete")
    assert not promise(*file.example())


@pytest.mark.parametrize("file", SAMPLERS, ids=walk.short)
def test_refuses_other_problems_in_a_sentence(file: ModuleType) -> None:
    assert not walk.refuses_in_a_sentence(file.example()[0], OTHERS)


@dataclass(frozen=True, eq=False)
class Twin(GaussianPosterior):
    """Exact draws, spoilt in one way."""

    flaw: str = ""

    def accepts(self, problem: Any) -> str | None:
        return None if self.flaw == "anything" else super().accepts(problem)

    def run(self, problem: Any, start: Tensor | None, context: Any) -> Answer:
        seed = 5 if self.flaw == "seed" else self.seed
        answer = GaussianPosterior(samples=self.samples, seed=seed).run(problem, start, context)
        x = answer.samples
        assert x is not None
        if self.flaw == "coupled":
            x = x - 0.01 * x.mean(0)
        if self.flaw == "units":
            x = x + 1e-3
        if self.flaw == "once":
            x = x[:1].expand(x.shape)
        if self.flaw == "fewer":
            x = x[:-1]
        value = x[0] if self.flaw == "first" else x.mean(0)
        return dataclasses.replace(answer, samples=x, value=value)


@pytest.mark.parametrize(
    ("flaw", "promise"),
    [
        ("seed", independent), ("coupled", independent), ("units", unitless), ("once", draws), ("fewer", draws),
        ("first", draws), ("anything", refuses),
    ],
    ids=lambda part: getattr(part, "__name__", part),
)  # fmt: skip
def test_broken_twins_are_rejected(flaw: str, promise: walk.Promise) -> None:
    assert promise(Twin(samples=8, flaw=flaw), example()[1])
    assert not promise(Twin(samples=8), example()[1])


def test_a_network_for_other_images_is_refused() -> None:
    from sciml import InputError
    from sciml.networks import UNet

    _, problem = example()
    with pytest.raises(InputError, match="axes"):
        dataclasses.replace(problem, prior=Diffusion(UNet(2)))
    assert isinstance(problem.prior, Gaussian)
