r"""Counted data: photons that arrive one by one, in emission (``PoissonNoise``) and in transmission (``TransmissionNoise``).

With ``lam`` the expected counts, the energy is Poisson's deviance over two, ``sum lam - y + y log(y / lam)``: zero where
``lam = y``. Pearson's ``sum (y - lam)^2 / lam`` has expectation ``dof`` exactly.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sciml.core.noise import Noise, across, total
from sciml.domains.errors import InputError

__all__ = ["PoissonNoise", "TransmissionNoise"]


def _wide(value: float | Tensor, like: Tensor) -> Tensor:
    """A parameter that broadcasts against the data; ``(batch,)`` is one number per member."""
    one = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return one.reshape(-1, *[1] * (like.ndim - 1)) if one.ndim == 1 else one


def _number(kind: str, what: str, value: Any) -> None:
    # Transformations of trees put other leaves in the place of tensors for a while.
    if value is None or isinstance(value, str | bool | type):
        raise InputError(f"{kind}: {what} is {value!r}; give expected counts, a number or a tensor")


def _deviance(expected: Tensor, y: Tensor) -> Tensor:
    """``lam - y + y log(y / lam)`` in double precision; infinite where ``lam < 0`` or where counts were expected to be none."""
    lam, y = expected.to(torch.float64), y.to(torch.float64)
    some = (y > 0) & (lam > 0)
    ratio = torch.where(some, lam / y.clamp_min(1e-300), 1.0) - 1
    value = torch.where(some, y * (ratio - ratio.log1p()), lam)
    return value.masked_fill((lam < 0) | ((y > 0) & (lam <= 0)), math.inf)


class _Counts(Noise):
    """Abstract: what the two have in common, given the expected counts."""

    @abstractmethod
    def expected(self, z: Tensor) -> Tensor:
        """The mean counts of the prediction."""

    def _mask(self, r: Tensor) -> Tensor:
        return r if self.measured is None else torch.where(self.measured, r, torch.zeros_like(r))

    def chi_square(self, z: Tensor, y: Tensor) -> Tensor:
        """Pearson's ``sum (y - lam)^2 / lam``; infinite where counts came and none were expected."""
        lam = self.expected(z).to(torch.float64)
        square = (y.to(torch.float64) - lam).square()
        return total(self._mask(torch.where(square > 0, square / lam.clamp_min(0), torch.zeros_like(square))))

    def sample(self, z: Tensor, *, generator: torch.Generator) -> Tensor:
        """Whole numbers drawn with mean ``lam``; unmeasured ones are zero."""
        lam = self.expected(z)
        if not bool((lam >= 0).all()):
            raise InputError(f"counts cannot be drawn with mean {float(lam.min()):.3g}; the prediction is too low")
        drawn = torch.poisson(lam.to(generator.device, torch.float64), generator=generator)
        return self._mask(drawn.to(z.device, z.dtype))

    def log_likelihood(self, z: Tensor, y: Tensor) -> Tensor:
        """``sum y log(lam) - lam - log(y!)``."""
        lam, counts = self.expected(z).to(torch.float64), y.to(torch.float64)
        return total(self._mask(torch.special.xlogy(counts, lam) - lam - (counts + 1).lgamma()))

    def validate(self, name: str, y: Tensor) -> None:
        """The data must be counts: whole numbers, none below zero."""
        super().validate(name, y)
        if y.is_complex():
            raise InputError(
                f"{name!r}: the data are complex; counts are whole numbers, for complex data use GaussianNoise"
            )
        seen = self._mask(y)
        if bool((seen < 0).any()):
            raise InputError(
                f"{name!r}: the data are {float(seen.min()):.3g} at their least; counts are not negative (are these logarithms, or was a dark field taken off? use GaussianNoise, or the raw counts with background=)"
            )
        if bool((seen != seen.round()).any()):
            raise InputError(
                f"{name!r}: the data hold {float(seen[seen != seen.round()][0]):.6g}, which is no whole number of counts; pass the raw counts, or use GaussianNoise for values that were scaled or averaged"
            )


def _broadcasts(name: str, what: str, value: Tensor, y: Tensor) -> None:
    try:
        value.expand(y.shape)
    except RuntimeError:
        raise InputError(
            f"{name!r}: {what} has shape {tuple(value.shape)}, the data {tuple(y.shape)}; give a number, one per member, or one per datum"
        ) from None


@dataclass(frozen=True, eq=False)
class PoissonNoise(_Counts):
    """Counts ``y ~ Poisson(z + background)``: the prediction ``z`` is in counts (emission tomography, microscopy).

    ``background`` (darks, scatter, randoms) is a number or a tensor that broadcasts against the data; ``(batch,)`` gives one
    per member. The energy is infinite where ``z + background`` is negative, or zero where counts came; keep images
    non-negative. ``bend`` is the exact second derivative ``y / lam^2``, which grows without bound towards ``lam = 0``.
    """

    background: float | Tensor = 0.0
    measured: Tensor | None = field(default=None, metadata={"told": True})

    def __post_init__(self) -> None:
        _number("PoissonNoise", "background", self.background)

    def expected(self, z: Tensor) -> Tensor:
        """``lam = z + background``."""
        return z + _wide(self.background, z)

    def energy(self, z: Tensor, y: Tensor) -> Tensor:
        """``sum lam - y + y log(y / lam)``."""
        return total(self._mask(_deviance(self.expected(z), y)))

    def slope(self, z: Tensor, y: Tensor) -> Tensor:
        """``1 - y / lam``."""
        return self._mask(1 - _ratio(y, self.expected(z)))

    def bend(self, r: Tensor, z: Tensor, y: Tensor) -> Tensor:
        """``y / lam^2 r``."""
        lam = self.expected(z)
        return self._mask(_ratio(_ratio(y, lam), lam) * r)

    def _scale(self, y: Tensor) -> Tensor:
        return y.clamp_min(1.0).rsqrt()

    def whiten(self, r: Tensor, y: Tensor) -> Tensor:
        """``r / sqrt(max(y, 1))``."""
        return self._mask(r * self._scale(y))

    def unwhiten(self, q: Tensor, y: Tensor) -> Tensor:
        """The same: the map is diagonal."""
        return self._mask(q * self._scale(y))

    def whitened_slope(self, z: Tensor, y: Tensor) -> Tensor:
        """The slope over the scale of the whitening."""
        return self.slope(z, y) / self._scale(y)

    def conjugate(self, q: Tensor, y: Tensor) -> Tensor:
        """``-s background - y log(1 - s)`` with ``s`` the dual in the units of one over counts; infinite for ``s > 1``.

        Unmeasured components must be zero.
        """
        s = (q * self._scale(y)).to(torch.float64)
        counts = y.to(torch.float64)
        value = -s * _wide(self.background, y) - torch.special.xlogy(counts, (1 - s).clamp_min(0))
        value = value.masked_fill(s > 1 + _slack(q), math.inf)
        return total(_unseen(self.measured, value, q))

    def dual_prox(self, q: Tensor, step: Tensor, y: Tensor) -> Tensor:
        """The positive root of a quadratic for ``1 - s = y / lam``."""
        w = self._scale(y)
        amount = across(step, y) * w.square()
        a = 1 - w * q - amount * _wide(self.background, y)
        c = amount * y
        root = (a.square() + 4 * c).sqrt()
        u = torch.where(a >= 0, (a + root) / 2, 2 * c / (root - a).clamp_min(torch.finfo(y.dtype).tiny))
        return self._mask((1 - u) / w)

    def validate(self, name: str, y: Tensor) -> None:
        """Counts, and a background that is not negative."""
        super().validate(name, y)
        _background(name, _wide(self.background, y), y)


@dataclass(frozen=True, eq=False)
class TransmissionNoise(_Counts):
    """Counts ``y ~ Poisson(blank exp(-z) + background)``: ``z`` is an absorption, a line integral without unit (X-ray CT).

    ``blank`` are the counts without an object (the flat field times the dose), ``background`` darks and scatter: numbers or
    tensors that broadcast against the data; ``(batch,)`` gives one per member. The energy is shifted so that its infimum
    is zero also where fewer counts came than the background alone. ``bend`` is Fisher's information ``m^2 / lam`` with
    ``m = blank exp(-z)``, which is the second derivative when there is no background.

    With a background the energy is not convex in ``z`` (it levels off where nothing comes through), so that ``conjugate``
    and ``dual_prox`` exist without one only, and raise InputError otherwise. (Erdogan and Fessler, IEEE Trans. Med. Imaging
    18, 1999, doi 10.1109/42.802758.)
    """

    blank: float | Tensor
    background: float | Tensor = 0.0
    measured: Tensor | None = field(default=None, metadata={"told": True})

    def __post_init__(self) -> None:
        _number("TransmissionNoise", "blank", self.blank)
        _number("TransmissionNoise", "background", self.background)

    @property
    def convex(self) -> bool:
        """Whether the energy is: without background."""
        return not bool((torch.as_tensor(self.background) > 0).any())

    def _through(self, z: Tensor) -> Tensor:
        return _wide(self.blank, z) * torch.exp(-z)

    def expected(self, z: Tensor) -> Tensor:
        """``lam = blank exp(-z) + background``."""
        return self._through(z) + _wide(self.background, z)

    def energy(self, z: Tensor, y: Tensor) -> Tensor:
        """``sum lam - y + y log(y / lam)`` less its infimum."""
        floor = torch.maximum(_wide(self.background, y).expand(y.shape), y)
        return total(self._mask(_deviance(self.expected(z), y) - _deviance(floor, y)))

    def slope(self, z: Tensor, y: Tensor) -> Tensor:
        """``m (y / lam - 1)``."""
        through = self._through(z)
        return self._mask(through * (_ratio(y, through + _wide(self.background, z)) - 1))

    def bend(self, r: Tensor, z: Tensor, y: Tensor) -> Tensor:
        """``m^2 / lam r``."""
        through = self._through(z)
        return self._mask(_ratio(through, through + _wide(self.background, z)) * through * r)

    def _scale(self, y: Tensor) -> Tensor:
        return (y - _wide(self.background, y)).clamp_min(1.0) * y.clamp_min(1.0).rsqrt()

    def whiten(self, r: Tensor, y: Tensor) -> Tensor:
        """``r max(y - background, 1) / sqrt(max(y, 1))``."""
        return self._mask(r * self._scale(y))

    def unwhiten(self, q: Tensor, y: Tensor) -> Tensor:
        """The same: the map is diagonal."""
        return self._mask(q * self._scale(y))

    def whitened_slope(self, z: Tensor, y: Tensor) -> Tensor:
        """The slope over the scale of the whitening."""
        return self.slope(z, y) / self._scale(y)

    def _need_convex(self) -> None:
        if not self.convex:
            raise InputError(
                "transmission noise with a background has no convex energy, so no dual; use a solver that takes gradients, or subtract a background that is small"
            )

    def conjugate(self, q: Tensor, y: Tensor) -> Tensor:
        """``s + s log(blank) + (y - s) log(y - s) - y log y`` with ``s`` the dual in counts; infinite for ``s > y``."""
        self._need_convex()
        counts = y.to(torch.float64)
        s = (q * self._scale(y)).to(torch.float64)
        rest = (counts - s).clamp_min(0)
        value = s + s * _wide(self.blank, y).to(torch.float64).log()
        value = value + torch.special.xlogy(rest, rest) - torch.special.xlogy(counts, counts)
        value = value.masked_fill(s > counts + _slack(q) * counts.clamp_min(1.0), math.inf)
        return total(_unseen(self.measured, value, q))

    def dual_prox(self, q: Tensor, step: Tensor, y: Tensor) -> Tensor:
        """``s = y - a u`` with ``a = step W^2`` and ``u + log u = log(blank / a) + (y - W q) / a``: Lambert's function.

        Newton's method from below, 12 times, in double precision (Corless et al., Adv. Comput. Math. 5, 1996, doi 10.1007/BF02124750).
        """
        self._need_convex()
        kind = y.dtype
        w, counts, q = self._scale(y).to(torch.float64), y.to(torch.float64), q.to(torch.float64)
        a = across(step, counts) * w.square()
        level = (_wide(self.blank, counts) / a).log() + (counts - w * q) / a
        small = level.clamp_max(1.0).exp()
        u = torch.where(level > 1, level.clamp_min(1.0) - level.clamp_min(1.0).log(), small / (1 + small))
        for _ in range(12):
            u = torch.where(u > 0, u * (1 + level - u.clamp_min(1e-300).log()) / (1 + u), u)
        return self._mask(((counts - a * u) / w).to(kind))

    def validate(self, name: str, y: Tensor) -> None:
        """Counts, a positive blank, and a background that is not negative."""
        super().validate(name, y)
        blank = _wide(self.blank, y)
        _broadcasts(name, "blank", blank, y)
        if not bool((blank > 0).all()) or not bool(torch.isfinite(blank).all()):
            raise InputError(
                f"{name!r}: the blank counts are {float(blank.min()):.3g} at their least; they must be positive and finite (leave dead detectors out with measured=)"
            )
        _background(name, _wide(self.background, y), y)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, zero where ``a`` is zero whatever ``b``."""
    return torch.where(a == 0, torch.zeros_like(b), a / b)


def _slack(q: Tensor) -> float:
    return float(16 * torch.finfo(q.dtype).eps)


def _unseen(measured: Tensor | None, value: Tensor, q: Tensor) -> Tensor:
    """Where nothing was measured the energy is zero, and its conjugate infinite but at zero."""
    if measured is None:
        return value
    return torch.where(measured, value, torch.where(q == 0, 0.0, math.inf).to(value.dtype))


def _background(name: str, background: Tensor, y: Tensor) -> None:
    _broadcasts(name, "background", background, y)
    if not bool((background >= 0).all()) or not bool(torch.isfinite(background).all()):
        raise InputError(
            f"{name!r}: the background is {float(background.min()):.3g} at its least; mean counts are finite and not negative"
        )
