r"""Stationary kernels with unit variance, product by product of axes, and their derivatives in closed form.

``k(x, x') = product over axes of k_a(x_a - x'_a)``, and ``D^a_x D^b_x' k = product of (-1)^(b_a) k_a^(a_a + b_a)``. A kernel with
``derivatives`` continuous derivatives along an axis has draws with half as many in mean square (Rasmussen and Williams, Gaussian Processes for
Machine Learning, 2006, chapter 4).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["AxisCovariance", "Kernel", "Matern", "SquaredExponential"]


@dataclass(frozen=True)
class Kernel(ABC):
    """Abstract: ``length`` is the correlation length, one number or one per axis, in units of the domain."""

    length: float | tuple[float, ...] = 1.0
    derivatives: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        lengths = self.length if isinstance(self.length, tuple) else (self.length,)
        if not all(math.isfinite(one) and one > 0 for one in lengths):
            raise InputError(f"{type(self).__name__}(length={self.length}): lengths are positive numbers")

    def lengths(self, dim: int) -> tuple[float, ...]:
        """One length per axis; InputError if there are as many as some other dimension has axes."""
        if not isinstance(self.length, tuple):
            return (float(self.length),) * dim
        if len(self.length) != dim:
            raise InputError(f"the kernel has {len(self.length)} lengths, the domain {dim} axes; give one for each")
        return tuple(map(float, self.length))

    @property
    def smooth(self) -> float:
        """How many continuous derivatives ``k_a`` has."""
        return self.derivatives

    @abstractmethod
    def along(self, r: Tensor, length: float, order: int) -> Tensor:
        """The derivative of that order of ``k_a`` at distances ``r`` with sign."""

    @abstractmethod
    def reach(self, length: float) -> float:
        """The distance beyond which the kernel is below rounding."""


@dataclass(frozen=True)
class SquaredExponential(Kernel):
    """``exp(-r^2 / (2 length^2))``: draws are analytic. *Fails when* many points lie within one length: the matrix is singular to rounding."""

    def along(self, r: Tensor, length: float, order: int) -> Tensor:
        """``(-1/length)^m He_m(r/length) exp(-r^2 / (2 length^2))`` with the Hermite polynomials ``He_m``."""
        s = r / length
        before, now = torch.zeros_like(s), torch.ones_like(s)
        for m in range(order):
            before, now = now, s * now - m * before
        return now * torch.exp(-s.square() / 2) * (-1 / length) ** order

    def reach(self, length: float) -> float:
        """Nine lengths: ``exp(-40.5)``."""
        return 9.0 * length


@dataclass(frozen=True)
class Matern(Kernel):
    """The Matern kernel of order ``smoothness + 1/2``: draws have ``smoothness`` derivatives in mean square.

    ``exp(-s) p(s)`` with ``s = sqrt(2 smoothness + 1) |r| / length`` and a polynomial ``p`` of degree ``smoothness``.
    """

    smoothness: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.smoothness <= 12:
            raise InputError(f"Matern(smoothness={self.smoothness}): an integer from 0 to 12")

    @property
    def smooth(self) -> float:
        """Twice the smoothness of draws."""
        return 2.0 * self.smoothness

    def along(self, r: Tensor, length: float, order: int) -> Tensor:
        """``(sign(r) a)^m q_m(s) exp(-s)`` with ``q_(m+1) = q_m' - q_m``, ``a = s / |r|``."""
        p, a = self.smoothness, math.sqrt(2 * self.smoothness + 1) / length
        q = [0.0] * (p + 1)
        for i in range(p + 1):
            q[p - i] = (
                math.factorial(p)
                / math.factorial(2 * p)
                * math.factorial(p + i)
                / (math.factorial(i) * math.factorial(p - i))
                * 2.0 ** (p - i)
            )
        for _ in range(order):
            q = [(k + 1) * q[k + 1] - q[k] if k < p else -q[k] for k in range(p + 1)]
        s = a * r.abs()
        total = torch.full_like(s, q[p])
        for c in reversed(q[:p]):
            total = total * s + c
        sign = torch.sign(r) if order % 2 else torch.ones_like(r)
        return sign * a**order * total * torch.exp(-s)

    def reach(self, length: float) -> float:
        """``exp(-45)`` times a polynomial."""
        return (45.0 + 5 * self.smoothness) * length / math.sqrt(2 * self.smoothness + 1)


@dataclass(frozen=True, eq=False)
class AxisCovariance:
    """The prior along one axis: the kernel, summed over periods or conditioned on what holds at the ends.

    ``ends`` are pairs ``(point, {order: factor})``: ``sum of factor * d^order u = 0`` there. A product kernel that is conditioned on such a
    functional on a whole side, wherever on the side, is again a product: that of the conditioned axis and the others.
    """

    kernel: Kernel
    length: float
    period: float | None = None
    ends: tuple[tuple[float, Mapping[int, float]], ...] = field(default=())

    def __call__(self, x: Tensor, a: int, y: Tensor, b: int) -> Tensor:
        """``Cov(d^a u(x), d^b u(y))``, ``(len(x), len(y))``."""
        plain = self._free(x, a, y, b)
        if not self.ends:
            return plain
        left = torch.stack([self._end(one, x, {a: 1.0})[0] for one in self.ends], 1)
        right = torch.stack([self._end(one, y, {b: 1.0})[0] for one in self.ends])
        result: Tensor = plain - left @ torch.linalg.solve(self._gram, right)
        return result

    @cached_property
    def _gram(self) -> Tensor:
        """Covariances of the functionals at the ends."""
        like = torch.zeros(0, dtype=torch.float64)
        rows = [[self._end(one, _point(other, like), other[1])[0, 0] for other in self.ends] for one in self.ends]
        return torch.stack([torch.stack(row) for row in rows])

    def _end(self, end: tuple[float, Mapping[int, float]], y: Tensor, orders: Mapping[int, float]) -> Tensor:
        """Covariance ``(1, len(y))`` of an end's functional with derivatives at ``y``."""
        total = torch.zeros(1, len(y), dtype=y.dtype)
        for a, c in end[1].items():
            for b, d in orders.items():
                total = total + c * d * self._free(_point(end, y), a, y, b)
        return total

    def _free(self, x: Tensor, a: int, y: Tensor, b: int) -> Tensor:
        r = x.unsqueeze(1) - y
        sign = -1.0 if b % 2 else 1.0
        if self.period is None:
            return sign * self.kernel.along(r, self.length, a + b)
        images = math.ceil(self.kernel.reach(self.length) / self.period) + 1
        total = torch.zeros_like(r)
        for j in range(-images, images + 1):
            total = total + self.kernel.along(r + j * self.period, self.length, a + b)
        return sign * total


def _point(end: tuple[float, Mapping[int, float]], like: Tensor) -> Tensor:
    return torch.tensor([end[0]], dtype=like.dtype)
