"""What samplers of posteriors share: independent noise for every chain, and the data term per chain and member.

Chains are ``(S, B, channel, *space)``: ``S`` samples of each of ``B`` members. Numbers per chain are ``(S, B)``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sciml.core.inverse import Inverse
from sciml.core.linear import LinearOperator
from sciml.core.prior import Denoising
from sciml.core.probability_flow import span
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.domains.errors import InputError

__all__ = ["Chains", "Draws", "inner", "refusal", "spread"]

AT_ONCE = 1 << 23  # numbers of one call of a denoiser that is not differentiated
AHEAD = 1 << 18  # numbers of noise drawn ahead for one chain
UNCALIBRATED = "samples are certified by a calibration record: Calibrated(sampler, sciml.calibrate(problem, sampler))"


def refusal(problem: Problem, name: str, *, linear: bool = True) -> str | None:
    """Why a sampler called ``name`` cannot be asked, or None."""
    if not isinstance(problem, Inverse):
        return f"{name} takes Inverse problems: data, noise and a prior"
    if problem.prior is None:
        return "it has no prior to draw from; give one that denoises with problem.with_prior(...)"
    if not isinstance(problem.prior, Denoising):
        return f"its prior {type(problem.prior).__name__} does not denoise; samplers take priors such as Diffusion, Gaussian, Mixture or sciml.Denoiser(f, range=...)"
    if linear and not isinstance(problem.forward, LinearOperator):
        return f"its forward model {type(problem.forward).__name__} is not linear, and {name} takes linear ones; use DiffusionPosteriorSampling or RedDiff"
    if linear and not problem.noise.quadratic:
        return f"its noise is {type(problem.noise).__name__}, and {name} takes Gaussian noise; use DiffusionPosteriorSampling or RedDiff"
    if span(problem.prior) is None:
        return f"its prior {type(problem.prior).__name__} declares no range of values, which sets the noise levels; give it one"
    return None


def spread(t: Tensor, like: Tensor) -> Tensor:
    """Numbers per chain ``(S, B)`` with axes added so that they broadcast against chains."""
    return t.to(like.real.dtype).reshape(*t.shape, *[1] * (like.ndim - 2))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The real inner product per chain, ``(S, B)``, in double precision."""
    product = (a.conj() * b).real if a.is_complex() or b.is_complex() else a * b
    return product.flatten(2).sum(2, dtype=torch.float64)


def sound(x: Tensor) -> bool:
    """Whether all is finite: one sum tells, unless it overflows."""
    x = x.detach()
    return bool(torch.isfinite(x.sum().abs())) or bool(torch.isfinite(x.abs()).all())


class Draws:
    """White noise for ``samples`` chains, each from a generator of its own: chain ``s`` draws the same whatever the others do.

    All members are given the same noise, so that a batch is the stack of its members. A complex number has unit variance in
    both components. Drawn on the CPU in single precision, so that the noise does not depend on dtype and device.
    """

    def __init__(self, seed: int, samples: int, like: Tensor) -> None:
        self.sources = [torch.Generator().manual_seed((seed * 1_000_003 + s) % 2**62) for s in range(samples)]
        self.like = like  # (1, channel, *space)
        self.parts = 2 if like.is_complex() else 1
        self.ahead = max(1, min(64, AHEAD // max(1, like.numel() * self.parts)))
        self.kept: Tensor | None = None
        self.at = 0

    def __call__(self) -> Tensor:
        """``(S, 1, channel, *space)``."""
        if self.kept is None or self.at == self.ahead:
            shape = (self.ahead, 1, *self.like.shape[1:], self.parts)
            drawn = torch.stack([torch.randn(shape, generator=g, dtype=torch.float32) for g in self.sources], 1)
            drawn = torch.view_as_complex(drawn) if self.parts == 2 else drawn[..., 0]
            self.kept, self.at = drawn.to(self.like.device, self.like.dtype), 0
        self.at += 1
        return self.kept[self.at - 1]


@dataclasses.dataclass(eq=False)
class Chains:
    """A problem as seen by chains: the folded denoiser, the whitened linear model, and counts of what was done."""

    problem: Inverse[Any]
    samples: int
    seed: int
    evaluations: int = 0
    products: int = 0

    def __post_init__(self) -> None:
        reach = span(self.problem.prior)
        if self.samples < 1 or reach is None:
            raise InputError(f"samples is {self.samples}; draw at least one")
        self.lowest, self.highest = reach
        self.noise = Draws(self.seed, self.samples, self.problem.space.zeros())
        data = self.problem.data
        self.data = self.problem.noise.whiten(data, data)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all chains."""
        return (self.samples, self.problem.batch, *self.problem.space.shape)

    def first(self) -> Tensor:
        """Noise of the highest level, around what the denoiser makes of nothing."""
        zero = self.problem.space.zeros(1).unsqueeze(0)
        middle = self.denoise(zero, self.highest)
        self.evaluations = 0
        return (middle + self.highest * self.noise()).expand(self.shape)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """The prior's denoiser on all chains; InputError where it returns what is not finite from what is."""
        self.evaluations += 1
        prior: Any = self.problem.prior
        flat = x.reshape(-1, *x.shape[2:])
        lost = not sound(flat)
        if lost:
            finite = torch.isfinite(flat.detach().abs().flatten(1)).all(1)
            flat = torch.where(finite.reshape(-1, *[1] * (flat.ndim - 1)), flat, torch.zeros_like(flat))
        parts = [flat] if x.requires_grad else flat.split(max(1, AT_ONCE // max(1, flat[0].numel())))  # type: ignore[no-untyped-call]
        clean = torch.cat([prior.denoise(part, sigma) for part in parts])
        if not sound(clean):
            raise InputError(
                f"the denoiser of {type(prior).__name__} returned values that are not finite at sigma {sigma:.3g}; look at the levels it was made for"
            )
        if lost:  # a lost chain stays so
            clean = torch.where(finite.reshape(-1, *[1] * (flat.ndim - 1)), clean, torch.full_like(clean, math.nan))
        return clean.reshape(x.shape)

    def ahead(self, x: Tensor) -> Tensor:
        """The whitened linear model."""
        self.products += 1
        return self.problem.noise.whiten(self.problem.forward(x), self.problem.data)

    def back(self, q: Tensor) -> Tensor:
        """Its adjoint."""
        forward: Any = self.problem.forward
        return forward.adjoint(self.problem.noise.unwhiten(q, self.problem.data))  # type: ignore[no-any-return]

    def rest(self, x: Tensor) -> Tensor:
        """The whitened residual ``W (data - A x)``."""
        return self.data - self.ahead(x)

    def answer(self, samples: Tensor, steps: int) -> Answer:
        """The mean and the samples; a member with a lost chain is DIVERGED."""
        finite = torch.isfinite(samples.abs().flatten(2)).all(2).all(0)
        claim = torch.where(finite, int(Code.CONVERGED), int(Code.DIVERGED))
        counts = {"network evaluations": float(self.evaluations), "forward models": float(self.products)}
        return Answer(samples.mean(0), claim, steps=steps, counts=counts, samples=samples, sentence=UNCALIBRATED)


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], b: Tensor, limit: int, tolerance: float = 1e-6
) -> Tensor:  # fmt: skip
    """``apply(d) = b`` from zero for a Hermitian positive ``apply``, each chain by itself: at most ``limit`` steps each."""
    d, r, p = torch.zeros_like(b), b, b
    rho = inner(r, r)
    small = tolerance**2 * rho
    active = rho > 0
    for _ in range(limit):
        image = apply(p)
        bend = inner(p, image)
        active = active & (bend > 0)
        if not bool(active.any()):
            break
        alpha = torch.where(active, rho / torch.where(bend > 0, bend, torch.ones_like(bend)), torch.zeros_like(rho))
        d, r = d + spread(alpha, p) * p, r - spread(alpha, p) * image
        new = inner(r, r)
        ratio = torch.where(active, new / torch.where(rho > 0, rho, torch.ones_like(rho)), torch.zeros_like(rho))
        p = r + spread(ratio, p) * p
        rho = torch.where(active, new, rho)
        active = active & (rho > small)
        if not bool(active.any()):
            break
    return d
