"""Functions that know their own derivatives, so that autograd can ask for them, any number of times."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Derivatives", "differentiable"]

Index = tuple[int, ...]


class Derivatives(Protocol):
    """A function of points ``(N, axes)`` that states its derivatives along axes."""

    def derivative(self, points: Tensor, index: Index) -> Tensor:
        """``(batch, 1, N)``; ``index`` are the axes, sorted, () is the value."""


def differentiable(function: Derivatives, points: Tensor) -> Tensor:
    """The value at ``points``, with a graph if the points ask for one."""
    if not (points.requires_grad and torch.is_grad_enabled()):
        with torch.no_grad():
            return function.derivative(points, ())
    value: Tensor = _Value.apply(points, function, ())  # type: ignore[no-untyped-call]
    return value


class _Value(torch.autograd.Function):
    """A derivative of the function; its own derivative is the next one."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, function: Derivatives, index: Index) -> Tensor:
        ctx.save_for_backward(points)
        ctx.function, ctx.index = function, index
        return function.derivative(points.detach(), index)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (points,) = ctx.saved_tensors
        columns = []
        for axis in range(points.shape[1]):
            further = _Value.apply(points, ctx.function, tuple(sorted((*ctx.index, axis))))  # type: ignore[no-untyped-call]
            columns.append((slope * further).sum((0, 1)))
        return torch.stack(columns, 1), None, None
