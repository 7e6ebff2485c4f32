r"""Denoising diffusion null-space sampling: the part of the image that the data determine is put in, the rest is the prior's.

With the singular values ``s`` of the whitened model ``A = U S V^H`` (its noise has unit variance) and ``x_0 = D(x, sigma)``,

.. math:: x_0' = x_0 + V \Lambda S^{-1} U^H (y - A x_0), \qquad \lambda = \min(1, \eta \sigma' s),
          \qquad x' = x_0' + \sigma' \sqrt{1 - \eta^2}\, (x - x_0) / \sigma + V \Gamma V^H n + \eta \sigma' (1 - V V^H) n,

``gamma^2 = eta^2 sigma'^2 - lambda^2 / s^2``: the noise of the data that comes in with them counts as part of the fresh noise, so the
total is that of the level. Source: Wang, Yu and Zhang, arXiv:2212.00490 (section 3.3, DDNM+).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.gradients import Detach, Gradient
from sciml.core.inverse import Inverse
from sciml.core.linear import LinearOperator
from sciml.core.probability_flow import Karras, Levels
from sciml.core.problem import Problem
from sciml.core.solution import Answer
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.samplers._chains import Chains, refusal

__all__ = ["NullSpace", "example"]

DENSE = 2048  # unknowns of one member that are decomposed


@dataclass(frozen=True, eq=False)
class NullSpace(Solver[Inverse[Any]]):
    """``samples`` draws for linear models whose singular values are known, and Gaussian noise; no derivative of the denoiser.

    Singular values come from a dense decomposition where the image has at most 2048 numbers, and are all equal where
    ``A A^H`` is a multiple of the identity on what was measured (masks; Fourier samples of one coil), which is tried out.
    ``eta`` is the share of fresh noise, ``levels`` the spacing of the levels. Chain ``s`` depends on ``(seed, s)`` alone and uses the same noise
    for all members. The value is the mean of the samples; weight and start play no part.

    *Fails when* the model is ill-conditioned: directions with small ``s`` are left to the prior until the noise is low.
    """

    steps: int = 100
    samples: int = 16
    seed: int = 0
    eta: float = 0.85
    levels: Levels = Karras()

    gradient: ClassVar[Gradient] = Detach()
    citations: ClassVar[tuple[str, ...]] = (
        "@inproceedings{wang2023, author={Wang, Y. and Yu, J. and Zhang, J.}, title={Zero-shot image restoration using denoising diffusion null-space model}, booktitle={ICLR}, year={2023}, eprint={2212.00490}, archivePrefix={arXiv}}",
    )

    def __post_init__(self) -> None:
        if min(self.steps, self.samples) < 1 or not 0 < self.eta <= 1:
            raise InputError(
                f"NullSpace(steps={self.steps}, samples={self.samples}, eta={self.eta}): counts are at least 1, eta above 0 and at most 1"
            )

    def accepts(self, problem: Problem) -> str | None:
        """Linear Inverse problems with Gaussian noise, a prior that denoises, and singular values that can be had."""
        reason = refusal(problem, "NullSpace")
        if reason is None and isinstance(problem, Inverse):
            if problem.space.size <= DENSE or _tight(problem) is not None:
                return None
            return f"its forward model {type(problem.forward).__name__} on {problem.space.size} numbers has unknown singular values; use DecomposedDiffusion"
        return reason

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """From noise to images, level by level."""
        assert isinstance(problem, Inverse)
        chains = Chains(problem, self.samples, self.seed)
        keep = math.sqrt(1 - self.eta**2)
        with torch.no_grad():
            basis = _Basis.of(problem)
            x = chains.first()
            levels = [*self.levels(chains.highest, chains.lowest, self.steps), 0.0]
            for step, (sigma, after) in enumerate(itertools.pairwise(levels)):
                clean = chains.denoise(x, sigma)
                fresh = self.eta * after
                share = (fresh * basis.values).clamp(max=1.0)
                near = clean + basis.back(share / basis.values, chains.rest(clean))
                if after > 0:
                    n = chains.noise()
                    left = (fresh**2 - (share / basis.values).square()).clamp_min(0).sqrt()
                    noise = fresh * n + basis.within(left - fresh, n)
                    near = near + after * keep / sigma * (x - clean) + noise
                x = near
                if context.progress is not None:
                    context.progress(step + 1, self.steps, sigma)
        return chains.answer(x, self.steps)


@dataclass(frozen=True, eq=False)
class _Basis:
    """Singular values ``(B, k)`` of the whitened model with its singular vectors, or one value for all (``left`` None)."""

    values: Tensor
    problem: Inverse[Any]
    left: Tensor | None = None
    right: Tensor | None = None
    split: bool = False

    @classmethod
    def of(cls, problem: Inverse[Any]) -> _Basis:
        square = _tight(problem)
        if square is not None:
            return cls(square.sqrt(), problem)
        space = problem.space
        eye = torch.eye(space.size, dtype=space.dtype, device=space.device).reshape(space.size, 1, *space.shape)
        columns = _whitened(problem, eye.expand(-1, problem.batch, *space.shape)).flatten(2)
        split = columns.is_complex() and not space.dtype.is_complex
        matrix = (torch.view_as_real(columns).flatten(2) if split else columns).permute(1, 2, 0)
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        good = s > 1e-10 * s[:, :1]  # others are zero, but for rounding; their vectors are left out
        return cls(
            torch.where(good, s, torch.full_like(s, torch.finfo(s.dtype).tiny)),
            problem,
            u * good.unsqueeze(1),
            v.mH * good.unsqueeze(1),
            split,
        )

    def back(self, gain: Tensor, r: Tensor) -> Tensor:
        """``V diag(gain) U^H r``."""
        if self.left is None or self.right is None:
            forward: Any = self.problem.forward
            q: Tensor = forward.adjoint(self.problem.noise.unwhiten(r, self.problem.data))
            return _spread(gain / self.values, q) * q
        flat = r.flatten(2)
        flat = torch.view_as_real(flat).flatten(2) if self.split else flat
        found = torch.einsum("bmk,sbm->sbk", self.left.conj(), flat) * gain
        return torch.einsum("bnk,sbk->sbn", self.right, found).reshape(*r.shape[:2], *self.problem.space.shape)

    def within(self, gain: Tensor, n: Tensor) -> Tensor:
        """``V diag(gain) V^H n``."""
        n = n.expand(len(n), self.problem.batch, *n.shape[2:])
        if self.right is None:
            forward: Any = self.problem.forward
            q: Tensor = forward.adjoint(self.problem.noise.unwhiten(_whitened(self.problem, n), self.problem.data))
            return _spread(gain / self.values.square(), q) * q
        found = torch.einsum("bnk,sbn->sbk", self.right.conj(), n.flatten(2)) * gain
        return torch.einsum("bnk,sbk->sbn", self.right, found).reshape(n.shape)


def _spread(t: Tensor, like: Tensor) -> Tensor:
    return t.reshape(-1, *[1] * (like.ndim - 2))


def _whitened(problem: Inverse[Any], x: Tensor) -> Tensor:
    return problem.noise.whiten(problem.forward(x), problem.data)


def _tight(problem: Inverse[Any]) -> Tensor | None:
    """``c`` per member ``(B, 1)`` if ``A A^H q = c q`` for a random ``q`` that was measured (to 1e-5), else None."""
    forward, data = problem.forward, problem.data
    if not isinstance(forward, LinearOperator):
        return None
    generator = torch.Generator().manual_seed(0)
    like = problem.space.zeros(problem.batch)
    seen = torch.randn(like.shape[1:], generator=generator, dtype=torch.float64).to(like).expand(like.shape)
    with torch.no_grad():
        q = _whitened(problem, seen)  # in the range, so that rows of zeros do not matter
        image = _whitened(problem, forward.adjoint(problem.noise.unwhiten(q, data))).flatten(1)
        q = q.flatten(1)
        size = torch.linalg.vector_norm(q, dim=1, keepdim=True)
        square = (q.conj() * image).real.sum(1, keepdim=True) / size.square().clamp_min(1e-300)
        miss = torch.linalg.vector_norm(image - square * q, dim=1, keepdim=True)
    return square if bool((miss <= 1e-5 * square * size).all()) and bool((square > 0).all()) else None


def example() -> tuple[NullSpace, Inverse[Any]]:
    """Six numbers out of nine of a Gaussian signal."""
    from sciml.samplers.gaussian_posterior import example as exact

    return NullSpace(steps=20, samples=8), exact()[1]
