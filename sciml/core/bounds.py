"""How far an answer is from the solution in what can be computed: backward errors, objectives above their least value, data of the wrong kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sciml.core.linear import ForwardModel, LinearOperator
from sciml.core.noise import inner
from sciml.domains.errors import InputError

__all__ = ["backward_error", "refuse_other_kind", "slack"]


def slack(problem: Any, slope: Tensor, x: Tensor, weight: Tensor, reach: Callable[[Tensor], Tensor]) -> Tensor:
    r"""The most that ``P(x) - min P`` can be where ``|grad P(x)| = slope``, per member.

    That is ``slope r`` within ``r = reach(x) >= |x|`` for a convex ``P``. Where the model is linear and the prior knows its ``modulus`` ``mu``, the
    largest number for which ``R(x) - mu |x|^2 / 2`` is convex, it is at most ``slope^2 / (2 weight mu)`` anywhere (Nesterov, Introductory
    Lectures on Convex Optimization, 2004, theorem 2.1.10); the smaller of both is returned.
    """
    modulus = float(getattr(problem.prior, "modulus", 0.0))
    if not (modulus > 0 and isinstance(problem.forward, LinearOperator)):
        return slope * reach(x)
    strong = slope.square() / (2 * weight.to(torch.float64) * modulus)
    return strong if bool((strong <= slope * inner(x, x).sqrt()).all()) else torch.minimum(strong, slope * reach(x))


def refuse_other_kind(name: str, data: Tensor, forward: ForwardModel) -> None:
    """Raise InputError for complex data of a real model and real data of a complex one, which has twice as many numbers."""
    wanted = forward.codomain.complex
    if data.is_complex() != wanted:
        mend = (
            "give data.to(torch.complex128), or the samples as they were measured"
            if wanted
            else "give its real part, or a model of complex data"
        )
        raise InputError(
            f"{name!r}: the data are {'complex' if data.is_complex() else 'real'} and {type(forward).__name__} makes {'complex' if wanted else 'real'} ones; {mend}"
        )


def backward_error(residual: Tensor, size: Tensor, u: Tensor, rest: Tensor) -> Tensor:
    """``|residual| / (size |u| + |rest|)`` in plain 2-norms per member; zero over zero is zero."""

    def norm(t: Tensor) -> Tensor:
        flat = t.flatten(1)
        largest = flat.abs().amax(1, keepdim=True)  # squares of very small or large numbers leave the range
        scaled = flat / torch.where(largest > 0, largest, torch.ones_like(largest))
        size: Tensor = torch.linalg.vector_norm(scaled, dim=1) * largest[:, 0]
        return size

    top, bottom = norm(residual), size * norm(u) + norm(rest)
    return torch.where(top == 0, torch.zeros_like(top), top / bottom)
