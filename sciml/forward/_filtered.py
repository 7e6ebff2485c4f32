"""The three steps of filtered back-projection: ramp filter, weights of the views, smearing back.

    f(x, y) = integral over half a turn of (p(theta, .) * h)(x cos(theta) + y sin(theta))

with h the band-limited ramp in its exact sampled form, ``1/(4 d^2)`` at 0, ``-1/(pi n d)^2`` at odd n, 0 at even n (d the
pitch): sampling ``|frequency|`` itself would lose the mean of the image. Kak, Slaney, Principles of Computerized
Tomographic Imaging, 1988, section 3.3, doi:10.1137/1.9780898719277.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciml.forward.windows import Window

__all__ = ["ramped", "smeared", "view_weights"]

WEDGE = 5.0  # a gap of so many median gaps is a missing wedge, not a step of the integral


def ramped(data: Tensor, pitch: float, window: Window) -> Tensor:
    """The last axis filtered, zero-padded to at least twice its length so that nothing wraps round."""
    bins = data.shape[-1]
    length = 2 ** math.ceil(math.log2(2 * bins))
    n = torch.arange(length, dtype=torch.float64)
    n = torch.minimum(n, length - n)
    kernel = torch.where(n % 2 == 1, -1 / (math.pi * n.clamp_min(1)) ** 2, 0.0)
    kernel[0] = 0.25
    gain = torch.fft.rfft(kernel).real / pitch
    gain = gain * window(torch.linspace(0, 1, len(gain), dtype=torch.float64))
    filtered: Tensor = torch.fft.irfft(torch.fft.rfft(data, n=length) * gain.to(data), n=length)
    return filtered[..., :bins]


def view_weights(angles: Tensor) -> Tensor:
    """Weights (float64) of the trapezoidal rule in the angle modulo pi, evenly spaced or not; they add up to pi.

    Half a turn or a whole one are integrated as periodic functions. A gap of more than five median gaps is taken for a
    wedge that was not measured, and the views beside it weigh as much as the median one; the sum is then less than pi.
    """
    phi, order = torch.sort(torch.remainder(angles.to(torch.float64), math.pi))
    gaps = torch.diff(phi, append=phi[:1] + math.pi)
    steps = gaps[gaps > 1e-6]
    median = torch.median(steps) if len(steps) else gaps.max()
    gaps = torch.where(gaps > WEDGE * median, median, gaps)
    weights = torch.empty_like(phi)
    weights[order] = (gaps + gaps.roll(1)) / 2
    return weights


def smeared(data: Tensor, at: tuple[Tensor, Tensor], angles: Tensor, pitch: float, first: float) -> Tensor:
    """Sum over views of ``data`` (batch, views, bins), interpolated linearly where the centre of each pixel projects.

    ``at`` are the coordinates of the centres along both axes, ``first`` the position of bin 0. Beyond the detector data are 0.
    """
    batch, _, bins = data.shape
    padded = torch.nn.functional.pad(data, (1, 1))
    x, y = (c.to(angles) for c in at)
    total = data.new_zeros(batch, len(x) * len(y))
    for view, angle in enumerate(angles):
        place = (x * angle.cos())[:, None] + (y * angle.sin())[None] - first
        place = (place.ravel() / pitch + 1).clamp(0, bins + 1)
        below = place.floor().clamp_max(bins)
        share = (place - below).to(data.dtype)
        line = padded[:, view]
        index = below.long()
        total = total + torch.lerp(line.index_select(1, index), line.index_select(1, index + 1), share)
    return total.reshape(batch, len(x), len(y))
