r"""Magnetic resonance off the grid: radial, spiral and any other trajectory through k-space, with several coils.

    y_c(m) = \frac{1}{\sqrt N} \sum_i s_c(i) x(i) \exp\Bigl(-2 \pi \mathrm{i} \sum_a \frac{k_{m,a} (i_a - \lfloor n_a/2 \rfloor)}{n_a}\Bigr),

with the points ``k_m`` in cycles per field of view: whole numbers from ``-(n // 2)`` on are the points of ``Fourier``, and give its
values. The adjoint is the exact conjugate transpose, whatever the accuracy of the sums. Two engines compute them:
``NonuniformFFT(accuracy)`` by finufft, whose two types are each other's derivative here, so that derivatives of every order in the
image, the data, the maps and the points exist; ``DirectSum()`` in plain torch, exact, at a cost of points times pixels.

*Fails when* the points were recorded in other units (radians per pixel: times ``n / (2 pi)``), or leave the band of the pixels
(refused). Points that lie denser in the middle make the data term badly conditioned: a solver needs more steps than on a grid.

Barnett, Magland and af Klinteberg, SIAM J. Sci. Comput. 41, 2019, doi 10.1137/18M120885X; Fessler and Sutton, IEEE Trans. Signal
Process. 51, 2003, doi 10.1109/TSP.2002.807005.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.domains.pixels import Pixels
from sciml.domains.space import Space
from sciml.forward._coils import Coils, canonical_maps, check_image, check_maps, combined, of_pixels
from sciml.forward._nufft import SINGLE, Transforms, engine

__all__ = ["DirectSum", "NonuniformFFT", "NonuniformFourier"]

AT_ONCE = 1 << 23  # complex numbers in one temporary tensor of a direct sum


class Sums(Protocol):
    """Both sums over pixels and over points of one trajectory, each differentiable: ``points`` are radians per pixel."""

    def to_points(self, images: Tensor, points: Tensor) -> Tensor:
        """``(count, *shape)`` to ``(count, points)`` with the sign -1."""

    def to_images(self, values: Tensor, points: Tensor) -> Tensor:
        """``(count, points)`` to ``(count, *shape)`` with the sign +1."""


class Engine(Protocol):
    """What computes the sums."""

    def prepare(self, shape: tuple[int, ...], points: Tensor, kind: torch.dtype) -> Sums:
        """The sums for images of this shape and these points ``(number, dim)``."""


@dataclass(frozen=True)
class NonuniformFFT:
    """finufft on the CPU, cufinufft on CUDA, to a relative ``accuracy`` (in single precision 1e-6 at best)."""

    accuracy: float = 1e-9

    def __post_init__(self) -> None:
        if not 1e-15 <= self.accuracy < 1:
            raise InputError(f"NonuniformFFT(accuracy={self.accuracy}): give a number from 1e-15 up to below 1")

    def prepare(self, shape: tuple[int, ...], points: Tensor, kind: torch.dtype) -> Sums:
        """Plans for this trajectory; InputError if finufft is not installed."""
        engine(points.device, "NonuniformFFT", "DirectSum()")
        accuracy = max(self.accuracy, SINGLE) if kind == torch.complex64 else self.accuracy
        columns = [column.contiguous() for column in points.detach().unbind(1)]
        return _Planned(Transforms(shape, columns, kind, accuracy))


@dataclass(frozen=True)
class DirectSum:
    """The sums as they stand, as products over the axes: exact to rounding, for small problems and as a reference."""

    def prepare(self, shape: tuple[int, ...], points: Tensor, kind: torch.dtype) -> Sums:
        """Nothing to prepare but the shape."""
        return _Direct(shape)


@dataclass(frozen=True, eq=False)
class _Planned:
    transforms: Transforms

    def to_points(self, images: Tensor, points: Tensor) -> Tensor:
        found: Tensor = _ToPoints.apply(images, points, self.transforms)  # type: ignore[no-untyped-call]
        return found

    def to_images(self, values: Tensor, points: Tensor) -> Tensor:
        found: Tensor = _ToImages.apply(values, points, self.transforms)  # type: ignore[no-untyped-call]
        return found


class _ToPoints(torch.autograd.Function):
    """``y_m = sum_j x_j exp(-i theta_m . j)``: type 2."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, points: Tensor, transforms: Transforms) -> Tensor:
        ctx.save_for_backward(images, points)
        ctx.transforms = transforms
        return transforms.execute(2, images.detach().to(transforms.kind))

    @staticmethod
    def backward(ctx: Any, *given: Any) -> tuple[Tensor | None, Tensor | None, None]:
        images, points = ctx.saved_tensors
        (g,) = given
        back = _ToImages.apply(g, points, ctx.transforms) if ctx.needs_input_grad[0] else None  # type: ignore[no-untyped-call]
        turn = _turned(images, points, g, ctx.transforms) if ctx.needs_input_grad[1] else None
        return back, turn, None


class _ToImages(torch.autograd.Function):
    """``x_j = sum_m v_m exp(+i theta_m . j)``: type 1, the conjugate transpose."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, points: Tensor, transforms: Transforms) -> Tensor:
        ctx.save_for_backward(values, points)
        ctx.transforms = transforms
        return transforms.execute(1, values.detach().to(transforms.kind))

    @staticmethod
    def backward(ctx: Any, *given: Any) -> tuple[Tensor | None, Tensor | None, None]:
        values, points = ctx.saved_tensors
        (g,) = given
        back = _ToPoints.apply(g, points, ctx.transforms) if ctx.needs_input_grad[0] else None  # type: ignore[no-untyped-call]
        turn = _turned(g, points, values, ctx.transforms) if ctx.needs_input_grad[1] else None
        return back, turn, None


def _turned(images: Tensor, points: Tensor, values: Tensor, transforms: Transforms) -> Tensor:
    """The derivative of ``Re <v, to_points(x)>`` in the points: ``Re conj(v_m) sum_j (-i j_a) x_j exp(-i theta_m . j)``."""
    slopes = []
    for axis, n in enumerate(transforms.shape):
        at = torch.arange(n, device=images.device, dtype=points.dtype) - n // 2
        ramp = (-1j * at).to(transforms.kind).reshape([-1 if a == axis else 1 for a in range(len(transforms.shape))])
        ahead = _ToPoints.apply(ramp * images, points, transforms)  # type: ignore[no-untyped-call]
        slopes.append((values.conj() * ahead).real.sum(0))
    return torch.stack(slopes, 1)


@dataclass(frozen=True, eq=False)
class _Direct:
    shape: tuple[int, ...]

    def to_points(self, images: Tensor, points: Tensor) -> Tensor:
        found = []
        for waves in self._waves(points, images, len(images)):
            line = images @ waves[-1].mT  # (count, ..., some points)
            for wave in reversed(waves[:-1]):
                line = (line * wave.mT).sum(-2)
            found.append(line)
        return torch.cat(found, -1)

    def to_images(self, values: Tensor, points: Tensor) -> Tensor:
        total: Tensor | None = None
        at = 0
        for waves in self._waves(points, values, len(values)):
            line = values[:, at : at + len(waves[0])]
            at += len(waves[0])
            for wave in waves[:-1]:
                line = line.unsqueeze(-2) * wave.mT.conj()
            part = line @ waves[-1].conj()
            total = part if total is None else total + part
        assert total is not None
        return total

    def _waves(self, points: Tensor, like: Tensor, count: int) -> Iterator[list[Tensor]]:
        """``exp(-i theta_m,a j)`` per axis, ``(some points, n_a)``."""
        some = max(1, AT_ONCE // max(1, count * math.prod(self.shape[:-1])))
        for part in torch.split(points, some):
            waves = []
            for axis, n in enumerate(self.shape):
                at = torch.arange(n, device=points.device, dtype=points.dtype) - n // 2
                angle = part[:, axis, None] * at
                waves.append(torch.complex(angle.cos(), -angle.sin()).to(like.dtype))
            yield waves


@dataclass(frozen=True, eq=False)
class NonuniformFourier(Coils):
    """Data ``(..., batch, coil, points)`` of complex images ``(..., batch, 1, *pixels.shape)``, in one to three dimensions.

    ``points`` are ``(number, dim)`` in cycles per field of view, the same for all members; ``maps`` are those of ``Fourier``.
    ``engine`` None takes ``NonuniformFFT()`` if finufft is installed (`pip install sciml[nufft]`), else ``DirectSum()``.
    Raises InputError for real images, data or maps and for shapes that do not fit; when a problem is solved, for points that are
    not finite or beyond the band of the pixels, and for maps that vanish.
    """

    pixels: Pixels
    points: Tensor = field(metadata={"shared": True})
    maps: Tensor | None = None
    engine: Engine | None = None

    def __post_init__(self) -> None:
        of_pixels("NonuniformFourier", self.pixels)
        points = self.points
        if not isinstance(points, Tensor) or not points.is_floating_point() or points.ndim != 2:
            raise InputError(
                "NonuniformFourier: the points are a real tensor (number, dim), in cycles per field of view"
            )
        if points.shape[1] != self.pixels.dim or not len(points):
            raise InputError(
                f"NonuniformFourier: the points have shape {tuple(points.shape)}; for images of {self.pixels.dim} axes give (number, {self.pixels.dim})"
            )
        if isinstance(self.engine, type) or self.engine is not None and not hasattr(self.engine, "prepare"):
            raise InputError(f"engine is {self.engine!r}; give NonuniformFFT() or DirectSum()")
        maps = canonical_maps("NonuniformFourier", self.maps, self.pixels)
        if self.maps is None:
            maps = maps.to(points.device, torch.complex64 if points.dtype == torch.float32 else torch.complex128)
        object.__setattr__(self, "maps", maps)

    @property
    def codomain(self) -> Space:
        """One value per coil and point; no domain."""
        return replace(self.space, domain=None, shape=(self.sensitivities.shape[1], len(self.points)))

    def validate(self, name: str) -> None:
        """Maps must see something; points must be finite and within the band."""
        check_maps(name, self.sensitivities)
        if not bool(torch.isfinite(self.points).all()):
            raise InputError(f"{name!r}: a point of the trajectory is not finite; leave it and its data out")
        for axis, n in enumerate(self.pixels.shape):
            reach = float(self.points[:, axis].detach().abs().max())
            if reach > n / 2 * (1 + 1e-5):
                raise InputError(
                    f"{name!r}: the points reach {reach:.4g} cycles per field of view along axis {axis}, and {n} pixels hold {n / 2:g}; take more pixels, or bring the points to that unit"
                )

    def __call__(self, u: Tensor) -> Tensor:
        check_image("NonuniformFourier", "image", u, self.space.shape)
        images = self.sensitivities * u
        values = self._sums().to_points(images.reshape(-1, *self.pixels.shape), self._angles())
        return values.reshape(*images.shape[: -self.pixels.dim], -1) * self._scale

    def adjoint(self, v: Tensor) -> Tensor:
        """``sum_c conj(s_c) sum_m v_c(m) exp(+ ...)``."""
        check_image("NonuniformFourier", "k-space", v, self.codomain.shape)
        images = self._sums().to_images(v.reshape(-1, v.shape[-1]), self._angles()) * self._scale
        return combined(self.sensitivities.conj(), images.reshape(*v.shape[:-1], *self.pixels.shape), self.pixels.dim)

    @property
    def _scale(self) -> float:
        return 1 / math.sqrt(math.prod(self.pixels.shape))

    def _angles(self) -> Tensor:
        """The points in radians per pixel."""
        sizes = self.points.new_tensor(self.pixels.shape)
        return self.points * (2 * math.pi / sizes)

    def _sums(self) -> Sums:
        """The engine with its plans, kept as long as the points stay what they are."""
        points = self.points
        stamp = None if points.is_inference() else points._version
        kept = self.__dict__.get("_held")
        if kept is not None and kept[0] == stamp:
            found: Sums = kept[1]
            return found
        made: Engine = self.engine or (NonuniformFFT() if importlib.util.find_spec("finufft") else DirectSum())
        found = made.prepare(self.pixels.shape, self._angles().detach(), self.sensitivities.dtype)
        self.__dict__["_held"] = (stamp, found)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_held"}


def example() -> NonuniformFourier:
    """Two coils and a short spiral over a small uneven image."""
    turns = torch.linspace(0.0, 1.0, 17, dtype=torch.float64)
    points = torch.stack((4.4 * turns * (12 * turns).cos(), 6.9 * turns * (12 * turns).sin()), 1)
    maps = torch.randn(2, 9, 14, generator=torch.Generator().manual_seed(0), dtype=torch.complex128)
    return NonuniformFourier(Pixels((9, 14), (1.0, 2.0)), points, maps)
