r"""Conditioning a Gaussian process on linear functionals: the posterior mean, its deviation, and draws.

With functionals ``l_i``, ``K_ij = l_i l_j' k`` and data ``y``: mean ``k_x^T K^-1 y`` with ``(k_x)_i = l_i' k(x, .)``, variance ``k(x, x) - k_x^T K^-1 k_x``, both times
the prior's variance ``s^2``. Functionals of one kind come in groups: ``sum over indices of factors D^index u`` at points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.learned._differentiable import differentiable
from sciml.learned._kernels import AxisCovariance
from sciml.learned._linear_form import LinearForm

__all__ = ["Dense", "Posterior", "Prior", "Solved", "factored"]

EPS = float(torch.finfo(torch.float64).eps)
JITTERS = (0.0, *(16 * EPS * 10.0**k for k in range(9)))


@dataclass(frozen=True, eq=False)
class Prior:
    """A product of covariances along axes, with unit variance before it was conditioned on its ends."""

    axes: tuple[AxisCovariance, ...]

    def covariance(self, one: LinearForm, two: LinearForm) -> Tensor:
        """``(len(one), len(two))`` between the functionals of two groups."""
        known: dict[tuple[int, int, int], Tensor] = {}
        lines = []
        for axis in range(len(self.axes)):
            lines.append([torch.unique(form.points[:, axis], return_inverse=True) for form in (one, two)])

        def along(axis: int, a: int, b: int) -> Tensor:
            (x, i), (y, j) = lines[axis]
            if (axis, a, b) not in known:
                known[axis, a, b] = self.axes[axis](x, a, y, b)
            return known[axis, a, b][i][:, j]

        total = torch.zeros(len(one.points), len(two.points), dtype=torch.float64)
        for left, c in one.factors.items():
            for right, d in two.factors.items():
                part = c.unsqueeze(1) * d
                for axis in range(len(self.axes)):
                    part = part * along(axis, left.count(axis), right.count(axis))
                total = total + part
        return total

    def variance(self, form: LinearForm) -> Tensor:
        """The prior variance of every functional of a group."""
        return torch.cat([self.covariance(part, part).diagonal() for part in form.parts(64)])


class Solved(Protocol):
    """Linear algebra with the matrix of one set of observations."""

    @property
    def jitter(self) -> float:
        """What was added to the diagonal, relative to it."""

    @property
    def count(self) -> int:
        """Number of observations."""

    def turn(self, data: Tensor) -> Tensor:
        """Data ``(count, ...)`` in the basis that the other two work in."""

    def solve(self, turned: Tensor) -> Tensor:
        """``K^-1`` applied to ``(count,)`` or ``(count, many)``."""

    def cross(self, form: LinearForm) -> Tensor:
        """Covariances ``(len(form), count)`` of other functionals with the observations."""

    @property
    def prior(self) -> Prior:
        """Before the observations."""


@dataclass(frozen=True, eq=False)
class Dense:
    """The whole matrix by Cholesky factors, rows and columns scaled to a diagonal of ones, plus ``jitter`` there."""

    prior: Prior
    groups: tuple[LinearForm, ...]
    scale: Tensor
    lower: Tensor
    jitter: float

    @staticmethod
    def of(prior: Prior, groups: Sequence[LinearForm]) -> Dense | None:
        """The factors, with the least jitter that makes them exist; None if none does."""
        rows = [torch.cat([prior.covariance(a, b) for b in groups], 1) for a in groups]
        matrix = torch.cat(rows)
        scale = matrix.diagonal().clamp_min(1e-300).sqrt()
        found = factored(matrix / scale / scale.unsqueeze(1))
        return None if found is None else Dense(prior, tuple(groups), scale, *found)

    @property
    def count(self) -> int:
        """Number of observations."""
        return len(self.scale)

    def turn(self, data: Tensor) -> Tensor:
        """As they are."""
        return data

    def solve(self, data: Tensor) -> Tensor:
        """Two triangular solves."""
        columns = data.unsqueeze(1) if data.ndim == 1 else data
        scaled = columns / self.scale.unsqueeze(1)
        result = torch.cholesky_solve(scaled, self.lower) / self.scale.unsqueeze(1)
        return result[:, 0] if data.ndim == 1 else result

    def cross(self, form: LinearForm) -> Tensor:
        """Covariances with all groups."""
        return torch.cat([self.prior.covariance(form, group) for group in self.groups], 1)


def factored(matrix: Tensor) -> tuple[Tensor, float] | None:
    """The Cholesky factor of a matrix with unit diagonal, and the least jitter with which it exists."""
    eye = torch.eye(len(matrix), dtype=matrix.dtype)
    for jitter in JITTERS:
        lower, info = torch.linalg.cholesky_ex(matrix + jitter * eye if jitter else matrix)
        if int(info) == 0 and bool(torch.isfinite(lower).all()):
            return lower, jitter
    return None


@dataclass(frozen=True, eq=False)
class Posterior:
    """A function of points ``(N, axes)``: the mean ``(batch, 1, N)``; ``deviation`` beside it, ``covariance`` of one member.

    ``weights`` are ``K^-1 y`` and ``variances`` the prior's ``s^2``, per member.
    """

    solved: tuple[Solved, ...]
    weights: tuple[Tensor, ...]
    variances: tuple[float, ...]

    def __call__(self, points: Tensor) -> Tensor:
        """The mean."""
        return differentiable(self, points)

    def derivative(self, points: Tensor, index: tuple[int, ...]) -> Tensor:
        """A derivative of the mean; ``index`` are the axes."""
        rows: list[list[Tensor]] = [[] for _ in self.weights]
        for part in value_at(points, index).parts():
            for i, (solved, weights) in enumerate(zip(self.solved, self.weights, strict=True)):
                if not i or solved is not self.solved[i - 1]:
                    cross = solved.cross(part)
                rows[i].append(cross @ weights)
        return torch.stack([torch.cat(row) for row in rows]).unsqueeze(1)

    def mean(self, member: int, form: LinearForm) -> Tensor:
        """The mean of functionals, without their constants."""
        weights = self.weights[member]
        return torch.cat([self.solved[member].cross(part) @ weights for part in form.parts()])

    def deviation(self, points: Tensor) -> Tensor:
        """The standard deviation ``(batch, 1, N)``; zero to rounding where ``u`` is known."""
        form, rows = value_at(points), list[Tensor]()
        for i, solved in enumerate(self.solved):
            if i and solved is self.solved[i - 1]:
                rows.append(rows[-1] * (self.variances[i] / self.variances[i - 1]) ** 0.5)
                continue
            rows.append(self.spread(i, form))
        return torch.stack(rows).unsqueeze(1)

    def spread(self, member: int, form: LinearForm) -> Tensor:
        """The standard deviation of functionals."""
        solved, rows = self.solved[member], []
        for part in form.parts():
            cross = solved.cross(part)
            rows.append(solved.prior.variance(part) - (cross * solved.solve(cross.T).T).sum(1))
        return (self.variances[member] * torch.cat(rows).clamp_min(0.0)).sqrt()

    def covariance(self, member: int, points: Tensor) -> Tensor:
        """The covariance ``(N, N)`` of the values at points."""
        solved, form = self.solved[member], value_at(points)
        cross = solved.cross(form)
        whole = solved.prior.covariance(form, form) - cross @ solved.solve(cross.T)
        return self.variances[member] * (whole + whole.T) / 2


def value_at(points: Tensor, index: tuple[int, ...] = ()) -> LinearForm:
    """The values themselves, or those of a derivative, at points ``(N, axes)``."""
    if points.ndim != 2:
        raise InputError(f"points have shape {tuple(points.shape)}; give (N, axes)")
    points = points.detach().to("cpu", torch.float64)
    return LinearForm(
        points, {index: torch.ones(len(points), dtype=torch.float64)}, torch.zeros(len(points), dtype=torch.float64)
    )
