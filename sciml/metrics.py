"""Distances between a prediction and the truth, one number per member, computed in float64.

Fields are (batch, channel, *space) or (batch, time, channel, *space); the first axis counts members and every other
axis is summed over. The score of a data set is the mean of these numbers over its members.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["max_error", "relative_h1", "relative_l2"]


def relative_l2(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Relative L2 error :math:`\|p_i - t_i\|_2 / \|t_i\|_2` of every member i.

    Args:
        prediction: (batch, ...), real or complex.
        target: the same shape.

    Returns:
        (batch,), float64, without unit. For a target that is zero everywhere the quotient is taken as 0 when the
        prediction is zero too, and as infinity otherwise.

    Raises:
        InputError: the shapes differ.

    *Fails when* members differ in size by orders of magnitude and a mean over members is taken for a sum of errors.
    """
    error, size = _both(prediction, target)
    return _quotient(_norm(error), _norm(size))


def relative_h1(prediction: Tensor, target: Tensor, spacing: Sequence[float], periodic: Sequence[bool]) -> Tensor:
    r"""Relative H1 error :math:`\sqrt{\|e\|^2 + \|\nabla e\|^2} / \sqrt{\|t\|^2 + \|\nabla t\|^2}` of every member.

    Gradients are differences of neighbouring points divided by the spacing; a periodic axis closes on itself.

    Args:
        prediction: (batch, ..., *space) with as many trailing axes of space as there are spacings.
        target: the same shape.
        spacing: distance of neighbouring points along every axis of space.
        periodic: whether the axis closes on itself.

    Returns:
        (batch,), float64; a zero target is treated as in `relative_l2`.

    Raises:
        InputError: the shapes differ, or there are more spacings than axes.

    *Fails when* the fields jump: the H1 norm of a jump grows as the grid is refined.
    """
    error, size = _both(prediction, target)
    if len(spacing) != len(periodic) or len(spacing) > error.ndim - 1:
        raise InputError(
            f"a field of shape {tuple(prediction.shape)} got {len(spacing)} spacings and {len(periodic)} periodic "
            "flags; give one of each per axis of space."
        )
    return _quotient(_with_gradient(error, spacing, periodic), _with_gradient(size, spacing, periodic))


def max_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Largest absolute error of every member, (batch,), float64, in the unit of the field.

    Raises:
        InputError: the shapes differ.
    """
    error, _ = _both(prediction, target)
    return error.abs().flatten(1).amax(1)


def _both(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if prediction.shape != target.shape or prediction.ndim < 2 or not prediction.numel():
        raise InputError(
            f"the prediction has shape {tuple(prediction.shape)} and the target {tuple(target.shape)}; "
            "both are (batch, channel, *space)."
        )
    wide = torch.complex128 if prediction.is_complex() or target.is_complex() else torch.float64
    truth = target.to(wide)
    return prediction.to(wide) - truth, truth


def _norm(fields: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(fields.flatten(1), dim=1)
    return norm


def _with_gradient(fields: Tensor, spacing: Sequence[float], periodic: Sequence[bool]) -> Tensor:
    square = _norm(fields).square()
    for axis, (step, closes) in enumerate(zip(spacing, periodic, strict=True)):
        place = fields.ndim - len(spacing) + axis
        slope = (fields.roll(-1, place) - fields if closes else fields.diff(dim=place)) / step
        if slope.numel():
            square = square + _norm(slope).square()
    return square.sqrt()


def _quotient(error: Tensor, size: Tensor) -> Tensor:
    vanishes = size == 0
    ratio = error / torch.where(vanishes, torch.ones_like(size), size)
    never = torch.where(error == 0, torch.zeros_like(error), torch.full_like(error, float("inf")))
    return torch.where(vanishes, never, ratio)
