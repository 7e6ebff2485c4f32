"""Deblurring: a sharp image from one that a known kernel has blurred, with noise; lengths are in pixels.

Without ``data`` the blurred image is simulated: a random sum of ellipses (or your ``image``) on ``n`` x ``n`` pixels, convolved with
a Gaussian of standard deviation ``width`` (or your ``kernel``), and white noise of ``sigma`` (0.01) in the units of the image. The
same convolution is used to simulate and to reconstruct, so what the blur did beyond the sides is known, as it never is in
measured data. ``batch=B`` draws images; member ``i`` depends on ``seed`` and ``i`` alone.

With ``data``, a blurred image you measured ``(x, y)`` or ``(batch, 1, x, y)``, in one, two or three axes, the noise is estimated
from it unless ``sigma`` is given. ``boundary`` says what was beyond the sides: "reflect", "nearest", "zero", "periodic", or "valid"
(nothing is assumed: the image is larger than the data by the kernel's size less one).

The prior is total variation; other priors by ``with_prior``. *Fails when* the kernel is not the true one (ringing along edges), or
the noise was estimated from an image that is rough at the scale of single pixels (estimated too high: too smooth a result).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from sciml.core import GaussianNoise, Inverse
from sciml.domains import InputError, Periodic, Pixels, member_generator
from sciml.domains.phantoms import random_images
from sciml.domains.pixels import images
from sciml.forward import Convolution, Nearest, Reflect, Valid, Zero, gaussian_kernel
from sciml.priors import TotalVariation
from sciml.solvers import usual

BOUNDARIES: dict[str, Any] = {
    "reflect": Reflect(),
    "nearest": Nearest(),
    "zero": Zero(),
    "periodic": Periodic(),
    "valid": Valid(),
}


def problem(
    *,
    data: Any = None,
    image: Any = None,
    n: int | Sequence[int] = 128,
    width: float | Sequence[float] = 2.0,
    kernel: Any = None,
    sigma: float | None = None,
    boundary: str = "reflect",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Inverse:
    """The blurred image ``data``, or a simulated one: the first that ``draw`` gives for this seed."""
    if data is None:
        count = 1 if image is None else len(images("image", image))
        return draw(
            count, seed=seed, image=image, n=n, width=width, kernel=kernel, sigma=sigma, boundary=boundary, dtype=dtype
        )
    if image is not None:
        raise InputError("deblur takes data= (blurred, measured) or image= (sharp, to be blurred here), not both")
    data = images("data", data).to(dtype)
    blur = instrument(tuple(data.shape[2:]), width, kernel, boundary, dtype, grown=True)
    noise = GaussianNoise.estimate(data) if sigma is None else GaussianNoise(float(sigma))
    return Inverse("deblur", blur, data, noise, TotalVariation())


def draw(
    count: int,
    *,
    seed: int = 0,
    data: Any = None,
    image: Any = None,
    n: int | Sequence[int] = 128,
    width: float | Sequence[float] = 2.0,
    kernel: Any = None,
    sigma: float | None = None,
    boundary: str = "reflect",
    dtype: torch.dtype = torch.float64,
) -> Inverse:
    """``count`` random images (or one ``image`` ``count`` times, or ``count`` of them), blurred alike; the truth is kept."""
    if count < 1:
        raise InputError(f"count is {count}; draw at least one member")
    if data is not None:
        raise InputError("measured data are not drawn; give data= without batch=")
    level = 0.01 if sigma is None else float(sigma)
    if not 0 < level < math.inf:
        raise InputError(f"sigma is {sigma}; noise is simulated with a positive standard deviation")
    if image is None:
        shape = (n, n) if isinstance(n, int) else tuple(int(m) for m in n)
        if len(shape) != 2 or min(shape) < 1:
            raise InputError(f"n is {n}; random ellipses are drawn in the plane, for other images give image=")
        truth = random_images(count, shape, seed)
    else:
        truth = images("image", image).to(torch.float64)
        if len(truth) not in (1, count):
            raise InputError(f"there are {len(truth)} images and batch={count} was asked for; leave batch= out")
        truth = truth.expand(count, *truth.shape[1:])
    blur = instrument(tuple(truth.shape[2:]), width, kernel, boundary, torch.float64, grown=False)
    noise = GaussianNoise(level)
    # Each by itself: the bits of a transform may depend on how many are done together.
    draws = [noise.sample(blur(truth[i : i + 1]), generator=member_generator(seed, i, "noise")) for i in range(count)]
    blur = dataclasses.replace(blur, kernel=blur.kernel.to(dtype))
    return Inverse("deblur", blur, torch.cat(draws).to(dtype), noise, TotalVariation(), truth=truth.to(dtype))


def instrument(
    shape: tuple[int, ...],
    width: float | Sequence[float],
    kernel: Any,
    boundary: str,
    dtype: torch.dtype,
    grown: bool,
) -> Convolution:
    """The convolution; ``grown``: ``shape`` is that of the data, and under "valid" the image is larger."""
    if boundary not in BOUNDARIES:
        raise InputError(f"there is no boundary {boundary!r}; deblur knows {', '.join(BOUNDARIES)}")
    made = gaussian_kernel(width, (1.0,) * len(shape)) if kernel is None else torch.as_tensor(kernel)
    made = made.to(dtype)
    if grown and boundary == "valid":
        shape = tuple(m + k - 1 for m, k in zip(shape, made.shape[-len(shape) :], strict=True))
    return Convolution(Pixels(shape, tuple(float(m) for m in shape)), made, BOUNDARIES[boundary])


def solver(problem: Inverse) -> Any:
    """What goes with the prior."""
    return usual(problem)
