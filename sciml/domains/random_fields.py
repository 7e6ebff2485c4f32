"""Gaussian random fields on grids, drawn in the eigenbasis of the Laplacian."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.domains.grid import Grid

__all__ = ["GaussianField", "member_generator"]


def member_generator(*words: int | str) -> torch.Generator:
    """The generator of one member of a batch: of its seed, its number and what is drawn, as in ``(seed, 3, "noise")``.

    All go through a hash, so that members are independent of one another and of how many there are.
    """
    text = " ".join(str(word) for word in words)
    word = hashlib.sha256(text.encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(word, "little") >> 1)


@dataclass(frozen=True)
class GaussianField:
    r"""Centred Gaussian field with covariance proportional to ``(-laplacian + shift)^(-power)``.

    On periodic axes the eigenfunctions are the Fourier modes, elsewhere the cosines (zero flux at the ends), so that the
    field is defined up to the boundary. With ``deviation`` given, the amplitude is scaled so that the pointwise standard
    deviation, averaged over the domain, is that number; without it, mode ``k`` has standard deviation
    ``scale (|k|^2 + shift)^(-power / 2)`` against orthonormal eigenfunctions of the box, as in the data sets of
    Li et al. (arXiv 2010.08895), where ``k`` is the angular wave number.

    The field does not depend on the grid: the modes are drawn in a fixed order, so the same seed gives the same function
    on a finer grid, up to the ``modes`` per axis that are kept (the coarser of the two decides what is seen).
    """

    power: float = 2.0
    shift: float = 9.0
    scale: float = 1.0
    deviation: float | None = None
    mean_mode: bool = False
    modes: int = 64

    def sample(self, grid: Grid, count: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
        """``count`` fields of shape ``(count, 1, *grid.shape)``; drawn on the CPU in float64, then cast."""
        if count < 1:
            raise InputError(f"count is {count}; draw at least one member")
        bases, waves = [], []
        for axis, points, length, origin in zip(grid.axes(), grid.coordinates(), grid.extent, grid.origin, strict=True):
            basis, wave = _modes(points - origin, length, axis.periodic, self.modes)
            bases.append(basis)
            waves.append(wave)
        energy = torch.zeros((), dtype=torch.float64)
        for i, wave in enumerate(waves):
            energy = energy + wave.square().reshape([-1 if j == i else 1 for j in range(grid.dim)])
        amplitude = self.scale * (energy + self.shift).clamp_min(1e-300).pow(-self.power / 2)
        if not self.mean_mode:
            amplitude[(0,) * grid.dim] = 0.0
        if self.deviation is not None:
            volume = math.prod(grid.extent)
            amplitude = amplitude * (self.deviation * math.sqrt(volume) / amplitude.square().sum().sqrt())
        field = amplitude * torch.randn((count, *amplitude.shape), generator=generator, dtype=torch.float64)
        for at, basis in enumerate(bases):
            field = torch.movedim(torch.tensordot(field, basis, dims=([1 + at], [0])), -1, 1 + at)
        return field.unsqueeze(1).to(dtype)


def _modes(x: Tensor, length: float, periodic: bool, modes: int) -> tuple[Tensor, Tensor]:
    """Orthonormal eigenfunctions ``(mode, point)`` of an interval and their angular wave numbers."""
    if periodic:
        order = (torch.arange(2 * (modes // 2) + 1) + 1) // 2
        wave = 2 * math.pi * order.to(torch.float64) / length
        cosine = torch.arange(len(order)) % 2 == 1
        phase = wave[:, None] * x
        basis = torch.where(cosine[:, None], torch.cos(phase), torch.sin(phase)) * math.sqrt(2 / length)
    else:
        wave = math.pi * torch.arange(modes, dtype=torch.float64) / length
        basis = torch.cos(wave[:, None] * x) * math.sqrt(2 / length)
    basis[0] = 1 / math.sqrt(length)
    return basis, wave
