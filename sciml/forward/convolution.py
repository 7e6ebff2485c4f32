r"""Convolution of images with a kernel: blur, motion, any shift-invariant instrument.

    y_i = sum_j k_j x_(i - (j - c)),     c = size // 2 along every axis,

a true convolution (the kernel is the image of one bright pixel): entry ``c`` of the kernel acts without a shift, entry
``c + d`` moves light by ``+d`` pixels. For odd sizes ``c`` is the middle, for even sizes the entry after it, as in ``fftshift``.
Kernels are weights per pixel, without a unit: one that sums to one keeps the mean. What lies beyond the sides is said by the
boundary: ``Periodic()`` (the image repeats), ``Reflect()`` (it is mirrored at the outer faces of the outermost pixels),
``Nearest()`` (the outermost pixel goes on), ``Zero()`` (nothing), or ``Valid()`` (only pixels whose whole
neighbourhood was seen are measured; the result is smaller).

Kernels of up to 12 entries are applied entry by entry, larger ones by FFT; the numbers agree to rounding. The adjoint is the
exact transpose for every boundary: the correlation with the conjugate kernel, and what was added beyond the sides folded back.

*Fails when* the true blur varies over the image, or light came in from beyond the sides in another way than the boundary says:
reconstructions then ring at the edges (choose ``Valid()``, or a larger image than was measured). Reference: Hansen, Nagy and
O'Leary, Deblurring Images, SIAM 2006, doi 10.1137/1.9780898718874.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator
from sciml.domains.boundary import Periodic
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.domains.pixels import Pixels
from sciml.domains.space import Space
from sciml.forward._extension import (
    Boundary,
    Extension,
    Nearest,
    Reflect,
    Run,
    Valid,
    Zero,
    extended,
    folded,
    positions,
)
from sciml.forward._sizes import quick_size

__all__ = ["Convolution", "Nearest", "Periodic", "Reflect", "Valid", "Zero", "gaussian_kernel", "motion_kernel"]

FEW = 12  # entries of a kernel up to which adding shifted images costs less than three FFTs


@dataclass(frozen=True, eq=False)
class Convolution(LinearOperator):
    """``kernel * x`` for images ``(..., batch, channel, *pixels.shape)``, with what ``boundary`` says beyond the sides.

    ``kernel`` has the axes of the image (one for all members), or ``(batch, 1 or channel, *sizes)``; real or complex, of any
    size, even or odd. ``Periodic`` is the class of ``sciml.domains``. Raises InputError for a kernel of another number of
    axes, and for ``Valid()`` with a kernel larger than the image.
    """

    pixels: Pixels | Grid
    kernel: Tensor
    boundary: Boundary = Reflect()
    channels: int = 1

    def __post_init__(self) -> None:
        kernel, dim = self.kernel, self.pixels.dim
        if not isinstance(kernel, Tensor) or not (kernel.is_floating_point() or kernel.is_complex()):
            raise InputError("the kernel is a tensor of real or complex numbers, such as gaussian_kernel(2.0, spacing)")
        if not isinstance(self.boundary, Periodic | Extension | Valid):
            raise InputError(
                f"boundary is {self.boundary!r}; give Periodic(), Reflect(), Nearest(), Zero() or Valid() (with the brackets)"
            )
        if kernel.ndim == dim:
            kernel = kernel.reshape(1, 1, *kernel.shape)
        if kernel.ndim != dim + 2 or kernel.shape[1] not in (1, self.channels) or 0 in kernel.shape:
            raise InputError(
                f"the kernel has shape {tuple(self.kernel.shape)}; for images of shape {self.pixels.shape} give one of {dim} axes, or (batch, 1 or {self.channels}, *sizes)"
            )
        if isinstance(self.boundary, Valid) and any(
            k > n for k, n in zip(kernel.shape[2:], self.pixels.shape, strict=True)
        ):
            raise InputError(
                f"the kernel of {tuple(kernel.shape[2:])} is larger than the image of {self.pixels.shape}, nothing of it is seen whole; take another boundary than Valid()"
            )
        object.__setattr__(self, "kernel", kernel)

    @property
    def space(self) -> Space:
        """Images on the pixels, complex where the kernel is."""
        k = self.kernel
        return Space(
            self.pixels, (self.channels, *self.pixels.shape), complex=k.is_complex(), dtype=k.dtype, device=k.device
        )

    @property
    def codomain(self) -> Space:
        """The same; under ``Valid()`` the pixels that are left (plain numbers, if the image lives on a Grid)."""
        if not isinstance(self.boundary, Valid):
            return self.space
        shape = tuple(n - k + 1 for n, k in zip(self.pixels.shape, self.sizes, strict=True))
        domain = None
        if isinstance(self.pixels, Pixels):
            h, ends = self.pixels.spacing, zip(self.sizes, self.centre, strict=True)
            corner = tuple(o + s * (k - 1 - c) for o, s, (k, c) in zip(self.pixels.corner, h, ends, strict=True))
            domain = Pixels(shape, tuple(n * s for n, s in zip(shape, h, strict=True)), corner, self.pixels.unit)
        k = self.kernel
        return Space(domain, (self.channels, *shape), complex=k.is_complex(), dtype=k.dtype, device=k.device)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of the kernel."""
        return tuple(self.kernel.shape[2:])

    @property
    def centre(self) -> tuple[int, ...]:
        """The entry of the kernel that acts without a shift."""
        return tuple(k // 2 for k in self.sizes)

    def validate(self, name: str) -> None:
        """The kernel must be finite and not zero."""
        if not bool(torch.isfinite(self.kernel).all()) or not bool((self.kernel != 0).flatten(1).any(1).all()):
            raise InputError(f"{name!r}: the kernel is zero or not finite; an instrument passes something on")

    def __call__(self, u: Tensor) -> Tensor:
        if isinstance(self.boundary, Periodic) and not self._few():
            return self._multiplied(u, self.pixels.shape, False)
        wide = u
        for axis, runs in enumerate(self._runs()):
            wide = extended(wide, u.ndim - self.pixels.dim + axis, runs)
        if self._few():
            return self._shifted(wide)
        full = wide.shape[-self.pixels.dim :]
        result = self._multiplied(wide, tuple(quick_size(n) for n in full), False)
        for axis, (k, n) in enumerate(zip(self.sizes, full, strict=True)):
            at = u.ndim - self.pixels.dim + axis
            # Without wrap-around from the wide image: position i of the result reads i .. i + k - 1.
            result = result.narrow(at, (k - 1 - self.centre[axis]), n - k + 1)
        return result

    def adjoint(self, v: Tensor) -> Tensor:
        """The correlation with the conjugate kernel, folded back at the sides."""
        if isinstance(self.boundary, Periodic) and not self._few():
            return self._multiplied(v, self.pixels.shape, True)
        dim = self.pixels.dim
        if self._few():
            wide = self._gathered(v)
        else:
            full = tuple(m + k - 1 for m, k in zip(v.shape[-dim:], self.sizes, strict=True))
            pads: list[int] = []
            for m, k, c in reversed(list(zip(v.shape[-dim:], self.sizes, self.centre, strict=True))):
                size = quick_size(m + k - 1)
                pads += [k - 1 - c, size - m - (k - 1 - c)]
            spread = torch.nn.functional.pad(v, pads)
            wide = self._multiplied(spread, tuple(spread.shape[-dim:]), True)
            for axis, m in enumerate(full):
                wide = wide.narrow(v.ndim - dim + axis, 0, m)
        for axis, runs in enumerate(self._runs()):
            wide = folded(wide, v.ndim - dim + axis, runs, self.pixels.shape[axis])
        return wide

    def _few(self) -> bool:
        return math.prod(self.sizes) <= FEW

    def _runs(self) -> list[tuple[Run, ...]]:
        """Per axis, what the extended image of ``n + size - 1`` pixels is made of."""
        result = []
        for n, k, c in zip(self.pixels.shape, self.sizes, self.centre, strict=True):
            before, after = (0, 0) if isinstance(self.boundary, Valid) else (k - 1 - c, c)
            result.append(positions(self.boundary if isinstance(self.boundary, Extension) else None, n, before, after))
        return result

    def _taps(self, like: Tensor) -> list[tuple[tuple[int, ...], Tensor]]:
        """Every entry of the kernel, with where its piece of the extended image begins."""
        kernel = self.kernel if self.kernel.is_complex() or not like.is_complex() else self.kernel.to(like.dtype)
        ones = (1,) * self.pixels.dim
        return [
            (
                tuple(k - 1 - j for j, k in zip(index, self.sizes, strict=True)),
                kernel.flatten(2)[:, :, at].reshape(*kernel.shape[:2], *ones),
            )
            for at, index in enumerate(itertools.product(*(range(k) for k in self.sizes)))
        ]

    def _shifted(self, wide: Tensor) -> Tensor:
        """The sum of shifted images."""
        dim = self.pixels.dim
        inner = [n - k + 1 for n, k in zip(wide.shape[-dim:], self.sizes, strict=True)]
        total: Tensor | None = None
        for starts, tap in self._taps(wide):
            piece = wide
            for axis, (start, n) in enumerate(zip(starts, inner, strict=True)):
                piece = piece.narrow(wide.ndim - dim + axis, start, n)
            if total is None or torch.is_grad_enabled():
                total = piece * tap if total is None else torch.addcmul(total, piece, tap)
            else:
                total.addcmul_(piece, tap)
        assert total is not None
        return total

    def _gathered(self, v: Tensor) -> Tensor:
        """The transpose of ``_shifted``: every entry puts its share of ``v`` where it was read."""
        dim = self.pixels.dim
        full = [m + k - 1 for m, k in zip(v.shape[-dim:], self.sizes, strict=True)]
        taps = self._taps(v)
        lead = (v.narrow(-1, 0, 1) * taps[0][1]).shape[:-dim]
        total = torch.zeros((*lead, *full), dtype=torch.result_type(v, taps[0][1]), device=v.device)
        for starts, tap in taps:
            piece = total
            for axis, (start, m) in enumerate(zip(starts, v.shape[-dim:], strict=True)):
                piece = piece.narrow(total.ndim - dim + axis, start, m)
            piece.addcmul_(v, tap.conj())
        return total

    def _spectrum(self, sizes: tuple[int, ...], real: bool) -> Tensor:
        """The transform of the kernel with its centre at zero, wrapped where it is larger than the box; kept."""
        kernel, key = self.kernel, (sizes, real)
        free = torch.is_grad_enabled() and kernel.requires_grad
        held = self.__dict__.setdefault("_held", {})
        stamp = None if kernel.is_inference() else kernel._version
        if not free and key in held and held[key][0] == stamp:
            kept: Tensor = held[key][1]
            return kept
        dim = self.pixels.dim
        axes = tuple(range(-dim, 0))
        box = kernel
        for axis, (k, n) in enumerate(zip(self.sizes, sizes, strict=True)):
            at = 2 + axis
            pad = [0, 0] * (dim - 1 - axis) + [0, -k % n]
            box = torch.nn.functional.pad(box, pad)
            box = box.reshape(*box.shape[:at], -1, n, *box.shape[at + 1 :]).sum(at)
        box = torch.roll(box, [-c for c in self.centre], axes)
        result: Tensor = torch.fft.rfftn(box, dim=axes) if real else torch.fft.fftn(box, dim=axes)
        if not free:
            held[key] = (stamp, result.detach())
        return result

    def _multiplied(self, u: Tensor, sizes: tuple[int, ...], turned: bool) -> Tensor:
        """Circular convolution in a box, or its transpose."""
        axes = tuple(range(-self.pixels.dim, 0))
        real = not (u.is_complex() or self.kernel.is_complex())
        spectrum = self._spectrum(sizes, real)
        spectrum = spectrum.conj() if turned else spectrum
        if real:
            result: Tensor = torch.fft.irfftn(torch.fft.rfftn(u, sizes, axes) * spectrum, sizes, axes)
        else:
            result = torch.fft.ifftn(torch.fft.fftn(u, sizes, axes) * spectrum, sizes, axes)
        return result

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_held"}


def gaussian_kernel(
    width: float | Sequence[float],
    spacing: Sequence[float],
    truncate: float = 4.0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """A sampled Gaussian of standard deviation ``width`` (in the unit of ``spacing``, per axis), summing to one.

    ``spacing`` is that of the image (``pixels.spacing``); it also says how many axes the kernel has. It reaches
    ``truncate`` widths to either side, rounded to pixels. Raises InputError for a width that is not positive.
    """
    spacing = tuple(float(h) for h in spacing)
    widths = (float(width),) * len(spacing) if isinstance(width, int | float) else tuple(float(w) for w in width)
    if len(widths) != len(spacing) or not all(0 < w < math.inf for w in widths) or not truncate > 0:
        raise InputError(f"width is {width}, truncate {truncate}; give positive numbers, one width or one per axis")
    result = torch.ones((), dtype=torch.float64)
    for w, h in zip(widths, spacing, strict=True):
        reach = int(truncate * w / h + 0.5)
        line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) * h / w).square())
        result = result.unsqueeze(-1) * (line / line.sum())
    return result.to(dtype)


def motion_kernel(
    length: float,
    angle: float,
    spacing: Sequence[float] = (1.0, 1.0),
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Uniform motion during the exposure: a line of ``length`` (in the unit of ``spacing``), summing to one.

    ``angle`` is in radians, from the x axis towards the y axis. The line is centred; 64 points per pixel of it are shared
    among the four nearest pixels, so that its mean is exactly its middle at every angle.
    """
    if not 0 <= length < math.inf or not math.isfinite(angle) or len(spacing) != 2:
        raise InputError(
            f"motion of length {length} at angle {angle} over {len(spacing)} axes; give a length and an angle, for two axes"
        )
    ends = (length / 2 * math.cos(angle) / spacing[0], length / 2 * math.sin(angle) / spacing[1])
    count = max(1, math.ceil(128 * max(abs(e) for e in ends)))
    along = (2 * torch.arange(count, dtype=torch.float64) + 1) / count - 1
    reach = [math.ceil(abs(e) - 1e-12) for e in ends]
    weights = []
    for end, r in zip(ends, reach, strict=True):
        pixels = torch.arange(-r, r + 1, dtype=torch.float64)
        weights.append((1 - (along[:, None] * end - pixels).abs()).clamp_min(0.0))
    return (torch.einsum("pi,pj->ij", *weights) / count).to(dtype)


def example() -> Convolution:
    """A skewed kernel of even and odd sizes on an uneven image, mirrored at the sides."""
    kernel = torch.rand(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Convolution(Pixels((9, 14), (1.0, 2.0)), kernel / kernel.sum(), Reflect())
