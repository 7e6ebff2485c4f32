"""How the terms of a PINN's loss are weighed against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from sciml.domains.errors import InputError
from sciml.learned._residuals import LeastSquares

__all__ = ["Balanced", "Fixed", "Weighting"]


class Weighting(Protocol):
    """``weigh(objective, theta)`` gives one weight per term, asked again whenever the points are drawn anew."""

    def weigh(self, objective: LeastSquares, theta: Tensor) -> list[float]: ...


@dataclass(frozen=True)
class Fixed:
    """Weights by the name of the term (``interior``, ``start``, ``data``, or a side); others have ``rest``."""

    weights: Mapping[str, float] = field(default_factory=dict)
    rest: float = 1.0

    def weigh(self, objective: LeastSquares, theta: Tensor) -> list[float]:
        """The weights; InputError for a name that is no term."""
        names = [term.name for term in objective.terms]
        unknown = [name for name in self.weights if name not in names]
        if unknown:
            raise InputError(f"there is no term {unknown[0]!r} to weigh; the terms are {', '.join(names)}")
        return [self.weights.get(name, self.rest) for name in names]


@dataclass(frozen=True)
class Balanced:
    """Every term pulls alike: weights that give the kernel ``J J^T`` of every term the same trace per row (Wang, Yu and
    Perdikaris, arXiv 2007.14527), the interior's staying 1."""

    def weigh(self, objective: LeastSquares, theta: Tensor) -> list[float]:
        """Weights from the Jacobian as it is now."""
        even = objective.weighted([1.0] * len(objective.terms))
        _, j = even.jacobian(theta)
        at, traces = 0, []
        for term in objective.terms:
            traces.append(float(j[at : at + term.count].square().sum()))
            at += term.count
        return [traces[0] / max(trace, 1e-300) for trace in traces]
