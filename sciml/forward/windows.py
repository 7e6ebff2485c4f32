"""Windows of filtered back-projection: how the ramp filter is rolled off towards the highest frequency of the detector.

A window is a function of the frequency as a fraction of the Nyquist frequency ``1 / (2 pitch)``, stretched so that it ends
at ``cutoff`` (0 < cutoff <= 1) and is zero above. Less noise costs resolution. Shepp, Logan, IEEE Trans. Nucl. Sci. 21, 1974,
doi:10.1109/TNS.1974.6499235; Kak, Slaney, Principles of Computerized Tomographic Imaging, 1988, ch. 3,
doi:10.1137/1.9780898719277.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["Cosine", "Hamming", "Hann", "RamLak", "SheppLogan", "Window", "example"]


@dataclass(frozen=True)
class Window(ABC):
    """Gain at every frequency; ``window(fraction)`` takes fractions of the Nyquist frequency.

    Raises InputError for a cutoff outside (0, 1].
    """

    cutoff: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.cutoff, int | float) or not 0 < self.cutoff <= 1:
            raise InputError(f"cutoff is a fraction of the Nyquist frequency in (0, 1], not {self.cutoff!r}")

    def __call__(self, fraction: Tensor) -> Tensor:
        """The gain, zero above the cutoff."""
        scaled = fraction.abs() / self.cutoff
        return torch.where(scaled <= 1 + 1e-12, self.shape(scaled), 0.0)

    @abstractmethod
    def shape(self, fraction: Tensor) -> Tensor:
        """The gain at fractions of the cutoff."""


@dataclass(frozen=True)
class RamLak(Window):
    """One up to the cutoff: sharpest and noisiest (Ramachandran, Lakshminarayanan, PNAS 68, 1971, doi:10.1073/pnas.68.9.2236)."""

    def shape(self, fraction: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(fraction)


@dataclass(frozen=True)
class SheppLogan(Window):
    """``sin(x) / x`` with x from 0 to pi/2."""

    def shape(self, fraction: Tensor) -> Tensor:
        """From 1 to 2/pi."""
        return torch.sinc(fraction / 2)


@dataclass(frozen=True)
class Cosine(Window):
    """``cos(x)`` with x from 0 to pi/2."""

    def shape(self, fraction: Tensor) -> Tensor:
        """From 1 to 0."""
        return torch.cos(fraction * (math.pi / 2))


@dataclass(frozen=True)
class Hann(Window):
    """``(1 + cos x) / 2`` with x from 0 to pi."""

    def shape(self, fraction: Tensor) -> Tensor:
        """From 1 to 0, flat at both ends."""
        return 0.5 + 0.5 * torch.cos(fraction * math.pi)


@dataclass(frozen=True)
class Hamming(Window):
    """``0.54 + 0.46 cos x`` with x from 0 to pi."""

    def shape(self, fraction: Tensor) -> Tensor:
        """From 1 to 0.08."""
        return 0.54 + 0.46 * torch.cos(fraction * math.pi)


def example() -> Hann:
    """Hann's window up to four fifths of the Nyquist frequency."""
    return Hann(cutoff=0.8)
