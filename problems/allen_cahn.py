r"""The Allen-Cahn equation ``u_t = width^2 laplacian(u) + u - u^3`` on a box in one to three dimensions.

The gradient flow of ``E(u) = integral of width^2 |grad u|^2 / 2 + (1 - u^2)^2 / 4``: two phases, ``u = 1`` and ``u = -1``, part
within a few units of time; the layers between them, ``tanh(x / (sqrt(2) width))``, about ``4 width`` thick, then move by their
curvature. ``E`` never grows; its largest rise is told beside the certificate. Time is in units of the reaction, lengths in
those of the extent (Allen and Cahn, Acta Metall. 27, 1979, doi 10.1016/0001-6160(79)90196-2).

Every axis is periodic or has zero flux (``Neumann(0)``, the default) or the value zero (``Dirichlet(0)``). Second-order
differences in space, exact derivatives if all axes are periodic, and along every periodic axis the two-thirds rule for the
reaction; in time ETDRK4.

Known solutions: on the line a front invades the unstable state, ``u = (1 - tanh((x - c t) / (2 sqrt(2) width))) / 2`` with
``c = 3 width / sqrt(2)``, and the layer above stands still.

*Fails when* ``width`` is less than about two cells: layers are then pinned to the grid and stand where they should move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from sciml.core import Continuous, Evolution, Law
from sciml.core.continuous import At
from sciml.discretise import Spectrum
from sciml.domains import Dirichlet, GaussianField, Grid, InputError, Neumann, Periodic, member_generator
from sciml.domains.numbers import numbers
from sciml.solvers import Collocation, ExponentialRungeKutta
from sciml.training import Reflection, Translation

WAVES = 16  # functions of the random start along an axis


def reaction(t: float, u: Tensor) -> Tensor:
    """``u - u^3``."""
    return u - u * u * u


def free_energy(problem: Evolution, u: Tensor) -> Tensor:
    """``E(u)`` with the differences and quadrature of the grid, of which the discrete equation is the gradient flow."""
    stiff = cast(Spectrum, problem.stiff)
    bent = -u * stiff.inverse(stiff.symbol * stiff.forward(u)) / 2
    well = (1 - u * u).square() / 4
    return ((bent + well) * problem.space.weights(u.dtype).to(u.device)).flatten(1).sum(1)


def interior(at: At) -> Tensor:
    """``u_t - width^2 laplacian(u) - u + u^3``."""
    bent = sum((at.d(i, i) for i in range(len(at.x))), torch.zeros_like(at.x[0]))
    return at.dt - at["width"].square() * bent - at.u + at.u * at.u * at.u


def on_side(at: At, name: str) -> Tensor:
    """The derivative across the side."""
    return at.d("xyz".index(name[0]))


def on_value(at: At, name: str) -> Tensor:
    """The value on the side."""
    return at.u


def problem(
    *,
    dim: int = 2,
    n: int | Sequence[int] = 64,
    width: float | Tensor = 0.03,
    extent: float | Sequence[float] = 1.0,
    sides: Any = None,
    times: Sequence[float] = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0),
    start: Tensor | None = None,
    deviation: float = 0.1,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Evolution:
    """One member: the first that ``draw`` gives for this seed, or a ``start`` on the grid.

    ``sides`` is one condition for all sides or a mapping as for ``Grid`` (None: ``Neumann(0)``); ``n`` counts unknowns per axis.
    """
    return draw(1, **locals())


def draw(
    count: int,
    *,
    seed: int = 0,
    dim: int = 2,
    n: int | Sequence[int] = 64,
    width: float | Tensor = 0.03,
    extent: float | Sequence[float] = 1.0,
    sides: Any = None,
    times: Sequence[float] = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0),
    start: Tensor | None = None,
    deviation: float = 0.1,
    dtype: torch.dtype = torch.float64,
) -> Evolution:
    """``count`` random starts, smooth fields of standard deviation ``deviation`` about zero.

    Member ``i`` depends on ``seed`` and ``i`` alone, and is the same function on every grid.
    """
    thin = torch.as_tensor(width, dtype=dtype)
    if not bool((thin > 0).all()) or thin.ndim > 1:
        raise InputError(f"the width is {width}; give a positive number, or one per member")
    shape = (n,) * dim if isinstance(n, int) else tuple(n)
    if len(shape) != dim:
        raise InputError(f"n={n} has {len(shape)} entries for dim={dim}; give one number for all axes or one per axis")
    if not deviation >= 0:
        raise InputError(f"the deviation is {deviation}; it is the standard deviation of the random start")
    grid = Grid(shape, extent, sides=Neumann(0.0) if sides is None else sides)  # type: ignore[arg-type]
    for condition in (one for pair in grid.conditions for one in pair):
        value = getattr(condition, "value", 0.0)
        if not isinstance(condition, Periodic | Neumann | Dirichlet) or isinstance(value, Tensor) or value != 0:
            raise InputError(f"allen_cahn has Neumann(0), Dirichlet(0) or Periodic() sides, not {condition}")
    origin = "given start"
    if start is not None:
        start = numbers("start", start)
    else:
        field = GaussianField(power=4.0, shift=400.0, deviation=deviation, mean_mode=True, modes=WAVES)
        unit = Grid(shape, 1.0, sides=grid.sides)  # type: ignore[arg-type]
        start = torch.cat([field.sample(unit, 1, member_generator(seed, i)) for i in range(count)])
        origin = f"random start of deviation {deviation:g}"
    return Evolution(
        f"allen-cahn, width {_text(thin)}, {origin}",
        space=grid.space(1, dtype, thin.device),
        start=start.to(thin.device, dtype),
        times=tuple(times),
        rest=Law(reaction),
        stiff=Spectrum(grid, _diffusion, width=thin),
        referee=Collocation(),
        decreasing={"energy": free_energy},
        continuous=_strong(grid),
        symmetries=_symmetries(grid),
    )


def solver(problem: Any) -> ExponentialRungeKutta:
    """ETDRK4 with steps that a pilot run chooses."""
    return ExponentialRungeKutta()


def _diffusion(modes: Any, *, width: Tensor) -> Tensor:
    return -width.square() * modes.square


def _strong(grid: Grid) -> Continuous | None:
    """The strong form, where all sides are alike."""
    kinds = {type(one) for pair in grid.conditions for one in pair}
    if kinds == {Periodic}:
        return Continuous(interior)
    return Continuous(interior, {Neumann: on_side, Dirichlet: on_value}[kinds.pop()]) if len(kinds) == 1 else None


def _symmetries(grid: Grid) -> tuple[Any, ...]:
    if all(isinstance(pair[0], Periodic) for pair in grid.conditions):
        return (Translation(), Reflection())
    return (Reflection(),) if all(a == b for a, b in grid.kinds()) else ()


def _text(width: Tensor) -> str:
    low, high = float(width.detach().min()), float(width.detach().max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
