"""The solver that an inverse problem is given where nobody asks for another."""

from __future__ import annotations

import dataclasses
from typing import Any

from sciml.core.inverse import Inverse
from sciml.solvers.discrepancy import Discrepancy
from sciml.solvers.plug_and_play import PlugAndPlay
from sciml.solvers.primal_dual import PrimalDual
from sciml.solvers.proximal_gradient import ProximalGradient

__all__ = ["usual"]


def usual(problem: Inverse[Any]) -> Any:
    """By what the prior states: the steps it was trained with (``prior.solver()``); plug and play, if it only denoises; primal-dual
    steps, if it is convex; else proximal gradient steps, these two inside ``Discrepancy`` where the weight is open."""
    own = getattr(problem.prior, "solver", None)
    if own is not None:
        return own()
    if not problem.energetic and PlugAndPlay().accepts(problem) is None:
        return PlugAndPlay()
    posed = dataclasses.replace(problem, weight=1.0)
    inner: Any = PrimalDual() if PrimalDual().accepts(posed) is None else ProximalGradient()
    return Discrepancy(inner) if problem.weight is None else inner
