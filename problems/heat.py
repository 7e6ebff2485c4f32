"""The heat equation ``u_t = diffusivity * laplacian(u)`` on a box in one to three dimensions.

Every axis is periodic or has Dirichlet (``u = g``) and Neumann (``diffusivity du/dn = h``) sides, with data constant in time.
The start is a sum of the smoothest eigenfunctions of the sides with random amplitudes, so that with homogeneous data the
exact solution is known. Second-order differences in space (exact derivatives if all axes are periodic); in time every mode is
integrated exactly.

*Fails when* a start does not meet its side data: a boundary layer grows in from the side that the first times must resolve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from sciml.core import Continuous, Evolution, Law
from sciml.core.continuous import At
from sciml.core.law import no_law
from sciml.discretise import Diffusion, Spectrum
from sciml.domains import Dirichlet, Grid, InputError, Neumann, Periodic, Space, member_generator
from sciml.solvers import Collocation, ExponentialRungeKutta
from sciml.training import Reflection, Translation

MODES = 4  # eigenfunctions per axis in the start


def supply(t: float, u: Tensor, *, diffusivity: Tensor, space: Space) -> Tensor:
    """What the side data add to the rate: ``diffusivity * g / h^2`` beside a Dirichlet side, ``2 h / spacing`` at a Neumann one."""
    grid = cast(Grid, space.domain)
    k = diffusivity if diffusivity.ndim else diffusivity.expand(1, 1, *[1] * grid.dim)
    load = Diffusion(grid, k).load(torch.zeros(1, 1, *grid.shape, dtype=u.dtype, device=u.device))
    return (load / space.weights(u.dtype)).expand_as(u)


def interior(at: At) -> Tensor:
    """``u_t - diffusivity laplacian(u)``."""
    return at.dt - at["diffusivity"] * sum((at.d(i, i) for i in range(len(at.x))), torch.zeros_like(at.x[0]))


def on_side(at: At, name: str, *, conditions: Mapping[str, tuple[str, float | None]]) -> Tensor:
    """``u - g`` or ``diffusivity du/dn - h``; data that vary along the side are the parameter of that name."""
    kind, number = conditions[name]
    value: float | Tensor = at[name] if number is None else number
    if kind == "dirichlet":
        return at.u - value
    outward = 1.0 if name.endswith("upper") else -1.0
    return at["diffusivity"] * outward * at.d("xyz".index(name[0])) - value


def heat(u: Tensor, *, space: Space) -> Tensor:
    """The mean temperature plus one, so that a relative drift has a meaning; kept if no side lets heat through."""
    weights = space.weights(u.dtype).to(u.device)
    return 1 + (u * weights).flatten(1).sum(1) / weights.sum()


def problem(
    *,
    dim: int = 1,
    n: int | Sequence[int] = 127,
    diffusivity: float | Tensor = 0.1,
    extent: float | Sequence[float] = 1.0,
    sides: Any = None,
    times: Sequence[float] = (0.0, 0.5, 1.0),
    start: Tensor | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Evolution:
    """One member: the first that ``draw`` gives for this seed, or a ``start`` on the grid.

    ``sides`` is one condition for all sides or a mapping as for ``Grid`` (None: ``Dirichlet(0)``); ``n`` counts unknowns per axis.
    """
    return draw(
        1,
        dim=dim,
        n=n,
        diffusivity=diffusivity,
        extent=extent,
        sides=sides,
        times=times,
        start=start,
        seed=seed,
        dtype=dtype,
    )


def draw(
    count: int,
    *,
    seed: int = 0,
    dim: int = 1,
    n: int | Sequence[int] = 127,
    diffusivity: float | Tensor = 0.1,
    extent: float | Sequence[float] = 1.0,
    sides: Any = None,
    times: Sequence[float] = (0.0, 0.5, 1.0),
    start: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> Evolution:
    """``count`` random starts; member ``i`` depends on ``seed`` and ``i`` alone, and is the same function on every grid.

    A ``start`` that is given takes their place.
    """
    k = torch.as_tensor(diffusivity, dtype=dtype)
    if not bool((k > 0).all()) or k.ndim > 1:
        raise InputError(f"the diffusivity is {diffusivity}; give a positive number, or one per member")
    shape = (n,) * dim if isinstance(n, int) else tuple(n)
    if len(shape) != dim:
        raise InputError(f"n={n} has {len(shape)} entries for dim={dim}; give one number for all axes or one per axis")
    grid = Grid(shape, extent, sides=Dirichlet(0.0) if sides is None else sides)  # type: ignore[arg-type]
    if k.ndim:
        k = k.reshape(-1, 1, *[1] * dim)
    space = grid.space(1, dtype, k.device)
    fed = any(
        isinstance(getattr(c, "value", 0.0), Tensor) or getattr(c, "value", 0.0) != 0
        for pair in grid.conditions
        for c in pair
    )
    exact = None
    if start is None:
        amplitudes = torch.stack([_amplitudes(seed, i, dim) for i in range(count)])
        start = _series(grid, amplitudes, torch.zeros(1), 0.0).to(k.device, dtype)
        if not fed:
            rates = k.detach().to("cpu", torch.float64).reshape(-1)
            exact = torch.stack([_series(grid, amplitudes, rates, float(t)) for t in times], 1).to(k.device, dtype)
    closed = all(not isinstance(c, Dirichlet) for pair in grid.conditions for c in pair) and not fed
    return Evolution(
        f"heat, diffusivity {_text(k)}",
        space=space,
        start=start.to(k.device, dtype),
        times=tuple(times),
        stiff=Spectrum(grid, diffusivity=k),
        rest=Law(supply, diffusivity=k) if fed else Law(no_law),
        referee=Collocation(),
        invariants={"heat": partial(heat, space=grid.space(1))} if closed else {},
        continuous=Continuous(interior, partial(on_side, conditions=_conditions(grid))),
        symmetries=_symmetries(grid, fed),
        exact=exact,
    )


def solver(problem: Any) -> ExponentialRungeKutta:
    """Every mode exactly; steps only where side data feed in."""
    return ExponentialRungeKutta()


def _amplitudes(seed: int, index: int, dim: int) -> Tensor:
    """Random amplitudes of the first eigenfunctions, smaller for shorter waves."""
    generator = member_generator(seed, index)
    number = torch.arange(1, MODES + 1, dtype=torch.float64)
    size = sum(
        (number.square().reshape([-1 if a == axis else 1 for a in range(dim)]) for axis in range(dim)), torch.zeros(())
    )
    return torch.randn((MODES,) * dim, generator=generator, dtype=torch.float64) / size


def _series(grid: Grid, amplitudes: Tensor, diffusivity: Tensor, t: float) -> Tensor:
    """The sum of eigenfunctions at time ``t``: ``(batch, 1, *shape)``."""
    bases, square = [], torch.zeros((1,) * grid.dim, dtype=torch.float64)
    for axis, (x, length, kinds) in enumerate(zip(grid.coordinates(), grid.extent, grid.kinds(), strict=True)):
        basis, wave = _eigenfunctions(x / length, kinds)
        bases.append(basis)
        square = square + (wave / length).square().reshape([-1 if a == axis else 1 for a in range(grid.dim)])
    u = amplitudes * torch.exp(-t * diffusivity.reshape(-1, *[1] * grid.dim) * square)
    for axis, basis in enumerate(bases):
        u = torch.movedim(torch.tensordot(u, basis, dims=([1 + axis], [0])), -1, 1 + axis)
    return u.unsqueeze(1)


def _eigenfunctions(x: Tensor, kinds: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """The first eigenfunctions of the unit interval ``(MODES, n)`` and their wave numbers."""
    number = torch.arange(MODES, dtype=torch.float64)
    if kinds[0] == "periodic":
        wave = 2 * math.pi * ((number + 1) // 2)
        return torch.where((number % 2 == 1)[:, None], torch.sin(wave[:, None] * x), torch.cos(wave[:, None] * x)), wave
    shift = {("dirichlet", "dirichlet"): 1.0, ("neumann", "neumann"): 0.0}.get(kinds, 0.5)
    wave = math.pi * (number + shift)
    phase = wave[:, None] * x
    return torch.sin(phase) if kinds[0] == "dirichlet" else torch.cos(phase), wave


def _conditions(grid: Grid) -> dict[str, tuple[str, float | None]]:
    found: dict[str, tuple[str, float | None]] = {}
    for axis, pair in enumerate(grid.conditions):
        for side, condition in zip(("lower", "upper"), pair, strict=True):
            if isinstance(condition, Dirichlet | Neumann):
                value = condition.value
                kind = type(condition).__name__.lower()
                found[f"{'xyz'[axis]}_{side}"] = (kind, None if isinstance(value, Tensor) else float(value))
    return found


def _symmetries(grid: Grid, fed: bool) -> tuple[Any, ...]:
    if all(isinstance(pair[0], Periodic) for pair in grid.conditions):
        return (Translation(), Reflection())
    mirrored = all(a == b for a, b in grid.kinds()) and not fed
    return (Reflection(),) if mirrored else ()


def _text(k: Tensor) -> str:
    low, high = float(k.detach().min()), float(k.detach().max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
