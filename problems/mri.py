"""Magnetic resonance imaging with several coils: a complex image from some of its k-space.

Without ``kspace`` the scan is simulated: the head of Shepp and Logan (or your ``phantom``) on [-1, 1]^2 with a smooth phase, seen by
``coils`` loops around it; k-space is that of pixels ``finer`` times smaller (``finer=1`` simulates and reconstructs on the same
pixels, the inverse crime, as published comparisons do), sampled ``acceleration`` times less than whole by Poisson discs (or by your
``sampling`` rule, such as ``sciml.forward.Equispaced(4)``), with white noise of ``sigma`` (0.02) per real component, in the
units of the image. ``batch=B`` draws random ellipses with random phases; member ``i`` depends on ``seed`` and ``i`` alone.

With ``kspace``, what you measured: ``(coil, ky, kx)``, or ``(batch, coil, ky, kx)``, frequency zero at index ``n // 2``, or ``data``, a data
set or file with that field (``slice`` picks one of several). ``mask`` is where k-space was sampled (None: where it is
not zero); ``maps`` are the coils' sensitivities, of the shape of ``kspace`` (None: estimated by ESPIRiT, or from images of low
resolution where the sampled middle is too small for it); ``sigma`` is the noise per real component, one number or ``(coil, 1)`` (None:
estimated for every coil from the rim of k-space). The axes of the image are those of k-space, in their order; lengths are in mm
where the file tells them, otherwise in pixels.

The prior is total variation; ``problem.with_prior(None)`` is CG-SENSE, stopped at the noise. *Fails when* the object moved,
or k-space does not reach down to the noise at its rim (sigma is then too large: give it).
"""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sciml
from sciml.core import GaussianNoise, Inverse
from sciml.domains import InputError, Pixels, member_generator
from sciml.domains.numbers import numbers
from sciml.domains.phantoms import Ellipses, shepp_logan
from sciml.forward import Fourier, PoissonDisc, birdcage_maps, espirit, low_resolution_maps
from sciml.forward._coils import canonical_mask
from sciml.priors import TotalVariation
from sciml.solvers import LeastSquares, usual

SHELLS = 20  # of k-space, of which the quietest tells the noise


def problem(
    *,
    kspace: Any = None,
    mask: Any = None,
    maps: Any = None,
    sigma: float | Tensor | None = None,
    data: Any = None,
    slice: int = 0,
    n: int = 128,
    coils: int = 8,
    acceleration: float = 4.0,
    sampling: Any = None,
    finer: int = 2,
    phantom: Ellipses | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Inverse:
    """The scan ``kspace`` or ``data``, or a simulated one of a phantom."""
    if data is not None:
        if kspace is not None:
            raise InputError("mri takes kspace= (numbers) or data= (a data set or its file), not both")
        kspace, found, spacing = opened(data, slice)
        return measured(kspace, found if mask is None else mask, maps, sigma, spacing, dtype)
    if kspace is not None:
        return measured(kspace, mask, maps, sigma, None, dtype)
    phantom = shepp_logan() if phantom is None else phantom
    phases = [smooth_phase(member_generator("mri", seed, i, "phase")) for i in range(phantom.batch)]
    return simulated(phantom, phases, mask, maps, sigma, n, coils, acceleration, sampling, finer, seed, dtype)


def draw(count: int, *, seed: int = 0, **settings: Any) -> Inverse:
    """Scans of random ellipses, by the same coils and mask."""
    if settings.pop("kspace", None) is not None or settings.pop("data", None) is not None:
        raise InputError("measured scans are not drawn; give kspace= or data= without batch=")
    if settings.pop("phantom", None) is not None:
        raise InputError("batch= draws random ellipses; for your own phantom give phantom= without batch=")
    if count < 1:
        raise InputError(f"count is {count}; draw at least one member")
    rows = [Ellipses.random(1, generator=member_generator("mri", seed, i, "image")) for i in range(count)]
    most = max(row.value.shape[1] for row in rows)
    return problem(phantom=stacked([padded(row, most) for row in rows]), seed=seed, **settings)


def simulated(
    phantom: Ellipses,
    phases: list[Tensor],
    mask: Any,
    maps: Any,
    sigma: float | Tensor | None,
    n: int,
    coils: int,
    acceleration: float,
    sampling: Any,
    finer: int,
    seed: int,
    dtype: torch.dtype,
) -> Inverse:
    """k-space of a phantom with noise; the truth is the image's mean over each pixel, with its phase."""
    level = 0.02 if sigma is None else sigma
    if not isinstance(level, int | float) or not 0 < level < math.inf:
        raise InputError(f"sigma is {sigma}; noise is simulated with a positive number")
    if finer < 1 or n < 4:
        raise InputError(f"finer is {finer} and n {n}; finer is at least 1, an image has at least 4 pixels an axis")
    if maps is not None:
        raise InputError("maps= are those of a measured scan; a simulated one has those of its coils=")
    if isinstance(sampling, type) or sampling is not None and not callable(getattr(sampling, "mask", None)):
        raise InputError(f"sampling is {sampling!r}; give a rule such as PoissonDisc(4.0), or mask= itself")
    pixels = Pixels((n, n), (2.0, 2.0))
    if mask is None:
        rule = PoissonDisc(acceleration, min(24, n // 4), seed=seed) if sampling is None else sampling
        mask = rule.mask((n, n))
    scan = Fourier(pixels, birdcage_maps(pixels, coils), torch.as_tensor(mask))
    fine = Pixels((finer * n, finer * n), (2.0, 2.0))
    wide = Fourier(fine, birdcage_maps(fine, coils))
    law = GaussianNoise(float(level))
    rows, truths = [], []
    for i, phase in enumerate(
        phases
    ):  # each by itself: the bits of a transform may depend on how many are done together
        truths.append(phantom[i : i + 1].image(pixels) * turned(phase, pixels))
        clean = band(wide.zero_filled(wide(phantom[i : i + 1].image(fine) * turned(phase, fine))), n, finer)
        rows.append(law.sample(scan.sample(clean), generator=member_generator("mri", seed, i, "noise")))
    posed = Inverse("mri", scan, torch.cat(rows), law, TotalVariation(), truth=torch.cat(truths))
    return posed if dtype == torch.float64 else posed.to(dtype)


def band(wide: Tensor, n: int, finer: int) -> Tensor:
    """The middle of k-space of finer pixels, as that of ``n`` pixels an axis: scaled, and moved by the half pixels."""
    start = finer * n // 2 - n // 2
    middle = wide[..., start : start + n, start : start + n] / finer
    angle = (torch.arange(n, dtype=torch.float64) - n // 2) * (math.pi * (1 - 1 / finer) / n)
    turn = torch.polar(torch.ones_like(angle), angle)
    return middle * turn[:, None] * turn


def smooth_phase(source: torch.Generator) -> Tensor:
    """Coefficients of ``1, x, y, xy, x^2 - y^2``, in radians."""
    sizes = torch.tensor([1.0, 0.8, 0.8, 0.6, 0.6], dtype=torch.float64)
    return sizes * torch.randn(5, generator=source, dtype=torch.float64)


def turned(phase: Tensor, pixels: Pixels) -> Tensor:
    """The factor ``exp(i phase)`` on the pixels."""
    x, y = pixels.points()
    angle = phase[0] + phase[1] * x + phase[2] * y + phase[3] * x * y + phase[4] * (x.square() - y.square())
    return torch.polar(torch.ones_like(angle), angle)


def padded(one: Ellipses, most: int) -> Ellipses:
    """Filled up with ellipses of value zero."""
    left = most - one.value.shape[1]
    shapes = {"centre": (1, left, 2), "axes": (1, left, 2), "angle": (1, left), "value": (1, left)}
    rest = {name: torch.full(shape, float(name == "axes"), dtype=torch.float64) for name, shape in shapes.items()}
    return Ellipses(**{name: torch.cat([getattr(one, name), rest[name]], 1) for name in shapes})


def stacked(rows: list[Ellipses]) -> Ellipses:
    """One batch."""
    return Ellipses(
        **{name: torch.cat([getattr(row, name) for row in rows]) for name in ("centre", "axes", "angle", "value")}
    )


def opened(data: Any, slice: int) -> tuple[Any, Any, tuple[float, ...] | None]:
    """k-space ``(coil, *k)`` of a data set or file, its mask, and the size of a pixel in mm where it is known."""
    if isinstance(data, str | os.PathLike):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*were guessed as", UserWarning)  # as this file says they are
            data = sciml.open_dataset(data)
    if isinstance(data, Tensor | np.ndarray) or not hasattr(data, "data_vars"):
        raise InputError("data= is a data set with kspace (coil, ky, kx), or its file; give bare numbers as kspace=")
    if "kspace" not in data.data_vars:
        raise InputError("the data set has no 'kspace'; mri needs kspace (coil, ky, kx), rename it with names=")
    field = data["kspace"]
    if "coil" not in field.dims:
        field = field.expand_dims("coil")
    if "slice" in field.dims:
        count = field.sizes["slice"]
        if not -count <= slice < count:
            raise InputError(f"slice is {slice}; the scan has {count} slices")
        field = field.isel(slice=slice)
    if "trajectory" in data.variables:
        raise InputError(
            "kspace was sampled along a trajectory, and mri reconstructs from a grid; regrid it, or build an Inverse with sciml.forward.NonuniformFourier"
        )
    field = field.transpose("coil", ...)
    others = [str(axis) for axis in field.dims[1:] if axis not in ("kx", "ky", "kz")]
    if others or field.ndim < 2:
        raise InputError(
            f"kspace has the axes {', '.join(map(str, field.dims))}; mri needs coil and one to three of kx, ky and kz"
            + (f": pick one of {others[0]} with data.isel({others[0]}=0), or rename it" if others else "")
        )
    mask = None
    if "mask" in data:
        found = data["mask"]
        found = found.isel(slice=slice) if "slice" in found.dims else found
        mask = found.broadcast_like(field.isel(coil=0, drop=True)).transpose(*field.dims[1:]).values.astype(bool)
    size, reach = data.attrs.get("encoded_matrix"), data.attrs.get("encoded_field_of_view")
    spacing = None
    if size is not None and reach is not None and set(field.dims[1:]) <= {"kx", "ky", "kz"}:
        axes = ["xyz".index(str(name)[1]) for name in field.dims[1:]]
        spacing = tuple(float(reach[a]) / float(size[a]) for a in axes)
        spacing = spacing if all(0 < h < math.inf for h in spacing) else None
    return field.values, mask, spacing


def layout(y: Tensor, sampled: Tensor) -> str | None:
    """What k-space ``(batch, coil, *k)`` in another order would look like, or None."""
    shape, coils = tuple(y.shape[2:]), y.shape[1]
    size = (y.abs() * sampled).square().sum((0, 1))
    peak = [int(i) for i in np.unravel_index(int(size.argmax()), shape)]
    if all(i in (0, m - 1) for i, m in zip(peak, shape, strict=True)) and min(shape) > 4:
        return f"the largest sample of k-space stands at the corner, index {tuple(peak)}; mri expects frequency zero at index n // 2: np.fft.fftshift over the axes of k-space puts it there"
    if len(shape) == 1 or coils > max(shape):
        return f"kspace was read as {coils} coils of {' x '.join(map(str, shape))} samples; mri expects (coil, ky, kx): one coil is kspace[None], coils in the last axis are np.moveaxis(kspace, -1, 0)"
    return None


def measured(
    kspace: Any,
    mask: Any,
    maps: Any,
    sigma: float | Tensor | None,
    spacing: tuple[float, ...] | None,
    dtype: torch.dtype,
) -> Inverse:
    """A measured scan: mask, maps and noise from the data where they are not given."""
    y = numbers("kspace", kspace)
    if not y.is_complex():
        raise InputError(
            f"kspace is real ({y.dtype}); mri needs complex numbers, such as torch.complex(real, imaginary)"
        )
    if not 2 <= y.ndim <= 5 or 0 in y.shape:
        raise InputError(f"kspace has shape {tuple(y.shape)}; give (coil, ky, kx), or (batch, coil, ky, kx)")
    y = (y.unsqueeze(0) if y.ndim <= 3 else y).to(torch.complex64 if dtype == torch.float32 else torch.complex128)
    shape, coils = tuple(y.shape[2:]), y.shape[1]
    lengths = tuple(m * h for m, h in zip(shape, spacing or (1.0,) * len(shape), strict=True))
    pixels = Pixels(shape, lengths, unit="1" if spacing is None else "mm")
    sampled = touched(y) if mask is None else canonical_mask("mri", numbers("mask", mask), pixels)
    scan = Fourier(pixels, ones(y), sampled)
    picked = scan.sample(y)
    bad = ~torch.isfinite(picked)
    if bool(bad.any()):
        coil = int(torch.nonzero(bad)[0, 1])
        where = tuple(torch.nonzero(~torch.isfinite(y[:, coil]) & sampled)[0, 1:].tolist())
        raise InputError(
            f"kspace has {int(bad.sum())} values that are not finite, the first at coil {coil}, index {where}; leave them out with mask="
        )
    if not bool(picked.flatten(1).any(1).all()):
        raise InputError("kspace is zero wherever the mask samples it; look at both, and at where frequency zero is")
    told = layout(y, sampled)
    if told is not None:
        warnings.warn(told, stacklevel=4)
    if maps is None:
        known = ones(y) if coils == 1 else torch.stack([estimated(one, sampled) for one in scan.zero_filled(picked)])
    else:
        known = numbers("maps", maps)
        known = known.to(y.dtype) if known.is_complex() else known
        if known.shape[-len(shape) - 1 :] != y.shape[1:]:
            raise InputError(
                f"maps have shape {tuple(known.shape)} and kspace {tuple(y.shape)}; give one map for every coil, of the size of k-space"
            )
    scan = Fourier(pixels, known, sampled)
    scan.validate("mri")
    if isinstance(sigma, Tensor) and sigma.ndim == 1 and len(sigma) not in (1, len(y)):
        raise InputError(
            f"sigma has shape {tuple(sigma.shape)} for {len(y)} members; give one number for each of them, or ({coils}, 1) for the coils"
        )
    level = (
        torch.stack([noise_level(one, scan.points / torch.tensor(shape)) for one in picked]) if sigma is None else sigma
    )
    return Inverse("mri", scan, picked, GaussianNoise(level), TotalVariation())


def touched(y: Tensor) -> Tensor:
    """Where k-space is not zero, the same for all members."""
    each = (y != 0).any(1)
    if not bool(each.any()):
        raise InputError("kspace is zero everywhere; nothing was measured")
    if not bool((each == each[:1]).all()):
        raise InputError("the members of kspace were sampled at different points; give mask=, or solve them one by one")
    return each[0]


def ones(y: Tensor) -> Tensor:
    """One map for all that sees everything alike."""
    return torch.ones((1, *y.shape[1:]), dtype=y.dtype)


def estimated(one: Tensor, sampled: Tensor) -> Tensor:
    """Maps of one member; ESPIRiT where the sampled middle is large enough.

    Nothing is cropped: a place that no coil sees is filled in by the prior alone, and that takes solvers thousands of steps.
    """
    try:
        maps = espirit(one, sampled, crop=0.0)
    except InputError as error:
        if "too few" not in str(error):
            raise
        maps = low_resolution_maps(one, sampled, floor=0.0)
    return maps


def noise_level(picked: Tensor, points: Tensor) -> Tensor:
    """Sigma per real component of every coil, ``(coil, 1)``: the least median size in shells of k-space.

    The size of complex noise has the median ``sigma sqrt(2 log 2)``. Signal falls towards the rim, so the quietest of
    ``SHELLS`` shells with equally many samples is nearly noise alone.
    """
    order = torch.linalg.vector_norm(points, dim=1).argsort()
    shells = picked[:, order].abs().tensor_split(min(SHELLS, max(1, len(order) // 128)), dim=1)
    level = torch.stack([shell.median(1).values for shell in shells]).amin(0) / math.sqrt(2 * math.log(2))
    if not bool((level > 0).all()):
        raise InputError(
            "the noise cannot be estimated: the rim of kspace is zero where the mask samples it; give sigma="
        )
    return level.unsqueeze(1)


def solver(problem: Inverse) -> Any:
    """Conjugate gradients without a prior; otherwise what goes with it."""
    if problem.prior is None:
        return LeastSquares()
    return usual(problem)
