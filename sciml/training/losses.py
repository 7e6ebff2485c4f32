"""What training minimises: plain objects called with (prediction, target), both in physical units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["H1", "LogL2", "Loss", "RelativeL2", "relative_h1", "relative_l2"]

TINY = 1e-12  # added to norms of targets, so that a target of zeros does not divide by zero


class Loss(Protocol):
    """Anything that takes (prediction, target), each (batch, channel, *space), and returns one number."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor: ...


def relative_l2(prediction: Tensor, target: Tensor) -> Tensor:
    r"""``|u - v| / |v|`` per member: (batch, channel, *space) twice -> (batch,). All channels enter one norm."""
    check(prediction, target)
    return norm([prediction - target]) / (norm([target]) + TINY)


def relative_h1(prediction: Tensor, target: Tensor, spacing: Sequence[float]) -> Tensor:
    r"""``sqrt(|e|^2 + |grad e|^2) / sqrt(|v|^2 + |grad v|^2)`` per member, with e = u - v: -> (batch,).

    Gradients are differences of neighbours over `spacing` (one number per axis, in the units of the fields' grid);
    sums of squares are weighted by the cell volume alone, which cancels.
    """
    check(prediction, target)
    error = prediction - target
    return norm([error, *slopes(error, spacing)]) / (norm([target, *slopes(target, spacing)]) + TINY)


def check(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise InputError(
            f"the prediction has shape {tuple(prediction.shape)} and the target {tuple(target.shape)}; "
            "they must be equal: set the network's out_channels to the number of target channels."
        )


def slopes(field: Tensor, spacing: Sequence[float]) -> list[Tensor]:
    """Differences of neighbours along each space axis, divided by the spacing."""
    dim = field.ndim - 2
    if len(spacing) != dim:
        raise InputError(f"H1: spacing {tuple(spacing)} for {dim} space axes; give one number per axis.")
    return [field.diff(dim=axis - dim) / spacing[axis] for axis in range(dim)]


def norm(fields: list[Tensor]) -> Tensor:
    """Root of the sum of squares over everything but the batch; its gradient at zero is zero, not NaN."""
    size: Tensor = torch.linalg.vector_norm(torch.cat([f.flatten(1) for f in fields], dim=1), dim=1)
    return size


@dataclass(frozen=True)
class RelativeL2:
    r"""Mean over members of ``|u - v| / |v|`` (norm first, then mean), u predicted and v true.

    *Fails when* a target is zero everywhere: its error is then divided by a tiny number and outweighs all others.
    """

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        return relative_l2(prediction, target).mean()


@dataclass(frozen=True)
class LogL2:
    r"""Mean over members of ``log(|u - v| / |v|)``: the mean peak signal-to-noise ratio, up to factor and constant.

    *Fails when* a prediction may be exact: the logarithm of nothing has no end, and its slope neither.
    """

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (relative_l2(prediction, target) + TINY).log().mean()


@dataclass(frozen=True)
class H1:
    r"""Mean over members of ``|e| / |v| + weight |grad e| / |grad v|``, e = u - v (Czarnecki et al., arXiv:1706.04859).

    ``spacing`` is one number per axis; :func:`sciml.fit` fills it in from the data. Gradients are differences of
    neighbours. *Fails when* targets are constant in space (their gradient is zero) or noisy from point to point.
    """

    weight: float = 1.0
    spacing: tuple[float, ...] | None = None

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        if self.spacing is None:
            raise InputError("H1: no spacing; give H1(weight, spacing=(h_1, ...)), or let `fit` take it from the data.")
        error = prediction - target
        seminorm = norm(slopes(error, self.spacing)) / (norm(slopes(target, self.spacing)) + TINY)
        return (relative_l2(prediction, target) + self.weight * seminorm).mean()
