"""How the terms of a PINN's loss are weighed against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.learned._residuals import LeastSquares

__all__ = ["Balanced", "Discounted", "Fixed", "Tempered", "Weighting"]


class Weighting(Protocol):
    """``weigh(objective, theta)`` gives one weight per term, asked again whenever the points are drawn anew."""

    def weigh(self, objective: LeastSquares, theta: Tensor) -> list[float | Tensor]: ...


@dataclass(frozen=True)
class Fixed:
    """Weights by the name of the term (``interior``, ``start``, ``data``, or a side); others have ``rest``.

    The rows of ``data`` are in units of their noise, so that their mean square is about 1 for the truth; their weight is the
    square of the residual that the equation is allowed for their sake, and by default small.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    rest: float = 1.0
    data: float = 1e-5

    def weigh(self, objective: LeastSquares, theta: Tensor) -> list[float | Tensor]:
        """The weights; InputError for a name that is no term."""
        names = [term.name for term in objective.terms]
        unknown = [name for name in self.weights if name not in names]
        if unknown:
            raise InputError(f"there is no term {unknown[0]!r} to weigh; the terms are {', '.join(names)}")
        return [self.weights.get(name, self.data if name == "data" else self.rest) for name in names]


@dataclass(frozen=True)
class Balanced:
    """Every term pulls alike: weights that give the kernel ``J J^T`` of every term the same trace per row (Wang, Yu and
    Perdikaris, arXiv 2007.14527), the interior's staying 1."""

    def weigh(self, objective: LeastSquares, theta: Tensor) -> list[float | Tensor]:
        """Weights from the Jacobian as it is now."""
        even = objective.weighted([1.0] * len(objective.terms))
        _, j = even.jacobian(theta)
        at, traces = 0, []
        for term in objective.terms:
            traces.append(float(j[at : at + term.count].square().sum()))
            at += term.count
        return [traces[0] / max(trace, 1e-300) for trace in traces]


@dataclass(frozen=True)
class Discounted:
    """Early residuals count more: rows of the equation are multiplied with ``exp(-rate (t - begin))``, on top of the weights of ``inner``.

    In an evolution whose small errors grow like ``exp(rate t)`` (the linear rate of an instability), a residual at time ``t`` ends as an
    error ``exp(rate (end - t))`` times as large; with this weight the loss speaks of the error at the end. A simpler relative of
    the causal weights of Wang, Sankaran and Perdikaris (arXiv 2203.07404).
    """

    rate: float
    inner: Weighting = Fixed()

    def weigh(self, objective: LeastSquares, theta: Tensor) -> list[float | Tensor]:
        """The weights of the inner rule, per point where the term has a time."""
        found: list[float | Tensor] = []
        for term, weight in zip(objective.terms, self.inner.weigh(objective, theta), strict=True):
            if term.name == "interior" and term.timed:
                t = term.patch.points[:, term.patch.points.shape[1] - len(term.columns) - 1]
                weight = weight * torch.exp(-2 * self.rate * (t - term.begin))
            found.append(weight)
        return found


@dataclass(frozen=True)
class Tempered:
    """Data count ``share`` times the mean square that the equation's residual has now, between ``least`` and ``most``; other terms as ``inner`` says.

    The rows of data are in units of their noise. At first, when the equation is far from met, the data lead and pull solution and
    unknown along; as the residual falls the equation takes over. Data much weaker than ``least`` would pull the unknown less than
    the damping of a Gauss-Newton step holds it back, and the training would crawl along solutions for wrong values of it;
    data much stronger let the equation give way to their noise.
    """

    share: float = 10.0
    least: float = 1e-4
    most: float = 1e-2
    inner: Weighting = Fixed()

    def weigh(self, objective: LeastSquares, theta: Tensor) -> list[float | Tensor]:
        """The weights of the inner rule, that of the data replaced."""
        found = self.inner.weigh(objective, theta)
        names = [term.name for term in objective.terms]
        if "data" in names:
            interior = objective.terms[names.index("interior")]
            size = float(objective.residual(interior, theta).square().mean())
            found[names.index("data")] = min(self.most, max(self.least, self.share * size))
        return found
