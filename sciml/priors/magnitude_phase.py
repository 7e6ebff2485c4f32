r"""Complex images from a real prior: a real image times a phase.

With the phase ``\phi`` of each pixel, ``w = e^{-i \phi} x`` is a real image up to a small imaginary part, and

.. math:: R(x) = R_{inner}(\mathrm{Re}\, w) + |\mathrm{Im}\, w|^2 / (2 \tau^2).

The two parts are independent, so the proximal map and the posterior mean act on each by itself: the inner prior's on the real
part, a shrinkage ``\tau^2 / (\tau^2 + step)`` or ``\tau^2 / (\tau^2 + \sigma^2)`` on the imaginary one. Both are exact for a phase that is given.
Phase-constrained reconstruction in magnetic resonance: Bydder and Robson, Magn. Reson. Med. 53 (2005), doi 10.1002/mrm.20536.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sciml.core.noise import across, total
from sciml.core.prior import Denoising, Energy, Generative, Prior, Proximable
from sciml.domains.errors import InputError
from sciml.domains.space import Space
from sciml.priors._phase import blurred
from sciml.priors._shapes import broadcasts

__all__ = ["MagnitudePhase", "example"]


@dataclass(frozen=True, eq=False)
class MagnitudePhase(Prior):
    r"""``inner`` for the real image, ``phase`` in radians, broadcasting against ``(channel, *space)``, or None for one that the image tells.

    Without a phase it is taken from the image at hand: the argument of its average over about ``smooth`` pixels (a Gaussian window), for images
    that are not negative. That follows slow phases well once the noise is lower than the image; the energy then has the phase of the
    same image, and proximal maps and means are no longer exact. ``imaginary`` is ``\tau``, in the units of the image; 0 takes the image for real.

    Keeps what ``inner`` keeps of Energy, Proximable (at every step), Denoising and Generative (which needs the phase, or draws phase 0).
    Composite priors (total variation) take complex images themselves and lose that role here.

    Raises InputError for an inner prior that is complex already, and where a method is asked that ``inner`` does not have.
    *Fails when* the phase changes within a few pixels, or the image has both signs and no phase is given (``slow_phase`` of a rough reconstruction finds one).
    """

    inner: Any
    phase: Tensor | None = field(default=None, metadata={"shared": True})
    smooth: float = 4.0
    imaginary: float = 0.0

    def __new__(cls, inner: Any = None, *args: Any, **kwargs: Any) -> MagnitudePhase:
        """An object of a class that has just the methods that ``inner`` has, so that the protocols tell the truth."""
        kinds = tuple(part for kind, part in _PARTS.items() if isinstance(inner, kind))
        return object.__new__(_with(kinds) if cls is MagnitudePhase else cls)

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Prior) or not isinstance(self.inner, Energy | Proximable | Denoising):
            raise InputError(
                f"MagnitudePhase wraps a prior of real images with an energy, a proximal map or a denoiser, not {self.inner!r}"
            )
        if not self.smooth > 0 or not self.imaginary >= 0:
            raise InputError(
                f"MagnitudePhase: smooth {self.smooth} must be positive, imaginary {self.imaginary} not negative"
            )
        if self.phase is not None and self.phase.is_complex():
            raise InputError("MagnitudePhase: the phase is complex; give angles in radians, image.angle()")

    def __reduce__(self) -> Any:
        return _again, (self.inner, self.phase, self.smooth, self.imaginary)

    def fits(self, space: Space) -> str | None:
        """Complex images, the real ones of which fit the inner prior."""
        if not (space.complex or space.dtype.is_complex):
            return "the images are real; use its inner prior"
        if self.phase is not None and not broadcasts(self.phase.shape, space.shape):
            return f"its phase has shape {tuple(self.phase.shape)}"
        reason: str | None = self.inner.fits(_real(space))
        return reason

    def on(self, space: Space) -> MagnitudePhase:
        """With the inner prior on the real images."""
        super().on(space)
        inner = self.inner.on(_real(space))
        return self if inner is self.inner else replace(self, inner=inner)

    def suited(self, size: float) -> MagnitudePhase:
        """With the inner prior in the units of these images, where it can tell."""
        change = getattr(self.inner, "suited", None)
        return self if change is None else replace(self, inner=change(size))

    def suits(self, size: float) -> bool:
        """Whether the inner prior was made for images of this size."""
        known = getattr(self.inner, "suits", None)
        return True if known is None else bool(known(size))

    @property
    def largest(self) -> float:
        """The inner prior's."""
        return float(getattr(self.inner, "largest", 1.0))

    @property
    def range(self) -> tuple[float, float] | None:
        """The inner prior's."""
        return getattr(self.inner, "range", None)

    @property
    def only_step(self) -> float | None:
        """The inner prior's."""
        return getattr(self.inner, "only_step", None)

    @property
    def levels(self) -> tuple[float, float] | None:
        """The inner prior's, or from its range."""
        from sciml.core.probability_flow import span

        return span(self.inner)

    def remaining(self, sigma: float) -> float:
        """Root mean square per real component, of the inner prior's and of the imaginary part's."""
        from sciml.core.probability_flow import remaining

        part = self.imaginary * sigma / math.hypot(self.imaginary, sigma) if self.imaginary > 0 else 0.0
        return math.sqrt((remaining(self.inner, sigma) ** 2 + part**2) / 2)

    def turn(self, x: Tensor) -> Tensor:
        """``e^{i phi}``, given or told by ``x``."""
        if self.phase is not None:
            angle = self.phase.to(x.device, x.real.dtype)
            return torch.polar(torch.ones_like(angle), angle)
        wide = x
        for axis in range(2, x.ndim):
            wide = blurred(wide, axis, self.smooth)
        size = wide.abs()
        floor = torch.finfo(size.dtype).tiny
        return torch.where(size > floor, wide / size.clamp_min(floor), torch.ones_like(wide))

    def _joined(self, turn: Tensor, w: Tensor, real: Tensor, amount: Tensor | float) -> Tensor:
        """The image of a new real part, and the imaginary one shrunk."""
        if self.imaginary == 0:
            return turn * real
        square = self.imaginary**2
        share = across(square / (square + torch.as_tensor(amount, dtype=real.dtype, device=real.device)), real)
        return turn * torch.complex(real, share * w.imag)


class _HasEnergy:
    def energy(self: Any, x: Tensor) -> Tensor:
        """The inner energy of the real part, and that of the imaginary one (infinite unless zero, where ``imaginary`` is 0)."""
        w = self.turn(x).conj() * x
        value: Tensor = self.inner.energy(w.real)
        rest = total(w.imag.square())
        if self.imaginary > 0:
            value = value + rest / (2 * self.imaginary**2)
            return value
        small = rest <= 1e3 * torch.finfo(w.real.dtype).eps ** 2 * total(w.real.square())
        return torch.where(small, value, torch.full_like(value, math.inf))


class _HasProx:
    def prox(self: Any, v: Tensor, step: Tensor | float) -> Tensor:
        """The inner proximal map of the real part, and a shrinkage."""
        turn = self.turn(v)
        w = turn.conj() * v
        found: Tensor = self._joined(turn, w, self.inner.prox(w.real, step), step)
        return found


class _HasDenoise:
    def denoise(self: Any, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The inner mean of the real part, and a shrinkage; ``sigma`` is per real component."""
        turn = self.turn(x)
        w = turn.conj() * x
        amount = torch.as_tensor(sigma, dtype=w.real.dtype, device=x.device).square()
        found: Tensor = self._joined(turn, w, self.inner.denoise(w.real, sigma), amount)
        return found


class _HasSample:
    def sample(self: Any, count: int, *, generator: torch.Generator) -> Tensor:
        """The inner prior's draws with the phase (0 where it is not given), and an imaginary part of deviation ``imaginary``."""
        real = self.inner.sample(count, generator=generator)
        n = torch.randn(real.shape, generator=generator, dtype=torch.float64, device=generator.device)
        w = torch.complex(real, self.imaginary * n.to(real))
        return w if self.phase is None else self.turn(w) * w


_PARTS: dict[Any, type] = {
    Energy: _HasEnergy, Proximable: _HasProx, Denoising: _HasDenoise, Generative: _HasSample
}  # fmt: skip
_KINDS: dict[tuple[type, ...], type] = {}


def _with(parts: tuple[type, ...]) -> type:
    """The class with these abilities, always the same one."""
    if parts not in _KINDS:
        _KINDS[parts] = type("MagnitudePhase", (*parts, MagnitudePhase), {"__doc__": MagnitudePhase.__doc__})
    return _KINDS[parts]


def _again(inner: Any, phase: Tensor | None, smooth: float, imaginary: float) -> MagnitudePhase:
    return MagnitudePhase(inner, phase, smooth, imaginary)


def _real(space: Space) -> Space:
    """The same space for real images."""
    kind = {torch.complex64: torch.float32, torch.complex128: torch.float64}.get(space.dtype, space.dtype)
    return replace(space, dtype=kind, complex=False)


def example() -> tuple[MagnitudePhase, Space]:
    """A smooth Gaussian field times a slow phase, and a small uneven space of complex images."""
    from sciml.priors.gaussian import example as field_

    prior, space = field_()
    phase = torch.linspace(0.0, 2.0, space.shape[-1], dtype=torch.float64)
    return MagnitudePhase(prior, phase, imaginary=0.05), replace(space, dtype=torch.complex128, complex=True)
