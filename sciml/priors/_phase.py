r"""The slow phase of complex images that may have both signs.

The square of ``x = e^{i \phi} w`` with a real ``w`` has twice the phase and no sign: ``s``, an average of ``x^2`` over a few pixels, has the phase
``\psi = 2 \phi``, whatever the signs of ``w``. Its differences between neighbours, which are small, are put together by least squares,

.. math:: \min_\psi \sum_{(p, q)} \min(|s_p|, |s_q|) \, \bigl(\psi_q - \psi_p - \arg(s_q \bar s_p)\bigr)^2,

so that nothing is seen of the jumps of an argument; what remains of ``arg s`` is added at the end. Weighted least-squares
unwrapping: Ghiglia and Romero, J. Opt. Soc. Am. A 11 (1994), doi 10.1364/JOSAA.11.000107.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["blurred", "slow_phase"]

FAINT = 1e-6  # of the largest weight, where there is no image


def slow_phase(image: Tensor, smooth: float = 4.0) -> Tensor:
    """The phase in radians, not wrapped, of complex images ``(batch, channel, *space)``: real, of the same shape.

    ``smooth`` is the width of the average in pixels (a Gaussian window). ``exp(-i phase) * image`` is nearly real, with a sum that is not negative; its
    sign is a choice where the image has both. From a rough reconstruction it serves ``MagnitudePhase(prior, phase=slow_phase(x)[0])``.

    Raises InputError for real images, values that are not finite, and a width that is not positive. Not differentiable; computed on the
    CPU in double precision. *Fails when* the phase turns by more than about a quarter within the width, or parts of the image are far apart: the sign of
    each is then its own.
    """
    if not image.is_complex() or image.ndim < 3:
        raise InputError(
            f"slow_phase takes complex images (batch, channel, *space), not {image.dtype} of shape {tuple(image.shape)}"
        )
    if not smooth > 0:
        raise InputError(f"slow_phase: smooth is {smooth}; it must be positive")
    if not bool(torch.isfinite(image.abs()).all()):
        raise InputError("slow_phase: the image has values that are not finite")
    with torch.no_grad():
        wide = image.detach().to("cpu", torch.complex128)
        found = [_single(one, smooth) for one in wide.flatten(0, 1)]
        stacked = torch.stack(found) if found else torch.zeros(0, *wide.shape[2:], dtype=torch.float64)
        return stacked.reshape(image.shape).to(image.device, image.real.dtype)


def _single(image: Tensor, smooth: float) -> Tensor:
    """One image ``(*space)``."""
    square = image.square()[None, None]
    for axis in range(2, square.ndim):
        square = blurred(square, axis, smooth)
    s = square[0, 0]
    if not bool((s.abs() > 0).any()):
        return torch.zeros_like(s.real)
    psi = _joined(s.numpy())
    psi = psi + float((s * torch.polar(torch.ones_like(psi), -psi)).sum().angle())
    phase = (psi + (s * torch.polar(torch.ones_like(psi), -psi)).angle()) / 2
    whole = (image * torch.polar(torch.ones_like(phase), -phase)).real.sum()
    return phase + torch.pi if float(whole) < 0 else phase


def _joined(s: Any) -> Tensor:
    """Least squares for the differences of the argument, the first pixel at zero."""
    import numpy as np
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import spsolve

    size = np.abs(s)
    size = size + FAINT * size.max()
    index, first, second, turns, weights = np.arange(s.size).reshape(s.shape), [], [], [], []
    for axis in range(s.ndim):
        a = tuple(slice(None, -1) if axis == k else slice(None) for k in range(s.ndim))
        b = tuple(slice(1, None) if axis == k else slice(None) for k in range(s.ndim))
        first.append(index[a].ravel())
        second.append(index[b].ravel())
        turns.append(np.angle(s[b] * s[a].conj()).ravel())
        weights.append(np.minimum(size[a], size[b]).ravel())
    turn, weight = np.concatenate(turns), np.concatenate(weights)
    if len(turn) == 0:
        return torch.zeros(s.shape, dtype=torch.float64)
    at = np.arange(len(turn))
    signs = np.concatenate((-np.ones(len(turn)), np.ones(len(turn))))
    columns = np.concatenate((*first, *second))
    difference = coo_array((signs, (np.concatenate((at, at)), columns)), shape=(len(turn), s.size)).tocsr()
    scaled = diags_array(weight / weight.max()) @ difference
    psi = np.zeros(s.size)
    psi[1:] = spsolve((difference.T @ scaled).tocsc()[1:, 1:], (scaled.T @ turn)[1:])
    return torch.from_numpy(psi.reshape(s.shape))


def blurred(x: Tensor, axis: int, width: float) -> Tensor:
    """A Gaussian average along one axis, normalised at the sides."""
    n = x.shape[axis]
    at = torch.arange(n, dtype=torch.float64, device=x.device)
    window = torch.exp(-((at[:, None] - at) / width).square() / 2)
    window = (window / window.sum(1, keepdim=True)).to(x.dtype)
    return torch.movedim(torch.matmul(torch.movedim(x, axis, -1), window.T), -1, axis)
