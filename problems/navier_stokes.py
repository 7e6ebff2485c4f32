r"""Incompressible flow in the plane, periodic, in vorticity form, as learned operators are tried on.

    w_t + v . grad w = viscosity laplacian(w) + force,    -laplacian(psi) = w,    v = (d_y psi, -d_x psi).

The default box, force and start are those of Li et al., arXiv 2010.08895: the unit square, force ``0.1 (sin s + cos s)`` with
``s = 2 pi (x / L_x + y / L_y)``, and a centred Gaussian field of covariance ``scale^2 (-laplacian + shift)^(-power)`` without
its constant mode. They write the factor 7^(3/2) for the covariance; it is taken for the amplitude here, ``scale = 7^(3/2)``
with ``shift`` 49 and ``power`` 2.5 (pass ``scale=7**0.75`` for the other reading). Lengths are in units of the box, times in
units in which the force has this size; their viscosities are 1e-3, 1e-4 and 1e-5.

Pseudo-spectral (Fourier, two-thirds rule), integrated with ETDRK4. With the two-thirds rule transport makes neither energy
nor enstrophy; both are told, and without a force so is any rise of either.

*Fails when* the grid does not resolve the smallest eddies, about ``L / sqrt(Re)``: the steps are still certified, but enstrophy
piles up at the highest waves; compare with a larger ``n``. Turbulent flows are chaotic: after a while two grids differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from sciml.core import Evolution, Law
from sciml.discretise import Spectrum
from sciml.discretise.spectral import modes
from sciml.domains import GaussianField, Grid, InputError, Periodic, Space, member_generator
from sciml.domains.numbers import numbers
from sciml.solvers import Collocation, ExponentialRungeKutta
from sciml.training import Translation

WAVES = 64  # functions of the random field along an axis: 32 waves on the period


class Factors(NamedTuple):
    """Multipliers on half of the spectrum, ``(n_x, n_y / 2 + 1)``."""

    velocity_x: Tensor  # from vorticity
    velocity_y: Tensor
    gradient_x: Tensor
    gradient_y: Tensor
    mixed: Tensor  # -(d_x^2 - d_y^2), to be applied to v_x v_y
    normal: Tensor  # -d_x d_y, to be applied to v_y^2 - v_x^2
    stream: Tensor  # 1 / |k|^2


@cache
def factors(shape: tuple[int, int], extent: tuple[float, float], dtype: torch.dtype, device: torch.device) -> Factors:
    """The multipliers of a periodic box; the unpaired highest mode has no odd derivative, the mean no velocity."""
    waves = modes(Grid(shape, extent, sides=Periodic()), dtype, device)
    x, y = waves.odd
    inverse = torch.where(waves.square > 0, 1 / waves.square.clamp_min(1e-30), torch.zeros_like(waves.square))
    none = torch.zeros_like(inverse)
    return Factors(
        torch.complex(none, y * inverse),
        torch.complex(none, -x * inverse),
        torch.complex(none, x + none),
        torch.complex(none, y + none),
        x * x - y * y,
        x * y,
        inverse,
    )


def _factors(space: Space, device: torch.device, dtype: torch.dtype) -> Factors:
    grid = cast(Grid, space.domain)
    return factors(cast("tuple[int, int]", grid.shape), cast("tuple[float, float]", grid.extent), dtype, device)


def velocity(w: Tensor, space: Space) -> tuple[Tensor, Tensor]:
    """The components of the velocity that a vorticity ``(..., x, y)`` induces."""
    f, v = _factors(space, w.device, w.dtype), torch.fft.rfft2(w)
    return torch.fft.irfft2(f.velocity_x * v, s=w.shape[-2:]), torch.fft.irfft2(f.velocity_y * v, s=w.shape[-2:])


def transport(w: Tensor, space: Space) -> Tensor:
    """``v . grad w``."""
    f, hat = _factors(space, w.device, w.dtype), torch.fft.rfft2(w)
    x, y = velocity(w, space)
    size = w.shape[-2:]
    slope: Tensor = x * torch.fft.irfft2(f.gradient_x * hat, s=size) + y * torch.fft.irfft2(f.gradient_y * hat, s=size)
    return slope


def rest(t: float, w: Tensor, *, force: Tensor, space: Space) -> Tensor:
    """``force - v . grad w``."""
    return force - transport(w, space)


def rest_of_modes(t: float, hat: Tensor, *, force: Tensor, space: Space) -> Tensor:
    """The same on the coefficients of a real FFT, with four transforms for the transport instead of seven.

    ``v . grad w = (d_x^2 - d_y^2)(v_x v_y) + d_x d_y (v_y^2 - v_x^2)``, as the velocity has no divergence.
    """
    size = space.shape[-2:]
    f = _factors(space, hat.device, force.dtype)
    x = torch.fft.irfft2(f.velocity_x * hat, s=size)
    y = torch.fft.irfft2(f.velocity_y * hat, s=size)
    cross, normal = torch.fft.rfft2(x * y), torch.fft.rfft2((y - x) * (y + x))
    return torch.addcmul(torch.fft.rfft2(force) + f.mixed * cross, f.normal, normal)


def mean(w: Tensor) -> Tensor:
    """The mean vorticity, which a torus keeps at zero, plus one, so that a relative drift has a meaning."""
    return 1 + w.mean((-3, -2, -1))


def kinetic_energy(problem: Evolution, w: Tensor) -> Tensor:
    """``mean(|v|^2) / 2``."""
    x, y = velocity(w, problem.space)
    return (x.square() + y.square()).flatten(1).mean(1) / 2


def enstrophy(problem: Evolution, w: Tensor) -> Tensor:
    """``mean(w^2) / 2``."""
    return w.square().flatten(1).mean(1) / 2


def energy_balance(w: Tensor, *, space: Space) -> Tensor:
    """One plus the energy that transport makes, as a share of what it moves: ``mean(psi v . grad w)``, which is zero."""
    w, psi = _resolved(w, space)
    return _share(psi, w, space)


def enstrophy_balance(w: Tensor, *, space: Space) -> Tensor:
    """One plus the enstrophy that transport makes, as a share of what it moves: ``mean(w v . grad w)``, which is zero."""
    w, _ = _resolved(w, space)
    return _share(w, w, space)


def _resolved(w: Tensor, space: Space) -> tuple[Tensor, Tensor]:
    """Vorticity and stream function of the waves that the two-thirds rule keeps."""
    hat = Spectrum(cast(Grid, space.domain), _plain).dealias(torch.fft.rfft2(w))
    stream = _factors(space, w.device, w.dtype).stream * hat
    return torch.fft.irfft2(hat, s=w.shape[-2:]), torch.fft.irfft2(stream, s=w.shape[-2:])


def _share(weigh: Tensor, w: Tensor, space: Space) -> Tensor:
    product = (weigh * transport(w, space)).flatten(1)
    return 1 + product.mean(1) / product.abs().mean(1).clamp_min(torch.finfo(product.dtype).tiny)


def problem(
    *,
    n: int | Sequence[int] = 64,
    viscosity: float | Tensor = 1e-3,
    extent: float | Sequence[float] = 1.0,
    times: Sequence[float] = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0),
    start: Tensor | None = None,
    force: Tensor | float | None = None,
    scale: float = 7.0**1.5,
    shift: float = 49.0,
    power: float = 2.5,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Evolution:
    """One member: the first that ``draw`` gives for this seed, or a ``start``, a vorticity of the grid's shape.

    ``force`` is a field on the grid, or 0 for none (None: the force of Li et al.); ``viscosity`` one number, or one per member.
    """
    return draw(1, **locals())


def draw(
    count: int,
    *,
    seed: int = 0,
    n: int | Sequence[int] = 64,
    viscosity: float | Tensor = 1e-3,
    extent: float | Sequence[float] = 1.0,
    times: Sequence[float] = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0),
    start: Tensor | None = None,
    force: Tensor | float | None = None,
    scale: float = 7.0**1.5,
    shift: float = 49.0,
    power: float = 2.5,
    dtype: torch.dtype = torch.float64,
) -> Evolution:
    """``count`` random starts; member ``i`` depends on ``seed`` and ``i`` alone, and is the same function on every grid."""
    nu = torch.as_tensor(viscosity, dtype=dtype)
    if not bool((nu > 0).all()) or nu.ndim > 1:
        raise InputError(f"the viscosity is {viscosity}; give a positive number, or one per member")
    shape = (n, n) if isinstance(n, int) else tuple(n)
    if len(shape) != 2:
        raise InputError(f"n={n} has {len(shape)} entries; this flow is planar: give one number, or one per axis")
    grid = Grid(shape, extent, sides=Periodic())  # type: ignore[arg-type]
    space = grid.space(1, dtype, nu.device)
    x, y = (2 * math.pi * p / length for p, length in zip(grid.points(), grid.extent, strict=True))
    if force is None:
        push, pushed = 0.1 * (torch.sin(x + y) + torch.cos(x + y)), "force of Li et al."
    elif numbers("force", force).ndim:
        push, pushed = numbers("force", force), "given force"
    elif float(force) == 0.0:
        push, pushed = torch.zeros(shape, dtype=torch.float64), "no force"
    else:
        raise InputError(
            f"the force is {force}: a mean vorticity that grows does not exist on a torus; give a field, or 0"
        )
    if start is None:
        field = GaussianField(power=power, shift=shift, scale=scale, modes=WAVES)
        unit = Grid(tuple(max(m, 2 * WAVES) for m in shape), (1.0, 1.0), sides=Periodic())
        drawn = torch.cat([field.sample(unit, 1, member_generator(seed, i)) for i in range(count)])
        start, origin = _on(drawn, shape), f"start of covariance {scale**2:.4g} (-laplacian + {shift:g})^-{power:g}"
    else:
        start, origin = numbers("start", start), "given start"
    for name, value in (("start", start), ("force", push)):
        centre = value.double().flatten(-2).mean(-1).abs().max()
        if float(centre) > 1e-6 * max(float(value.abs().max()), 1e-300):
            raise InputError(
                f"the {name} has the mean {float(centre):.3g}; the mean vorticity of a periodic flow is zero: subtract it"
            )
    push = push.to(nu.device, dtype)
    stiff = Spectrum(grid, _diffusion, viscosity=nu)
    free = pushed == "no force"
    return Evolution(
        f"navier-stokes, viscosity {_text(nu)}, extent {grid.extent[0]:g} x {grid.extent[1]:g}, {pushed}, {origin}",
        space=space,
        start=start.to(nu.device, dtype),
        times=tuple(times),
        rest=Law(rest, force=push),
        rest_modes=Law(rest_of_modes, force=push),
        stiff=stiff,
        referee=Collocation(),
        invariants={
            "mean": mean,
            "energy balance": partial(energy_balance, space=grid.space(1)),
            "enstrophy balance": partial(enstrophy_balance, space=grid.space(1)),
        },
        decreasing={"energy": kinetic_energy, "enstrophy": enstrophy} if free else {},
        symmetries=(Translation(),) if free else (),
    )


def solver(problem: Any) -> ExponentialRungeKutta:
    """ETDRK4 with steps that a pilot run chooses."""
    return ExponentialRungeKutta()


def _on(fields: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same trigonometric functions on a grid of ``shape``, without the waves that it does not carry."""
    for axis, n in zip((-2, -1), shape, strict=True):
        m = fields.shape[axis]
        if n < m:
            hat = torch.fft.rfft(fields, dim=axis).narrow(axis, 0, (n + 1) // 2)
            fields = torch.fft.irfft(hat, n=n, dim=axis) * (n / m)
    return fields


def _diffusion(modes: Any, *, viscosity: Tensor) -> Tensor:
    return -viscosity * modes.square


def _plain(modes: Any) -> Tensor:
    return -modes.square


def _text(nu: Tensor) -> str:
    low, high = float(nu.detach().min()), float(nu.detach().max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
