r"""The Radon transform: line integrals of an image along parallel rays, as a parallel-beam scanner measures them.

    (R f)(theta, s) = integral of f over the line x cos(theta) + y sin(theta) = s

in physical units (value times length). Bin ``k`` of the detector sits at ``s_k = (k - (bins - 1) / 2) pitch - centre`` and
is taken as a point. Two routes lead there; both are one linear map with its exact transpose, and have derivatives of any
order. ``RayDriven`` (Joseph 1982, doi:10.1109/TMI.1982.4307572) interpolates linearly between pixels along every ray: of
second order for smooth images, without ringing at edges. ``FourierSlice`` takes the image as band-limited and its
transform from the Fourier slice theorem by non-uniform fast Fourier transforms (Barnett, Magland, af Klinteberg, SIAM J.
Sci. Comput. 41, 2019, doi:10.1137/18M120885X): spectrally accurate for images that are resolved, ringing at sharp edges.

Filtered back-projection: Kak, Slaney, Principles of Computerized Tomographic Imaging, 1988, ch. 3,
doi:10.1137/1.9780898719277.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, SupportsFloat

import numpy as np
import torch
from torch import Tensor

from sciml.core.linear import LinearOperator
from sciml.domains.errors import InputError
from sciml.domains.pixels import Pixels
from sciml.domains.space import Space
from sciml.forward._filtered import ramped, smeared, view_weights
from sciml.forward._joseph import JosephWeights, Rays
from sciml.forward._nufft import SliceTransform, engine
from sciml.forward.windows import Window

__all__ = ["FourierSlice", "Radon", "RayDriven", "example"]

HELD = 4e9  # bytes of tables that all operators of this process keep together; the last one used always stays


class Projection(Protocol):
    """What a route prepares for a geometry: the map of ``(batch, nx, ny)`` to ``(batch, views, bins)`` and its transpose."""

    @property
    def nbytes(self) -> int:
        """Memory held."""

    def forward(self, images: Tensor) -> Tensor:
        """Line integrals."""

    def adjoint(self, data: Tensor) -> Tensor:
        """The transpose."""


class Route(Protocol):
    """How line integrals are computed."""

    def prepare(self, rays: Rays, dtype: torch.dtype, device: torch.device) -> Projection:
        """The set-up for a geometry."""


@dataclass(frozen=True)
class RayDriven:
    """Joseph's weights in sparse matrices, at most ``memory`` bytes of them; the others are made again at every use.

    Views that are mirror images of each other, or the two halves of a centred detector, share their weights, so that evenly
    spaced views of a centred square with equal pixels hold an eighth of them. Weights beyond ``memory`` slow every product
    down: making them takes about ten times as long as multiplying with them (1024 x 1024, 720 views: four to five times, as
    products then wait for memory).
    """

    memory: float = 3e9

    def __post_init__(self) -> None:
        if not self.memory >= 0:
            raise InputError(f"memory is a number of bytes, at least 0, not {self.memory}")

    def prepare(self, rays: Rays, dtype: torch.dtype, device: torch.device) -> Projection:
        """The weights, built when they are first used."""
        return JosephWeights(rays, dtype, device, self.memory)


@dataclass(frozen=True)
class FourierSlice:
    """The Fourier slice theorem with finufft (``pip install sciml[nufft]``), to a relative ``accuracy``.

    The image is the band-limited interpolant of the values at the pixel centres, up to the frequency ``pi / h`` (h the
    smaller pixel size), and the bins are points. Fast, small, and as accurate as asked for images that are smooth on the
    scale of a pixel. *Fails when* the image has sharp edges: projections then ring by about a tenth of the jump. Single
    precision reaches 1e-6. On CUDA it needs cufinufft, which may differ in the last digits from run to run.
    """

    accuracy: float = 1e-5

    def __post_init__(self) -> None:
        if not 1e-15 <= self.accuracy <= 0.1:
            raise InputError(f"accuracy is a relative error between 1e-15 and 0.1, not {self.accuracy}")
        engine(torch.device("cpu"))

    def prepare(self, rays: Rays, dtype: torch.dtype, device: torch.device) -> Projection:
        """Frequencies and phases; plans are made when they are first used."""
        return SliceTransform(rays, dtype, device, self.accuracy)


@dataclass(frozen=True, eq=False)
class Radon(LinearOperator):
    """Line integrals of images on ``pixels`` (two axes) for ``angles`` (views,) in radians: data ``(..., 1, views, bins)``.

    ``pitch`` is the spacing of the bins (default: that of the pixels, the smaller one), ``bins`` their number (default:
    enough for the whole box at every angle), ``centre`` the position of the rotation axis, which is the origin of
    ``pixels``, on the detector, measured from its middle. The dtype and device of the operator are those of ``angles``.
    The set-up is made at the first use and kept for all operators of the same geometry.

    Raises InputError for images that are not two-dimensional, angles that are not a finite list, bins or a pitch that are
    not positive, and a detector that no ray through the box meets; warns of angles that look like degrees. A detector that
    is narrower than the object is allowed: ``covers`` tells. No derivative with respect to the angles. *Fails when* the
    data are means over wide bins or broad beams: the model is then too sharp.
    """

    pixels: Pixels
    angles: Tensor = field(metadata={"shared": True})
    bins: int = None  # type: ignore[assignment]  # None: resolved below
    pitch: float = None  # type: ignore[assignment]
    centre: float = 0.0
    route: Route = field(default_factory=RayDriven, metadata={"opaque": True})

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, Pixels):
            raise InputError(f"Radon takes images on Pixels((nx, ny), extent), not on {self.pixels!r}")
        if isinstance(self.route, type) or not callable(getattr(self.route, "prepare", None)):
            raise InputError(f"route is {self.route!r}; give RayDriven() or FourierSlice()")
        for name, given in (("bins", self.bins), ("pitch", self.pitch), ("centre", self.centre)):
            number = isinstance(given, SupportsFloat) and not isinstance(given, bool)
            if not number and (given is not None or name == "centre"):
                raise InputError(f"{name} is {given!r}; give Radon a number for it, or leave it out")
        if self.pixels.dim != 2:
            raise InputError(f"Radon takes images with two axes, not {self.pixels.dim}; slice a volume along its third")
        angles = self.angles if isinstance(self.angles, Tensor) else torch.as_tensor(self.angles, dtype=torch.float64)
        if angles.ndim != 1 or angles.numel() == 0:
            raise InputError(
                f"angles are a list with one number (radians) per view, not of shape {tuple(angles.shape)}"
            )
        angles = angles if angles.dtype in (torch.float32, torch.float64) else angles.to(torch.float64)
        pitch = min(self.pixels.spacing) if self.pitch is None else float(self.pitch)
        if not 0 < pitch < math.inf:
            raise InputError(f"pitch is the spacing of the detector bins, a positive length, not {self.pitch}")
        if not math.isfinite(self.centre):
            raise InputError(f"centre is the position of the rotation axis on the detector, not {self.centre}")
        reach = math.hypot(*(max(abs(low), abs(high)) for low, high in _box(self.pixels)))
        bins = math.ceil(2 * (reach + abs(self.centre)) / pitch - 1e-9) if self.bins is None else self.bins
        if not math.isfinite(bins) or bins != int(bins) or bins < 1:
            raise InputError(f"bins is the number of detector bins, at least 1, not {self.bins}")
        for name, value in (("angles", angles), ("pitch", pitch), ("bins", int(bins)), ("centre", float(self.centre))):
            object.__setattr__(self, name, value)
        if not _abstract(angles):
            self.validate("this scan")
            spread = float(angles.detach().max() - angles.detach().min())
            if spread > 2 * math.pi + 0.1:
                low, high = float(angles.detach().min()), float(angles.detach().max())
                warnings.warn(
                    f"the angles run from {low:.6g} to {high:.6g}, more than a turn in radians; if these are degrees, "
                    "pass torch.deg2rad(angles)",
                    stacklevel=3,
                )

    def validate(self, name: str) -> None:
        """Raise InputError for angles that are not finite and for a detector that the object never meets."""
        bad = (~torch.isfinite(self.angles.detach())).nonzero()
        if len(bad):
            view = int(bad[0])
            raise InputError(f"{name}: angle {view} is {float(self.angles[view])}; drop that view or correct its angle")
        low, high = self._shadow()
        at, half = self.positions, self.pitch / 2
        if bool((high <= at[0] - half).all() | (low >= at[-1] + half).all()):
            raise InputError(
                f"{name}: the detector reaches from {float(at[0] - half):.6g} to {float(at[-1] + half):.6g} and the object "
                f"projects onto {float(low.min()):.6g} to {float(high.max()):.6g}, never on it; correct centre, or the "
                "origin of the pixels"
            )

    @property
    def space(self) -> Space:
        """Images of one channel."""
        return self.pixels.space(1, self.angles.dtype, self.angles.device)

    @property
    def codomain(self) -> Space:
        """Sinograms ``(1, views, bins)``."""
        return Space(None, (1, len(self.angles), self.bins), dtype=self.angles.dtype, device=self.angles.device)

    @property
    def unit(self) -> str:
        """One over the unit of length of the pixels: line integrals have none."""
        return "1" if self.pixels.unit == "1" else f"{self.pixels.unit}-1"

    @property
    def positions(self) -> Tensor:
        """``s_k``, float64, on the CPU: where the bins are."""
        return (torch.arange(self.bins, dtype=torch.float64) - (self.bins - 1) / 2) * self.pitch - self.centre

    @property
    def covers(self) -> bool:
        """Whether the detector takes in the whole box at every angle; if not, the data are truncated."""
        low, high = self._shadow()
        at, reach = self.positions, self.pitch * (0.5 + 1e-9)
        return bool((at[0] - reach <= low.min()) & (high.max() <= at[-1] + reach))

    def _shadow(self) -> tuple[Tensor, Tensor]:
        """Where the projection of the box begins and ends, per view."""
        angle = self.angles.detach().to("cpu", torch.float64)
        corners = [x * angle.cos() + y * angle.sin() for x in _box(self.pixels)[0] for y in _box(self.pixels)[1]]
        ends = torch.stack(corners)
        return ends.amin(0), ends.amax(0)

    def __call__(self, u: Tensor) -> Tensor:
        self._check(u, self.space.shape, "an image")
        return self._apply(u, False)

    def adjoint(self, v: Tensor) -> Tensor:
        """Back-projection without filter, the transpose of the weights: plain sums, no factor for the number of views."""
        self._check(v, self.codomain.shape, "a sinogram")
        return self._apply(v, True)

    def backproject_filtered(self, data: Tensor, window: Window) -> Tensor:
        """Filtered back-projection of sinograms ``(..., 1, views, bins)``: an approximate inverse, in units of the image.

        The views may cover half a turn or a whole one, evenly or not. Pixel-driven and with linear interpolation, whatever
        the route; differentiable in the data. *Fails when* views are few (streaks), the detector is too narrow (see
        ``covers``; bright rim), or a wedge of angles is missing.
        """
        self._check(data, self.codomain.shape, "a sinogram")
        angles = self.angles.detach().to(torch.float64)
        flat = ramped(data.reshape(-1, *self.codomain.shape[1:]), self.pitch, window)
        flat = flat * view_weights(angles).to(data)[:, None]
        x, y = self.pixels.coordinates(torch.float64, data.device)
        image = smeared(flat, (x, y), angles, self.pitch, float(self.positions[0]))
        return image.reshape(*data.shape[:-3], *self.space.shape)

    def _check(self, u: Tensor, shape: tuple[int, ...], what: str) -> None:
        if tuple(u.shape[-3:]) != shape:
            raise InputError(f"Radon takes {what} of shape (..., {', '.join(map(str, shape))}), not {tuple(u.shape)}")
        if u.dtype.to_real() != self.angles.dtype:
            raise InputError(
                f"{what} of {u.dtype} does not go with angles of {self.angles.dtype}; change one with .to(dtype)"
            )
        if self.angles.requires_grad and torch.is_grad_enabled():
            raise InputError("Radon has no derivative with respect to its angles; pass angles.detach()")

    def _apply(self, u: Tensor, transposed: bool) -> Tensor:
        if u.is_complex():
            return torch.complex(self._apply(u.real, transposed), self._apply(u.imag, transposed))
        return _pair(u, self, transposed)

    def _raw(self, u: Tensor, transposed: bool) -> Tensor:
        """The map or its transpose on leading axes of any number, without derivative."""
        shape = self.space.shape if transposed else self.codomain.shape
        if _abstract(u) or _abstract(self.angles) or u.numel() == 0:
            return u.new_empty((*u.shape[:-3], *shape))
        prepared = self._prepared()
        flat = u.reshape(-1, *u.shape[-2:])
        image = prepared.adjoint(flat) if transposed else prepared.forward(flat)
        return image.reshape(*u.shape[:-3], *shape)

    def _prepared(self) -> Projection:
        angles = self.angles.detach()
        stamp = None if angles.is_inference() else self.angles._version
        held = self.__dict__.get("_key")
        if held is None or held[0] != stamp or stamp is None:
            geometry = (self.pixels.shape, self.pixels.spacing, self.pixels.corner, self.bins, self.pitch, self.centre)
            key = (*geometry, self.route, angles.dtype, angles.device, angles.cpu().numpy().tobytes())
            held = (stamp, key)
            self.__dict__["_key"] = held
        return _kept(held[1], self._prepare)

    def _prepare(self) -> Projection:
        rays = Rays(
            (self.pixels.shape[0], self.pixels.shape[1]),
            (self.pixels.spacing[0], self.pixels.spacing[1]),
            (self.pixels.corner[0], self.pixels.corner[1]),
            self.angles.detach().cpu().numpy().astype(np.float64),
            self.positions.numpy(),
        )
        return self.route.prepare(rays, self.angles.dtype, self.angles.device)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_key"}


class _Pair(torch.autograd.Function):
    """The map and its transpose, each the derivative of the other."""

    @staticmethod
    def forward(u: Tensor, operator: Radon, transposed: bool) -> Tensor:
        return operator._raw(u, transposed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Radon, bool], output: Tensor) -> None:
        ctx.operator, ctx.transposed = inputs[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _pair(grad, ctx.operator, not ctx.transposed), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _pair(tangent, ctx.operator, ctx.transposed)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int, None, None], u: Tensor, operator: Radon, transposed: bool
    ) -> tuple[Tensor, int]:
        return _pair(u.movedim(in_dims[0], 0), operator, transposed), 0


def _pair(u: Tensor, operator: Radon, transposed: bool) -> Tensor:
    return _Pair.apply(u, operator, transposed)  # type: ignore[no-any-return, no-untyped-call]


_LOCK = threading.RLock()
_HELD: OrderedDict[Any, Projection] = OrderedDict()


def _kept(key: Any, make: Callable[[], Projection]) -> Projection:
    """The set-up of a geometry; those not used for the longest time go when the memory is full."""
    with _LOCK:
        if key in _HELD:
            _HELD.move_to_end(key)
            return _HELD[key]
        made = _HELD[key] = make()
        while len(_HELD) > 1 and sum(projection.nbytes for projection in _HELD.values()) > HELD:
            _HELD.popitem(last=False)
        return made


def _box(pixels: Pixels) -> tuple[tuple[float, float], ...]:
    """Lower and upper end along every axis."""
    return tuple((low, low + length) for low, length in zip(pixels.corner, pixels.extent, strict=True))


def _abstract(u: Tensor) -> bool:
    """Whether a tensor has a shape only: on the meta device, or while torch traces shapes."""
    return u.is_meta or isinstance(u, torch._subclasses.FakeTensor)


def example() -> Radon:
    """Seven views of a small uneven box."""
    angles = torch.arange(7, dtype=torch.float64) * (math.pi / 7)
    return Radon(Pixels((9, 14), (1.0, 2.0)), angles)
