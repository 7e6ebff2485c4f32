r"""How far a reduced solution is from the full one, from its own residual.

Let ``u' = F(u)`` be the full model and ``v`` another function of time with residual ``r = F(v) - v'``. In the inner product of the space

    |u - v|' <= mu |u - v| + |r|,     mu = the largest eigenvalue of the symmetric part of F'(v),

if the remainder of ``F`` behind its derivative does no work on the error, as for linear laws and for transport ``-(u^2/2)_x`` on a
periodic line (Dahlquist 1958; Soderlind, BIT 46, 2006, doi 10.1007/s10543-006-0069-9); for other laws the bound holds to first order in the
error. ``mu`` may be large where fronts are steep, and a bound from the residual of few modes is then far too large. So the residual is that of a
richer reduced solution ``w``, and

    |u - v| <= |w - v| + integral of the above for w:

the first term is nearly the error, the second small. ``mu`` is taken on the span of the richer modes, integrals are
sums over nodes that crowd at the start with the larger of the end values of each interval.

*Fails when* errors grow most in directions that the richer modes do not hold, or the nodes miss a peak of the residual.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.learned._galerkin import Interpolated, SmallSystem, full_rate
from sciml.learned._pointwise import slope
from sciml.solvers._semidiscrete import Semidiscrete

__all__ = ["bound_of", "nodes_of"]

NODES = 64
CROWD = 14  # halvings of the first interval
GROWTH_MODES = 48


def nodes_of(problem: Evolution) -> tuple[float, ...]:
    """Times at which residuals are taken: the wanted ones, evenly spaced ones between them, and crowded ones at the start."""
    begin, end = problem.begin, problem.times[-1]
    wanted = sorted({begin, *problem.times})
    found = {begin, *wanted}
    for a, b in pairwise(wanted):
        parts = max(1, round(NODES * (b - a) / max(end - begin, 1e-300)))
        found.update(a + (b - a) * i / parts for i in range(1, parts))
    nodes = sorted(found)
    if len(nodes) > 1:
        first = nodes[1] - begin
        nodes += [begin + first * 2.0**-k for k in range(1, CROWD + 1)]
    return tuple(sorted(set(nodes)))


def bound_of(problem: Evolution, rich: SmallSystem, nodes: tuple[float, ...], states: Tensor) -> Tensor:
    """The bound of ``|u - w|`` at the nodes, ``(batch, nodes)``, for the richer solution's coefficients ``(batch, nodes, 1, r)``."""
    system, space = Semidiscrete(problem), problem.space
    start = problem.start.expand(problem.batch, *space.shape)
    sizes, rates = [], []
    for j, t in enumerate(nodes):
        a = states[:, j]
        w = rich.field(a)
        residual = full_rate(problem, system, t, w) - rich.field(rich.rate(t, a))
        sizes.append(space.norm(residual))
        rates.append(_growth(rich, a))
    total = space.norm(start - rich.field(states[:, 0]))
    bounds = [total]
    for j, (here, there) in enumerate(pairwise(nodes)):
        mu, size = torch.maximum(rates[j], rates[j + 1]), torch.maximum(sizes[j], sizes[j + 1])
        z = mu * (there - here)
        gain = torch.where(
            z.abs() < 1e-8, torch.ones_like(z), torch.expm1(z) / torch.where(z == 0, torch.ones_like(z), z)
        )
        total = torch.exp(z) * total + (there - here) * gain * size
        bounds.append(total)
    return torch.stack(bounds, 1)


def _growth(rich: SmallSystem, a: Tensor) -> Tensor:
    """The logarithmic norm at ``(batch, 1, r)`` on the span of the modes."""
    matrix = rich.matrix.expand(a.shape[0], -1, -1)
    if isinstance(rich.rest, Interpolated):
        matrix = matrix + rich.rest.slope(a.squeeze(1))
    elif rich.rest is not None:
        law, space, begin = rich.evolution.rest, rich.evolution.space, rich.evolution.begin
        unit = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        columns = [slope(law, space, begin, a, e.expand(a.shape)).squeeze(1) for e in unit]
        matrix = matrix + torch.stack(columns, -1)
    matrix = matrix[:, :GROWTH_MODES, :GROWTH_MODES]
    values: Tensor = torch.linalg.eigvalsh((matrix + matrix.mT) / 2)[:, -1]
    return values
