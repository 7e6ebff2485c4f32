"""A plate that is heated inside, cooled at two ends, and insulated below: ``-div(k grad u) = f``. Copy this file to begin your own.

``sciml.problem("examples/plate.py", n=(200, 120))`` loads it like a catalogue entry: the settings stand in the recipe, the
recommended solver is ``solver``, and ``batch=8`` draws random members with ``draw``. Lengths in metres, temperatures in kelvin
above the surroundings.

*Fails when* the conductivity varies faster than the grid.
"""

from __future__ import annotations

from typing import Any

import torch

from sciml import Dirichlet, GaussianField, Grid, Linear, Neumann
from sciml.discretise import Diffusion
from sciml.solvers import ConjugateGradient, Multigrid


def grid_of(n: int | tuple[int, int], top: float) -> Grid:
    """Two metres by 1.2: cold ends, an insulated lower side, a given temperature above."""
    shape = (n, 3 * n // 5) if isinstance(n, int) else tuple(n)
    return Grid(shape, (2.0, 1.2), {"x": Dirichlet(0.0), "y": (Neumann(0.0), Dirichlet(top))})


def problem(
    *,
    n: int | tuple[int, int] = 100,
    heating: float = 1.0,
    top: float = 1.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Linear:
    """One plate with a conductivity that grows along both sides; ``seed`` is for ``draw``. ``n`` alone keeps cells square."""
    grid = grid_of(n, top)
    x, y = grid.points(dtype)
    return Linear("plate", Diffusion(grid, 1 + x * y), heating * torch.sin(3 * x))


def draw(count: int, *, seed: int = 0, **settings: Any) -> Linear:
    """Plates with random log-normal conductivities."""
    one = problem(**settings)
    generator = torch.Generator().manual_seed(seed)
    field = GaussianField(deviation=0.5).sample(one.operator.grid, count, generator, one.space.dtype)
    return one.replace(coefficient=field.exp())


def solver(problem: Any) -> ConjugateGradient:
    """Conjugate gradients with one multigrid cycle as preconditioner."""
    return ConjugateGradient(preconditioner=Multigrid())
