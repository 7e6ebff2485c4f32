"""Distances between a prediction or reconstruction and the truth, one number per member, computed in float64.

Fields are (batch, channel, *space) or (batch, time, channel, *space); the first axis counts members and every other
axis is summed over. The score of a data set is the mean of these numbers over its members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["ktc_score", "max_error", "otsu", "psnr", "relative_h1", "relative_l2", "snr", "ssim"]


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


def snr(value: Tensor, truth: Tensor) -> Tensor:
    r"""Signal-to-noise ratio :math:`20 \log_{10}(\|t_i\|_2 / \|v_i - t_i\|_2)` of every member, (batch,), float64, in dB.

    Infinite where the two are equal, minus infinity where only the truth is zero.

    Raises:
        InputError: the shapes differ.
    """
    return -20 * relative_l2(value, truth).log10()


def psnr(value: Tensor, truth: Tensor, range: float | None = None) -> Tensor:
    r"""Peak signal-to-noise ratio :math:`20 \log_{10}(range / \mathrm{rms}(v_i - t_i))` of every member.

    Args:
        value: (batch, channel, *space), real or complex.
        truth: the same shape.
        range: the largest difference of values that images of this kind have, in their unit. None: maximum minus minimum
            of each truth (of its magnitude, if complex).

    Returns:
        (batch,), float64, in dB; infinite where the two are equal.

    Raises:
        InputError: the shapes differ, the range is not positive, or a truth is constant and no range is given.

    *Fails when* numbers of different ranges are compared: a range twice as large adds 6 dB.
    """
    error, target = _both(value, truth)
    rms = error.abs().flatten(1).square().mean(1).sqrt()
    return 20 * (_range("psnr", target, range) / rms).log10()


def ssim(value: Tensor, truth: Tensor, range: float | None = None) -> Tensor:
    r"""Structural similarity of every member: the mean over windows of 7 pixels per axis, wholly inside, of

    .. math:: \frac{(2 \bar v \bar t + c_1)(2 s_{vt} + c_2)}{(\bar v^2 + \bar t^2 + c_1)(s_v^2 + s_t^2 + c_2)}

    with sample (co)variances, :math:`c_1 = (0.01\,range)^2`, :math:`c_2 = (0.03\,range)^2`; channels are averaged. Source:
    Wang, Bovik, Sheikh, Simoncelli, IEEE Trans. Image Process. 13, 2004, doi:10.1109/TIP.2003.819861.

    Args:
        value: (batch, channel, *space), real, with one to three axes of space of at least 7 pixels.
        truth: the same shape.
        range: as in `psnr`.

    Returns:
        (batch,), float64, at most 1.

    Raises:
        InputError: shapes that differ or are too small, complex images, a range that is not positive, a constant truth
            without a range.
    """
    error, t = _both(value, truth)
    space = t.shape[2:]
    if t.is_complex() or not 1 <= len(space) <= 3 or min(space) < 7:
        raise InputError(
            f"ssim compares real images (batch, channel, *space) of at least 7 pixels per axis, not {tuple(t.shape)}"
            f"{' of complex numbers' if t.is_complex() else ''}; take psnr instead."
        )
    peak = _range("ssim", t, range).reshape(-1, *[1] * (t.ndim - 1))
    v = error + t
    count = 7 ** len(space)
    mean_v, mean_t = _window(v), _window(t)
    var_v, var_t, both = _window(v * v) - mean_v**2, _window(t * t) - mean_t**2, _window(v * t) - mean_v * mean_t
    share = count / (count - 1)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    top = (2 * mean_v * mean_t + c1) * (2 * share * both + c2)
    likeness: Tensor = top / ((mean_v**2 + mean_t**2 + c1) * (share * (var_v + var_t) + c2))
    return likeness.flatten(1).mean(1)


def ktc_score(segmentation: Tensor, truth: Tensor) -> Tensor:
    r"""Score of the Kuopio Tomography Challenge 2023: the mean similarity of the conductive and of the resistive mask.

    For each of the two, with Gaussian weights :math:`w \propto e^{-(i^2+j^2)/(2 \cdot 80^2)}`, :math:`|i|, |j| \le 160`
    pixels, that are scaled to sum to one over the pixels inside the image, the mean over all pixels of

    .. math:: \frac{(2 \bar v \bar t + 10^{-4})(2 s_{vt} + 9 \cdot 10^{-4})}
                   {(\bar v^2 + \bar t^2 + 10^{-4})(s_v^2 + s_t^2 + 9 \cdot 10^{-4})}.

    Source: the rules of the challenge, doi:10.5281/zenodo.8252370.

    Args:
        segmentation: (..., 256, 256), 0 water, 1 resistive, 2 conductive; a value within 0.1 of a label counts as it.
        truth: the same shape.

    Returns:
        (...), float64, at most 1.

    Raises:
        InputError: another shape (the challenge gives such a segmentation 0).

    *Fails when* an inclusion is small: the windows are wider than half the tank, so that its exact shape hardly counts.
    """
    if segmentation.shape != truth.shape or tuple(truth.shape[-2:]) != (256, 256):
        raise InputError(
            f"ktc_score compares segmentations (..., 256, 256), not {tuple(segmentation.shape)} with {tuple(truth.shape)}."
        )
    at = torch.arange(256, dtype=torch.float64, device=truth.device)
    away = (at[:, None] - at).abs()
    weight = torch.exp(-0.5 * (away / 80) ** 2) * (away <= 160)
    weight = weight / weight.sum(1, keepdim=True)
    score = torch.zeros(truth.shape[:-2], dtype=torch.float64, device=truth.device)
    for label in (1, 2):
        v, t = (((labels.double() - label).abs() < 0.1).double() for labels in (segmentation, truth))
        mean_v, mean_t = weight @ v @ weight.T, weight @ t @ weight.T  # a mask is its own square
        both = weight @ (v * t) @ weight.T - mean_v * mean_t
        top = (2 * mean_v * mean_t + 1e-4) * (2 * both + 9e-4)
        spread = mean_v - mean_v**2 + mean_t - mean_t**2
        score += (top / ((mean_v**2 + mean_t**2 + 1e-4) * (spread + 9e-4))).mean((-2, -1)) / 2
    return score


def otsu(image: Tensor, bins: int = 256) -> Tensor:
    r"""Three kinds of material in an image of conductivity, as the baseline of the Kuopio Tomography Challenge tells them.

    The two thresholds maximise the variance between the three classes of the histogram,
    :math:`\sum_k n_k (\mu_k - \mu)^2`, and lie at the middle of a bin. The class with the most pixels is water (0);
    a class below it is resistive (1), one above it conductive (2). Source: Otsu, IEEE Trans. Syst. Man Cybern. 9, 1979,
    doi:10.1109/TSMC.1979.4310076.

    Args:
        image: (..., height, width), real, in any unit; each image is divided by its own histogram.
        bins: of equal width, from the smallest to the largest value.

    Returns:
        (..., height, width), uint8.

    Raises:
        InputError: complex numbers, values that are not finite, fewer than three different bins filled.

    *Fails when* there is one kind of inclusion only: three classes are found all the same, and water is split; and when
    pixels outside the tank have another value than water (the baseline divides the change from water, zero outside).
    """
    if image.is_complex() or image.ndim < 2 or not image.numel() or not bool(image.isfinite().all()):
        raise InputError(f"otsu divides finite real images (..., height, width), not {tuple(image.shape)}.")
    flat = image.detach().double().flatten(-2).reshape(-1, image.shape[-2] * image.shape[-1])
    return torch.stack([_divided(member, bins) for member in flat]).reshape(image.shape)


def _divided(values: Tensor, bins: int) -> Tensor:
    import numpy as np

    found, edges = np.histogram(values.cpu().numpy(), bins)
    if int((found > 0).sum()) < 3:
        raise InputError("otsu: the image has fewer than three kinds of values; there is nothing to divide.")
    counts = torch.as_tensor(found, dtype=torch.float64, device=values.device)
    middles = torch.as_tensor((edges[:-1] + edges[1:]) / 2, device=values.device)
    zero = counts.new_zeros(1)
    number = torch.cat([zero, counts.cumsum(0)])
    moment = torch.cat([zero, (counts * torch.arange(1, bins + 1, dtype=counts.dtype, device=counts.device)).cumsum(0)])
    mean = moment[-1] / number[-1]

    def spread(amount: Tensor, first: Tensor) -> Tensor:
        return amount * (first / amount - mean) ** 2

    size, first = number[:, None] - number, moment[:, None] - moment  # of the bins from j to i
    between = (
        spread(number, moment)[None] + spread(size, first) + spread(number[-1] - number, moment[-1] - moment)[:, None]
    )
    allowed = (number > 0)[None] & (size > 0) & (number < number[-1])[:, None]
    between = torch.where(allowed, between, torch.full_like(between, -1.0)).flatten()
    best = int((between == between.max()).nonzero()[-1])  # the last of equals
    upper, lower = middles[best // (bins + 1) - 1], middles[best % (bins + 1) - 1]
    kinds = (values >= lower).long() + (values > upper).long()
    water = int(kinds.bincount(minlength=3).argmax())
    return torch.where(kinds == water, 0, torch.where(kinds < water, 1, 2)).to(torch.uint8)


def _range(name: str, truth: Tensor, given: float | None) -> Tensor:
    if given is not None:
        if not 0 < given < math.inf:
            raise InputError(f"{name}: the range is {given}; it is the largest minus the smallest value, positive.")
        return torch.full((truth.shape[0],), float(given), dtype=torch.float64, device=truth.device)
    size = truth.abs() if truth.is_complex() else truth
    found = size.flatten(1).amax(1) - size.flatten(1).amin(1)
    if bool((found == 0).any()):
        raise InputError(f"{name}: the truth of member {int((found == 0).nonzero()[0])} is constant; pass range=.")
    return found


def _window(fields: Tensor) -> Tensor:
    """Means over windows of 7 pixels per axis, one axis after the other."""
    for axis in range(2, fields.ndim):
        fields = fields.unfold(axis, 7, 1).mean(-1)
    return fields


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
