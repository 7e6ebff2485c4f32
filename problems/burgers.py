"""Burgers' equation ``u_t + u u_x = viscosity u_xx``, periodic on ``[0, length)``, from a random smooth start.

The start is a centred Gaussian field of ``x / length`` in ``[0, 1)`` with covariance ``scale^2 (-laplacian + shift)^(-power)``
without its constant mode; the defaults, 625 (-laplacian + 25)^-2, are those of Li et al., arXiv 2010.08895. Figures about
Burgers' equation mean nothing without viscosity, length and field: all three stand in the settings and in the name.
Pseudo-spectral in space (Fourier, two-thirds rule), integrated with ETDRK4.

*Fails when* the shock, about ``4 viscosity / jump`` wide, is not resolved by ``length / n``: the steps are then still
certified, but the grid is not adequate; compare with a larger ``n``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from sciml.core import Continuous, Evolution, Law
from sciml.core.continuous import At
from sciml.discretise import Spectrum, derivative
from sciml.domains import GaussianField, Grid, InputError, Periodic, Space
from sciml.solvers import Collocation, ExponentialRungeKutta
from sciml.training import Translation

WAVES = 128  # functions of the random field: 64 waves on the period


def transport(t: float, u: Tensor, *, space: Space) -> Tensor:
    """``-u u_x`` in conservation form."""
    return derivative(-0.5 * u.square(), 0, space)


@cache
def _factor(n: int, length: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``-i k / 2`` on half of the spectrum; the unpaired highest mode has no derivative."""
    k = torch.arange(n // 2 + 1, dtype=dtype, device=device) * (2 * math.pi / length)
    if n % 2 == 0:
        k[-1] = 0.0
    return torch.complex(torch.zeros_like(k), -0.5 * k)


def transport_of_modes(t: float, v: Tensor, *, space: Space) -> Tensor:
    """The same on the coefficients of a real FFT: two transforms instead of four."""
    n = space.shape[-1]
    u = torch.fft.irfft(v, n=n)
    return _factor(n, cast(Grid, space.domain).extent[0], u.dtype, u.device) * torch.fft.rfft(u * u)


def interior(at: At) -> Tensor:
    """``u_t + u u_x - viscosity u_xx``."""
    return at.dt + at.u * at.d(0) - at["viscosity"] * at.d(0, 0)


def momentum(u: Tensor) -> Tensor:
    """The mean plus one, so that a relative drift has a meaning."""
    return 1 + u.mean((-2, -1))


def problem(
    *,
    n: int = 1024,
    viscosity: float | Tensor = 0.01,
    length: float = 1.0,
    times: Sequence[float] = (0.0, 0.5, 1.0),
    start: Tensor | None = None,
    scale: float = 25.0,
    shift: float = 25.0,
    power: float = 2.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Evolution:
    """One member: the first that ``draw`` gives for this seed, or a ``start`` of shape ``(n,)`` or ``(batch, 1, n)``."""
    return draw(1, **locals())


def draw(
    count: int,
    *,
    seed: int = 0,
    n: int = 1024,
    viscosity: float | Tensor = 0.01,
    length: float = 1.0,
    times: Sequence[float] = (0.0, 0.5, 1.0),
    start: Tensor | None = None,
    scale: float = 25.0,
    shift: float = 25.0,
    power: float = 2.0,
    dtype: torch.dtype = torch.float64,
) -> Evolution:
    """``count`` random starts; member ``i`` depends on ``seed`` and ``i`` alone, and is the same function on every grid.

    A ``start`` that is given takes their place.
    """
    nu = torch.as_tensor(viscosity, dtype=dtype)
    if not bool((nu > 0).all()) or nu.ndim > 1:
        raise InputError(f"the viscosity is {viscosity}; give a positive number, or one per member")
    grid = Grid((n,), (float(length),), sides=Periodic())
    if start is None:
        field = GaussianField(power=power, shift=shift, scale=scale, modes=WAVES)
        unit = Grid((max(n, 2 * WAVES),), (1.0,), sides=Periodic())
        start = torch.cat([field.sample(unit, 1, _generator(seed, i)) for i in range(count)])
        if n < 2 * WAVES:  # without the waves that this grid does not carry
            modes = torch.fft.rfft(start)[..., : (n + 1) // 2]
            start = torch.fft.irfft(modes, n=n) * (n / (2 * WAVES))
        start = start.to(dtype)
        origin = f"start of covariance {scale**2:g} (-laplacian + {shift:g})^-{power:g}"
    else:
        start, origin = start.to(dtype), "given start"
    return Evolution(
        f"burgers, viscosity {_text(nu)}, length {length:g}, {origin}",
        space=grid.space(1, dtype, nu.device),
        start=start.to(nu.device),
        times=tuple(times),
        rest=Law(transport),
        rest_modes=Law(transport_of_modes),
        stiff=Spectrum(grid, _diffusion, viscosity=nu),
        referee=Collocation(),
        invariants={"mean": momentum},
        continuous=Continuous(interior),
        symmetries=(Translation(),),
    )


def solver(problem: Any) -> ExponentialRungeKutta:
    """ETDRK4 with steps that a pilot run chooses."""
    return ExponentialRungeKutta()


def _diffusion(modes: Any, *, viscosity: Tensor) -> Tensor:
    return -viscosity * modes.square


def _text(nu: Tensor) -> str:
    low, high = float(nu.detach().min()), float(nu.detach().max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _generator(seed: int, index: int) -> torch.Generator:
    """Independent of the other members: both numbers go through a hash."""
    word = hashlib.sha256(f"{seed} {index}".encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(word, "little") >> 1)
