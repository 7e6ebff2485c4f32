r"""Sparse wavelet coefficients: images of few edges and textures (Donoho, IEEE Trans. Inf. Theory 41, 1995, doi 10.1109/18.382009).

``R(x) = sqrt(V) sum |d|`` over the detail coefficients ``d`` of an orthonormal transform, ``V`` the volume of a cell:
``sqrt(V) d`` are the coefficients against wavelets normalised in L2, which do not depend on the mesh. Over all scales this is
the norm of the Besov space ``B^(dim/2)_(1,1)``: the one with one derivative in two dimensions. The coarsest averages are free.

The transform is separable, a filter bank along every axis (Mallat, IEEE Trans. PAMI 11, 1989, doi 10.1109/34.192463), periodic over
the axis. An axis of odd length keeps its last value as an average that is not split; so the transform is orthonormal at
every size, without padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator
from sciml.core.noise import across, total
from sciml.core.prior import Prior
from sciml.domains.errors import InputError
from sciml.domains.space import Space

if TYPE_CHECKING:
    import numpy

__all__ = ["Daubechies", "Family", "Haar", "Wavelet", "WaveletTransform"]

SHORT = 1024  # values along an axis up to which one level is a matrix product


class Family(Protocol):
    """A family of orthonormal wavelets by its scaling filter."""

    def taps(self) -> tuple[float, ...]:
        """An even number of coefficients, orthonormal to their shifts by two, of sum ``sqrt(2)``."""


@dataclass(frozen=True)
class Haar:
    """Averages and differences of neighbours; nothing wraps around."""

    def taps(self) -> tuple[float, ...]:
        """``(1, 1) / sqrt(2)``."""
        return (math.sqrt(0.5), math.sqrt(0.5))


@dataclass(frozen=True)
class Daubechies:
    """The wavelets of least support with that many vanishing moments (``2 moments`` taps): blind to polynomials below that order.

    Periodic: an image whose opposite sides differ has large coefficients there. Daubechies, Comm. Pure Appl. Math. 41, 1988,
    doi 10.1002/cpa.3160410705. Raises InputError for moments outside 1 to 8.
    """

    moments: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.moments <= 8:
            raise InputError(f"Daubechies wavelets are made for 1 to 8 vanishing moments here, not {self.moments}")

    def taps(self) -> tuple[float, ...]:
        """By spectral factorisation: the roots inside the unit circle."""
        return _daubechies(self.moments)


@lru_cache
def _daubechies(moments: int) -> tuple[float, ...]:
    import numpy as np

    # |m(w)|^2 = cos(w/2)^(2N) P(sin^2(w/2)),  P(y) = sum_k C(N-1+k, k) y^k,  y = (2 - z - 1/z) / 4.
    roots = np.roots([math.comb(moments - 1 + k, k) for k in range(moments)][::-1]) if moments > 1 else np.array([])
    taps = np.array([1.0 + 0j])
    for _ in range(moments):
        taps = np.convolve(taps, [1.0, 1.0])
    for y in roots:
        half = 1 - 2 * y
        z = half + np.sqrt(half * half - 1 + 0j)
        taps = np.convolve(taps, [1.0, -(z if abs(z) < 1 else 1 / z)])
    real = taps.real * (math.sqrt(2) / taps.real.sum())
    return tuple(float(t) for t in real)


@dataclass(frozen=True, eq=False)
class WaveletTransform(LinearOperator):
    """The orthonormal wavelet transform of images, coefficients in an image of the same shape.

    After every level the averages stand first along each axis and the details behind them; the next level splits the
    corner of averages. An axis stops where it has fewer averages than the filter has taps.
    """

    on: Space
    levels: int
    family: Family

    @property
    def space(self) -> Space:
        """The images."""
        return self.on

    @property
    def codomain(self) -> Space:
        """The coefficients, of the same shape; no domain."""
        return replace(self.on, domain=None)

    def corners(self) -> list[tuple[int, ...]]:
        """Sizes of the corner of averages before every level, and after the last."""
        sizes = [tuple(self.on.shape[1:])]
        length = len(self.family.taps())
        for _ in range(self.levels):
            following = tuple((n + 1) // 2 if n >= max(length, 2) else n for n in sizes[-1])
            if following == sizes[-1]:
                break
            sizes.append(following)
        return sizes

    def __call__(self, u: Tensor) -> Tensor:
        return self._levels(u, False)

    def adjoint(self, v: Tensor) -> Tensor:
        """The inverse: the transform is orthonormal."""
        return self._levels(v, True)

    def _levels(self, u: Tensor, back: bool) -> Tensor:
        """All levels, one after the other; real and imaginary parts of complex images apart."""
        if u.is_complex():
            parts = self._levels(torch.view_as_real(u).movedim(-1, 0).contiguous(), back)
            return torch.complex(parts[0], parts[1])
        sizes, dim = self.corners(), self.on.dim
        result = u.clone()
        pairs = list(zip(sizes, sizes[1:], strict=False))
        for before, after in reversed(pairs) if back else pairs:
            corner = part = _corner(result, before)
            split = [axis for axis, (n, m) in enumerate(zip(before, after, strict=True)) if m < n]
            for axis in reversed(split) if back else split:
                part = _along(part, part.ndim - dim + axis, self.family.taps(), back)
            corner.copy_(part)
        return result

    def details(self) -> Tensor:
        """True at detail coefficients, of the image's shape."""
        mask = torch.ones(self.on.shape[1:], dtype=torch.bool, device=self.on.device)
        mask[tuple(slice(n) for n in self.corners()[-1])] = False
        return mask


def _corner(u: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The view of the first so many values along every space axis."""
    for axis, n in enumerate(sizes):
        u = u.narrow(axis - len(sizes), 0, n)
    return u


def _along(u: Tensor, axis: int, taps: tuple[float, ...], back: bool) -> Tensor:
    """One level along one axis: as a matrix product where the axis is short enough for that to be quicker than shifts."""
    n = u.shape[axis]
    if n > SHORT:
        return _merge(u, axis, taps) if back else _split(u, axis, taps)
    matrix = torch.as_tensor(_matrix(n, taps), dtype=u.dtype, device=u.device)
    matrix = matrix.mT if back else matrix
    if axis == u.ndim - 1:
        return u @ matrix.mT
    return torch.matmul(matrix, u.movedim(axis, -2)).movedim(-2, axis)


@lru_cache(maxsize=64)
def _matrix(n: int, taps: tuple[float, ...]) -> numpy.ndarray[Any, Any]:
    """One level along an axis of ``n`` values, as ``_split`` does it."""
    import numpy as np

    pairs, matrix = n // 2, np.zeros((n, n))
    rows = np.arange(pairs)
    for first, filter in ((0, taps), (n - pairs, _mirror(taps))):
        for j, weight in enumerate(filter):
            np.add.at(matrix, (first + rows, (2 * rows + j) % (2 * pairs)), weight)
    if n % 2:
        matrix[pairs, n - 1] = 1.0
    return matrix


def _mirror(taps: tuple[float, ...]) -> tuple[float, ...]:
    return tuple((-1) ** j * taps[len(taps) - 1 - j] for j in range(len(taps)))


def _rolled(x: Tensor, shift: int) -> Tensor:
    return x if shift % x.shape[-1] == 0 else x.roll(shift, -1)


def _split(u: Tensor, axis: int, taps: tuple[float, ...]) -> Tensor:
    """Averages, the odd value out, details."""
    u = u.movedim(axis, -1)
    pairs = u.shape[-1] // 2
    phases = (u[..., 0 : 2 * pairs : 2], u[..., 1 : 2 * pairs : 2])
    bands = []
    for filter in (taps, _mirror(taps)):
        band = torch.zeros_like(phases[0])
        for j, weight in enumerate(filter):
            band = band + weight * _rolled(phases[j % 2], -(j // 2))
        bands.append(band)
    return torch.cat((bands[0], u[..., 2 * pairs :], bands[1]), -1).movedim(-1, axis)


def _merge(v: Tensor, axis: int, taps: tuple[float, ...]) -> Tensor:
    """The transpose of ``_split``."""
    v = v.movedim(axis, -1)
    pairs, n = v.shape[-1] // 2, v.shape[-1]
    bands = (v[..., :pairs], v[..., n - pairs :])
    phases = [torch.zeros_like(bands[0]), torch.zeros_like(bands[0])]
    for filter, band in zip((taps, _mirror(taps)), bands, strict=True):
        for j, weight in enumerate(filter):
            phases[j % 2] = phases[j % 2] + weight * _rolled(band, j // 2)
    pairwise = torch.stack(phases, -1).flatten(-2)
    return torch.cat((pairwise, v[..., pairs : n - pairs]), -1).movedim(-1, axis)


@dataclass(frozen=True, eq=False)
class Wavelet(Prior):
    """``sqrt(V) sum |d|`` over the detail coefficients of ``levels`` levels of an orthonormal wavelet transform.

    Images are ``(batch, channel, *space)`` of any size, real or complex, each channel on its own. Bound to a space by
    ``on(space)``; unbound it counts in pixels. The half cells that a Grid has at Neumann and Robin sides are counted whole.
    Levels that an axis is too short for are left out. Keeps Energy, Composite and Proximable; the proximal map is
    exact: the transform is orthonormal, and details are shrunk by ``step sqrt(V)``.

    On a grid twice as fine, one more level reaches the same scale. *Fails when* the image moves by a pixel: the transform
    is not invariant under shifts, and shrunk coefficients leave blocks (Haar) or ripples.
    Raises InputError for levels below 1, and for images too small for one level.
    """

    levels: int = 4
    family: Family = Haar()  # noqa: RUF009 - immutable
    space: Space | None = None

    def __post_init__(self) -> None:
        if isinstance(self.levels, bool) or not isinstance(self.levels, int) or self.levels < 1:
            raise InputError(
                f"levels is {self.levels!r}; a wavelet transform has a whole number of levels, at least one"
            )
        if isinstance(self.family, type) or not callable(getattr(self.family, "taps", None)):
            raise InputError(f"family is {self.family!r}; give Haar() or Daubechies(2)")

    only_step = None

    def fits(self, space: Space) -> str | None:
        """At least one axis that can be split."""
        few = len(WaveletTransform(space, self.levels, self.family).corners()) < 2
        return f"no axis has the {len(self.family.taps())} values that the filter needs; use Haar()" if few else None

    def on(self, space: Space) -> Wavelet:
        """The same prior with the spacing of the space."""
        super().on(space)
        return replace(self, space=space)

    def _for(self, x: Tensor) -> Wavelet:
        if self.space is None:
            return self.on(Space(None, tuple(x.shape[1:]), (), x.is_complex(), x.real.dtype, x.device))
        if x.shape[1:] != torch.Size(self.space.shape):
            raise InputError(
                f"the image has shape {tuple(x.shape)}; this Wavelet is bound to (batch, {', '.join(map(str, self.space.shape))})"
            )
        return self

    @property
    def operator(self) -> WaveletTransform:
        """``K``: the transform."""
        if self.space is None:
            raise InputError("this Wavelet does not know its space; bind it with on(space)")
        return WaveletTransform(self.space, self.levels, self.family)

    def _scale(self, like: Tensor) -> Tensor:
        """``sqrt(V)`` at details, zero at averages."""
        space = self.operator.on
        volume = math.prod(getattr(space.domain, "spacing", (1.0,)))
        return self.operator.details().to(like.device, like.real.dtype) * math.sqrt(volume)

    def energy(self, x: Tensor) -> Tensor:
        """``sqrt(V) sum |d|``."""
        here = self._for(x)
        return here.outer(here.operator(x))

    def outer(self, z: Tensor) -> Tensor:
        """``g(z) = sqrt(V) sum |z|`` over the details."""
        return total(z.abs() * self._scale(z))

    def conjugate(self, p: Tensor, weight: Tensor) -> Tensor:
        """Zero where ``|p| <= weight sqrt(V)`` at details (up to 16 units of rounding) and ``p = 0`` at averages, else infinite."""
        limit = across(weight, p) * self._scale(p) * (1 + 16 * torch.finfo(p.dtype).eps)
        broken = (p.abs() > limit).flatten(1).any(1)
        return torch.zeros(p.shape[0], dtype=torch.float64, device=p.device).masked_fill(broken, math.inf)

    def dual_prox(self, p: Tensor, step: Tensor, weight: Tensor) -> Tensor:
        """The nearest ``q`` with ``|q| <= weight sqrt(V)`` at details and 0 at averages, whatever the step."""
        return _clip(p, across(weight, p) * self._scale(p))

    def inside(self, x: Tensor) -> Tensor:
        """``x``: there are no bounds."""
        return x

    def descent(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The gradient itself."""
        return gradient

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """``v - K^H q`` with ``q`` the details of ``v`` cut off at ``step sqrt(V)``."""
        here = self._for(v)
        K = here.operator
        z = K(v)
        return K.adjoint(z - _clip(z, across(step, v) * here._scale(z)))


def _clip(p: Tensor, limit: Tensor) -> Tensor:
    """The nearest number of modulus at most ``limit``."""
    size = p.abs()
    return torch.where(size > limit, p * (limit / size.clamp_min(torch.finfo(size.dtype).tiny)), p)


def example() -> tuple[Wavelet, Space]:
    """Three levels of Haar wavelets, and a small uneven space of images that they fit."""
    from sciml.domains.pixels import Pixels

    return Wavelet(levels=3), Pixels((9, 7), extent=(1.0, 0.7)).space()
