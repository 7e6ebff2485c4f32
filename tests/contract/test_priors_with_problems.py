"""Every prior with every inverse problem of the catalogue, through every solver: certified, honest about it, or refused in one sentence."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core import Code, SolveError
from sciml.core.prior import Prior
from sciml.domains import Ellipses, GaussianField, InputError, Space
from sciml.networks import DenoisingSteps, InputConvexNetwork, UNet
from sciml.priors import (
    Denoiser,
    Diffusion,
    Gaussian,
    Heun,
    LearnedProx,
    MagnitudePhase,
    Mixture,
    Smoothness,
    TotalVariation,
    Unfolded,
    Wavelet,
)
from sciml.samplers import (
    DecomposedDiffusion,
    DiffusionPosteriorSampling,
    GaussianPosterior,
    MomentMatching,
    NullSpace,
    RedDiff,
    TwistedDiffusion,
)
from sciml.solvers import (
    ADMM,
    Discrepancy,
    GaussNewton,
    LeastSquares,
    PlugAndPlay,
    PrimalDual,
    ProximalGradient,
)

PROBLEMS: dict[str, dict[str, Any]] = {
    "ct": {"n": 12, "views": 7, "finer": 1, "phantom": Ellipses.random(1, seed=3)},
    "deblur": {"n": 12, "width": 1.0},
    "eit": {"electrodes": 8, "nodes": 120},
    "inpainting": {"n": 12},
    "inverse_darcy": {"n": 7, "sensors": 12},
    "mri": {"n": 12, "coils": 3, "acceleration": 2.0},
}


def smoothed(x: Tensor, sigma: Any) -> Tensor:
    """A denoiser without any learning: the mean with the neighbours along the last axis."""
    return x + (x.roll(1, -1) + x.roll(-1, -1) - 2 * x) / 6


def diffusion() -> Diffusion:
    return Diffusion(UNet(2, widths=(4,), blocks=1, features=4).eval().requires_grad_(False), levels=(0.01, 10.0))


PRIORS: dict[str, Callable[[Space], Prior]] = {
    "total variation": lambda space: TotalVariation(),
    "wavelet": lambda space: Wavelet(),
    "smoothness": lambda space: Smoothness(),
    "gaussian": lambda space: Gaussian(GaussianField(mean_mode=True)),
    "mixture": lambda space: Mixture(torch.stack([torch.zeros(space.shape), torch.ones(space.shape)]).to(space.dtype)),
    "denoiser": lambda space: Denoiser(smoothed, range=(0.0, 1.0)),
    "learned proximal network": lambda space: LearnedProx(
        InputConvexNetwork(2, width=8, group=4, kernel=3, layers=1).requires_grad_(False), scale=0.1, noise=0.1
    ),
    "unfolded": lambda space: Unfolded(
        DenoisingSteps(stages=3, widths=(4,), blocks=1, features=4).eval().requires_grad_(False)
    ),
    "diffusion": lambda space: diffusion(),
    "diffusion of magnitude": lambda space: MagnitudePhase(diffusion()),
}

SOLVERS: list[Any] = [
    LeastSquares(),
    PrimalDual(max_steps=60),
    PrimalDual(max_steps=3, ratio=0.3, relaxation=1.0),  # the steps of the unfolded prior
    ProximalGradient(max_steps=12),
    ADMM(max_steps=6),
    GaussNewton(max_steps=6),
    PlugAndPlay(max_steps=6),
    DecomposedDiffusion(steps=4, samples=2, seed=0),
    DiffusionPosteriorSampling(walk=Heun(4), samples=2, seed=0),
    GaussianPosterior(samples=2, seed=0),
    MomentMatching(walk=Heun(4), samples=2, seed=0),
    NullSpace(steps=4, samples=2, seed=0),
    RedDiff(steps=4, samples=2, seed=0),
    TwistedDiffusion(steps=4, samples=2, seed=0),
]
CONVEX = ("total variation", "wavelet", "smoothness", "gaussian")
LINEAR = ("ct", "deblur", "inpainting", "mri")


@functools.cache
def problem(name: str) -> Any:
    return sciml.problem(name, **PROBLEMS[name])


def sentence(text: str) -> bool:
    """One line that says something."""
    return 15 < len(text) < 400 and "\n" not in text and "Traceback" not in text


def outcome(posed: Any, solver: Any) -> tuple[str, Any]:
    """What came of it: refused (why), solved (solution)."""
    reason = solver.accepts(posed)
    if reason is not None:
        return "refused", reason
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return "solved", sciml.solve(posed, solver, progress=False)
        except SolveError as error:
            return "solved", error.solution
        except InputError as error:
            return "refused", str(error)


def faults(posed: Any, solver: Any) -> list[str]:
    """What is wrong with what came of it."""
    kind, found = outcome(posed, solver)
    if kind == "refused":
        return [] if sentence(found) else [f"refused with {found!r}"]
    wrong = []
    if found.value.shape != (posed.batch, *posed.space.shape):
        wrong.append(f"a value of shape {tuple(found.value.shape)}")
    gates = [check for check in found.checks if check.target is not None]
    passed = (
        torch.stack([check.value <= check.target for check in gates]).all(0)
        if gates
        else torch.zeros(1, dtype=torch.bool)
    )
    claimed = found.codes == int(Code.CONVERGED)
    if bool((claimed & ~passed.to(claimed.device)).any()):
        wrong.append("certified, but a gate did not pass")
    if not bool(torch.isfinite(found.value.abs()).all()) and bool(claimed.any()):
        wrong.append("certified, but not finite")
    return wrong


def pose(name: str, prior: str) -> Any:
    """The problem with the prior at a weight, or the sentence of the refusal."""
    bare = problem(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return bare.with_prior(PRIORS[prior](bare.space), 30.0 if name in LINEAR else 1.0)
        except InputError as error:
            return str(error)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("prior", PRIORS)
def test_certified_or_refused_in_a_sentence(name: str, prior: str) -> None:
    posed = pose(name, prior)
    if isinstance(posed, str):
        assert sentence(posed), posed
        return
    wrong = [f"{solver!r}: {what}" for solver in SOLVERS for what in faults(posed, solver)]
    assert not wrong


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("prior", CONVEX)
def test_convex_priors_are_certified_on_linear_models(name: str, prior: str) -> None:
    """By at least one solver each; complex images and real Gaussian fields do not go together and say so."""
    posed = pose(name, prior)
    if isinstance(posed, str):
        assert posed_complex(name) and "complex" in posed
        return
    found = (outcome(posed, solver) for solver in (PrimalDual(), ADMM()))
    assert any(kind == "solved" and solution.ok for kind, solution in found)


def posed_complex(name: str) -> bool:
    return bool(problem(name).space.complex)


@pytest.mark.parametrize("name", ["eit", "inverse_darcy"])
def test_smooth_priors_are_certified_on_nonlinear_models(name: str) -> None:
    posed = problem(name).with_prior(Smoothness(), 1.0)
    assert sciml.solve(posed, GaussNewton()).ok
    assert "linear" in (PrimalDual().accepts(posed) or "")
    mixture = Mixture(torch.zeros(2, *posed.space.shape, dtype=posed.space.dtype))
    if name == "eit":
        with pytest.raises(InputError, match="on a mesh"):
            posed.with_prior(mixture)
        return
    for sampler in (DecomposedDiffusion(), NullSpace(), MomentMatching()):
        assert "is not linear" in (sampler.accepts(posed.with_prior(mixture)) or "")


class Bragging(LeastSquares):
    """The broken twin: it accepts what it cannot do."""

    def accepts(self, problem: Any) -> str | None:
        return "no"


def test_a_mute_refusal_is_noticed() -> None:
    assert faults(pose("deblur", "smoothness"), Bragging())


def test_a_certificate_without_its_gate_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    posed = pose("deblur", "smoothness")
    assert not faults(posed, LeastSquares())
    real = sciml.solve

    def loosened(*args: Any, **settings: Any) -> Any:
        found = real(*args, **settings)
        for check in found.checks:
            if check.target is not None:
                object.__setattr__(check, "value", check.value + 1e9)
        return found

    monkeypatch.setattr(sciml, "solve", loosened)
    assert faults(posed, LeastSquares())


def test_weights_by_rule_work_for_all_that_have_one() -> None:
    for name in LINEAR:
        solution = sciml.solve(problem(name).with_prior(TotalVariation()), Discrepancy(PrimalDual(max_steps=3000)))
        assert solution.ok, name
