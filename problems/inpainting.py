"""Inpainting: an image of which some pixels are missing, the others known up to noise; lengths are in pixels.

Without ``data`` the image is a random sum of ellipses (or your ``image``) on ``n`` x ``n`` pixels, of which the share ``missing``
is hidden in squares of ``hole`` x ``hole`` pixels (one: single pixels), and white noise of ``sigma`` (0.01) is added to the rest.
``batch=B`` draws images and masks; member ``i`` depends on ``seed`` and ``i`` alone.

With ``data``, an image you have ``(x, y)`` or ``(batch, 1, x, y)`` in one, two or three axes (colours as members), ``mask`` is True
where its pixels are known; without a mask those that are not finite are missing. The noise is estimated from the known pixels
unless ``sigma`` is given.

The prior is total variation; others by ``with_prior``: wavelets, a denoiser. *Fails when* a hole is wider than what the prior
continues: total variation closes a hole with the shortest edges, not with the true ones, and wavelets leave wide holes grey.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sciml.core import GaussianNoise, Inverse
from sciml.domains import InputError, Pixels, member_generator
from sciml.domains.phantoms import random_images
from sciml.domains.pixels import images
from sciml.forward import Mask
from sciml.priors import TotalVariation
from sciml.solvers import usual


def problem(
    *,
    data: Any = None,
    mask: Any = None,
    image: Any = None,
    n: int | Sequence[int] = 128,
    missing: float = 0.5,
    hole: int = 1,
    sigma: float | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Inverse:
    """The image ``data`` with gaps, or a simulated one: the first that ``draw`` gives for this seed."""
    if data is None:
        count = 1 if image is None else len(images("image", image))
        return draw(count, seed=seed, mask=mask, image=image, n=n, missing=missing, hole=hole, sigma=sigma, dtype=dtype)
    if image is not None:
        raise InputError("inpainting takes data= (an image with gaps) or image= (whole, to be masked here), not both")
    data = images("data", data).to(dtype)
    seen = torch.isfinite(data) if mask is None else known("mask", mask, data.shape)
    if mask is None and bool(seen.all()):
        raise InputError(
            "all pixels of data are finite; give mask=, True where they are known, or set the others to NaN"
        )
    data = torch.where(seen, data, torch.zeros_like(data))
    if sigma is None:
        noise = GaussianNoise.estimate(data, seen)
        if not bool(torch.isfinite(torch.as_tensor(noise.sigma)).all()):
            raise InputError("too few neighbouring pixels are known to estimate the noise from; give sigma=")
    else:
        noise = GaussianNoise(float(sigma))
    noise = dataclasses.replace(noise, measured=seen)
    return Inverse("inpainting", instrument(seen, dtype), data, noise, TotalVariation())


def draw(
    count: int,
    *,
    seed: int = 0,
    data: Any = None,
    mask: Any = None,
    image: Any = None,
    n: int | Sequence[int] = 128,
    missing: float = 0.5,
    hole: int = 1,
    sigma: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> Inverse:
    """``count`` random images (or one ``image`` ``count`` times, or ``count`` of them), each with gaps of its own; the truth is kept."""
    if count < 1:
        raise InputError(f"count is {count}; draw at least one member")
    if data is not None:
        raise InputError("an image with gaps is not drawn; give data= without batch=")
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
    if mask is None:
        space = tuple(truth.shape[2:])
        seen = torch.cat([holes(space, missing, hole, member_generator(seed, i, "mask")) for i in range(count)])
    else:
        seen = known("mask", mask, truth.shape)
    noise = GaussianNoise(level)
    draws = [noise.sample(truth[i : i + 1], generator=member_generator(seed, i, "noise")) for i in range(count)]
    data = torch.where(seen, torch.cat(draws), 0.0).to(dtype)
    noise = dataclasses.replace(noise, measured=seen)
    return Inverse("inpainting", instrument(seen, dtype), data, noise, TotalVariation(), truth=truth.to(dtype))


def instrument(seen: Tensor, dtype: torch.dtype) -> Mask:
    """The mask, on pixels of size one; one mask for all members where they are the same."""
    shape = tuple(seen.shape[2:])
    seen = seen[:1] if bool((seen == seen[:1]).all()) else seen
    return Mask(Pixels(shape, tuple(float(m) for m in shape)).space(1, dtype, seen.device), seen)


def holes(shape: tuple[int, ...], missing: float, hole: int, generator: torch.Generator) -> Tensor:
    """True where pixels are seen: exactly the share ``1 - missing`` of the squares, the last ones cut at the sides."""
    if not 0 <= missing < 1:
        raise InputError(f"missing is {missing}; give the share of hidden pixels, at least 0 and less than 1")
    if not isinstance(hole, int) or not 1 <= hole < max(shape):
        raise InputError(
            f"hole is {hole}; give the side of the hidden squares in pixels, less than the image's {shape}"
        )
    coarse = [-(-m // hole) for m in shape]
    order = torch.rand(coarse, generator=generator, dtype=torch.float64).flatten().argsort()
    seen = torch.ones(math.prod(coarse), dtype=torch.bool)
    seen[order[: min(round(missing * len(seen)), len(seen) - 1)]] = False
    seen = seen.reshape(coarse)
    for axis, m in enumerate(shape):
        seen = seen.repeat_interleave(hole, axis).narrow(axis, 0, m)
    return seen[None, None]


def known(name: str, given: Any, shape: torch.Size) -> Tensor:
    """A mask ``(batch, 1, *space)`` of booleans, or of zeros and ones."""
    mask = torch.as_tensor(given)
    if mask.dtype != torch.bool:
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise InputError(f"{name} holds other numbers than 0 and 1; it is True (1) where pixels are known")
        mask = mask != 0
    mask = mask[None, None] if mask.ndim <= 3 else mask
    if mask.ndim != len(shape) or mask.shape[1:] != shape[1:] or mask.shape[0] not in (1, shape[0]):
        raise InputError(
            f"{name} has shape {tuple(mask.shape[2:])}, the image {tuple(shape[2:])}; give one entry per pixel"
        )
    return mask.expand(shape)


def solver(problem: Inverse) -> Any:
    """What goes with the prior."""
    return usual(problem)
