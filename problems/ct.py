"""Computed tomography with parallel beams in the plane: an image from its line integrals.

Without ``data`` the scan is simulated: a phantom (Shepp and Logan's head unless ``phantom`` gives other ``Ellipses``) on
[-1, 1]^2, its exact line integrals (not those of the pixels, so the reconstruction does not get its own model back; where
ellipses are cut off by the box, those of pixels ``finer`` times smaller; ``finer=1`` commits that inverse crime, as the
published setting does), and
white noise of ``noise`` times the mean absolute line integral. ``batch=B`` draws random ellipses in the setting of learned
primal-dual reconstruction (Adler and Oktem, arXiv:1707.06474: 128^2 pixels, 30 views, 5 % noise).

With ``data``, a data set or file of a measured parallel-beam scan (``sinogram`` with ``angle`` and ``position``, as the
readers give it), the geometry, the centre of rotation, the bad pixels and the noise are taken from it. ``slice`` picks a
slice, ``every`` and ``first`` pick views. ``route`` computes the line integrals: ray-driven for a simulated scan, by Fourier
slices for a measured one if finufft is installed (`pip install sciml[nufft]`). ``correct`` takes out what drifts from view to view and what makes rings, as the
picked views show it. Lengths are in the units of ``position``, the image in one over that.

The prior is total variation; other priors by ``with_prior``. *Fails when* the beam is a fan (refused), the object leaves
the detector (bright rim), or pixels are so coarse that their line integrals miss the data by more than the noise: a weight chosen so that chi-square is
one then fits that error, too. The truth itself has a chi-square per degree of freedom of 1.4 with 128^2 pixels of the head, 2.8 with 64^2 and 8 with 32^2 (random
ellipses: 1.1, 1.6 and 3.3), at 5 % noise; ``problem.misfit(problem.truth)`` tells.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sciml
from sciml.core import GaussianNoise, Inverse
from sciml.domains import InputError, Pixels
from sciml.domains.phantoms import Ellipses, shepp_logan
from sciml.files.stripes import level, unstriped
from sciml.forward import FourierSlice, Radon, RayDriven
from sciml.priors import TotalVariation
from sciml.solvers import usual


def problem(
    *,
    data: Any = None,
    slice: int = 0,
    every: int = 1,
    first: int = 0,
    n: int | None = None,
    views: int = 30,
    noise: float = 0.05,
    finer: int = 2,
    phantom: Ellipses | None = None,
    correct: bool = True,
    route: Any = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Inverse:
    """A simulated scan of a phantom with ``views`` views, or the measured scan ``data``.

    ``n`` is the number of pixels along each axis: 128 for a simulated scan, the number of bins for a measured one.
    """
    if every < 1 or first < 0:
        raise InputError(f"every is {every} and first {first}; views are counted from 0, every must be at least 1")
    if data is not None:
        return measured(data, slice, every, first, n, correct, route, dtype)
    route = RayDriven() if route is None else route
    return simulated(
        shepp_logan() if phantom is None else phantom, every, first, n, views, noise, finer, route, seed, dtype
    )


def simulated(
    phantom: Ellipses,
    every: int,
    first: int,
    n: int | None,
    views: int,
    noise: float,
    finer: int,
    route: Any,
    seed: int,
    dtype: torch.dtype,
) -> Inverse:
    """Exact line integrals of ellipses with white noise; the truth is the image's mean over each pixel."""
    if finer < 1:
        raise InputError(f"finer is {finer}; it is a number of pixels per pixel and axis, at least 1")
    if views < 1 or not noise > 0 or not math.isfinite(noise):
        raise InputError(f"views is {views} and noise {noise}; both must be positive")
    size = 128 if n is None else n
    pixels = Pixels((size, size), (2.0, 2.0))
    angles = (torch.arange(views, dtype=torch.float64) * (math.pi / views))[first::every].to(dtype)
    if not len(angles):
        raise InputError(f"first is {first}, but there are only {views} views")
    radon = Radon(pixels, angles, route=route)
    clean = scan(phantom, radon, pixels, finer)
    sigma = noise * clean.abs().flatten(1).mean(1)
    law = GaussianNoise(sigma if len(sigma) > 1 else float(sigma))
    noisy = law.sample(clean, generator=torch.Generator().manual_seed(seed))
    posed = Inverse("ct", radon, noisy.to(dtype), law, TotalVariation(), truth=phantom.image(pixels).to(dtype))
    return posed if len(sigma) == 1 else dataclasses.replace(posed, noise=GaussianNoise(sigma.to(dtype)))


def scan(phantom: Ellipses, radon: Radon, pixels: Pixels, finer: int) -> Tensor:
    """Line integrals without noise, in double precision: in closed form, or of finer pixels where an ellipse leaves the box."""
    angles = radon.angles.to(torch.float64)
    reach = phantom.axes.amax(-1, keepdim=True)
    inside = (phantom.centre.abs() + reach <= 1).all(-1) | (phantom.value == 0)
    if bool(inside.all()) and finer > 1:
        return phantom.line_integrals(angles, radon.positions)
    fine = Pixels(tuple(finer * m for m in pixels.shape), pixels.extent)
    return Radon(fine, angles, bins=radon.bins, pitch=radon.pitch, centre=radon.centre)(phantom.image(fine))


def measured(
    data: Any, slice: int, every: int, first: int, n: int | None, correct: bool, route: Any, dtype: torch.dtype
) -> Inverse:
    """The scan of a data set: geometry, centre of rotation, noise and mask are the file's."""
    if isinstance(data, str | os.PathLike):
        data = sciml.open_dataset(data)
    if isinstance(data, Tensor) or not hasattr(data, "data_vars"):
        raise InputError(
            "ct takes a data set with sinogram, angle and position, or its file; from bare tensors build Inverse('mine', Radon(pixels, angles), data, GaussianNoise(sigma))"
        )
    if data.attrs.get("geometry", "parallel") != "parallel":
        raise InputError(
            f"this scan has a {data.attrs['geometry']} beam, and ct reconstructs parallel beams only; rebin it to parallel rays first"
        )
    missing = [name for name in ("sinogram", "angle", "position") if name not in data.variables]
    if missing:
        raise InputError(
            f"the data set has no {missing[0]!r}; ct needs sinogram (view, bin), angle (view) and position (bin)"
        )
    for name, axes in (("sinogram", ("view", "bin")), ("angle", ("view",)), ("position", ("bin",))):
        if not set(axes) <= set(data[name].dims) or (name != "sinogram" and data[name].ndim != 1):
            raise InputError(
                f"{name} has the axes {', '.join(map(str, data[name].dims)) or 'none'}; ct needs {', '.join(axes)} (rename them with .rename, or dims= as it is read)"
            )
    if "slice" in data["sinogram"].dims:
        count = data.sizes["slice"]
        if not -count <= slice < count:
            raise InputError(f"slice is {slice}; the scan has {count} slices")
        data = data.isel(slice=slice)
    data = data.isel(view=range(first, data.sizes["view"], every)).transpose("view", "bin", ...)
    if not data.sizes["view"]:
        raise InputError(f"first is {first}, beyond the last view")

    def tensor(name: str) -> Tensor:
        return torch.as_tensor(data[name].values)

    if data.sizes["bin"] < 2:
        raise InputError("the scan has a single bin, from which no spacing follows; ct needs at least two positions")
    if float(data["position"][-1]) < float(data["position"][0]):
        data = data.isel(bin=range(data.sizes["bin"] - 1, -1, -1))
    position = tensor("position").to(torch.float64)
    if not bool((position.diff() > 0).all()):
        raise InputError(
            "the positions of the bins neither increase nor decrease along the detector; sort the scan by position"
        )
    pitch = float((position[-1] - position[0]) / (len(position) - 1))
    even = position[0] + pitch * torch.arange(len(position), dtype=torch.float64)
    if float((position - even).abs().max()) > 0.1 * pitch:
        raise InputError(
            "the positions of the bins are not spaced evenly; interpolate the sinogram to equal spacing first"
        )
    size = len(position) if n is None else n
    extent = pitch * len(position)
    centre = float(data.attrs.get("centre", 0.0)) - float(position.mean())
    if abs(centre) >= 0.5 * (extent - pitch):
        warnings.warn(
            f"the axis of rotation, position {float(data.attrs.get('centre', 0.0)):g}, lies at the edge of the detector or beyond it; positions are measured "
            f"from the axis: subtract the axis' own (the middle of the detector is at {float(position.mean()):g}), or tell it as data.attrs['centre']",
            stacklevel=4,
        )
    unit = data["position"].attrs.get("units", "1")
    pixels = Pixels((size, size), (extent, extent), unit=unit if isinstance(unit, str) and unit.strip() else "1")
    if route is None:  # measured views seldom mirror each other, so that stored weights would be many
        route = FourierSlice() if importlib.util.find_spec("finufft") else RayDriven()
    radon = Radon(pixels, tensor("angle").to(dtype), bins=len(position), pitch=pitch, centre=centre, route=route)
    integrals = data["sinogram"].values
    if "measured" in data:
        integrals = np.where(data["measured"].values, integrals, np.nan)
    if correct:
        integrals = unstriped(level(integrals))
    y = torch.as_tensor(integrals).to(dtype).reshape(1, 1, *radon.codomain.shape[1:])
    mask = tensor("measured").reshape(y.shape) if "measured" in data else None
    whole = mask is None or bool(mask.all())
    if "variance" in data:
        sigma = tensor("variance").to(dtype).sqrt().reshape(y.shape)
        sigma = sigma if mask is None else torch.where(mask, sigma, torch.ones_like(sigma))
        law = GaussianNoise(sigma, None if whole else mask)
    else:
        law = GaussianNoise.estimate(y, None if whole else mask)
    return Inverse(str(data.attrs.get("source", "ct")), radon, y, law, TotalVariation())


def solver(problem: Inverse) -> Any:
    """What goes with the prior."""
    return usual(problem)


def draw(count: int, *, seed: int = 0, **settings: Any) -> Inverse:
    """Scans of random ellipses."""
    if settings.pop("data", None) is not None:
        raise InputError("measured scans are not drawn; give data= without batch=")
    phantom = settings.pop("phantom", None) or Ellipses.random(count, seed=seed)
    return problem(phantom=phantom, seed=seed, **settings)
